"""The sample-limit: what N rows cost, as replicates of training measure it.

    python examples/sample_limit.py [--out sample_limit.png] [--quick]

theta_N minimises the loss over N rows. Its loss there is too small, its true loss too large, both
by about alpha p_eff / (2N) against the best flow of the class.
"""

import argparse

from otflow.report.study_report import draw_study
from otflow.studies import EnsembleConfig, Network, make_problem, make_study, run_study

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="sample_limit.png")
parser.add_argument("--quick", action="store_true", help="few replicates, little training")
options = parser.parse_args()

small = {
    "sizes": (200, 400),
    "network": Network(width=4),
    "starts": 1,
    "optimum": EnsembleConfig(first_order=5, natural=5, natural_rows=500),
    "optimum_rows": 1000,
    "refine": 5,
    "steps": 5,
    "evaluation": 2000,
    "pool": 8000,
}
study = make_study(
    "samples",
    make_problem("product", dim=2),
    seeds=3 if options.quick else None,
    demo=True,
    **(small if options.quick else {}),
)
result = run_study(study)
for statement in result.statements:
    print(f"{statement.verdict}: {statement.claim} ({statement.evidence})")
draw_study(result, options.out)
