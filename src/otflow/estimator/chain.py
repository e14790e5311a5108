"""OTFlowChain: a density by the JKO scheme, without an alpha to tune (SPEC 7)."""

from typing import Any

import numpy as np
from sklearn.utils import validation

import otflow
from otflow.data.rows import Rows
from otflow.data.shards import ShardedTable
from otflow.estimator.blocks import Block, ChainPlan, strength
from otflow.estimator.chaining import fit_chain, together
from otflow.estimator.estimator import OTFlow
from otflow.estimator.fitting import Fitted, fit_flow
from otflow.estimator.material import Material
from otflow.estimator.settings import Settings
from otflow.flow.flow import Flow
from otflow.potentials import StageChain
from otflow.support.checks import check_count
from otflow.targets import AbstractTarget
from otflow.training import Watch


class OTFlowChain(OTFlow):
    """Flows in a row, each one proximal step of the KL on the rows that those before have moved.

    One flow of a large alpha is hard to train; a block of a moderate tau is not, and N of them
    follow the gradient flow of the KL to N(0, I). The fitted model is an `OTFlow`, whose flow is
    the composed map: all methods are those, with conditions, weights, bounds and rounded columns.

    Parameters:
        blocks: "auto" adds blocks as long as the 95 % interval of the last one's gain in held-out
            nll is above 0.05 nats, up to 12; an integer is their number.
        tau: weight of a block's nll, > 0. None starts from 1 and lets it grow so that every block
            carries the rows about as far as the first.
        joint_iter: steps in which all blocks are trained together at the end, with the alpha of
            `used("alpha")`: for densities worth more than more blocks. 0 for none: each block stays
            a proximal step.
        n_steps: time steps a block. One is Brenier's map: each block is then optimal transport
            between the laws before and after it by construction.
        max_iter: most optimiser steps a block.
        beta, width, batch_size, learning_rate, weight_decay, patience, validation_fraction,
        random_state, dtype, standardize, bounds, dequantize, arcsinh, verbose: as in `OTFlow`, of
            every block; beta is 0 by default. All together, in `joint_iter` and `partial_fit`,
            train at a fifth of learning_rate.

    Attributes:
        blocks_: what each block came to, see `otflow.estimator.blocks.Block`.
        history_: that of all blocks, one after the other, with steps and seconds added up and the
            nll of the whole chain; transport and straightness are those of the `block` in training
            (0: all together).
        n_iter_: steps behind the last block's weights, with those of the blocks before.
        status_: "early_stopping" where held-out rows ended the chain, "max_iter" where its number
            of blocks did.
        others: as in `OTFlow`.
    """

    blocks_: tuple[Block, ...]

    def __init__(
        self,
        blocks: Any = "auto",
        tau: float | None = None,
        joint_iter: int = 2000,
        n_steps: int = 1,
        max_iter: int = 500,
        beta: float | None = 0.0,
        width: int | None = None,
        batch_size: int = 512,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        patience: int = 20,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        dtype: str = "float32",
        standardize: bool = True,
        bounds: Any = None,
        dequantize: Any = None,
        arcsinh: Any = None,
        verbose: bool = True,
    ):
        super().__init__(
            n_steps=n_steps,
            max_iter=max_iter,
            beta=beta,
            width=width,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            validation_fraction=validation_fraction,
            random_state=random_state,
            dtype=dtype,
            standardize=standardize,
            bounds=bounds,
            dequantize=dequantize,
            arcsinh=arcsinh,
            verbose=verbose,
        )
        self.blocks = blocks
        self.tau = tau
        self.joint_iter = joint_iter

    def used(self, name: str) -> Any:
        """As in `OTFlow`; alpha is that of the one step that contracts the KL as the chain does."""
        return strength(self.blocks_) if name == "alpha" else super().used(name)

    def _settings(self) -> Settings:
        self._plan()
        return super()._settings()

    def _plan(self) -> ChainPlan:
        return ChainPlan(self.blocks, self.tau, self.joint_iter)

    def _train(
        self,
        settings: Settings,
        material: Material,
        target: AbstractTarget,
        seed: int,
        watch: Watch,
        start: Flow | None = None,
    ) -> Fitted:
        """The chain; from fitted weights on, all blocks together."""
        if start is not None:
            assert isinstance(material.x, Rows)
            whole = together(settings, self.blocks_, *material.x.x.shape)
            return fit_flow(whole, material, target, seed, watch, start)
        found = fit_chain(settings, self._plan(), material, target, seed, watch)
        self.blocks_ = found.blocks
        return found

    def _fit_stream(self, table: ShardedTable, settings: Settings, watch: Watch) -> "OTFlowChain":
        raise ValueError(
            "X: expected a table in memory, whose rows go from block to block; got a ShardedTable."
        )

    def block(self, number: int) -> Flow:
        """The flow of one block, from the law that the blocks before it leave.

        Args:
            number: from 1 on.

        Raises:
            ValueError, TypeError: no such block.
        """
        validation.check_is_fitted(self)
        return self._stages(check_count("number", number) - 1, number)

    def _stages(self, first: int, stop: int) -> Flow:
        """The blocks from `first` to before `stop`, counted from 0, as a flow."""
        potential = self.flow_.potential
        assert isinstance(potential, StageChain)
        N = len(potential.blocks)
        if stop > N:
            raise ValueError(f"number: expected a block from 1 to {N}; got {stop}.")
        return Flow(StageChain(potential.blocks[first:stop]), self.flow_.target)

    def certify_block(self, number: int, X: Any, **options: Any) -> Any:
        """How optimal one block is, as the transport from the law before it to that after it.

        Args:
            number: from 1 on.
            X: (n, d) rows the chain was not trained on, in the data's own units; the blocks before
                carry them to this one.
            options: of `otflow.certificates.certify`; alpha is the block's tau.

        Returns:
            A `Certificate`.

        Raises:
            As `block` and `certify`.
        """
        flow = self.block(number)
        noise = np.random.default_rng(check_count("seed", options.get("seed", 0), 0))
        z = self.model_.dequantized(X, noise)
        if number > 1:
            z = np.asarray(self._stages(0, number - 1).forward(z), np.float64)
        space = f"the law before block {number}, in the space the chain was trained in"
        own: dict[str, Any] = {"alpha": self.blocks_[number - 1].tau, "space": space}
        return otflow.certificates.certify(flow, z, **own | options)
