"""Files are whole or not there, whatever stands at their path, and whoever is killed, or writes there, too."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.storage import atomic

from ..compare import assert_same_bits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")
X = [[0, 1, 2], [1, 2], [2, 0, 1, 1]]


def make_model(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(3), elman.Categories(3), **{"hidden_size": 4, "seed": 0} | options)


def save(path: Path) -> None:
    make_model().save(path)


def fit(path: Path) -> None:
    make_model().fit(X, X, epochs=1, progress=False, checkpoint=path)


def plot(path: Path) -> None:
    pytest.importorskip("matplotlib")
    elman.History(loss=[1.2, 0.7]).plot(path)


WRITERS = pytest.mark.parametrize("write", [save, fit, plot])
NAMES = {save: "path", fit: "checkpoint", plot: "path"}


def looks_whole(path: Path) -> bool:
    content = path.read_bytes()
    return content[1:4] == b"PNG" or elman.load(path) is not None


# What stands at the path


@WRITERS
def test_links_are_followed(write: Callable[[Path], None], tmp_path: Path):
    target, link, second = tmp_path / "folder" / "model", tmp_path / "link", tmp_path / "folder" / "second"
    target.parent.mkdir()
    link.symlink_to("folder/second")
    second.symlink_to("model")
    for _ in range(2):  # a dangling link makes its target, and a good one replaces it
        write(link)
        assert link.is_symlink()
        assert second.is_symlink()
        assert not target.is_symlink()
        assert looks_whole(target)
        target.write_bytes(b"old")
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]
    assert sorted(os.listdir(target.parent)) == ["model", "second"]


@WRITERS
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_refused(write: Callable[[Path], None], kind: str, tmp_path: Path):
    path = other = tmp_path / "special"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except OSError:
            pytest.skip("only root makes devices")
    else:
        os.mkfifo(path)
    if kind == "link to a pipe":
        path = tmp_path / "link"
        path.symlink_to(other)
    before = other.stat()
    message = f"^{NAMES[write]} must be a regular file, or none yet, got a (pipe|socket|device): {path}$"
    with pytest.raises(ValueError, match=message):
        write(path)
    with pytest.raises(
        ValueError, match=rf"^{path} is not an elman model: it is a (pipe|socket|device) and no regular"
    ):
        elman.load(path)  # it does not wait for what may never come, either
    assert other.stat().st_mode == before.st_mode
    assert {*os.listdir(tmp_path)} == {other.name, path.name}


@WRITERS
def test_modes_are_kept(write: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "model"
    old = os.umask(0o027)
    try:
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o666, 0o604, 0o700):
            path.chmod(mode)
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(old)


def test_what_is_being_written_is_as_secret_as_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, modes = tmp_path / "model", []
    path.touch(mode=0o600)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(stat.S_IMODE(os.fstat(fd).st_mode)), fsync(fd)))
    save(path)
    assert modes == [0o600]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_kept(tmp_path: Path):
    path = tmp_path / "model"
    save(path)
    try:
        os.chown(path, 12345, 23456)
    except OSError:
        pytest.skip("a root that may not")
    path.chmod(0o640)
    save(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="attributes of Linux")
def test_attributes_are_kept(tmp_path: Path):
    path = tmp_path / "model"
    save(path)
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        pytest.skip("a file system without attributes")
    save(path)
    assert os.getxattr(path, "user.note") == b"mine"


def missing(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path / "no" / "such" / "file", "No such file or directory"


def folder(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path, "Is a directory"


def below_a_file(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "model", "Not a directory"


def too_long(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path / ("x" * 256), "File name too long"


def loop(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop", "Too many levels of symbolic links"


def write_protected(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "file").touch(mode=0o400)
    if os.access(tmp_path / "file", os.W_OK):
        pytest.skip("to root nothing is protected")
    return tmp_path / "file", "Permission denied"


def protected_folder(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "folder").mkdir(mode=0o500)
    if os.access(tmp_path / "folder", os.W_OK):
        pytest.skip("to root nothing is protected")
    return tmp_path / "folder" / "file", "Permission denied"


PATHS = [missing, folder, below_a_file, too_long, loop, write_protected, protected_folder]


@WRITERS
@pytest.mark.parametrize("make", PATHS)
def test_where_nothing_can_be_written(
    write: Callable[[Path], None], make: Callable[[Path], tuple[Path, str]], tmp_path: Path
):
    path, cause = make(tmp_path)
    with pytest.raises(OSError, match=cause) as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("make", PATHS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_that_cannot_be_written_is_found_before_the_first_update(
    resume: bool, make: Callable[[Path], tuple[Path, str]], tmp_path: Path
):
    path, cause = make(tmp_path)
    model, optimizer, calls = make_model(), elman.SGD(0.1), []
    before = model.state_dict()
    with pytest.raises(OSError, match=cause) as caught:
        model.fit(X, X, optimizer=optimizer, checkpoint=path, resume=resume, callbacks=[calls.append], progress=False)
    assert caught.value.filename == str(path)
    assert_same_bits(model.parameters(), before)
    assert (optimizer.steps, calls) == (0, [])


@pytest.mark.parametrize("me", ["somebody", "the owner", "the folder's owner", "root"])
def test_what_others_keep_in_a_sticky_folder(me: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in /tmp, where all may write, but not replace what others have written."""
    path, own = tmp_path / "model", os.geteuid()
    save(path)
    tmp_path.chmod(0o1777)
    stats = {tmp_path: own if me == "the folder's owner" else own + 7, path: own if me == "the owner" else own + 7}
    stat_of = Path.stat

    def owned(self: Path, **options: Any) -> os.stat_result:
        found = stat_of(self, **options)
        return os.stat_result((*found[:4], stats[self], *found[5:10])) if self in stats else found

    monkeypatch.setattr(Path, "stat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if me == "root" else own if own else 4711)
    stats = {key: 4711 if value == own and not own else value for key, value in stats.items()}
    if me == "somebody":
        with pytest.raises(PermissionError, match=f"Operation not permitted: '{path}'"):
            fit(path)
    else:
        fit(path)


def test_a_file_that_is_mounted_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "model")
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    with pytest.raises(OSError, match="busy"):
        fit(tmp_path / "model")


def test_long_names(tmp_path: Path):
    path = tmp_path / ("ä" * 127)  # 254 bytes
    for _ in range(2):
        save(path)
        assert looks_whole(path)
    left = atomic._stem(path) + "-0123456789abcdef.part"
    Path(left).touch()
    save(path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_path_that_no_file_has():
    for call in (save, fit, elman.load):
        with pytest.raises(ValueError, match=r"(path|checkpoint) must be a path without NUL characters, got"):
            call("a\0b")  # type: ignore[arg-type]


# What is left, and others who write


def test_what_killed_processes_have_left_is_removed(tmp_path: Path):
    path = tmp_path / "model"
    mine = [tmp_path / f".model-{i:016x}.part" for i in range(3)]
    others = [".model-1.part", ".model2-0123456789abcdef.part", ".elman-0123456789abcdef.part", "model-0.part"]
    for left in [*mine, *(tmp_path / name for name in others)]:
        left.write_bytes(b"part")
    (tmp_path / ".model-ffffffffffffffff.part").mkdir()  # by whoever
    with subprocess.Popen(
        [sys.executable, "-c", f"import fcntl; f = open({str(mine[1])!r}); fcntl.flock(f, 2); print(); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        save(path)
        assert {*os.listdir(tmp_path)} == {"model", mine[1].name, ".model-ffffffffffffffff.part", *others}
        process.kill()
    fit(path)
    assert {*os.listdir(tmp_path)} == {"model", ".model-ffffffffffffffff.part", *others}


def test_a_part_that_is_taken_away_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As by another process that takes it for what is left: it is written anew."""
    import fcntl

    path, seen, flock = tmp_path / "model", [], fcntl.flock

    def late(file: Any, how: int) -> None:
        if len(seen) < 6:
            seen.append(file.name)
            os.unlink(file.name)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    save(path)
    assert len(seen) == 6
    assert looks_whole(path)
    assert os.listdir(tmp_path) == ["model"]


def test_where_files_cannot_be_locked_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".model-0123456789abcdef.part").touch()
    save(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == [".model-0123456789abcdef.part", "model"]


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on Windows: what is old is removed, and what is new may be what somebody writes."""
    monkeypatch.setattr(atomic, "fcntl", None)
    old, new = (tmp_path / f".model-{i:016x}.part" for i in range(2))
    for left in (old, new):
        left.touch()
    os.utime(old, (0, 0))
    for seed in range(2):
        make_model(seed=seed).save(tmp_path / "model")
        assert_same_bits(elman.load(tmp_path / "model").parameters(), make_model(seed=seed).parameters())
    assert sorted(os.listdir(tmp_path)) == [new.name, "model"]


SAVING = """
import sys, elman
model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=64, seed=int(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
for i in range(150):
    model.metadata = {"i": str(i), "seed": sys.argv[1]}
    model.save(sys.argv[2])
"""


@pytest.mark.parametrize("names", [("one", "one"), ("one", "two")])
def test_processes_that_save_at_the_same_time(names: tuple[str, str], tmp_path: Path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", SAVING, str(seed), str(tmp_path / name)], **pipes)
        for seed, name in enumerate(names)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen = set()
    while any(process.poll() is None for process in processes):
        for name in {*names}:
            if (tmp_path / name).exists():
                model = elman.load(tmp_path / name)
                seen.add(model.metadata["seed"])
                expected = make_model(hidden_size=64, seed=int(model.metadata["seed"]))
                assert_same_bits(model.parameters(), expected.parameters())
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert names == ("one", "one") or seen == {"0", "1"}
    assert {*os.listdir(tmp_path)} == {*names}


def test_threads_that_save_at_the_same_time(tmp_path: Path):
    models = [make_model(hidden_size=64, seed=seed) for seed in range(4)]
    errors: list[BaseException] = []

    def run(model: elman.SequenceModel) -> None:
        try:
            for _ in range(40):
                model.save(tmp_path / "model")
                elman.load(tmp_path / "model")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[model]) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["model"]


# What goes wrong in the middle

LIMITED = """
import resource, sys
import numpy as np, elman
X = [np.arange(5) % 3] * 8
model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=64, seed=1)
if sys.argv[1] == "save":
    write = lambda: model.save(sys.argv[2])
else:
    def limit(training):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
    write = lambda: model.fit(X, X, epochs=3, checkpoint=sys.argv[2], callbacks=[limit], progress=False)
if sys.argv[1] == "save":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
try:
    write()
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("how", ["save", "fit"])
def test_no_room(how: str, tmp_path: Path):
    """As when a disk is full, or a quota is exceeded: the system refuses to write more."""
    path = tmp_path / "model"
    save(path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, how, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"OSError [Errno 27] File too large: '{path}'\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("function", ["os.replace", "os.fsync"])
def test_an_error_in_the_middle_names_the_path(function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model"
    save(path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "some other path")

    monkeypatch.setattr(function, fail)
    with pytest.raises(PermissionError, match=r"^\[Errno 13\] Permission denied: '.*/model'$"):
        save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A system call may write less than it is given."""
    content = np.random.default_rng(0).bytes(10_000)

    class Short(atomic.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:999])

    monkeypatch.setattr(atomic, "FileIO", Short)
    atomic.write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == content


def test_ctrl_c_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model"
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            save(path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert os.listdir(tmp_path) == []
