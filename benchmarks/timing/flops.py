"""Useful floating-point operations of a training step: its matrix products, counted by hand.

A product of (a, b) by (b, c) counts 2 a b c. With D = d + 1, width m, depth L and r = min(10, D),
one evaluation at one point costs

    gradient                  G = 4 m D + 4 m^2 L + 4 r D        (opening, layers, and back)
    gradient and Laplacian    G + 2 m^2 d L                      (K_i J_(i-1))
    gradient and Hessian      G + 2 m^2 d L + 2 m d^2 (L + 1)    (and J' diag J, opening included)

and its derivative twice that, so a step costs three times its forward pass. The forward pass of
rk4 with N steps has 2 N + 1 Laplacians and 3 N gradients (Simpson), or 4 N Laplacians (every
stage); that of conforming has N Hessians on the rows and N more on a quarter of them, for the
penalty that keeps the map invertible. Not counted: products that checkpointing repeats, the
Gaussian base (2 d^2 a point), Cholesky factors, and everything elementwise.
"""


def step_flops(contestant: str, d: int, width: int, n: int, n_steps: int, depth: int = 1) -> float:
    """Of one optimiser step on n rows; `contestant` is a name of peers.registry."""
    D, m, L = d + 1, width, depth
    gradient = 4 * m * D + 4 * m * m * L + 4 * min(10, D) * D
    laplacian = gradient + 2 * m * m * d * L
    hessian = laplacian + 2 * m * d * d * (L + 1)
    if contestant.startswith("conforming"):
        forward = 1.25 * n_steps * hessian
    elif contestant in ("rk4-stages", "plain-torch", "published"):
        forward = 4 * n_steps * laplacian
    else:
        forward = (2 * n_steps + 1) * laplacian + 3 * n_steps * gradient
    return 3.0 * n * forward
