#!/usr/bin/env bash
# The pool under ThreadSanitizer; then the kernels, built with AddressSanitizer and UndefinedBehaviorSanitizer, and their
# tests run on them, in the active environment (which has what `pip install '.[test]'` installs). Needs GCC with its
# sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
echo "== pool"
${CC:-cc} -std=c11 -g -O1 -fsanitize=thread -pthread -D_DEFAULT_SOURCE -Icsrc tests/pool_test.c csrc/pool.c -o "$target/pool"
TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" "$target/pool"
python -m pip install --quiet --no-deps --target "$target/site" . \
    -C build-dir="$target/build" \
    -C cmake.define.CMAKE_C_FLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
export LD_PRELOAD="$(${CC:-cc} -print-file-name=libasan.so) $(${CC:-cc} -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 # the interpreter's own are many
export PYTHONPATH="$target/site"
python -c "import elman.backends.native as n; assert n.__file__.startswith('$target'), n.__file__"
for set in $(python -c "from elman.backends import native; print(*native.instruction_sets())"); do
    echo "== $set"
    ELMAN_ISA=$set python -m pytest -q -p no:cacheprovider tests/test_kernels.py -k "not numpy and not numba"
done
