"""Labels without alignment: CTC beside PyTorch's, beside all alignments one by one, and in models."""

import itertools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data import losses

from ..compare import assert_same_bits
from .test_patterns import backend_names

N = 3
LENGTHS = np.array([7, 4, 1, 6, 3])
LABELS = [[0, 0, 2], [1], [], [2, 1, 2, 0], [1, 1]]  # the last ones need all their steps


def columns(labels: list[list[int]], n: int) -> np.ndarray:
    """(U, B), −1 behind the last one."""
    return np.array([[*row, *[-1] * (n - len(row))] for row in labels]).T


def model_of(**options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 5, "seed": 0, "dtype": "float64"} | options
    return elman.SequenceModel(elman.Features(2), elman.Labels(N), **options)


def test_it_is_the_sum_over_all_alignments(rng: np.random.Generator):
    o = rng.standard_normal((4, 1, N + 1))
    p = np.exp(o[:, 0]) / np.exp(o[:, 0]).sum(axis=1, keepdims=True)
    for labels in ([], [0], [1, 2], [1, 1], [0, 1, 0], [2, 0, 1, 2]):
        total = 0.0
        for path in itertools.product(range(N + 1), repeat=4):
            if [unit for unit, _ in itertools.groupby(path) if unit < N] == labels:
                total += np.prod([p[t, unit] for t, unit in enumerate(path)])
        loss, _ = losses.ctc(o, columns([labels], 4), np.array([4]))
        assert loss[0] * max(1, len(labels)) == pytest.approx(-np.log(total), rel=1e-12)


def test_it_is_pytorch_s(rng: np.random.Generator):
    torch = pytest.importorskip("torch")
    o = 3 * rng.standard_normal((7, 5, N + 1))
    loss, d_o = losses.ctc(o, columns(LABELS, 7), LENGTHS)
    given = torch.tensor(o, requires_grad=True)
    sizes = torch.tensor(LENGTHS), torch.tensor([len(labels) for labels in LABELS])
    targets = torch.tensor([label for labels in LABELS for label in labels])
    found = torch.nn.functional.ctc_loss(given.log_softmax(-1), targets, *sizes, blank=N, reduction="mean")
    found.backward()
    assert loss.mean() == pytest.approx(found.item(), rel=1e-12)
    np.testing.assert_allclose(d_o / 5, given.grad.numpy(), rtol=1e-10, atol=1e-14)


@backend_names
def test_central_differences(backend: str, rng: np.random.Generator):
    model = model_of(backend=backend, bidirectional=True)
    x, y, weights = rng.standard_normal((7, 5, 2)), columns(LABELS, 4), np.array([1, 0.5, 2, 1, 0])
    parameters = model.state_dict()
    loss, gradients = model.loss_and_grads(x, y, lengths=LENGTHS, weights=weights)
    assert loss == model.loss(x, y, lengths=LENGTHS, weights=weights)
    alone = [model.loss(x[:n, [b]], columns([LABELS[b]], 4), lengths=[n]) for b, n in enumerate(LENGTHS)]
    assert loss == pytest.approx(np.average(alone, weights=weights), rel=1e-12)
    for _ in range(3):
        along, values = {k: rng.standard_normal(v.shape) for k, v in parameters.items()}, []
        for e in (1e-6, -1e-6):
            model.load_state_dict({k: parameters[k] + e * along[k] for k in parameters})
            values.append(model.loss(x, y, lengths=LENGTHS, weights=weights))
        slope = sum(float((gradients[k] * along[k]).sum()) for k in along)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_long_and_certain_sequences_are_finite(rng: np.random.Generator):
    o, y = 300 * rng.standard_normal((600, 1, N + 1)), rng.integers(0, N, (150, 1))
    loss, d_o = losses.ctc(o, y, np.array([600]))
    assert np.isfinite(loss).all()
    np.testing.assert_allclose(d_o.sum(axis=-1), 0, atol=1e-9)  # of two distributions


def spelled(rng: np.random.Generator, n: int = 200) -> tuple[list[np.ndarray], list[list[int]]]:
    """Each label takes 1 to 3 steps, and a pause stands between them."""
    X, Y = [], []
    for _ in range(n):
        labels = rng.integers(0, 2, rng.integers(1, 5)).tolist()
        steps = [step for label in labels for step in [*[np.eye(3)[label]] * rng.integers(1, 4), np.eye(3)[2]]]
        X.append(np.array(steps) + 0.05 * rng.standard_normal((len(steps), 3)))
        Y.append(labels)
    return X, Y


def test_what_is_learned_saved_and_predicted(tmp_path: Path, rng: np.random.Generator):
    X, Y = spelled(rng)
    model = elman.SequenceModel(elman.Features(3), elman.Labels(2), hidden_size=16, seed=0)
    options: dict[str, Any] = {
        "validation_data": (X[:50], Y[:50]),
        "callbacks": [elman.EarlyStopping("val_label_error")],
    }
    history = model.fit(X[50:], Y[50:], epochs=30, optimizer=elman.Adam(0.02), progress=False, **options)
    assert min(history["val_label_error"]) < 0.02
    found = [labels.tolist() for labels in model.predict(X[:50])]
    wrong = sum(losses.edit_distance(np.array(a), np.array(b)) for a, b in zip(found, Y, strict=False))
    measured = model.evaluate(X[:50], Y[:50])
    assert measured["label_error"] == wrong / sum(map(len, Y[:50]))
    assert measured == pytest.approx(model.evaluate(X[:50], Y[:50], batch_size=1), rel=1e-5)
    assert [p.shape for p in model.predict_proba(X[:2])] == [(len(x), 3) for x in X[:2]]
    model.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", X[0])
    code = "import sys, numpy as np, elman; print(elman.load(sys.argv[1]).predict([np.load(sys.argv[2])])[0].tolist())"
    given = [str(tmp_path / name) for name in ("model", "x.npy")]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(found[0])


def test_the_forms_of_targets(rng: np.random.Generator):
    X, lists = rng.standard_normal((3, 6, 2)), [[0, 1], [2], [1, 1, 0]]
    results = []
    for Y in (lists, [np.array(row) for row in lists], columns(lists, 3).T):
        model = model_of()
        results.append(model.fit(X, Y, epochs=2, weights=[1, 2, 0], batch_size=2, progress=False))
        results[-1]["parameters"] = [array.tolist() for array in model.parameters().values()]
    assert results[0] == results[1] == results[2]
    alone, streamed = ([*X[1:]], lists[1:]), model_of()
    expected = model_of().fit(*alone, epochs=2, shuffle=False, progress=False)
    assert streamed.fit(lambda: iter([alone]), epochs=2, progress=False) == expected
    assert pickle.loads(pickle.dumps(elman.Labels(4))) == eval(repr(elman.Labels(4)), vars(elman))


def test_a_run_goes_on(tmp_path: Path, rng: np.random.Generator):
    X, Y = spelled(rng, 20)

    def make() -> elman.SequenceModel:
        return elman.SequenceModel(elman.Features(3), elman.Labels(2), hidden_size=4, seed=1)

    whole, first, second = make(), make(), make()
    expected = whole.fit(X, Y, epochs=3, batch_size=6, progress=False)
    options: dict[str, Any] = {"batch_size": 6, "progress": False, "checkpoint": tmp_path / "c", "resume": True}
    first.fit(X, Y, epochs=1, **options)
    assert second.fit(X, Y, epochs=3, **options) == expected
    assert_same_bits(second.state_dict(), whole.state_dict())
    with pytest.raises(ValueError, match=r"Y"):
        make().fit(X, [*Y[:-1], [0]] if Y[-1] != [0] else [*Y[:-1], [1]], epochs=3, **options)


def test_edit_distances():
    def slowly(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slowly(a[1:], b) + 1, slowly(a, b[1:]) + 1, slowly(a[1:], b[1:]) + (a[0] != b[0]))

    words = [word for n in range(4) for word in itertools.product(range(2), repeat=n)]
    for a, b in itertools.product(words, words):
        assert losses.edit_distance(np.array(a, int), np.array(b, int)) == slowly(a, b)


def refusals() -> Iterator[tuple[Any, str]]:
    model, X = model_of(), np.zeros((2, 3, 2))
    for Y, message in [
        ([[0, 1, 2, 0], [0]], r"Y\[0\] must have labels that need no more than its 3 steps, got ones for 4"),
        ([[0], [0, 0, 1]], r"Y\[1\] must have labels that need no more than its 3 steps, got ones for 4"),
        ([[0], [3]], r"Y\[1\] must hold"),
        ([[0], [-1]], r"Y\[1\] must hold"),
        ([[0]], "Y must have as many sequences as X, 2, got 1"),
        (np.array([[-1, 0], [0, -1]]), r"Y\[0\] must have -1 behind its last label alone, got it at 0"),
        ([[0.5], [0]], r"Y\[0\] must"),
    ]:
        yield lambda Y=Y: model.fit(X, Y, progress=False), message
    good: Any = ([*X], [[0], [1]])
    yield lambda: model.fit(*good, tbptt=(1, 1)), r"tbptt must be None with Labels\(3\), whose loss needs all steps at"
    yield (
        lambda: model.fit(*good, memory=2),
        r"memory must be None with Labels\(3\), whose loss needs all steps at once",
    )
    yield (
        lambda: model.fit(*good, weights=[[1, 1, 1]] * 2),
        r"weights must be one for each sequence, \(N,\), with Labels",
    )
    yield lambda: model.loss_and_grads(np.zeros((3, 2, 2)), [[0, 1]], memory=2), "memory must be None with Labels"
    yield (
        lambda: model.loss(np.zeros((3, 2, 2)), [[0, 1]], weights=np.ones((3, 2))),
        r"weights must have shape \(2,\), ",
    )
    yield lambda: model.loss(np.zeros((3, 2, 2)), [[0, 1], [1, 1]], lengths=[3, 2]), r"y\[:, 1\] must have labels that"
    yield lambda: model.loss(np.zeros((3, 2, 2)), [[-1, 1], [1, 1]]), r"y\[:, 0\] must have -1 behind its last label"
    yield lambda: model.stream(), r"stream is not possible with Labels\(3\), which are those of a whole sequence"
    yield lambda: model.generate(np.zeros((1, 2)), 3), "generate needs outputs that are inputs, got Labels"
    yield lambda: model.gauss_newton_product(X, [[0]], {}), "gauss_newton_product needs a loss"
    for pattern in ("many-to-one", "one-to-one"):
        yield (
            lambda pattern=pattern: model_of(pattern=pattern),
            r"pattern must be 'many-to-many' with Labels\(3\), got '",
        )
    yield lambda: elman.Seq2Seq(elman.Tokens(3), elman.Labels(3), hidden_size=3), "outputs must have the cross-entropy"


@pytest.mark.parametrize(("call", "message"), [*refusals()])
def test_refusals(call: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()
