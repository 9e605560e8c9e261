"""The two passes of a stack of layers, from tensors to tensors, without derivatives.

Tensors are PyTorch's. input (T, B, I), (B, T, I) if batch_first, or the data (N, I) of a packed sequence; hx
(L·D, B, H), None for zeros; weights: for each layer and direction weight_ih (H, I), weight_hh (H, H) and, with biases,
bias_ih (H,) and bias_hh (H,); masks, in the form of the outputs, are what dropout multiplies those of each layer but
the last by, none without dropout. Weights lie the other way round in the kernels: `kernel_weights` transposes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman import backends, config, stack
from elman.stack import Tape, Weights
from elman.typing import Int, Real

_LARGE = 1 << 14  # elements from which on PyTorch transposes faster than NumPy

Gradients = tuple[Tensor | None, Tensor, list[Tensor | None]]  # by the input, hx and the weights


class Options(NamedTuple):
    """What a call depends on besides tensors."""

    num_layers: int
    relu: bool  # or tanh
    has_biases: bool
    bidirectional: bool
    batch_first: bool

    @property
    def n_directions(self) -> int:
        return 2 if self.bidirectional else 1


def forward(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Weights],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    options: Options,
    *,
    keep: bool,
) -> tuple[list[Tensor], Tensor]:
    """The outputs of each layer (of the last one only, unless they are to be kept) and the last states."""
    form = _Form(batch_sizes, options.batch_first)
    x = form.rows(input)
    n_layers, (n_directions, n_units, _) = options.num_layers, weights[0][1].shape
    n_buffers = n_layers if keep else min(n_layers, 2)  # which take turns
    buffers = [form.empty(x, n_directions * n_units) for _ in range(n_buffers)]
    outputs = [buffers[k % n_buffers] for k in range(n_layers)]
    h_0 = _states(hx, (n_layers * n_directions, x.shape[1], n_units), x.dtype)
    h_n = np.empty_like(h_0)
    tape = _tape(form, x, h_0, outputs, masks, options, is_inplace=not keep)
    _run(stack.forward, tape, weights, h_n)
    return [form.tensor(array) for array in (outputs if keep else outputs[-1:])], torch.from_numpy(h_n)


def backward(
    d_y: Tensor | None,
    d_h_n: Tensor | None,
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Weights],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    outputs: Sequence[Tensor],
    options: Options,
    has_d_input: bool,
    has_d_weights: Sequence[bool],
) -> Gradients:
    """Gradients from those of the outputs and the last states; by the input and weights only those that are needed."""
    form = _Form(batch_sizes, options.batch_first)
    x, (n_directions, n_units, _) = form.rows(input), weights[0][1].shape
    h_0 = _states(hx, (options.num_layers * n_directions, x.shape[1], n_units), x.dtype)
    tape = _tape(form, x, h_0, [form.rows(y) for y in outputs], masks, options, is_inplace=False)
    for k in range(1, len(masks) + 1):
        stack.drop(tape, k)
    gradients = [np.zeros(array.shape, array.dtype) for layer in weights for array in layer if array is not None]
    d_h_0 = np.empty_like(h_0)
    d_x = form.empty(x, x.shape[2]) if has_d_input else None
    scratch = [form.empty(x, tape.outputs[0].shape[2]) for _ in range(min(options.num_layers, 3))]
    _run(
        stack.backward,
        tape,
        weights,
        None if d_y is None else form.rows(d_y),
        None if d_h_n is None else _states(d_h_n, h_0.shape, x.dtype),
        d_h_0,
        d_x,
        gradients,
        scratch,
    )
    d_input = None if d_x is None else form.tensor(d_x)
    return d_input, torch.from_numpy(d_h_0), _torch_gradients(gradients, options, has_d_weights)


def _run(run: Callable[..., None], *arguments: Any) -> None:
    """On no more threads than PyTorch may use in this one."""
    config.bound_threads(torch.get_num_threads())
    try:
        run(*arguments)
    finally:
        config.bound_threads(0)


def _tape(
    form: _Form,
    x: Real,
    h_0: Real,
    outputs: list[Real],
    masks: Sequence[Tensor],
    options: Options,
    *,
    is_inplace: bool,
) -> Tape:
    """With dropout, layers have inputs of their own to be written, unless that may happen in place."""
    activation = "relu" if options.relu else "tanh"
    inputs = [x, *(outputs[:-1] if is_inplace or not masks else map(np.empty_like, outputs[:-1]))]
    rows = [form.rows(mask) for mask in masks]
    return Tape(backends.resolve(), activation, h_0, form.lengths, inputs, outputs, rows, None, form.batch_major, ())


# From tensors to arrays, and back


class _Form:
    """How arrays over time lie in tensors: (T, B, ·), (B, T, ·), or packed, (N, ·) without what is past the lengths.

    A packed sequence holds the rows of step 0, then those of step 1, and so on, the longest sequences first.
    """

    def __init__(self, batch_sizes: Tensor | None, batch_first: bool) -> None:
        self.batch_major = batch_first and batch_sizes is None
        self.lengths: Int | None = None
        self._is_active: NDArray[np.bool_] | None = None  # (T, B)
        if batch_sizes is not None:
            sizes = batch_sizes.numpy()
            self._is_active = np.arange(sizes[0]) < sizes[:, None]
            self.lengths = self._is_active.sum(axis=0, dtype=np.int64)

    def rows(self, tensor: Tensor) -> Real:
        """The tensor as (T, B, ·) with unit stride on the last axis: a view, unless packed or of another stride."""
        array: Real = tensor.detach().numpy()
        if self._is_active is not None:
            padded = np.empty((*self._is_active.shape, array.shape[-1]), array.dtype)
            padded[self._is_active] = array
            return padded
        if array.strides[2] != array.itemsize and array.shape[2] > 1:
            array = np.ascontiguousarray(array)
        return array.swapaxes(0, 1) if self.batch_major else array

    def empty(self, like: Real, n_columns: int) -> Real:
        """A fresh (T, B, n_columns), T and B as in another array."""
        n_steps, n_rows, _ = like.shape
        if self.batch_major:
            return np.empty((n_rows, n_steps, n_columns), like.dtype).swapaxes(0, 1)
        return np.empty((n_steps, n_rows, n_columns), like.dtype)

    def tensor(self, rows: Real) -> Tensor:
        """The inverse of `rows`."""
        if self._is_active is not None:
            return torch.from_numpy(rows[self._is_active])
        return torch.from_numpy(rows.swapaxes(0, 1) if self.batch_major else rows)


def _states(hx: Tensor | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """C-contiguous (L·D, B, H), zeros for None."""
    return np.zeros(shape, dtype) if hx is None else np.ascontiguousarray(hx.detach().numpy())


def kernel_weights(tensors: Sequence[Tensor], options: Options) -> list[Weights]:
    """For each layer weight_ih (D, I, H), weight_hh (D, H, H) and the sum of the biases (D, H)."""
    arrays = [tensor.detach().numpy() for tensor in tensors]
    n_tensors, n_directions = (4 if options.has_biases else 2), options.n_directions
    layers: list[Weights] = []
    for first in range(0, len(arrays), n_tensors * n_directions):
        weights_ih, weights_hh, *biases = (
            arrays[first + i : first + n_tensors * n_directions : n_tensors] for i in range(n_tensors)
        )
        bias = np.add(*biases) if biases else None
        layers.append((_transposed(weights_ih), _transposed(weights_hh), bias))
    return layers


def _transposed(matrices: Sequence[Real]) -> Real:
    """Matrices (m, n) as one C-contiguous (D, n, m)."""
    m, n = matrices[0].shape
    result = np.empty((len(matrices), n, m), matrices[0].dtype)
    for target, source in zip(result, matrices, strict=True):
        if source.size < _LARGE:
            target[...] = source.T
        else:
            torch.from_numpy(target).copy_(torch.from_numpy(source).t())
    return result


def _torch_gradients(gradients: Sequence[Real], options: Options, is_needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients by the kernels' weights as such by the tensors; each has memory of its own, that of two biases too."""
    n_arrays = 3 if options.has_biases else 2
    results: list[Tensor | None] = []
    for first in range(0, len(gradients), n_arrays):
        for d in range(options.n_directions):
            for array in (*gradients[first : first + n_arrays], *gradients[first + 2 : first + n_arrays]):
                if not is_needed[len(results)]:
                    results.append(None)
                elif array.ndim == 3:
                    results.append(torch.from_numpy(_transposed(array[d : d + 1])[0]))
                else:
                    results.append(torch.from_numpy(array[d].copy()))
    return results
