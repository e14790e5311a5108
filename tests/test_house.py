"""The house: few rooms, floors that only look down, files of a readable length."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "src" / "otflow"
FLOORS = (
    "support",
    "parallel",
    "potentials",
    "targets",
    "schemes",
    "reference",
    "datasets",
    "data",
    "flow",
    "model",
    "certificates",
    "training",
    "estimator",
    "studies",
    "report",
    "cli",
)  # from the ground up; docs/theory.md says what each is for
FILES = sorted(HOUSE.rglob("*.py"))
_MOST_LINES = 320


def imported(path: Path) -> set[str]:
    """The rooms of otflow that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("otflow.")}
    return found & set(FLOORS)


def test_the_rooms_are_these():
    entries = {path.stem for path in HOUSE.iterdir() if not path.name.startswith(("_", "py."))}
    assert entries == set(FLOORS)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_from_itself_and_those_below(floor):
    below = set(FLOORS[: FLOORS.index(floor) + 1])
    files = [path for path in FILES if path.relative_to(HOUSE).parts[0] in (floor, f"{floor}.py")]
    assert files
    upward = {
        f"{path.relative_to(HOUSE)}: {name}" for path in files for name in imported(path) - below
    }
    assert upward == set()


def test_files_can_be_read_in_one_go():
    lengths = {path.relative_to(HOUSE): len(path.read_text().splitlines()) for path in FILES}
    assert {path: n for path, n in lengths.items() if n > _MOST_LINES} == {}
