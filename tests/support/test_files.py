"""Files are written whole or not at all, and impossible outputs are refused beforehand."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from otflow.support.files import PIPE, atomic_path, check_apart, check_writable


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_possible_path_comes_back_and_nothing_is_left(tmp_path):
    assert check_writable(str(tmp_path / "a.bin")) == tmp_path / "a.bin"
    assert names(tmp_path) == []


def test_refuses_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*a\.bin: the folder .*no does not"):
        check_writable(tmp_path / "no" / "a.bin")


def test_refuses_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: it is a folder"):
        check_writable(tmp_path)


def test_refuses_a_device_or_pipe(tmp_path):
    """As root, replacing /dev/null by a file would succeed and harm the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, os.devnull):
        with pytest.raises(FileExistsError, match="not an ordinary file"):
            check_writable(path)
        with pytest.raises(FileExistsError), atomic_path(path):
            pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_refuses_a_folder_that_takes_no_files(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(PermissionError, match=r"cannot write .*a\.bin: Read-only file system"):
        check_writable(tmp_path / "a.bin")


def test_replaces_the_file_only_at_the_end(tmp_path):
    path = tmp_path / "a.bin"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".bin"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.bin"]


def test_a_reader_never_sees_a_mixture(tmp_path):
    """The name moves to the new file in one step; who has the old one open reads on in it."""
    path = tmp_path / "a.bin"
    path.write_text("old")
    with path.open() as reader:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.write_text("new")
        assert os.umask(umask) == umask  # and the umask itself is as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~umask


def test_the_longest_name_works(tmp_path):
    path = tmp_path / ("a" * 251 + ".bin")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


NAMES = {
    "the same": lambda path: path,
    "relative": lambda path: Path("data/x.csv"),
    "roundabout": lambda path: Path("data/../data/./x.csv"),
    "symbolic link": lambda path: linked(path, "symlink_to"),
    "hard link": lambda path: linked(path, "hardlink_to"),
    "through a folder's link": lambda path: linked(path.parent, "symlink_to") / "x.csv",
}


class TestApart:
    """An output that is an input, by whatever name, is refused; a neighbour is not."""

    @pytest.fixture
    def inputs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        path = tmp_path / "data" / "x.csv"
        path.write_text("a\n1\n")
        return {"DATA": path, "--config": None}

    @pytest.mark.parametrize("name", NAMES)
    def test_one_file_has_many_names(self, inputs, name):
        out = NAMES[name](inputs["DATA"])
        told = r"^--out: expected another file than DATA, which it would replace; got .*x\.csv\.$"
        with pytest.raises(ValueError, match=told.replace("x", "(x|link)")):
            check_apart({"--log": None, "--out": out}, inputs)

    def test_neighbours_and_pipes_are_others(self, inputs):
        copy = inputs["DATA"].with_name("y.csv")
        copy.write_text(inputs["DATA"].read_text())
        check_apart({"--out": copy, "--log": Path("x.csv")}, inputs)
        check_apart({"--out": PIPE}, {"DATA": PIPE})

    def test_one_of_many(self, inputs):
        with pytest.raises(ValueError, match="--out: expected another file than DATA"):
            check_apart({"--out": inputs["DATA"]}, {"DATA": [Path("none"), inputs["DATA"]]})
        with pytest.raises(ValueError, match="--figures: expected another file than DATA"):
            check_apart({"--figures": [Path("none"), inputs["DATA"]]}, inputs)

    @pytest.mark.parametrize("dangling", [False, True])
    def test_two_outputs_that_do_not_exist_yet(self, inputs, dangling):
        other = linked(Path.cwd() / "new", "symlink_to") if dangling else Path("data/../new")
        with pytest.raises(ValueError, match="--log: expected another file than --out"):
            check_apart({"--out": Path("new"), "--log": other}, inputs)


def linked(path, how):
    link = Path.cwd() / f"link{path.suffix}"
    getattr(link, how)(path)
    return link
