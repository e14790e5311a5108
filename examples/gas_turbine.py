"""Gas-turbine anomalies: a sensor that shows another hour's value, found by the joint density.

    python examples/gas_turbine.py --data FOLDER [--out gas_turbine.png] [--quick]

FOLDER holds gas_turbine.npz with X (36733, 11): hourly means of a power plant's turbine, in order
of time. It is "Gas Turbine CO and NOx Emission Data" of the UCI repository, five CSV files joined.
A swapped reading keeps the sensor's own distribution: only its relation to the others is wrong.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from otflow import OTFlow

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--out", default="gas_turbine.png")
parser.add_argument("--quick", action="store_true", help="little training")
options = parser.parse_args()

sensors = ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "CO", "NOX"]
X = np.load(Path(options.data) / "gas_turbine.npz")["X"].astype(float)
noise = np.random.default_rng(0)
X = noise.permutation(X)
train, test = X[:30_000], X[30_000:]

steps = 20 if options.quick else 1500
flow = OTFlow(alpha=100.0, width=64, max_iter=steps, dequantize="auto", random_state=0)
flow.fit(train)
scores = {
    "flow": flow.score_samples,
    "Gaussian": lambda rows: -EmpiricalCovariance().fit(train).mahalanobis(rows),
    "isolation forest": IsolationForest(random_state=0).fit(train).score_samples,
}
areas = {name: [] for name in scores}
for j in range(len(sensors)):
    faulty = test.copy()
    faulty[:, j] = noise.permutation(faulty[:, j])
    truth = np.repeat([0, 1], len(test))
    for name, score in scores.items():
        both = np.concatenate([score(test), score(faulty)])
        both = np.nan_to_num(both, neginf=np.nanmin(both[np.isfinite(both)]) - 1)
        areas[name].append(roc_auc_score(truth, -both))
for name, values in areas.items():
    print(f"{name}: mean AUROC {np.mean(values):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for k, (name, values) in enumerate(areas.items()):
    left.bar(np.arange(len(sensors)) + 0.27 * (k - 1), values, 0.27, label=name)
left.set(xticks=range(len(sensors)), xticklabels=sensors, ylim=(0.45, 1.05), ylabel="AUROC")
left.set_title("which hours have one wrong sensor? (0.5 is chance)", fontsize=10)
left.legend(loc="upper center", ncols=3)
log_density = flow.score_samples(test)
rare = np.argsort(log_density)[:60]
right.plot(test[:, 7], test[:, 10], ",", color="#999999")
right.plot(test[rare, 7], test[rare, 10], "x", color="#d55e00", label="60 least likely hours")
right.set(xlabel="TEY, energy yield, MWh", ylabel="NOX, mg/m3")
right.legend()
figure.savefig(options.out, dpi=80)
