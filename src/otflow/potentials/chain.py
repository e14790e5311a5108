"""Blocks of convex stages, one after the other: the map of a chain of flows (SPEC 7)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from otflow.potentials.base import AbstractPotential, AbstractStages, EulerStep, Points, Times
from otflow.potentials.conditional import ConditionalStages
from otflow.potentials.stages import ConvexStages

_KINDS = (ConvexStages, ConditionalStages)


class StageChain(AbstractStages):
    """N blocks of K stages as one potential of N K stages: T = T_(N-1) o ... o T_0.

    As a flow the chain is a discrete flow like any other, with its N K steps in the time [0, 1]:
    its transport is the action of the whole curve, N times the sum of the blocks' own, and bounds
    1/2 W2^2(rho_0, rho_N) from above. Blocks are `ConvexStages`, or all `ConditionalStages`.

    Raises:
        ValueError, TypeError: no block, or blocks that differ in kind or shape.
    """

    blocks: tuple[AbstractPotential, ...]

    def __check_init__(self) -> None:
        kinds = {type(block) for block in self.blocks}
        if len(kinds) != 1 or not kinds <= set(_KINDS):
            names = sorted(kind.__name__ for kind in kinds)
            raise TypeError(f"blocks: expected convex stages, all of one kind; got {names}.")
        shapes = {_shapes(block) for block in self.blocks}
        if len(shapes) > 1:
            raise ValueError("blocks: expected stages of one shape; got several.")

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self.blocks[0].dim

    @property
    def n_steps(self) -> int:
        """N K."""
        return len(self.blocks) * self._steps

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition; 0 where the blocks take none."""
        return self.blocks[0].condition_dim

    @property
    def floats_per_point(self) -> int:
        """That of one block."""
        return self.blocks[0].floats_per_point

    def given(self, condition: Float[Array, "n k"] | Float[Array, " k"] | None) -> "StageChain":
        """The chain under a condition: that of every block.

        Raises:
            ValueError: as the blocks'.
        """
        return StageChain(tuple(block.given(condition) for block in self.blocks))

    def image(self, x: Points, t: Times) -> Float[Array, "n d"]:
        """Where the step at time t takes n points."""
        block, own = self._at(t)
        return block.image(x, own)

    def step(self, x: Points, t: Times) -> EulerStep:
        """The image, and the step's Jacobian."""
        block, own = self._at(t)
        return block.step(x, own)

    def convex_value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """u_k(x), whose gradient is the image."""
        block, own = self._at(t)
        return block.convex_value(x, own)

    def of_points(self, index: Int[Array, " k"]) -> "StageChain":
        """The stages of some of the points, where a condition gives every point its own."""
        return StageChain(tuple(block.of_points(index) for block in self._bound()))

    @property
    def _steps(self) -> int:
        """K."""
        found = self.blocks[0].n_steps
        assert found is not None
        return found

    def _bound(self) -> list[ConvexStages]:
        """The blocks; an error where they need a condition first."""
        found = [block.given(None) for block in self.blocks]
        return [block for block in found if isinstance(block, ConvexStages)]

    def _at(self, t: Times) -> tuple[ConvexStages, Array]:
        """The block whose stage the time is one of, and the time within it.

        One program for all blocks: the block is picked by its number, not compiled N times.
        """
        K = self._steps
        k = jnp.round(jnp.asarray(t) * self.n_steps).astype(jnp.int32)
        k = jnp.clip(k, 0, self.n_steps - 1)

        def pick(*arrays: Array) -> Array:
            return jax.lax.dynamic_index_in_dim(jnp.stack(arrays), k // K, 0, keepdims=False)

        return jax.tree.map(pick, *self._bound()), (k % K) / K


def _shapes(block: AbstractPotential) -> tuple:
    return jax.tree.structure(block), tuple(leaf.shape for leaf in jax.tree.leaves(block))
