"""Write files atomically: to a draft beside the target, then moved into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that is open
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".reprune-", ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block ends, on the disk by then.

    After an error, or if the process is killed, `path` is unchanged. A link is kept and its target is
    replaced. The new file takes mode and owner of the one it replaces, or its mode from the umask. FIFOs and
    character devices (`/dev/null`) are written to at the end. Drafts of killed writers in the folder are
    removed.

    Raises `OSError` (`FileNotFoundError` for a missing folder, `IsADirectoryError`, `PermissionError`, no
    space left) and `ValueError` for a path where no file can be written.
    """
    name, before = _inspect(path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        with tempfile.TemporaryFile() as whole:
            yield whole
            _copy_into(name, whole)
        return
    place = Path(os.path.realpath(name))
    _remove_leftovers(place.parent)
    file, draft = _draft(place, 0o666 if before is None else 0o600)
    try:
        with file:
            yield file
            file.flush()
            if before is not None:
                _take_after(file.fileno(), draft, before)
            os.fsync(file.fileno())
            if fcntl is not None:  # renamed while its lock is held, so that it cannot be taken for a leftover
                os.replace(draft, place)
        if fcntl is None:
            os.replace(draft, place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync(place.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text with :func:`atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise the error that :func:`atomic_write` would, as far as it can be known beforehand."""
    name, before = _inspect(path)
    if before is None or stat.S_ISREG(before.st_mode):
        file, draft = _draft(Path(os.path.realpath(name)), 0o600)
        file.close()
        draft.unlink()


def name_of(path: str | os.PathLike[str]) -> str:
    """Return `path` as text; raise `TypeError` or `ValueError` if it cannot name a file."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path: expected the name of a file; got {path!r}")
    name = os.fsdecode(path)
    if "\0" in name or not name:
        raise ValueError(f"path: expected the name of a file; got {name!r}")
    return name


def _inspect(path: str | os.PathLike[str]) -> tuple[str, os.stat_result | None]:
    """Check that `path` can be written; return its name and its status, None if it does not exist."""
    name = name_of(path)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(name))
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"the folder of {name} does not exist") from None
        if not os.path.basename(name):
            raise ValueError(f"path: expected the name of a file; got {name!r}") from None
        return name, None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{name} is a folder; expected the name of a file")
    if stat.S_ISBLK(found.st_mode) or stat.S_ISSOCK(found.st_mode):
        raise ValueError(f"{name}: expected the name of a file; got a disk or a socket")
    if not os.access(name, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{name}: it may not be written to")
    return name, found


def _copy_into(name: str, file: BinaryIO) -> None:
    """Copy `file` into the FIFO or device `name`."""
    try:
        handle = os.open(name, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "a FIFO that nobody reads", name) from None
        raise
    os.set_blocking(handle, True)
    with open(handle, "wb") as out:
        file.seek(0)
        shutil.copyfileobj(file, out)


def _draft(place: Path, mode: int) -> tuple[BufferedRandom, Path]:
    """Create a new file in the folder of `place`, locked while open to show that its writer lives."""
    while True:
        draft = place.with_name(_draft_name(secrets.token_hex(8)))
        try:
            handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        except OSError as error:
            reason = f"{error.strerror}: no file can be made in its folder"
            raise OSError(error.errno, reason, str(place)) from None
        file = os.fdopen(handle, "w+b")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: nobody can take it for left
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(draft):  # else another writer removed it before it was locked
            return file, draft
        file.close()


def _draft_name(token: str) -> str:
    """Return a file name that nobody else uses: half of it is a digest of the other half."""
    return f"{PREFIX}{token}{hashlib.sha256(f'reprune draft {token}'.encode()).hexdigest()[:16]}{SUFFIX}"


def _remove_leftovers(folder: Path) -> None:
    """Remove the unlocked drafts in `folder`, whose writers were killed."""
    for found in folder.glob(f"{PREFIX}*{SUFFIX}"):
        token = found.name[len(PREFIX) : len(PREFIX) + 16]
        with contextlib.suppress(OSError):  # another's, held by its writer, or gone by now
            if found.name != _draft_name(token) or not stat.S_ISREG(found.lstat().st_mode):
                continue
            if fcntl is None:
                found.unlink()
                continue
            with open(found, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.unlink()


def _take_after(handle: int, draft: Path, before: os.stat_result) -> None:
    """Copy owner and mode of the file that will be replaced."""
    if hasattr(os, "fchown"):
        with contextlib.suppress(OSError):  # only root can give files away
            os.fchown(handle, before.st_uid, before.st_gid)
    os.chmod(draft, stat.S_IMODE(before.st_mode))


def _sync(folder: Path) -> None:
    """Flush the new name to the disk."""
    with contextlib.suppress(OSError):  # Windows and some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
