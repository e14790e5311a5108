"""Models whose reports are looked at, one of each a file."""

import pytest

from otflow import OTFlow
from tests.report.documents import hostile, untrained


@pytest.fixture(scope="package")
def plane(trained) -> OTFlow:
    """A flow of moons with a hostile column name, trained for a moment."""
    return hostile(trained("conforming"))


@pytest.fixture(scope="package")
def pixels() -> OTFlow:
    """A flow of images of 4 x 4 pixels."""
    return untrained(300, 16)
