"""The two passes of a stack of layers, from tensors to tensors, without derivatives.

What is computed is a `Call`. Weights lie the other way round in the kernels: `kernel_weights` transposes them.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from elman import backends, threads
from elman.backends import native
from elman.backends.contract import Layer
from elman.layer import stack, tangents
from elman.layer.architecture import Architecture
from elman.layer.dynamics import OfLayer, row_keys
from elman.layer.parameters import Parameters
from elman.layer.resets import Resets, with_resets
from elman.layer.stack import Drawn, Mode, Tape, Weights
from elman.layer.workspace import Block, Lease, Workspace, pieces
from elman.lengths import within
from elman.typing import Int, Real

_SMALL = 1 << 16  # reals of weights that are kept from the forward to the backward pass, be there fewer outputs
_LEAST, _MOST = 1 << 17, 1 << 26  # bytes of results that are used again; more are the system's, fewer malloc's
_MOST_FREE = 1 << 28  # bytes that may wait for it
_UNUSED = 1 << 22  # reals of weights that are kept for calls to come
_DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_WORKSPACES = {np.dtype(kind): Workspace(np.dtype(kind)) for kind in (np.float32, np.float64)}  # new pages cost faults
_DROPPED = Layer._fields.index("dropped")
_NO_ROOM = Lease(Block(), [])


class _Memory(np.ndarray):
    """Memory of results, which comes back when the last array and tensor on it has gone.

    A system hands out pages of zeros, and takes as long over that as a pass over a mid-sized layer.
    """

    free: ClassVar[dict[int, list[bytearray]]] = {}  # what nobody has, by size
    _is_whole = False  # no view

    def __del__(self) -> None:
        if not (self._is_whole and isinstance(self.base, bytearray)):
            return
        self.free.setdefault(len(self.base), []).append(self.base)
        if sum(size * len(blocks) for size, blocks in list(self.free.items())) > _MOST_FREE:
            self.free.clear()

    @classmethod
    def array(cls, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
        """Fresh to whoever asks for it: arbitrary content."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not _LEAST <= n_bytes <= _MOST:
            return np.empty(shape, dtype)
        shift = n_bytes.bit_length() - 3  # four sizes from a power of 2 to the next
        size = (-(-n_bytes >> shift) << shift) + 64
        try:
            block = cls.free[size].pop()
        except (KeyError, IndexError):
            block = bytearray(size)
        # NumPy lets a view hold what its array is a view of, if that is an array, too; so this is one of a bytearray.
        memory = cls(size, np.uint8, block)
        memory._is_whole = True
        array = np.asarray(memory)
        start = -array.__array_interface__["data"][0] % 64
        return array[start : start + n_bytes].view(dtype).reshape(shape)


class Options(NamedTuple):
    """What a call depends on besides tensors."""

    num_layers: int
    nonlinearity: str
    has_biases: bool
    bidirectional: bool
    batch_first: bool
    cell: str = "elman"

    @property
    def are_pytorchs(self) -> bool:
        """Whether PyTorch has such layers itself, but for noise."""
        return self.cell == "elman" and self.nonlinearity in ("tanh", "relu")

    def architecture(self, input_size: int, hidden_size: int) -> Architecture:
        """That of the layers, given I and H."""
        return Architecture(input_size, hidden_size, self.num_layers, self.bidirectional, self.has_biases)


class Call(NamedTuple):
    """What is computed: a stack of layers over a sequence."""

    input: Tensor  # (T, B, I), (B, T, I) if batch_first, or the data (N, I) of a packed sequence
    hx: Tensor | None  # (L·D, B, H); None for zeros
    weights: Sequence[Tensor]  # of each layer's directions: weight_ih (H, I), weight_hh (H, H), bias_ih, bias_hh (H,)
    batch_sizes: Tensor | None  # of a packed sequence
    masks: Sequence[Tensor]  # what dropout multiplies the outputs of each layer but the last by, or none; as outputs
    leaks: Sequence[Tensor]  # of each layer of leaky cells: α (D, H)
    noises: Sequence[Tensor]  # of each layer, if there is noise: σ √(2/α) (D, H)
    seeds: Tensor | None  # of the noise, one of each row
    resets: Tensor | None  # bool (T, B), or (B, T) if batch_first: before which steps states become zeros
    options: Options

    @classmethod
    def of(
        cls,
        leaves: Sequence[Any],
        batch_sizes: Tensor | None,
        masks: Sequence[Any],
        seeds: Tensor | None,
        resets: Tensor | None,
        options: Options,
    ) -> Call:
        """From what a call can be differentiated by."""
        input, hx, *arrays = leaves
        n_weights = options.num_layers * (1 + options.bidirectional) * (4 if options.has_biases else 2)
        weights, others = arrays[:n_weights], arrays[n_weights:]
        n_leaks = 0 if options.cell == "elman" else options.num_layers
        leaks, noises = others[:n_leaks], others[n_leaks:]
        return cls(input, hx, weights, batch_sizes, masks, leaks, noises, seeds, resets, options)

    @property
    def leaves(self) -> tuple[Tensor | None, ...]:
        """What it can be differentiated by."""
        return self.input, self.hx, *self.weights, *self.leaks, *self.noises


class _Block(Block):
    """Memory for weights of layers, or gradients by them: cut once, as kernels take it and as tensors are."""

    __slots__ = ("architecture", "by_tensor", "weights")

    def __init__(self, architecture: Architecture, dtype: np.dtype[Any]) -> None:
        parameters, n = Parameters(architecture.entries(), dtype), architecture.n_entries // architecture.num_layers
        layers = [parameters.arrays[k : k + n] for k in range(0, architecture.n_entries, n)]
        self.architecture, self.memory = architecture, parameters.flat
        self.weights: list[Weights] = [(ih, hh, bias[0] if bias else None) for ih, hh, *bias in layers]
        self.arrays = [array[d] for layer in layers for d in range(architecture.n_directions) for array in layer]
        self.by_tensor = [array for array in self.arrays for _ in range(1 if array.ndim == 2 else 2)]


class KernelWeights(Lease):
    """Weights, or gradients by them, in the kernels' order, for as long as somebody has this.

    `arrays` are (I, H), (H, H) and, with biases, (H,) for each direction of each layer; `by_tensor` the same with each
    bias twice, as PyTorch has two, and `by_layer` as kernels take them.
    """

    __slots__ = ("architecture", "by_layer", "by_tensor", "memory")

    def __init__(self, options: Options, input_size: int, hidden_size: int, dtype: np.dtype[Any]) -> None:
        """Arbitrary content."""
        create, free = _pool(options, input_size, hidden_size, dtype)
        try:
            block = free.pop()
        except IndexError:
            block = create()
        super().__init__(block, free)
        self.architecture, self.memory = block.architecture, block.memory
        self.by_tensor, self.by_layer = block.by_tensor, block.weights

    def is_worth_keeping(self, outputs: Sequence[Tensor]) -> bool:
        """Whether weights need little memory from the forward to the backward pass, beside what has to be kept."""
        return bool(self.architecture.n_parameters <= max(_SMALL, len(outputs) * outputs[0].numel()))


@functools.lru_cache(maxsize=64)
def _pool(
    options: Options, input_size: int, hidden_size: int, dtype: np.dtype[Any]
) -> tuple[Callable[[], _Block], deque[_Block]]:
    """Blocks that nobody has: as many as a loop over steps, to be differentiated after its end, may need again."""
    architecture = options.architecture(input_size, hidden_size)
    return functools.partial(_Block, architecture, dtype), deque(maxlen=max(1, _UNUSED // architecture.n_parameters))


def forward(call: Call, weights: KernelWeights, *, keep: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs and the last states and, to be kept, the outputs of each layer: copies of the last one's, too.

    Behind these lies what leaky cells keep of each layer.
    """
    form, mode, architecture = TensorForm(call), _mode(call.options), weights.architecture
    x, dropout = form.rows(call.input), [form.rows(mask) for mask in call.masks]
    h_0 = _states(call.hx, architecture.state_shape(x.shape[1]), x.dtype)
    h_n, n_layers = np.empty(h_0.shape, h_0.dtype), architecture.num_layers
    outputs = [_empty(x, architecture.n_outputs) for _ in range(n_layers if keep else min(n_layers, 2))]
    while len(outputs) < n_layers:  # two take turns
        outputs.append(outputs[-2])
    seconds = [_empty(x, architecture.n_outputs) for _ in (call.leaks if keep else call.leaks[:1])]
    room = _lease(len(dropout), outputs[0]) if dropout else _NO_ROOM
    own = {"dropped": room.arrays, **_leaky(call, seconds if keep else seconds * n_layers)}
    layers = stack.layers_of(x, h_0, h_n, weights.by_layer, outputs, mode, form.lengths, **own)
    layers = with_resets(layers, _resets(call, h_0))
    y = outputs[-1]
    if keep:
        y = _empty(x, architecture.n_outputs)
        layers[-1] = _with_copy(layers[-1], y)
    with _AsManyThreads():
        _forward(layers, mode.backend, dropout)
    return form.tensor(y), torch.from_numpy(h_n), [form.tensor(array) for array in (*outputs, *seconds)] if keep else []


def _with_copy(layer: Layer, y: Real) -> Layer:
    """That writes its outputs there, too: as what is left of them where there is no dropout."""
    return tuple.__new__(Layer, (*layer[:_DROPPED], y, *layer[_DROPPED + 1 :]))  # `_replace` takes three times as long


def _forward(layers: Sequence[Layer], backend: ModuleType, dropout: Sequence[Real]) -> None:
    for k, layer in enumerate(layers):
        if k and dropout:
            _multiply(layers[k - 1].y, dropout[k - 1], layer.x)
        backend.forward(layer)


def backward(
    call: Call,
    weights: KernelWeights,
    kept: Sequence[Tensor],
    is_needed: Sequence[bool],
    *,
    d_y: Tensor | None,
    d_h_n: Tensor | None,
) -> list[Tensor | None]:
    """Gradients by the leaves, where they are needed, from those by the results, given what was kept."""
    (has_d_input, has_d_hx), n_weights = is_needed[:2], len(call.weights)
    form, mode = TensorForm(call), _mode(call.options)
    x, dropout = form.rows(call.input), [form.rows(mask) for mask in call.masks]
    h_0 = _states(call.hx, weights.architecture.state_shape(x.shape[1]), x.dtype)
    d_rows = None if d_y is None else form.rows(d_y)
    d_last = None if d_h_n is None else _states(d_h_n, h_0.shape, x.dtype)
    d_h_0, d_x = np.empty(h_0.shape, h_0.dtype), _empty(x, x.shape[2]) if has_d_input else None
    gradients = KernelWeights(call.options, x.shape[2], h_0.shape[2], x.dtype)
    gradients.memory.fill(0)  # kernels add to it
    n_layers, arrays = len(weights.by_layer), [form.rows(tensor) for tensor in kept]
    ys, seconds = arrays[:n_layers], arrays[n_layers:]
    room = _lease(len(dropout), ys[0]) if dropout else _NO_ROOM
    for k, mask in enumerate(dropout):
        _multiply(ys[k], mask, room.arrays[k])
    own = {"dropped": room.arrays, **_leaky(call, seconds)}
    layers = stack.layers_of(x, h_0, None, weights.by_layer, ys, mode, form.lengths, **own)
    layers = with_resets(layers, _resets(call, h_0))
    scratch = _lease(min(len(ys), 3), ys[0])
    pass_on = (lambda k, d_input: _multiply(d_input, dropout[k - 1], d_input)) if dropout else None
    d_leaks = _SumsOverRows(call, is_needed[2 + n_weights :])
    on_leaks = d_leaks.add if any(d_leaks.is_needed) else None
    with _AsManyThreads():
        tape, into = Tape(mode, layers), gradients.by_layer
        stack.backward(tape, d_rows, d_last, d_h_0, d_x, into, scratch.arrays, pass_on=pass_on, on_leaks=on_leaks)
    d_input, d_hx = None if d_x is None else form.tensor(d_x), torch.from_numpy(d_h_0) if has_d_hx else None
    return [d_input, d_hx, *_torch_gradients(gradients, is_needed[2 : 2 + n_weights]), *d_leaks.tensors]


def _resets(call: Call, h_0: Real) -> Resets | None:
    if call.resets is None:
        return None
    at = call.resets.numpy(force=True)
    return Resets(at.T if call.options.batch_first else at, np.zeros_like(h_0))


def moved(call: Call, d_leaves: Sequence[Tensor | None], n: int) -> tuple[Tensor, ...]:
    """The outputs and the last states, and their K tangents, from those of input, hx and weights, (K, *shape).

    There is no dropout.
    """
    weights, form = kernel_weights(call), TensorForm(call)
    y, h_n, kept = forward(call, weights, keep=True)
    x, n_layers = form.rows(call.input), len(weights.by_layer)
    h_0, arrays = _states(call.hx, tuple(h_n.shape), x.dtype), [form.rows(tensor) for tensor in kept]
    own = _leaky(call, arrays[n_layers:])
    layers = stack.layers_of(
        x, h_0, None, weights.by_layer, arrays[:n_layers], _mode(call.options), form.lengths, **own
    )
    d_x, d_h_0, *d_weights = d_leaves
    moves = tangents.Moves(
        n,
        None if d_x is None else [form.rows(one) for one in d_x],
        np.zeros((n, *h_0.shape), h_0.dtype) if d_h_0 is None else _contiguous(d_h_0),
        dict(_named(call.options, d_weights)),
    )
    with _AsManyThreads():
        d_rows, d_states = tangents.of_tape(Tape(_mode(call.options), layers), moves)
    d_ys = [form.tensor(one) for one in tangents.split(d_rows, n)]
    d_y = d_ys[0].unsqueeze(0) if n == 1 else torch.stack(d_ys)  # the copy would take as long as the kernel
    return y, h_n, d_y, torch.from_numpy(d_states)


def _named(options: Options, tensors: Sequence[Tensor | None]) -> Iterator[tuple[str, Real]]:
    """What there is for each of the weights, under the names of an `elman.RNN`, whose bias is the sum of both."""
    directions, n = ("", "_reverse")[: 1 + options.bidirectional], 4 if options.has_biases else 2
    for k in range(options.num_layers):
        for d, suffix in enumerate(directions):
            first = (k * len(directions) + d) * n
            weight_ih, weight_hh, *biases = tensors[first : first + n]
            found = {"weight_ih": [weight_ih], "weight_hh": [weight_hh], "bias": biases}
            for name, parts in found.items():
                given = [part.numpy(force=True) for part in parts if part is not None]
                if given:
                    yield f"{name}_l{k}{suffix}", sum(given[1:], given[0])


def _mode(options: Options) -> Mode:
    return Mode(backends.resolve(), options.nonlinearity)


def _leaky(call: Call, seconds: Sequence[Real]) -> dict[str, Any]:
    """What `layers_of` takes of leaks and noise."""
    if not call.leaks and not call.noises:
        return {}
    n_layers, cell = call.options.num_layers, call.options.cell
    nothing: list[Real | None] = [None] * n_layers
    leaks, noises = list(map(_contiguous, call.leaks)) or nothing, list(map(_contiguous, call.noises)) or nothing
    dynamics = [OfLayer(cell, *own) for own in zip(leaks, noises, strict=True)]
    drawn = None if call.seeds is None else Drawn(keys=row_keys(call.seeds.numpy(force=True), len(call.seeds)))
    return {"dynamics": dynamics, "seconds": seconds, "drawn": drawn}


def normals(seeds: Tensor, n_steps: int, n_columns: int, stream: int) -> Tensor:
    """The standard normals of noise, float64 (T, B, n_columns), as `elman.backends.reference.normals` has them."""
    functorch = torch._C._functorch
    if functorch.is_batchedtensor(seeds):  # by vmap with randomness="different"
        each = functorch.get_unwrapped(seeds).movedim(functorch.maybe_get_bdim(seeds), 0).unbind()
        drawn = torch.stack([normals(one, n_steps, n_columns, stream) for one in each])
        return functorch._add_batch_dim(drawn, 0, functorch.maybe_get_level(seeds))
    with torch._C._DisableFuncTorch():
        while functorch.is_functorch_wrapped_tensor(seeds):
            seeds = functorch.get_unwrapped(seeds)
        own = row_keys(seeds.numpy(force=True), len(seeds))
    out = np.empty((n_steps, len(seeds), n_columns))
    backends.resolve().normals(out, own, stream=stream)
    return torch.from_numpy(out)


class _SumsOverRows:
    """Of the gradients by leaks and noises, in the order of a call's leaves: those that are needed."""

    def __init__(self, call: Call, is_needed: Sequence[bool]) -> None:
        self.is_needed, self.n_leaks = is_needed, len(call.leaks)
        self.tensors: list[Tensor | None] = [None] * len(is_needed)

    def add(self, k: int, d_numbers: Real, d_noise: Real | None) -> None:
        """Those of layer k, each row's (D, B, H)."""
        for i, array in ((k, d_numbers), (self.n_leaks + k, d_noise)):
            if array is not None and self.is_needed[i]:
                self.tensors[i] = torch.from_numpy(array.sum(axis=1, dtype=np.float64).astype(array.dtype))


class _AsManyThreads:
    """For as long as a `with` block, kernels take no more threads than PyTorch may use in this one."""

    def __enter__(self) -> None:
        threads.bound_threads(torch.get_num_threads())

    def __exit__(self, *_: object) -> None:
        threads.bound_threads(0)


def _multiply(rows: Real, mask: Real, target: Any) -> None:
    """What dropout does to outputs (T, B, D·H), and to the gradient by its results."""
    with np.errstate(all="ignore"):  # beyond the lengths there is anything
        for piece in pieces(target):
            np.multiply(rows[piece], mask[piece], out=target[piece])


# From tensors to arrays, and back


class TensorForm:
    """How arrays over time lie in tensors: (T, B, ·), (B, T, ·), or packed, (N, ·) without what is past the lengths.

    A packed sequence holds the rows of step 0, then those of step 1, and so on, the longest sequences first.
    """

    def __init__(self, call: Call) -> None:
        batch_sizes = call.batch_sizes
        self.batch_major = call.options.batch_first and batch_sizes is None
        self.lengths: Int | None = None
        self._is_active: NDArray[np.bool_] | None = None  # (T, B)
        if batch_sizes is not None:
            sizes = batch_sizes.numpy()  # of rows at each step: as it were, lengths in the other direction
            self.lengths = within(sizes[0], sizes).sum(axis=1, dtype=np.int64)
            self._is_active = within(len(sizes), self.lengths)

    def rows(self, tensor: Tensor) -> Real:
        """The tensor as (T, B, ·) with unit stride on the last axis: a view, unless packed or of another stride."""
        array: Real = tensor.numpy(force=True)
        if self._is_active is not None:
            padded = np.empty((*self._is_active.shape, array.shape[-1]), array.dtype)
            padded[self._is_active] = array
            return padded
        if (array.strides[2] != array.itemsize and array.shape[2] > 1) or not array.flags.aligned:
            array = array.copy()
        return array.swapaxes(0, 1) if self.batch_major else array

    def tensor(self, rows: Real) -> Tensor:
        """The inverse of `rows`."""
        if self._is_active is not None:
            return torch.from_numpy(rows[self._is_active])
        return torch.from_numpy(rows.swapaxes(0, 1) if self.batch_major else rows)


def _empty(like: Real, n_columns: int) -> Real:
    """A fresh (T, B, n_columns), T and B as in another array: in this order, as PyTorch's results lie in memory."""
    return _Memory.array((*like.shape[:2], n_columns), like.dtype)


def _lease(count: int, like: Real) -> Lease:
    """Arrays (T, B, ·) as another one, with arbitrary content."""
    workspace = _WORKSPACES[like.dtype] if count * like.nbytes <= _MOST else Workspace(like.dtype)
    return workspace.lease(count, *like.shape)


def _states(hx: Tensor | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """C-contiguous (L·D, B, H), zeros for None."""
    return np.zeros(shape, dtype) if hx is None else _contiguous(hx)


def _contiguous(tensor: Tensor) -> Real:
    return np.require(tensor.numpy(force=True), requirements=["C", "A"])


def kernel_weights(call: Call) -> KernelWeights:
    """The weights of each layer as kernels take them; the bias is the sum of both."""
    (weight_ih, weight_hh, *_), tensors = call.weights, call.weights
    weights = KernelWeights(call.options, weight_ih.shape[1], weight_hh.shape[1], _DTYPES[weight_ih.dtype])
    native.from_tensors(weights.arrays, [to_dlpack(tensor.contiguous()) for tensor in tensors])
    return weights


def _torch_gradients(gradients: KernelWeights, is_needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients by the kernels' weights as such by the tensors; each has memory of its own, that of two biases too."""
    sources = gradients.by_tensor
    pairs = zip(sources, is_needed, strict=True)
    targets = [_Memory.array(array.shape[::-1], array.dtype) if needed else None for array, needed in pairs]
    native.transpose_each(sources, targets)
    return [None if target is None else torch.from_numpy(target) for target in targets]
