"""Files that are written: whole or not there, nothing of others touched, links and devices as they were."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import reprune
from tests.helpers.processes import environment, run_code

ROOT = os.geteuid() == 0


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


def holds(path, seed=0):
    """Is the network of this seed in the file?"""
    return torch.equal(reprune.load(path, network(seed + 9)).weight, network(seed).weight)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(code, **more):
    """Run Python code in a process of its own."""
    return run_code(code, timeout=60, **more)


@pytest.mark.parametrize(
    "name",
    "ckpt-epoch12.tmp ckptabcdefgh.tmp mydata01.tmp ckpt.tmp .ckpt.tmp .reprune-mydata01.tmp .reprune-.tmp "
    ".reprune-00000000000000000000000000000000.tmp".split(),
)
def test_files_of_others_are_not_removed(tmp_path, monkeypatch, name):
    """Folders and files whose names look like drafts, now or in earlier versions."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
    (tmp_path / "a" / name).mkdir()
    (tmp_path / "a" / name / "precious").write_text("mine")
    (tmp_path / "b" / name).write_text("mine")
    for folder in ("a", "b"):
        reprune.save(network(), f"{folder}/ckpt")
        assert names(tmp_path / folder) == sorted([name, "ckpt"])
    assert (tmp_path / "a" / name / "precious").read_text() == "mine"
    assert (tmp_path / "b" / name).read_text() == "mine"


@pytest.mark.parametrize("path", ["", ".", "..", "./", "new/", "a\0b", "missing/x", "file/x", "x" * 300])
def test_no_place_for_a_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mydata01.tmp").mkdir()
    (tmp_path / "mydata01.tmp" / "precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises((ValueError, OSError), match=r"expected the name|folder of|Not a directory|too long"):
        reprune.save(network(), path)
    assert names(tmp_path) == ["file", "mydata01.tmp"]
    assert names(tmp_path / "mydata01.tmp") == ["precious"]


@pytest.mark.parametrize("path", [3, None, ["x"]])
def test_any_kind_of_path_is_accepted(path):
    with pytest.raises(TypeError, match="path: expected the name of a file; got"):
        reprune.save(network(), path)


def test_links_stay_and_their_targets_are_replaced(tmp_path):
    target = tmp_path / "far" / "target"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / "near").symlink_to("far/target")
    (tmp_path / "link").symlink_to(tmp_path / "near")
    (tmp_path / "dangling").symlink_to("far/new")
    reprune.save(network(1), tmp_path / "link")
    reprune.save(network(2), tmp_path / "dangling")
    for name, to in {"near": "far/target", "link": str(tmp_path / "near"), "dangling": "far/new"}.items():
        assert os.readlink(tmp_path / name) == to
    assert holds(target, 1)
    assert holds(target.with_name("new"), 2)
    assert names(tmp_path) == ["dangling", "far", "link", "near"]
    assert names(target.parent) == ["new", "target"]


def test_a_fifo_stays_and_its_reader_gets_everything(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="a FIFO that nobody reads"):
        reprune.save(network(), fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        os.set_blocking(file.fileno(), True)
        reader = threading.Thread(target=lambda: (tmp_path / "copy").write_bytes(file.read()))
        writer = os.open(fifo, os.O_WRONLY)  # so that the reader waits
        reader.start()
        reprune.save(network(3), fifo)
        os.close(writer)
        reader.join(timeout=30)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert holds(tmp_path / "copy", 3)
    with pytest.raises(ValueError, match=r"expected a file that reprune.save wrote; got a FIFO"):
        reprune.load(fifo, network())


def device(path, minor):
    """A device of one's own like /dev/null (3) or /dev/full (7): the tests may be wrong, and run as root."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    except PermissionError:
        pytest.skip("only root can make devices")
    return path


def test_devices_are_written_to(tmp_path):
    null, full = device(tmp_path / "null", 3), device(tmp_path / "full", 7)
    reprune.save(network(), null)
    with pytest.raises(OSError, match="No space left"):
        reprune.save(network(), full)
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in (null, full))
    assert names(tmp_path) == ["full", "null"]


def test_sockets_and_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    (tmp_path / "folder").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind("socket")
        with pytest.raises(ValueError, match="socket: expected the name of a file; got a disk or a socket"):
            reprune.save(network(), "socket")
        with pytest.raises(IsADirectoryError, match="folder is a folder; expected the name of a file"):
            reprune.save(network(), "folder")
    assert names(tmp_path) == ["folder", "socket"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444 if ROOT else 0o644, 0o777])
def test_the_mode_is_kept(tmp_path, mode):
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(mode)
    if ROOT:
        os.chown(path, 1234, 4321)
    reprune.save(network(), path)
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, found.st_gid) == ((1234, 4321) if ROOT else (os.geteuid(), found.st_gid))
    assert holds(path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_gets_its_mode_by_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        reprune.save(network(), tmp_path / "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "name", ["x" * 255, "ü" * 127, "[1]*?.tmp", "a\nb ' \"", "-o", "~", ".reprune-x.tmp", b"\xff\xfe", "a:b"]
)
def test_every_legal_file_name_works(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        reprune.save(network(seed), name)
        assert os.listdir(tmp_path) == [os.fsdecode(name)]
        assert holds(name, seed)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("odd")])
def test_nothing_half_written_after_an_error(tmp_path, error):
    from reprune.files.atomic import atomic_write

    def fails(path):
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        with pytest.raises(type(error)):
            fails(tmp_path / name)
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_a_full_disk(tmp_path):
    """The system refuses to write more than 100 kB."""
    path = tmp_path / "x"
    path.write_text("old")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            reprune.save(nn.Linear(300, 300), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["x"]
    assert path.read_text() == "old"


def test_folders_and_files_that_may_not_be_written(tmp_path, monkeypatch):
    """As a user without rights, if the tests run as root."""
    for name in ("locked", "free"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("old")
    (tmp_path / "free" / "x").chmod(0o444)
    (tmp_path / "locked").chmod(0o555)
    (tmp_path / "free").chmod(0o777)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    monkeypatch.chdir(tmp_path)
    os.seteuid(65534 if ROOT else os.geteuid())
    try:
        for path in ("locked/x", "locked/new", "free/x"):
            with pytest.raises(PermissionError, match=path):
                reprune.save(network(), path)
    finally:
        os.seteuid(0 if ROOT else os.geteuid())
    (tmp_path / "locked").chmod(0o755)
    for name in ("locked", "free"):
        assert names(tmp_path / name) == ["x"]
        assert (tmp_path / name / "x").read_text() == "old"


def test_what_killed_writers_left_goes_and_what_living_ones_write_stays(tmp_path):
    from reprune.files.atomic import atomic_write

    code = f"""if True:
        import os, signal, sys
        sys.path.insert(0, {str(Path(reprune.__file__).parent / "files")!r})
        sys.path.append(sys.path.pop(0))
        from atomic import atomic_write
        with atomic_write({str(tmp_path / "killed")!r}) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(2):
        assert run(code).returncode == -signal.SIGKILL
        assert len(names(tmp_path)) == 1  # the second removes what the first has left
    with atomic_write(tmp_path / "living") as file:
        file.write(b"half")
        reprune.save(network(), tmp_path / "x")
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == ["living", "x"]
    assert (tmp_path / "living").read_bytes() == b"half"


def test_many_writers_at_once(tmp_path):
    """The file is always one of theirs, whole, and no writer fails."""
    path, models, failed = tmp_path / "x", [network(seed) for seed in range(3)], []

    def write(model):
        try:
            for _ in range(12):
                reprune.save(model, path)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(model,)) for model in models[:2]]
    code = "import torch, reprune; torch.manual_seed(2); m = torch.nn.Linear(2, 2)\nfor _ in range(12): "
    command = [sys.executable, "-c", f"{code}reprune.save(m, {str(path)!r})"]
    with subprocess.Popen(command, env=environment()) as other:
        reprune.save(models[0], path)
        for writer in writers:
            writer.start()
        for _ in range(12):
            writers[0].join(timeout=0.05)
            found = reprune.load(path, nn.Linear(2, 2)).weight
            assert any(torch.equal(found, model.weight) for model in models)
        for writer in writers:
            writer.join()
    assert other.returncode == 0
    assert not failed
    assert names(tmp_path) == ["x"]


def test_the_file_and_then_its_name_reach_the_disk(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def synced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else os.fstat(handle).st_size)
        sync(handle)

    def replaced(*paths):
        done.append("replace")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    reprune.save(network(), tmp_path / "x")
    assert done == [(tmp_path / "x").stat().st_size, "replace", "folder"]


def test_nothing_in_the_package_writes_otherwise():
    folder = Path(reprune.__file__).parent
    marks = ("write_text(", "write_bytes(", "save_file(", "savefig(path", '"wb"', '"w"', ".to_file(")
    found = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in folder.rglob("*.py")
        if path.name != "atomic.py"
        for line in path.read_text().splitlines()
        if any(mark in line for mark in marks) and "atomic" not in line
    ]
    assert [line for line in found if ": write_text(" not in line] == []
