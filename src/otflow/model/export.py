"""A trained map as one StableHLO program that runs without otflow."""

from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Array, Float

from otflow.model.model import Model
from otflow.support.extras import require
from otflow.support.precision import dtype_of, precision

What = Literal["forward", "inverse", "log_prob"]


def export_program(model: Model, what: What = "forward") -> bytes:
    """The program of one map with its weights, serialised by `jax.export`.

    Args:
        model: unconditional, without bounds, arcsinh and rounding steps: programs know none.
        what: "forward" takes rows in the data's own units to the target, "inverse" the way back,
            "log_prob" gives the rows' log-density in nats and the data's own units.

    Returns:
        Bytes for `jax.export.deserialize(...).call(x)`; x is (n, d) with any n >= 1 in the flow's
        dtype, for the kind of device that exported it. A float64 program needs
        `jax.enable_x64(True)` where it is called. Points that have no safe inverse come back as
        the best that was found. The conforming scheme calls LAPACK on CPUs, which a process has to
        load first, by any call such as `jax.numpy.linalg.cholesky(jax.numpy.eye(1))`.

    Raises:
        ValueError: another `what`, a conditional flow, or columns with bounds or rounding steps.
        ImportError: flatbuffers, of the extra `otflow[export]`, is not installed.
    """
    if what not in get_args(What):
        raise ValueError(f"what: expected one of {get_args(What)}; got {what!r}.")
    flow, standardizer = model.flow, model.standardizer
    if flow.condition_dim:
        raise ValueError("model: expected an unconditional one; fix the condition with `given`.")
    if not model.chart.is_identity:
        raise ValueError(
            "column_map: expected no bounds, arcsinh or rounding steps, which no program knows; "
            "got some: fit on columns that are transformed before."
        )
    require("flatbuffers", "export")
    from jax import export

    dtype = dtype_of(flow.potential)
    mean, scale = (np.asarray(a, dtype) for a in (standardizer.mean, standardizer.scale))

    def program(x: Float[Array, "n d"]) -> Any:
        if what == "forward":
            return flow.forward((x - mean) / scale)
        if what == "inverse":
            return flow.inverse(x) * scale + mean
        return flow.log_prob((x - mean) / scale) + np.asarray(standardizer.log_det, dtype)

    with precision(dtype):
        shape = export.symbolic_shape(f"n, {flow.dim}")
        exported = export.export(jax.jit(program))(jax.ShapeDtypeStruct(shape, dtype))
        return bytes(exported.serialize())
