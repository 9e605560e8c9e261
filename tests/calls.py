"""The calls that the fuzzer (fuzz.py) makes: a case on one backend, and the scenarios, one function for each kind."""

import copy
import json
import math
import pickle
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

import elman

from .draws import NUMBERS, SMALL, Draw, content_of

LEGAL = (TypeError, ValueError, FloatingPointError)
DISCRETE = (
    "r2",
    "accuracy",
    "exact",
    "saturated",
    "f1",
    "balanced_accuracy",
    "coverage",
)  # what a rounding may change by much
FORWARD = {"bidirectional": False, "reverse": False}
BOUNDED = ("tanh", "sigmoid", "retanh")  # activations
CONSTRAINTS = ("signs", "excitatory", "mask_hh", "mask_ih", "mask_ho", "readout_from")
REFUSED = type("Refused", (), {"__repr__": lambda _: "REFUSED"})()


class Stopped(Exception):
    """Raised by a callback in the middle of a training."""


class Came(NamedTuple):
    """What a call came to, and how other backends may differ."""

    kind: str
    outcome: str  # "returned", or the name of an error
    why: str  # of an error
    shown: Any  # returns that and the arguments
    values: list[tuple[str, np.ndarray]]  # what it returned and what it may have changed
    is_wild: bool
    is_huge: bool
    bound: float


class Case(Draw):
    """The calls of a case on one backend, and what they come to."""

    def __init__(self, seed: int, number: int, backend: str, directory: Path, say: Any) -> None:
        super().__init__(seed, number, directory)
        self.number, self.backend, self.say = number, backend, say
        self.trace: list[Came] = []
        self.live: Any = dict  # returns arrays that a call that is refused must not change
        self.probe: Any = None  # a good call on the object, whose result must stay what it was
        self.is_judged = True  # whether errors must be LEGAL, and backends alike

    def finding(self, kind: str, what: str, detail: str = "") -> None:
        self.say("finding", self.number, self.backend, kind, what, detail[:1500])

    def watch(self, live: Any, probe: Any = None) -> None:
        self.live, self.probe = live, probe

    def call(self, kind: str, function: Any, *args: Any, spoil: float = 0.25, **kwargs: Any) -> Any:
        """The result, or REFUSED; now and then one argument is spoilt."""
        is_spoilt, name = bool(args or kwargs) and self.chance(spoil), None
        if is_spoilt:
            name, args, kwargs = self._with_one_spoilt(args, kwargs)
        before, known = flat(self.live(), is_copied=True), self._probed(kind) if is_spoilt else []
        outcome, why, result = self._outcome(kind, function, args, kwargs, is_spoilt)
        came = Came(kind, outcome, why, lambda: f"{why}; {described(args, kwargs)}", [], False, False, 0.0)
        if any(not np.array_equal(content_of(memory, view), content) for memory, content, view in self.kept):
            self.finding(kind, "changed an argument", came.shown())
            self.keep()
        after = flat(self.live(), is_copied=True)
        is_late = self.is_huge and "must be finite" in why  # what a learning rate came to, when it is to be saved
        named = *CONSTRAINTS, "spectral_radius"  # which masks may leave nothing to scale for
        if outcome in ("TypeError", "ValueError") and name in CONSTRAINTS and not any(each in why for each in named):
            self.finding(kind, f"{outcome} that does not name {name}", came.shown())
        if outcome in ("TypeError", "ValueError", "AttributeError") and not is_late:
            if [(n, v.tobytes()) for n, v in before] != [(n, v.tobytes()) for n, v in after]:
                self.finding(kind, f"{outcome}, but something was changed", came.shown())
            elif is_spoilt and first_difference(self._probed(kind), known, 1e-5):
                self.finding(kind, f"{outcome}, and after it the object is another", came.shown())
        values = flat(result, is_copied=True) + after if outcome == "returned" else []
        if not self.is_wild and not all(np.isfinite(v).all() for _, v in values if v.dtype.kind == "f"):
            self.finding(kind, "not finite", came.shown())
        bound = 2000 * float(np.finfo(self.dtype).eps) * self.looseness + self.slack
        is_huge = self.is_huge or (self.is_wild and self.is_tiny)
        self.trace.append(came._replace(values=values, is_wild=self.is_wild, is_huge=is_huge, bound=bound))
        return result

    def _with_one_spoilt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        name = self.pick(*range(len(args)), *kwargs)
        if isinstance(name, int):
            return name, (*args[:name], self.spoil(args[name], ""), *args[name + 1 :]), kwargs
        return name, args, kwargs | {name: self.spoil(kwargs[name], name)}

    def _outcome(self, kind: str, function: Any, args: Any, kwargs: Any, is_spoilt: bool) -> tuple[str, str, Any]:
        optimizer = kwargs.get("optimizer")
        steps = getattr(optimizer, "steps", 0)
        self.say("call", self.number, self.backend, kind, detail=lambda: described(args, kwargs))
        start, outcome, result, why = time.perf_counter(), "returned", REFUSED, ""
        legal = (*LEGAL, AttributeError) if function is setattr else LEGAL if self.is_judged else (Exception,)
        try:
            with warnings.catch_warnings():
                is_sane = not (is_spoilt or self.is_wild or self.backend == "numpy")  # which reads beyond lengths
                warnings.simplefilter("error" if is_sane else "ignore")
                warnings.filterwarnings("ignore", "invalid value encountered in matmul")  # OpenBLAS: beside a matrix
                result = function(*args, **kwargs)
        except (*legal, Stopped) as error:
            outcome, why = type(error).__name__, str(error)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[1:] or [traceback.FrameSummary("?", 0, "")]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            outcome, why = type(error).__name__, str(error)
            self.finding(kind, f"{outcome} at {place}", f"{why}; {described(args, kwargs)}")
        self.say("came", kind, self.backend, time.perf_counter() - start, outcome, detail=lambda: why)
        if isinstance(optimizer, elman.Adagrad | elman.Adam):  # for which roundings are gradients like all others
            self.slack += (30 if self.dtype == "f4" else 1e-6) * optimizer.lr * abs(optimizer.steps - steps)
        return outcome, why, result

    def _probed(self, kind: str) -> list[tuple[str, np.ndarray]]:
        """What the probe comes to; its error, if that is a legal one."""
        with warnings.catch_warnings(action="ignore"):
            try:
                return flat(self.probe()) if self.probe else []
            except LEGAL as error:
                return [(type(error).__name__, np.zeros(0))]
            except Exception as error:
                self.finding(kind, f"the object is unusable: {error!r}")
                return [(type(error).__name__, np.zeros(0))]

    def same(self, kind: str, one: Any, other: Any, what: str) -> None:
        """Two results that must be equal, or both errors."""
        difference = first_difference(flat(one), flat(other), 1e-5)
        if difference or (one is REFUSED) != (other is REFUSED):
            self.finding(kind, what, difference)


def flat(value: Any, name: str = "", *, is_copied: bool = False) -> list[tuple[str, np.ndarray]]:
    """The arrays and numbers in a result, with their names."""
    if isinstance(value, np.ndarray | np.generic | float | int):
        return [(name, np.array(value) if is_copied else np.asarray(value))]
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, list | tuple):
        pairs = zip(getattr(value, "_fields", range(len(value))), value, strict=True)
    else:
        return []
    return [item for key, part in pairs for item in flat(part, f"{name}.{key}", is_copied=is_copied)]


def first_difference(values: Any, others: Any, bound: float, is_wild: bool = False, is_exact: bool = True) -> str:
    """How results differ: in names, shapes, dtypes, NaN, or by more than the bound (if `is_wild`, by no bound)."""
    if [(n, v.shape, v.dtype) for n, v in values] != [(n, v.shape, v.dtype) for n, v in others]:
        return "names, shapes or dtypes"
    for (name, value), (_, other) in zip(values, others, strict=True):
        is_real = value.dtype.kind == "f"
        is_discrete = not is_real or name.endswith(DISCRETE)
        if value.size == 0 or value.dtype.kind not in "fiub" or (is_discrete and not is_exact):
            continue
        with np.errstate(all="ignore"):
            largest = float(np.abs(other[np.isfinite(other)]).max(initial=0.0)) if is_real else 0.0
            bad = ~np.isclose(value, other, rtol=0, atol=bound * (1 + largest), equal_nan=True)
        if is_wild and is_real:
            bad &= np.isnan(value) != np.isnan(other)
        for where in np.argwhere(bad)[:1].tolist():
            near = f"bound {bound * (1 + largest):.2g}; {bad.sum()} of {bad.size} differ"
            return f"{name}{where} is {value[tuple(where)]}, not {other[tuple(where)]} ({near})"
    return ""


def described(args: Any, kwargs: Any) -> str:
    def short(value: Any) -> str:
        if isinstance(value, np.ndarray):
            shown = f" {value.tolist()}" if value.size <= 4 else ""
            return f"{value.dtype.str}{list(value.shape)} strides {list(value.strides)}{shown}"
        if isinstance(value, list | tuple) and len(str(value)) > 60:
            return f"{type(value).__name__} of {len(value)}: [{short(value[0])}, ...]"
        try:
            shown = repr(value)
        except Exception as error:  # of an object that is spoilt
            shown = f"an object at odds with itself: {error}"
        return type(value).__name__ if " at 0x" in shown else shown[:80]

    return ", ".join([*map(short, args), *(f"{name}={short(value)}" for name, value in kwargs.items())])


# The layer


def layer(c: Case) -> None:
    T, B, I, H = c.sizes()  # noqa: E741 - the contract's names
    options = {
        "input_size": I,
        "hidden_size": H,
        "num_layers": c.pick(1, 1, 2, 3),
        "bias": c.chance(0.8),
        "batch_first": c.chance(0.3),
        **layer_options(c, H),
    }
    options |= constraints(c, options, I)
    rnn = c.call("RNN", elman.RNN, **options, spoil=0.1)
    if rnn is REFUSED:
        return
    good = c.rng.standard_normal((5, 2, rnn.input_size)).astype(c.dtype)
    c.watch(rnn.parameters, lambda: rnn(good))
    for _ in range(c.pick(1, 2, 3, 4)):
        T, B = c.pick((T, B), (T, B), (1, B), (T, 1), (c.size(17), c.size(9)))
        kinds = forward, forward, backward, backward, forward_mode, last_state, step, new_weights, copied, fixed_points
        c.pick(*kinds)(c, rnn, T, B)


def layer_options(c: Case, n_units: int) -> dict[str, Any]:
    nonlinearity = c.pick("tanh", "tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power")
    if nonlinearity == "power":  # whose states explode
        c.is_wild = c.is_huge = True
    if nonlinearity in ("relu", "retanh"):  # for which a rounding next to 0 is a gradient more or less
        c.looseness, c.least = 300 if c.dtype == "f4" else 1, ()
    leak = c.pick(0.2, 1.0, c.rng.uniform(0.05, 0.95, n_units)) if c.chance(0.3) else 1.0
    form = c.pick("rate", "potential") if c.chance(0.3) else "rate"
    direction = c.pick(*["forward"] * 5, "reverse", *["both"] * 3)
    return {
        "nonlinearity": nonlinearity,
        "leak": leak,
        "form": form,
        "noise": c.pick(0.0, 0.1) if nonlinearity not in ("relu", "retanh") and c.chance(0.3) else 0.0,
        "learn_leak": bool(np.all(np.asarray(leak) < 1)) and c.chance(0.3),
        "bidirectional": direction == "both",
        "reverse": direction == "reverse",
        "dropout": c.pick(0.0, 0.0, 0.3, 1.0),
        "recurrent_dropout": c.pick(0.0, 0.0, 0.3) if nonlinearity in BOUNDED else 0.0,  # or states explode
        "initialization": c.pick("uniform", "uniform", "identity", "orthogonal" if n_units < 100 else "uniform"),
        "spectral_radius": c.pick(None, None, 0.9 if n_units < 100 else None),
        "dtype": {"f4": "float32", "f8": "float64"}[c.dtype],
        "seed": c.number,
    }


def is_forward(rnn: Any) -> bool:
    """Whether states can be carried over."""
    return not (rnn.bidirectional or rnn.reverse)


def constraints(c: Case, options: dict[str, Any], n_inputs: int) -> dict[str, Any]:
    """Signs and masks of a layer with the options, now and then."""
    if c.chance(0.7):
        return {}
    n_layers, n_units, density = options["num_layers"], options["hidden_size"], c.pick(0.0, 0.3, 0.8)

    def mask(*shape: int) -> Any:
        return c.lay(c.rng.random(shape) < density)

    found: dict[str, Any] = {}
    match c.pick("signs", "excitatory", "neither"):
        case "signs":
            shape = c.pick((n_units,), (n_layers, n_units))
            found["signs"] = c.lay(np.where(c.rng.random(shape) < 0.7, 1, -1))
        case "excitatory":
            found["excitatory"] = c.pick(0.0, 0.5, 0.8, 1.0)
    if found:
        found["initialization"] = "uniform"
    if c.chance(0.5):
        first = mask(n_units, n_units)
        found["mask_hh"] = c.pick(first, [*[None] * (n_layers - 1), first])
    if c.chance(0.5):
        first = mask(n_units, n_inputs)
        found["mask_ih"] = c.pick(first, [first, *[None] * (n_layers - 1)])
    return found


def arguments(c: Case, rnn: Any, T: int, B: int) -> tuple[Any, Any, Any, str]:
    """x, h_0, lengths and the form of the first."""
    form, n_states = (
        c.pick("padded", "padded", "single", "list"),
        len(rnn.parameters()) // (2 + rnn.bias + rnn.learn_leak),
    )
    lengths = None
    if form == "list":
        x: Any = [c.lay(c.real(c.pick(T, c.rng.integers(T + 1)), rnn.input_size)) for _ in range(min(B, 9))]
        B = len(x)
        x = x if all(isinstance(item, np.ndarray) for item in x) else [np.array(item, c.dtype) for item in x]
    elif form == "single":
        x = c.lay(c.real(T, rnn.input_size))
    else:
        x, lengths = c.lay(c.real(*((B, T) if rnn.batch_first else (T, B)), rnn.input_size)), c.lengths(T, B)
    h_0 = c.lay(c.real(n_states, *(() if form == "single" else (B,)), rnn.hidden_size))
    return x, c.pick(None, h_0), lengths, form


def resets_like(c: Case, rnn: Any, x: Any) -> dict[str, Any]:
    """Resets in the form of x, now and then."""
    if not is_forward(rnn) or c.chance(0.6):
        return {}
    density = c.pick(0.0, 0.1, 0.5, 1.0)
    if isinstance(x, list):
        return {"resets": [c.lay(c.rng.random(len(item)) < density) for item in x]}
    return {"resets": c.lay(c.rng.random(np.shape(x)[:-1]) < density)}


def forward(c: Case, rnn: Any, T: int, B: int) -> None:
    x, h_0, lengths, _ = arguments(c, rnn, T, B)
    c.call("RNN()", rnn, x, h_0, lengths=lengths, noise_seed=c.pick(None, 3), **resets_like(c, rnn, x))


def last_state(c: Case, rnn: Any, T: int, B: int) -> None:
    x, h_0, lengths, _ = arguments(c, rnn, T, B)
    if c.chance(0.5):
        c.call("last_state", rnn.last_state, x, h_0, lengths=lengths, spoil=0.5)
    own = {"noise_seed": c.pick(None, 5), **resets_like(c, rnn, x)}
    last = c.call("last_state", rnn.last_state, x, h_0, lengths=lengths, spoil=0, **own)
    results = c.call("RNN()", rnn, x, h_0, lengths=lengths, spoil=0, **own)
    c.same("last_state", last, results if results is REFUSED else results[1], "last_state is not h_n")


def backward(c: Case, rnn: Any, T: int, B: int) -> None:
    """The pullback twice: what a caller does to lengths and states in between is nothing to it."""
    x, h_0, lengths, _ = arguments(c, rnn, T, B)
    if lengths is not None and c.chance(0.5):
        lengths = np.array(lengths, np.int64)
    own = resets_like(c, rnn, x)
    results = c.call("vjp", rnn.vjp, x, h_0, lengths=lengths, noise_seed=c.pick(None, 7), **own)
    if results is REFUSED:
        return
    y, h_n, pullback = results
    d_y: Any = [c.lay(c.real(*item.shape)) for item in y] if isinstance(y, list) else c.lay(c.real(*y.shape))
    d_y, d_h_n = c.pick((d_y, None), (d_y, c.lay(c.real(*h_n.shape))), (None, c.lay(c.real(*h_n.shape))))
    input_grad = c.chance(0.7)
    if c.chance(0.2):
        c.call("pullback", pullback, d_y, d_h_n, input_grad=input_grad, spoil=1)
    before = c.call("pullback", pullback, d_y, d_h_n, input_grad=input_grad, spoil=0)
    c.change(lengths, 0, 1, T, T + 1, -1, 10**8, 2**62, 100)
    c.change(h_0, math.nan, 0.5)
    after = c.call("pullback", pullback, d_y, d_h_n, input_grad=input_grad, spoil=0)
    c.same("pullback", before, after, "the second pullback is another (lengths or h_0 were overwritten in between)")


def forward_mode(c: Case, rnn: Any, T: int, B: int) -> None:
    x, h_0, lengths, form = arguments(c, rnn, T, B)
    K, rows = c.pick(1, 1, 2, 3), () if form == "single" else (len(x),) if form == "list" else (np.shape(x)[1],)
    rows = (np.shape(x)[0],) if form == "padded" and rnn.batch_first else rows
    d_x = [c.real(K, *item.shape) for item in x] if form == "list" else c.lay(c.real(K, *np.shape(x)))
    d_h_0 = c.lay(c.real(K, rnn.num_layers * (1 + rnn.bidirectional), *rows, rnn.hidden_size))
    d_params = {name: c.lay(c.real(K, *one.shape)) for name, one in rnn.parameters().items() if c.chance(0.7)}
    moves = {"d_h_0": c.pick(None, d_h_0), "d_params": c.pick(None, d_params)}
    own = {"lengths": lengths, "noise_seed": c.pick(None, 3), "last_only": c.chance(0.3)}
    c.call("jvp", rnn.jvp, x, c.pick(None, d_x, d_x), h_0, **moves, **own)


def fixed_points(c: Case, rnn: Any, T: int, B: int) -> None:  # noqa: ARG001
    """From few starts, in few steps."""
    if rnn.hidden_size > 33:
        return
    x, start = c.lay(c.real(rnn.input_size)), c.lay(c.real(*c.pick((), (B,)), rnn.hidden_size))
    options = {"n": c.pick(None, 1, 5), "noise": c.pick(0.0, 0.1), "tolerance": c.pick(1e-20, 1e-3)}
    options |= {"max_iterations": c.pick(1, 5, 20), "outlier_scale": c.pick(None, 10.0), "seed": c.number}
    found = c.call("fixed_points", elman.fixed_points, rnn, x, start, **options)
    if found is not REFUSED:
        c.call("repr", repr, found, spoil=0)


def step(c: Case, rnn: Any, T: int, B: int) -> None:  # noqa: ARG001
    x_t, h = c.real(*c.pick((), (B,)), rnn.input_size), None
    for _ in range(c.pick(1, 3)):
        results = c.call("step", rnn.step, c.lay(x_t), h)
        if results is REFUSED:
            return
        h = c.lay(results[1])


def new_weights(c: Case, rnn: Any, T: int, B: int) -> None:  # noqa: ARG001
    """Written into the live arrays, or loaded."""
    scale = 0.5 / math.sqrt(rnn.hidden_size)
    new = {name: c.lay(scale * c.real(*array.shape)) for name, array in rnn.parameters().items()}
    if c.chance(0.3):
        for name, array in rnn.parameters().items():
            array[...] = new[name]
    else:
        c.call("load_state_dict", rnn.load_state_dict, new)


def copied(c: Case, rnn: Any, T: int, B: int) -> None:
    x = c.rng.standard_normal((T, B, rnn.input_size))
    x = x.swapaxes(0, 1) if rnn.batch_first else x
    other = c.call("copy", c.pick(copy.deepcopy, lambda rnn: pickle.loads(pickle.dumps(rnn))), rnn, spoil=0)
    c.same("copy", c.call("RNN()", rnn, x, spoil=0), c.call("RNN()", other, x, spoil=0), "a copy is another")


# Models


def new_model(c: Case, *patterns: str, kind: str = "SequenceModel", **fixed: Any) -> Any:
    """A model, or REFUSED."""
    n_inputs, n_outputs, pattern = c.size(17), c.size(17), c.pick(*patterns)
    kinds = [elman.Tokens, elman.Features, lambda n: embedded(c, n)]
    inputs = c.pick(*kinds, *([] if pattern == "one-to-many" else [lambda n: columns(c, n)]))(n_inputs)
    if isinstance(inputs, elman.Tokens) and pattern != "one-to-many" and c.chance(0.15):  # integers that are others
        own = {"unknown": c.pick(None, -1), "embedding_dim": inputs.embedding_dim}
        inputs = elman.Tokens(labels=c.rng.permutation(n_inputs), **own)
    outputs = c.pick(elman.Categories, elman.Binary, elman.Reals, lambda n: real_outputs(c, n))(n_outputs)
    n_units = c.sizes()[3]
    if isinstance(inputs, elman.Features) and c.chance(0.15):
        inputs = elman.Features(n_inputs, scaler=new_scaler(c, n_inputs))
    if isinstance(outputs, elman.Reals) and not outputs.settings() and c.chance(0.2):
        outputs = elman.Reals(n_outputs, scaler=new_scaler(c, n_outputs))
    if pattern == "many-to-many" and c.chance(0.1):
        outputs = elman.Labels(n_outputs)
    options = {"hidden_size": n_units, "num_layers": c.pick(1, 1, 2, 3), **layer_options(c, n_units), **fixed}
    if kind == "Seq2Seq":
        outputs = elman.Categories(n_outputs)
    else:
        options |= {"pattern": pattern}
    options["learn_h_0"] = c.chance(0.2)
    if pattern == "one-to-many":
        options |= FORWARD
        outputs = elman.Categories(c.pick(1, n_inputs)) if isinstance(inputs, elman.Tokens) else outputs
    if kind == "Seq2Seq":
        del options["reverse"]
    if type(outputs) is elman.Categories and c.chance(0.15):
        weights = c.pick(c.rng.uniform(0.5, 2, outputs.n), "balanced" if kind != "Seq2Seq" else None)
        outputs = elman.Categories(outputs.n, class_weights=weights)
    if type(outputs) is elman.Categories and pattern != "one-to-many" and c.chance(0.15):
        outputs = elman.Categories(c.pick(outputs.n, 20), labels=c.rng.permutation(outputs.n))
    options |= constraints(c, options, inputs.width)
    if kind == "SequenceModel" and isinstance(inputs, elman.Tokens) and c.chance(0.2):
        n_seen = options["hidden_size"] * (1 + options["bidirectional"])
        inputs, outputs = elman.Tokens(inputs.n, embedding_dim=n_seen), elman.Categories(inputs.n)
        options["tied"] = True
        options.pop("mask_ih", None)
    is_tied = options.get("tied", False)
    if kind == "SequenceModel" and not is_tied and c.chance(0.2):
        shape = outputs.n_units, options["hidden_size"] * (1 + options["bidirectional"])
        options["mask_ho"] = c.lay(c.rng.random(shape) < 0.6)
    if kind == "SequenceModel" and not is_tied and c.chance(0.5 if {"signs", "excitatory"} & options.keys() else 0.02):
        options["readout_from"] = "excitatory"
    model = c.call(kind, getattr(elman, kind), inputs, outputs, **options, spoil=0.05)
    if model is not REFUSED:
        c.watch(model.parameters)
    return model


def embedded(c: Case, n: int) -> Any:
    """Tokens with an embedding, drawn or given."""
    options = c.pick({"embedding_dim": c.size(9)}, {"embedding": c.rng.standard_normal((n, c.size(9)))})
    return c.call("Tokens", elman.Tokens, n, **options, spoil=0)


def columns(c: Case, n: int) -> Any:
    """Some kinds of input side by side."""
    kinds = [elman.Tokens(c.size(9)), elman.Features(c.size(9)), elman.Tokens(n, embedding_dim=c.size(9))]
    return c.call("Columns", elman.Columns, *(c.pick(*kinds) for _ in range(c.pick(1, 2, 3))), spoil=0)


def new_scaler(c: Case, n: int) -> Any:
    """One that `fit` is to learn, or one that is known."""
    known = {"mean": c.lay(c.rng.standard_normal(n)), "scale": c.lay(c.rng.uniform(0.5, 2, n))}
    scaler = c.call("Scaler", elman.Scaler, **c.pick({}, known), spoil=0)
    if c.chance(0.3):
        c.call("Scaler.fit", scaler.fit, [c.lay(c.real(size, n)) for size in c.integers(5, 3, least=1)])
    return scaler


def real_outputs(c: Case, n: int) -> Any:
    """Numbers with a loss that no kernel has."""
    points = [{"loss": loss} for loss in ("squared_error", "absolute_error", "huber")]
    quantiles = {"loss": "quantile", "quantiles": c.pick((0.5,), (0.1, 0.5, 0.9))}
    distribution = c.pick("normal", "student_t", "poisson", "negative_binomial")
    options = c.pick(*points, quantiles, {"distribution": distribution}, {"distribution": distribution})
    if "distribution" in options:  # a scale may become small
        c.looseness, c.least = 300, ()
    if options.get("distribution") not in ("poisson", "negative_binomial") and c.chance(0.2):
        options = {**options, "scaler": new_scaler(c, n)}
    return c.call("Reals", elman.Reals, n, missing=c.pick(None, math.nan), **options, spoil=0)


def sides(model: Any) -> tuple[bool, bool]:
    """Whether there is one input for each sequence, and one output."""
    one_input, one_output = getattr(model, "pattern", "many-to-many").split("-to-")
    return one_input == "one", one_output == "one"


def inputs_of(c: Case, model: Any, *axes: int) -> np.ndarray:
    if isinstance(model.inputs, elman.Columns):
        each = [
            c.integers(part.n, *axes, 1) if isinstance(part, elman.Tokens) else c.real(*axes, part.n)
            for part in model.inputs.parts
        ]
        return np.concatenate(each, axis=-1).astype(c.dtype)
    return (
        c.integers(model.inputs.n, *axes) if isinstance(model.inputs, elman.Tokens) else c.real(*axes, model.inputs.n)
    )


def targets_of(c: Case, model: Any, *axes: int) -> np.ndarray:
    n = model.outputs.n
    if isinstance(model.outputs, elman.Labels):  # one in a sequence of any length, or some that may need too many steps
        few = c.integers(n, *axes[:-1], c.pick(1, max(1, axes[-1] // 2)))
        behind = np.full((*axes[:-1], max(0, axes[-1] - few.shape[-1])), -1)
        return few[: axes[0]] if len(axes) == 1 else np.concatenate([few, behind], axis=-1)
    if isinstance(model.outputs, elman.Categories):
        has_gaps = isinstance(model, elman.SequenceModel) and model.pattern != "one-to-many" and c.chance(0.3)
        return c.integers(n, *axes, least=-1 if has_gaps else 0)
    if isinstance(model.outputs, elman.Binary):
        return c.integers(2, *axes, n).astype(c.pick("?", "i8", c.dtype))
    y = c.real(*axes, n)
    if model.outputs.distribution in ("poisson", "negative_binomial"):
        y = np.floor(np.abs(y))
    if model.outputs.missing is not None and c.chance(0.7):
        y[c.rng.random(y.shape) < 0.3] = np.nan
    return y


def batch(c: Case, model: Any) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """Arguments of a training step."""
    T, B, _, _ = c.sizes()
    one_input, one_output = sides(model)
    T = 1 if one_input and one_output else T
    x = inputs_of(c, model, *((B,) if one_input else (T, B)))
    y = targets_of(c, model, *((B,) if one_output else (T, B)))
    y = targets_of(c, model, B, T).T if isinstance(model.outputs, elman.Labels) else y
    weights = c.rng.uniform(0.5, 2, c.pick((B,), (1 if one_output else T, B))) * c.pick(1, c.integers(2, B))
    lengths = c.lengths(T, B, least=int(one_output))
    return (c.lay(x), c.lay(y)), {"lengths": lengths, "weights": c.pick(None, c.lay(weights))}


def new_optimizer(c: Case) -> Any:
    kind = c.pick(elman.SGD, elman.SGD, elman.Adam, elman.AdamW, elman.Adagrad)
    options = {"momentum": c.pick(0.0, 0.9)} if kind is elman.SGD else {}
    optimizer = c.call("optimizer", kind, lr=c.pick(0.0, 1e-3, 1e-2), **options, spoil=0.05)
    return elman.SGD(0.01) if optimizer is REFUSED else optimizer


def steps(c: Case) -> None:
    model = new_model(c, "many-to-many", "many-to-many", "many-to-one", "one-to-one", "one-to-many")
    if model is REFUSED:
        return
    good, options = batch(c, model)
    optimizer = new_optimizer(c)
    c.watch(model.parameters, None if c.is_wild else lambda: model.loss(*good, **options))
    for _ in range(c.pick(1, 2, 4)):
        arrays, own = batch(c, model)
        more = {
            "activation_l2": c.pick(0.0, 0.01),
            "weight_l1": c.pick(0.0, 0.01),
            "memory": c.pick(None, None, 1, 3, "1MB"),
        }
        if c.chance(0.3) and model.pattern.startswith("many") and is_forward(model.rnn) and not model.learn_h_0:
            n_rows = np.asarray(arrays[0]).shape[1]
            own["state"] = c.lay(c.real(model.rnn.num_layers, n_rows, model.rnn.hidden_size), updatable=True)
        if c.chance(0.3) and model.pattern.startswith("many") and is_forward(model.rnn):
            own["resets"] = c.lay(c.rng.random(np.shape(arrays[0])[:2]) < c.pick(0.0, 0.2, 1.0))
        kinds = "loss", "loss_and_grads", "gradient_norms", "gauss_newton_product", "generate"
        match c.pick("train_step", "train_step", *kinds):
            case "train_step":
                own |= {"clip_norm": c.pick(None, 1.0, 1e-3), "clip_value": c.pick(None, 0.1), **more}
                own["trainable"] = trainable(c, model)
                c.call("train_step", model.train_step, *arrays, optimizer=optimizer, **own)
            case "loss":
                c.call("loss", model.loss, *arrays, **own)
            case "loss_and_grads":
                c.call("loss_and_grads", model.loss_and_grads, *arrays, **own, **more)
            case "gradient_norms":
                own.pop("state", None)
                own.pop("resets", None)
                c.call("gradient_norms", model.gradient_norms, *arrays, **own)
            case "gauss_newton_product":
                own.pop("state", None)
                own.pop("resets", None)
                v = {name: c.lay(c.real(*one.shape)) for name, one in model.parameters().items() if c.chance(0.8)}
                c.call("gauss_newton_product", model.gauss_newton_product, *arrays, v=v, **own)
            case "generate":
                generate(c, model)


def trainable(c: Case, model: Any) -> Any:
    """Names of some parameters."""
    return c.pick(None, None, ["weight_*"], ["*_o", "weight_hh_*"], [c.pick(*model.parameters())])


def generate(c: Case, model: Any) -> None:
    is_features = isinstance(model.inputs, elman.Features)
    axes = () if model.pattern == "one-to-many" and is_features else c.pick((1,), (c.size(9),))
    start, options = c.lay(inputs_of(c, model, *axes)), {}
    if isinstance(model.outputs, elman.Categories):
        options = {
            "top_k": c.pick(None, 1, 3),
            "top_p": c.pick(None, 0.5, 1.0),
            "end": c.pick(None, model.outputs.n - 1),
        }
    options |= {"temperature": c.pick(0, 0.5, 1.0, 1e-320), "seed": c.number, "n_samples": c.pick(None, None, 1, 3)}
    if c.chance(0.4):  # many sequences, in a list or in an array
        n, is_one = c.size(5), not axes
        is_array = is_one or c.chance(0.4)
        start = (
            c.lay(inputs_of(c, model, n, *axes))
            if is_array
            else [start, *(c.lay(inputs_of(c, model, c.size(5))) for _ in range(n))]
        )
        options["batch_size"] = c.pick(1, 2, 128)
    c.call("generate", model.generate, start, length=c.pick(0, 1, 5), **options)


def dataset(c: Case, model: Any) -> tuple[Any, Any, Any]:
    """X, Y and weights of some sequences: in lists, or in arrays where they are equally long."""
    N, T = c.size(9), c.size(17)
    is_array, is_pairs, (one_input, one_output) = c.chance(0.4), isinstance(model, elman.Seq2Seq), sides(model)
    lengths = np.full(N, T) if is_array else c.integers(T + 1, N, least=1)

    is_mapped = c.chance(0.15)

    def rows(of: Any, is_one: bool, lengths: np.ndarray) -> Any:
        lay = c.mapped if is_mapped else c.lay
        if is_one or is_array:
            return lay(of(c, model, N, *(() if is_one else (lengths[0],))))
        return [lay(of(c, model, n)) for n in lengths]

    y_lengths = np.full(N, c.size(9)) if is_pairs and is_array else c.integers(9, N) if is_pairs else lengths
    per_row = c.lay(c.rng.uniform(0.5, 2, N) * c.pick(1, c.integers(2, N)))
    per_step = [c.lay(c.rng.uniform(0.5, 2, n)) for n in lengths]
    weights = c.pick(None, per_row, per_row if one_output else per_step)
    return rows(inputs_of, one_input, lengths), rows(targets_of, one_output, y_lengths), weights


def fit_options(c: Case, model: Any) -> dict[str, Any]:
    options = {
        "epochs": c.pick(1, 2),
        "batch_size": c.pick(1, 2, 32),
        "accumulate": c.pick(1, 1, 2, 5),
        "average": c.pick(None, None, 0.9),
        "optimizer": new_optimizer(c),
        "clip_norm": c.pick(None, 1.0),
        "clip_value": c.pick(None, 0.1),
        "trainable": trainable(c, model),
        "schedule": c.pick(None, elman.schedules.Cosine()),
        "shuffle": c.chance(0.5),
        "progress": False,
    }
    truncated = {"tbptt": c.pick((1, 1), (2, 3), (3, 8), (10, 10))} if isinstance(model, elman.SequenceModel) else {}
    if isinstance(model, elman.Seq2Seq) or model.pattern == "one-to-many":
        options["scheduled_sampling"] = c.pick(None, 0.5, lambda done, epochs: done / epochs)
        truncated = truncated if options["scheduled_sampling"] is None else {}
    options |= c.pick({}, truncated, {"memory": c.pick(1, 3, "1MB")})
    return options | {"activation_l1": c.pick(0.0, 0.01), "weight_l2": c.pick(0.0, 0.01)}


def data_sets(c: Case) -> None:
    patterns = ("many-to-many", "many-to-many", "many-to-one", "one-to-one", "one-to-many")
    model = new_model(c, *patterns, kind=c.pick("SequenceModel", "SequenceModel", "Seq2Seq"))
    if model is REFUSED:
        return
    X, Y, weights = dataset(c, model)
    weighed = {"weights": weights} if isinstance(model, elman.SequenceModel) else {}
    begins = {}
    if weighed and model.pattern.startswith("many") and is_forward(model.rnn) and c.chance(0.4):
        begins = {"resets": [c.lay(c.rng.random(len(x)) < 0.2) for x in X]}
    c.watch(model.parameters, None if c.is_wild else lambda: model.evaluate(X, Y, **weighed))
    for _ in range(c.pick(1, 2, 3)):
        match c.pick("fit", "fit", "predict", "predict_proba", "predict_interval", "evaluate", "forecast"):
            case "fit":
                held_out = c.pick(None, dataset(c, model)[: 2 + bool(weighed)])
                checkpoint = c.pick({}, {"checkpoint": c.file(), "checkpoint_every": c.pick(None, 1)})
                options = fit_options(c, model) | checkpoint | weighed | begins
                c.call("fit", model.fit, X, Y, validation_data=held_out, **options)
            case "predict":
                beam = {} if weighed else {"beam": c.pick(1, 2, 5), "max_length": c.pick(0, 3)}
                if not weighed and c.chance(0.5):
                    given = {"n_samples": c.pick(None, 1, 3), "max_length": c.pick(0, 3, 70), "seed": 1}
                    given |= {"temperature": c.pick(0, 0.5), "top_k": c.pick(None, 1, 2), "top_p": c.pick(None, 0.5)}
                    c.call("Seq2Seq.generate", model.generate, X, batch_size=c.pick(1, 3, 128), **given)
                c.call("predict", model.predict, X, batch_size=c.pick(1, 3, 128), **beam, **begins)
            case "predict_proba" if weighed:
                c.call("predict_proba", model.predict_proba, X, batch_size=c.pick(1, 3, 128), **begins)
            case "predict_interval" if weighed:
                c.call("predict_interval", model.predict_interval, X, coverage=c.pick(0.8, 0.5), **begins)
                c.call("predict_distribution", model.predict_distribution, X, **begins)
            case "forecast" if weighed:
                forecast(c, model, X)
            case _:
                own = c.pick({}, {"metrics": list(model._network.metrics)})
                c.call("evaluate", model.evaluate, X, Y, batch_size=c.pick(1, 3, 128), **weighed, **begins, **own)


def forecast(c: Case, model: Any, X: Any) -> None:
    """Refused by models whose outputs are no next inputs."""
    steps, known = c.pick(1, 5, 70), model.inputs.n - model.outputs.n
    future = c.lay(c.real(len(X), steps - c.pick(0, 1), known)) if known > 0 else None
    options = {"n_samples": c.pick(None, 1, 3), "seed": c.number, "batch_size": c.pick(1, 3, 128)}
    c.call("forecast", model.forecast, X, steps, future, **options)
    if c.chance(0.3):
        c.call("backtest", elman.backtest, model, X, 1, first=c.pick(2, 3), every=c.pick(1, 2), refit=None)


def changed_data(c: Case) -> None:
    """A callback that overwrites what fit was given. Whatever comes of it, memory is safe."""
    model = new_model(c, "many-to-many", "many-to-one", "one-to-many", num_layers=1)
    if model is REFUSED:
        return
    X, Y, _ = (np.array(each) if isinstance(each, np.ndarray) else each for each in dataset(c, model))

    def overwrite(training: Any) -> None:  # noqa: ARG001
        for array in (X, Y, *(X if isinstance(X, list) else ()), *(Y if isinstance(Y, list) else ())):
            c.change(array, 100, 2**40, -1)

    c.is_judged, c.is_wild, c.is_huge = False, True, True
    c.watch(dict)
    c.call("fit (data overwritten)", model.fit, X, Y, epochs=3, progress=False, callbacks=[overwrite], spoil=0)


# Streams, attributes, optimizers, numbers


def streams(c: Case) -> None:
    model = new_model(c, "many-to-many", "many-to-many", "many-to-one", **FORWARD)
    if model is REFUSED:
        return
    n_rows = c.pick(None, 1, 2, 3, 17, 64)
    if c.chance(0.2):
        c.call("stream", model.stream, n_rows, spoil=1)
    stream = c.call("stream", model.stream, n_rows, noise_seed=c.pick(None, 3), spoil=0)
    if stream is REFUSED:
        return
    axes = () if n_rows is None else (n_rows,)
    c.watch(lambda: {"state": stream.state})
    for _ in range(c.pick(2, 4, 6)):
        match c.pick("predict", "predict", "predict_proba", "reset", "state", "state"):
            case "reset":
                c.call("reset", stream.reset, c.pick(None, c.integers(n_rows or 1, 2), c.integers(2, n_rows or 1) > 0))
            case "state":
                set_state(c, stream, c.real(model.rnn.num_layers, n_rows or 1, model.rnn.hidden_size))
            case name:
                rows: Any = c.rng.permutation(n_rows or 1)[: c.rng.integers(1, 1 + (n_rows or 1))]
                chosen = {"rows": c.lay(rows)} if n_rows and c.chance(0.4) else {}
                x = c.lay(inputs_of(c, model, c.size(9), *((len(rows),) if chosen else axes)))
                own = {"resets": c.lay(c.rng.random(np.shape(x)[: 1 + bool(n_rows)]) < 0.3)} if c.chance(0.3) else {}
                own |= chosen
                c.call(f"stream.{name}", getattr(stream, name), x, **own)


def set_state(c: Case, stream: Any, good: np.ndarray) -> None:
    given = c.lay(good) if c.chance(0.4) else c.spoil(good, "state")
    c.call("state=", setattr, stream, "state", given, spoil=0)
    if np.shape(stream.state) != good.shape:
        c.finding("state=", "a state of another shape was taken", f"{np.shape(given)} for {good.shape}")
        c.watch(dict)


def attributes(c: Case) -> None:
    """Set public attributes. That may be refused, but nothing worse may happen."""
    model = new_model(c, "many-to-many", "many-to-one")
    if model is REFUSED:
        return
    arrays, options = batch(c, model)
    optimizer = new_optimizer(c)
    owner = c.pick(model, model.rnn, model.rnn, optimizer)
    name = c.pick(*sorted(name for name in dir(owner) if name[0] != "_" and not callable(getattr(owner, name))))
    value = getattr(owner, name)
    value = value + 1 if type(value) is int else not value if type(value) is bool else c.spoil(value, name)
    c.watch(dict)
    c.call(f"{type(owner).__name__}.{name}=", setattr, owner, name, value, spoil=0)
    c.is_wild = c.is_huge = True
    c.call(f"train_step ({name} was set)", model.train_step, *arrays, optimizer=optimizer, **options, spoil=0)


def optimizers(c: Case) -> None:
    optimizer = new_optimizer(c)
    shapes = [tuple(c.size() for _ in range(c.pick(1, 1, 2, 3))) for _ in range(c.pick(1, 1, 2, 3))]
    shapes = [shape if math.prod(shape) < 5000 else shape[:1] for shape in shapes]
    parameters = {str(i): c.lay(c.real(*shape), updatable=True) for i, shape in enumerate(shapes)}
    c.watch(lambda: parameters)
    for _ in range(c.pick(1, 2, 3)):
        gradients = {str(i): c.lay(c.real(*shape)) for i, shape in enumerate(shapes)}
        c.call("update", optimizer.update, parameters, gradients)


def numbers(c: Case) -> None:
    c.watch(lambda: {"threads": np.array(elman.get_num_threads())})
    c.call("set_num_threads", elman.set_num_threads, c.pick(1, 2, 3, 5, *NUMBERS), spoil=0)
    c.watch(dict)
    c.call("use_backend", elman.use_backend, c.spoil("reference", ""), spoil=0)
    for kind in (elman.Tokens, elman.Features, elman.Categories, elman.Binary, elman.Reals):
        c.call(kind.__name__, kind, c.pick(1, 2, *SMALL), spoil=0)
    for kind in (elman.SGD, elman.Adagrad, elman.Adam, elman.AdamW):
        c.call("optimizer", kind, c.pick(1, *NUMBERS), spoil=0)


# Files


def files(c: Case) -> None:
    """Save and load, with something changed in between."""
    kind = c.pick("SequenceModel", "SequenceModel", "Seq2Seq")
    model = new_model(c, "many-to-many", "many-to-one", "one-to-one", kind=kind)
    if model is REFUSED:
        return
    X, Y, _ = dataset(c, model)
    path = c.file()
    if c.call("save", model.save, path, spoil=0) is REFUSED:
        return
    wrong = tampered(c, path, "config") if c.chance(0.8) else ""
    c.watch(dict)
    other = c.call("load", elman.load, path, spoil=0)
    judge_file(c, path, wrong)
    if other is not REFUSED:
        c.call("evaluate", other.evaluate, X, Y, spoil=0)


def resumed(c: Case) -> None:
    """A training that stops and goes on from its checkpoint, with something changed in it."""
    is_within = c.chance(0.6)  # a sequence, whose state is in the checkpoint
    kind = "SequenceModel" if is_within else c.pick("SequenceModel", "Seq2Seq")
    fixed = FORWARD if is_within else {}
    model = new_model(c, "many-to-many", *([] if is_within else ["many-to-one"]), kind=kind, **fixed)
    if model is REFUSED:
        return
    X, Y, _ = dataset(c, model)
    path, last = c.file(), c.pick(2, 2, 3, 4)
    options = fit_options(c, model) | {"epochs": 2, "checkpoint": path, "checkpoint_every": 1}
    if is_within:
        options = {name: value for name, value in options.items() if name != "memory"}
        options |= {"tbptt": c.pick((1, 1), (1, 2), (2, 3)), "batch_size": c.pick(2, 32)}
    other, other_options = copy.deepcopy((model, options))

    def stop(_: Any, training: Any) -> None:
        if training.steps == last:
            raise Stopped

    callback = type("Stop", (elman.Callback,), {"on_step": stop})
    c.call("fit", model.fit, X, Y, callbacks=[callback()], **options, spoil=0)
    if not path.exists():
        return
    wrong = tampered(c, path, "training", "training", "config") if c.chance(0.85) else ""
    c.watch(other.parameters)
    options = other_options | {"callbacks": [elman.Callback()], "resume": True}
    c.call("fit (resume)", other.fit, X, Y, **options, spoil=0)
    judge_file(c, path, wrong)


def judge_file(c: Case, path: Path, wrong: str) -> None:
    """Of the call that has read it."""
    kind, outcome, why, *_ = c.trace[-1]
    if wrong and outcome == "returned":
        c.finding(kind, "not noticed: " + wrong)
    is_late = "must be finite" in why  # what a learning rate came to, when it is to be saved
    if outcome in ("TypeError", "ValueError") and str(path) not in why and not is_late:
        c.finding(kind, f"{outcome} that does not name the file", why)


def tampered(c: Case, path: Path, *headers: str) -> str:
    """Change something in a model file; what is certainly wrong with it now."""
    c.is_wild = c.is_huge = True
    if c.chance(0.1):
        content = path.read_bytes()
        path.write_bytes(content[: c.pick(0, 7, 8, 100, len(content) // 2, len(content) - 1)])
        return "a file that is cut off"
    with safe_open(path, "np") as file:
        header, arrays = file.metadata(), {name: file.get_tensor(name) for name in sorted(file.keys())}
    training, wrong = [name for name in arrays if name.startswith("training:")], ""
    if c.chance(0.6):
        has_state = "training:state" in arrays and c.chance(0.6)
        wrong = tampered_array(c, arrays, "training:state" if has_state else c.pick(*(training * 2), *arrays))
    else:
        name = c.pick(*headers)
        record = json.loads(header[name])
        tampered_record(c, record)
        header[name] = json.dumps(record)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, header)
    return wrong


def tampered_array(c: Case, arrays: dict[str, np.ndarray], name: str) -> str:
    array = arrays.pop(name)
    match c.pick("missing", "shape", "shape", "shape", "dtype", "value"):
        case "missing":
            return f"{name.rstrip('0123456789')} is missing"
        case "dtype":
            arrays[name] = array.astype(c.pick("f2", "f4" if array.dtype == "f8" else "f8", "i4", "i8", "?"))
        case "value":
            arrays[name] = array.copy()
            arrays[name].reshape(-1)[:1] = c.pick(math.nan, math.inf)
        case "shape":
            axis = int(c.rng.integers(array.ndim))
            n = c.pick(1, array.shape[axis] + 1, max(0, array.shape[axis] - 1), 200)
            other = array.take(range(n), axis, mode="clip") if array.size else array[None]
            arrays[name] = c.pick(other, other, array[None], array.reshape(-1), array.swapaxes(0, -1))
    is_known = arrays[name].shape == array.shape and arrays[name].dtype == array.dtype
    return "" if is_known else f"another shape or dtype of {name.rstrip('0123456789')}"


def tampered_record(c: Case, record: Any) -> None:
    """Replace or remove something, however deep in it."""
    while True:
        key = c.pick(*(sorted(record) if isinstance(record, dict) else range(len(record))))
        if not (isinstance(record[key], dict | list) and record[key] and c.chance(0.8)):
            break
        record = record[key]
    if c.chance(0.2):
        del record[key]
    else:
        record[key] = c.pick(-1, 0, 1, 2, 7, 2**31, 2**63, 2**130, 1.5, math.nan, None, "x", [], {}, True)


SCENARIOS = {  # with how often they are drawn
    layer: 6,
    steps: 6,
    data_sets: 5,
    resumed: 4,
    streams: 3,
    files: 2,
    optimizers: 2,
    attributes: 1,
    changed_data: 1,
    numbers: 1,
}
