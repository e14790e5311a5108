"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def one_line(error: BaseException, longest: int = 200) -> str:
    """An error's text in one line of bounded length: parsers quote whole files."""
    text = " ".join(str(error).split())
    return text if len(text) <= longest else text[:longest] + " ..."


def check_writable(path: str | Path) -> Path:
    """The path, if a file can be written there.

    Raises:
        OSError: its folder is missing or read-only, or it is itself a folder or a device.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder.")
    if path.exists() and not path.is_file():  # replacing /dev/null would succeed as root
        raise FileExistsError(f"cannot write {path}: it is not an ordinary file.")
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {folder} does not exist.")
    try:  # asking by doing: permission bits say little to root or on a read-only mount
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write {path}: {error.strerror}.") from error
    return path


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error."""
    path = check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".otflow-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
