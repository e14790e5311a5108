"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PIPE = Path("-")  # in the place of a file on the command line
Paths = Path | Iterable[Path] | None


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


def check_apart(outputs: Mapping[str, Paths], inputs: Mapping[str, Paths]) -> None:
    """Refuse to write a file that is read, or two into one, whatever the spelling or the links.

    Args:
        outputs: files to be written by the argument that names them; None and `-` are no files.
        inputs: those to be read.

    Raises:
        ValueError: an output is an input, or another output.
    """
    taken = {_identity(path): name for name, path in _each(inputs)}
    for name, path in _each(outputs):
        other = taken.setdefault(_identity(path), name)
        if other != name:
            told = f"expected another file than {other}, which it would replace"
            raise ValueError(f"{name}: {told}; got {path}.")


def _each(named: Mapping[str, Paths]) -> Iterator[tuple[str, Path]]:
    for name, paths in named.items():
        for path in (paths,) if isinstance(paths, Path) else paths or ():
            if path != PIPE:
                yield name, path


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all names of a file: its number on the disk, or where it would be made."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


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
