"""`Seq2Seq.generate`: draws by hand, greedy search at temperature 0, and rows that do not know of each other."""

import pickle
from typing import Any

import numpy as np
import pytest

import elman
from elman.models.base import network_of

from .test_seq2seq import V, backend_names, compiled_names, kinds, log_probabilities, make, pairs, sharpened

SETTINGS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 2.5, "top_k": 3},
        {"top_p": 0.6},
        {"top_k": 4, "top_p": 0.8},
        {"top_k": 1},
    ],
    ids=str,
)


def drawn_by_hand(
    model: elman.Seq2Seq,
    x: Any,
    rng: np.random.Generator,
    n_samples: int,
    limit: int,
    *,
    temperature: float = 1.0,
    top_k: int = V + 1,
    top_p: float = 1.0,
) -> list[list[int]]:
    """Token by token, the whole beginning anew for each, with one number of the generator for each sample at a step."""
    uniforms, samples = rng.random((limit, n_samples)), list[list[int]]()
    for each in uniforms.T:
        tokens: list[int] = []
        for uniform in each:
            p = np.exp(log_probabilities(model, x, np.array(tokens, dtype=int))[-1] / temperature)
            by_likeliness = sorted(range(V + 1), key=lambda token: -p[token])[:top_k]
            p /= p[by_likeliness].sum()
            n = next((n for n in range(1, top_k) if p[by_likeliness[:n]].sum() >= top_p), top_k)
            kept = sorted(by_likeliness[:n])
            shares = np.cumsum(p[kept]) / p[kept].sum()
            token = kept[min(int((shares <= uniform).sum()), len(kept) - 1)]
            if token == V:
                break
            tokens.append(token)
        samples.append(tokens)
    return samples


@backend_names
@kinds
@SETTINGS
def test_draws_by_hand(options: dict[str, Any], settings: dict[str, Any], backend: str, rng: np.random.Generator):
    model = sharpened(make(**options, backend=backend))
    X, _ = pairs(model, rng, 5)
    rngs = np.random.default_rng(3).spawn(5)
    expected = [drawn_by_hand(model, x, own, 3, 9, **settings) for x, own in zip(X, rngs, strict=True)]
    found = model.generate(X, n_samples=3, max_length=9, seed=3, batch_size=2, **settings)
    assert [[tokens.tolist() for tokens in samples] for samples in found] == expected
    if settings == {"top_k": 1}:
        assert expected == [[tokens.tolist()] * 3 for tokens in model.predict(X, max_length=9)]
    elif "top_k" not in settings:
        assert len({str(tokens) for samples in expected for tokens in samples}) > 4


@backend_names
@kinds
def test_temperature_0_is_greedy(options: dict[str, Any], backend: str, dtype: str, rng: np.random.Generator):
    model = sharpened(make(**options, backend=backend, dtype=dtype))
    X, _ = pairs(model, rng, 12)
    greedy = [tokens.tolist() for tokens in model.predict(X)]
    assert [tokens.tolist() for tokens in model.generate(X, temperature=0)] == greedy
    thrice = model.generate(X, temperature=0, n_samples=3, top_k=2, batch_size=5)
    assert [[tokens.tolist() for tokens in samples] for samples in thrice] == [[tokens] * 3 for tokens in greedy]
    assert all(tokens.dtype == np.int64 for samples in thrice for tokens in samples)


@compiled_names
@kinds
def test_a_sequence_depends_on_the_seed_and_its_place_alone(
    options: dict[str, Any], backend: str, dtype: str, rng: np.random.Generator
):
    model = sharpened(make(**options, backend=backend, dtype=dtype))
    X, _ = pairs(model, rng, 15)
    before = pickle.dumps(model)
    together = model.generate(X, n_samples=2, seed=7)
    assert pickle.dumps(model) == before
    assert str(together) == str(model.generate(X, n_samples=2, seed=np.random.default_rng(7)))
    assert str(together) != str(model.generate(X, n_samples=2, seed=8))
    for size in (1, 2, 7):
        assert str(model.generate(X, n_samples=2, seed=7, batch_size=size)) == str(together)
    assert str(model.generate(X[:4], n_samples=2, seed=7)) == str(together[:4])
    others = [*X[:3], X[0], *X[4:]]
    changed = model.generate(others, n_samples=2, seed=7)
    assert [str(one) == str(other) for one, other in zip(changed, together, strict=True)].count(False) <= 1


@backend_names
def test_long_ones_and_limits(backend: str, rng: np.random.Generator):
    """Beyond the steps of one call of the kernel; where a limit is lower, there is less of the same."""
    model = sharpened(make(backend=backend))
    model.parameters()["bias_o"][V] -= 3  # ends are rare
    X, _ = pairs(model, rng, 4)
    whole = model.generate(X, max_length=200, seed=1)
    for x, own, tokens in zip(X, np.random.default_rng(1).spawn(4), whole, strict=True):
        assert [tokens.tolist()] == drawn_by_hand(model, x, own, 1, 200)
    assert max(map(len, whole)) > 130
    for limit in (0, 1, 64, 65):
        cut = model.generate(X, max_length=limit, seed=1)
        assert [tokens.tolist() for tokens in cut] == [tokens[:limit].tolist() for tokens in whole]
    by_default = model.generate(X, seed=1)
    expected = [tokens[: 2 * len(x) + 10].tolist() for x, tokens in zip(X, whole, strict=True)]
    assert [tokens.tolist() for tokens in by_default] == expected


def test_backends_and_new_processes_draw_the_same(tmp_path: Any, rng: np.random.Generator):
    model = sharpened(make())
    X, _ = pairs(model, rng, 6)
    model.save(tmp_path / "model")
    expected = str(model.generate(X, n_samples=2, seed=0))
    assert str(elman.load(tmp_path / "model").generate(X, n_samples=2, seed=0)) == expected
    assert str(elman.reference.load(tmp_path / "model").generate(X, n_samples=2, seed=0)) == expected


def test_labels_are_drawn():
    model = elman.Seq2Seq(
        elman.Tokens(labels=["a", "b", "c"]), elman.Categories(labels=["un", "deux"]), hidden_size=6, seed=0
    )
    plain = elman.Seq2Seq(elman.Tokens(3), elman.Categories(2), hidden_size=6, seed=0)
    drawn, codes = (one.generate(X, n_samples=2, seed=1) for one, X in ((model, ["ab", "c"]), (plain, [[0, 1], [2]])))
    for samples, expected in zip(drawn, codes, strict=True):
        assert [[*each] for each in samples] == [[["un", "deux"][i] for i in each] for each in expected]
    assert [[*each] for each in model.generate(["ab"], temperature=0)] == [[*each] for each in model.predict(["ab"])]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"n_samples": 0}, ValueError, "n_samples must be a positive int, got 0"),
    ({"n_samples": 1.5}, TypeError, r"n_samples must be a positive int, got 1\.5"),
    ({"temperature": -1}, ValueError, "temperature must be a finite number of at least 0, got -1"),
    ({"top_k": 0}, ValueError, "top_k must be a positive int, got 0"),
    ({"top_p": 0}, ValueError, "top_p must be a number above 0, up to 1, got 0"),
    ({"seed": "a"}, TypeError, "seed must be None, an int"),
    ({"max_length": -1}, ValueError, "max_length must be an int of at least 0, got -1"),
    ({"batch_size": 0}, ValueError, "batch_size must be a positive int, got 0"),
    ({"X": [[V]]}, ValueError, r"X\[0\] must hold tokens from 0 to 4, got 5"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refusals(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make().generate(**({"X": [[0]]} | options))


@backend_names
def test_outputs_that_are_not_finite(backend: str):
    model = make(backend=backend)
    network_of(model).parameters.named()["bias_o"][1] = np.nan
    for call in (model.generate, model.predict):
        with pytest.raises(FloatingPointError, match=r"largest output of X\[0\] at step 0"):
            call([[0, 1]])
