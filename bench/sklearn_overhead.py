"""What elman.sklearn adds to SequenceModel: in `fit` the share of its time, in `predict` microseconds a call.

    python bench/sklearn_overhead.py

Both sides are called in turn; the numbers are medians of the differences and ratios of neighbours.
"""

import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np

import elman
from elman.sklearn import RNNClassifier

EPOCHS, ROUNDS = 20, 15


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(n: int, n_steps: int, n_features: int) -> str:
    X = np.random.default_rng(0).normal(size=(n, n_steps, n_features)).astype(np.float32)
    y = np.arange(n) % 2

    def with_sklearn() -> RNNClassifier:
        return RNNClassifier(max_iter=EPOCHS, n_iter_no_change=EPOCHS + 1, random_state=0).fit(X, y)

    def without() -> None:
        model = elman.SequenceModel(
            elman.Features(n_features), elman.Categories(2), pattern="many-to-one", hidden_size=32, seed=0
        )
        options = {"epochs": EPOCHS, "batch_size": min(200, n), "clip_norm": 1.0, "progress": False}
        model.fit(X, y, optimizer=elman.AdamW(1e-3, weight_decay=0), **options)

    fitted = with_sklearn()
    fit = statistics.median(seconds(with_sklearn) / seconds(without) for _ in range(ROUNDS))
    calls = range(10 * ROUNDS)
    predict = statistics.median(
        seconds(lambda: fitted.predict(X)) - seconds(lambda: fitted.model_.predict(X)) for _ in calls
    )
    alone = statistics.median(seconds(lambda: fitted.model_.predict(X)) for _ in calls)
    return f"{n:7d} {n_steps:6d} {n_features:6d}  {fit:10.3f}  {1e6 * predict:14.0f}  {1e6 * alone:14.0f}"


def main() -> None:
    warnings.simplefilter("ignore")  # of training that has not converged
    print("      n      T      I   fit, times  predict adds µs  of its own µs")
    for shape in ((1, 8, 8), (200, 8, 8), (1797, 8, 8), (10000, 20, 4), (1000, 100, 8)):
        print(measure(*shape))


if __name__ == "__main__":
    main()
