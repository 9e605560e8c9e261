#!/usr/bin/env bash
# The speed of each tile (csrc/tile.h) on each instruction set of this machine, beside what the cost model says of it
# (csrc/plan.h), as shares of the multiply-adds that a core can do: bash bench/tiles.sh [FLOAT | DOUBLE]
# With another compiler: CC='python -m ziglang cc -target x86_64-linux-gnu' bash bench/tiles.sh, which makes the wheels.
set -euo pipefail
case "${1:-FLOAT}" in FLOAT | DOUBLE) ;; *) echo "expected FLOAT or DOUBLE, got $1" && exit 2 ;; esac
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 csrc/cells/list.py >"$work/cells.h"
cc=${CC:-gcc} own=
case "$($cc --version)" in # the options of CMakeLists.txt, but for -Os of Clang
*clang*) ;;
*) own=-fno-schedule-insns2 ;;
esac
for set in "baseline " "avx2 -mavx2 -mfma" "avx512 -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma"; do
    # shellcheck disable=SC2086
    $cc -std=gnu11 -O3 -ffp-contract=off -fno-math-errno $own ${set#* } \
        -DELMAN_"${1:-FLOAT}" -DELMAN_TABLE=table -I"$work" -Icsrc bench/tiles.c csrc/{pool,caches}.c -o "$work/tiles" \
        -pthread -lm
    echo "== ${set%% *}"
    "$work/tiles" || echo "not on this machine"
done
