#!/usr/bin/env bash
# Wheels at work, as far as one machine can: bash tests/wheels.sh FOLDER [TARGET ...], by default linux-x86_64
# FOLDER holds what `python tools/wheels.py` makes. On Debian 12, as root.
# - linux-x86_64: the whole test suite with the wheel alone: no compiler, no sources of the package.
# - python3.13, python3.14: the same in Debian 13 and in its next version (apt install debootstrap).
# - linux-aarch64: the tests of the kernels under an emulator (apt install qemu-user).
# - windows-x86_64: the kernels' outputs, bit for bit as here (apt install wine64; needs the package ziglang).
set -euo pipefail
dist=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { printf '== %s (%ss)\n' "$1" "$SECONDS"; }
without_sources() { git archive HEAD | tar -x -C "$1" --exclude=src; }

linux-x86_64() {
    python3 -m venv "$work/env"
    mkdir "$work/tree"
    without_sources "$work/tree"
    (
        cd "$work/tree"
        export PATH="$work/env/bin:/usr/bin:/bin" CC=/nonexistent
        pip install --quiet --only-binary :all: "$(echo "$dist"/elman-*manylinux*_x86_64.whl)[test]"
        python tests/instruction_sets.py
        pytest -q tests
    )
}

in_debian() { # SUITE: which has another Python
    local suite=$1 version glibc platforms=()
    debootstrap --variant=minbase --include=python3,python3-venv "$suite" "$work/root" >"$work/debootstrap.txt"
    version=$(chroot "$work/root" python3 -c "import sys; print('%d.%d' % sys.version_info[:2])")
    for glibc in 17 27 28; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    mkdir "$work/root/wheels" "$work/root/tree"
    pip download --quiet --only-binary :all: --python-version "$version" --platform manylinux2014_x86_64 \
        "${platforms[@]}" --dest "$work/root/wheels" "$(echo "$dist"/elman-*manylinux*_x86_64.whl)[test]"
    without_sources "$work/root/tree"
    cat >"$work/root/run" <<'RUN'
set -e
unset "${!PIP_@}" # settings of the machine around
python3 -m venv /env
export PATH="/env/bin:$PATH" CC=/nonexistent
pip install --quiet --no-index --find-links /wheels 'elman[test]'
cd /tree
python --version
python tests/instruction_sets.py
pytest -q tests
RUN
    unshare --mount bash -euc '
        for one in proc dev dev/shm; do mount --rbind "/$one" "$0/$one"; done
        mount -t tmpfs none "$0/tmp"
        exec chroot "$0" bash /run' "$work/root"
}
python3.13() { in_debian trixie; }
python3.14() { in_debian sid; }

linux-aarch64() {
    local packages="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1"
    packages="$packages libcrypt1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
    dpkg --add-architecture arm64
    apt-get -qq update
    (cd "$work" && apt-get -qq download $(printf '%s:arm64 ' $packages)) 2>/dev/null
    dpkg --remove-architecture arm64
    mkdir "$work/root" "$work/tree"
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    local platforms="--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64"
    pip install --quiet --target "$work/site" --only-binary :all: --python-version 3.11 $platforms \
        --platform manylinux_2_17_aarch64 "$dist"/elman-*manylinux*_aarch64.whl pytest hypothesis
    without_sources "$work/tree"
    cd "$work/tree"
    PYTHONPATH="$work/site" qemu-aarch64 -L "$work/root" "$work/root/usr/bin/python3.11" -m pytest -q -p no:cacheprovider \
        tests/kernels/test_kernels.py -k "cython"
}

windows-x86_64() {
    local zig set dtype
    zig="$(python3 -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / "zig")') cc"
    python3 csrc/cells/list.py >"$work/cells.h"
    build() { # COMPILER OUT: the program of tests/portable.c with all sets
        for set in "baseline " "avx2 -mavx2 -mfma" "avx512 -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma"; do
            for dtype in float double; do
                # shellcheck disable=SC2086
                $1 -std=gnu11 -O3 -ffp-contract=off -fno-math-errno ${set#* } -DELMAN_${dtype^^} -I"$work" -Icsrc \
                    -DELMAN_TABLE="elman_${set%% *}_$dtype" -c csrc/kernels.c -o "$work/${set%% *}_$dtype.o"
            done
        done
        $1 -std=gnu11 -O2 -DELMAN_X86 -Icsrc tests/portable.c csrc/dispatch.c csrc/pool.c "$work"/*.o -o "$2" -pthread -lm
    }
    build "${CC:-cc}" "$work/here"
    build "$zig -target x86_64-windows-gnu" "$work/there.exe"
    for set in baseline avx2 avx512; do
        "$work/here" "$set" >"$work/here.txt" || continue # where this machine does not run it
        WINEDEBUG=-all WINEPREFIX="$work/wine" wine "$work/there.exe" "$set" 2>/dev/null | tr -d '\r' >"$work/there.txt"
        cmp "$work/here.txt" "$work/there.txt"
        echo "$set: $(grep -c '^  ' "$work/here.txt") outputs, all bits as here"
    done
}

for target in "${@:-linux-x86_64}"; do
    step "$target"
    "$target"
done
