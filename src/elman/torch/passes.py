"""The two passes of a stack of layers, from tensors to tensors, without derivatives.

Tensors are PyTorch's. input (T, B, I), (B, T, I) if batch_first, or the data (N, I) of a packed sequence; hx
(L·D, B, H), None for zeros; weights: for each layer and direction weight_ih (H, I), weight_hh (H, H) and, with biases,
bias_ih (H,) and bias_hh (H,); masks, in the form of the outputs, are what dropout multiplies those of each layer but
the last by, none without dropout. Weights lie the other way round in the kernels: `kernel_weights` transposes them.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence
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
from elman.layer import stack
from elman.layer.architecture import Architecture
from elman.layer.parameters import Parameters
from elman.layer.stack import Mode, Tape, Weights
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
    n_free: ClassVar[int] = 0  # bytes of it
    _is_whole = False  # no view

    def __del__(self) -> None:
        if not (self._is_whole and isinstance(self.base, bytearray)):
            return
        _Memory.n_free += len(self.base)
        if _Memory.n_free > _MOST_FREE:
            _Memory.free, _Memory.n_free = {}, 0
        else:
            self.free.setdefault(len(self.base), []).append(self.base)

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
            _Memory.n_free -= size
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
    relu: bool  # or tanh
    has_biases: bool
    bidirectional: bool
    batch_first: bool

    def architecture(self, input_size: int, hidden_size: int) -> Architecture:
        """That of the layers, given I and H."""
        return Architecture(input_size, hidden_size, self.num_layers, self.bidirectional, self.has_biases)


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


class Layers(Lease):
    """Weights, or gradients by them, in the kernels' order, for as long as somebody has this.

    `arrays` are (I, H), (H, H) and, with biases, (H,) for each direction of each layer; `by_tensor` the same with each
    bias twice, as PyTorch has two, and `weights` as kernels take them.
    """

    __slots__ = ("architecture", "by_tensor", "memory", "weights")

    def __init__(self, options: Options, input_size: int, hidden_size: int, dtype: np.dtype[Any]) -> None:
        """Arbitrary content."""
        create, free = _pool(options, input_size, hidden_size, dtype)
        try:
            block = free.pop()
        except IndexError:
            block = create()
        super().__init__(block, free)
        self.architecture, self.memory = block.architecture, block.memory
        self.by_tensor, self.weights = block.by_tensor, block.weights

    def is_worth_keeping(self, outputs: Sequence[Tensor]) -> bool:
        """Whether weights need little memory from the forward to the backward pass, beside what has to be kept."""
        return bool(self.architecture.n_parameters <= max(_SMALL, len(outputs) * outputs[0].numel()))


@functools.lru_cache(maxsize=64)
def _pool(
    options: Options, input_size: int, hidden_size: int, dtype: np.dtype[Any]
) -> tuple[Callable[[], _Block], deque[_Block]]:
    """Blocks that nobody has: as many as a loop over steps, to be differentiated after its end, may need again."""
    architecture = options.architecture(input_size, hidden_size)
    return functools.partial(_Block, architecture, dtype), deque(maxlen=max(4, _UNUSED // architecture.n_parameters))


def forward(
    input: Tensor,
    hx: Tensor | None,
    layers: Layers,
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    options: Options,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs and the last states and, to be kept, the outputs of each layer: copies of the last one's, too."""
    form, mode = TensorForm(batch_sizes, options.batch_first), _mode(options)
    x, dropout = form.rows(input), [form.rows(mask) for mask in masks]
    h_0 = _states(hx, layers.architecture.state_shape(x.shape[1]), x.dtype)
    h_n, n_layers = np.empty(h_0.shape, h_0.dtype), options.num_layers
    outputs = [form.empty(x, layers.architecture.n_outputs) for _ in range(n_layers if keep else min(n_layers, 2))]
    while len(outputs) < n_layers:  # two take turns
        outputs.append(outputs[-2])
    room = _lease(len(masks), outputs[0]) if masks else _NO_ROOM
    made = stack.layers_of(x, h_0, h_n, layers.weights, outputs, mode, form.lengths, dropped=room.arrays)
    y = outputs[-1]
    if keep:
        y = form.empty(x, layers.architecture.n_outputs)
        made[-1] = _with_copy(made[-1], y)
    _run(_forward, made, mode.backend, dropout)
    return form.tensor(y), torch.from_numpy(h_n), [form.tensor(array) for array in outputs] if keep else []


def _with_copy(layer: Layer, y: Real) -> Layer:
    """That writes its outputs there, too: as what is left of them where there is no dropout."""
    return tuple.__new__(Layer, (*layer[:_DROPPED], y, *layer[_DROPPED + 1 :]))  # `_replace` takes three times as long


def _forward(layers: Sequence[Layer], backend: ModuleType, dropout: Sequence[Real]) -> None:
    for k, layer in enumerate(layers):
        if k and dropout:
            _multiply(layers[k - 1].y, dropout[k - 1], layer.x)
        backend.forward(layer)


def backward(
    d_y: Tensor | None,
    d_h_n: Tensor | None,
    input: Tensor,
    hx: Tensor | None,
    layers: Layers,
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    outputs: Sequence[Tensor],
    options: Options,
    is_needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients by input, hx and the weights, where they are needed."""
    has_d_input, has_d_hx, *has_d_weights = is_needed
    form, mode = TensorForm(batch_sizes, options.batch_first), _mode(options)
    x, dropout = form.rows(input), [form.rows(mask) for mask in masks]
    h_0 = _states(hx, layers.architecture.state_shape(x.shape[1]), x.dtype)
    d_rows = None if d_y is None else form.rows(d_y)
    d_last = None if d_h_n is None else _states(d_h_n, h_0.shape, x.dtype)
    d_h_0, d_x = np.empty(h_0.shape, h_0.dtype), form.empty(x, x.shape[2]) if has_d_input else None
    gradients = Layers(options, x.shape[2], h_0.shape[2], x.dtype)
    gradients.memory.fill(0)  # kernels add to it
    ys = [form.rows(y) for y in outputs]
    room = _lease(len(masks), ys[0]) if masks else _NO_ROOM
    for k, mask in enumerate(dropout):
        _multiply(ys[k], mask, room.arrays[k])
    made = stack.layers_of(x, h_0, None, layers.weights, ys, mode, form.lengths, dropped=room.arrays)
    scratch = _lease(min(options.num_layers, 3), ys[0])
    pass_on = (lambda k, d_input: _multiply(d_input, dropout[k - 1], d_input)) if masks else None
    tape = Tape(mode, made)
    _run(stack.backward, tape, d_rows, d_last, d_h_0, d_x, gradients.weights, scratch.arrays, None, pass_on)
    d_input, d_hx = None if d_x is None else form.tensor(d_x), torch.from_numpy(d_h_0) if has_d_hx else None
    return [d_input, d_hx, *_torch_gradients(gradients, has_d_weights)]


def _mode(options: Options) -> Mode:
    return Mode(backends.resolve(), "relu" if options.relu else "tanh")


def _run(run: Callable[..., None], *arguments: Any) -> None:
    """On no more threads than PyTorch may use in this one."""
    threads.bound_threads(torch.get_num_threads())
    try:
        run(*arguments)
    finally:
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

    def __init__(self, batch_sizes: Tensor | None, batch_first: bool) -> None:
        self.batch_major = batch_first and batch_sizes is None
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
        if array.strides[2] != array.itemsize and array.shape[2] > 1:
            array = np.ascontiguousarray(array)
        return array.swapaxes(0, 1) if self.batch_major else array

    def empty(self, like: Real, n_columns: int) -> Real:
        """A fresh (T, B, n_columns), T and B as in another array: in this order, as PyTorch's results lie in memory."""
        return _Memory.array((*like.shape[:2], n_columns), like.dtype)

    def tensor(self, rows: Real) -> Tensor:
        """The inverse of `rows`."""
        if self._is_active is not None:
            return torch.from_numpy(rows[self._is_active])
        return torch.from_numpy(rows.swapaxes(0, 1) if self.batch_major else rows)


def _lease(count: int, like: Real) -> Lease:
    """Arrays (T, B, ·) as another one, with arbitrary content."""
    return _WORKSPACES[like.dtype].lease(count, *like.shape)


def _states(hx: Tensor | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """C-contiguous (L·D, B, H), zeros for None."""
    return np.zeros(shape, dtype) if hx is None else np.ascontiguousarray(hx.numpy(force=True))


def kernel_weights(tensors: Sequence[Tensor], options: Options) -> Layers:
    """The weights of each layer as kernels take them; the bias is the sum of both."""
    layers = Layers(options, tensors[0].shape[1], tensors[1].shape[1], _DTYPES[tensors[0].dtype])
    native.from_tensors(layers.arrays, [to_dlpack(tensor.contiguous()) for tensor in tensors])
    return layers


def _torch_gradients(gradients: Layers, is_needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients by the kernels' weights as such by the tensors; each has memory of its own, that of two biases too."""
    sources = gradients.by_tensor
    pairs = zip(sources, is_needed, strict=True)
    targets = [_Memory.array(array.shape[::-1], array.dtype) if needed else None for array, needed in pairs]
    native.transpose_each(sources, targets)
    return [None if target is None else torch.from_numpy(target) for target in targets]
