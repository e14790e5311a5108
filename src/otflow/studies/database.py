"""Connections to the SQLite file of a study, also where it cannot be written."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

BUSY_SECONDS = 60
_CANNOT_WRITE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection whose transactions are explicit and on the disk when they end."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that refuses to write, to a file or folder that perhaps refuses too.

    SQLite keeps a journal beside its file even to read. Where it cannot, the file is read in memory
    as it is now.
    """
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    try:
        connection = connect(path, "rw" if writable else "ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _CANNOT_WRITE:
            raise
        connection = _in_memory(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _in_memory(path: Path) -> sqlite3.Connection:
    """A copy, with what the journal holds."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory(prefix="otflow-study-") as folder:
        for name in (path.name, f"{path.name}-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(name), Path(folder) / name)
        with contextlib.closing(connect(Path(folder) / path.name, "rw")) as copy:
            copy.backup(memory)
    return memory
