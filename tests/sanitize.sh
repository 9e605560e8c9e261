#!/usr/bin/env bash
# In the active environment (which has what `pip install '.[test]'` installs), with the sanitizers of GCC:
# - the pool under ThreadSanitizer;
# - the kernels, built with AddressSanitizer and UndefinedBehaviorSanitizer: their tests, and the fuzzer, for a minute in
#   all, on each instruction set;
# - the extension under ThreadSanitizer: threads, teams, forks, interrupts.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
cc=${CC:-cc}
step() { printf '== %s (%ss)\n' "$1" "$SECONDS"; }

step "pool"
thread=(-std=gnu11 -g -O1 -fPIC -fsanitize=thread -pthread -Icsrc)
$cc "${thread[@]}" tests/pool_test.c csrc/pool.c -o "$target/pool"
export TSAN_OPTIONS="halt_on_error=1 die_after_fork=0 exitcode=66"
"$target/pool"

step "building with AddressSanitizer and UndefinedBehaviorSanitizer" # not at -O3, which compiles for twice as long
python -m pip install --quiet --no-deps --target "$target/site" . \
    -C build-dir="$target/build" -C cmake.build-type=Debug \
    -C cmake.define.CMAKE_C_FLAGS_DEBUG="-g1 -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined"

# With these sanitizers preloaded. Leaks are the interpreter's own, and many; its objects lie in memory that ASan sees;
# what is too large to be allocated is an error of Python's.
asan() {
    env LD_PRELOAD="$($cc -print-file-name=libasan.so) $($cc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONPATH="$target/site" "$@"
}
asan python -c "import elman.backends.native as n; assert n.__file__.startswith('$target'), n.__file__"
step "kernels"
# Reports go to the real stderr, which pytest would otherwise keep, and lose when the process ends.
asan python -m pytest -n 2 --capture=sys -q -p no:cacheprovider \
    tests/kernels/test_kernels.py tests/kernels/test_dropout.py tests/kernels/test_generation.py -k "not numpy and not numba"
sets=$(asan python -c "from elman.backends import native; print(*native.instruction_sets())")
for set in $sets; do # without Numba, which takes two minutes to compile under them, and hides from them what it compiled
    step "fuzzing: $set"
    asan ELMAN_ISA="$set" python tests/fuzz.py "${SEED:-1}" $((60 / $(wc -w <<<"$sets"))) --backends numpy,cython
done

# The pool is the same on all instruction sets, so the least one, which compiles in seconds, will do.
step "building with ThreadSanitizer"
python_h=$(python -c "import sysconfig; print(sysconfig.get_path('include'))")
python csrc/cells/list.py >"$target/cells.h"
for real in float double; do
    $cc "${thread[@]}" -I"$target" -ffp-contract=off -fno-math-errno -DELMAN_${real^^} -DELMAN_TABLE=elman_baseline_$real \
        -c csrc/kernels.c -o "$target/$real.o"
done
$cc "${thread[@]}" -DPy_LIMITED_API=0x030B0000 -I"$python_h" -shared "$(find "$target/build" -name native.c)" \
    csrc/dispatch.c csrc/pool.c csrc/caches.c "$target/float.o" "$target/double.o" -lm -o "$target/native.abi3.so"
mv "$target/native.abi3.so" "$target"/site/elman/backends/native*.so

step "extension under ThreadSanitizer"
LD_PRELOAD=$($cc -print-file-name=libtsan.so) PYTHONPATH="$target/site" python tests/tsan_extension.py
step "done"
