"""A kill with SIGKILL, and the weights of the run that nobody killed."""

import pytest

from tests.benchmarks.test_fuzz import load_tool

kill = load_tool("kill")


@pytest.mark.slow
@pytest.mark.timeout(900)  # three to five processes that compile
def test_killed_runs_end_as_if_they_had_not_been(tmp_path):
    report = kill.kill_runs(tmp_path, 1, kill.OPTIONS | {"max-iter": 200, "natural-iter": 0})
    assert report.faults == []
    assert report.kills >= 1
    assert report.runs >= 1
