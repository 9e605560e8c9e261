#!/usr/bin/env bash
# Wheels at work, as far as one machine can: bash tests/wheels.sh FOLDER [TARGET ...], by default linux-x86_64
# FOLDER holds what `python tools/wheels.py` makes. On Debian 12, as root.
# - linux-x86_64: the whole test suite with the wheel alone: no compiler, no sources of the package.
# - python3.13, python3.14: the same in Debian 13 and in unstable (apt install debootstrap).
# - linux-aarch64: the tests of the kernels under an emulator (apt install qemu-user).
# - windows-x86_64: the kernels' outputs, bit for bit as here (apt install wine64; needs the package ziglang).
set -euo pipefail
known="linux-x86_64 python3.13 python3.14 linux-aarch64 windows-x86_64"
for target in "${@:2}"; do
    case " $known " in *" $target "*) ;; *) echo "expected a target of $known, got $target" && exit 2 ;; esac
done
[ -d "${1:-}" ] || { echo "usage: bash tests/wheels.sh FOLDER [$known]" && exit 2; }
dist=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { printf '== %s (%ss)\n' "$1" "$SECONDS"; }
platforms() { # PROCESSOR: those that pip is to take wheels of
    local glibc
    printf -- '--platform manylinux2014_%s ' "$1"
    for glibc in 17 27 28; do printf -- '--platform manylinux_2_%s_%s ' $glibc "$1"; done
}
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

in_debian() { # VERSION SUITE: of Python, and where it is Debian's own
    debootstrap --variant=minbase --include=python3,python3-venv "$2" "$work/root" >"$work/debootstrap.txt"
    chroot "$work/root" python3 --version | grep -F "Python $1."
    mkdir "$work/root/wheels" "$work/root/tree"
    # shellcheck disable=SC2046
    pip download --quiet --only-binary :all: --python-version "$1" $(platforms x86_64) --dest "$work/root/wheels" \
        "$(echo "$dist"/elman-*manylinux*_x86_64.whl)[test]"
    without_sources "$work/root/tree"
    cat >"$work/root/run" <<'RUN'
set -e
unset "${!PIP_@}" # settings of the machine around
python3 -m venv /env
export PATH="/env/bin:$PATH" CC=/nonexistent
pip install --quiet --no-index --find-links /wheels 'elman[test]'
cd /tree
python tests/instruction_sets.py
pytest -q tests
RUN
    unshare --mount bash -euc '
        for one in proc dev dev/shm; do mount --rbind "/$one" "$0/$one"; done
        mount -t tmpfs none "$0/tmp"
        exec chroot "$0" bash /run' "$work/root"
}
python3.13() { in_debian 3.13 trixie; }
python3.14() { in_debian 3.14 sid; }

linux-aarch64() {
    local packages=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1
        libcrypt1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib)
    local apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$work/lists"
        -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    "${apt[@]}" update
    (cd "$work" && "${apt[@]}" download "${packages[@]}")
    mkdir "$work/root" "$work/tree"
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    # shellcheck disable=SC2046
    pip install --quiet --target "$work/site" --only-binary :all: --python-version 3.11 $(platforms aarch64) \
        "$dist"/elman-*manylinux*_aarch64.whl pytest hypothesis mpmath
    without_sources "$work/tree"
    cd "$work/tree"
    # A processor without SVE, as NumPy's kernels for that warn of divisions by zero under the emulator
    PYTHONPATH="$work/site" qemu-aarch64 -cpu cortex-a72 -L "$work/root" "$work/root/usr/bin/python3.11" -m pytest \
        -q -p no:cacheprovider tests/kernels/test_kernels.py -k "cython"
}

windows-x86_64() {
    local zig set dtype own
    zig="$(python3 -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / "zig")') cc"
    python3 csrc/cells/list.py >"$work/cells.h"
    build() { # COMPILER OUT KERNELS SMALL: the program of tests/portable.c, with options as in CMakeLists.txt
        for set in "baseline " "avx2 -mavx2 -mfma" "avx512 -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma"; do
            for dtype in float double; do
                own="-O3 $3"
                [[ "$set$dtype" =~ baseline|double ]] && own+=" $4"
                # shellcheck disable=SC2086
                $1 -std=gnu11 $own -ffp-contract=off -fno-math-errno ${set#* } -DELMAN_${dtype^^} -I"$work" -Icsrc \
                    -DELMAN_TABLE="elman_${set%% *}_$dtype" -c csrc/kernels.c -o "$work/${set%% *}_$dtype.o"
            done
        done
        $1 -std=gnu11 -O2 -DELMAN_X86 -Icsrc tests/portable.c csrc/{dispatch,pool,caches}.c "$work"/*.o -o "$2" -pthread -lm
    }
    build "${CC:-cc}" "$work/here" "" ""
    build "$zig -target x86_64-windows-gnu" "$work/there.exe" \
        "-fno-asynchronous-unwind-tables -fno-unwind-tables -mno-red-zone" -Os
    for set in baseline avx2 avx512; do
        "$work/here" "$set" >"$work/here.txt" || { [ $? = 2 ] && continue; } # 2: this machine does not run it
        WINEDEBUG=-all WINEPREFIX="$work/wine" wine "$work/there.exe" "$set" 2>"$work/wine.txt" | tr -d '\r' >"$work/there.txt"
        cmp "$work/here.txt" "$work/there.txt"
        echo "$set: $(grep -c '^  ' "$work/here.txt") outputs, all bits as here"
    done
}

for target in "${@:-linux-x86_64}"; do
    step "$target"
    (work="$work/$target" && mkdir "$work" && "$target")
done
