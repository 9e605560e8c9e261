"""elman.onnx.export: ONNX Runtime computes what elman does, for shapes that no export has seen."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import elman.onnx  # noqa: E402
from elman.backends.reference import ACTIVATIONS  # noqa: E402

OPSETS = range(14, 25)
ALL = "logits", "probabilities", "labels"


class Exported:
    """A model in ONNX Runtime, called with names of inputs; results by name."""

    def __init__(self, folder: Path, model: Any, *arguments: Any, **options: Any) -> None:
        self.path = folder / "net.onnx"
        elman.onnx.export(model, self.path, *arguments, **options)
        self.proto = onnx.load(self.path)
        self.session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        assert {one.name for one in self.session.get_inputs()} == inputs.keys()
        names = [one.name for one in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in self.proto.graph.node]


@pytest.fixture
def exported(tmp_path):
    return lambda *arguments, **options: Exported(tmp_path, *arguments, **options)


def check(found: Any, expected: Any, dtype: str = "float32") -> None:
    """To 1e-6, of the largest where one is above 1, as they may be with "power"."""
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    assert found.dtype == expected.dtype
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0)


def drawn(seed: int) -> tuple[np.random.Generator, dict[str, Any]]:
    """Options of a layer, what an ONNX operator has and what it has not, half of the time each."""
    rng = np.random.default_rng(zlib.crc32(f"onnx {seed}".encode()))
    n_layers, n_units = int(rng.integers(1, 4)), int(rng.integers(1, 8))
    options: dict[str, Any] = {"num_layers": n_layers, "hidden_size": n_units, "bidirectional": bool(rng.integers(2))}
    options["nonlinearity"] = str(rng.choice([*ACTIVATIONS]))
    if rng.integers(2):
        leaks = [rng.uniform(0.1, 0.9, n_units), *rng.uniform(0.1, 0.9, n_layers - 1)]
        options["leak"] = leaks if rng.integers(2) else float(leaks[0][0])
        options |= {"form": str(rng.choice(["rate", "potential"])), "noise": float(rng.choice([0, 0.1]))}
        options["learn_leak"] = bool(rng.integers(2))
    if rng.integers(2):
        options |= {"excitatory": 0.6, "mask_hh": rng.random((n_units, n_units)) < 0.7}
    return rng, options | {"dtype": str(rng.choice(["float32", "float32", "float64"])), "seed": rng}


def batch(rng: np.random.Generator) -> tuple[int, int, Any]:
    """T, B and lengths, one of which is T or not, and often one 0."""
    n_steps, n_rows = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    return n_steps, n_rows, rng.integers(0, n_steps + 1, n_rows)


@pytest.mark.parametrize("seed", range(60))
def test_onnx_layers_agree(seed: int, exported):
    rng, options = drawn(seed)
    n, has_lengths, has_states = int(rng.integers(1, 5)), bool(rng.integers(2)), bool(rng.integers(2))
    rnn = elman.RNN(n, bias=bool(rng.integers(4)), batch_first=bool(rng.integers(2)), **options)
    run = exported(rnn, OPSETS[seed % len(OPSETS)], lengths=has_lengths, states=has_states)
    is_operator = rnn.nonlinearity not in ("retanh", "power") and "leak" not in options and rnn.dtype == np.float32
    assert ("RNN" in run.operators, "Scan" in run.operators) == (is_operator, not is_operator)
    for _ in range(3):
        n_steps, n_rows, lengths = batch(rng)
        x = rng.normal(size=(n_rows, n_steps, n) if rnn.batch_first else (n_steps, n_rows, n)).astype(rnn.dtype)
        h_0 = rng.normal(size=(rnn.num_layers * (1 + rnn.bidirectional), n_rows, rnn.hidden_size)).astype(rnn.dtype)
        inputs = {"x": x} | ({"lengths": lengths} if has_lengths else {}) | ({"h_0": h_0} if has_states else {})
        y, h_n = rnn(**inputs)
        found = run(**inputs)
        assert [*found] == ["y", "h_n"]
        check(found["y"], y, rnn.dtype.name)
        check(found["h_n"], h_n, rnn.dtype.name)


def drawn_model(seed: int, pattern: str = "") -> tuple[np.random.Generator, elman.SequenceModel]:
    rng, options = drawn(1000 + seed)
    pattern = pattern or ["many-to-many", "many-to-one", "one-to-one"][seed % 3]
    n = int(rng.integers(1, 30))
    tokens = bool(rng.integers(2))
    outputs = [elman.Categories, elman.Binary, elman.Reals][rng.integers(3)](int(rng.integers(1, 5)))
    if pattern == "one-to-many":
        options["bidirectional"] = False
        outputs = elman.Categories(n) if tokens else outputs
    if "excitatory" in options and rng.integers(2):
        options["readout_from"] = "excitatory" if round(0.6 * options["hidden_size"]) else None
    inputs = elman.Tokens(n) if tokens else elman.Features(n)
    return rng, elman.SequenceModel(inputs, outputs, pattern=pattern, learn_h_0=bool(rng.integers(2)), **options)


def some_inputs(rng: np.random.Generator, model: Any, *shape: int) -> Any:
    n = model.inputs.n
    if isinstance(model.inputs, elman.Tokens):
        return rng.integers(0, n, shape)
    return rng.normal(size=(*shape, n)).astype(model.parameters()["bias_o"].dtype)


def named(model: Any, x: Any) -> dict[str, Any]:
    return {"tokens" if isinstance(model.inputs, elman.Tokens) else "x": x}


def logits_of(model: elman.SequenceModel, x: Any, lengths: Any) -> Any:
    """weight_ho y + bias_o of the layer's outputs y for x (T, B, ·), or of the last one of each direction."""
    p, n_units = model.effective_weights(), model.rnn.hidden_size
    x = np.eye(model.inputs.n)[x] if isinstance(model.inputs, elman.Tokens) else x
    h_0 = np.repeat(p["h_0"][:, None], x.shape[1], axis=1) if model.learn_h_0 else None
    y, _ = model.rnn(x, h_0, lengths)
    if model.pattern.endswith("one"):
        y = np.concatenate([y[lengths - 1, np.arange(x.shape[1]), :n_units], y[0, :, n_units:]], axis=1)
    return y @ p["weight_ho"].T + p["bias_o"]


def predicted(model: elman.SequenceModel, x: Any, lengths: Any) -> dict[str, Any]:
    """Outputs for x (T, B, ·), those of elman's own predictions for each row alone; beyond lengths, 0."""
    o = logits_of(model, x, lengths)
    if isinstance(model.outputs, elman.Reals):
        results = {"y": np.zeros_like(o)}
    else:
        shape = o.shape[:-1] if isinstance(model.outputs, elman.Categories) else o.shape
        results = {"logits": o, "probabilities": np.zeros_like(o), "labels": np.zeros(shape, np.int64)}
    for b, n in enumerate(lengths):
        row = [x[0, b] if model.pattern == "one-to-one" else x[:n, b]]
        place = (slice(n), b) if model.pattern == "many-to-many" else b
        for name, function in {"y": "predict", "probabilities": "predict_proba", "labels": "predict"}.items():
            if name in results:
                results[name][place] = getattr(model, function)(row)[0]
    return results


@pytest.mark.parametrize("seed", range(60))
def test_onnx_models_agree(seed: int, exported):
    rng, model = drawn_model(seed)
    if model.learn_h_0:
        model.parameters()["h_0"][...] = rng.normal(size=model.parameters()["h_0"].shape)
    has_lengths = bool(rng.integers(2)) and model.pattern.startswith("many")
    run = exported(model, OPSETS[seed % len(OPSETS)], lengths=has_lengths)
    for _ in range(3):
        n_steps, n_rows, lengths = batch(rng)
        n_steps = 1 if model.pattern == "one-to-one" else n_steps
        lengths = lengths.clip(1) if has_lengths else np.full(n_rows, n_steps)
        x = some_inputs(rng, model, n_steps, n_rows)
        given = named(model, x[0] if model.pattern == "one-to-one" else x)
        found, expected = run(**given | ({"lengths": lengths} if has_lengths else {})), predicted(model, x, lengths)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            is_there = np.arange(n_steps)[:, None] < lengths if model.pattern == "many-to-many" else slice(None)
            check(found[name][is_there], values[is_there], model.rnn.dtype.name)


@pytest.mark.parametrize("seed", range(24))
def test_onnx_sequences_go_on_from_one_input(seed: int, exported):
    rng, model = drawn_model(seed, "one-to-many")
    run = exported(model, OPSETS[seed % len(OPSETS)])
    name = "y" if isinstance(model.outputs, elman.Reals) else "labels"
    for length in (1, 7):
        x = some_inputs(rng, model, 3)
        found = run(**named(model, x), length=np.array(length))[name]
        expected = np.stack([model.generate(start, length, temperature=0) for start in x], axis=1)
        check(found, expected, model.rnn.dtype.name)


@pytest.mark.parametrize("seed", range(24))
def test_onnx_decoders_write_the_same(seed: int, exported):
    rng, options = drawn(2000 + seed)
    options = {name: value for name, value in options.items() if name not in ("excitatory", "mask_hh")}
    n, has_lengths = int(rng.integers(1, 30)), bool(rng.integers(2))
    inputs = elman.Tokens(n) if rng.integers(2) else elman.Features(n)
    model = elman.Seq2Seq(inputs, elman.Categories(int(rng.integers(1, 6))), **options)
    run = exported(model, OPSETS[seed % len(OPSETS)], lengths=has_lengths)
    for _ in range(3):
        n_steps, n_rows, lengths = batch(rng)
        lengths = lengths.clip(1) if has_lengths else np.full(n_rows, n_steps)
        x = some_inputs(rng, model, n_steps, n_rows)
        found = run(**named(model, x) | ({"lengths": lengths} if has_lengths else {}))
        assert [*found] == ["y", "y_lengths"]
        for b, expected in enumerate(model.predict([x[:n, b] for b, n in enumerate(lengths)])):
            n_y = found["y_lengths"][b]
            np.testing.assert_array_equal(found["y"][:n_y, b], expected)
            assert (found["y"][n_y:, b] == model.outputs.n).all()
