"""What cannot be held is refused by name, before it is asked for."""

import pytest

from otflow.support import memory


def test_a_machine_has_between_a_megabyte_and_a_petabyte():
    assert 2**20 < memory.memory_there_is() < 2**50


def test_the_smaller_of_machine_and_container_counts(tmp_path, monkeypatch):
    whole = memory.memory_there_is()
    for text, expected in (("4096\n", 4096), ("max\n", None), (str(2**62), None)):
        (tmp_path / "limit").write_text(text)
        monkeypatch.setattr(memory, "_LIMITS", (str(tmp_path / "limit"), "/no/such/file"))
        found = memory.memory_there_is()
        assert found == expected if expected else found >= whole


def test_rows_that_fit_and_one_more(monkeypatch):
    monkeypatch.setattr(memory, "memory_there_is", lambda: 800)
    memory.check_fits("n", 50, 2)
    with pytest.raises(MemoryError, match=r"n: expected at most 50 rows of 2 .*; got 51\. Less\.$"):
        memory.check_fits("n", 51, 2, "Less.")


def test_nothing_is_refused_where_nothing_tells(monkeypatch):
    monkeypatch.setattr(memory, "memory_there_is", lambda: None)
    memory.check_fits("n", 10**12, 2)
