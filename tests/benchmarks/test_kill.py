"""Two kills with SIGKILL, and the weights of the run that nobody killed."""

import pytest

from tests.benchmarks.test_fuzz import load_tool

kill = load_tool("kill")


@pytest.mark.slow
def test_killed_runs_end_as_if_they_had_not_been(tmp_path):
    report = kill.kill_runs(tmp_path, 2, kill.OPTIONS | {"max-iter": 100, "natural-iter": 10})
    assert report.faults == []
    assert report.kills == 2
    assert report.runs >= 1
