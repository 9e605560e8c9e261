"""Embeddings of tokens, tied ones among them, and columns: gradients, other ways to compute the same, data, files."""

import fnmatch
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from .ranks import on_ranks

BACKENDS = elman.available_backends()
V, D, H = 5, 6, 6
Model = elman.SequenceModel


def embedded(**options: Any) -> Model:
    given = {"outputs": elman.Categories(V), "hidden_size": H, "dtype": "float64", "seed": 0, **options}
    return Model(elman.Tokens(V, embedding_dim=D), **given)


def mixed(**options: Any) -> Model:
    parts = elman.Tokens(4, embedding_dim=3), elman.Features(2), elman.Tokens(3), elman.Tokens(V, embedding_dim=1)
    given = {"outputs": elman.Categories(V), "hidden_size": H, "dtype": "float64", "seed": 0, **options}
    return Model(elman.Columns(*parts), **given)


MODELS: dict[str, tuple[Callable[..., Model], dict[str, Any]]] = {
    "plain": (embedded, {}),
    "tied": (embedded, {"tied": True}),
    "tied, both directions": (embedded, {"tied": True, "hidden_size": H // 2, "bidirectional": True}),
    "layers": (embedded, {"num_layers": 2, "bidirectional": True, "nonlinearity": "sigmoid"}),
    "leaky, h_0": (embedded, {"leak": 0.4, "learn_leak": True, "learn_h_0": True, "form": "potential"}),
    "signs, masks": (embedded, {"excitatory": 0.5, "mask_ih": np.random.default_rng(0).random((H, D)) < 0.7}),
    "last": (embedded, {"pattern": "many-to-one", "reverse": True}),
    "single": (embedded, {"pattern": "one-to-one", "outputs": elman.Reals(2)}),
    "fed back": (embedded, {"pattern": "one-to-many"}),
    "columns": (mixed, {"num_layers": 2}),
    "columns, both directions": (mixed, {"bidirectional": True}),
    "columns, last": (mixed, {"pattern": "many-to-one"}),
    "columns, single": (mixed, {"pattern": "one-to-one"}),
}


def inputs_of(model: Model, rng: np.random.Generator, *axes: int) -> Any:
    if isinstance(model.inputs, elman.Tokens):
        return rng.integers(0, V, axes)
    first, third, last = (rng.integers(0, n, axes) for n in (4, 3, V))
    return np.stack([first, *rng.normal(size=(2, *axes)), third, last], axis=-1)


def batch(model: Model, n_steps: int = 7, n_rows: int = 3) -> tuple[Any, Any]:
    rng, (one_input, one_output) = np.random.default_rng(1), (side == "one" for side in model.pattern.split("-to-"))
    x = inputs_of(model, rng, *(() if one_input else (n_steps,)), n_rows)
    axes = (n_rows,) if one_output else (n_steps, n_rows)
    y = rng.normal(size=(*axes, 2)) if isinstance(model.outputs, elman.Reals) else rng.integers(0, V, axes)
    return x, y


def made(name: str, **options: Any) -> Model:
    make, own = MODELS[name]
    return make(**{**own, **options})


def same(found: Any, expected: Any, **tolerance: float) -> None:
    assert [*found] == [*expected]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, err_msg=name, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_central_differences(name: str, backend: str) -> None:
    model = made(name, backend=backend)
    x, y = batch(model)
    if not any(word in name for word in ("single", "fed back")):
        lengths: Any = {"lengths": [7, 4, 1]}
        x[5:, 1:] = -9  # which nobody reads
    else:
        lengths = {}
    _, gradients = model.loss_and_grads(x, y, **lengths)
    rng, h = np.random.default_rng(2), 1e-5
    for key, array in model.parameters().items():
        if "embedding" in key or "_ih_l0" in key or key == "weight_ho":
            assert np.any(gradients[key]), key
        along, before, losses = rng.normal(size=array.shape), array.copy(), []
        for step in (h, -h):
            array[...] = before + step * along
            losses.append(model.loss(x, y, **lengths))
        array[...] = before
        slope = (losses[0] - losses[1]) / (2 * h)
        np.testing.assert_allclose((gradients[key] * along).sum(), slope, rtol=1e-6, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_backends_agree(name: str) -> None:
    """The compiled ones to the bit."""
    found = []
    for backend in ("numpy", *(one for one in BACKENDS if one != "numpy")):
        model = made(name, backend=backend, dtype="float32")
        x, y = batch(model)
        loss, gradients = model.loss_and_grads(x, y)
        found.append({"loss": loss, **gradients})
    for one in found[1:]:
        same(one, found[0], atol=1e-5)
    for one in found[2:]:
        same({**one, "loss": 0}, {**found[1], "loss": 0})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"pattern": "many-to-one", "num_layers": 2}])
def test_the_identity_is_one_hot(options: dict[str, Any], backend: str) -> None:
    given: dict[str, Any] = {"hidden_size": H, "seed": 0, "backend": backend, **options}
    one = Model(elman.Tokens(V, embedding=np.eye(V)), elman.Categories(V), **given)
    other = Model(elman.Tokens(V), elman.Categories(V), **given)
    assert one.rnn.input_size == other.rnn.input_size == V
    same({name: array for name, array in one.parameters().items() if name != "embedding"}, other.parameters())
    x, y = batch(other)
    X = np.random.default_rng(0).integers(0, V, (4, 9))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    _, own = one.loss_and_grads(x, y)
    _, expected = other.loss_and_grads(x, y)
    same({name: own[name] for name in expected}, expected, atol=1e-6)


def one_hot(x: Any, n: int) -> Any:
    return np.eye(n)[x.astype(int)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_columns_are_what_one_would_lay_out(backend: str) -> None:
    model = mixed(backend=backend)
    by_hand = Model(elman.Features(9), elman.Categories(V), hidden_size=H, dtype="float64", backend=backend)
    state = model.state_dict()
    by_hand.load_state_dict({name: array for name, array in state.items() if "embedding" not in name})
    x, y = batch(model)
    tables = [(0, "embedding_0"), (4, "embedding_3")]
    first, last = (state[name][x[..., c].astype(int)] for c, name in tables)
    laid_out = np.concatenate([first, x[..., 1:3], one_hot(x[..., 3], 3), last], axis=-1)
    assert model.rnn.input_size == laid_out.shape[-1] == 9
    loss, gradients = model.loss_and_grads(x, y)
    expected_loss, expected = by_hand.loss_and_grads(laid_out, y)
    assert loss == expected_loss
    same({name: gradients[name] for name in expected}, expected)
    _, _, pullback = by_hand.rnn.vjp(laid_out)
    o = by_hand.rnn(laid_out)[0] @ state["weight_ho"].T + state["bias_o"]
    p = np.exp(o) / np.exp(o).sum(axis=-1, keepdims=True)
    d_x, _, _ = pullback((p - one_hot(y, V)) @ state["weight_ho"] / y.size)
    for (c, name), columns in zip(tables, (d_x[..., :3], d_x[..., 8:]), strict=True):
        by_rows = np.zeros_like(state[name])
        np.add.at(by_rows, x[..., c].astype(int), columns)
        np.testing.assert_allclose(gradients[name], by_rows, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_torch_computes_the_same(tied: bool, bidirectional: bool) -> None:
    torch = pytest.importorskip("torch")
    n_seen = H * (1 + bidirectional)
    tokens = elman.Tokens(V, embedding_dim=n_seen)
    options: Any = {"hidden_size": H, "bidirectional": bidirectional, "tied": tied, "dtype": "float64", "seed": 0}
    model = Model(tokens, elman.Categories(V), **options)
    state = model.state_dict()
    embedding, readout = torch.nn.Embedding(V, n_seen), torch.nn.Linear(n_seen, V)
    layers = torch.nn.RNN(n_seen, H, bidirectional=bidirectional)
    for module in embedding, readout, layers:
        module.double()
    as_tensors = {name: torch.tensor(array) for name, array in model.rnn.state_dict(pytorch=True).items()}
    layers.load_state_dict(as_tensors)
    readout.load_state_dict({"weight": torch.tensor(state["weight_ho"]), "bias": torch.tensor(state["bias_o"])})
    embedding.load_state_dict({"weight": torch.tensor(state["weight_ho" if tied else "embedding"])})
    if tied:
        readout.weight = embedding.weight
    x, y = batch(model)
    o = readout(layers(embedding(torch.tensor(x)))[0])
    loss = torch.nn.functional.cross_entropy(o.reshape(-1, V), torch.tensor(y).reshape(-1))
    loss.backward()
    named = {"rnn": layers, "out": readout, **({} if tied else {"emb": embedding})}
    theirs = torch.nn.ModuleDict(named).state_dict()
    names = {"readout": "out", "embedding": None if tied else "emb"}
    found = elman.convert.from_pytorch(theirs, **names)
    same({name: found[name] for name in state}, state)
    back = elman.convert.to_pytorch(state, "rnn", **names)
    assert {*back} == {*theirs}
    assert tied or np.array_equal(back["emb.weight"], theirs["emb.weight"])
    own_loss, gradients = model.loss_and_grads(x, y)
    assert own_loss == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(gradients["weight_ho" if tied else "embedding"], embedding.weight.grad, atol=1e-13)
    np.testing.assert_allclose(gradients["weight_ih_l0"], layers.weight_ih_l0.grad, atol=1e-13)
    np.testing.assert_allclose(gradients["weight_ho"], readout.weight.grad, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["plain", "tied", "leaky, h_0", "last", "tied, both directions", "columns"])
def test_little_memory_gives_the_same(name: str, backend: str) -> None:
    """To the bit, but on NumPy and where leaks are learned."""
    own = {"reverse": False, "num_layers": 1} if name in ("last", "columns") else {}
    model = made(name, backend=backend, dtype="float32", **own)
    x, y = batch(model, n_steps=9)
    _, expected = model.loss_and_grads(x, y)
    for memory in (1, 4):
        _, found = model.loss_and_grads(x, y, memory=memory)
        same(found, expected, atol=1e-6 if backend == "numpy" or "leaky" in name else 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("names", [["embedding*"], ["embedding_3"], ["*_ho"], ["*_hh_*", "bias*"], ["weight_ih_l0"]])
@pytest.mark.parametrize("name", ["plain", "tied", "layers", "columns"])
def test_some_parameters_are_trained(name: str, names: list[str], backend: str) -> None:
    whole, part = made(name, backend=backend), made(name, backend=backend)
    before, (x, y) = whole.state_dict(), batch(whole)
    if "embedding" in names[0] and not any(key.startswith(names[0].rstrip("*")) for key in before):
        with pytest.raises(ValueError, match="trainable"):
            part.train_step(x, y, optimizer=elman.SGD(0.5), trainable=names)
        return
    whole.train_step(x, y, optimizer=elman.SGD(0.5))
    part.train_step(x, y, optimizer=elman.SGD(0.5), trainable=names)
    fitting = {key for pattern in names for key in fnmatch.filter(before, pattern)}
    for key, array in part.parameters().items():
        np.testing.assert_array_equal(array, (whole.parameters() if key in fitting else before)[key], err_msg=key)
        assert np.any(array != before[key]) == (key in fitting), key


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_an_embedding_begins_with(backend: str) -> None:
    values = np.random.default_rng(0).normal(size=(V, H))
    given: dict[str, Any] = {"hidden_size": H, "seed": 3, "backend": backend}
    one = Model(elman.Tokens(V, embedding=values), elman.Categories(V), **given)
    np.testing.assert_array_equal(one.parameters()["embedding"], values.astype("f"))
    assert one.inputs == elman.Tokens(V, embedding_dim=H)
    assert one.inputs.embedding is None
    assert one.inputs != elman.Tokens(V, embedding=values) == elman.Tokens(V, embedding=values)
    assert elman.Tokens(V, embedding=values) != elman.Tokens(V, embedding=values + 1)
    tied = Model(elman.Tokens(V, embedding=values), elman.Categories(V), tied=True, **given)
    assert "embedding" not in tied.parameters()
    np.testing.assert_array_equal(tied.parameters()["weight_ho"], values.astype("f"))
    drawn = Model(elman.Tokens(2000, embedding_dim=H), elman.Reals(1), **given).parameters()["embedding"]
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05
    plain = Model(elman.Features(H), elman.Categories(V), **given).parameters()
    drawn_too = Model(elman.Tokens(V, embedding_dim=H), elman.Categories(V), **given).parameters()
    same({name: drawn_too[name] for name in plain}, plain)  # layers and readout are as ever
    columns = elman.Columns(elman.Features(1), elman.Tokens(V, embedding=values))
    np.testing.assert_array_equal(
        Model(columns, elman.Reals(1), **given).parameters()["embedding_1"], values.astype("f")
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["plain", "tied", "columns"])
def test_streams_have_the_bits_of_the_whole(name: str, backend: str) -> None:
    model = made(name, backend=backend, dtype="float32")
    rng = np.random.default_rng(0)
    X = inputs_of(model, rng, 4, 9)
    expected = model.predict_proba(X)
    stream = model.stream(4)
    chunks = [stream.predict_proba(X[:, a:b].swapaxes(0, 1)) for a, b in ((0, 1), (1, 2), (2, 6), (6, 9))]
    np.testing.assert_array_equal(np.concatenate(chunks).swapaxes(0, 1), expected)
    alone = model.stream()
    for t in range(9):
        np.testing.assert_array_equal(alone.predict_proba(X[2, t : t + 1])[0], expected[2, t])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["plain", "tied", "leaky, h_0", "fed back"])
def test_generated_is_the_likeliest(name: str, backend: str) -> None:
    model = made(name, backend=backend, num_layers=2)
    model.parameters()["weight_ho"][...] *= 20
    written = [2] if name == "fed back" else [2, 0, 1]
    reader = model if name != "fed back" else made("plain", backend=backend, num_layers=2)
    reader.load_state_dict(model.state_dict())
    generated = model.generate(written, 8, temperature=0).tolist()
    for token in generated:
        assert token == reader.predict([written])[0][-1]
        written = [*written, token]


@pytest.mark.parametrize("backend", BACKENDS)
def test_generated_from_a_token_that_is_never_written(backend: str) -> None:
    model = made("fed back", backend=backend, outputs=elman.Categories(V - 2))
    drawn = model.generate(V - 1, 50, seed=0)
    assert 0 <= drawn.min() < drawn.max() < V - 2


def test_data_of_all_forms(tmp_path: Path) -> None:
    """One training on each gives the same model; what is wrong in one is named."""
    rng = np.random.default_rng(0)
    inputs, n = elman.Columns(elman.Tokens(4, embedding_dim=3), elman.Features(2), elman.Tokens(3)), 12
    X = np.stack([rng.integers(0, 4, (n, 5)), *rng.integers(-9, 9, (2, n, 5)), rng.integers(0, 3, (n, 5))], axis=-1)
    Y = rng.integers(0, 3, (n, 5))
    np.save(tmp_path / "X.npy", X.astype("f"))
    forms: list[Any] = [
        X.astype("f"),
        X.astype("d"),
        X.astype("i1"),
        X.astype("e"),
        [*X.astype("f")],
        [*X.astype("i2")],
        np.load(tmp_path / "X.npy", mmap_mode="r"),
    ]
    states = []
    for form in forms:
        model = Model(inputs, elman.Categories(3), hidden_size=4, seed=0)
        history = model.fit(form, Y, epochs=2, batch_size=5, validation_data=(form, Y), progress=False)
        states.append({"loss": history["val_loss"], **model.state_dict(), "p": np.array(model.predict_proba(form))})
    for state in states[1:]:
        same(state, states[0])
    model = Model(inputs, elman.Categories(3), hidden_size=4, seed=0)
    model.fit(lambda: [(X[i : i + 5].astype("f"), Y[i : i + 5]) for i in range(0, n, 5)], epochs=2, progress=False)
    series = X.reshape(-1, 4).astype("f")
    windows = elman.Windows(series, length=6, horizon=1, targets=Y.ravel())
    model.fit(windows, epochs=1, progress=False)
    assert model.predict(windows).shape == (len(windows), 6)
    for value, words in ((4, "got 4 at"), (1.5, "got 1.5 at"), (-1, "got -1 at")):
        wrong = X.astype("f")
        wrong[7, 2, 0] = value
        for form, place in ((wrong, r"X must .*\[7, 2, 0\]"), ([*wrong], r"X\[7\] must .*\[2, 0\]")):
            with pytest.raises(ValueError, match=rf"{place}|{words}") as found:
                model.fit(form, Y, epochs=1, progress=False)
            assert "tokens from 0 to 3 in column 0" in str(found.value)
    with pytest.raises(TypeError, match="X must hold float32 or float64, got int64"):
        model.predict(X)


def test_columns_of_tokens_alone_may_be_integers() -> None:
    inputs = elman.Columns(elman.Tokens(4, embedding_dim=2), elman.Tokens(1 << 12, embedding_dim=1))
    model = Model(inputs, elman.Reals(1), hidden_size=3, seed=0)
    X = np.array([[[0, 3], [3, (1 << 12) - 1]], [[1, 2], [2, 5]]])
    expected = model.predict(X)
    for given in (X.astype("u4"), X.astype("d"), [*X]):
        np.testing.assert_array_equal(np.array(model.predict(given)), expected)
    for wrong in (1 << 12, (1 << 24) + 1, -1, 1 << 62):
        X[1, 0, 1] = wrong
        with pytest.raises(ValueError, match="column 1"):
            model.predict(X)
    with pytest.raises(ValueError, match=r"parts\[0\] must have at most 2\*\*24 tokens"):
        elman.Columns(elman.Tokens((1 << 24) + 1))


@pytest.mark.parametrize("name", ["plain", "tied", "columns"])
def test_runs_go_on_and_are_the_same_on_ranks(name: str, tmp_path: Path) -> None:
    """Bit for bit, with truncation, lengths and a checkpoint; and for any number of ranks."""
    rng = np.random.default_rng(0)
    first = made(name, dtype="float32")
    X = [inputs_of(first, rng, n).astype("f" if name == "columns" else int) for n in (9, 3, 7, 7, 1, 8)]
    Y = [rng.integers(0, V, len(x)) for x in X]
    options: Any = {"batch_size": 2, "tbptt": (2, 3), "progress": False, "optimizer": elman.Adam(0.01)}
    whole, place = made(name, dtype="float32"), tmp_path / "run.model"
    whole.fit(X, Y, epochs=4, **options)
    for epochs in (2, 4):
        model = made(name, dtype="float32")
        options["optimizer"] = elman.Adam(0.01)
        model.fit(X, Y, epochs=epochs, checkpoint=place, resume=True, **options)
    same(model.state_dict(), whole.state_dict())
    same(elman.load(place).state_dict(), whole.state_dict())

    def trained(comm: Any) -> Any:
        model = made(name, dtype="float32")
        model.fit(X, Y, epochs=2, batch_size=4, progress=False, comm=comm, shards=2)
        return model.state_dict()

    one, two = on_ranks(1, trained), on_ranks(2, trained)
    for state in two:
        same(state, one[0])


READ = """
import sys, numpy as np, elman
for path in sys.argv[1:]:
    model, x = elman.load(path + ".model"), np.load(path + ".x.npy")
    np.save(path + ".p.npy", model.predict_proba(x))
    print(model)
"""


def test_files_and_pickles(tmp_path: Path) -> None:
    models = {str(tmp_path / name): made(name, dtype="float32") for name in ("plain", "tied", "columns")}
    inputs = {path: inputs_of(model, np.random.default_rng(0), 3, 5) for path, model in models.items()}
    for path, model in models.items():
        model.save(path + ".model")
        np.save(path + ".x.npy", inputs[path])
    run = subprocess.run([sys.executable, "-c", READ, *models], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == [repr(model) for model in models.values()]
    for path, model in models.items():
        expected = model.predict_proba(inputs[path])
        np.testing.assert_array_equal(np.load(path + ".p.npy"), expected)
        other = pickle.loads(pickle.dumps(model))
        assert other.inputs == model.inputs
        np.testing.assert_array_equal(other.predict_proba(inputs[path]), expected)


def test_kinds_of_old_pickles() -> None:
    old = elman.Tokens.__new__(elman.Tokens)
    old.__dict__.update({"n": 3})
    assert old == elman.Tokens(3)
    assert repr(pickle.loads(pickle.dumps(old))) == "Tokens(3)"


def test_encoders_have_embeddings(tmp_path: Path) -> None:
    """Seq2Seq, too: gradients, learning with a part of it, files."""
    rng = np.random.default_rng(0)
    X = [rng.integers(0, V, n) for n in (4, 2, 5)]
    Y = [x[::-1] for x in X]
    for inputs in (elman.Tokens(V, embedding_dim=D), elman.Columns(elman.Tokens(V, embedding_dim=2), elman.Tokens(V))):
        make = lambda inputs=inputs: elman.Seq2Seq(  # noqa: E731
            inputs, elman.Categories(V), hidden_size=4, bidirectional=True, dtype="float64", seed=0
        )
        given = X if isinstance(inputs, elman.Tokens) else [np.stack([x, x], axis=-1) for x in X]
        moved, model = make(), make()
        options: Any = {"epochs": 1, "shuffle": False, "progress": False}
        moved.fit(given, Y, optimizer=elman.SGD(1.0), **options)
        before, after = model.state_dict(), moved.state_dict()
        h = 1e-5
        for name, array in model.parameters().items():
            along, losses = rng.normal(size=array.shape), []
            for step in (h, -h):
                array[...] = before[name] + step * along
                losses.append(model.evaluate(given, Y)["loss"])
            array[...] = before[name]
            slope = ((before[name] - after[name]) * along).sum()
            assert slope == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-5, abs=1e-8), name
        part = make()
        part.fit(given, Y, optimizer=elman.SGD(1.0), trainable=["embedding*"], memory=2, **options)
        for name, array in part.state_dict().items():
            np.testing.assert_allclose(array, (after if "embedding" in name else before)[name], atol=1e-12)
        part.save(tmp_path / "pairs.model")
        loaded = elman.load(tmp_path / "pairs.model")
        for one, other in zip(loaded.predict(given), part.predict(given), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["plain", "tied", "columns"])
def test_curvature_and_norms(name: str, backend: str) -> None:
    """Of a linear model with squared error, the curvature is the gradient's own slope."""
    outputs = {} if name == "tied" else {"outputs": elman.Reals(2)}
    model = made(name, backend=backend, nonlinearity="identity", **outputs)
    x, y = batch(model)
    rng = np.random.default_rng(0)
    v = {key: rng.normal(size=array.shape) for key, array in model.parameters().items()}
    product = model.gauss_newton_product(x, y, v)
    u = {key: rng.normal(size=array.shape) for key, array in v.items()}
    other = model.gauss_newton_product(x, y, u)
    one = sum((u[key] * product[key]).sum() for key in v)
    assert one == pytest.approx(sum((v[key] * other[key]).sum() for key in v), rel=1e-9)  # it is symmetric
    # vᵀ G v from outputs that move along v
    before, h, moved = model.state_dict(), 1e-6, []
    X = x.swapaxes(0, 1)
    for step in (h, -h):
        model.load_state_dict({key: before[key] + step * v[key] for key in v})
        moved.append(model.predict(X) if outputs else np.log(model.predict_proba(X)))
    model.load_state_dict(before)
    d_o = (moved[0] - moved[1]) / (2 * h)
    p = 2 / d_o.shape[-1] if outputs else model.predict_proba(X)  # d log p is d_o - its mean: the variance under p
    expected = (p * np.square(d_o)).sum(axis=-1).mean()
    assert sum((v[key] * product[key]).sum() for key in v) == pytest.approx(expected, rel=1e-5)
    norms, saturated = model.gradient_norms(x, y)
    assert norms.shape == (model.rnn.num_layers, 7)
    assert np.isfinite(norms).all()
    assert not saturated.any()


@pytest.mark.parametrize("name", ["plain", "tied", "layers", "last", "fed back", "columns", "columns, single"])
def test_onnx_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    import elman.onnx

    model, place = made(name, dtype="float32"), tmp_path / "a.onnx"
    x, _ = batch(model)
    x = x.astype("f" if "columns" in name else np.int64)
    elman.onnx.export(model, place)
    session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
    given = {"x" if "columns" in name else "tokens": x}
    if name == "fed back":
        found = session.run(["labels"], given | {"length": np.array(6)})[0]
        for b in range(3):
            np.testing.assert_array_equal(found[:, b], model.generate(int(x[b]), 6, temperature=0))
    else:
        found = session.run(["probabilities"], given)[0]
        X = x if "single" in name else x.swapaxes(0, 1)
        one_output = model.pattern.endswith("one")
        np.testing.assert_allclose(found if one_output else found.swapaxes(0, 1), model.predict_proba(X), atol=1e-5)
    same(elman.onnx.load(place).state_dict(), model.state_dict())


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: elman.Tokens(3, embedding_dim=0), "embedding_dim must be a positive int, got 0"),
    (lambda: elman.Tokens(3, embedding_dim=2.0), "embedding_dim must be a positive int, got 2.0"),
    (lambda: elman.Tokens(3, embedding_dim=2, embedding=np.ones((3, 2))), "embedding_dim must be None where"),
    (lambda: elman.Tokens(3, embedding=np.ones((2, 2))), r"embedding must have shape \(3, d\), got \(2, 2\)"),
    (lambda: elman.Tokens(3, embedding=np.ones((3, 2), int)), "embedding must hold float32 or float64, got int64"),
    (lambda: elman.Tokens(1, embedding=[[np.nan]]), "embedding must be finite, got nan"),
    (
        lambda: Model(elman.Tokens(1, embedding=[[1e99]]), elman.Reals(1), hidden_size=1),
        "embedding as float32 must be",
    ),
    (lambda: elman.Columns(), "parts must be at least one"),
    (lambda: elman.Columns(3), r"parts\[0\] must be elman.Tokens or elman.Features, got 3"),
    (lambda: elman.Columns(elman.Columns(elman.Tokens(3))), r"parts\[0\] must be elman.Tokens or elman.Features, got"),
    (lambda: embedded(tied=1), "tied must be True or False"),
    (lambda: embedded(tied=True, hidden_size=5), "tied=True needs Tokens with embedding_dim=5, .* got Tokens"),
    (lambda: embedded(tied=True, outputs=elman.Categories(4)), "tied=True needs Tokens with embedding_dim=6"),
    (lambda: embedded(tied=True, outputs=elman.Binary(V)), "tied=True needs .* as many Categories, got .* Binary"),
    (lambda: Model(elman.Tokens(V), elman.Categories(V), hidden_size=V, tied=True), "tied=True needs Tokens with"),
    (lambda: mixed(tied=True), "tied=True needs Tokens with"),
    (lambda: embedded(tied=True, mask_ho=np.ones((V, H), bool)), "mask_ho and readout_from must be None with tied"),
    (lambda: mixed(pattern="one-to-many"), "pattern='one-to-many' needs inputs that are Tokens or Features, got Col"),
    (lambda: mixed(input_noise=0.1), "input_noise must be 0 where inputs are columns, got 0.1"),
    (lambda: embedded(input_noise=0.1), "input_noise must be 0 where inputs are tokens, got 0.1"),
    (lambda: mixed().generate(np.ones((3, 5)), 2), "generate needs outputs that are inputs, got"),
    (lambda: mixed().loss(np.ones((7, 3, 4)), np.zeros((7, 3), int)), r"x must have shape \(T, B, 5\), got"),
    (
        lambda: Model(elman.Tokens(2**31 - 1, embedding_dim=2**31 - 1), elman.Reals(1), hidden_size=2),
        "n=2147483647, embedding_dim=2147483647 must be smaller together",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
