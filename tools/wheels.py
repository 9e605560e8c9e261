"""Wheels for all platforms, made on this one from the source distribution, and looked at.

    pip install '.[wheels]' && python tools/wheels.py [TARGET ...]

Zig compiles for each target; nothing is downloaded but by pip. A wheel is made twice, and must be the same to the byte.
It is refused if it asks for more of the system or of Python than its tag promises, if it is large, or if pip, asked
for that platform, does not find wheels of all that elman needs. What can run here, `tests/wheels.sh` runs.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

try:
    from packaging.requirements import Requirement
    from packaging.version import Version
except ModuleNotFoundError:
    sys.exit("tools/wheels.py: pip install '.[wheels]' first")

ROOT = Path(__file__).parent.parent
MOST_BYTES = 1_000_000
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FLAGS = ("CFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_", "SKBUILD_", "SOURCE_DATE_EPOCH")  # of this machine, not a wheel's
OF_THE_SYSTEM = ("/usr/lib/libsystem", "python3.dll", "kernel32.dll", "ntdll.dll", "api-ms-win-crt-")


class Target(NamedTuple):
    zig: str  # system and oldest library, as Zig names them
    system: str  # as CMake does
    processor: str
    tag: str  # of the wheel
    platforms: dict[str, str]  # the oldest platform, as pip names it, on which it installs with each Python


def _linux(processor: str, glibc: int) -> Target:
    tag = f"manylinux_2_{glibc}_{processor}"
    floors = {python: glibc if python != "3.14" else 27 for python in PYTHONS}  # NumPy's wheels for it
    platforms = {python: f"manylinux_2_{floor}_{processor}" for python, floor in floors.items()}
    older_name = f".manylinux2014_{processor}" if glibc == 17 else ""
    return Target(f"{processor}-linux-gnu.2.{glibc}", "Linux", processor, tag + older_name, platforms)


def _other(zig: str, system: str, processor: str, tag: str, but: dict[str, str | None]) -> Target:
    """`but`: for which Pythons it needs another platform, or None, there are not all wheels that it needs."""
    platforms = {python: but.get(python, tag) for python in PYTHONS}
    return Target(zig, system, processor, tag, {python: found for python, found in platforms.items() if found})


TARGETS = {
    "linux-x86_64": _linux("x86_64", 17),
    "linux-aarch64": _linux("aarch64", 27),
    "macos-arm64": _other(
        "aarch64-macos.11.0",
        "Darwin",
        "arm64",
        "macosx_11_0_arm64",
        {"3.13": "macosx_12_0_arm64", "3.14": "macosx_12_0_arm64"},
    ),
    "macos-x86_64": _other("x86_64-macos.11.0", "Darwin", "x86_64", "macosx_11_0_x86_64", {}),
    "windows-x86_64": _other("x86_64-windows-gnu", "Windows", "AMD64", "win_amd64", {}),
    "windows-arm64": _other("aarch64-windows-gnu", "Windows", "ARM64", "win_arm64", {"3.11": None}),
}
# What a target leaves out, Numba has no wheels for; musllinux is such a one.

# Of the headers of Python on this machine, which elsewhere say other things (PC/pyconfig.h in CPython's source)
WINDOWS_PYCONFIG = """
#define MS_WINDOWS
#define HAVE_DECLSPEC_DLL
#undef HAVE_SYS_SELECT_H
#undef SIZEOF_LONG
#define SIZEOF_LONG 4
#undef SIZEOF_WCHAR_T
#define SIZEOF_WCHAR_T 2
"""
# Zig links no bundles; Python loads a library as well.
DARWIN_RULES = 'set(CMAKE_SHARED_MODULE_CREATE_C_FLAGS "-dynamiclib -Wl,-headerpad_max_install_names")\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where wheels go (dist)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels", help="for what is in between")
    parser.add_argument("--once", action="store_true", help="make each wheel once only")
    given = parser.parse_args()
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"TARGET must be one of {', '.join(TARGETS)}, got {name}")
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    sdist = make_sdist(given.work / "sdist")
    shutil.copy(sdist, given.out)
    for name in given.targets or TARGETS:
        print(f"{name}: ", end="", flush=True)
        wheel = make(TARGETS[name], sdist, given.work / "first")
        if not given.once and digest(make(TARGETS[name], sdist, given.work / "second")) != digest(wheel):
            sys.exit(f"{wheel.name} is not the same when it is made again")
        look_at(wheel, TARGETS[name])
        shutil.copy(wheel, given.out)
        print(f"{wheel.name}, {wheel.stat().st_size:,} bytes, sha256 {digest(wheel)[:16]}", flush=True)


def run(*command: object, **environment: str) -> str:
    """What a command prints; all of it is shown where it fails."""
    words = [str(word) for word in command]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FLAGS)}
    done = subprocess.run(
        words, env={**kept, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"\n{done.stdout}\n{' '.join(words)}: exit status {done.returncode}")
    return done.stdout


def make_sdist(out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", out, ROOT)
    (sdist,) = out.glob("elman-*.tar.gz")
    return sdist


def make(target: Target, sdist: Path, work: Path) -> Path:
    """The wheel of a target, in a folder of its own under `work`."""
    import ziglang

    work = (work / target.zig).absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    (source,) = work.iterdir()
    zig = Path(ziglang.__file__).parent / "zig"
    if " " in str(zig):
        sys.exit(f"Zig is at {zig}: CMake takes no compiler from a path with spaces; make the environment elsewhere")
    defined = {
        "CMAKE_SYSTEM_NAME": target.system,
        "CMAKE_SYSTEM_PROCESSOR": target.processor,
        "CMAKE_CROSSCOMPILING_EMULATOR": "env",  # the interpreter that CMake finds is this one, and runs here
        "CMAKE_SKIP_RPATH": "ON",
        "CMAKE_MODULE_LINKER_FLAGS": "-s",  # no symbols but what is exported, which would name folders of this machine
    }
    if target.system == "Darwin":
        defined["CMAKE_USER_MAKE_RULES_OVERRIDE"] = str(_written(work / "rules.cmake", DARWIN_RULES))
    if target.system == "Windows":
        defined |= _python_of_windows(target, zig, work)
    settings = [word for name, value in defined.items() for word in ("-C", f"cmake.define.{name}={value}")]
    of_files = {"SOURCE_DATE_EPOCH": str(int((source / "pyproject.toml").stat().st_mtime))}  # the sdist's only date
    build = (sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--wheel-dir", work, *settings)
    run(*build, CC=f"{zig} cc -target {target.zig}", **of_files)
    (wheel,) = work.glob("*.whl")
    tags = (sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", target.tag, wheel)
    tagged = run(*tags, **of_files)
    return work / tagged.split()[-1]


def _python_of_windows(target: Target, zig: Path, work: Path) -> dict[str, str]:
    """Headers, and the library of Python's stable ABI to link with, made of the list of what is in it."""
    from abi3info import DATAS, FUNCTIONS

    include, library = work / "include", work / "python3.lib"
    shutil.copytree(sysconfig.get_path("include"), include)
    with (include / "pyconfig.h").open("a") as file:
        file.write(WINDOWS_PYCONFIG)
    names = [symbol.name for symbol, what in FUNCTIONS.items() if _is_of_3_11(what)]
    names += [f"{symbol.name} DATA" for symbol, what in DATAS.items() if _is_of_3_11(what)]
    listed = _written(work / "python3.def", "\n".join(["LIBRARY python3.dll", "EXPORTS", *sorted(names), ""]))
    machine = {"AMD64": "i386:x86-64", "ARM64": "arm64"}[target.processor]
    run(zig, "dlltool", "-m", machine, "-D", "python3.dll", "-d", listed, "-l", library)
    # Were there none to load, CMake would take the other one for a static one, and link with what Python needs here
    loaded = _written(work / "python3.dll", "")
    libraries = {"Python_SABI_LIBRARY": str(library), "Python_RUNTIME_SABI_LIBRARY": str(loaded)}
    return {"Python_INCLUDE_DIR": str(include), **libraries}


def _is_of_3_11(what: object) -> bool:
    return (what.added.major, what.added.minor) <= (3, 11)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- what is looked at


def look_at(wheel: Path, target: Target) -> None:
    """End with what is wrong with a wheel, if anything is."""
    if wheel.stat().st_size > MOST_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    for check in (("twine", "check", "--strict"), ("check_wheel_contents",), ("abi3audit", "--strict")):
        run(sys.executable, "-m", *check, wheel)
    if target.system == "Linux":
        _check_tag(wheel, target)
    else:
        _check_libraries(wheel, target)
    for python in PYTHONS:
        _check_installs(wheel, target, python)


def _check_tag(wheel: Path, target: Target) -> None:
    """That it needs no newer libraries than its tag says."""
    found = json.loads(run(sys.executable, "-m", "auditwheel", "show", "--json", wheel))["overall_tag"]
    needed, promised = (re.match(r"manylinux_2_(\d+)_", tag) for tag in (found, target.tag))
    if needed is None or int(needed[1]) > int(promised[1]):
        sys.exit(f"{wheel.name} does not keep what its tag says: it is {found}")


def _check_libraries(wheel: Path, target: Target) -> None:
    """That it is for that system, and loads nothing but what each has."""
    import lief

    lief.logging.disable()  # it tells of what it leaves out

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith("elman/backends/native."))
        binary = lief.parse(list(archive.read(name)))
    expected = {"Darwin": "native.abi3.so", "Windows": "native.pyd"}[target.system]
    if not name.endswith("/" + expected):
        sys.exit(f"{wheel.name} has {name}, not {expected}, which Python looks for")
    libraries = {str(getattr(library, "name", library)) for library in binary.libraries}
    foreign = {library for library in libraries if not library.lower().startswith(OF_THE_SYSTEM)}
    if target.system == "Darwin":
        foreign -= {binary[lief.MachO.LoadCommand.TYPE.ID_DYLIB].name}  # its own
        if target.processor == "arm64" and not binary.has_code_signature:
            sys.exit(f"{wheel.name} is not signed, and would not be loaded")
        if tuple(binary.build_version.minos[:2]) > (11, 0):
            sys.exit(f"{wheel.name} needs macOS {binary.build_version.minos}, more than {target.tag} says")
    if foreign:
        sys.exit(f"{wheel.name} needs {', '.join(sorted(foreign))}")


def _check_installs(wheel: Path, target: Target, python: str) -> None:
    """That pip finds wheels of all that it needs on its oldest platform, and on none where we promise none."""
    promised = target.platforms.get(python)
    platform = promised or target.tag
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"),
        *("--only-binary", ":all:", "--target", wheel.parent / "none", "--python-version", python),
        *(word for one in _compatible(platform) for word in ("--platform", one)),
    ]
    run(*command, "--no-deps", wheel)
    words = [str(word) for word in (*command, *_requirements(wheel, target, python))]
    done = subprocess.run(words, capture_output=True, text=True)
    releases = [] if done.returncode else [one["metadata"]["version"] for one in json.loads(done.stdout)["install"]]
    # where there is nothing else, newer versions of pip take a release that is to be tried out
    is_found = bool(releases) and not any(Version(release).is_prerelease for release in releases)
    if is_found != (promised is not None):
        found = "finds" if is_found else "does not find"
        sys.exit(
            f"{wheel.name}: pip {found} what it needs for Python {python} on {platform}, unlike TARGETS\n{done.stderr}"
        )


def _requirements(wheel: Path, target: Target, python: str) -> list[str]:
    """What it needs there: pip itself would ask the markers of this platform, whatever it is told."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    there = {
        "sys_platform": {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}[target.system],
        "platform_machine": target.processor,
        "python_version": python,
        "extra": "",
    }
    needed = map(Requirement, metadata.get_all("Requires-Dist"))
    return [f"{one.name}{one.specifier}" for one in needed if one.marker is None or one.marker.evaluate(there)]


def _compatible(platform: str) -> Iterable[str]:
    """With the older ones that such a platform takes wheels of."""
    if not platform.startswith("manylinux"):
        return [platform]
    newest, processor = platform.removeprefix("manylinux_2_").split("_", 1)
    return [*(f"manylinux_2_{minor}_{processor}" for minor in range(17, int(newest) + 1)), f"manylinux2014_{processor}"]


if __name__ == "__main__":
    main()
