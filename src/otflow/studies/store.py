"""The folder of a study: finished cells in SQLite and their weights, never half of anything.

Any number of processes may work on one folder; a killed one leaves only complete units.
"""

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Self

from filelock import FileLock, Timeout

import otflow
from otflow.studies.cell import Cell, check_name, plain
from otflow.studies.database import BUSY_SECONDS, connect, connect_to_read
from otflow.support.files import atomic_path

FORMAT_VERSION = 1
_DATABASE = "study.sqlite"
_APPLICATION = 0x6F74666C  # "otfl", in the database's header
_SCHEMA = (
    "CREATE TABLE study (settings TEXT NOT NULL)",
    "CREATE TABLE cells (id TEXT PRIMARY KEY, unit TEXT NOT NULL, status TEXT NOT NULL, "
    "record TEXT NOT NULL, versions TEXT NOT NULL, saved_at TEXT NOT NULL)",
    "CREATE INDEX cells_by_unit ON cells (unit)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)


def study_files(folder: str | Path) -> list[Path]:
    """The files in a folder that belong to its study: the database and the weights."""
    folder = Path(folder)
    return [*folder.glob(f"{_DATABASE}*"), *folder.glob("weights/*")]


class Store:
    """The saved cells of one study; made by a class method below, used by one thread.

    A unit is a list of cells that are computed together; it is saved whole or not at all. Methods
    raise OSError where the database cannot be used (locked for a minute, read-only, full disk) and
    ValueError where it is damaged.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, settings: dict[str, Any]):
        self.folder, self.settings, self._connection = folder, settings, connection
        self._path = folder / _DATABASE

    @classmethod
    def create(cls, folder: str | Path, settings: Mapping[str, Any]) -> Self:
        """A new, empty study; the folder is made where it is missing.

        Raises:
            FileExistsError: the folder already holds a study, or is a file.
            TypeError, ValueError: settings that JSON cannot hold.
        """
        folder, text = Path(folder), json.dumps(plain("settings", settings))
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"folder: expected a folder for the study; {folder} is a file.")
        for name in ("weights", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / _DATABASE
        with (
            FileLock(folder / "locks" / "create.lock", timeout=BUSY_SECONDS),
            _faults(path),
            contextlib.closing(connect(path, "rwc")) as connection,
        ):
            if not _is_empty(connection):
                raise FileExistsError(f"{folder} already holds a study.")
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO study VALUES (?)", (text,))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The study in a folder.

        Raises:
            FileNotFoundError: the folder holds no study.
            ValueError: the study is damaged, not otflow's, or of a newer format.
        """
        store = cls._open(Path(folder), lambda path: connect(path, "rw"))
        for name in ("weights", "locks"):
            (store.folder / name).mkdir(exist_ok=True)
        return store

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The study in a folder that is only read, and may be read-only; raises like `open`."""
        return cls._open(Path(folder), connect_to_read)

    @classmethod
    def _open(cls, folder: Path, connected: Callable[[Path], sqlite3.Connection]) -> Self:
        path = folder / _DATABASE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no study (no file {_DATABASE}).")
        with _faults(path), contextlib.ExitStack() as undo:
            connection = connected(path)
            undo.callback(connection.close)
            if _is_empty(connection):
                raise FileNotFoundError(f"{folder} holds no study ({_DATABASE} is empty).")
            settings = _check_database(connection)
            undo.pop_all()
        return cls(folder, connection, settings)

    @classmethod
    def resume(cls, folder: str | Path, settings: Mapping[str, Any]) -> Self:
        """The study in a folder, if it has these settings; raises like `open`.

        Raises:
            ValueError: a setting differs; the first one is named.
        """
        asked = plain("settings", settings)
        store = cls.open(folder)
        for name in [*store.settings, *asked]:
            expected, got = ([s[name]] if name in s else [] for s in (store.settings, asked))
            if expected != got:
                store.close()
                texts = [json.dumps(*v) if v else "no such setting" for v in (expected, got)]
                raise ValueError(f"{name}: expected {texts[0]} as in {folder}; got {texts[1]}.")
        return store

    def close(self) -> None:
        """Let go of the database; closing twice does no harm."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save_unit(
        self,
        unit: str,
        cells: Sequence[Cell],
        writers: Mapping[str, Callable[[Path], None]] | None = None,
    ) -> bool:
        """Save a unit's cells and weights, whole or not at all: True, or False if it is there.

        Args:
            unit: its name.
            cells: at least one.
            writers: what writes a file of `weights/` to the path it is given, by the file's name;
                called only if the unit is new. Weights without a writer must exist already.

        Raises:
            FileNotFoundError: weights that have no writer do not exist.
            TypeError, ValueError: no cells, an id that is there already, a writer of no cell.
        """
        named = {cell.weights for cell in cells if cell.weights is not None}
        writers = writers or {}
        if not cells:
            raise ValueError(f"cells: expected at least one in {unit!r}; got none.")
        if idle := set(writers) - named:
            raise ValueError(f"writers: expected files that cells name; got {sorted(idle)}.")
        stamp = (json.dumps(_versions()), datetime.now(UTC).isoformat(timespec="seconds"))
        rows = [
            (cell.id, check_name("unit", unit), cell.status, json.dumps(vars(cell)), *stamp)
            for cell in cells
        ]
        with _faults(self._path), _transaction(self._connection) as connection:
            if self.has_unit(unit):
                return False
            try:
                connection.executemany("INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)
            except sqlite3.IntegrityError as error:
                ids = sorted(cell.id for cell in cells)
                raise ValueError(f"cells: expected new ids for {unit!r}; got {ids}.") from error
            for name in named:
                _settle(self.folder / "weights" / name, writers.get(name))
        return True

    def has_unit(self, unit: str) -> bool:
        """Whether the unit is saved."""
        return bool(self._select("1 FROM cells WHERE unit = ? LIMIT 1", unit))

    def cells(self) -> list[Cell]:
        """All saved cells by id, whatever the order in which they were saved."""
        return self._cells("record FROM cells ORDER BY id")

    def unit(self, name: str) -> list[Cell]:
        """The saved cells of a unit, by id."""
        return self._cells("record FROM cells WHERE unit = ? ORDER BY id", name)

    def cell(self, id: str) -> Cell:
        """One saved cell; KeyError if there is none of that id."""
        for cell in self._cells("record FROM cells WHERE id = ?", id):
            return cell
        raise KeyError(f"no cell {id!r} in {self.folder}.")

    def forget_failed(self) -> int:
        """Delete the units that hold a failed cell, to be computed again, and say how many."""
        with _faults(self._path), _transaction(self._connection) as connection:
            units = self._select("DISTINCT unit FROM cells WHERE status = 'failed'")
            connection.executemany("DELETE FROM cells WHERE unit = ?", units)
        return len(units)

    def weights_path(self, cell_id: str) -> Path:
        """Where the weights of a cell belong: a safetensors file of its own for each id."""
        return self.folder / "weights" / _file_name("cell_id", cell_id, ".safetensors")

    @contextlib.contextmanager
    def claim(self, unit: str) -> Iterator[bool]:
        """Whether this block has the unit to itself among all processes; never waits.

        The claim ends with the block, or with the process however it dies. Another process may
        have saved the unit a moment before: ask `has_unit` inside the block.
        """
        lock = FileLock(self.folder / "locks" / _file_name("unit", unit, ".lock"))
        with contextlib.ExitStack() as held:
            with contextlib.suppress(Timeout):
                held.enter_context(lock.acquire(blocking=False))
            yield lock.is_locked

    def _select(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with _faults(self._path):
            return self._connection.execute(f"SELECT {query}", values).fetchall()

    def _cells(self, query: str, *values: str) -> list[Cell]:
        try:
            return [Cell(**json.loads(text)) for (text,) in self._select(query, *values)]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._path}: not a readable study ({error}).") from error


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The only writer until the block ends; an error undoes the block."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        damaged = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in damaged:  # the first: no such table
            raise ValueError(f"{path}: not a readable study ({error}).") from error
        raise OSError(f"{path}: cannot be used ({error}).") from error


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever made here: a process may have died while it made the study."""
    return not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def _check_database(connection: sqlite3.Connection) -> dict[str, Any]:
    """The settings, from a database that is whole and ours."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise ValueError(f"{_DATABASE}: expected a study; got a database of another program.")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT_VERSION:
        raise ValueError(f"{_DATABASE}: expected format {FORMAT_VERSION} or older; got {found}.")
    ((text,),) = connection.execute("SELECT settings FROM study").fetchall()
    for (problem,) in connection.execute("PRAGMA quick_check(1)").fetchall():
        if problem != "ok":
            raise ValueError(f"{_DATABASE}: not a readable study ({problem}).")
    return json.loads(text)


def _settle(path: Path, writer: Callable[[Path], None] | None) -> None:
    """The file on the disk, written by `writer` if there is one."""
    if writer is not None:
        with atomic_path(path) as temporary:
            writer(temporary)
    elif not path.is_file():
        raise FileNotFoundError(f"weights: expected the file {path}; got none.")
    for place in (path, path.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _file_name(argument: str, name: str, suffix: str) -> str:
    """A readable file name that is safe everywhere, another one for every name."""
    readable = re.sub(r"[^A-Za-z0-9.=-]+", "_", check_name(argument, name))[:80]
    return f"{readable}-{sha256(name.encode()).hexdigest()[:16]}{suffix}"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("jax", "numpy")}
    return {"otflow": otflow.__version__, **packages, "python": python_version()}
