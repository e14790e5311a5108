"""Models from elsewhere."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from otflow.parallel.devices import use_all_cores
from otflow.potentials.resnet import ResNetPotential
from otflow.support.precision import precision


def from_official_state(arrays: Mapping[str, object]) -> ResNetPotential:
    """The published OT-Flow code's state dictionary as a potential (names in SPEC 2).

    Args:
        arrays: `A`, `c.weight`, `c.bias`, `w.weight`, `N.layers.i.weight`, `N.layers.i.bias`;
            anything NumPy can read, CPU tensors included. The prefix `param/` may stand before
            each name. Float64 arrays stay float64 whatever JAX's global setting is.

    Raises:
        ValueError: a name is missing or unknown, or shapes disagree.
    """
    state = {name.removeprefix("param/"): np.asarray(array) for name, array in arrays.items()}
    depth = sum(name.startswith("N.layers.") and name.endswith(".weight") for name in state) - 1
    layers = range(max(depth, 1) + 1)
    expected = {"A", "c.weight", "c.bias", "w.weight"}
    expected |= {f"N.layers.{i}.{kind}" for i in layers for kind in ("weight", "bias")}
    if set(state) != expected:
        missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
        raise ValueError(f"arrays: missing {missing}, unknown {unknown}.")
    dtype = np.result_type(np.float32, *state.values())

    def array(name: str) -> Array:
        return jnp.asarray(state[name], dtype)

    use_all_cores()
    with precision(dtype):
        return ResNetPotential(
            A=array("A"),
            b=array("c.weight").reshape(-1),
            c=array("c.bias").reshape(()),
            w=array("w.weight").reshape(-1),
            weights=tuple(array(f"N.layers.{i}.weight") for i in layers),
            biases=tuple(array(f"N.layers.{i}.bias") for i in layers),
        )
