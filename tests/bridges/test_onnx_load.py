"""Reading ONNX: RNN nodes beside ONNX Runtime, what PyTorch exports, what elman exports, and what is refused."""

import hashlib
import re
import warnings

import numpy as np
import pytest

import elman

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper, inliner, numpy_helper  # noqa: E402

import elman.onnx  # noqa: E402
from tests.bridges import onnx_graphs as graphs  # noqa: E402

RNG = np.random.default_rng(0)
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def saved(model, path):
    onnx.save(model, path)
    return path


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, inputs), strict=True))


# RNN nodes


@pytest.mark.parametrize("seed", range(50))
def test_onnx_nodes_load_as_layers(tmp_path, seed):
    case = graphs.drawn(1000 + seed)
    rnn = elman.onnx.load(saved(graphs.model_of(case, any_size=seed % 2 == 0), tmp_path / "net.onnx"))
    assert type(rnn) is elman.RNN
    assert rnn.num_layers == len(case.layers)
    assert rnn.nonlinearity == case.nonlinearity
    assert (rnn.reverse, rnn.bidirectional) == (case.direction == "reverse", case.direction == "bidirectional")
    assert rnn.batch_first == case.layout or case.inputs["x"].shape[:2] == (1, 1)
    assert rnn.bias == any("B" in layer for layer in case.layers)
    y, h_n = rnn(graphs.given(case)["x"], case.inputs.get("h_0"), case.inputs.get("lengths"))
    found = {"y": y.swapaxes(0, 1) if case.layout else y, "h_n": graphs.own_end(case, h_n)}
    for name, expected in graphs.by_onnxruntime(case).items():
        np.testing.assert_allclose(found[name], graphs.own_end(case, expected) if name == "h_n" else expected, **EXACT)


def node_model(n_directions=1, inputs=("x", "W", "R"), shapes=(), dtype=np.float32, op="RNN", **attributes):
    """One node, of 3 inputs and 5 units."""
    sizes = {"x": ("T", "B", 3), "W": (n_directions, 5, 3), "R": (n_directions, 5, 5), "B": (n_directions, 10)}
    sizes |= dict(shapes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = [
        numpy_helper.from_array(RNG.normal(size=sizes[name]).astype(dtype), name) for name in inputs[1:] if name
    ]
    node = helper.make_node(op, inputs, ["Y", "Y_h"], name="one", **attributes)
    x, *outputs = (helper.make_tensor_value_info(name, kind, sizes.get(name, [None] * 3)) for name in ("x", "Y", "Y_h"))
    graph = helper.make_graph([node], "graph", [x], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def test_onnx_doubles_load(tmp_path):
    inputs = ("x", "W", "R", "B")
    model = node_model(2, inputs, dtype=np.float64, direction="bidirectional", layout=1)
    rnn, x = elman.onnx.load(saved(model, tmp_path / "net.onnx"), backend="numpy"), RNG.normal(size=(4, 7, 3))
    assert rnn.dtype == np.float64
    assert rnn.backend == "numpy"
    assert rnn.batch_first
    weights = [numpy_helper.to_array(one) for one in model.graph.initializer]
    Y, Y_h = graphs.by_loops(x.swapaxes(0, 1), *weights, np.zeros((2, 4, 5)), "bidirectional")
    y, h_n = rnn(x)
    np.testing.assert_allclose(y, Y.transpose(2, 0, 1, 3).reshape(4, 7, 10), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(h_n, Y_h, rtol=1e-14, atol=1e-14)


def without_shapes(model):
    for one in [*model.graph.input, *model.graph.output]:
        one.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("layout", [0, 1])
def test_onnx_of_values_without_shapes_loads(tmp_path, layout):
    model = chain(helper.make_node("RNN", ["x", "W", "R", "", "m"], ["", "o"], layout=layout), inputs=("x", "m"))
    expected = elman.onnx.load(saved(model, tmp_path / "net.onnx"))
    found = elman.onnx.load(saved(without_shapes(model), tmp_path / "net.onnx"))
    same(found, expected, is_learned=False)
    assert found.batch_first == (layout == 1)


@pytest.mark.parametrize("name", ["TANH", "tanh", "Tanh"])
def test_onnx_activations_are_known_by_names_in_any_case(tmp_path, name):
    model = node_model(activations=[name], activation_alpha=[0.5])  # which that function does not take
    assert elman.onnx.load(saved(model, tmp_path / "net.onnx")).nonlinearity == "tanh"


# PyTorch

TORCH = [
    {},
    {"num_layers": 2, "nonlinearity": "relu", "bias": False},
    {"num_layers": 3, "batch_first": True},
    {"bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 3, "bidirectional": True, "nonlinearity": "relu"},
]


def from_torch(module, path, *arguments, **options):
    """A file that PyTorch writes of a module."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own age
        torch.onnx.export(module.eval(), arguments, path, dynamo=False, **options)
    return path


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("has_h_0", [False, True])
@pytest.mark.parametrize("options", TORCH, ids=str)
def test_onnx_of_torch_layers(tmp_path, options, has_h_0, any_size):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    theirs, x = torch.nn.RNN(3, 5, **options), torch.randn(4, 7, 3)
    rows = 4 if options.get("batch_first") else 7
    h_0 = torch.randn(theirs.num_layers * (2 if theirs.bidirectional else 1), rows, 5)
    arguments = (x, h_0) if has_h_0 else (x,)
    axes = (
        {"dynamic_axes": {"x": [0, 1], "h_0": [1]}, "input_names": ["x", "h_0"][: len(arguments)]} if any_size else {}
    )
    rnn = elman.onnx.load(from_torch(theirs, tmp_path / "net.onnx", *arguments, **axes))
    assert (rnn.bias, rnn.batch_first) == (theirs.bias, theirs.batch_first)
    for found, expected in zip(rnn(*(one.numpy() for one in arguments)), theirs(*arguments), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), **EXACT)


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_onnx_of_packed_sequences(tmp_path, batch_first, options, any_size):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import rnn as packing

    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.RNN(3, 5, batch_first=batch_first, **options)

        def forward(self, x, n):
            packed = packing.pack_padded_sequence(x, n, enforce_sorted=False, batch_first=batch_first)
            y, h_n = self.rnn(packed)
            return packing.pad_packed_sequence(y, batch_first=batch_first)[0], h_n

    theirs, x, n = Packed(), torch.randn(4, 4, 3), torch.tensor([2, 4, 1, 3])
    axes = {"input_names": ["x", "n"], "dynamic_axes": {"x": [0, 1], "n": [0]}} if any_size else {}
    rnn = elman.onnx.load(from_torch(theirs, tmp_path / "net.onnx", x, n, **axes))
    assert rnn.batch_first == batch_first
    for found, expected in zip(rnn(x.numpy(), lengths=n.numpy()), theirs(x, n), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), **EXACT)


def classifier(kind):
    """A PyTorch model of a kind, what goes into it, and the model that it has to become."""
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self, embedding, reads, link, **options):
            super().__init__()
            self.embedding, self.reads, self.link = embedding, reads, link
            self.rnn = torch.nn.RNN(3, 5, **options)
            self.out = torch.nn.Linear(10 if options.get("bidirectional") else 5, 4, bias=kind != "reals")

        def forward(self, x):
            y, h_n = self.rnn(self.embedding(x))
            h = {"all": y, "last": y[:, -1] if self.rnn.batch_first else y[-1], "h_n": h_n[-1], "both": h_n[-2:]}[
                self.reads
            ]
            h = torch.cat([h[0], h[1]], dim=1) if self.reads == "both" else h
            return self.link(self.out(h))

    pass_on, tokens = torch.nn.Identity(), torch.randint(0, 9, (7, 4))
    features, categories = "Features(3)", "Categories(4)"
    last, first = ", pattern='many-to-one'", {"batch_first": True}
    softmax, log_softmax = torch.nn.Softmax(-1), torch.nn.LogSoftmax(-1)
    table, one_hot = torch.nn.Embedding(9, 3), lambda x: torch.nn.functional.one_hot(x, 3).float()
    both, two = {"bidirectional": True}, {"num_layers": 2}
    return {
        "all": (Classifier(pass_on, "all", softmax), None, f"{features}, {categories}"),
        "rows": (Classifier(pass_on, "all", log_softmax, **first, **both), None, f"{features}, {categories}"),
        "last": (Classifier(pass_on, "last", softmax, **first), None, f"{features}, {categories}{last}"),
        "h_n": (Classifier(pass_on, "h_n", torch.nn.Sigmoid(), **two), None, f"{features}, Binary(4){last}"),
        "both": (Classifier(pass_on, "both", softmax, **two, **both), None, f"{features}, {categories}{last}"),
        "no biases": (Classifier(pass_on, "all", softmax, bias=False, **two), None, f"{features}, {categories}"),
        "reals": (Classifier(pass_on, "all", pass_on), None, f"{features}, Reals(4)"),
        "table": (Classifier(table, "all", softmax), tokens, f"Tokens(9), {categories}"),
        "rows of tokens": (Classifier(table, "last", softmax, **first), tokens, f"Tokens(9), {categories}{last}"),
        "one-hot": (Classifier(one_hot, "all", softmax), tokens % 3, f"Tokens(3), {categories}"),
    }[kind]


KINDS = ["all", "rows", "last", "h_n", "both", "no biases", "reals", "table", "rows of tokens", "one-hot"]


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_of_torch_models(tmp_path, kind):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs, x, words = classifier(kind)
    x = torch.randn(7, 4, 3) if x is None else x
    axes = {"input_names": ["x"], "dynamic_axes": {"x": [0, 1]}}
    model = elman.onnx.load(from_torch(theirs, tmp_path / "net.onnx", x, **axes))
    assert repr(model).startswith(f"SequenceModel({words}, hidden_size=5")
    with torch.no_grad():
        expected = theirs(x).numpy()
    X = x.numpy() if theirs.rnn.batch_first else x.numpy().swapaxes(0, 1)
    if "many-to-one" not in words and not theirs.rnn.batch_first:
        expected = expected.swapaxes(0, 1)
    found = model.predict(X) if kind == "reals" else model.predict_proba(X)
    np.testing.assert_allclose(found, np.exp(expected) if kind == "rows" else expected, **EXACT)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("n_labels", [1, 2])
def test_onnx_of_torch_with_sigmoid_behind_what_moves(tmp_path, n_labels, last):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = torch.nn.RNN(3, 5, batch_first=True), torch.nn.Linear(5, n_labels)

        def forward(self, x):
            logits = self.out(self.rnn(x)[1][-1] if last else self.rnn(x)[0])
            return (logits.squeeze(-1) if n_labels == 1 else logits.transpose(-1, 0)).sigmoid().transpose(-1, 0)

    theirs, x = Detector(), torch.randn(4, 7, 3)
    path = from_torch(theirs, tmp_path / "net.onnx", x, input_names=["x"], dynamic_axes={"x": [0, 1]})
    model, expected = elman.onnx.load(path), theirs(x).detach().numpy()
    assert model.outputs == elman.Binary(n_labels)
    expected = expected if n_labels == 2 else (expected if last else expected.T)[..., None]
    np.testing.assert_allclose(model.predict_proba(x.numpy()), expected, **EXACT)


# elman's own

OWN = [
    {},
    {"num_layers": 2, "bidirectional": True, "nonlinearity": "relu"},
    {"reverse": True, "nonlinearity": "sigmoid"},
    {"leak": 0.3, "noise": 0.1, "nonlinearity": "softplus"},
    {"leak": [0.3, 0.9], "learn_leak": True, "form": "potential", "num_layers": 2},
    {"excitatory": 0.6, "mask_hh": np.eye(5, dtype=bool) == 0},
    {"dtype": "float64", "dropout": 0.2, "num_layers": 2},
    {"nonlinearity": "power"},
]


def same(found, expected, *, is_learned):
    assert type(found) is type(expected)
    assert repr(found) == repr(expected)
    ours, theirs = (one.effective_weights() for one in (found, expected))
    assert [*ours] == [*theirs]
    for name, array in ours.items():
        tolerance = 1e-5 if is_learned and "leak" in name else 0  # a logit, by way of the rate in float32
        np.testing.assert_allclose(array, theirs[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one", "one-to-many"])
@pytest.mark.parametrize("options", OWN, ids=str)
def test_onnx_of_elman_comes_back(tmp_path, options, pattern):
    if pattern == "one-to-many" and (options.get("bidirectional") or options.get("reverse")):
        pattern = "many-to-many"
    many = {name: value for name, value in options.items() if name != "dtype"}
    kinds = [(elman.Tokens(3), elman.Categories(3, class_weights=[1, 2, 3])), (elman.Features(3), elman.Reals(2))]
    kinds += [(elman.Tokens(30), elman.Categories(4)), (elman.Features(3), elman.Binary(2))]
    for inputs, outputs in kinds:
        own = {"learn_h_0": pattern != "one-to-one", **many, "dtype": options.get("dtype", "float32")}
        model = elman.SequenceModel(inputs, outputs, pattern=pattern, hidden_size=5, seed=0, **own)
        for array in model.parameters().values():
            array += RNG.normal(size=array.shape, scale=0.1)
        model.metadata = {"made": "for a test"}
        elman.onnx.export(model, tmp_path / "net.onnx", lengths=pattern.startswith("many"))
        found = elman.onnx.load(tmp_path / "net.onnx")
        assert found.metadata == model.metadata
        assert found.rnn.dropout == model.rnn.dropout
        same(found, model, is_learned="learn_leak" in options)
        X = [[0, 1, 2], [2, 1, 1]] if isinstance(inputs, elman.Tokens) else RNG.normal(size=(2, 3, 3))
        if pattern.startswith("many"):
            np.testing.assert_allclose(found.predict(X), model.predict(X), **EXACT)


@pytest.mark.parametrize("options", [*OWN, {"bias": False, "batch_first": True, "num_layers": 3}], ids=str)
def test_onnx_of_elmans_layers_comes_back(tmp_path, options):
    rnn = elman.RNN(3, 5, seed=0, **options)
    elman.onnx.export(rnn, tmp_path / "net.onnx", states=True)
    same(elman.onnx.load(tmp_path / "net.onnx"), rnn, is_learned="learn_leak" in options)


@pytest.mark.parametrize("opset", [14, 18, min(24, onnx.defs.onnx_opset_version())])
@pytest.mark.parametrize("options", [{"scan": True}, {"dtype": "float64"}, {"lengths": True}], ids=str)
def test_onnx_of_elman_in_any_form_comes_back(tmp_path, options, opset):
    model = elman.SequenceModel(elman.Tokens(9), elman.Binary(2), hidden_size=5, bidirectional=True, seed=0)
    elman.onnx.export(model, tmp_path / "net.onnx", opset, **options)
    expected = elman.SequenceModel(
        elman.Tokens(9), elman.Binary(2), hidden_size=5, bidirectional=True, dtype=options.get("dtype", "float32")
    )
    expected.load_state_dict(model.state_dict())
    same(elman.onnx.load(tmp_path / "net.onnx"), expected, is_learned=False)


@pytest.mark.parametrize("inputs", [elman.Tokens(4), elman.Features(3)], ids=repr)
@pytest.mark.parametrize("own", [{}, {"learn_h_0": True}, {"learn_h_0": True, "leak": 0.3}], ids=str)
def test_onnx_of_encoder_and_decoder_comes_back(tmp_path, own, inputs):
    options = {"hidden_size": 5, "num_layers": 2, "bidirectional": True, "seed": 0, **own}
    model = elman.Seq2Seq(inputs, elman.Categories(3), **options)
    if model.learn_h_0:
        model.parameters()["h_0"][...] = np.linspace(-1, 1, 20).reshape(4, 5)
    elman.onnx.export(model, tmp_path / "net.onnx")
    same(elman.onnx.load(tmp_path / "net.onnx"), model, is_learned=False)


def edited(path, edit):
    model = onnx.load(path)
    edit(model)
    return saved(model, path)


def set_entry(model, key, change):
    entry = next(one for one in model.metadata_props if one.key == key)
    entry.value = change(entry.value)


EDITS = {
    "a node": lambda model: model.graph.node[1].CopyFrom(
        helper.make_node("Neg", *map(list, ends(model.graph.node[1])))
    ),
    "an attribute": lambda model: rnn_node(model).attribute.append(helper.make_attribute("clip", 1.0)),
    "one-hot rows": lambda model: replace(model, "one_hot", lambda array: array * 2),
    "units": lambda model: set_entry(
        model, "elman.config", lambda text: text.replace('hidden_size": 5', 'hidden_size": 6')
    ),
    "sizes": lambda model: set_entry(
        model, "elman.config", lambda text: text.replace('hidden_size": 5', 'hidden_size": 100000')
    ),
    "layers": lambda model: set_entry(
        model, "elman.config", lambda text: text.replace('num_layers": 1', 'num_layers": 60000')
    ),
    "a function": lambda model: set_entry(model, "elman.config", lambda text: text.replace("tanh", "relu")),
    "less": lambda model: set_entry(model, "elman.config", lambda text: text.replace('"dropout": 0.1, ', "")),
    "more": lambda model: set_entry(model, "elman.config", lambda text: text.replace('"kind"', '"seed": 1, "kind"', 1)),
    "not JSON": lambda model: set_entry(model, "elman.config", lambda text: text[:-1]),
    "deep JSON": lambda model: set_entry(model, "elman.config", lambda _: "[" * 100000),
    "another kind": lambda model: set_entry(model, "elman.config", lambda text: text.replace("SequenceModel", "Model")),
    "weights": lambda model: replace(model, "weight_hh_l0", lambda array: array * np.nan),
    "a shape": lambda model: replace(model, "weight_hh_l0", lambda array: array[:, :, :4]),
}


def ends(node):
    return node.input[:1], node.output


def rnn_node(model):
    return next(node for node in model.graph.node if node.op_type == "RNN")


def replace(model, name, change):
    one = next(one for one in model.graph.initializer if one.name == name)
    one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(one))), name))


def tagger(path):
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=5, dropout=0.1, seed=0)
    elman.onnx.export(model, path, outputs=["probabilities"])
    return model


@pytest.mark.parametrize("what", EDITS)
def test_onnx_of_elman_is_read_as_any_other_where_it_was_edited(tmp_path, what):
    path, tokens = tmp_path / "net.onnx", np.array([[0, 1, 2, 2], [2, 1, 1, 0]])
    tagger(path)
    edited(path, EDITS[what])
    if what in ("a node", "an attribute", "weights", "a shape"):
        with pytest.raises(ValueError, match=re.escape(f"{path} is not a network that elman can read: ")):
            elman.onnx.load(path)
    else:
        found = elman.onnx.load(path)
        assert (found.rnn.dropout, found.metadata) == (0, {})  # which its configuration says, or nothing does
        expected = run(path, tokens=tokens.T)["probabilities"].swapaxes(0, 1)
        np.testing.assert_allclose(found.predict_proba(tokens), expected, **EXACT)


@pytest.mark.parametrize("what", ["units", "sizes", "layers", "more", "not JSON", "deep JSON", "another kind"])
def test_onnx_configurations_that_do_not_fit_are_refused(tmp_path, what):
    """As somebody could write them, with the digest that they have then."""
    path = tmp_path / "net.onnx"
    tagger(path)
    model = onnx.load(edited(path, EDITS[what]))
    config = next(one.value for one in model.metadata_props if one.key == "elman.config")
    content = model.graph.SerializeToString(deterministic=True) + config.encode()
    set_entry(model, "elman.digest", lambda _: hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a network that elman can read: ")):
        elman.onnx.load(saved(model, path))


def test_onnx_of_elman_comes_back_when_it_is_saved_anew(tmp_path):
    model = tagger(tmp_path / "net.onnx")
    model_again = elman.onnx.load(edited(tmp_path / "net.onnx", lambda proto: setattr(proto, "producer_name", "other")))
    assert model_again.rnn.dropout == model.rnn.dropout
    same(model_again, model, is_learned=False)


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one"])
@pytest.mark.parametrize("inputs", [elman.Tokens(3), elman.Tokens(30), elman.Features(3)], ids=repr)
@pytest.mark.parametrize("outputs", [elman.Categories(4), elman.Binary(2)], ids=repr)
@pytest.mark.parametrize("names", [None, ["labels"]], ids=str)
def test_onnx_of_elman_without_its_configuration_is_read_as_any_other(tmp_path, inputs, outputs, names, pattern):
    options = {"hidden_size": 5, "num_layers": 2, "learn_h_0": True, "bidirectional": pattern == "many-to-one"}
    model = elman.SequenceModel(inputs, outputs, pattern=pattern, seed=0, **options)
    model.parameters()["h_0"][...] = RNG.normal(size=model.parameters()["h_0"].shape)
    elman.onnx.export(model, tmp_path / "net.onnx", outputs=names)
    found = elman.onnx.load(edited(tmp_path / "net.onnx", lambda proto: proto.ClearField("metadata_props")))
    same(found, model, is_learned=False)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_onnx_of_elman_with_lengths_and_states_is_read_as_any_other(tmp_path, bidirectional):
    rnn = elman.RNN(3, 5, num_layers=2, bidirectional=bidirectional, seed=0)
    elman.onnx.export(rnn, tmp_path / "net.onnx", lengths=True, states=True)
    found = elman.onnx.load(edited(tmp_path / "net.onnx", lambda proto: proto.ClearField("metadata_props")))
    same(found, rnn, is_learned=False)
    assert type(elman.onnx.load(saved(empty_rows(zero=0, states="h"), tmp_path / "net.onnx"))) is elman.RNN


@pytest.mark.parametrize("link", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("names", [["p"], ["o"], ["p", "o"]], ids=str)
def test_onnx_outputs_say_what_the_readout_is(tmp_path, names, link):
    model = flat(op("MatMul", "flat V", "p"), op(link, "p", "o"), outputs=names)
    kind = {"Softmax": elman.Categories, "Sigmoid": elman.Binary}[link] if "o" in names else elman.Reals
    assert elman.onnx.load(saved(model, tmp_path / "net.onnx")).outputs == kind(4)


# What is refused


def chain(*nodes, outputs=("o",), inputs=("x",), version=22, **constants):
    """A layer from x (T, B, 3) to y (T, 1, B, 5) and h_n, and nodes behind or before it."""
    arrays = {
        "W": RNG.normal(size=(1, 5, 3)),
        "R": RNG.normal(size=(1, 5, 5)),
        "V": RNG.normal(size=(5, 4)),
        **constants,
    }
    made = []
    for name, array in arrays.items():  # reals have names in capitals
        kind = np.asarray(array).dtype if name.islower() else np.float32
        made.append(numpy_helper.from_array(np.asarray(array, kind), name))
    sizes = {"x": (1, ("T", "B", 3)), "n": (7, ("B",)), "m": (6, ("B",))}
    values = [helper.make_tensor_value_info(name, *sizes.get(name, (1, (1, "B", 5)))) for name in inputs]
    results = [helper.make_tensor_value_info(name, 1, [None] * 3) for name in outputs]
    graph = helper.make_graph(nodes, "graph", values, results, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def op(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


LAYER = op("RNN", "x W R", "y h_n")
FLAT = op("Squeeze", "y one", "flat"), {"one": np.array([1])}
LAST = op("Squeeze", "h_n zero", "last"), {"zero": np.array([0])}


def flat(*nodes, **constants):
    return chain(LAYER, FLAT[0], *nodes, **FLAT[1], **constants)


def empty_rows(zero, states, axes=(0, 2)):
    """States that are others where a row's length is `zero`."""
    nodes = [
        op("Cast", "n", "m", to=6),
        helper.make_node("RNN", ["x", "W", "R", "", "m", "h"], ["y", "h_n"]),
        op("Equal", "n zero", "equal"),
        op("Unsqueeze", "equal axes", "c"),
        op("Where", f"c {states} h_n", "o"),
    ]
    return chain(*nodes, inputs=("x", "n", *sorted({"h", states})), zero=np.int64(zero), axes=np.array(axes))


REFUSED = {
    "clip": (lambda: node_model(clip=3.0), "clip of its RNN node 'one' must not be there, got 3.0"),
    "activations": (lambda: node_model(activations=["Elu"]), "activations of its RNN node 'one' must be one of"),
    "two activations": (
        lambda: node_model(2, direction="bidirectional", activations=["Tanh", "Relu"]),
        "activations of its RNN node 'one' must be the same in both directions",
    ),
    "alpha": (
        lambda: node_model(activations=["Affine"], activation_alpha=[2.0]),
        "activation_alpha of its RNN node 'one'",
    ),
    "no alpha": (
        lambda: node_model(activations=["Affine"]),
        "activation_alpha of its RNN node 'one' must be there for Affine, 1 for each direction",
    ),
    "one alpha": (
        lambda: node_model(2, direction="bidirectional", activations=["Affine"] * 2, activation_alpha=[1.0]),
        "activation_alpha of its RNN node 'one' must be there for Affine, 1 for each direction",
    ),
    "beta": (
        lambda: node_model(activations=["Affine"], activation_beta=[2.0]),
        "activation_beta of its RNN node 'one'",
    ),
    "direction": (lambda: node_model(direction="up"), "direction of its RNN node 'one' must be one of 'forward'"),
    "layout": (lambda: node_model(layout=2), "layout of its RNN node 'one' must be an int from 0 to 1, got 2"),
    "hidden_size": (
        lambda: node_model(hidden_size=7),
        "hidden_size of its RNN node 'one' must be 5, as many as columns of R, got 7",
    ),
    "W": (
        lambda: node_model(shapes={"W": (1, 4, 3)}),
        "W of its RNN node 'one' must have shape (1, 5, I), got (1, 4, 3)",
    ),
    "R": (lambda: node_model(shapes={"R": (1, 5, 4)}), "W of its RNN node 'one' must have shape (1, 4, I)"),
    "B": (
        lambda: node_model(inputs=("x", "W", "R", "B"), shapes={"B": (1, 5)}),
        "B of its RNN node 'one' must have shape (1, 10), got (1, 5)",
    ),
    "directions": (lambda: node_model(2), "W of its RNN node 'one' must have shape (1, 5, I), got (2, 5, 3)"),
    "inputs": (
        lambda: node_model(shapes={"W": (1, 5, 4)}),
        "columns of W of its RNN node 'one' must be 3, as many as columns of X, got 4",
    ),
    "no shape": (
        lambda: without_shapes(chain(op("Identity", "x", "z"), op("RNN", "z W R", "o"))),
        "its input 'x' has no shape: give it one, whose sizes may be open",
    ),
    "no shape of states": (
        lambda: without_shapes(chain(helper.make_node("RNN", ["x", "W", "R", "", "", "h"], ["o"]), inputs=("x", "h"))),
        "its input 'h' has no shape: give it one, whose sizes may be open",
    ),
    "half": (lambda: node_model(dtype=np.float16), "its input 'x' must hold floats, doubles or ints"),
    "GRU": (
        lambda: node_model(op="GRU", shapes={"W": (1, 15, 3), "R": (1, 15, 5)}),
        "it has GRU nodes, and elman has no GRU",
    ),
    "each step apart": (  # as torch.onnx.export writes it with dynamo=True
        lambda: chain(
            op("MatMul", "x P", "a"), op("Add", "a h", "b"), op("Tanh", "b", "h_1"), op("Concat", "h h_1", "o", axis=0)
        ),
        "it has no RNN node: a program that writes each step as nodes of its own",
    ),
    "another cell": (
        lambda: chain(LAYER, op("GRU", "x G Q", "o"), G=np.ones((1, 15, 3)), Q=np.ones((1, 15, 5))),
        "its GRU node 'o' cannot be kept: elman has no GRU",
    ),
    "before": (lambda: chain(op("Mul", "x x", "z"), op("RNN", "z W R", "o")), "its Mul node 'z' cannot be kept"),
    "a map before": (
        lambda: chain(op("MatMul", "x P", "z"), op("RNN", "z W R", "o"), P=np.eye(3)),
        "its MatMul node 'z' cannot be kept: it must be the one readout",
    ),
    "between": (lambda: flat(op("Tanh", "flat", "z"), op("RNN", "z R R", "o")), "its Tanh node 'z' cannot be kept"),
    "order of steps": (
        lambda: flat(op("Slice", "flat a b zero a", "z"), op("RNN", "z R R", "o"), a=[-1], b=[-99], zero=[0]),
        "X of its RNN node 'o' must be what the layer below puts out at each step",
    ),
    "a cut": (
        lambda: chain(op("Slice", "x a b", "z"), op("RNN", "z W R", "o"), a=[0], b=[100]),
        "its Slice node 'z' cannot be kept: it cuts at a size that is fixed",
    ),
    "half a cut": (
        lambda: chain(op("Slice", "x a b", "z"), op("RNN", "z W R", "o"), a=[0], b=[3]),
        "X of its RNN node 'o' must be",
    ),
    "two chains": (
        lambda: chain(LAYER, op("RNN", "x W R", "o"), outputs=("y", "o")),
        "X of its RNN node 'o' must be what the layer below puts out at each step: elman has one chain",
    ),
    "sizes": (
        lambda: flat(op("RNN", "flat Q S", "o"), Q=np.ones((1, 6, 5)), S=np.ones((1, 6, 6))),
        "hidden_size of its RNN node 'o' must be 5, as many as units of the layer below, got 6",
    ),
    "functions": (
        lambda: flat(op("RNN", "flat R R", "o", activations=["Relu"])),
        "nonlinearity of its RNN node 'o' must be one of 'tanh', got 'relu'",
    ),
    "weights": (
        lambda: chain(op("RNN", "x x R", "o")),
        "W of its RNN node 'o' must be a constant, got what depends on inputs",
    ),
    "two readouts": (
        lambda: flat(op("MatMul", "flat V", "z"), op("MatMul", "z Q", "o"), Q=np.eye(4)),
        "its MatMul node 'o' cannot be kept: it must be the one readout",
    ),
    "some units": (
        lambda: flat(op("Slice", "flat a b c", "z"), op("MatMul", "z Q", "o"), Q=np.ones((3, 4)), a=[0], b=[3], c=[2]),
        "its MatMul node 'o' cannot be kept",
    ),
    "scaled": (
        lambda: flat(op("Mul", "flat two", "z"), op("MatMul", "z V", "o"), two=np.float32(2)),
        "its Mul node 'z'",
    ),
    "a size as a factor": (
        lambda: flat(
            op("Shape", "x", "t", end=1), op("Cast", "t", "f", to=1), op("Mul", "V f", "U"), op("MatMul", "flat U", "o")
        ),
        "its weights must not depend on the sizes of its inputs",
    ),
    "axis": (
        lambda: flat(op("MatMul", "flat V", "z"), op("Softmax", "z", "o", axis=0)),
        "its Softmax node 'o' cannot be kept: it must come after the readout, along its last axis",
    ),
    "a link before": (
        lambda: flat(op("Sigmoid", "flat", "z"), op("MatMul", "z V", "o")),
        "its Sigmoid node 'z' cannot be kept: it must come after the readout",
    ),
    "labels along another axis": (
        lambda: flat(op("MatMul", "flat V", "p"), op("ArgMax", "p", "o", axis=0)),
        "its ArgMax node 'o' cannot be kept: it must make labels of what the readout puts out",
    ),
    "another threshold": (
        lambda: flat(
            op("MatMul", "flat V", "p"), op("Greater", "p c", "z"), op("Cast", "z", "o", to=7), c=np.float32(0.5)
        ),
        "its Greater node 'z' cannot be kept: it must make labels of what the readout puts out",
    ),
    "labels before the bias": (
        lambda: flat(
            op("MatMul", "flat V", "p"),
            op("ArgMax", "p", "z", axis=2),
            op("Add", "p c", "o"),
            outputs=("o", "z"),
            c=np.ones(4, np.float32),
        ),
        "its Add node 'o' cannot be kept: it must be the bias of the readout",
    ),
    "labels of two kinds": (
        lambda: flat(
            op("MatMul", "flat V", "p"), op("Sigmoid", "p", "z"), op("ArgMax", "p", "o", axis=2), outputs=("o", "z")
        ),
        "it must have one output of the readout",
    ),
    "labels of labels": (
        lambda: flat(op("MatMul", "flat V", "p"), op("ArgMax", "p", "z", axis=2), op("ArgMax", "z", "o", axis=2)),
        "its ArgMax node 'o' cannot be kept",
    ),
    "a table of labels": (
        lambda: flat(op("MatMul", "flat V", "p"), op("ArgMax", "p", "z", axis=2, keepdims=0), op("Gather", "V z", "o")),
        "its Gather node 'o' cannot be kept",
    ),
    "another link": (
        lambda: flat(op("MatMul", "flat V", "z"), op("Relu", "z", "o")),
        "its Relu node 'o' cannot be kept",
    ),
    "other states of rows without steps": (
        lambda: empty_rows(zero=0, states="k"),
        "its Where node 'o' cannot be kept",
    ),
    "states of short rows": (lambda: empty_rows(zero=1, states="h"), "its Where node 'o' cannot be kept"),
    "states of units": (lambda: empty_rows(zero=0, states="h", axes=(0, 1)), "its Where node 'o' cannot be kept"),
    "two lengths": (
        lambda: chain(
            helper.make_node("RNN", ["x", "W", "R", "", "n"], ["y"]),
            FLAT[0],
            helper.make_node("RNN", ["flat", "R", "R", "", "m"], ["o"]),
            inputs=("x", "n", "m"),
            **FLAT[1],
        ),
        "its input 'm' must not be there: elman has one input of lengths",
    ),
    "two links": (
        lambda: flat(op("MatMul", "flat V", "z"), op("Sigmoid", "z", "p"), op("Softmax", "p", "o")),
        "its Softmax node 'o' cannot be kept",
    ),
    "bias per row": (
        lambda: flat(op("MatMul", "flat V", "z"), op("Add", "z c", "o"), c=np.ones((7, 1, 1), np.float32)),
        "its Add node 'o' cannot be kept: it must be the bias of the readout",
    ),
    "two biases": (
        lambda: flat(
            op("MatMul", "flat V", "z"), op("Add", "z c", "p"), op("Add", "p c", "o"), c=np.ones(4, np.float32)
        ),
        "its Add node 'o' cannot be kept: it must be the bias of the readout",
    ),
    "gemm": (
        lambda: chain(LAYER, LAST[0], op("Gemm", "last V", "o", alpha=2.0), **LAST[1]),
        "its Gemm node 'o' must have transA 0, alpha 1 and beta 1",
    ),
    "an early step": (
        lambda: flat(op("Gather", "flat zero", "z"), op("MatMul", "z V", "o"), zero=np.int64(0)),
        "its output 'o' must be what the last node computes, in its order",
    ),
    "order of units": (
        lambda: flat(op("Gather", "flat which", "o", axis=2), which=[1, 0, 2, 3, 4]),
        "its output 'o' must be what the last node computes, in its order",
    ),
    "the layer below": (lambda: flat(op("RNN", "flat R R", "z h"), op("Identity", "y", "o")), "its output 'o' must be"),
    "initial states": (
        lambda: chain(
            helper.make_node("RNN", ["x", "W", "R", "", "", "h"], ["o"], name="o"), h=np.ones((1, 1, 5), np.float32)
        ),
        "initial_h of its RNN node 'o' must have shape (1, 3, 5), got (1, 1, 5)",
    ),
    "states of another layer": (
        lambda: flat(helper.make_node("RNN", ["flat", "R", "R", "", "", "h_n"], ["o"], name="o")),
        "initial_h of its RNN node 'o' must be an input, of all layers one after the other",
    ),
    "first inputs": (
        lambda: chain(
            op("Slice", "x a b a", "h"),
            helper.make_node("RNN", ["x", "W", "W", "", "", "h"], ["o"]),
            a=[0],
            b=[1],
            W=np.ones((1, 3, 3)),
        ),
        "initial_h of its RNN node 'o' must be an input, of all layers one after the other",
    ),
    "lengths": (
        lambda: chain(helper.make_node("RNN", ["x", "W", "R", "", "n"], ["o"], name="o"), n=np.array([2], np.int32)),
        "sequence_lens of its RNN node 'o' must be an input, or the number of steps",
    ),
    "states of a layer": (
        lambda: chain(
            op("Shape", "x", "s", start=1, end=2),
            op("Concat", "a s b", "t", axis=0),
            op("Expand", "h t", "h_0"),
            helper.make_node("RNN", ["x", "W", "R", "", "", "h_0"], ["o"]),
            a=[1],
            b=[5],
            h=np.ones((1, 1, 1), np.float32),
        ),
        "initial_h of its RNN nodes must be zeros, or an input",
    ),
    "an operator of its own": (lambda: chain(LAYER, helper.make_node("Own", ["y"], ["o"], domain="own")), "domain"),
    "a large array": (
        lambda: chain(op("ConstantOfShape", "n", "z"), op("RNN", "x W R", "o"), n=[1 << 40]),
        "its ConstantOfShape node 'z' makes an array with too many elements",
    ),
    "a long range": (
        lambda: chain(op("Range", "a n b", "z"), op("RNN", "x W R", "o"), a=0, n=1 << 40, b=1),
        "its Range node 'z' makes an array with too many elements",
    ),
    "a large axis": (
        lambda: node_model(shapes={"x": (1 << 30, 1 << 30, 3)}),
        "its input 'x' has too many elements, (1073741824, 1073741824, 3): leave its sizes open",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_onnx_refusals(tmp_path, what):
    make, words = REFUSED[what]
    path = saved(make(), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=re.escape(words)) as refusal:
        elman.onnx.load(path)
    assert str(refusal.value).startswith(f"{path} is not a network that elman can read: ")


@pytest.mark.parametrize("step", [0, -1])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("has_lengths", [False, True])
def test_onnx_readouts_of_one_step_must_be_of_the_last_one(tmp_path, has_lengths, direction, step):
    """With lengths a step is each row's last one only where that is step 0."""
    layer = helper.make_node("RNN", ["x", "W", "R", "", "n" if has_lengths else ""], ["y"], direction=direction)
    nodes = [layer, FLAT[0], op("Gather", "flat step", "z"), op("MatMul", "z V", "o")]
    inputs = ("x", "n") if has_lengths else ("x",)
    path = saved(chain(*nodes, inputs=inputs, step=np.int64(step), **FLAT[1]), tmp_path / "net.onnx")
    if step == 0 if direction == "reverse" else step == -1 and not has_lengths:
        assert elman.onnx.load(path).pattern == "many-to-one"
        assert elman.onnx.load(path).rnn.reverse == (direction == "reverse")
    else:
        with pytest.raises(ValueError, match="its output 'o' must be what the last node computes"):
            elman.onnx.load(path)


def test_onnx_weights_must_be_finite(tmp_path):
    model = node_model()
    replace(model, "R", lambda array: array * np.nan)
    with pytest.raises(ValueError, match="weight_hh_l0 must be finite"):
        elman.onnx.load(saved(model, tmp_path / "net.onnx"))


def test_onnx_weights_of_another_file_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(node_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ValueError, match=r"its 'W' is in another file: make it one, onnx\.save"):
        elman.onnx.load(path)


@pytest.mark.parametrize("kind", ["function", "branch"])
def test_onnx_nodes_within_functions_and_branches_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"its RNN nodes must be in the graph itself, not in branches"):
        elman.onnx.load(saved(graphs.within(kind), tmp_path / "net.onnx"))
    if kind == "function":
        inlined = inliner.inline_local_functions(graphs.within(kind))
        assert type(elman.onnx.load(saved(inlined, tmp_path / "net.onnx"))) is elman.RNN


def test_onnx_sparse_weights_are_refused(tmp_path):
    model = node_model()
    values, places = numpy_helper.from_array(np.ones(1, np.float32), "R"), numpy_helper.from_array(np.int64([0]))
    del model.graph.initializer[1]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, (1, 5, 5)))
    with pytest.raises(ValueError, match="its 'R' is sparse, and has to be an initializer as any other"):
        elman.onnx.load(saved(model, tmp_path / "net.onnx"))


def test_onnx_damaged_files_are_refused(tmp_path):
    """Or read, where the damage is in a number or a name."""
    path, rng, refusals = tmp_path / "net.onnx", np.random.default_rng(0), []
    elman.onnx.export(elman.RNN(3, 5, seed=0), path)
    wholes = path.read_bytes(), graphs.model_of(graphs.drawn(5)).SerializeToString()
    for i in range(200):
        whole = wholes[i % 2]
        content = bytearray(whole)
        if i % 3 == 0:
            content = content[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole), size=rng.integers(1, 4)):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            elman.onnx.load(path)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(words.startswith(f"{path} is not a network that elman can read: ") for words in refusals)


def test_onnx_paths_and_backends(tmp_path):
    with pytest.raises(FileNotFoundError):
        elman.onnx.load(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="path must be a str or a path, got 3"):
        elman.onnx.load(3)
    with pytest.raises(ValueError, match="backend must be one of"):
        elman.onnx.load(tmp_path / "none.onnx", backend="torch")
