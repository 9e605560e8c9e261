#!/usr/bin/env bash
# The lowest and the newest versions that pyproject.toml lets in, each in an environment of its own, and the tests there:
#     bash tests/floors.sh [lowest | newest | "lowest newest"] [ARGUMENTS OF PYTEST ...]
# The lowest are those of what elman needs and of what its tests need, scikit-learn among them, for a Python that has
# wheels of them: 3.11 or 3.12. Not PyTorch, whose old versions bring gigabytes for GPUs along.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
which=${1:-lowest newest}
step() { printf '== %s (%ss)\n' "$1" "$SECONDS"; }

requirements_lowest() {
    python3 - <<'LOWEST'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras, wanted = project["optional-dependencies"], [*project["dependencies"], "elman[test]"]
while wanted:
    requirement = wanted.pop(0)
    if own := re.match(r"elman\[(.*)\]", requirement):
        wanted += [one for extra in own[1].split(",") for one in extras[extra]]
    else:
        print(requirement.replace(">=", "==", 1))
print("pyparsing<3.3")  # later ones warn of what Matplotlib's lowest calls
LOWEST
}
requirements_newest() { :; }

step "building"
python3 -m pip wheel --quiet --no-deps --wheel-dir "$work" .
wheel=$(echo "$work"/elman-*.whl)
for name in $which; do
    step "$name"
    "requirements_$name" >"$work/$name.txt"
    python3 -m venv "$work/$name"
    "$work/$name/bin/pip" install --quiet --only-binary :all: -r "$work/$name.txt" "${wheel}[test]"
    "$work/$name/bin/elman" info
    "$work/$name/bin/pip" freeze --exclude elman | tr '\n' ' '
    echo
    warnings=()
    if [ "$name" = lowest ]; then warnings=(-W default::DeprecationWarning); fi # of what others have made of it since
    "$work/$name/bin/python" -m pytest -q -p no:cacheprovider "${warnings[@]}" "${@:2}"
done
