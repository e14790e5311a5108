"""Does the installed jaxlib survive LAPACK calls beside large products on two CPU cores?

jaxlib 0.10.0 to 0.11.0 deadlock there: their LAPACK kernels run a batch in parallel and wait inside
a worker of the same thread pool, so batched Cholesky factors, log-determinants and triangular
solves inside `lax.scan`, as the conforming scheme needs them, stop for ever at no load (this very
work: every run on two devices, some on one, with more of it). pyproject.toml excludes them, and
`otflow doctor` names them.
"""

import os
import subprocess
import sys

import jaxlib
import pytest

LIMIT = 120  # seconds; the work takes 3 on two idle cores, ten times that on busy ones
SIZES = {"sharded": (2, 128, 2, 2), "one device": (1, 256, 3, 3)}  # devices, width, steps, updates

CHILD = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P

n, d = 50, 43
devices, m, steps, updates = map(int, sys.argv[1:])
key_x, key_J, key_W = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(key_x, (n, d))
J = jax.random.normal(key_J, (m, d)) / m**0.5
W = jax.random.normal(key_W, (m, m)) / m**0.5

def log_dets(W, x):
    def step(carry, _):
        x, total = carry
        slopes = jnp.tanh(x @ J.T)
        Y = (slopes[:, None, :] * J.T) @ W.T  # the large product, (n d, m) by (m, m)
        H = jnp.eye(d) + 0.1 * jnp.einsum("ndm,nem->nde", Y, Y)
        L = jnp.linalg.cholesky(H)
        solved = jax.scipy.linalg.solve_triangular(L, x[..., None], lower=True)[..., 0]
        total = total + 2 * jnp.log(jnp.diagonal(L, axis1=1, axis2=2)).sum(1)
        total = total + jnp.linalg.slogdet(H)[1]
        return (0.9 * x + 0.1 * solved, total), None
    (x, total), _ = jax.lax.scan(step, (x, jnp.zeros(x.shape[0])), None, length=steps)
    return total + 0.5 * (x * x).sum(1)

objective = lambda W, x: log_dets(W, x).mean()
update = jax.value_and_grad(objective)
assert jax.device_count() == devices, jax.devices()
if devices > 1:
    local = update
    mesh = Mesh(jax.devices(), ("i",))
    mean = lambda W, x: jax.tree.map(lambda v: jax.lax.pmean(v, "i"), local(W, x))
    update = jax.shard_map(
        mean, mesh=mesh, in_specs=(P(), P("i")), out_specs=P(), check_vma=False
    )
update = jax.jit(update)
values = []
for _ in range(updates):
    value, gradient = update(W, x)
    W = W - 0.1 * gradient
    values.append(float(value))
assert values[-1] < values[0], values
print("finished", len(values))
"""


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("mode", ["sharded", pytest.param("one device", marks=pytest.mark.slow)])
def test_lapack_in_a_scan_finishes(mode):
    devices = SIZES[mode][0]
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "_device_count" not in f]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    env = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=" ".join(flags))
    command = [sys.executable, "-c", CHILD, *map(str, SIZES[mode])]
    try:  # on a timeout `run` kills the child before it raises
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(
            f"jaxlib {jaxlib.__version__} hung for {LIMIT} s ({mode}): "
            "LAPACK calls inside lax.scan deadlock."
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"finished {SIZES[mode][-1]}"
