"""Real data sets in .npz files of a folder: patches, tables, single cells, images, optimal maps.

Each loader takes `folder`, by default the one that the environment variable OTFLOW_DATA names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from otflow.datasets.tables import (
    Table,
    check_sum,
    find_file,
    numbered,
    read_arrays,
    standardised,
)
from otflow.datasets.toy import _generator, _positive_int

_SHA256 = {
    "bsds300_patches": "70b88f9029ffc20ca571670c75f681e9db2361827162c435a3ca453d37f57772",
    "embryoid_body": "c58b7fa6472441caf2cde3b68c94de6be4275781eafd57f2fb988af82ca80cc9",
    "gas_turbine": "1b3b397233022db380b9cabaf46c99fc87973533848113b5cafa45b44f724521",
    "miniboone_mini": "1b4abe4ae8d0e046f057c8fbc8e6348e7be99c87521836fa6e6e57c14d09c337",
    "mnist_t10k": "11c18edb1f5695a178768e9084cd616ad5e0fc95c565d1a278d046b5e2eb18a6",
    "sc_lineage_2d": "7f7b5f7c4e2f2a00cda7dee8a64a3c73323aa592494a6b7f81edfd776409e815",
    "w2pair_2d": "e3208a67c7e1b4f8d61220493bd2195da21c69234e481777f70582e471c77c35",
    "w2pair_32d": "51523e61ca33b499e35a4048c00a7b0895edb5b4e5f27873b8420d315c721f6d",
    "w2pair_8d": "c7893b78af95dab4033dd4fae5220f43f8cd229a4d31c4c2fda326688481fc5f",
}
_TURBINE = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP", "TEY", "CO", "NOX")
_ROUNDED = ("AP", "TIT", "TAT")  # about 800 levels each


@dataclass(frozen=True, eq=False)
class Populations:
    """Cells at several times; file's units = x * scale + shift.

    Attributes:
        x: (n, d) coordinates.
        time: (n,) when each was seen.
    """

    x: Float64[np.ndarray, "n d"]
    time: Float64[np.ndarray, " n"]
    name: str
    shift: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]
    source: str

    @property
    def times(self) -> tuple[float, ...]:
        """The times, in order."""
        return tuple(np.unique(self.time).tolist())

    def at(self, time: float) -> Float64[np.ndarray, "k d"]:
        """The cells seen at that time.

        Raises:
            ValueError: there are none.
        """
        found = self.x[self.time == time]
        if not len(found):
            raise ValueError(f"time: expected one of {self.times}; got {time}.")
        return found


@dataclass(frozen=True, eq=False)
class MapPair:
    """Two measures with a known optimal map (the continuous Wasserstein-2 benchmark).

    P is the Gaussian mixture of `weights`, `means`, `covs`; Q its image under the gradient of a
    convex function. Training rows of P and Q are independent, `x_test[i]` maps to `y_test[i]`.

    Source: Korotin et al., Do neural optimal transport solvers work? (2021).
    """

    weights: Float64[np.ndarray, " k"]
    means: Float64[np.ndarray, "k d"]
    covs: Float64[np.ndarray, "k d d"]
    x_train: Float64[np.ndarray, "n d"]
    y_train: Float64[np.ndarray, "n d"]
    x_test: Float64[np.ndarray, "m d"]
    y_test: Float64[np.ndarray, "m d"]
    half_w2_squared: float
    y_total_variance: float


def patches(folder: str | Path | None = None, seed: int = 0) -> Table:
    """Patches of the BSDS300 photographs, 63 columns: 100,000 train, 10,000 validate, 25,000 test.

    Luma 0..255 with U[0, 1) noise, divided by 256, less each patch's mean, without the last pixel;
    not z-scored. A Gaussian scores about 96 nats. Not the published file (`bsds300`).

    Raises:
        FileNotFoundError: bsds300_patches.npz is missing.
    """
    rng = _generator(seed)
    parts = []
    for x in _read("bsds300_patches", folder, "train", "val", "test"):
        x = (x + rng.random(x.shape)) / 256.0
        parts.append((x - x.mean(axis=1, keepdims=True))[:, :-1])
    names, source = numbered("pixel_", parts[0].shape[1]), "bsds300_patches.npz: dequantised"
    return standardised(tuple(parts), "patches", names, source, standardise=False)


def miniboone_mini(folder: str | Path | None = None, seed: int = 0) -> Table:
    """2,831 signal events of MINIBOONE, 43 columns: shuffled, cut 80/10/10, z-scored.

    Likelihoods cannot be compared with those of all 36,488 events (`miniboone`).

    Raises:
        FileNotFoundError: miniboone_mini.npz is missing.
    """
    (x,) = _read("miniboone_mini", folder, "X")
    parts = _shuffled(x, _generator(seed))
    names = numbered("x", x.shape[1])
    return standardised(parts, "miniboone_mini", names, "miniboone_mini.npz: z-scored")


def gas_turbine(folder: str | Path | None = None, seed: int = 0) -> Table:
    """36,733 hours of a gas turbine, 11 columns: shuffled, cut 80/10/10, z-scored.

    The columns of about 800 levels get uniform noise of a thousandth of their deviation.

    Raises:
        FileNotFoundError: gas_turbine.npz is missing.
    """
    (x,) = _read("gas_turbine", folder, "X")
    rng = _generator(seed)
    for j in (_TURBINE.index(name) for name in _ROUNDED):
        x[:, j] += 1e-3 * x[:, j].std() * rng.random(len(x))
    source = "gas_turbine.npz: AP, TIT, TAT dequantised, z-scored"
    return standardised(_shuffled(x, rng), "gas_turbine", _TURBINE, source)


def mnist(folder: str | Path | None = None, seed: int = 0) -> Table:
    """The 10,000 test digits of MNIST, 784 columns in [0, 1): (x + U[0, 1))/256, cut 80/10/10.

    Raises:
        FileNotFoundError: mnist_t10k.npz is missing.
    """
    (x,) = _read("mnist_t10k", folder, "X")
    rng = _generator(seed)
    parts = _shuffled((x + rng.random(x.shape)) / 256.0, rng)
    names = numbered("pixel_", x.shape[1])
    return standardised(parts, "mnist", names, "mnist_t10k.npz: dequantised", standardise=False)


def embryoid_body(folder: str | Path | None = None, components: int = 5) -> Populations:
    """Single cells of a differentiating embryoid body at five times: z-scored components.

    Raises:
        FileNotFoundError: embryoid_body.npz is missing.
        ValueError, TypeError: components is no integer between 1 and the file's.
    """
    components = _positive_int("components", components)
    x, time = _read("embryoid_body", folder, "X", "t")
    if components > x.shape[1]:
        raise ValueError(f"components: expected at most {x.shape[1]}; got {components}.")
    x = x[:, :components]
    shift, scale = x.mean(axis=0), x.std(axis=0)
    source = f"embryoid_body.npz: {components} components, z-scored"
    return Populations((x - shift) / scale, time, "embryoid_body", shift, scale, source)


def sc_lineage_2d(folder: str | Path | None = None) -> Populations:
    """Mouse blood cells at three times in a two-dimensional embedding, as in the file.

    Raises:
        FileNotFoundError: sc_lineage_2d.npz is missing.
    """
    x, time = _read("sc_lineage_2d", folder, "X", "t")
    shift, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    return Populations(x, time, "sc_lineage_2d", shift, scale, "sc_lineage_2d.npz")


def w2pair(dim: int, folder: str | Path | None = None) -> MapPair:
    """A pair of measures in 2, 8 or 32 dimensions with its optimal map.

    Raises:
        FileNotFoundError: w2pair_{dim}d.npz is missing.
        ValueError, TypeError: another dimension.
    """
    if _positive_int("dim", dim) not in (2, 8, 32):
        raise ValueError(f"dim: expected 2, 8 or 32; got {dim}.")
    names = tuple(MapPair.__dataclass_fields__)
    found: dict[str, Any] = dict(zip(names, _read(f"w2pair_{dim}d", folder, *names), strict=True))
    numbers = {name: float(found[name]) for name in ("half_w2_squared", "y_total_variance")}
    return MapPair(**found | numbers)


def _read(name: str, folder: str | Path | None, *arrays: str) -> list[np.ndarray]:
    hint = "The loaders of otflow.datasets describe the arrays that the file holds."
    path = find_file(folder, (f"{name}.npz",), hint)
    check_sum(path, _SHA256[name])
    return read_arrays(path, *arrays)


def _shuffled(
    x: Float64[np.ndarray, "n d"], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """80/10/10, shuffled."""
    tenth = len(x) // 10
    x = x[rng.permutation(len(x))]
    train, validation, test = np.split(x, [len(x) - 2 * tenth, len(x) - tenth])
    return train, validation, test
