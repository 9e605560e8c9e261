"""elman.keras beside Keras itself, on its backend torch; what is not PyTorch's, in another process on jax, too.

On which backend this file runs says KERAS_BACKEND. tests/bridges/keras_own.py runs Keras's own tests.
"""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

BACKEND = os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("keras")
pytest.importorskip(BACKEND)
if BACKEND not in ("torch", "jax"):
    pytest.skip(f"elman.keras has no backend {BACKEND}", allow_module_level=True)

import keras  # noqa: E402

import elman.keras  # noqa: E402
from elman.keras import FallbackWarning, SimpleRNN, accelerate, kernel_calls, restore  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras's own, of tensors
    pytest.mark.filterwarnings("ignore:.*jax.core:DeprecationWarning"),
]
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="about JAX: run by test_on_jax")


@pytest.fixture(autouse=True)
def short_sequences(monkeypatch):
    """On JAX they are left to XLA otherwise."""
    if BACKEND == "jax":
        from elman.keras import on_jax as module

        monkeypatch.setattr(module, "LEAST_STEPS", 0)
        monkeypatch.setattr(module, "LEAST_STATES", 0)


def runs(function):
    """What it returns, and by how much each count of `kernel_calls` has grown."""
    before = kernel_calls()
    found = function()
    return found, tuple(b - a for a, b in zip(before, kernel_calls(), strict=True))


def twins(layers, *inputs, loss="mse"):
    """Two compiled models with the same weights, the second accelerated; `layers` makes one from its inputs."""
    made = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        given = [keras.Input(shape, **more) for shape, more in inputs]
        made.append(keras.Model(given, layers(*given)))
        made[-1].compile(keras.optimizers.SGD(0.1), loss)
    made[1].set_weights(made[0].get_weights())
    report = accelerate(made[1])
    assert report.replaced
    assert not report.left
    return made


def assert_same(a, b, tolerance=1e-6):
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def train_both(plain, ours, x, y, **options):
    """Train both, and compare losses, weights, what they predict, and the latters' loss."""
    options = {"epochs": 2, "batch_size": len(y) // 2, "shuffle": False, "verbose": 0} | options
    losses = plain.fit(x, y, **options).history["loss"]
    history, (forward, backward, loops) = runs(lambda: ours.fit(x, y, **options))
    assert forward >= backward >= 4
    assert not loops
    assert_same(losses, history.history["loss"])
    assert_same(plain.get_weights(), ours.get_weights())
    several = {"batch_size": options["batch_size"], "verbose": 0}
    assert_same(plain.predict(x, **several), ours.predict(x, **several))
    assert_same(plain.evaluate(x, y, **several), ours.evaluate(x, y, **several))


def mask_of(kind, n_rows, n_steps, rng):
    lengths = rng.integers(0, n_steps + 1, n_rows)[:, None]
    steps = np.arange(n_steps)
    return {
        "none": None,
        "right": steps < lengths,
        "left": steps[::-1] < lengths,
        "gaps": rng.random((n_rows, n_steps)) < 0.6,
        "all": np.ones((n_rows, n_steps), bool),
        "nothing": np.zeros((n_rows, n_steps), bool),
    }[kind]


def results(layer, x, h_0, mask, d_y, d_h):
    """Outputs, states, and gradients by inputs, states and weights."""
    if BACKEND == "torch":
        import torch

        leaves = [torch.tensor(array, requires_grad=True) for array in (x, h_0)]
        y, h = layer(leaves[0], initial_state=[leaves[1]], mask=None if mask is None else torch.tensor(mask))
        leaves += [variable.value for variable in layer.trainable_variables]
        loss = (y * torch.tensor(d_y)).sum() + (h * torch.tensor(d_h)).sum()
        found = torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)
        return [tensor.detach().numpy() for tensor in (y, h, *found)]
    import jax

    def loss(weights, x, h_0):
        fixed = [variable.value for variable in layer.non_trainable_variables]
        (y, h), _ = layer.stateless_call(weights, fixed, x, initial_state=[h_0], mask=mask)
        return (y * d_y).sum() + (h * d_h).sum(), (y, h)

    weights = [variable.value for variable in layer.trainable_variables]
    found = jax.jit(jax.grad(loss, argnums=(1, 2, 0), has_aux=True))(weights, x, h_0)
    return [np.asarray(array) for array in jax.tree.leaves(found[::-1])]


def check_layer(shape, mask, seed=0, **options):
    n_rows, n_steps, n_inputs, n_units = shape
    rng = np.random.default_rng(seed)
    options |= {"return_state": True, "bias_initializer": "normal"}
    plain, ours = keras.layers.SimpleRNN(n_units, **options), SimpleRNN(n_units, **options)
    for layer in (plain, ours):
        layer.build((n_rows, n_steps, n_inputs))
    ours.set_weights(plain.get_weights())
    of_y = (n_rows, n_steps, n_units) if options.get("return_sequences") else (n_rows, n_units)
    shapes = (n_rows, n_steps, n_inputs), (n_rows, n_units)
    x, h_0, d_y, d_h = (rng.normal(size=one).astype("float32") for one in (*shapes, of_y, (n_rows, n_units)))
    given = x, h_0, mask_of(mask, n_rows, n_steps, rng), d_y, d_h
    found, calls = runs(lambda: results(ours, *given))
    assert calls == (1, 1, 0)
    for a, b in zip(results(plain, *given), found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * max(1, abs(a).max()))


@pytest.mark.parametrize("zero_output_for_mask", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mask", ["none", "right", "left", "gaps", "all", "nothing"])
def test_values_and_gradients(mask, return_sequences, go_backwards, zero_output_for_mask):
    if BACKEND == "jax" and (mask in ("none", "all", "nothing") or zero_output_for_mask != go_backwards):
        pytest.skip("on JAX the order of steps is the same code, and compiling takes long")
    own = {"return_sequences": return_sequences, "go_backwards": go_backwards}
    check_layer((5, 7, 3, 6), mask, zero_output_for_mask=zero_output_for_mask, **own)


@on_torch
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 9, 1, 1), (3, 1, 2, 5), (33, 6, 1, 65)])
@pytest.mark.parametrize("mask", ["none", "right", "gaps"])
def test_awkward_shapes(shape, mask):
    for go_backwards in (False, True):
        check_layer(shape, mask, return_sequences=True, go_backwards=go_backwards, use_bias=go_backwards)


@on_torch
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "softplus", None])
def test_activations(activation):
    check_layer((3, 5, 2, 4), "none", activation=activation, return_sequences=True)


def tokens_and_marks(rng, n=8, n_steps=9):
    tokens = rng.integers(1, 20, (n, n_steps))
    tokens[np.arange(n_steps) >= rng.integers(1, n_steps + 1, n)[:, None]] = 0
    return tokens, rng.normal(size=(n, 2)).astype("float32")


def test_training_with_masks_both_ways_and_weights():
    def layers(tokens):
        x = keras.layers.Embedding(20, 5, mask_zero=True)(tokens)
        x = keras.layers.Bidirectional(keras.layers.SimpleRNN(6, return_sequences=True))(x)
        x = keras.layers.SimpleRNN(4, return_sequences=True, go_backwards=True)(x)
        return keras.layers.Dense(2)(keras.layers.SimpleRNN(3, activity_regularizer="l2")(x))

    rng = np.random.default_rng(0)
    x, y = tokens_and_marks(rng)
    train_both(*twins(layers, ((None,), {"dtype": "int32"})), x, y, sample_weight=rng.random(8))


@on_torch
def test_training_with_gaps_in_masks():
    def layers(x):
        x = keras.layers.Masking()(x)
        return keras.layers.Dense(2)(keras.layers.SimpleRNN(4, return_sequences=True)(x))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 7, 3)).astype("float32")
    x[rng.random((8, 7)) < 0.4] = 0
    train_both(*twins(layers, ((7, 3), {})), x, rng.normal(size=(8, 7, 2)))


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("rates", [(0.4, 0), (0, 0.4), (0.3, 0.2)])
def test_dropout_is_kerass(rates, go_backwards):
    if BACKEND == "jax" and (go_backwards or not all(rates)):
        pytest.skip("compiling takes long")

    def layers(x):
        dropout, recurrent_dropout = rates
        own = {"return_sequences": True, "go_backwards": go_backwards, "seed": 3}
        x = keras.layers.SimpleRNN(5, dropout=dropout, recurrent_dropout=recurrent_dropout, **own)(x)
        return keras.layers.Dense(2)(keras.layers.Dropout(0.2, seed=4)(x))  # whose mask follows the order of memory

    rng = np.random.default_rng(0)
    train_both(*twins(layers, ((6, 3), {})), rng.normal(size=(8, 6, 3)), rng.normal(size=(8, 6, 2)))


def test_stateful():
    def layers(x):
        return keras.layers.Dense(1)(keras.layers.SimpleRNN(5, stateful=True)(x))

    plain, ours = twins(layers, ((6, 3), {"batch_size": 4}))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6, 3)).astype("float32")
    train_both(plain, ours, x, rng.normal(size=(8, 1)))
    for model in (plain, ours):
        model.layers[1].reset_state()
    found = [[keras.ops.convert_to_numpy(model([part])) for part in (x[:4], x[:4], x[4:])] for model in (plain, ours)]
    assert_same(*found)
    assert abs(found[1][0] - found[1][1]).max() > 1e-3  # else states do nothing


def test_encoder_decoder_and_layers_over_time():
    """States of one layer are the first ones of another; a layer that is used twice; frames of sequences."""

    def layers(source, target, frames):
        encoder = keras.layers.SimpleRNN(5, return_state=True, return_sequences=True)
        y, h = encoder(source)
        back = keras.layers.SimpleRNN(5, return_sequences=True, go_backwards=True)(target, initial_state=h)
        again, _ = encoder(target, initial_state=h)
        of_frames = keras.layers.TimeDistributed(keras.layers.SimpleRNN(5))(frames)
        joined = keras.layers.Concatenate()([y, back, again, of_frames])
        return keras.layers.TimeDistributed(keras.layers.Dense(2))(joined)

    rng = np.random.default_rng(0)
    shapes = (4, 3), (4, 3), (4, 6, 2)
    x = [rng.normal(size=(8, *shape)).astype("float32") for shape in shapes]
    train_both(*twins(layers, *((shape, {}) for shape in shapes)), x, rng.normal(size=(8, 4, 2)))


@on_torch
def test_float64():
    """Keras's own loop rounds to float32 somewhere, so NumPy says what is right."""
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(8, 5, 3)), np.zeros((8, 4))
    layer = SimpleRNN(4, dtype="float64", bias_initializer="normal")
    y = layer(x).detach().numpy()
    kernel, recurrent_kernel, bias = layer.get_weights()
    for t in range(5):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent_kernel + bias)
    assert y.dtype == np.float64
    assert_same(y, h, 1e-14)
    restore(layer)
    assert_same(y, layer(x).detach().numpy())


class OwnCell(keras.layers.SimpleRNNCell):
    pass


def with_own_cell():
    layer = SimpleRNN(4)
    layer.cell = OwnCell(4)
    return layer


@on_torch
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: SimpleRNN(4, unroll=True), "unroll=True is Keras's"),
        (lambda: SimpleRNN(4, activation="gelu"), "elman has no activation gelu"),
        (
            lambda: SimpleRNN(4, dtype="bfloat16", recurrent_initializer="ones"),
            "elman computes in float32 or float64, not in bfloat16",
        ),
        (lambda: SimpleRNN(4, dtype="mixed_bfloat16"), "elman computes in float32 or float64, not in bfloat16"),
        (with_own_cell, "its cell is a OwnCell"),
    ],
)
def test_what_keras_computes_is_said_once(make, reason):
    layer, x = make(), np.ones((2, 5, 3), "float32")
    layer.build(x.shape)
    with pytest.warns(FallbackWarning, match=f"the layer {layer.name} is computed by Keras's own loop: {reason}"):
        found, calls = runs(lambda: layer(x))
    assert calls == (0, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = layer(x)
    restore(layer)
    assert_same(*(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in (found, layer(x))), 0)
    assert_same(*(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in (again, layer(x))), 0)


@on_torch
def test_masks_of_other_shapes_are_left_to_keras():
    layer, x = SimpleRNN(4), np.ones((2, 5, 3), "float32")
    mask = keras.ops.ones((2, 5, 1), "bool")
    with pytest.warns(FallbackWarning, match=r"its mask has the shape \(2, 5, 1\)"):
        found = layer(x, mask=mask)
    assert_same(*map(keras.ops.convert_to_numpy, (found, layer(x))))


class Derived(keras.layers.SimpleRNN):
    pass


def nest():
    inner = keras.Sequential([keras.Input((None, 3)), keras.layers.SimpleRNN(4, return_sequences=True, name="in")])
    layers = [
        keras.Input((6, 3)),
        inner,
        keras.layers.Bidirectional(keras.layers.SimpleRNN(4, return_sequences=True, name="ways"), name="both"),
        keras.layers.RNN(keras.layers.SimpleRNNCell(4), return_sequences=True, name="cells"),
        keras.layers.LSTM(4, return_sequences=True, name="lstm"),
        Derived(4, return_sequences=True, name="derived"),
        keras.layers.SimpleRNN(4, unroll=True, return_sequences=True, name="unrolled"),
        SimpleRNN(4, return_sequences=True, name="own"),
        keras.layers.Reshape((6, 2, 2)),
        keras.layers.TimeDistributed(keras.layers.SimpleRNN(4, name="frame"), name="frames"),
    ]
    return keras.Sequential(layers), inner.name


@on_torch
def test_report():
    model, inner = nest()
    report = accelerate(model)
    names = (f"{inner}/in", "both/forward_ways", "both/backward_ways", "frames/frame")
    left = {
        "cells": "an RNN of SimpleRNNCell: keras.layers.SimpleRNN can be replaced",
        "lstm": "elman has no LSTM",
        "derived": "a subclass of keras.layers.SimpleRNN, Derived, may have a call of its own",
        "unrolled": "unroll=True is Keras's",
    }
    assert report == (names, left, ("own",))
    assert repr(report).splitlines()[::4] == [
        f"{inner}/in: replaced",
        "own: elman's before",
        "unrolled: left, unroll=True is Keras's",
    ]
    assert accelerate(model) == ((), left, (names[0], *names[1:3], "own", names[3]))
    assert restore(model) == (names[0], *names[1:3], "own", names[3])
    assert restore(model) == ()
    assert repr(accelerate(keras.layers.Dense(3))) == "no recurrent layers"
    for function in (accelerate, restore):
        with pytest.raises(TypeError, match="model must be a"):
            function(3)


def small(layer=keras.layers.SimpleRNN):
    model = keras.Sequential([keras.Input((6, 3)), layer(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


X, Y = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32"), np.ones((8, 1))


def test_models_that_were_compiled_and_trained_take_the_kernels_from_then_on():
    outer = keras.Sequential([keras.Input((6, 3)), small()])
    outer.compile("adam", "mse")
    steps = [
        lambda: outer.fit(X, Y, verbose=0),
        lambda: outer.evaluate(X, Y, verbose=0),
        lambda: outer.predict(X, verbose=0),
        lambda: outer.layers[0].predict(X, verbose=0),
    ]
    for step in steps:
        assert runs(step)[1][:2] == (0, 0)
    accelerate(outer)
    assert [runs(step)[1][:2] for step in steps] == [(1, 1), (1, 0), (1, 0), (1, 0)]
    restore(outer)
    for step in steps:
        assert runs(step)[1] == (0, 0, 0)


def config_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode()


@on_torch
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
def test_files(tmp_path):
    """Of an accelerated model they are Keras's; of layers that were made as elman's, after `restore`."""
    plain = small()
    plain.fit(X, Y, verbose=0)
    wanted = plain.predict(X, verbose=0)
    plain.save(tmp_path / "plain.keras")
    plain.save_weights(tmp_path / "plain.weights.h5")

    model = keras.saving.load_model(tmp_path / "plain.keras")
    assert accelerate(model).replaced
    found, calls = runs(lambda: model.predict(X, verbose=0))
    assert calls == (1, 0, 0)
    assert_same(found, wanted)
    model.save(tmp_path / "accelerated.keras")
    model.save_weights(tmp_path / "accelerated.weights.h5")
    assert "elman" not in config_of(tmp_path / "accelerated.keras")
    assert_same(keras.saving.load_model(tmp_path / "accelerated.keras").predict(X, verbose=0), wanted)

    own, other = small(SimpleRNN), small()
    own.load_weights(tmp_path / "plain.weights.h5")
    other.load_weights(tmp_path / "accelerated.weights.h5")
    assert_same([own.predict(X, verbose=0), other.predict(X, verbose=0)], [wanted] * 2)
    own.save(tmp_path / "own.keras")
    assert '"elman>SimpleRNN"' in config_of(tmp_path / "own.keras")
    again = keras.saving.load_model(tmp_path / "own.keras")
    assert type(again.layers[0]) is SimpleRNN
    assert restore(again)
    again.save(tmp_path / "restored.keras")
    assert config_of(tmp_path / "restored.keras").count("elman") == 0
    assert_same(keras.saving.load_model(tmp_path / "restored.keras").predict(X, verbose=0), wanted)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
def test_copies():
    model = small()
    accelerate(model)
    wanted = model.predict(X, verbose=0)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(copied.predict(X, verbose=0), wanted)
        assert accelerate(copied).replaced  # it came from a file, as it were
    cloned = keras.models.clone_model(small(SimpleRNN))
    assert accelerate(cloned).own
    ways = keras.layers.Bidirectional(SimpleRNN(3))
    assert len(accelerate(ways).own) == 2


@on_torch
@pytest.mark.filterwarnings("ignore")  # PyTorch's, of tracing
def test_what_pytorch_transforms_is_kerass():
    import torch

    layer, x = SimpleRNN(4), torch.ones(2, 5, 3)
    layer.build(x.shape)
    wanted = layer(x)
    layer.trainable = False  # for `trace`, whose constants want no gradients
    traced, calls = runs(lambda: torch.jit.trace(lambda x: layer(x), x, check_trace=False))
    assert calls == (0, 0, 1)
    torch.testing.assert_close(traced(x), wanted)
    jacobian, calls = runs(lambda: torch.func.jacrev(lambda x: layer(x))(x))
    assert calls[:2] == (0, 0)
    assert jacobian.shape == (2, 4, 2, 5, 3)


@on_torch
def test_gradients_of_gradients_are_refused():
    import torch

    x = torch.ones(2, 5, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"elman\.keras has no gradients of gradients"):
        torch.autograd.grad(SimpleRNN(4)(x).sum(), x, create_graph=True)


@on_torch
def test_results_that_are_changed_in_place_are_noticed():
    import torch

    x = torch.ones(2, 5, 3, requires_grad=True)
    y = SimpleRNN(4, return_sequences=True)(x)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@on_jax
def test_transformations_of_jax():
    import jax

    layer, x = SimpleRNN(4), np.random.default_rng(0).normal(size=(3, 2, 5, 3)).astype("float32")
    layer.build(x[0].shape)
    weights, fixed = ([v.value for v in of] for of in (layer.trainable_variables, layer.non_trainable_variables))

    def outputs(x):
        return layer.stateless_call(weights, fixed, x)[0]

    each = np.stack([outputs(one) for one in x])
    assert_same(jax.vmap(outputs)(x), each)
    assert_same(jax.jit(jax.vmap(outputs))(x), each)
    slope = jax.grad(lambda x: outputs(x).sum())
    assert_same(jax.vmap(slope)(x), np.stack([slope(one) for one in x]))
    with pytest.raises(TypeError, match=r"elman\.keras has no gradients of gradients"):
        jax.grad(lambda x: slope(x).sum())(x[0])


@on_jax
def test_what_a_kernel_raises_is_raised(monkeypatch):
    from elman.keras import passes

    def fail(_):
        raise MemoryError("no room")

    layer, x = SimpleRNN(4), np.ones((2, 5, 3), "float32")
    layer(x)
    monkeypatch.setattr(passes.backends.resolve(), "forward", fail)
    with pytest.raises(Exception, match="no room"):
        np.asarray(layer(x))


@on_jax
def test_short_sequences_are_xlas(monkeypatch):
    monkeypatch.undo()
    layer = SimpleRNN(64)
    assert runs(lambda: layer(np.ones((1, 50, 3), "float32")))[1] == (0, 0, 1)
    assert runs(lambda: np.asarray(layer(np.ones((16, 50, 3), "float32"))))[1] == (1, 0, 0)


@on_torch
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_on_jax():
    program = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@on_torch
@pytest.mark.parametrize(
    ("program", "backend", "message"),
    [
        ("import sys; sys.modules['keras'] = None; import elman.keras", "torch", "pip install 'elman[keras]'"),
        ("import elman.keras", "numpy", "elman.keras needs Keras's backend torch or jax, got numpy"),
    ],
)
def test_what_is_missing_is_named(program, backend, message):
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert f"ImportError: {message}" in done.stderr or ("ImportError" in done.stderr and message in done.stderr)


def test_the_reference_has_every_name():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs/reference/keras.rst").read_text(encoding="utf-8")
    assert all(f":: elman.keras.{name}\n" in text for name in elman.keras.__all__)
