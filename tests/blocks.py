"""One compiled program for fits of the same settings: every fit traces the same one anew."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

import otflow.estimator.fitting
import otflow.training.loop as loop
from otflow.targets import StandardNormal
from otflow.training import TrainingConfig, train
from tests.fakes import train_arguments


@contextlib.contextmanager
def shared_blocks() -> Iterator[None]:
    """Within it, `otflow.training.block.make_block` is called once a scheme, target and config.

    Only for the standard normal, which has no arrays that could differ.
    """
    make_block, blocks = loop.make_block, {}
    latest: list[TrainingConfig] = []

    def train_and_tell(*args, **kwargs):
        config = train_arguments(*args, **kwargs)["config"]
        latest[:] = [dataclasses.replace(config, seed=0, merging=0.0)]
        return train(*args, **kwargs)

    def shared(scheme, target, *rest):
        if not isinstance(target, StandardNormal):
            return make_block(scheme, target, *rest)
        key = (scheme, target.dim, *latest)
        if key not in blocks:
            blocks[key] = make_block(scheme, target, *rest)
        return blocks[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otflow.estimator.fitting, "train", train_and_tell)
        patch.setattr(loop, "make_block", shared)
        yield
