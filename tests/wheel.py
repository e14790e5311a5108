"""Install the wheel of a folder into an empty environment and use it there: `make dist`.

python tests/wheel.py FOLDER CONSTRAINTS
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

_USE = """
import importlib.metadata, pathlib, sys
import otflow
assert pathlib.Path(otflow.__file__).is_relative_to(sys.prefix), otflow.__file__
assert otflow.__version__ == importlib.metadata.version("otflow")
missing = [name for name in otflow.__all__ if getattr(otflow, name, None) is None]
assert not missing, missing
from otflow.datasets import moons
X = moons(100, seed=0)
flow = otflow.OTFlow(width=4, n_steps=1, max_iter=5, random_state=0, verbose=False).fit(X)
flow.save("moons.otflow")
assert (otflow.load("moons.otflow").score_samples(X) == flow.score_samples(X)).all()
print("otflow", otflow.__version__, "fits, saves and loads")
"""


def check(folder: Path, constraints: Path) -> None:
    """Raise where the folder has not one wheel, or its wheel does not do its work.

    Raises:
        ValueError: no wheel, or several.
        subprocess.CalledProcessError: a command failed; it has said why.
    """
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ValueError(f"{folder}: expected one wheel; got {len(wheels)}.")
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        programs = Path(place) / "bin"

        def run(program: str, *words: str) -> None:
            subprocess.run([programs / program, *words], check=True, cwd=place)

        quiet = ("--quiet", "--disable-pip-version-check", "-c", str(constraints))
        run("python", "-m", "pip", "install", *quiet, f"{wheels[0]}[sklearn]")
        run("otflow", "--help")
        run("otflow", "--version")
        run("python", "-W", "ignore::UserWarning", "-c", _USE)


if __name__ == "__main__":
    check(*(Path(word).resolve() for word in sys.argv[1:3]))
