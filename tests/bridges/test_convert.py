"""elman.convert against what each framework computes, both ways; without one installed, shapes, bits and errors."""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import elman
from elman import convert

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables


class Case(NamedTuple):
    """What a layer has in all frameworks."""

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True

    @property
    def directions(self) -> range:
        return range(2 if self.bidirectional else 1)

    @property
    def layers(self) -> list[int]:
        """The inputs of each."""
        return [self.input_size, *[len(self.directions) * self.hidden_size] * (self.num_layers - 1)]

    def rnn(self, dtype: str, seed: int) -> elman.RNN:
        return elman.RNN(**self._asdict(), dtype=dtype, seed=seed)


CASES = [
    Case(3, 5),
    Case(4, 3, bias=False),
    Case(3, 5, num_layers=3),
    Case(5, 5, num_layers=2, bias=False),  # where kernels of all layers have one shape
    Case(2, 5, bidirectional=True),
    Case(3, 4, num_layers=2, bidirectional=True),
    Case(2, 3, num_layers=3, bidirectional=True, bias=False),
    Case(1, 1),
    Case(1, 1, num_layers=2, bidirectional=True),
    Case(1, 1, bidirectional=True, bias=False),
]
# Of Flax, which compiles each for seconds, and whose cells all have a bias
COMPILED = (Case(3, 5, num_layers=3), Case(3, 4, num_layers=2, bidirectional=True), Case(1, 1)), (Case(3, 5),)


def case_name(case: Case) -> str:
    words = ["bidirectional"] * case.bidirectional + ["no-bias"] * (not case.bias)
    return "-".join([str(case.input_size), str(case.hidden_size), f"L{case.num_layers}", *words])


def drawn(*shape: int, seed: int = 0, dtype: Any = float) -> Any:
    return np.random.default_rng([seed, *shape]).uniform(-0.7, 0.7, shape).astype(dtype)


# The frameworks: each has weights, takes others in its own form, and runs x (T, B, I) to y (T, B, D·H) or, with a
# readout, to (T, B, 2)


class Framework:
    of_float32: Sequence[Case] = CASES
    of_float64: Sequence[Case] = (Case(3, 5), Case(3, 4, num_layers=2, bidirectional=True))
    tolerance = {"float32": 1e-6, "float64": 1e-13}  # noqa: RUF012

    __init__: Callable[..., None]  # (case, dtype, *, readout=False)
    state: Callable[..., dict[str, Any]]  # its weights, converted
    load: Callable[..., None]
    run: Callable[..., Any]


class PyTorch(Framework):
    def __init__(self, case, dtype, *, readout=False):
        self.torch = pytest.importorskip("torch")
        self.torch.manual_seed(0)
        self.names = ("rnn", "out") if readout else ("rnn", None)
        n_units = len(case.directions) * case.hidden_size
        parts = {"rnn": self.torch.nn.RNN(**case._asdict()), "other": self.torch.nn.Linear(2, 3)}
        parts |= {"out": self.torch.nn.Linear(n_units, 2)} if readout else {}
        self.net = self.torch.nn.ModuleDict(parts).to(getattr(self.torch, dtype))

    def state(self):
        return convert.from_pytorch(self.net.state_dict(), readout=self.names[1])

    def load(self, state):
        arrays = convert.to_pytorch(state, *self.names)
        rest = {name: value for name, value in self.net.state_dict().items() if name.startswith("other.")}
        self.net.load_state_dict(rest | {name: self.torch.from_numpy(array) for name, array in arrays.items()})

    def run(self, x):
        y = self.net["rnn"](self.torch.from_numpy(x))[0]
        return (self.net["out"](y) if self.names[1] else y).detach().numpy()


class Keras(Framework):
    tolerance = dict.fromkeys(["float32", "float64"], 1e-6)  # on PyTorch it multiplies float64 in float32

    def __init__(self, case, dtype, *, readout=False):
        self.keras = keras = pytest.importorskip("keras")
        self.case, layers = case, [keras.Input((None, case.input_size), dtype=dtype)]
        for _ in range(case.num_layers):
            options = {"use_bias": case.bias, "bias_initializer": "normal", "return_sequences": True, "dtype": dtype}
            layer = keras.layers.SimpleRNN(case.hidden_size, **options)
            layers.append(keras.layers.Bidirectional(layer, dtype=dtype) if case.bidirectional else layer)
        layers += [keras.layers.Dense(2, bias_initializer="normal", dtype=dtype)] if readout else []
        self.net = keras.Sequential(layers)

    def state(self):
        return convert.from_keras(self.net.get_weights(), bidirectional=self.case.bidirectional)

    def load(self, state):
        self.net.set_weights(convert.to_keras(state))

    def run(self, x):
        return self.keras.ops.convert_to_numpy(self.net(x.swapaxes(0, 1))).swapaxes(0, 1)


class Linen(Framework):
    of_float32, of_float64 = COMPILED

    def __init__(self, case, dtype, *, readout=False):
        nn = pytest.importorskip("flax.linen")
        self.jax = pytest.importorskip("jax")

        def rnn():
            return nn.RNN(nn.SimpleCell(case.hidden_size, param_dtype=dtype))

        layers = [nn.Bidirectional(rnn(), rnn()) if case.bidirectional else rnn() for _ in range(case.num_layers)]
        self.net, self.dtype = nn.Sequential([*layers, nn.Dense(2, param_dtype=dtype)] if readout else layers), dtype
        with self.jax.enable_x64(dtype == "float64"):  # its own initializations take seconds to compile
            x = self.jax.numpy.zeros((1, 1, case.input_size), dtype)
            shapes, seeds = self.jax.eval_shape(self.net.init, self.jax.random.key(0), x), itertools.count()
            self.variables = self.jax.tree_util.tree_map(
                lambda a: drawn(*a.shape, seed=next(seeds), dtype=a.dtype), shapes
            )

    def state(self):
        params = self.variables["params"]
        return convert.from_flax([params[f"layers_{k}"] for k in range(len(params))])

    def load(self, state):
        trees = {f"layers_{k}": tree for k, tree in enumerate(convert.to_flax(state))}
        shapes = (self.jax.tree_util.tree_map(np.shape, tree) for tree in (trees, self.variables["params"]))
        assert next(shapes) == next(shapes)
        self.variables = {"params": trees}

    def run(self, x):
        with self.jax.enable_x64(self.dtype == "float64"):
            return np.asarray(self.net.apply(self.variables, x.swapaxes(0, 1))).swapaxes(0, 1)


class NNX(Framework):
    of_float32, of_float64 = COMPILED

    def __init__(self, case, dtype, *, readout=False):
        self.nnx = nnx = pytest.importorskip("flax.nnx")
        self.jax = pytest.importorskip("jax")
        self.dtype, seeds = dtype, itertools.count()

        def init(_, shape, dtype, **__):  # its own take seconds to compile
            return self.jax.numpy.asarray(drawn(*shape, seed=next(seeds), dtype=dtype))

        options = {"dtype": dtype, "param_dtype": dtype, "kernel_init": init, "bias_init": init, "rngs": nnx.Rngs(0)}

        def rnn(n_inputs):
            return nnx.RNN(nnx.SimpleCell(n_inputs, case.hidden_size, recurrent_kernel_init=init, **options))

        with self.jax.enable_x64(dtype == "float64"):
            layers = [nnx.Bidirectional(rnn(n), rnn(n)) if case.bidirectional else rnn(n) for n in case.layers]
            layers += [nnx.Linear(len(case.directions) * case.hidden_size, 2, **options)] if readout else []
            self.net = nnx.Sequential(*layers)

    def state(self):
        layers = [self.nnx.state(layer) for layer in self.net.layers]
        state = convert.from_flax(layers)
        for form in (
            map(self.nnx.to_pure_dict, layers),
            (self.nnx.state(layer, self.nnx.Param) for layer in self.net.layers),
        ):
            again = convert.from_flax([*form])
            assert all(np.array_equal(again[name], array) for name, array in state.items())
        return state

    def load(self, state):
        for layer, tree in zip(self.net.layers, convert.to_flax(state, nnx=True), strict=True):
            self.nnx.update(layer, tree)

    def run(self, x):
        with self.jax.enable_x64(self.dtype == "float64"):
            return np.asarray(self.net(self.jax.numpy.asarray(x.swapaxes(0, 1)))).swapaxes(0, 1)


class ONNX(Framework):
    of_float64 = ()  # which ONNX Runtime's RNN has not

    def __init__(self, case, dtype):
        self.case, D, H = case, len(case.directions), case.hidden_size
        shapes = [[(D, H, n), (D, H, H), (D, 2 * H)][: 2 + case.bias] for n in case.layers]
        self.layers = [[drawn(*shape, seed=k).astype(dtype) for shape in row] for k, row in enumerate(shapes)]

    def state(self):
        return convert.from_onnx(self.layers)

    def load(self, state):
        self.layers = convert.to_onnx(state)

    def run(self, x):
        onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        helper, nodes, constants = onnx.helper, [], {"shape": np.array([0, 0, -1])}
        direction = "bidirectional" if self.case.bidirectional else "forward"
        for k, arrays in enumerate(self.layers):
            names = [f"{kind}{k}" for kind, array in zip("WRB", arrays, strict=False) if array is not None]
            constants |= dict(zip(names, arrays, strict=False))
            options = {"hidden_size": self.case.hidden_size, "direction": direction}
            nodes.append(helper.make_node("RNN", [f"x{k}", *names], [f"y{k}"], **options))
            nodes.append(helper.make_node("Transpose", [f"y{k}"], [f"t{k}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"t{k}", "shape"], [f"x{k + 1}"]))
        end = f"x{len(self.layers)}"
        infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 3) for name in ("x0", end)]
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = helper.make_graph(nodes, "layers", infos[:1], infos[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x0": x})[0]


class Columns(Framework):
    """A script as min-char-rnn is: columns, a step at a time."""

    def __init__(self, case, dtype, *, readout=False):
        H, n_units = case.hidden_size, len(case.directions) * case.hidden_size
        shapes = [(H, H), (H, 1)][: 1 + case.bias]
        layers = [
            [tuple(drawn(*s, seed=9 * k + d).astype(dtype) for s in [(H, n), *shapes]) for d in case.directions]
            for k, n in enumerate(case.layers)
        ]
        self.case, self.layers = case, [cells if case.bidirectional else cells[0] for cells in layers]
        self.readout = (drawn(2, n_units).astype(dtype), drawn(2, 1).astype(dtype)) if readout else None

    def state(self):
        return convert.from_numpy(self.layers, self.readout)

    def load(self, state):
        layers, readout = convert.to_numpy(state)
        shapes = [np.shape(a) for cells in layers for cell in ([cells], cells)[self.case.bidirectional] for a in cell]
        own = [np.shape(a) for cells in self.layers for cell in ([cells], cells)[self.case.bidirectional] for a in cell]
        assert shapes == own
        self.layers, self.readout = layers, readout

    def run(self, x):
        return np.stack([self.row(x[:, b]) for b in range(x.shape[1])], axis=1)

    def row(self, x):
        inputs = [x_t[:, None] for x_t in x]
        for cells in self.layers:
            both = cells if self.case.bidirectional else [cells]
            outputs = [self.direction(inputs[:: 1 - 2 * d], *cell)[:: 1 - 2 * d] for d, cell in enumerate(both)]
            inputs = [np.vstack(parts) for parts in zip(*outputs, strict=True)]
        if self.readout is not None:
            Why, by = self.readout
            inputs = [Why @ h + by for h in inputs]
        return np.array(inputs)[..., 0]

    def direction(self, inputs, Wxh, Whh, bh=None):
        bh = np.zeros((len(Whh), 1), Whh.dtype) if bh is None else bh
        h, outputs = np.zeros_like(bh), []
        for x in inputs:
            h = np.tanh(Wxh @ x + Whh @ h + bh)
            outputs.append(h)
        return outputs


class Rows(Framework):
    """A script with batches of rows."""

    def __init__(self, case, dtype, *, readout=False):
        self.case, self.dtype, self.has_readout = case, dtype, readout
        turned = Columns(case, dtype, readout=readout)

        def transposed(cell):
            return tuple(array.T for array in cell)  # biases (1, H)

        self.layers = [[*map(transposed, c)] if case.bidirectional else transposed(c) for c in turned.layers]
        self.readout = transposed(turned.readout) if readout else None

    def state(self):
        return convert.from_numpy(self.layers, self.readout, rows=True)

    def load(self, state):
        self.layers, self.readout = convert.to_numpy(state, rows=True)

    def run(self, x):
        for cells in self.layers:
            outputs = []
            for d, (Wx, Wh, *b) in enumerate(cells if self.case.bidirectional else [cells]):
                h, steps = np.zeros((x.shape[1], len(Wh)), self.dtype), []
                for x_t in x[:: 1 - 2 * d]:
                    h = np.tanh(x_t @ Wx + h @ Wh + sum(b))
                    steps.append(h)
                outputs.append(np.array(steps[:: 1 - 2 * d]))
            x = np.concatenate(outputs, axis=2)
        return x if self.readout is None else x @ self.readout[0] + self.readout[1]


FRAMEWORKS = [PyTorch, Keras, Linen, NNX, ONNX, Columns, Rows]
RUNS = [
    pytest.param(framework, case, dtype, id=f"{framework.__name__}-{dtype}-{case_name(case)}")
    for framework in FRAMEWORKS
    for dtype, cases in (("float32", framework.of_float32), ("float64", framework.of_float64))
    for case in cases
]


@pytest.mark.parametrize(("framework", "case", "dtype"), RUNS)
def test_a_framework_computes_the_same(framework, case, dtype):
    """With its weights here, and with ours there."""
    theirs, x = framework(case, dtype), drawn(6, 4, case.input_size).astype(dtype)
    ours, other = case.rnn(dtype, seed=1), case.rnn(dtype, seed=2)
    state = theirs.state()
    assert {array.dtype.name for array in state.values()} == {dtype}
    ours.load_state_dict(state)
    expected = theirs.run(x)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(ours(x)[0], expected, rtol=0, atol=theirs.tolerance[dtype])
    theirs.load(other.state_dict())
    np.testing.assert_allclose(theirs.run(x), other(x)[0], rtol=0, atol=theirs.tolerance[dtype])


@pytest.mark.parametrize("framework", [framework for framework in FRAMEWORKS if framework is not ONNX])
@pytest.mark.parametrize("case", [Case(3, 5, num_layers=2), Case(3, 5, bidirectional=True)], ids=case_name)
def test_a_framework_has_the_same_outputs(framework, case):
    """Of a model with a readout."""
    theirs, x = framework(case, "float32", readout=True), drawn(6, 4, case.input_size).astype("float32")
    sizes = case._replace(input_size=0)._asdict()
    del sizes["input_size"], sizes["bias"]
    ours, other = (
        elman.SequenceModel(elman.Features(case.input_size), elman.Reals(2), **sizes, seed=k) for k in (1, 2)
    )
    ours.load_state_dict(theirs.state())
    rows = x.swapaxes(0, 1)
    np.testing.assert_allclose(ours.predict(rows).swapaxes(0, 1), theirs.run(x), rtol=0, atol=1e-6)
    theirs.load(other.state_dict())
    np.testing.assert_allclose(theirs.run(x), other.predict(rows).swapaxes(0, 1), rtol=0, atol=1e-6)


def test_layers_that_run_backwards():
    """Keras's outputs, and Flax's without keep_order, are in the order that they are computed in."""
    keras, nn = pytest.importorskip("keras"), pytest.importorskip("flax.linen")
    import jax

    ours, x = elman.RNN(3, 5, batch_first=True, reverse=True, seed=0), drawn(4, 6, 3).astype("float32")
    layer = keras.layers.SimpleRNN(5, go_backwards=True, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights(convert.to_keras(ours.state_dict()))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x))[:, ::-1], ours(x)[0], rtol=0, atol=1e-6)
    layer = nn.RNN(nn.SimpleCell(5), reverse=True)
    y = layer.apply({"params": convert.to_flax(ours.state_dict())[0]}, jax.numpy.asarray(x))
    np.testing.assert_allclose(np.asarray(y)[:, ::-1], ours(x)[0], rtol=0, atol=1e-6)


def test_a_residual_cell_is_an_identity_more():
    nn = pytest.importorskip("flax.linen")
    ours, x = elman.RNN(3, 5, batch_first=True, seed=0), drawn(4, 6, 3).astype("float32")
    params = convert.to_flax(ours.state_dict())[0]
    state = convert.from_flax(params)
    state["weight_hh_l0"] += np.eye(5)
    ours.load_state_dict(state)
    y = nn.RNN(nn.SimpleCell(5, residual=True)).apply({"params": params}, x)
    np.testing.assert_allclose(np.asarray(y), ours(x)[0], rtol=0, atol=1e-6)


# Without any of them


def states() -> list[Any]:
    found = [
        pytest.param(case.rnn(dtype, seed=3).state_dict(), case.bidirectional, id=f"{dtype}-{case_name(case)}")
        for case in CASES
        for dtype in ("float32", "float64")
    ]
    for both in (False, True):
        model = elman.SequenceModel(
            elman.Tokens(3), elman.Categories(1 + both), hidden_size=1 + both, bidirectional=both
        )
        found.append(pytest.param(model.state_dict(), both, id=f"readout-{1 + both}"))
    return found


def turns(state: dict[str, Any], both: bool) -> dict[str, Any]:
    """There and back, in each form that can hold it."""
    with_readout = ("rnn", "out") if "weight_ho" in state else ("rnn", None)
    found = {
        "PyTorch": convert.from_pytorch(convert.to_pytorch(state, *with_readout), *with_readout),
        "Keras": convert.from_keras(convert.to_keras(state), bidirectional=both),
        "columns": convert.from_numpy(*convert.to_numpy(state)),
        "rows": convert.from_numpy(*convert.to_numpy(state, rows=True), rows=True),
    }
    if any(name.startswith("bias_l") for name in state):
        found |= {f"Flax {nnx}": convert.from_flax(convert.to_flax(state, nnx=nnx)) for nnx in (False, True)}
    if "weight_ho" not in state:
        found["ONNX"] = convert.from_onnx(convert.to_onnx(state))
    return found


@pytest.mark.parametrize(("state", "both"), states())
def test_there_and_back_are_the_same_bits(state, both):
    for name, again in turns(state, both).items():
        assert list(again) == list(state), name
        for key, array in state.items():
            assert again[key].dtype == array.dtype, name
            np.testing.assert_array_equal(again[key], array, strict=True, err_msg=name)


def test_results_are_copies():
    state = Case(3, 5).rnn("float32", seed=0).parameters()
    (kernel, *_), ((W, *_),) = convert.to_keras(state), convert.to_onnx(state)
    [(Wxh, *_)], _ = convert.to_numpy(state)
    back = convert.from_numpy([(Wxh, np.eye(5))])["weight_ih_l0"]
    arrays = [state["weight_ih_l0"], kernel, W, Wxh, convert.to_pytorch(state)["weight_ih_l0"], back]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays, 2))
    arrays += [
        Wxh,
        convert.to_numpy(state, rows=True)[0][0][1],
        convert.from_flax(convert.to_flax(state))["weight_hh_l0"],
    ]
    assert all(array.flags.writeable and array.flags.c_contiguous for array in arrays[1:])


def test_biases_that_some_have():
    kernels = [drawn(3, 5), drawn(5, 5), drawn(5, 5, seed=1), drawn(5, 5, seed=2), drawn(5)]
    state = convert.from_keras([*kernels, drawn(5, 2)])
    assert list(state)[2::3] == ["bias_l0", "bias_l1"]
    assert not state["bias_l0"].any()
    np.testing.assert_array_equal(state["bias_l1"], drawn(5))
    np.testing.assert_array_equal(state["bias_o"], np.zeros(2))


def test_models_always_have_biases():
    rng = np.random.default_rng(0)
    model = elman.SequenceModel(elman.Features(3), elman.Reals(2), hidden_size=5)
    model.load_state_dict(convert.from_keras([rng.normal(size=shape) for shape in ((3, 5), (5, 5), (5, 2))]))
    assert not model.parameters()["bias_l0"].any()
    shapes = {"rnn.weight_ih_l0": (5, 3), "rnn.weight_hh_l0": (5, 5), "out.weight": (2, 5)}
    net = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    model.load_state_dict(convert.from_pytorch(net, readout="out"))
    np.testing.assert_array_equal(model.parameters()["weight_ho"], net["out.weight"].astype(np.float32))


def test_weights_as_they_act():
    rnn = elman.RNN(3, 5, excitatory=0.6, mask_hh=~np.eye(5, dtype=bool), seed=0)
    other = elman.RNN(3, 5)
    other.load_state_dict(convert.from_keras(convert.to_keras(rnn.effective_weights())))
    x = drawn(6, 4, 3)
    np.testing.assert_array_equal(other(x)[0], rnn(x)[0])


def test_the_one_rnn_of_a_module():
    state = {
        f"a.{name}": value for name, value in convert.to_pytorch(Case(3, 5).rnn("float32", 0).state_dict()).items()
    }
    two = state | {name.replace("a.", "b."): value + 1 for name, value in state.items()}
    np.testing.assert_array_equal(convert.from_pytorch(two, "b")["weight_ih_l0"], state["a.weight_ih_l0"] + 1)
    with pytest.raises(ValueError, match=r"layers must be the name of one nn.RNN, of which state has \['a', 'b'\]"):
        convert.from_pytorch(two)


STATE = Case(3, 5).rnn("float64", seed=0).state_dict()
SIMPLE = [drawn(3, 5), drawn(5, 5), drawn(5)]
GRU = [drawn(3, 15), drawn(5, 15), drawn(2, 15)]
CELL = {"i": {"kernel": SIMPLE[0], "bias": SIMPLE[2]}, "h": {"kernel": SIMPLE[1]}}
ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: convert.from_keras(3), "weights must be a list of arrays, as get_weights() returns it, got 3"),
    (lambda: convert.from_keras([]), "weights must be a list of arrays, as get_weights() returns it, got none"),
    (lambda: convert.from_keras(SIMPLE[:1]), "weights must be those of SimpleRNN layers, and of a Dense behind them"),
    (
        lambda: convert.from_keras(SIMPLE, bidirectional=True),
        "weights must be those of Bidirectional(SimpleRNN) layers",
    ),
    (lambda: convert.from_keras(SIMPLE, bidirectional=1), "bidirectional must be True or False, got 1"),
    (lambda: convert.from_keras([drawn(3, 4), *SIMPLE[1:]]), "weights[0] must have shape (I, 5), got (3, 4)"),
    (lambda: convert.from_keras([*SIMPLE[:2], drawn(4)]), "weights[2] must have shape (5,), got (4,)"),
    (lambda: convert.from_keras([*SIMPLE, *SIMPLE]), "weights[3] must have shape (5, 5), got (3, 5)"),
    (lambda: convert.from_keras([*SIMPLE, drawn(4, 2), drawn(2)]), "weights[3] must have shape (5, O), got (4, 2)"),
    (lambda: convert.from_keras([*SIMPLE, drawn(5, 2), drawn(3)]), "weights[4] must have shape (2,), got (3,)"),
    (
        lambda: convert.from_keras([*SIMPLE, *[drawn(5)] * 4]),
        "weights[5] must not be there: elman has nothing behind a",
    ),
    (lambda: convert.from_keras([*SIMPLE, drawn(5)]), "weights[3] must have shape (5, O), got (5,)"),
    (
        lambda: convert.from_keras([drawn(9, 4), drawn(4, 5), drawn(5, 5)]),
        "weights[0] must be a SimpleRNN's kernel, got what an Embedding has: leave it out",
    ),
    (lambda: convert.from_keras([drawn(3, 5), drawn(5, 7)]), "weights[1] must have shape (H, H), got (5, 7)"),
    (
        lambda: convert.from_keras(GRU),
        "weights[1] must have shape (H, H), got (5, 15): a GRU's, and elman has no gates",
    ),
    (
        lambda: convert.from_keras([drawn(3, 20), drawn(5, 20), drawn(20)]),
        "weights[1] must have shape (H, H), got (5, 20): an LSTM's",
    ),
    (
        lambda: convert.from_keras([np.ones((3, 5), int), *SIMPLE[1:]]),
        "weights[0] must hold float32 or float64, got int",
    ),
    (
        lambda: convert.from_keras([drawn(0, 5), *SIMPLE[1:]]),
        "weights[0] must not have an empty axis, got shape (0, 5)",
    ),
    (lambda: convert.from_keras([[[1.0], [1.0, 2.0]], *SIMPLE[1:]]), "weights[0] must be an array, got"),
    (lambda: convert.from_flax(3), "layers must be a tree or a list of trees, one for each layer, got 3"),
    (lambda: convert.from_flax([3]), "layers[0] must be a dict from names to arrays, got 3"),
    (lambda: convert.from_flax({"cell": {"i": CELL["i"]}}), "layers['cell'] must have the keys 'i' and 'h' (linen) or"),
    (lambda: convert.from_flax({"cell": {"hn": 1, "in": 2}}), "no GRU or LSTM among them"),
    (lambda: convert.from_flax([CELL, {**CELL, "h": {}}]), "layers[1]['h'] must have the names ['kernel'], got []"),
    (lambda: convert.from_flax({**CELL, "i": {"x": 1}}), "layers['i'] must have the names ['bias', 'kernel'], got"),
    (
        lambda: convert.from_flax({"params": {"cell": {**CELL, "h": {"kernel": GRU[1]}}}}),
        "layers['params']['cell']['h']['kernel'] must have shape (H, H), got (5, 15): a GRU's",
    ),
    (
        lambda: convert.from_flax([CELL, {"forward_rnn": CELL, "backward_rnn": CELL}]),
        "layers must be one or more, all of them in one direction or all in both",
    ),
    (lambda: convert.from_flax([{"kernel": drawn(5, 2)}]), "layers must be one or more"),
    (
        lambda: convert.from_flax([CELL, {"kernel": drawn(4, 2)}]),
        "layers[1]['kernel'] must have shape (5, O), got (4, 2)",
    ),
    (
        lambda: convert.from_onnx(SIMPLE),
        "layers[0] must be (W, R, B) or (W, R), got an array of float64 and shape (3, 5)",
    ),
    (lambda: convert.from_onnx([SIMPLE[:1]]), "layers[0] must be (W, R, B) or (W, R), got 1 items"),
    (lambda: convert.from_onnx([SIMPLE]), "layers[0][0] must have shape (D, H, I), D = 1 or 2, got (3, 5)"),
    (
        lambda: convert.from_onnx([(drawn(1, 5, 3), drawn(2, 5, 5))]),
        "layers[0][1] must have shape (D, H, H), D = 1 or 2",
    ),
    (
        lambda: convert.from_onnx([(drawn(3, 5, 3), drawn(3, 5, 5))]),
        "layers[0][0] must have shape (D, H, I), D = 1 or 2",
    ),
    (
        lambda: convert.from_onnx([(drawn(1, 5, 3), drawn(1, 5, 5), drawn(1, 5))]),
        "layers[0][2][0] must have shape (2·H,), got (5,)",
    ),
    (
        lambda: convert.from_onnx([(drawn(1, 5, 3), drawn(1, 5, 5), drawn(1, 6))]),
        "layers[0][2][0] must have shape (5,), got (3,)",
    ),
    (
        lambda: convert.from_onnx([(drawn(1, 20, 3), drawn(1, 20, 5))]),
        "layers[0][1][0] must have shape (H, H), got (20, 5): an LSTM's",
    ),
    (
        lambda: convert.from_numpy(SIMPLE),
        "layers[0] must be (Wxh, Whh, bh) or (Wxh, Whh), or a pair of these, got an arr",
    ),
    (lambda: convert.from_numpy([SIMPLE]), "layers[0][0] must have shape (5, I), got (3, 5)"),
    (lambda: convert.from_numpy([(SIMPLE,)], rows=True), "layers[0] must be a pair, got 1 items"),
    (
        lambda: convert.from_numpy([(SIMPLE, [drawn(4, 5), *SIMPLE[1:]])], rows=True),
        "layers[0][1][0] must have shape (3, 5), got (4, 5)",
    ),
    (
        lambda: convert.from_numpy([(*SIMPLE[:2], drawn(5, 2))], rows=True),
        "layers[0][2] must have shape (5,), got (5, 2)",
    ),
    (lambda: convert.from_numpy([SIMPLE], 3, rows=True), "readout must be (Why, by) or (Why,), got 3"),
    (lambda: convert.from_numpy([SIMPLE], (drawn(2, 5),), rows=True), "readout[0] must have shape (5, O), got (2, 5)"),
    (lambda: convert.from_pytorch(3), "state must be a dict from names to arrays, got 3"),
    (lambda: convert.from_pytorch(STATE, 3), "layers must be a str, got 3"),
    (lambda: convert.from_pytorch(STATE, "rnn"), "layers must be the name of an nn.RNN in state, got 'rnn' beside"),
    (
        lambda: convert.from_pytorch(STATE, readout="out"),
        "readout must be the name of an nn.Linear in state, got 'out'",
    ),
    (
        lambda: convert.from_pytorch({**STATE, "weight_hh_l0": GRU[1].T}),
        "weight_hh_l0 must have shape (H, H), got (15, 5): a GRU's, and elman has no gates",
    ),
    (lambda: convert.to_keras(3), "state must be a dict from names to arrays, got 3"),
    (lambda: convert.to_keras({}), "state must have the keys weight_ih_l0 and weight_hh_l0, got []"),
    (lambda: convert.to_keras(STATE | {"leak_l0": drawn(5)}), "missing [], unexpected ['leak_l0']"),
    (
        lambda: convert.to_keras(STATE | {"weight_hh_l1": drawn(5, 5)}),
        "missing ['weight_ih_l1', 'bias_l1'], unexpected []",
    ),
    (lambda: convert.to_keras(STATE | {"weight_ho": drawn(2, 4)}), "weight_ho must have shape (O, 5), got (2, 4)"),
    (lambda: convert.to_keras(STATE | {"weight_ho": drawn(2, 5)}), "missing ['bias_o'], unexpected []"),
    (lambda: convert.to_keras(STATE | {"bias_l0": np.full(5, np.nan)}), "bias_l0 must be finite, got nan at [0]"),
    (lambda: convert.to_flax(STATE, nnx="yes"), "nnx must be True or False, got 'yes'"),
    (
        lambda: convert.to_onnx(STATE | {"weight_ho": drawn(2, 5), "bias_o": drawn(2)}),
        "state must be that of layers alone, as model.rnn.state_dict() is, got weight_ho and bias_o",
    ),
    (lambda: convert.to_numpy(STATE, rows=None), "rows must be True or False, got None"),
    (
        lambda: convert.to_pytorch(STATE | {"weight_ho": drawn(2, 5), "bias_o": drawn(2)}, "rnn"),
        "readout must be the name of an nn.Linear, as state has weight_ho, got None",
    ),
    (
        lambda: convert.to_pytorch(STATE | {"embedding": drawn(9, 3)}, "rnn"),
        "embedding must be the name of an nn.Embedding, as state has embedding, got None",
    ),
    (lambda: convert.to_pytorch(STATE | {"embedding": drawn(9)}, "rnn", embedding="e"), "embedding must have shape"),
    (
        lambda: convert.from_pytorch(convert.to_pytorch(STATE), embedding="e"),
        "embedding must be the name of an nn.Embedding in state, got 'e' beside",
    ),
    (
        lambda: convert.from_pytorch({**convert.to_pytorch(STATE), "e.weight": drawn(9, 4)}, embedding="e"),
        "e.weight must have shape (n, 3), got (9, 4)",
    ),
    (lambda: convert.to_keras(STATE | {"embedding": drawn(9, 3)}), "unexpected ['embedding']"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()
