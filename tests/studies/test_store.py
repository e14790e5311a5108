"""A study's folder keeps complete units only, whoever writes to it and however they die."""

import contextlib
import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from otflow.studies.store import Cell, Store

SETTINGS = {"problem": "product", "dim": 2, "alphas": [1.0, 10.0]}

# A study without JAX: 60 units of three cells, every number a function of the cell alone.
CHILD = """
import os, random, sys, time
from otflow.studies.store import Cell, Store

def cell(store, unit, i, tag):
    name = f"{unit}/seed={i}"
    values = {"kl": 0.1 * i + int(unit[1:]) / 3, "map": float("nan"), "slope": -float("inf")}
    weights = store.weights_path(name).name
    if i == 2:
        return Cell(name, {"i": i}, i, "failed", {}, error="diverged")
    return Cell(name, {"i": i, "tag": tag}, i, "done", values, seconds=0.1 * i, weights=weights)

def save(store, unit, tag="", slow=0.0):
    cells = [cell(store, unit, i, tag) for i in range(3)]
    def writer(text):
        def write(path):
            path.write_text(text[:10])
            time.sleep(slow)
            path.write_text(text)
        return write
    names = {c.weights: writer(f"{c.id} {tag} " + "w" * 5000) for c in cells if c.weights}
    return store.save_unit(unit, cells, names)

def units(seed):
    names = [f"u{k}" for k in range(60)]
    random.Random(seed).shuffle(names)
    return names
"""


def start(code, *arguments):
    """A child process whose output is read line by line."""
    command = [sys.executable, "-c", CHILD + code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def kill(process):
    process.kill()
    with process:
        process.wait(timeout=60)
    return process.returncode == -signal.SIGKILL


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "study", SETTINGS) as store:
        yield store


def cell(id="a", **changes):
    return dataclasses.replace(Cell(id, {"alpha": 10.0}, 3, "done", {"kl": 0.1}), **changes)


def check_complete(store):
    """Every unit in the store has its three cells, and the weights are whole."""
    cells = store.cells()
    units = {c.id.split("/")[0] for c in cells}
    assert [c.id for c in cells] == sorted(f"{u}/seed={i}" for u in units for i in range(3))
    for found in cells:
        assert store.has_unit(found.id.split("/")[0])
        if found.weights:
            text = store.weights_path(found.id).read_text()
            assert text == f"{found.id} {found.inputs['tag']} " + "w" * 5000
    return units


def test_the_module_is_light():
    code = "import sys, otflow.studies.store; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in out.stdout.split()}
    assert "filelock" in loaded
    assert {"jax", "jaxlib", "equinox", "numpy", "scipy"}.isdisjoint(loaded)


class TestFolder:
    def test_a_study_is_created_opened_and_resumed(self, tmp_path):
        folder = tmp_path / "a" / "study"
        with Store.create(str(folder), SETTINGS) as store:
            assert store.settings == SETTINGS
            assert store.cells() == []
            store.save_unit("u", [cell()])
        for opened in (Store.open(folder), Store.resume(folder, SETTINGS)):
            with opened as store:
                assert store.settings == SETTINGS
                assert store.cells() == [cell()]
                assert store.folder == folder

    def test_the_database_is_durable(self, store):
        pragma = {
            name: store._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
        assert pragma == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 60_000}

    def test_create_refuses_a_folder_with_a_study(self, store):
        store.save_unit("u", [cell()])
        with pytest.raises(FileExistsError, match="already holds a study"):
            Store.create(store.folder, {})
        assert store.cells() == [cell()]
        with Store.open(store.folder) as other:
            assert other.settings == SETTINGS

    def test_create_refuses_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError, match=r"^folder: expected a folder .*is a file\.$"):
            Store.create(tmp_path / "file", {})

    @pytest.mark.parametrize("death", ["before anything", "an empty database"])
    def test_a_creation_that_was_killed_is_no_study_and_can_be_repeated(self, tmp_path, death):
        if death == "an empty database":
            (tmp_path / "study.sqlite").touch()
        with pytest.raises(FileNotFoundError, match="holds no study"):
            Store.open(tmp_path)
        Store.create(tmp_path, SETTINGS).close()
        with Store.open(tmp_path) as store:
            assert store.settings == SETTINGS

    def test_open_makes_nothing_where_there_is_no_study(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none holds no study \(no file study.sqlite"):
            Store.open(tmp_path / "none")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("damage", ["text", "cut", "hole"])
    def test_open_refuses_a_damaged_study(self, store, damage):
        store.save_unit("u", [cell(f"cell {i}", error=None) for i in range(500)])
        store.close()
        path = store.folder / "study.sqlite"
        data = path.read_bytes()
        wrong = {
            "text": b"no database" * 1000,
            "cut": data[: len(data) // 2],
            "hole": data[:8192] + b"\xff" * 8192 + data[16384:],
        }
        path.write_bytes(wrong[damage])
        with pytest.raises(ValueError, match=r"study\.sqlite: not a readable study \("):
            Store.open(store.folder)

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("PRAGMA user_version = 2", r"expected format 1 or older; got 2"),
            ("PRAGMA application_id = 7", r"expected a study; got a database of another program"),
            ("DROP TABLE study", r"not a readable study \(no such table: study\)"),
        ],
    )
    def test_open_refuses_what_it_cannot_read(self, store, statement, message):
        store._connection.execute(statement)
        with pytest.raises(ValueError, match=message):
            Store.open(store.folder)

    def test_a_damaged_record_is_reported(self, store):
        store.save_unit("u", [cell()])
        store._connection.execute("UPDATE cells SET record = '{\"id\": 3}'")
        with pytest.raises(ValueError, match="not a readable study"):
            store.cells()

    def test_a_closed_store_says_so(self, store):
        store.close()
        store.close()
        with pytest.raises(OSError, match=r"cannot be used .*closed"):
            store.cells()

    def test_a_database_that_stays_locked_is_no_damage(self, store, tmp_path):
        store._connection.execute("PRAGMA busy_timeout = 1")
        with Store.open(store.folder) as other:
            other._connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(OSError, match=r"cannot be used \(database is locked\)"):
                store.save_unit("u", [cell()])
            other._connection.execute("ROLLBACK")
        assert store.save_unit("u", [cell()])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dim": 3, "alphas": []}, r"^dim: expected 2 as in .*; got 3\."),
            ({"alphas": [1, 11]}, r"^alphas: expected \[1\.0, 10\.0\] as in .*; got \[1, 11\]\."),
            ({"width": 4}, r"^width: expected no such setting as in .*; got 4\."),
        ],
    )
    def test_resume_names_the_first_setting_that_differs(self, store, changes, message):
        with pytest.raises(ValueError, match=message):
            Store.resume(store.folder, SETTINGS | changes)

    def test_resume_misses_a_setting(self, store):
        with pytest.raises(ValueError, match=r"^problem: expected \"product\" .*got no such"):
            Store.resume(store.folder, {"dim": 2})

    def test_settings_are_compared_as_json_knows_them(self, store):
        same = {"alphas": (np.float64(1), np.int64(10)), "dim": np.int32(2), "problem": "product"}
        Store.resume(store.folder, same).close()

    @pytest.mark.parametrize(
        ("settings", "error"),
        [([], TypeError), ({"a": object()}, TypeError), ({"a": math.nan}, ValueError)],
    )
    def test_settings_that_are_no_json(self, tmp_path, settings, error):
        with pytest.raises(error, match=r"^settings: expected"):
            Store.create(tmp_path, settings)
        assert list(tmp_path.iterdir()) == []


class TestCells:
    def test_every_field_survives(self, store):
        saved = Cell(
            id="alpha=10/seed=3 é",
            inputs={"alpha": 10.0, "sizes": (1, 2), "n": np.int64(3), "scale": np.float32(0.5)},
            seed=2**64 - 1,
            status="failed",
            values={
                "tenth": 0.1,
                "tiny": 5e-324,
                "huge": 1.7976931348623157e308,
                "third": np.float64(1) / 3,
                "minus zero": -0.0,
                "nan": math.nan,
                "inf": math.inf,
                "-inf": -math.inf,
                "single": np.float32(0.1),
            },
            error="no such file: \udcff\0\n",
            seconds=0.1 + 0.2,
        )
        store.save_unit("u", [saved])
        (found,) = store.cells()
        assert repr(found) == repr(saved)  # repr of a float is exact
        assert found.inputs == {"alpha": 10.0, "sizes": [1, 2], "n": 3, "scale": 0.5}
        for name, value in saved.values.items():
            got = np.float64(found.values[name])
            assert got.tobytes() == np.float64(value).tobytes()

    def test_random_floats_are_bit_identical(self, store):
        bits = np.random.default_rng(0).integers(0, 2**64, 2000, dtype=np.uint64)
        floats = bits.view(np.float64)[~np.isnan(bits.view(np.float64))]
        store.save_unit("u", [cell(values={str(i): v for i, v in enumerate(floats)})])
        found = np.array(list(store.cell("a").values.values()))
        assert found.tobytes() == floats.tobytes()

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"id": ""}, ValueError, r"^id: expected text that is not empty; got ''"),
            ({"id": 3}, TypeError, r"^id: expected a string; got int"),
            ({"id": "\udcff"}, ValueError, r"^id: expected text"),
            ({"inputs": {"f": print}}, TypeError, r"^inputs: expected what JSON can hold; got b"),
            ({"inputs": {"a": math.inf}}, ValueError, r"^inputs: expected what JSON can hold"),
            ({"seed": 1.5}, TypeError, r"^seed: expected an integer; got float"),
            ({"seed": True}, TypeError, r"^seed: expected an integer; got bool"),
            ({"status": "ok"}, ValueError, r"^status: expected 'done' or 'failed'; got 'ok'"),
            ({"status": "failed"}, ValueError, r"^error: expected a message, .*; got None"),
            ({"error": "oh"}, ValueError, r"^error: expected None, as it is done; got 'oh'"),
            ({"values": [1.0]}, TypeError, r"^values: expected a dict; got list"),
            ({"values": {"kl": "1"}}, TypeError, r"^values\['kl'\]: expected a number; got str"),
            ({"values": {1: 1.0}}, TypeError, r"^values: expected a string; got int"),
            ({"seconds": -1.0}, ValueError, r"^seconds: expected a finite number >= 0; got -1"),
            ({"seconds": math.nan}, ValueError, r"^seconds: expected a finite number"),
            ({"weights": "../a"}, ValueError, r"^weights: expected a file name without folders"),
            ({"weights": ".."}, ValueError, r"^weights: expected a file name without folders"),
            ({"weights": "a\\b"}, ValueError, r"^weights: expected a file name without folders"),
        ],
    )
    def test_wrong_fields_are_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            cell(**changes)


class TestUnits:
    def test_the_first_save_wins(self, store):
        assert not store.has_unit("u")
        assert store.save_unit("u", [cell("a"), cell("b")]) is True
        assert store.save_unit("u", [cell("a", values={"kl": 2.0}), cell("c")]) is False
        assert store.has_unit("u")
        assert store.cells() == [cell("a"), cell("b")]

    def test_order_is_by_id_whatever_came_first(self, tmp_path):
        tables = []
        for order in ([0, 1, 2], [2, 0, 1]):
            with Store.create(tmp_path / str(order), SETTINGS) as store:
                units = [("w", ["b", "z"]), ("v", ["a"]), ("u", ["c", "B"])]
                for name, ids in (units[i] for i in order):
                    store.save_unit(name, [cell(id) for id in ids])
                tables.append(store.cells())
        assert tables[0] == tables[1]
        assert [c.id for c in tables[0]] == ["B", "a", "b", "c", "z"]

    def test_one_cell_by_id(self, store):
        store.save_unit("u", [cell("a"), cell("b", seed=4)])
        assert store.cell("b").seed == 4
        with pytest.raises(KeyError, match="no cell 'c' in"):
            store.cell("c")

    @pytest.mark.parametrize("ids", [["c", "a"], ["c", "d", "c"]])
    def test_an_id_that_is_there_saves_nothing(self, store, ids):
        store.save_unit("u", [cell("a")])
        with pytest.raises(ValueError, match=r"^cells: expected new ids for 'v'; got \["):
            store.save_unit("v", [cell(id) for id in ids])
        assert store.cells() == [cell("a")]
        assert store.save_unit("v", [cell("c")])

    def test_refuses_no_cells_and_nameless_units(self, store):
        with pytest.raises(ValueError, match=r"^cells: expected at least one in 'u'; got none"):
            store.save_unit("u", [])
        with pytest.raises(ValueError, match=r"^unit: expected text"):
            store.save_unit("", [cell()])

    def test_versions_and_time_are_kept_with_every_row(self, store):
        store.save_unit("u", [cell("a"), cell("b")])
        query = "SELECT json_extract(versions, '$.{}'), saved_at FROM cells"
        for name in ("otflow", "jax", "numpy", "python"):
            rows = store._connection.execute(query.format(name)).fetchall()
            for version, saved_at in rows:
                assert version == {"numpy": np.__version__}.get(name, version)
                assert version[0].isdigit()
                assert saved_at.endswith("+00:00")
            assert len(rows) == 2

    def test_failed_units_are_forgotten_whole(self, store):
        failed = cell("b", status="failed", error="diverged")
        store.save_unit("u", [cell("a"), failed, cell("c", status="failed", error="too")])
        store.save_unit("v", [cell("d")])
        store.save_unit("w", [cell("e", status="failed", error="x")])
        assert store.cell("b") == failed
        assert store.forget_failed() == 2
        assert store.cells() == [cell("d")]
        assert store.forget_failed() == 0
        assert store.save_unit("u", [cell("a"), cell("b")])


class TestWeights:
    def test_paths_are_safe_and_different(self, store):
        ids = ["a", "A", "a/b", "a_b", "../../etc", "x" * 500, "x" * 501, "é", ".", "nul"]
        paths = [store.weights_path(id) for id in ids]
        assert len({p.name.lower() for p in paths}) == len(ids)
        for path in paths:
            assert path.parent == store.folder / "weights"
            assert path.suffix == ".safetensors"
            assert len(path.name) < 150
            path.touch()

    def test_a_writer_runs_only_where_the_unit_is_new(self, store):
        path = store.weights_path("a")
        saved = cell(weights=path.name)
        assert store.save_unit("u", [saved], {path.name: lambda p: p.write_text("first")})
        assert not store.save_unit("u", [saved], {path.name: lambda p: p.write_text("second")})
        assert path.read_text() == "first"
        assert store.cells() == [saved]

    def test_a_writer_that_fails_saves_nothing(self, store):
        paths = [store.weights_path(id) for id in "ab"]
        cells = [cell(id, weights=p.name) for id, p in zip("ab", paths, strict=True)]

        def fail(path):
            path.write_text("half")
            raise RuntimeError("no more")

        writers = {paths[0].name: fail, paths[1].name: fail}
        with pytest.raises(RuntimeError, match="no more"):
            store.save_unit("u", cells, writers)
        assert store.cells() == []
        assert list((store.folder / "weights").iterdir()) == []

    def test_files_without_a_writer_must_exist(self, store):
        path = store.weights_path("a")
        with pytest.raises(FileNotFoundError, match=r"^weights: expected the file .*; got none"):
            store.save_unit("u", [cell(weights=path.name)])
        assert not store.has_unit("u")
        path.write_text("there")
        assert store.save_unit("u", [cell(weights=path.name)])

    def test_a_writer_of_no_cell_is_refused(self, store):
        with pytest.raises(ValueError, match=r"^writers: expected files that cells name; got"):
            store.save_unit("u", [cell()], {"b": lambda p: None})


class TestClaims:
    def test_one_holder_at_a_time(self, store):
        with store.claim("u") as first, store.claim("u") as second, store.claim("v") as other:
            assert (first, second, other) == (True, False, True)
        with store.claim("u") as again:
            assert again

    def test_an_error_in_the_block_releases_the_claim(self, store):
        with pytest.raises(RuntimeError, match="oh"), store.claim("u"):
            raise RuntimeError("oh")
        with store.claim("u") as again:
            assert again

    def test_a_killed_process_loses_its_claim(self, store):
        child = start(
            "with Store.open(sys.argv[1]) as store, store.claim('u') as mine:\n"
            "    print(mine, flush=True); time.sleep(60)",
            store.folder,
        )
        assert child.stdout.readline() == "True\n"
        with store.claim("u") as mine:
            assert not mine
        assert kill(child)
        with store.claim("u") as mine:
            assert mine

    def test_processes_that_claim_compute_every_unit_once(self, store):
        code = (
            "with Store.open(sys.argv[1]) as store:\n"
            "    for unit in units(sys.argv[2]):\n"
            "        with store.claim(unit) as mine:\n"
            "            if mine and not store.has_unit(unit):\n"
            "                time.sleep(0.001)\n"
            "                assert save(store, unit)\n"
            "                print(unit)\n"
        )
        children = [start(code, store.folder, seed) for seed in range(3)]
        computed = " ".join(finish(child) for child in children).split()
        assert sorted(computed) == sorted(check_complete(store))
        assert len(computed) == 60


def test_processes_that_race_for_the_same_units(store):
    """Without claims, two of them in one order: each unit is one process's, saved once."""
    code = (
        "with Store.open(sys.argv[1]) as store:\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    for unit in units(sys.argv[2] == 'c'):\n"
        "        time.sleep(0.03 * random.random())\n"
        "        if save(store, unit, tag=sys.argv[2]):\n"
        "            print(unit)\n"
    )
    children = [start(code, store.folder, tag) for tag in "abc"]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [finish(child).split() for child in children]
    saved = [unit for out in outputs for unit in out]
    assert sorted(saved) == sorted(f"u{k}" for k in range(60))
    assert len(check_complete(store)) == 60
    for tag, out in zip("abc", outputs, strict=True):
        for unit in out:
            assert store.cell(f"{unit}/seed=0").inputs["tag"] == tag
    assert sum(map(bool, outputs)) >= 2  # they did race


def test_processes_that_create_the_same_study(tmp_path):
    code = (
        "try:\n"
        "    Store.create(sys.argv[1], {'tag': sys.argv[2]}).close(); print(sys.argv[2])\n"
        "except FileExistsError:\n"
        "    pass\n"
    )
    children = [start(code, tmp_path / "study", tag) for tag in "abc"]
    (winner,) = "".join(finish(child) for child in children).split()
    with Store.open(tmp_path / "study") as store:
        assert store.settings == {"tag": winner}


class TestKills:
    run = (
        "with Store.open(sys.argv[1]) as store:\n"
        "    for unit in units(sys.argv[2]):\n"
        "        if not store.has_unit(unit):\n"
        "            print(unit, flush=True)\n"
        "            save(store, unit, slow=0.002)\n"
    )
    # a process for every line of input: its id, its units as it comes to them, its exit code
    one_by_one = (
        "for line in sys.stdin:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        print(os.getpid())\n"
        "        sys.argv[2] = line\n"
        "        exec(sys.argv[3])\n"
        "        os._exit(0)\n"
        "    print('exit', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
    )

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks of one")
    def test_twenty_random_kills_leave_complete_units_and_the_same_table(self, tmp_path):
        """The first writer of a unit sleeps half-way through its file, so kills hit inside it."""
        draw = random.Random(0)
        folder = tmp_path / "killed"
        Store.create(folder, SETTINGS).close()
        seen, kills, grew = set(), 0, 0
        parent = start(self.one_by_one, folder, "", self.run)
        while kills < 20:
            parent.stdin.write(f"{draw.random()}\n")
            parent.stdin.flush()
            child, told = int(parent.stdout.readline()), ""
            for _ in range(draw.randint(1, 5)):  # it is killed in the last of so many units
                if not told.startswith("exit"):
                    told = parent.stdout.readline()
            time.sleep(draw.uniform(0.0, 0.006))
            if not told.startswith("exit"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            while not told.startswith("exit"):
                told = parent.stdout.readline()
            kills += told == f"exit {-signal.SIGKILL}\n"
            with Store.open(folder) as store:
                units = check_complete(store)
                assert units >= seen
                grew += len(units) > len(seen)
                if len(units) == 60:  # done before the kills were: start over
                    store._connection.execute("DELETE FROM cells")
                    units = set()
            seen = units
        finish(parent)
        assert grew >= 5
        whole = tmp_path / "whole"
        Store.create(whole, SETTINGS).close()
        for path in (folder, whole):
            finish(start(self.run, path, 1))
        with Store.resume(folder, SETTINGS) as killed, Store.open(whole) as uninterrupted:
            assert len(check_complete(killed)) == 60
            assert list(map(repr, killed.cells())) == list(map(repr, uninterrupted.cells()))
            for one in killed.cells():
                if one.weights:
                    paths = [s.weights_path(one.id) for s in (killed, uninterrupted)]
                    assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_a_kill_in_the_last_writer_saves_nothing(self, store):
        """The rows are in the transaction and one file is written when the process dies."""
        code = (
            "def die(path): os.kill(os.getpid(), 9)\n"
            "with Store.open(sys.argv[1]) as store:\n"
            "    cells = [cell(store, 'u0', i, '') for i in range(2)]\n"
            "    names = sorted(c.weights for c in cells)\n"
            "    store.save_unit('u0', cells, dict(zip(names, [lambda p: None, die])))\n"
        )
        child = start(code, store.folder)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        assert not store.has_unit("u0")
        assert store.cells() == []
        assert store.save_unit("u0", [cell()])

    def test_a_kill_while_the_study_is_created(self, tmp_path):
        code = (
            "import sqlite3, otflow.studies.store as module\n"
            "module._SCHEMA = (*module._SCHEMA[:1], 'SELECT die()')\n"
            "connect = module.connect\n"
            "def dying(*args):\n"
            "    connection = connect(*args)\n"
            "    connection.create_function('die', 0, lambda: os.kill(os.getpid(), 9))\n"
            "    return connection\n"
            "module.connect = dying\n"
            "Store.create(sys.argv[1], {})\n"
        )
        child = start(code, tmp_path)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        assert (tmp_path / "study.sqlite").is_file()
        with pytest.raises(FileNotFoundError, match="holds no study"):
            Store.open(tmp_path)
        Store.create(tmp_path, SETTINGS).close()
