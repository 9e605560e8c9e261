"""Weights of other frameworks: arrays in, arrays out. No framework is imported.

Each ``from_…`` returns a dict that `RNN.load_state_dict` takes, or that of a `SequenceModel` where there is a readout.
Each ``to_…`` takes such a dict, as `state_dict` returns it, or `effective_weights` where there are signs or masks. So
what comes from one framework can go to another. The forms are side by side in :doc:`/migrate/weights`.

Arrays are float32 or float64, in anything that NumPy makes an array of; results are copies of the same width,
C-contiguous. elman has one bias: two are added up, and the second of two is written as zeros. Where only some layers
have a bias, or none beside a readout, or a readout has none, zeros stand for it. All raise TypeError or ValueError,
with a message that names the array, where something is missing or does not fit, and where weights are those of a GRU
or an LSTM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.layer.architecture import Architecture
from elman.layer.parameters import Entry, Parameters, load_state
from elman.layer.parameters import to_pytorch as _with_two_biases
from elman.typing import Real

_GATED = {3: "a GRU", 4: "an LSTM"}  # how many times as many rows
_Labelled = tuple[str, NDArray[Any]]  # what a message calls an array, and the array
_Cell = list[_Labelled]  # of one layer and direction: from the inputs, from the states, and perhaps a bias


def from_pytorch(
    state: Mapping[str, Any], layers: str | None = None, readout: str | None = None, embedding: str | None = None
) -> dict[str, Real]:
    """From the state dict of a `torch.nn.RNN`, or of a module that has one.

    For that of an `nn.RNN` alone `load_state_dict` needs no conversion.

    Parameters
    ----------
    state : dict from names to tensors or arrays
        What belongs to neither is left aside.
    layers : str, optional
        The name of the `nn.RNN` in the module; without it, the only one there is.
    readout : str, optional
        The name of the `nn.Linear` behind it.
    embedding : str, optional
        That of the `nn.Embedding` before it, of a model whose tokens have one that is not tied.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"weight_ih_l0": (5, 3), "weight_hh_l0": (5, 5), "bias_ih_l0": (5,), "bias_hh_l0": (5,)}
    >>> net = {f"rnn.{name}": rng.normal(size=shape) for name, shape in shapes.items()}
    >>> net |= {"out.weight": rng.normal(size=(2, 5)), "out.bias": rng.normal(size=2)}
    >>> list(from_pytorch(net, readout="out"))
    ['weight_ih_l0', 'weight_hh_l0', 'bias_l0', 'weight_ho', 'bias_o']
    """
    names = [name for name in _mapping(state, "state") if isinstance(name, str)]
    if layers is None:
        found = [name[:-12].rstrip(".") for name in names if re.search(r"(^|\.)weight_ih_l0$", name)]
        if len(found) != 1:
            raise ValueError(f"layers must be the name of one nn.RNN, of which state has {found}")
        layers = found[0]
    elif check.text(layers, "layers") and not any(name.startswith(f"{layers}.weight_ih_l0") for name in names):
        raise ValueError(f"layers must be the name of an nn.RNN in state, got {layers!r} beside {names}")
    prefix = f"{check.text(layers, 'layers')}." if layers != "" else ""
    own = {name[len(prefix) :]: state[name] for name in names if re.match(re.escape(prefix) + r"(weight|bias)_", name)}
    if readout is not None:
        weight, bias = (f"{check.text(readout, 'readout')}.{kind}" for kind in ("weight", "bias"))
        if weight not in state:
            raise ValueError(f"readout must be the name of an nn.Linear in state, got {readout!r} beside {names}")
        own |= {"weight_ho": state[weight], "bias_o": state.get(bias, np.zeros(len(state[weight]), np.float32))}
        if not any(name.startswith("bias_ih") for name in own):  # a model always has them
            recurrent = [name for name in own if name.startswith("weight_hh")]
            own |= {name.replace("weight_hh", "bias"): np.zeros(len(own[name]), np.float32) for name in recurrent}
    made = _checked(own)[1]
    if embedding is not None:
        table = f"{check.text(embedding, 'embedding')}.weight"
        if table not in state:
            expected = "embedding must be the name of an nn.Embedding in state"
            raise ValueError(f"{expected}, got {embedding!r} beside {names}")
        made["embedding"] = _embedding(table, state[table], made["weight_ih_l0"].shape[1])
    return made


def to_pytorch(
    state: Mapping[str, Any], layers: str = "", readout: str | None = None, embedding: str | None = None
) -> dict[str, Real]:
    """To the names of `torch.nn.RNN`, or of a module in which one is called `layers` and an `nn.Linear` `readout`.

    Likewise for an `nn.Embedding` called `embedding`, where the state has one of tokens.

    As tensors, ``{name: torch.from_numpy(array) …}``, these are what its `load_state_dict` takes. The second bias is
    zero. For an RNN alone this is ``rnn.state_dict(pytorch=True)``.

    Examples
    --------
    >>> import elman
    >>> model = elman.SequenceModel(elman.Features(3), elman.Reals(2), hidden_size=5)
    >>> list(to_pytorch(model.effective_weights(), "rnn", "out"))
    ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'rnn.bias_ih_l0', 'rnn.bias_hh_l0', 'out.weight', 'out.bias']
    """
    prefix, tables = f"{check.text(layers, 'layers')}." if layers != "" else "", {}
    if "embedding" in _mapping(state, "state"):
        if embedding is None:
            raise TypeError("embedding must be the name of an nn.Embedding, as state has embedding, got None")
        tables = {f"{check.text(embedding, 'embedding')}.weight": _embedding("embedding", state["embedding"], "d")}
        state = {name: array for name, array in state.items() if name != "embedding"}
    named = _checked(state)[1]
    last = {"weight": named.pop("weight_ho"), "bias": named.pop("bias_o")} if "weight_ho" in named else {}
    if last and readout is None:
        raise TypeError("readout must be the name of an nn.Linear, as state has weight_ho, got None")
    own = {f"{prefix}{name}": array for name, array in _with_two_biases(named).items()}
    return tables | own | {f"{readout}.{name}": array for name, array in last.items()}


def from_keras(weights: Sequence[Any], *, bidirectional: bool = False) -> dict[str, Real]:
    """From `get_weights()` of a Keras model of `SimpleRNN` layers with or without a `Dense` behind, or of one layer.

    Parameters
    ----------
    weights : list of arrays
        Per layer and direction a kernel (I, H), a recurrent kernel (H, H) and perhaps a bias (H,); at the end perhaps a
        kernel (K, O) and perhaps a bias (O,).
    bidirectional : bool
        Whether each layer is a `Bidirectional(SimpleRNN)`, which has the arrays of both directions, forward first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> net = [rng.normal(size=shape) for shape in [(3, 5), (5, 5), (5,), (5, 2), (2,)]]  # SimpleRNN(5), Dense(2)
    >>> {name: array.shape for name, array in from_keras(net).items()}
    {'weight_ih_l0': (5, 3), 'weight_hh_l0': (5, 5), 'bias_l0': (5,), 'weight_ho': (2, 5), 'bias_o': (2,)}
    """
    n_directions = 2 if check.flag(bidirectional, "bidirectional") else 1
    arrays = _arrays(weights, "weights", "a list of arrays, as get_weights() returns it")
    rest, cells = arrays, []
    while len(rest) > 1 and rest[1][1].ndim == 2:  # a Dense has one matrix
        n = 3 if len(rest) > 2 and rest[2][1].ndim == 1 else 2
        cells.append(rest[:n])
        rest = rest[n:]
    layers = [cells[i : i + n_directions] for i in range(0, len(cells), n_directions)]
    if [array.ndim for _, array in arrays[:3]] == [2, 2, 2]:
        (_, n), (n_rows, n_units), recurrent = (array.shape for _, array in arrays[:3])
        if n == n_rows != n_units and recurrent == (n_units, n_units):
            raise ValueError(
                "weights[0] must be a SimpleRNN's kernel, got what an Embedding has: leave it out, and put "
                "weights[0] @ weights[1] for weights[1]"
            )
    if not cells or len(cells) % n_directions:
        words = "Bidirectional(SimpleRNN)" if bidirectional else "SimpleRNN"
        shapes = [array.shape for _, array in arrays]
        raise ValueError(f"weights must be those of {words} layers, and of a Dense behind them, got shapes {shapes}")
    return _state(layers, rest, rows=True)


def to_keras(state: Mapping[str, Any]) -> list[Real]:
    """To what `set_weights` takes of a Keras model, or of a layer: the inverse of `from_keras`.

    Examples
    --------
    >>> import elman
    >>> rnn = elman.RNN(3, 5, bidirectional=True)
    >>> [array.shape for array in to_keras(rnn.state_dict())]  # of Bidirectional(SimpleRNN(5))
    [(3, 5), (5, 5), (5,), (3, 5), (5, 5), (5,)]
    """
    layers, readout = _parts(state, rows=True)
    return [*(array for cells in layers for cell in cells for array in cell), *readout]


def from_flax(layers: Any) -> dict[str, Real]:
    """From trees of Flax's `RNN(SimpleCell)` or `Bidirectional` of two, of linen (`params`) or of nnx (`nnx.state`).

    Parameters
    ----------
    layers : tree or list of trees
        One for each layer: of an `RNN`, of its cell, or of a `Bidirectional`, with its keys forward_rnn and
        backward_rnn. At the end perhaps one of a `Dense` or `Linear`, with the keys kernel and perhaps bias.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> cell = {"i": {"kernel": rng.normal(size=(3, 5)), "bias": np.zeros(5)}, "h": {"kernel": np.eye(5)}}
    >>> {name: array.shape for name, array in from_flax({"params": {"cell": cell}}).items()}
    {'weight_ih_l0': (5, 3), 'weight_hh_l0': (5, 5), 'bias_l0': (5,)}
    """
    single = isinstance(layers, Mapping)
    trees = [layers] if single else _items(layers, "layers", "a tree or a list of trees, one for each layer")
    found, readout = [], []
    for k, given in enumerate(trees):
        tree, label = _inside(given, "layers" if single else f"layers[{k}]", "params")
        if "kernel" in tree and k == len(trees) - 1:
            readout = [_array(tree[key], f"{label}[{key!r}]") for key in ("kernel", "bias") if key in tree]
        elif "forward_rnn" in tree and "backward_rnn" in tree:
            found.append([_flax_cell(tree[key], f"{label}[{key!r}]") for key in ("forward_rnn", "backward_rnn")])
        else:
            found.append([_flax_cell(tree, label)])
    return _state(found, readout, rows=True)


def to_flax(state: Mapping[str, Any], *, nnx: bool = False) -> list[dict[str, Any]]:
    """To a list of trees, one for each layer and one for a readout: the inverse of `from_flax`.

    With `nnx`, names are those of nnx, and `nnx.update(layer, tree)` takes each; otherwise those of linen. A cell
    always has a bias, which is zeros where elman has none.

    Examples
    --------
    >>> import elman
    >>> layer, = to_flax(elman.RNN(3, 5, bidirectional=True).state_dict())
    >>> layer["backward_rnn"]["cell"]["h"]["kernel"].shape
    (5, 5)
    """
    i, h = ("dense_i", "dense_h") if check.flag(nnx, "nnx") else ("i", "h")
    layers, readout = _parts(state, rows=True)
    trees = []
    for cells in layers:
        rnns = []
        for kernel, recurrent, *bias in cells:
            own = bias[0] if bias else np.zeros(len(recurrent), recurrent.dtype)
            rnns.append({"cell": {i: {"kernel": kernel, "bias": own}, h: {"kernel": recurrent}}})
        both: dict[str, Any] = dict(zip(("forward_rnn", "backward_rnn"), rnns, strict=False))
        trees.append(both if len(rnns) == 2 else rnns[0])
    return [*trees, dict(zip(("kernel", "bias"), readout, strict=True))] if readout else trees


def from_onnx(layers: Sequence[Any]) -> dict[str, Real]:
    """From the initializers of ONNX's `RNN` nodes, one (W, R, B) for each layer, the lowest first.

    Parameters
    ----------
    layers : list of (W, R, B) or (W, R)
        W (D, H, I) and R (D, H, H) of D directions; B (D, 2·H), a bias of W and one of R, or None.

    Examples
    --------
    >>> W, R, B = np.ones((1, 5, 3)), np.ones((1, 5, 5)), np.ones((1, 10))
    >>> from_onnx([(W, R, B)])["bias_l0"].tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    found = []
    for k, layer in enumerate(_items(layers, "layers", "a list with (W, R, B) for each layer")):
        arrays = _cell(layer, f"layers[{k}]", "(W, R, B) or (W, R)")
        n_directions = arrays[0][1].shape[:1]
        for (label, array), axes in zip(arrays, (("D", "H", "I"), ("D", "H", "H"), ("D", "2·H")), strict=False):
            if array.ndim != len(axes) or array.shape[:1] != n_directions or n_directions not in ((1,), (2,)):
                raise ValueError(f"{label} must have shape ({', '.join(axes)}), D = 1 or 2, got {array.shape}")
        cells = [[(f"{label}[{d}]", array[d]) for label, array in arrays] for d in range(*n_directions)]
        found.append([[*cell[:2], *(_one_bias(*both) for both in cell[2:])] for cell in cells])
    return _state(found, [], rows=False)


def to_onnx(state: Mapping[str, Any]) -> list[tuple[Real, Real, Real | None]]:
    """To W (D, H, I), R (D, H, H) and B (D, 2·H) or None of ONNX's `RNN`, for each layer: the inverse of `from_onnx`.

    Of a model this takes the weights of its layers, ``model.rnn.state_dict()``.

    Examples
    --------
    >>> import elman
    >>> (W, R, B), upper = to_onnx(elman.RNN(3, 5, num_layers=2, bidirectional=True).state_dict())
    >>> W.shape, R.shape, B.shape, upper[0].shape
    ((2, 5, 3), (2, 5, 5), (2, 10), (2, 5, 10))
    """
    layers, readout = _parts(state, rows=False)
    if readout:
        raise ValueError("state must be that of layers alone, as model.rnn.state_dict() is, got weight_ho and bias_o")
    found = []
    for cells in layers:
        W, R, *biases = (np.stack(arrays) for arrays in zip(*cells, strict=True))
        found.append((W, R, np.hstack([biases[0], np.zeros_like(biases[0])]) if biases else None))
    return found


def from_numpy(layers: Sequence[Any], readout: Sequence[Any] | None = None, *, rows: bool = False) -> dict[str, Real]:
    """From a script's arrays: of ``tanh(Wxh @ x + Whh @ h + bh)``, or, with `rows`, ``tanh(x @ Wxh + h @ Whh + bh)``.

    Parameters
    ----------
    layers : list of (Wxh, Whh, bh) or (Wxh, Whh); or, in both directions, of pairs of these, forward first
        Wxh (H, I), with `rows` (I, H); Whh (H, H); bh (H,), (H, 1) or (1, H), or None.
    readout : (Why, by) or (Why,), optional
        Of ``y = Why @ h + by``, Why (O, K), or with `rows` of ``y = h @ Why + by``, Why (K, O); by as bh, with O.
    rows : bool
        Whether vectors stand on the left of matrices.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Wxh, Whh, Why = (rng.normal(size=shape) for shape in [(5, 3), (5, 5), (3, 5)])
    >>> bh, by = np.zeros((5, 1)), np.zeros((3, 1))
    >>> {name: array.shape for name, array in from_numpy([(Wxh, Whh, bh)], (Why, by)).items()}
    {'weight_ih_l0': (5, 3), 'weight_hh_l0': (5, 5), 'bias_l0': (5,), 'weight_ho': (3, 5), 'bias_o': (3,)}
    """
    check.flag(rows, "rows")
    found = []
    for k, layer in enumerate(_items(layers, "layers", "a list with (Wxh, Whh, bh) for each layer")):
        label, expected = f"layers[{k}]", "(Wxh, Whh, bh) or (Wxh, Whh), or a pair of these"
        cells = [(layer, label)]
        if isinstance(layer, (list, tuple)) and all(isinstance(cell, (list, tuple)) for cell in layer):
            cells = [(cell, f"{label}[{d}]") for d, cell in enumerate(check.pair(layer, label))]
        arrays = [_cell(cell, name, expected) for cell, name in cells]
        found.append([[*cell[:2], *(_vector(*bias) for bias in cell[2:])] for cell in arrays])
    last = [] if readout is None else _arrays(readout, "readout", "(Why, by) or (Why,)")
    return _state(found, [*last[:1], *(_vector(*bias) for bias in last[1:])], rows=rows)


def to_numpy(state: Mapping[str, Any], *, rows: bool = False) -> tuple[list[Any], tuple[Real, ...] | None]:
    """To (layers, readout), as `from_numpy` takes them: bh (H, 1) and by (O, 1), or, with `rows`, (H,) and (O,).

    A script with matrices on the left of vectors (H,) has the arrays of `state_dict` itself.

    Examples
    --------
    >>> import elman
    >>> model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=5)
    >>> [(Wxh, Whh, bh)], (Why, by) = to_numpy(model.state_dict())
    >>> Wxh.shape, Whh.shape, bh.shape, Why.shape, by.shape
    ((5, 3), (5, 5), (5, 1), (3, 5), (3, 1))
    """
    layers, readout = _parts(state, rows=check.flag(rows, "rows"))

    def shown(arrays: list[Real]) -> tuple[Real, ...]:
        return tuple(array if rows or array.ndim == 2 else array[:, None] for array in arrays)

    pairs = [tuple(map(shown, cells)) for cells in layers]
    return [pair if len(pair) == 2 else pair[0] for pair in pairs], shown(readout) if readout else None


# What all have in common


def _state(layers: list[list[_Cell]], readout: list[_Labelled], *, rows: bool) -> dict[str, Real]:
    """The dict from what there is of each layer and direction, and of a readout, once all shapes fit."""
    if len({len(cells) for cells in layers}) != 1:
        raise ValueError("layers must be one or more, all of them in one direction or all in both")
    if len(readout) > 2:
        raise ValueError(f"{readout[2][0]} must not be there: elman has nothing behind a readout")
    has_bias = bool(readout) or any(len(cell) > 2 for cells in layers for cell in cells)  # a model always has them
    found: list[_Labelled | None] = []
    for cells in layers:  # in elman's order, each kind of array for both directions
        padded = [[*cell, None][: 2 + has_bias] for cell in cells]
        found += [part for parts in zip(*padded, strict=True) for part in parts]
    architecture = _architecture(layers[0][0], len(layers), len(layers[0]) == 2, has_bias, rows=rows)
    entries = architecture.entries()
    if readout:
        entries += _readout_entries(architecture, *readout[0], rows=rows)
        found += [*readout, None][:2]
    state: dict[str, Real] = {}
    shapes = [(name, entry.shape[::-1] if rows else entry.shape) for entry in entries for name in entry.names]
    for (name, shape), labelled in zip(shapes, found, strict=True):
        array = np.zeros(shape, state["weight_hh_l0"].dtype) if labelled is None else _real(*labelled, shape)
        state[name] = np.array(array.T if rows else array, order="C")
    return state


def _checked(state: Any) -> tuple[Architecture, dict[str, Real]]:
    """The sizes that a state dict speaks of, and copies of its arrays under elman's names; there may be no others."""
    arrays = {name: check.as_array(value, name) for name, value in _mapping(state, "state").items()}
    first = [(name, arrays[name]) for name in ("weight_ih_l0", "weight_hh_l0") if name in arrays]
    if len(first) < 2:
        raise ValueError(f"state must have the keys weight_ih_l0 and weight_hh_l0, got {list(arrays)}")
    n_layers = sum(f"weight_hh_l{k}" in arrays for k in range(len(arrays)))
    has_bias = any(f"{kind}_l0" in arrays for kind in ("bias", "bias_ih", "bias_hh"))
    architecture = _architecture(first, n_layers, "weight_hh_l0_reverse" in arrays, has_bias, rows=False)
    entries = architecture.entries()
    if "weight_ho" in arrays:
        entries += _readout_entries(architecture, "weight_ho", arrays["weight_ho"], rows=False)
    is_single = all(array.dtype == np.float32 for array in arrays.values())
    named = Parameters(entries, np.dtype(np.float32 if is_single else np.float64)).named()
    load_state(named, arrays)
    return architecture, {name: np.array(array, order="C") for name, array in named.items()}


def _parts(state: Any, *, rows: bool) -> tuple[list[list[list[Real]]], list[Real]]:
    """For each layer and direction the weights and, if there is one, the bias; and those of a readout."""
    architecture, named = _checked(state)
    shown = {name: np.array(array.T if rows else array, order="C") for name, array in named.items()}
    kinds = ("weight_ih", "weight_hh", "bias")[: 2 + architecture.bias]
    suffixes = ("", "_reverse")[: architecture.n_directions]
    numbers = range(architecture.num_layers)
    layers = [[[shown[f"{kind}_l{k}{suffix}"] for kind in kinds] for suffix in suffixes] for k in numbers]
    return layers, [shown[name] for name in ("weight_ho", "bias_o") if name in shown]


def _architecture(first: _Cell, n_layers: int, is_bidirectional: bool, has_bias: bool, *, rows: bool) -> Architecture:
    """As the first layer has it; what has rows for gates as well is refused."""
    (ih, kernel), (hh, recurrent), *_ = first
    check.shape(recurrent.shape, hh, [("H", "H")])
    size, n = sorted(recurrent.shape)
    if n != size:
        gated = f": {_GATED[n // size]}'s, and elman has no gates" if n in (3 * size, 4 * size) else ""
        raise ValueError(f"{hh} must have shape (H, H), got {recurrent.shape}{gated}")
    check.shape(kernel.shape, ih, [("I", size) if rows else (size, "I")])
    return Architecture(kernel.shape[0 if rows else 1], size, n_layers, is_bidirectional, has_bias)


def _readout_entries(architecture: Architecture, name: str, weight: NDArray[Any], *, rows: bool) -> list[Entry]:
    n = architecture.n_outputs
    check.shape(weight.shape, name, [(n, "O") if rows else ("O", n)])
    n_outputs = weight.shape[1 if rows else 0]
    return [Entry(("weight_ho",), (n_outputs, n)), Entry(("bias_o",), (n_outputs,))]


def _embedding(name: str, value: Any, width: int | str) -> Real:
    """A copy of a table (n, width)."""
    return np.array(_real(name, check.as_array(value, name), ("n", width)), order="C")


def _real(name: str, array: NDArray[Any], shape: check.Shape) -> Real:
    """As wide as it was."""
    is_real = array.dtype in (np.float32, np.float64)
    return check.real_array(array, name, array.dtype if is_real else np.dtype(np.float64), shape)


def _array(value: Any, name: str) -> _Labelled:
    return name, check.as_array(value, name)


def _arrays(value: Any, name: str, expected: str) -> list[_Labelled]:
    return [_array(item, f"{name}[{i}]") for i, item in enumerate(_items(value, name, expected))]


def _cell(value: Any, name: str, expected: str) -> _Cell:
    """Two arrays or three; a bias that is None is none."""
    items = _items(value, name, expected)
    if len(items) not in (2, 3):
        raise ValueError(f"{name} must be {expected}, got {len(items)} items")
    return _arrays(items[:2] if items[-1] is None else items, name, expected)


def _items(value: Any, name: str, expected: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be {expected}, got {check.shown(value)}")
    if not value:
        raise ValueError(f"{name} must be {expected}, got none")
    return list(value)


def _mapping(value: Any, name: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict from names to arrays, got {check.shown(value)}")
    return value


def _vector(name: str, bias: NDArray[Any]) -> _Labelled:
    return name, bias.ravel() if bias.ndim == 2 and 1 in bias.shape else bias  # a column or a row


def _one_bias(name: str, both: NDArray[Any]) -> _Labelled:
    """The sum of the two that stand behind each other."""
    if both.size % 2:
        raise ValueError(f"{name} must have shape (2·H,), got {both.shape}")
    first, second = np.split(both, 2)
    return name, np.asarray(first + second)


def _inside(tree: Any, name: str, key: str) -> tuple[Mapping[Any, Any], str]:
    """The tree under a key, if there is one."""
    tree = _mapping(tree, name)
    return (_mapping(tree[key], f"{name}[{key!r}]"), f"{name}[{key!r}]") if key in tree else (tree, name)


def _flax_cell(tree: Any, name: str) -> _Cell:
    tree, name = _inside(tree, name, "cell")
    for i, h in (("i", "h"), ("dense_i", "dense_h")):
        if i in tree and h in tree:
            of_i, of_h = _mapping(tree[i], f"{name}[{i!r}]"), _mapping(tree[h], f"{name}[{h!r}]")
            check.same_names({*of_i, "bias"}, ["bias", "kernel"], f"{name}[{i!r}]")
            check.same_names(of_h, ["kernel"], f"{name}[{h!r}]")
            keys = [(i, "kernel"), (h, "kernel"), *([(i, "bias")] if "bias" in of_i else [])]
            return [_array(tree[outer][key], f"{name}[{outer!r}][{key!r}]") for outer, key in keys]
    expected = "the keys 'i' and 'h' (linen) or 'dense_i' and 'dense_h' (nnx) of a SimpleCell"
    raise ValueError(f"{name} must have {expected}, got {list(tree)}: give a list of layers, no GRU or LSTM among them")
