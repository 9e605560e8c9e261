"""Random calls of the public API on every backend: whatever a call must not do is a finding.

    python tests/fuzz.py SEED SECONDS [--calls N] [--only CASE | --first CASE] [--backends numpy,cython]

A case is a few calls on one object (calls.py), drawn from [SEED, number of the case] and nothing else, so `--only`
repeats it, and shows its arguments. It runs on "numpy" and then on each compiled backend. Findings are: an error that
is neither a TypeError, a ValueError nor a FloatingPointError; another kind of error, or other numbers, than on "numpy";
numbers that are not finite, or a warning, where all input is sane; an argument that is changed; an object that is not
what it was after a call that was refused; wrong content of a file that is not noticed; the death of the process; a call
without end.

Calls run in a child, which says before each one what it is about to do. If it dies, the parent reports that call, and
goes on in a new child with the next case. Where `--only` that case does no harm, an earlier one has damaged memory:
start with the child's `--first`. Under AddressSanitizer (tests/sanitize.sh) its report is shown, too. SECONDS are those
in which cases run: not those in which Numba compiles, or children start.
"""

import argparse
import collections
import contextlib
import faulthandler
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

HANGS = 120  # seconds without a word from the child


# The child


def run_case(seed: int, number: int, backends: list[str], directory: str, say: Any) -> None:
    import elman
    from tests.calls import SCENARIOS, Case, first_difference

    scenarios, cases = [scenario for scenario, n in SCENARIOS.items() for _ in range(n)], []
    for backend in backends:
        with tempfile.TemporaryDirectory(dir=directory) as own, contextlib.chdir(own), elman.use_backend(backend):
            case = Case(seed, number, backend, Path(own), say)
            elman.set_num_threads(case.pick(1, 2, 3, 4))
            try:
                case.pick(*scenarios)(case)
            except Exception:
                case.finding("tests/calls.py", "fell over", traceback.format_exc()[-1400:])
        cases.append(case)
    if cases[0].is_judged:
        for case in cases[1:]:
            compare(case, cases[0].trace, first_difference)


def compare(case: Any, reference: Any, first_difference: Any) -> None:
    """Each call's outcome and numbers, up to the first that differ."""
    for came, wanted in zip(case.trace, reference, strict=False):
        if came.outcome != wanted.outcome:
            if not (wanted.is_huge and "FloatingPointError" in (came.outcome, wanted.outcome)):
                what = f"{came.outcome}, but {wanted.outcome} on numpy"
                case.finding(came.kind, what, f"{came.shown()}\n{wanted.shown()}")
            return
        limits = wanted.bound, wanted.is_wild, case.dtype == "f8"
        difference = "" if wanted.is_huge else first_difference(came.values, wanted.values, *limits)
        if difference:
            case.finding(came.kind, "other numbers than numpy's", f"{difference}{came.shown()}")
            return


def warm_up(backends: list[str]) -> None:
    """Numba compiles before the clock runs."""
    import elman

    optimizers = (elman.SGD, elman.Adagrad, elman.Adam)
    for backend in backends:
        for dtype in ("float32", "float64"):
            with elman.use_backend(backend):
                for optimizer, outputs in zip(optimizers, (elman.Categories, elman.Binary, elman.Reals), strict=True):
                    model = elman.SequenceModel(elman.Tokens(2), outputs(1), hidden_size=3, dtype=dtype, seed=0)
                    model.train_step([[1]], [[0]], optimizer=optimizer(0.1))
                for nonlinearity in ("relu", "sigmoid", "identity", "softplus", "retanh", "power"):
                    elman.RNN(2, 3, nonlinearity=nonlinearity, dtype=dtype)(np.ones((2, 2, 2)))


def work(options: argparse.Namespace) -> None:
    """Cases from number --first on; what happens goes to the parent as lines of JSON."""
    if "ASAN_OPTIONS" not in os.environ:
        faulthandler.enable(all_threads=False)
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed
    is_alone = options.only is not None

    def say(kind: str, *values: Any, detail: Any = None) -> None:
        if detail is not None and is_alone:
            values = (*values, detail())
        print(json.dumps([kind, *values]), file=channel)

    if not is_alone:
        warm_up(options.backends)
    say("ready")
    number, end = options.only if is_alone else options.first, time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as directory:
        while True:
            run_case(options.seed, number, options.backends, directory, say)
            say("case", number)
            number += 1
            if is_alone or time.monotonic() > end:
                break
    say("done")


# The parent


class Campaign:
    """What has been done and found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.n_calls: collections.Counter[str] = collections.Counter()  # by kind; a call on all backends is one
        self.seconds: collections.Counter[str] = collections.Counter()
        self.found: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self.left, self.next_case = options.seconds, options.first
        self.last: Any = None  # case, backend, kind of the call that runs

    def run(self) -> None:
        while not self.is_over():
            with tempfile.TemporaryFile("w+") as errors:
                self.run_child(errors)

    def is_over(self) -> bool:
        is_done = self.options.only is not None and self.next_case > self.options.only
        return is_done or self.left <= 0 or (self.options.calls or np.inf) <= sum(self.n_calls.values())

    def run_child(self, errors: Any) -> None:
        """One child, until it has done all, or dies, or hangs."""
        o = self.options
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            str(o.seed),
            str(self.left),
            "--child",
            "--first",
            str(self.next_case),
        ]
        command += ["--backends", ",".join(o.backends), *(["--only", str(o.only)] if o.only is not None else [])]
        child = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL
        )
        start, first = None, self.next_case
        self.last = [self.next_case, "", "start"]
        for line in self.lines(child):
            kind, *values = json.loads(line)
            start = time.monotonic() if kind == "ready" else start
            self.hear(kind, values)
            if self.is_over():
                child.kill()
                child.wait()
                return
        status = child.wait()
        self.left -= time.monotonic() - start if start else self.left
        if status:
            number, backend, name = self.last[:3]
            errors.seek(0)
            how = f"the process died with signal {-status}" if status < 0 else f"the process ended with status {status}"
            self.report(number, backend, name, how, f"a child with --first {first}\n" + report_of(errors.read()))
            self.next_case = number + 1

    def lines(self, child: Any) -> Any:
        """Those of the child, as they come; a child that is silent for too long is ended."""
        selector, rest = selectors.DefaultSelector(), b""
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(HANGS if self.last[1] else 10 * HANGS):
                child.kill()
            chunk = os.read(child.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if not chunk:
                return

    def hear(self, kind: str, values: Any) -> None:
        if kind == "call":
            self.last = values
        elif kind == "came":
            self.n_calls[values[0]] += values[1] == self.options.backends[0]
            self.seconds[values[0]] += values[2]
        elif kind == "case":
            self.next_case = values[0] + 1
        elif kind == "finding":
            self.report(*values)
        if self.options.only is not None and kind in ("call", "came"):
            print(f"{kind}: {'  '.join(map(str, values))}", flush=True)

    def report(self, number: int, backend: str, kind: str, what: str, detail: str) -> None:
        self.found[backend, kind, what] += 1
        if self.found[backend, kind, what] == 1:
            n = sum(self.n_calls.values())
            print(f"finding: seed {self.options.seed} case {number}, {backend}, {kind}: {what} ({n} calls)", flush=True)
            print("".join(f"    {line}\n" for line in detail.splitlines()), end="", flush=True)

    def summary(self) -> None:
        total, seconds = sum(self.n_calls.values()), sum(self.seconds.values())
        for kind, n in self.n_calls.most_common():
            print(f"{n:8} {kind:28} {self.seconds[kind]:8.1f} s")
        backends = ", ".join(self.options.backends)
        print(f"{total:8} calls in {self.next_case} cases, {seconds:.1f} s on {backends}; {len(self.found)} findings")
        for (backend, kind, what), n in sorted(self.found.items()):
            print(f"{n:8} times  {backend}, {kind}: {what}")


def report_of(text: str) -> str:
    """The part of what a dying process wrote that says why."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if "ERROR:" in line or "runtime error:" in line or "Fatal" in line]
    return "\n".join(lines[starts[0] :][:14] if starts else lines[-14:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--calls", type=int, help="stop after so many calls")
    parser.add_argument("--only", type=int, metavar="CASE", help="repeat a case, and show its calls")
    parser.add_argument("--backends", type=lambda text: text.split(","), default=["numpy", "cython", "numba"])
    parser.add_argument("--first", type=int, metavar="CASE", default=0, help="start with a case")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work(options)
        return 0
    campaign = Campaign(options)
    campaign.run()
    campaign.summary()
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
