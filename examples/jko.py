"""The curve of laws: a bimodal law on its way to N(0, 1), block by block, against exact answers.

    python examples/jko.py [--out jko.png] [--quick]

Each block of the chain is one proximal step of the KL. Its exact counterpart, and the gradient flow
that the steps follow, are known on the line.
"""

import argparse
import math

import matplotlib.pyplot as plt
import numpy as np

from otflow import OTFlowChain, reference

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="jko.png")
parser.add_argument("--quick", action="store_true", help="two blocks, little training")
options = parser.parse_args()

tau, blocks, rows, steps = (1.0, 2, 500, 25) if options.quick else (0.25, 8, 20_000, 400)
law = reference.mixture_1d([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7], math.inf)
exact = reference.jko(law, tau, blocks)
chain = OTFlowChain(
    blocks, tau, joint_iter=0, max_iter=steps, width=32, standardize=False, random_state=0
)
chain.fit(law.sample(0, rows), X_val=law.sample(1, rows))

# a block's gain in held-out nll is what the KL to N(0, 1) falls by
kl = exact.kl[0] - np.cumsum([0.0, *(b.gain for b in chain.blocks_)])
error = 1.96 * np.sqrt(np.cumsum([0.0, *(b.gain_error**2 for b in chain.blocks_)]))
for n, (ours, half, true) in enumerate(zip(kl, error, exact.kl, strict=True)):
    print(f"block {n}: KL {ours:.4f} +- {half:.4f}, exact {true:.4f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
x, z = np.linspace(-4, 4, 400), law.sample(2, rows).astype(np.float32)
shown = range(0, blocks + 1, max(blocks // 4, 1))
for n, colour in zip(shown, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shown))), strict=True):
    start = z
    for number in range(1, n + 1):
        start = np.asarray(chain.block(number).forward(start))
    shape = {"range": (-4, 4), "density": True, "histtype": "step", "alpha": 0.6}
    left.hist(start[:, 0], 80, color=colour, **shape)
    density = np.exp(exact.laws[n].log_prob(x))
    left.plot(x, density, color=colour, label=f"after {n} blocks" if n else "the data")
left.set(xlabel="x", title="Rows (steps) and exact iterates (lines)")
left.legend()

t = tau * np.arange(blocks + 1)
right.errorbar(t, kl, error, fmt="o", color="#d55e00", label="the chain, held out")
right.plot(t, exact.kl, color="black", label="exact iterates")
times = np.linspace(0, t[-1], 40)
flow = [reference.gradient_flow(law, s).panels.kl for s in times]
right.plot(times, flow, color="#0072b2", ls="--", label="gradient flow")
right.plot(t, exact.kl[0] / (1 + tau) ** (2 * t / tau), color="grey", ls=":", label="bound")
right.set(xlabel="time, tau a block", title="KL to N(0, 1), nats", yscale="log")
right.legend()
figure.savefig(options.out, dpi=80)
