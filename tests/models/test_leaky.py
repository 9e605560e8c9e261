"""Leaky, noisy layers and models: beside loops in plain PyTorch, with the normals that `noise_like` returns."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
import elman.backends

torch = pytest.importorskip("torch")

BACKENDS = elman.backends.available()
FORMS = "rate", "potential"
T, B, I, H = 6, 4, 3, 5  # noqa: E741
LENGTHS = np.array([6, 2, 0, 5])
SEED = 11


def leaf(array: Any) -> Any:
    return torch.tensor(np.array(array), requires_grad=True)


def layers_by_torch(rnn: elman.RNN, p: dict[str, Any], x: Any, h_0: Any, xi: Any, lengths: Any, xi_in: Any = 0) -> Any:
    """The outputs (T, B, D·H) and last states (L·D, B, H) of the equations, row by row and step by step."""
    f = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus}[rnn.nonlinearity]
    n_directions, last = 1 + rnn.bidirectional, []
    sigma = rnn.noise if isinstance(rnn.noise, tuple) else [rnn.noise] * rnn.num_layers
    leak = rnn.leak if isinstance(rnn.leak, tuple) else [rnn.leak] * rnn.num_layers
    if rnn.input_noise:
        x = x + rnn.input_noise * (2 / leak[0]) ** 0.5 * xi_in
    for k in range(rnn.num_layers):
        y = torch.zeros((*x.shape[:2], n_directions * rnn.hidden_size), dtype=torch.float64)
        places, rows = [], []
        for d, b in itertools.product(range(n_directions), range(x.shape[1])):
            suffix = f"_l{k}" + ("_reverse" if d else "")
            alpha = torch.sigmoid(p["leak" + suffix]) if rnn.learn_leak else torch.tensor(np.array(leak[k]))
            h, columns = h_0[k * n_directions + d, b], slice(d * rnn.hidden_size, (d + 1) * rnn.hidden_size)
            steps = range(int(lengths[b]))
            for t in reversed(steps) if d else steps:
                a = p["weight_ih" + suffix] @ x[t, b] + p["bias" + suffix]
                a = a + torch.tensor(np.array(sigma[k])) * (2 / alpha) ** 0.5 * xi[k, t, b, columns]
                if rnn.form == "rate":
                    out = h = (1 - alpha) * h + alpha * f(a + p["weight_hh" + suffix] @ h)
                else:
                    h = (1 - alpha) * h + alpha * (a + p["weight_hh" + suffix] @ f(h))
                    out = f(h)
                places.append((t, b, columns))
                rows.append(out)
            last.append((k * n_directions + d, b, h))
        for (t, b, columns), out in zip(places, rows, strict=True):
            mask = torch.zeros_like(y)
            mask[t, b, columns] = 1
            y = y + mask * torch.nn.functional.pad(out, (columns.start, y.shape[2] - columns.stop))
        x = y
    h_n = torch.stack([h for *_, h in sorted(last, key=lambda one: one[:2])])
    return x, h_n.reshape(rnn.num_layers * n_directions, -1, rnn.hidden_size)


OPTIONS = [
    {},
    {"bidirectional": True},
    {"num_layers": 2, "leak": [0.3, np.linspace(0.1, 1, H)], "noise": [0.1, 0.4]},
    {"num_layers": 2, "bidirectional": True, "learn_leak": True},
    {"bidirectional": True, "leak": np.linspace(0.1, 1, H), "noise": [np.linspace(0, 1, H)]},
    {"input_noise": 0.3, "nonlinearity": "softplus"},
    {"leak": 1.0, "noise": 0.5},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_layer_is_the_equation(form: str, options: dict[str, Any], backend: str, rng: np.random.Generator):
    options = {"leak": 0.2, "noise": 0.3, **options}
    rnn = elman.RNN(I, H, form=form, dtype="float64", seed=0, backend=backend, **options)
    x, h_0 = rng.normal(size=(T, B, I)), rng.normal(size=(rnn.num_layers * (1 + rnn.bidirectional), B, H))
    xi = rnn.noise_like(x, noise_seed=SEED)
    xi_in = rnn.noise_like(x, noise_seed=SEED, inputs=True)
    for lengths in (None, LENGTHS):
        y, h_n, pullback = rnn.vjp(x, h_0, lengths, noise_seed=SEED)
        d_y, d_h_n = rng.normal(size=y.shape), rng.normal(size=h_n.shape)
        own = np.full(B, T) if lengths is None else lengths
        d_y[np.arange(T)[:, None] >= own] = 0
        d_x, d_h_0, d_params = pullback(d_y, d_h_n)
        p, x_, h_ = {name: leaf(array) for name, array in rnn.parameters().items()}, leaf(x), leaf(h_0)
        expected = layers_by_torch(rnn, p, x_, h_, torch.tensor(xi), own, torch.tensor(xi_in))
        np.testing.assert_allclose(y, expected[0].detach(), atol=1e-12)
        np.testing.assert_allclose(h_n, expected[1].detach(), atol=1e-12)
        ((expected[0] * torch.tensor(d_y)).sum() + (expected[1] * torch.tensor(d_h_n)).sum()).backward()
        np.testing.assert_allclose(d_x, x_.grad, atol=1e-10)
        np.testing.assert_allclose(d_h_0, h_.grad, atol=1e-10)
        for name, array in d_params.items():
            np.testing.assert_allclose(array, p[name].grad, atol=1e-10, err_msg=name)
        again, last = rnn(x, h_0, lengths, noise_seed=SEED)
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(last, h_n)
        np.testing.assert_array_equal(rnn.last_state(x, h_0, lengths, noise_seed=SEED), h_n)
        assert not np.array_equal(rnn(x, h_0, lengths)[0], y)


@pytest.mark.skipif("numba" not in BACKENDS, reason="it is Numba that compiles a user's own activation")
@pytest.mark.parametrize("form", FORMS)
def test_an_activation_of_a_user_s_own(form: str, dtype: str, rng: np.random.Generator):
    softsign = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2)
    x, outcomes = rng.normal(size=(T, B, I)).astype(dtype), []
    for backend in BACKENDS:
        options = {"leak": 0.3, "noise": 0.2, "form": form, "learn_leak": True, "nonlinearity": softsign}
        rnn = elman.RNN(I, H, 2, **options, dtype=dtype, seed=0, backend=backend)
        y, h_n, pullback = rnn.vjp(x, noise_seed=SEED)
        d_x, d_h_0, d_params = pullback(y, h_n)
        outcomes.append([y, h_n, d_x, d_h_0, *d_params.values()])
    for other in outcomes[1:]:
        for one, two in zip(outcomes[0], other, strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=1e-12 if dtype == "float64" else 1e-4)


def test_without_leak_and_noise_nothing_changes(dtype: str, rng: np.random.Generator):
    x = rng.normal(size=(T, B, I)).astype(dtype)
    for backend in BACKENDS:
        plain = elman.RNN(I, H, num_layers=2, dtype=dtype, seed=3, backend=backend)
        spelled = {"leak": np.ones(H), "noise": [0, 0.0], "form": "rate", "learn_leak": False, "input_noise": 0}
        other = elman.RNN(I, H, num_layers=2, dtype=dtype, seed=3, backend=backend, **spelled)
        outcomes = []
        for rnn in (plain, other):
            y, h_n, pullback = rnn.vjp(x)
            d_x, d_h_0, d_params = pullback(np.sin(y), h_n)
            outcomes.append([y, h_n, d_x, d_h_0, *d_params.values()])
        for one, two in zip(*outcomes, strict=True):
            np.testing.assert_array_equal(one, two)


def test_noise_is_each_row_s_own(rng: np.random.Generator):
    x = rng.normal(size=(70, B, I)).astype(np.float32)
    rnn = elman.RNN(I, H, 2, leak=0.3, noise=0.5, seed=0)
    seeds = np.array([5, 9, 5, 1 << 40])
    whole = rnn(x, noise_seed=seeds)[0]
    np.testing.assert_array_equal(rnn(x[:, 1:2], noise_seed=seeds[1:2])[0], whole[:, 1:2])
    xi = rnn.noise_like(x, noise_seed=seeds)
    np.testing.assert_array_equal(xi[:, :, 0], xi[:, :, 2])
    assert not np.array_equal(xi[:, :, 0], xi[:, :, 1])
    assert not np.array_equal(rnn.noise_like(x, noise_seed=1), rnn.noise_like(x, noise_seed=2))
    np.testing.assert_array_equal(rnn.noise_like(x.astype(np.float64), noise_seed=1), rnn.noise_like(x, noise_seed=1))
    np.testing.assert_array_equal(rnn.noise_like(list(x.swapaxes(0, 1)), noise_seed=1), rnn.noise_like(x, noise_seed=1))
    own = rnn.vjp(x)[0]
    assert not np.array_equal(own, rnn.vjp(x)[0])  # the layer's own generator goes on
    np.testing.assert_array_equal(elman.RNN(I, H, 2, leak=0.3, noise=0.5, seed=0).vjp(x)[0], own)


PATTERNS = {
    "many-to-many": ((T, B, I), (T, B, 2)),
    "many-to-one": ((T, B, I), (B, 2)),
    "one-to-one": ((B, I), (B, 2)),
    "one-to-many": ((B, I), (T, B, 2)),
}


def made(pattern: str, backend: str = "cython", **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": H, "leak": 0.25, "noise": 0.2, "dtype": "float64", "seed": 2, **options}
    return elman.SequenceModel(elman.Features(I), elman.Reals(2), pattern=pattern, backend=backend, **options)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_model_is_the_equation(form: str, backend: str, pattern: str, rng: np.random.Generator):
    for options in ({}, {"num_layers": 2, "learn_leak": True, "learn_h_0": True}):
        model = made(pattern, backend, form=form, **options)
        shapes = PATTERNS[pattern]
        x, target = rng.normal(size=shapes[0]), rng.normal(size=shapes[1])
        loss, gradients = model.loss_and_grads(x, target, noise_seed=SEED)
        assert loss == pytest.approx(model.loss(x, target, noise_seed=SEED), rel=1e-12)
        p = {name: leaf(array) for name, array in model.parameters().items()}
        taught = x[None] if x.ndim == 2 else x
        if pattern == "one-to-many":
            taught = np.zeros((T, B, I + 2))
            taught[0, :, :I], taught[1:, :, I:] = x, target[:-1]
        xi = torch.tensor(model.rnn.noise_like(taught, noise_seed=SEED))
        h_0 = torch.zeros((model.rnn.num_layers, B, H), dtype=torch.float64)
        if "h_0" in p:
            h_0 = h_0 + p["h_0"][:, None]
        y, _ = layers_by_torch(model.rnn, p, torch.tensor(taught), h_0, xi, np.full(B, len(taught)))
        y = y[-1] if "to-one" in pattern else y
        expected = (y @ p["weight_ho"].T + p["bias_o"] - torch.tensor(target)).square().mean()
        expected.backward()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-11)
        for name, array in gradients.items():
            np.testing.assert_allclose(array, p[name].grad, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("nonlinearity", ["tanh", "softplus", "own"])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])  # whose products promise no bits
@pytest.mark.parametrize("form", FORMS)
def test_one_output_is_the_last_of_many_to_the_bit(
    form: str, backend: str, nonlinearity: str, dtype: str, rng: np.random.Generator
):
    f: Any = nonlinearity
    if f == "own":
        pytest.importorskip("numba", reason="it is Numba that compiles a user's own activation")
        f = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2)
    x, lengths = rng.normal(size=(T, B, I)).astype(dtype), np.array([6, 5, 2, 1])  # rows in the order of sums
    y, weights, last = np.zeros((T, B, 2), dtype), np.zeros((T, B)), (lengths - 1, np.arange(B))
    y[last], weights[last] = rng.normal(size=(B, 2)), 1
    options = {"form": form, "nonlinearity": f, "hidden_size": 19, "num_layers": 2, "dtype": dtype}
    one, many = (made(f"many-to-{n}", backend, **options) for n in ("one", "many"))
    X = [x[:n, b] for b, n in enumerate(lengths)]
    expected = np.array([o[-1] for o in many.predict(X)])
    np.testing.assert_array_equal(one.predict(X), expected)
    stream = one.stream()
    np.testing.assert_array_equal([stream.predict(x[t : t + 1, 0]) for t in range(T)][-1], expected[0])
    loss, gradients = many.loss_and_grads(x, y, lengths=lengths, weights=weights, noise_seed=SEED)
    for memory, bound in ((None, 0), (4, 8 * np.finfo(dtype).eps)):  # rows end before the last stretch
        same_loss, same = one.loss_and_grads(x, y[last], lengths=lengths, memory=memory, noise_seed=SEED)
        assert same_loss == pytest.approx(loss, rel=4 * float(np.finfo(dtype).eps))
        for name, array in same.items():
            np.testing.assert_allclose(array, gradients[name], rtol=0, atol=bound, err_msg=name)
    one, many = (made(f"many-to-{n}", backend, **options, bidirectional=True) for n in ("one", "many"))
    X = x[:1].swapaxes(0, 1)  # the only step is the last one in both directions
    np.testing.assert_array_equal(one.predict(X), many.predict(X)[:, 0])


@pytest.mark.parametrize("form", FORMS)
def test_memory_and_streams_and_truncation_have_the_noise_of_the_whole(form: str, rng: np.random.Generator):
    x, y = rng.normal(size=(150, B, I)), rng.normal(size=(150, B, 2))
    model = made("many-to-many", form=form, num_layers=2, learn_leak=True)
    loss, gradients = model.loss_and_grads(x, y, noise_seed=SEED)
    for memory in (1, 7, 64, 150):
        same_loss, same = model.loss_and_grads(x, y, noise_seed=SEED, memory=memory)
        assert same_loss == pytest.approx(loss, rel=1e-12)
        for name, array in same.items():  # leaks are summed in another order
            np.testing.assert_allclose(array, gradients[name], rtol=0, atol=1e-13, err_msg=name)
    stream = model.stream(B, noise_seed=SEED)
    parts = [stream.predict(part) for part in (x[:1], x[1:70], x[70:71], x[71:])]
    whole = np.swapaxes(model.predict(x.swapaxes(0, 1), noise_seed=SEED), 0, 1)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-13)
    state = np.zeros((2, B, H))
    losses = [model.loss(x[i : i + 50], y[i : i + 50], state=state) for i in range(0, 150, 50)]
    assert np.mean(losses) == pytest.approx(model.loss(x, y), rel=1e-12)


class Stop(Exception):
    pass


@pytest.mark.parametrize("tbptt", [None, (4, 6)])
@pytest.mark.parametrize("form", FORMS)
def test_fit_draws_a_row_s_noise_from_run_epoch_and_index(
    form: str, tbptt: Any, tmp_path: Path, rng: np.random.Generator
):
    X, Y = rng.normal(size=(9, 10, I)), rng.normal(size=(9, 10, 2))

    def run(model: Any, **options: Any) -> Any:
        return model.fit(X, Y, epochs=3, tbptt=tbptt, progress=False, **{"batch_size": 4, **options})

    once, twice = made("many-to-many", form=form), made("many-to-many", form=form)
    expected = run(once)
    path = tmp_path / "run.safetensors"

    def stop(training: Any) -> None:
        if training.steps == 5:
            raise Stop

    class AtStep(elman.Callback):
        on_step = staticmethod(stop)

    with pytest.raises(Stop):
        run(twice, checkpoint=path, checkpoint_every=1, callbacks=[AtStep()])
    again = made("many-to-many", form=form)
    assert run(again, checkpoint=path, resume=True) == expected
    for name, array in again.parameters().items():
        np.testing.assert_array_equal(array, once.parameters()[name])
    still = elman.SGD(1e-300)  # so that each batch size leaves the parameters as they are
    losses = [run(made("many-to-many", form=form), batch_size=n, optimizer=still)["loss"] for n in (1, 4, 9)]
    np.testing.assert_allclose(losses, np.broadcast_to(losses[0], (3, 3)), rtol=1e-12)
    assert len(set(losses[0])) == 3  # each epoch has noise of its own


def test_values_of_layers_and_units_cannot_be_changed():
    rnn = elman.RNN(I, 2, 2, leak=[0.5, np.array([0.25, 1])], noise=np.array([0.0, 0.1]), seed=0)
    assert rnn.leak == (0.5, (0.25, 1.0))
    assert rnn.noise == ((0.0, 0.1), (0.0, 0.1))
    assert repr(eval(repr(rnn).split(" with ")[0], {"RNN": elman.RNN})) == repr(rnn)
    state = pickle.loads(pickle.dumps(rnn.__getstate__()))
    state |= {"leak": [0.5, [0.25, 1.0]], "noise": [[0.0, 0.1], [0.0, 0.1]]}  # as older pickles are
    older = elman.RNN.__new__(elman.RNN)
    older.__setstate__(state)
    x = np.ones((T, B, I), np.float32)
    for other in (pickle.loads(pickle.dumps(rnn)), older):
        assert (other.leak, other.noise) == (rnn.leak, rnn.noise)
        np.testing.assert_array_equal(other(x, noise_seed=1)[0], rnn(x, noise_seed=1)[0])


@pytest.mark.parametrize("form", FORMS)
def test_files_pickles_and_generation(form: str, tmp_path: Path, rng: np.random.Generator):
    options = {"hidden_size": H, "num_layers": 2, "form": form, "leak": [0.5, np.full(H, 0.3)], "noise": 0.1}
    for learn_leak in (False, True):
        model = elman.SequenceModel(elman.Tokens(4), elman.Categories(4), **options, learn_leak=learn_leak, seed=0)
        x = rng.integers(0, 4, (5, 9))
        model.save(tmp_path / "model.safetensors")
        for other in (elman.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
            assert repr(other) == repr(model)
            np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(x))
            np.testing.assert_array_equal(other.predict_proba(x, noise_seed=3), model.predict_proba(x, noise_seed=3))
        drawn = model.generate([0, 1, 2], 70, temperature=0)
        for backend in BACKENDS:
            model.rnn.backend = backend
            np.testing.assert_array_equal(model.generate([0, 1, 2], 70, temperature=0), drawn)
        text = [0, 1, 2, *drawn.tolist()]
        np.testing.assert_array_equal(model.predict([text[:-1]])[0][2:], drawn)


def test_sequences_to_sequences():
    X, Y = [[0, 1], [2], [1, 1, 0]], [[1], [2, 2], [0]]
    for form, bidirectional in itertools.product(FORMS, (False, True)):
        models = [
            elman.Seq2Seq(
                elman.Tokens(3), elman.Categories(3), hidden_size=8, leak=0.6, noise=0.1, form=form, learn_leak=True,
                bidirectional=bidirectional, seed=0, backend=backend,
            )
            for backend in BACKENDS
        ]  # fmt: skip
        histories = [model.fit(X, Y, epochs=60, optimizer=elman.Adam(0.02), progress=False) for model in models]
        np.testing.assert_allclose([h["loss"] for h in histories], [histories[0]["loss"]] * len(models), rtol=1e-3)
        assert [one.tolist() for one in models[0].predict(X)] == Y


def test_units_of_a_decoder_are_as_leaky_as_those_that_they_begin_with(tmp_path: Path):
    leak, noise = np.linspace(0.1, 1, H), [0.2, np.linspace(0, 1, H)]
    options = {"hidden_size": H, "num_layers": 2, "leak": leak, "noise": noise, "seed": 0, "bidirectional": True}
    model = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), **options)
    assert model.encoder.leak == (tuple(leak),) * 2
    assert model.decoder.leak == ((*leak, *leak),) * 2
    assert model.decoder.noise == (0.2, (*noise[1], *noise[1]))
    model.fit([[0, 1], [2]], [[1], [2, 2]], epochs=2, progress=False)
    model.save(tmp_path / "model")
    for other in elman.load(tmp_path / "model"), pickle.loads(pickle.dumps(model)):
        assert (repr(other), other.decoder.leak) == (repr(model), model.decoder.leak)
        assert other.evaluate([[0, 1], [2]], [[1], [2, 2]]) == model.evaluate([[0, 1], [2]], [[1], [2, 2]])
    wrong = options | {"leak": np.linspace(0.1, 1, 2 * H)}
    with pytest.raises(ValueError, match=r"leak\[0\] must have shape \(5,\), got \(10,\)"):
        elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), **wrong)


def test_gradient_norms(rng: np.random.Generator):
    x, y = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, 2))
    for form in FORMS:
        model = made("many-to-many", form=form, noise=0)
        norms, _ = model.gradient_norms(x, y)
        for t in range(T):  # the states after step t are the first ones of the rest
            state = np.zeros((1, B, H))
            model.loss(x[: t + 1], y[: t + 1], state=state)
            p = {name: leaf(array) for name, array in model.parameters().items()}
            h, xi = leaf(state), torch.zeros((1, T, B, H), dtype=torch.float64)
            seen = h[0] if form == "rate" else torch.tanh(h[0])
            outputs = [seen[None]]
            if t + 1 < T:
                outputs.append(layers_by_torch(model.rnn, p, torch.tensor(x[t + 1 :]), h, xi, np.full(B, T - t - 1))[0])
            o = torch.cat(outputs) @ p["weight_ho"].T + p["bias_o"]
            ((o - torch.tensor(y[t:])).square().sum() / y.size).backward()
            assert norms[0, t] == pytest.approx(float(h.grad.norm()), rel=1e-9)


WRONG = [
    ({"leak": 0}, "leak must be a number above 0, up to 1, the time step over the time constant, got 0"),
    ({"leak": 1.5}, "leak must be a number above 0, up to 1, the time step over the time constant, got 1.5"),
    ({"leak": "a"}, "leak must be a number above 0, up to 1, the time step over the time constant, got 'a'"),
    ({"leak": [0.1, 0.2]}, "leak must be a number, an array (5,), or a list of one for each of 1 layers, got 2 items"),
    ({"leak": np.full(4, 0.5)}, "leak[0] must have shape (5,), got (4,)"),
    ({"noise": -1}, "noise must be a finite number of at least 0, got -1"),
    ({"noise": [[0.1, 0.2, 0.3, 0.4, np.inf]]}, "noise[0] must be a finite number of at least 0, got inf"),
    ({"form": "a"}, "form must be one of 'rate', 'potential', got 'a'"),
    ({"learn_leak": 1}, "learn_leak must be True or False, got 1"),
    ({"learn_leak": True}, "leak must be below 1 where learn_leak=True, got 1.0"),
    ({"input_noise": -1}, "input_noise must be a finite number of at least 0, got -1"),
    ({"input_noise": 1, "leak": np.linspace(0.1, 1, H)}, "input_noise needs one leak for all units"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError)) as error:
        elman.RNN(I, H, **options)
    assert message in str(error.value)


def test_seeds_are_ints_of_all_kinds():
    rnn, x = elman.RNN(I, H, noise=0.1), np.ones((T, B, I), np.float32)
    for k, same in (
        (5, [np.int8(5), np.uint64(5), np.array(5), np.array(5, np.uint16)]),
        (1 << 63, [np.uint64(1 << 63)]),
    ):
        for one in same:
            np.testing.assert_array_equal(rnn.noise_like(x, noise_seed=one), rnn.noise_like(x, noise_seed=k))
    seeds = [1 << 63, 5, (1 << 64) - 1, 0]  # of which NumPy would make floats
    expected = rnn.noise_like(x, noise_seed=np.array(seeds, np.uint64))
    for same in (seeds, tuple(seeds), [np.array(1 << 63), np.int8(5), np.uint64((1 << 64) - 1), np.array(0)]):
        np.testing.assert_array_equal(rnn.noise_like(x, noise_seed=same), expected)
    small = np.arange(B, dtype=np.int8)
    np.testing.assert_array_equal(rnn.noise_like(x, noise_seed=small), rnn.noise_like(x, noise_seed=[0, 1, 2, 3]))


def test_wrong_seeds_are_refused(rng: np.random.Generator):
    rnn, x = elman.RNN(I, H, noise=0.1), rng.normal(size=(T, B, I))
    further = np.array(-1), np.array(1.5), True, [1, 2, 3, -1], [1, 2, 3, 1 << 64], [[1], [2], [3], [4]], [], [1.5] * B
    for wrong in (1.5, "a", -1, [1, 2], np.full(B, -1), np.zeros((B, 1), int), np.zeros(B), 1 << 64, *further):
        for call in (rnn, rnn.vjp, rnn.last_state, lambda x, noise_seed: rnn.noise_like(x, noise_seed=noise_seed)):
            with pytest.raises((TypeError, ValueError), match="noise_seed"):
                call(x, noise_seed=wrong)
    with pytest.raises(TypeError, match="noise_seed must be an int or integers"):
        rnn.noise_like(x, noise_seed=None)
    with pytest.raises(ValueError, match="input_noise must be 0 where inputs are tokens"):
        elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=H, input_noise=0.1)
    for name in ("leak", "noise", "form", "learn_leak", "input_noise"):
        with pytest.raises(AttributeError, match="is fixed"):
            setattr(rnn, name, 0.5)
