"""Files that are written whole or not at all.

A file is written under a name of its own beside the one that it then replaces. As long as anybody writes there, it is
locked: so what a process that was killed has left can be told from what another one is writing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from elman import check

try:
    import fcntl
except ImportError:  # Windows, where a file that somebody has open can be neither replaced nor removed
    fcntl = None  # type: ignore[assignment]

_OLD = 3600  # seconds after which nobody is writing any more: before it is renamed, Windows has it closed
_LONGEST = 200  # bytes of a name that the name of a part can hold: file systems have room for 255


def check_place(path: Path, name: str) -> None:
    """Refuse a path that `write` cannot write to, by beginning a file beside it. `name` is the argument's."""
    with _about(path), _part(_target(path, name)):
        pass


def write(path: Path, *pieces: bytes | memoryview, name: str = "path") -> None:
    """Replace the file that a path leads to, or make it; links, mode and owner stay what they are.

    An OSError, or a ValueError where there is no regular file, names the path; what was there is as it was.
    """
    with _about(path):
        target = _target(path, name)
        with _part(target) as file:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()
            os.replace(file.name, target)


def open_to_read(path: Path) -> BinaryIO:
    """A regular file, as a pipe may never come to an end; anything else is a ValueError, or the usual OSError."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        check.refuse(f"it is {_kind(mode)} and no regular file")
    return path.open("rb")


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Errors are about the path that a user gave, not about what it leads to, or what is written beside that."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _target(path: Path, name: str) -> Path:
    """The file that a path leads to. It need not be there."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(mode):
        raise _os_error(errno.EISDIR)
    if not stat.S_ISREG(mode):
        check.refuse(f"{name} must be a regular file, or none yet, got {_kind(mode)}: {path}")
    if not os.access(path, os.W_OK):  # what is write-protected is not replaced, either
        raise _os_error(errno.EACCES)
    target = Path(os.path.realpath(path))
    if os.path.ismount(target):
        raise _os_error(errno.EBUSY)
    if _is_kept_by_others(target):
        raise _os_error(errno.EPERM)
    return target


def _is_kept_by_others(target: Path) -> bool:
    """Whether its folder is sticky, as /tmp is: there one may not replace other people's files."""
    folder = target.parent.stat()
    if os.name != "posix" or not folder.st_mode & stat.S_ISVTX:
        return False
    return os.geteuid() not in (0, folder.st_uid, target.stat().st_uid)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


@contextlib.contextmanager
def _part(target: Path) -> Iterator[FileIO]:
    """A new file for what is to be in the target, locked. It is gone in the end, unless it has been renamed.

    What killed calls for the same target have left is removed before.
    """
    _remove_left(target)
    while True:
        path, mode = f"{_stem(target)}-{secrets.token_hex(8)}.part", 0o600 if target.exists() else 0o666
        file = FileIO(path, "x", opener=functools.partial(os.open, mode=mode))
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # where files cannot be locked, nobody removes what is left, either
                    fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.exists(path):  # else another call has taken it for what is left, before it was locked
                _become_like(file, target)
                yield file
                return
        finally:
            if fcntl is None:
                file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            file.close()


def _become_like(file: FileIO, target: Path) -> None:
    """Take over the mode and, where that is allowed, the owner and attributes such as access lists."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "fchown"):
        for owner in ((-1, status.st_gid), (status.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.fchown(file.fileno(), *owner)
    with contextlib.suppress(OSError):
        os.chmod(file.name, stat.S_IMODE(status.st_mode))
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for name in os.listxattr(target):
                if name.startswith(("user.", "system.posix_acl_")):
                    os.setxattr(file.fileno(), name, os.getxattr(target, name))


def _stem(target: Path) -> str:
    """How the paths of a file's parts begin."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return str(target.with_name(f".{name}"))


def _remove_left(target: Path) -> None:
    """Remove parts that nobody is writing."""
    pattern = re.compile(re.escape(_stem(target)) + r"-[0-9a-f]{16}\.part")
    with contextlib.suppress(OSError):  # of a folder that may not be listed
        for path in filter(pattern.fullmatch, map(str, target.parent.iterdir())):
            with contextlib.suppress(OSError):  # of a file that is locked, or that is gone
                if fcntl is None:
                    if os.stat(path).st_mtime < time.time() - _OLD:
                        os.unlink(path)
                else:
                    with FileIO(path, "r+") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(path)
