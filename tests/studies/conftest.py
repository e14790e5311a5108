"""Tests of studies compile more than they compute."""

import pytest

from tests.compilation import quick_compilation


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    with quick_compilation():
        yield
