"""Models in ONNX Runtime beside elman's own predictions: what tests of exports, and of examples, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import elman
import elman.onnx


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
    def has_lengths(self) -> bool:
        return "lengths" in {one.name for one in self.session.get_inputs()}

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in self.proto.graph.node]

    @property
    def metadata(self) -> dict[str, str]:
        return {one.key: one.value for one in self.proto.metadata_props}


def check(found: Any, expected: Any, dtype: str = "float32") -> None:
    """To 1e-6, of the largest where one is above 1, as they may be with "power"."""
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    assert found.dtype == expected.dtype
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0)


def some_inputs(rng: np.random.Generator, model: Any, *shape: int) -> Any:
    n = model.inputs.n
    if isinstance(model.inputs, elman.Tokens):
        return rng.integers(0, len(model.inputs.labels or range(n)), shape)
    return rng.normal(size=(*shape, n)).astype(model.parameters()["bias_o"].dtype)


def named(model: Any, x: Any) -> dict[str, Any]:
    return {"tokens" if isinstance(model.inputs, elman.Tokens) else "x": x}


def said(model: Any, x: Any) -> Any:
    """Inputs as the model itself takes them: with the labels that tokens have."""
    return x if model.inputs.labels is None else np.array(model.inputs.labels, dtype=object)[x]


def codes(model: Any, found: Any) -> Any:
    """Categories as a graph has them, for what the model itself has predicted."""
    return found if model.outputs.labels is None else np.vectorize(model.outputs.labels.index, otypes=[int])(found)


def logits_of(model: elman.SequenceModel, x: Any, lengths: Any) -> Any:
    """weight_ho y + bias_o of the layer's outputs y for x (T, B, ·), or of the last one of each direction."""
    p, n_units = model.effective_weights(), model.rnn.hidden_size
    x = np.eye(model.inputs.n)[x] if isinstance(model.inputs, elman.Tokens) else x
    h_0 = np.repeat(p["h_0"][:, None], x.shape[1], axis=1) if model.learn_h_0 else None
    y, _ = model.rnn(x, h_0, lengths)
    if model.pattern.endswith("one"):
        last = y[lengths - 1, np.arange(x.shape[1]), :n_units]
        y = y[0] if model.rnn.reverse else np.concatenate([last, y[0, :, n_units:]], axis=1)
    return y @ p["weight_ho"].T + p["bias_o"]


def predicted(model: elman.SequenceModel, x: Any, lengths: Any) -> dict[str, Any]:
    """Outputs for x (T, B, ·), those of elman's own predictions for each row alone; beyond lengths, 0."""
    o = logits_of(model, x, lengths)
    if isinstance(model.outputs, elman.Reals) and model.outputs.distribution:
        results = {"units": o}
    elif isinstance(model.outputs, elman.Reals):
        results = {"y": np.zeros(o.shape, o.dtype if model.outputs.scaler is None else np.float64)}
    else:
        shape = o.shape[:-1] if isinstance(model.outputs, elman.Categories) else o.shape
        results = {"logits": o, "probabilities": np.zeros_like(o), "labels": np.zeros(shape, np.int64)}
    for b, n in enumerate(lengths):
        row = [said(model, x[0, b] if model.pattern == "one-to-one" else x[:n, b])]
        place = (slice(n), b) if model.pattern == "many-to-many" else b
        for name, function in {"y": "predict", "probabilities": "predict_proba", "labels": "predict"}.items():
            if name in results:
                found = getattr(model, function)(row)[0]
                results[name][place] = codes(model, found) if name == "labels" else found
    return results


def check_predictions(
    run: Exported, model: elman.SequenceModel, n_steps: int, n_rows: int, lengths: Any, rng: np.random.Generator
) -> None:
    """What comes out for random input, with these lengths if they are an input."""
    n_steps = 1 if model.pattern == "one-to-one" else n_steps
    lengths = lengths.clip(1) if run.has_lengths else np.full(n_rows, n_steps)
    x = some_inputs(rng, model, n_steps, n_rows)
    given = named(model, x[0] if model.pattern == "one-to-one" else x)
    found, expected = run(**given | ({"lengths": lengths} if run.has_lengths else {})), predicted(model, x, lengths)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        is_there = np.arange(n_steps)[:, None] < lengths if model.pattern == "many-to-many" else slice(None)
        check(found[name][is_there], values[is_there], model.rnn.dtype.name)


def check_generated(
    run: Exported, model: elman.SequenceModel, length: int, n_rows: int, rng: np.random.Generator
) -> None:
    """What a "one-to-many" model goes on with."""
    x = some_inputs(rng, model, n_rows)
    found = run(**named(model, x), length=np.array(length))
    drawn = [model.generate(said(model, start), length, temperature=0) for start in x]
    expected = np.stack([codes(model, each) for each in drawn], axis=1)
    check(found["y" if isinstance(model.outputs, elman.Reals) else "labels"], expected, model.rnn.dtype.name)


def check_decoded(
    run: Exported, model: elman.Seq2Seq, n_steps: int, n_rows: int, lengths: Any, rng: np.random.Generator
) -> None:
    lengths = lengths.clip(1) if run.has_lengths else np.full(n_rows, n_steps)
    x = some_inputs(rng, model, n_steps, n_rows)
    found = run(**named(model, x) | ({"lengths": lengths} if run.has_lengths else {}))
    assert [*found] == ["y", "y_lengths"]
    for b, expected in enumerate(model.predict([said(model, x[:n, b]) for b, n in enumerate(lengths)])):
        n_y = found["y_lengths"][b]
        np.testing.assert_array_equal(found["y"][:n_y, b], codes(model, expected))
        assert (found["y"][n_y:, b] == model.outputs.n).all()


def check_models_among(values: Any, folder: Path) -> int:
    """Export all models among a program's variables, those in dicts and lists, too; how many there are."""
    if isinstance(values, (dict, list, tuple)):
        return sum(check_models_among(one, folder) for one in (values.values() if isinstance(values, dict) else values))
    if not isinstance(values, (elman.SequenceModel, elman.Seq2Seq)):
        return 0
    rng, lengths = np.random.default_rng(0), np.array([1, 20, 7])
    if isinstance(values, elman.Seq2Seq):
        check_decoded(Exported(folder, values, lengths=True), values, 20, 3, lengths, rng)
    elif values.pattern == "one-to-many":
        check_generated(Exported(folder, values), values, 20, 3, rng)
    else:
        run = Exported(folder, values, lengths=values.pattern.startswith("many"))
        check_predictions(run, values, 20, 3, lengths, rng)
    return 1
