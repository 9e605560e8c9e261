#!/usr/bin/env bash
# The kernels on aarch64: built with a cross-compiler, run under an emulator, and the bits of all their outputs compared
# with those on x86-64 with vectors as short and fused multiply-adds. Needs such a machine and, on Debian,
# `apt install gcc-aarch64-linux-gnu qemu-user`.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 csrc/cells/list.py >"$work/cells.h"

build() { # COMPILER NAME SET FLAGS...: the program of tests/portable.c with the kernels of one set
    local compiler=$1 name=$2 set=$3 dtype
    shift 3
    for dtype in float double; do
        "$compiler" -std=gnu11 -O3 -ffp-contract=off -fno-math-errno "$@" -DELMAN_${dtype^^} -DELMAN_TABLE="elman_${set}_$dtype" \
            -I"$work" -Icsrc -c csrc/kernels.c -o "$work/$name.$dtype.o"
    done
    "$compiler" -std=gnu11 -O2 -Icsrc -static tests/portable.c csrc/{dispatch,pool,caches}.c "$work/$name".*.o \
        -o "$work/$name" -pthread -lm
}

build aarch64-linux-gnu-gcc aarch64 baseline
qemu-aarch64 "$work/aarch64" baseline >"$work/aarch64.txt"
build "${CC:-cc}" here baseline -mfma
"$work/here" baseline >"$work/here.txt"
diff "$work/here.txt" "$work/aarch64.txt"
echo "aarch64: $(grep -c '^  ' "$work/aarch64.txt") outputs, all bits as here"
