"""A study is read where nothing can be written, with all that was saved, and leaves no trace."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otflow.cli.app import app
from otflow.studies import database
from otflow.studies.runner import load_study, run_study
from otflow.studies.store import Cell, Store
from tests.studies.fakes import Ladder

NOBODY = 65534


@pytest.fixture
def folder():
    """A place that other users reach."""
    with tempfile.TemporaryDirectory(prefix="otflow-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "study"


@contextlib.contextmanager
def read_only(folder):
    """As for a user who may read the folder, and root's privileges are laid down for that."""
    places = [folder, *folder.rglob("*")]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(path.name for path in places[1:])
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in places:
            path.chmod(0o755)
    assert sorted(path.name for path in folder.rglob("*")) == before


def cell(name):
    return Cell(name, {"alpha": 1.0}, 0, "done", {"kl": 0.5})


def killed(store, folder, *, shm):
    """The files as a killed process leaves them: the last unit is in the journal only."""
    folder.mkdir()
    for path in store.folder.iterdir():
        if path.is_file() and (shm or not path.name.endswith("-shm")):
            shutil.copyfile(path, folder / path.name)


def closed(store, folder):
    store.close()
    shutil.copytree(store.folder, folder)


WAYS = {
    "closed": closed,
    "killed": lambda *given: killed(*given, shm=True),
    "killed, copied without the index": lambda *given: killed(*given, shm=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_all_that_was_saved_is_read(tmp_path, folder, way):
    with Store.create(tmp_path / "study", {"kind": "alpha"}) as store:
        store.save_unit("u", [cell("a")])
        store.save_unit("v", [cell("b")])
        WAYS[way](store, folder)
    with read_only(folder), Store.read(folder) as store:
        assert store.settings == {"kind": "alpha"}
        assert store.cells() == [cell("a"), cell("b")]
        with pytest.raises(OSError, match=r"study\.sqlite: cannot be used"):
            store.save_unit("w", [cell("c")])


def test_what_another_process_writes_is_seen(folder):
    """A journal that is in use is read with its locks, not copied."""
    with Store.create(folder, {"kind": "alpha"}) as writer:
        writer.save_unit("u", [cell("a")])
        with read_only(folder), Store.read(folder) as store:
            assert store.cells() == [cell("a")]
    with Store.create(folder.with_name("own"), {}) as writer:
        with Store.read(writer.folder) as store:
            writer.save_unit("u", [cell("a")])
            assert store.cells() == [cell("a")]
            with pytest.raises(OSError, match="cannot be used"):
                store.save_unit("v", [cell("b")])
        assert writer.save_unit("v", [cell("b")])


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    Store.create(tmp_path / "s", {"kind": "alpha"}).close()
    for name in ("weights", "locks"):
        shutil.rmtree(tmp_path / "s" / name)
    Store.read(tmp_path / "s").close()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["study.sqlite"]


def test_show_and_summary(tmp_path, folder):
    run_study(Ladder(2), folder)
    expected = load_study(folder).to_dict()
    with read_only(folder):
        assert load_study(folder).to_dict() == expected
        result = CliRunner().invoke(app, ["study", "show", str(folder)])
    assert result.exit_code == 0, result.output
    assert "transport increases with alpha" in result.stdout


def test_reports_only_read(tmp_path, monkeypatch):
    """`Store.open` makes folders and takes locks: no report asks for it."""
    from otflow.report.study_report import study_document

    run_study(Ladder(2), tmp_path / "s")
    monkeypatch.setattr(Store, "open", None)
    assert "Ladder" not in study_document(tmp_path / "s").title


def test_damage_and_locks_are_no_read_only_folders(tmp_path, monkeypatch):
    Store.create(tmp_path / "s", {}).close()
    path = tmp_path / "s" / "study.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ValueError, match="not a readable study"):
        Store.read(tmp_path / "s")

    def locked(*given):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(database, "connect", locked)
    with pytest.raises(OSError, match="database is locked"):
        Store.read(tmp_path / "s")
