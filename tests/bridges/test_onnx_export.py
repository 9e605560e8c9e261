"""elman.onnx.export: ONNX Runtime computes what elman does, for shapes that no export has seen."""

import json
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import elman

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import elman.onnx  # noqa: E402
from elman.backends.reference import ACTIVATIONS  # noqa: E402
from elman.cli import main  # noqa: E402
from elman.layer import constraints  # noqa: E402
from elman.models import configuration  # noqa: E402

from .onnx_models import (  # noqa: E402
    Exported,
    check,
    check_decoded,
    check_generated,
    check_predictions,
    logits_of,
)

OPSETS = range(14, min(24, onnx.defs.onnx_opset_version()) + 1)  # of the installed release
OF_OPERATOR = ["tanh", "relu", "sigmoid", "identity", "softplus"]


@pytest.fixture
def exported(tmp_path):
    return lambda *arguments, **options: Exported(tmp_path, *arguments, **options)


def drawn(seed: int) -> tuple[np.random.Generator, dict[str, Any]]:
    """Options of a layer: half of the time what the operator RNN has."""
    rng = np.random.default_rng(zlib.crc32(f"onnx {seed}".encode()))
    n_layers, n_units, is_plain = int(rng.integers(1, 4)), int(rng.integers(1, 8)), bool(rng.integers(2))
    options: dict[str, Any] = {"num_layers": n_layers, "hidden_size": n_units, "seed": rng}
    options |= [{}, {"bidirectional": True}, {"reverse": True}][rng.integers(3)]
    options["nonlinearity"] = str(rng.choice(OF_OPERATOR if is_plain else [*ACTIVATIONS]))
    if not is_plain:
        options["dtype"] = str(rng.choice(["float32", "float64"]))
        leaks = [rng.uniform(0.1, 0.9, n_units), *rng.uniform(0.1, 0.9, n_layers - 1)]
        options["leak"] = [leaks, float(leaks[0][0]), 1.0][rng.integers(3)]
        options |= {"form": str(rng.choice(["rate", "potential"])), "noise": float(rng.choice([0, 0.1]))}
        options["learn_leak"] = options["leak"] != 1.0 and bool(rng.integers(2))
    if rng.integers(2):
        options |= {"excitatory": 0.6, "mask_hh": rng.random((n_units, n_units)) < 0.7}
    return rng, options


def batch(rng: np.random.Generator) -> tuple[int, int, Any]:
    """T, B and lengths, one of which is T or not, and often one 0."""
    n_steps, n_rows = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    return n_steps, n_rows, rng.integers(0, n_steps + 1, n_rows)


def tamed(model: Any) -> Any:
    """With weights whose states do not explode where nothing bounds them."""
    layers = [model] if isinstance(model, elman.RNN) else [getattr(model, name) for name in model._layers]
    for rnn in layers:
        for array in rnn.parameters().values():
            array *= 0.3 if rnn.nonlinearity == "power" else 1
    return model


@pytest.mark.parametrize("seed", range(60))
def test_onnx_layers_agree(seed: int, exported):
    rng, options = drawn(seed)
    n, has_lengths, has_states = int(rng.integers(1, 5)), bool(rng.integers(2)), bool(rng.integers(2))
    rnn = tamed(elman.RNN(n, bias=bool(rng.integers(4)), batch_first=bool(rng.integers(2)), **options))
    run = exported(rnn, OPSETS[seed % len(OPSETS)], lengths=has_lengths, states=has_states, scan=seed % 7 == 0)
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


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"nonlinearity": "relu", "reverse": True}])
@pytest.mark.parametrize("scan", [False, True])
def test_onnx_rows_without_steps(options: dict[str, Any], scan: bool, exported):
    """Their states stay what they are, whatever ONNX Runtime's RNN says; one that begins with zeros keeps these."""
    rnn, rng = elman.RNN(3, 4, num_layers=2, seed=0, **options), np.random.default_rng(0)
    h_0, x, lengths = (
        rng.normal(size=(2 * (1 + rnn.bidirectional), 3, 4)),
        rng.normal(size=(5, 3, 3)),
        np.array([0, 3, 0]),
    )
    for given in {"h_0": h_0.astype("f")}, {}:
        run = exported(rnn, lengths=True, states=bool(given), scan=scan)
        assert ("RNN" in run.operators, "Scan" in run.operators) == (not scan, scan)
        found, (y, h_n) = run(x=x.astype("f"), lengths=lengths, **given), rnn(x, lengths=lengths, **given)
        check(found["y"], y)
        check(found["h_n"], h_n)


@pytest.mark.parametrize(
    "options", [{"nonlinearity": "retanh"}, {"nonlinearity": "power"}, {"leak": 0.5}, {"form": "potential"}]
)
def test_onnx_scans_what_the_operator_has_not(options: dict[str, Any], exported):
    assert "RNN" not in exported(elman.RNN(3, 4, **options)).operators


def drawn_model(seed: int, pattern: str = "") -> tuple[np.random.Generator, elman.SequenceModel]:
    rng, options = drawn(1000 + seed)
    pattern = pattern or ["many-to-many", "many-to-one", "one-to-one"][seed % 3]
    n = int(rng.integers(1, 30))
    tokens = bool(rng.integers(2))
    outputs = [elman.Categories, elman.Binary, elman.Reals][rng.integers(3)](int(rng.integers(1, 5)))
    if pattern == "one-to-many":
        options |= {"bidirectional": False, "reverse": False}
        outputs = elman.Categories(n) if tokens else outputs
    if "excitatory" in options and rng.integers(2):
        options["readout_from"] = "excitatory" if round(0.6 * options["hidden_size"]) else None
    inputs = elman.Tokens(n) if tokens else elman.Features(n)
    model = elman.SequenceModel(inputs, outputs, pattern=pattern, learn_h_0=bool(rng.integers(2)), **options)
    if model.learn_h_0:
        model.parameters()["h_0"][...] = rng.normal(size=model.parameters()["h_0"].shape)
    return rng, tamed(model)


@pytest.mark.parametrize("seed", range(60))
def test_onnx_models_agree(seed: int, exported):
    rng, model = drawn_model(seed)
    has_lengths = bool(rng.integers(2)) and model.pattern.startswith("many")
    run = exported(model, OPSETS[seed % len(OPSETS)], lengths=has_lengths)
    for _ in range(3):
        check_predictions(run, model, *batch(rng), rng)


@pytest.mark.parametrize("seed", range(24))
def test_onnx_sequences_go_on_from_one_input(seed: int, exported):
    rng, model = drawn_model(seed, "one-to-many")
    run = exported(model, OPSETS[seed % len(OPSETS)])
    for length in (1, 7):
        check_generated(run, model, length, 3, rng)


@pytest.mark.parametrize("seed", range(24))
def test_onnx_decoders_write_the_same(seed: int, exported):
    rng, options = drawn(2000 + seed)
    options = {name: value for name, value in options.items() if name not in ("excitatory", "mask_hh", "reverse")}
    n = int(rng.integers(1, 30))
    inputs = elman.Tokens(n) if rng.integers(2) else elman.Features(n)
    model = tamed(elman.Seq2Seq(inputs, elman.Categories(int(rng.integers(1, 6))), **options))
    run = exported(model, OPSETS[seed % len(OPSETS)], lengths=bool(rng.integers(2)))
    for _ in range(3):
        check_decoded(run, model, *batch(rng), rng)


@pytest.mark.parametrize("options", [{}, {"leak": 0.3}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_onnx_encoders_begin_with_what_they_have_learned(options: dict[str, Any], exported):
    rng, written = np.random.default_rng(0), set()
    kinds = elman.Tokens(3), elman.Categories(4)
    model = elman.Seq2Seq(*kinds, hidden_size=6, learn_h_0=True, seed=0, **options)
    for array in model.parameters().values():
        array *= 3
    for _ in range(6):
        model.parameters()["h_0"][...] = 3 * rng.normal(size=model.parameters()["h_0"].shape)
        check_decoded(exported(model), model, 2, 1, None, rng)
        written.add(tuple(model.predict([[0, 1]])[0]))
    assert len(written) > 1, "it matters"


# States, and what else may be asked for


@pytest.mark.parametrize("options", [{}, {"nonlinearity": "retanh", "leak": 0.4}])
def test_onnx_sequences_come_bit_by_bit(options: dict[str, Any], exported):
    model = elman.SequenceModel(elman.Tokens(9), elman.Categories(3), hidden_size=5, num_layers=2, seed=0, **options)
    run, rng, h, probabilities = exported(model, states=True), np.random.default_rng(0), np.zeros((2, 3, 5), "f"), []
    tokens = rng.integers(0, 9, (12, 3))
    for part in tokens[:5], tokens[5:6], tokens[6:]:
        found = run(tokens=part, h_0=h)
        h = found["h_n"]
        probabilities.append(found["probabilities"])
    check(np.concatenate(probabilities), np.swapaxes(model.predict_proba(tokens.T), 0, 1))


def test_onnx_outputs_are_chosen(exported):
    model, x = elman.SequenceModel(elman.Features(2), LABELS, hidden_size=4, seed=0), np.zeros((2, 1, 2), "f")
    for names in ["labels"], ["probabilities", "logits"]:
        assert [*exported(model, outputs=names)(x=x)] == names
    assert "ArgMax" not in exported(model, outputs=("logits",)).operators


@pytest.mark.parametrize("given", [{"loss": "huber"}, {"distribution": "normal"}, {"missing": np.nan}], ids=str)
def test_onnx_numbers_of_all_kinds(given: dict[str, Any], exported, tmp_path):
    model = elman.SequenceModel(elman.Features(2), elman.Reals(3, **given), hidden_size=4, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 1, 2)).astype("f")
    ((name, found),) = exported(model)(x=x).items()
    assert name == ("units" if "distribution" in given else "y")
    check(found, logits_of(model, x, np.array([5])), "float32")
    elman.onnx.export(model, tmp_path / "net.onnx")
    loaded = elman.onnx.load(tmp_path / "net.onnx")
    assert loaded.outputs == model.outputs
    of_labels = elman.SequenceModel(elman.Features(2), elman.Labels(3), hidden_size=4, seed=0)
    assert {k: v.shape for k, v in exported(of_labels)(x=x).items()} == dict.fromkeys(
        ("logits", "probabilities"), (5, 1, 4)
    )
    np.testing.assert_array_equal(loaded.predict(x.swapaxes(0, 1)), model.predict(x.swapaxes(0, 1)))


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one", "one-to-many"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_scales_and_scales_back(pattern: str, dtype: str, exported):
    scalers = [elman.Scaler(mean=[1e6, -3], scale=[20, 1e-3]), elman.Scaler(mean=[5e7, 0, 2], scale=[30, 1, 1e4])]
    inputs, outputs = elman.Features(2, scaler=scalers[0]), elman.Reals(3, scaler=scalers[1])
    model = elman.SequenceModel(inputs, outputs, pattern=pattern, hidden_size=4, dtype=dtype, seed=0)
    shape = (4, 3, 2) if pattern.startswith("many") else (3, 2)
    x = scalers[0].inverse_transform(np.random.default_rng(0).normal(size=shape)).astype(dtype)
    run = exported(model)
    if pattern == "one-to-many":
        found = run(x=x, length=np.array(5))["y"]
        expected = np.stack([model.generate(one, 5) for one in x], axis=1)
    else:
        found, x = run(x=x)["y"], x.swapaxes(0, 1) if pattern.startswith("many") else x
        expected = model.predict(x).swapaxes(0, 1) if pattern == "many-to-many" else model.predict(x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(*(scalers[1].transform(one) for one in (found, expected)), atol=1e-5)
    loaded = elman.onnx.load(run.path)
    assert (loaded.inputs, loaded.outputs) == (inputs, outputs)


def test_onnx_scales_quantiles_and_inputs_of_encoders(exported):
    scaler = elman.Scaler(mean=[1e6, -3], scale=[20, 1e-3])
    x = scaler.inverse_transform(np.random.default_rng(0).normal(size=(4, 3, 2))).astype("f")
    outputs = elman.Reals(2, loss="quantile", quantiles=(0.1, 0.5, 0.9), scaler=scaler)
    model = elman.SequenceModel(elman.Features(2), outputs, hidden_size=4, seed=0)
    found = np.sort(exported(model)(x=x / 1e6)["units"].reshape(4, 3, 2, 3))
    np.testing.assert_allclose(found, model.predict(x.swapaxes(0, 1) / 1e6).swapaxes(0, 1), rtol=1e-6)
    pairs = elman.Seq2Seq(elman.Features(2, scaler=scaler), elman.Categories(4), hidden_size=4, seed=0)
    expected = pairs.predict(x.swapaxes(0, 1), max_length=5)
    assert [row[:n][:5].tolist() for row, n in zip(*_written(exported(pairs), x), strict=True)] == [
        one.tolist() for one in expected
    ]
    with pytest.raises(ValueError, match=r"^scaler must be fitted before"):
        exported(elman.SequenceModel(elman.Features(2, scaler=elman.Scaler()), LABELS, hidden_size=4))


def test_onnx_scales_columns(exported):
    features = elman.Features(2, scaler=elman.Scaler(mean=[1e6, -3], scale=[20, 1e-3]))
    inputs = elman.Columns(elman.Tokens(5, embedding_dim=2), features, elman.Tokens(3))
    model, rng = elman.SequenceModel(inputs, elman.Reals(1), hidden_size=4, seed=0), np.random.default_rng(0)
    own = [1e6, -3] + [20, 1e-3] * rng.normal(size=(3, 4, 2))
    x = np.concatenate([rng.integers(0, 5, (3, 4, 1)), own, rng.integers(0, 3, (3, 4, 1))], axis=2).astype("f")
    run = exported(model)
    np.testing.assert_allclose(run(x=x.swapaxes(0, 1))["y"].swapaxes(0, 1), model.predict(x), atol=1e-6)
    assert elman.onnx.load(run.path).inputs == inputs


def _written(run: Exported, x: Any) -> tuple[Any, Any]:
    found = run(x=x)
    return found["y"].T, found["y_lengths"]


def test_onnx_float64_in_float32(exported):
    """An RNN instead of a Scan."""
    rnn, x = elman.RNN(3, 5, dtype="float64", seed=0), np.random.default_rng(0).normal(size=(7, 2, 3))
    run = exported(rnn, dtype="float32")
    assert "RNN" in run.operators
    np.testing.assert_allclose(run(x=x.astype("f"))["y"], rnn(x)[0], atol=1e-6)
    assert json.loads(run.metadata["elman.config"])["dtype"] == "float32"
    same = exported(elman.RNN(3, 5, seed=0), dtype="float64")
    assert "Scan" in same.operators
    check(same(x=x)["y"], rnn_of(same, x), "float64")


def rnn_of(run: Exported, x: Any) -> Any:
    """Outputs of a layer with the constants of a graph of one."""
    own = {one.name: onnx.numpy_helper.to_array(one) for one in run.proto.graph.initializer}
    rnn = elman.RNN(3, 5, dtype="float64")
    weights = {name: own.get(f"{name}.T", own.get(name)) for name in rnn.parameters()}
    rnn.load_state_dict({name: array.T for name, array in weights.items()})
    return rnn(x)[0]


# The file


def described(values: Any) -> dict[str, Any]:
    """Inputs or outputs of a graph: their axes, and what is said of them."""
    return {
        one.name: ([axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim], one.doc_string)
        for one in values
    }


def test_onnx_names_say_what_things_are(exported):
    model = elman.SequenceModel(elman.Tokens(4), elman.Categories(3), hidden_size=5, num_layers=2, seed=0)
    model.metadata = {"vocabulary": "abcd"}
    run = exported(model, lengths=True, states=True)
    assert {name: axes for name, (axes, _) in described(run.proto.graph.input).items()} == {
        "tokens": ["T", "B"],
        "lengths": ["B"],
        "h_0": [2, "B", 5],
    }
    outputs = described(run.proto.graph.output)
    assert {name: axes for name, (axes, _) in outputs.items()} == {
        "logits": ["T", "B", 3],
        "probabilities": ["T", "B", 3],
        "labels": ["T", "B"],
        "h_n": [2, "B", 5],
    }
    assert outputs["labels"][1] == "(T, B) int64: the likeliest category"
    weights = {one.name for one in run.proto.graph.initializer} - {"one_hot"}
    kinds = ("weight_ih", "weight_hh", "bias")
    expected = {f"{kind}_l{k}" for kind in kinds for k in range(2)} | {"weight_ho.T", "bias_o"}
    assert expected == {name for name in weights if not name.startswith("integer")}
    assert (run.proto.producer_name, run.proto.producer_version) == ("elman", elman.__version__)
    assert run.metadata["vocabulary"] == "abcd"


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_onnx_says_what_makes_the_model(seed: int, exported):
    _, model = drawn_model(seed)
    config = json.loads(exported(model).metadata["elman.config"])
    assert config.pop("kind") == "SequenceModel"
    arguments, n = configuration.arguments("SequenceModel", config)
    assert repr(elman.SequenceModel(**arguments)) == repr(model)
    assert n == sum(array.size for array in model.parameters().values())


def test_onnx_says_what_makes_a_layer(exported):
    for seed in range(8):
        _, options = drawn(seed)
        rnn = elman.RNN(3, batch_first=True, dropout=0.5, bias=False, **options)
        config = json.loads(exported(rnn).metadata["elman.config"])
        assert config.pop("kind") == "RNN"
        masks = {name: constraints.from_json(value, name) for name, value in config.items() if name.startswith("mask")}
        assert repr(elman.RNN(**config | masks)) == repr(rnn)


@pytest.mark.parametrize("opset", OPSETS)
def test_onnx_opsets_have_their_ir_version(opset: int, exported):
    """Those of the releases of onnx that brought the opsets, which ONNX Runtime of that age reads."""
    proto = exported(elman.RNN(2, 3), opset).proto
    assert proto.opset_import[0].version == opset
    assert proto.ir_version == {14: 7, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}.get(opset, 8)


def test_onnx_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path, rnn = tmp_path / "net.onnx", elman.RNN(2, 3, seed=0)
    elman.onnx.export(rnn, path)
    before = path.read_bytes()
    elman.onnx.export(rnn, path)
    assert path.read_bytes() == before
    for wrong in tmp_path / "no" / "net.onnx", tmp_path:
        with pytest.raises(OSError, match=r"net\.onnx|directory"):
            elman.onnx.export(rnn, wrong)
    rnn.parameters()["bias_l0"][1] = np.nan
    with pytest.raises(FloatingPointError, match="the bias_l0 to be exported is nan"):
        elman.onnx.export(rnn, path)
    monkeypatch.setattr("onnx.checker.check_model", lambda _, full_check=False: 1 / (not full_check))  # finds fault
    with pytest.raises(ZeroDivisionError):
        elman.onnx.export(elman.RNN(2, 3), path)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == before


TOKENS, LABELS = elman.Tokens(3), elman.Categories(3)


def model_of(outputs: Any = LABELS, **options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(TOKENS, outputs, **{"hidden_size": 10, **options})


SOFTSIGN = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2, name="softsign")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (elman.RNN(2, 3), {"opset": 13}, "opset must be an int from 14 to 24, got 13"),
        (elman.RNN(2, 3), {"opset": 25}, "opset must be an int from 14 to 24, got 25"),
        (elman.RNN(2, 3), {"opset": "22"}, "opset must be an int from 14 to 24, got '22'"),
        (elman.RNN(2, 3), {"lengths": 1}, "lengths must be True or False, got 1"),
        (elman.RNN(2, 3), {"states": None}, "states must be True or False, got None"),
        (elman.RNN(2, 3), {"scan": 1}, "scan must be True or False, got 1"),
        (elman.RNN(2, 3), {"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        (elman.RNN(2, 3), {"outputs": ["labels"]}, "outputs must be None for a model that is no SequenceModel, got"),
        (elman.RNN(2, 3, 1, SOFTSIGN), {}, r"nonlinearity activation\(softsign\) cannot be exported"),
        (
            model_of(nonlinearity=SOFTSIGN),
            {},
            r"nonlinearity activation\(softsign\) cannot be",
        ),
        (object(), {}, "model must be elman.RNN, elman.SequenceModel or elman.Seq2Seq, got <object"),
        (model_of(), {"outputs": []}, "outputs must be a list of one or more of 'logits', "),
        (model_of(), {"outputs": "labels"}, "outputs must be a list of one or more of "),
        (model_of(), {"outputs": ["y"]}, r"outputs\[0\] must be one of 'logits', 'prob"),
        (model_of(elman.Reals(3)), {"outputs": ["labels"]}, r"outputs\[0\] must be one of 'y'"),
        (
            model_of(bidirectional=True),
            {"states": True},
            "states must be False with bidirectional=True: that direction begins at the end",
        ),
        (
            model_of(learn_h_0=True),
            {"states": True},
            "states must be False with learn_h_0=True",
        ),
        (
            model_of(pattern="one-to-one"),
            {"lengths": True},
            "lengths must be False with pattern='one-to-one', whose input is one step",
        ),
        (
            model_of(pattern="one-to-many"),
            {"states": True},
            "states must be False with pattern='one-to-many', whose input is one step",
        ),
        (elman.Seq2Seq(TOKENS, LABELS, hidden_size=10), {"states": True}, "states must be False for a Seq2Seq"),
    ],
)
def test_onnx_refusals(model: Any, options: dict[str, Any], message: str, tmp_path):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        elman.onnx.export(model, tmp_path / "net.onnx", **options)
    assert not [*tmp_path.iterdir()]


def test_onnx_of_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["elman.onnx.export"], "MOST_BYTES", 50)
    with pytest.raises(ValueError, match=r"model must have at most 50 bytes of weights, as ONNX files have, got \d+"):
        elman.onnx.export(elman.RNN(2, 3), tmp_path / "net.onnx")


def test_onnx_of_an_older_release(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx.defs.onnx_opset_version", lambda: 21)
    with pytest.raises(ValueError, match=r"opset must be at most 21 with onnx \S+, got 22: pip install -U onnx"):
        elman.onnx.export(elman.RNN(2, 3), tmp_path / "net.onnx")


@pytest.mark.parametrize("key", ["elman.config", "elman.digest"])
def test_onnx_metadata_has_names_of_its_own(tmp_path, key):
    model = model_of()
    model.metadata = {key: "{}"}
    with pytest.raises(ValueError, match=f"metadata must not have an entry '{key}'"):
        elman.onnx.export(model, tmp_path / "net.onnx")


def test_onnx_tokens_that_there_are_not(exported):
    """Too large ones are ONNX Runtime's error, on either way; negative ones count from the end."""
    for n in 4, 40:
        model = elman.SequenceModel(elman.Tokens(n), LABELS, hidden_size=10)
        run = exported(model)
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
            run(tokens=np.array([[n]]))
        np.testing.assert_array_equal(run(tokens=np.array([[-1]]))["logits"], run(tokens=np.array([[n - 1]]))["logits"])


def test_onnx_is_imported_on_request_and_named_where_missing():
    program = "import sys, elman; assert 'onnx' not in sys.modules; sys.modules['onnx'] = None; import elman.onnx"
    words = "elman.onnx needs the package onnx: pip install 'elman[onnx]'\n"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert outcome.stderr.endswith(f"ImportError: {words}")
    program = "import sys; sys.modules['onnx'] = None; from elman.cli import main; main(['export', 'a', 'b'])"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (2, f"Error: {words}")


# The command


def test_onnx_command(tmp_path):
    model = elman.SequenceModel(elman.Features(2), elman.Reals(1), hidden_size=4, dtype="float64", seed=0)
    model.save(tmp_path / "net.safetensors")

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(main, ["export", *map(str, arguments)], prog_name="elman")

    own = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    assert invoke(*own, "--opset", 17, "--lengths", "--states", "--dtype", "float32").exit_code == 0
    proto = onnx.load(own[1])
    assert [one.name for one in proto.graph.input] == ["x", "lengths", "h_0"]
    assert (proto.opset_import[0].version, proto.graph.node[-1].op_type) == (17, "Add")
    for arguments, message in (
        ((tmp_path / "no.safetensors", own[1]), f"{tmp_path / 'no.safetensors'}: No such file or directory"),
        ((own[0], tmp_path / "no" / "net.onnx"), f"{tmp_path / 'no' / 'net.onnx'}: No such file or directory"),
        ((own[0], own[0]), f"OUTPUT must be another file than MODEL, got {own[0]} for both"),
        (
            (own[1], tmp_path / "other.onnx"),
            f"{own[1]} is not an elman model: it does not begin like a file of safetensors (ONNX's are for elman.onnx",
        ),
        ((*own, "--opset", 13), "opset must be an int from 14 to 24, got 13"),
    ):
        outcome = invoke(*arguments)
        assert outcome.exit_code == 2
        assert outcome.output.startswith(f"Error: {message}")
        assert outcome.output.count("\n") == 1
