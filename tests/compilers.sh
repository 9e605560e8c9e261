#!/usr/bin/env bash
# In the active environment (which has what `pip install '.[test]'` installs): the extension built with one compiler after
# the other, and the tests of its kernels with each: bash tests/compilers.sh [COMPILER ...]
# By default all names below that are installed; zig is that of `pip install ziglang`. A minute and a half for each.
set -euo pipefail
cd "$(dirname "$0")/.."
export work
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
known=(gcc-{11..16} clang-{13..22} zig)

command_of() { # COMPILER: what CC has to be
    case $1 in
    zig) python -c "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / 'zig', 'cc')" 2>"$work/none" ;;
    *) command -v "$1" ;;
    esac
}

try() { # COMPILER COMMAND
    local site="$work/$1/site"
    CC=$2 python -m pip install --quiet --no-deps --target "$site" . -C build-dir="$work/$1/build"
    export PYTHONPATH="$site"
    python -c "import elman.backends.native as n; assert n.__file__.startswith('$site'), n.__file__"
    python -m pytest -q -p no:cacheprovider tests/kernels/test_kernels.py -k cython
}

failed=0
missing=()
for compiler in "${@:-${known[@]}}"; do
    if ! cc=$(command_of "$compiler"); then
        missing+=("$compiler")
        continue
    fi
    # Debian's name of a version has parentheses in it, and Zig says which Clang it is.
    # shellcheck disable=SC2086
    version=$($cc --version | head -n 1)
    begin=$SECONDS
    # A process of its own, as `set -e` does not end what stands in a condition
    if bash -euc "$(declare -f try); try $compiler '$cc'" >"$work/log" 2>&1; then outcome=ok; else outcome=failed; fi
    printf '%-10s %-6s %4ss  %s\n' "$compiler" "$outcome" $((SECONDS - begin)) "$version"
    if [ $outcome = failed ]; then
        failed=1
        tail -n 40 "$work/log"
    fi
    rm -rf "${work:?}/$compiler"
done
if [ ${#missing[@]} -gt 0 ]; then echo "not installed: ${missing[*]}"; fi
exit $failed
