"""The layer: a stack of recurrent layers, in one direction or both.

Data flows one way: a `_Batch` holds a call's input as the kernels' (T, B, I), whatever form it came in; `_forward` and
`_backward` lease memory and run the stack (stack.py); the `_Batch` gives the results the form of the input again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol, overload

import numpy as np

from elman import backends, check
from elman.attributes import Checked, Checks, one_of, optional
from elman.backends.activations import Activation
from elman.backends.contract import Layer
from elman.backends.reference import ACTIVATIONS
from elman.layer import forms, stack
from elman.layer.parameters import Entry, Parameters, load_state, to_pytorch
from elman.layer.stack import Tape, Weights
from elman.layer.workspace import Lease, Pool, pieces
from elman.typing import Int, Real

INITIALIZATIONS = ("uniform", "orthogonal", "identity")  # of weight_hh
_CHUNK = 64  # time steps that last_state() runs at once: packing the weights for them costs 1 % of the work


def _nonlinearity(value: Any, name: str) -> str | Activation:
    return value if isinstance(value, Activation) else check.choice(value, name, ACTIVATIONS)


class Pullback(Protocol):
    """The derivative of one call of `RNN.vjp`, transposed: from gradients of its results to those of its arguments."""

    def __call__(
        self, d_y: Any, d_h_n: Any = None, *, input_grad: bool = True
    ) -> tuple[Any, Real, dict[str, Real]]: ...


class _Batch(NamedTuple):
    """One call's input as the kernels take it, and the form that the caller knows it in."""

    x: Real  # (T, B, I)
    h_0: Real  # (L·D, B, H)
    lengths: Int | None
    form: str  # "time_major", "batch_major", "single" (unbatched) or "list"
    lease: Lease | None  # holds the memory of x where sequences were copied together

    @property
    def batch_major(self) -> bool:
        """Whether arrays over time lie in memory as (B, T, ·); for a list, what is past the ends stays untouched."""
        return self.form in ("batch_major", "list")

    def shapes(self, n_columns: int) -> list[tuple[int, ...]]:
        """What the caller knows an array over time as: for a list, one shape for each sequence."""
        n_steps, n_rows = self.x.shape[:2]
        if self.form == "list":
            assert self.lengths is not None
            return [(n, n_columns) for n in self.lengths.tolist()]
        if self.form == "single":
            return [(n_steps, n_columns)]
        return [(n_rows, n_steps, n_columns) if self.batch_major else (n_steps, n_rows, n_columns)]

    def empty(self, n_columns: int) -> Real:
        """A fresh (T, B, n_columns), zero where no kernel writes unless the caller never sees that."""
        n_steps, n_rows = self.x.shape[:2]
        shape = (n_rows, n_steps, n_columns) if self.batch_major else (n_steps, n_rows, n_columns)
        is_padded = self.lengths is not None and self.form != "list"
        array = np.zeros(shape, self.x.dtype) if is_padded else np.empty(shape, self.x.dtype)
        return array.swapaxes(0, 1) if self.batch_major else array

    def show(self, array: Real) -> Any:
        """A (T, B, ·) as the caller knows it."""
        if self.form == "list":
            assert self.lengths is not None
            return [array[:n, b] for b, n in enumerate(self.lengths.tolist())]
        if self.form == "single":
            return array[:, 0]
        return array.swapaxes(0, 1) if self.form == "batch_major" else array

    def show_state(self, h: Real) -> Real:
        """A (L·D, B, H) as the caller knows it."""
        return h.reshape(h.shape[0], h.shape[2]) if self.form == "single" else h


class RNN(Checked):
    """The Elman network: h[t] = f(weight_ih x[t] + weight_hh h[t-1] + bias), in layers and in one or two directions.

    Shapes and meaning are those of `torch.nn.RNN`, with one bias instead of two.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; each layer's outputs are the next one's inputs.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"} or Activation
        The function f. One of your own, from `elman.activation`, is compiled by Numba, but for the backend "numpy".
    bias : bool
        Whether there is a bias.
    batch_first : bool
        Whether padded inputs and outputs are (B, T, ·) instead of (T, B, ·). States are (L·D, B, H) all the same.
    dropout : float
        Probability with which `vjp` zeroes an output of a layer on its way to the next one; the rest is scaled by
        1 / (1 - dropout). A plain call drops nothing.
    bidirectional : bool
        Whether each layer also runs backwards in time (D = 2); its outputs stand behind the others, (T, B, 2·H).
    recurrent_dropout : float
        Probability with which `vjp` drops a state on its way to the next step, the same units at all steps of a
        sequence (Gal & Ghahramani, 2016); the rest is scaled by 1 / (1 - recurrent_dropout).
    initialization : {"uniform", "orthogonal", "identity"}
        Of weight_hh: uniform as all parameters; a random orthogonal matrix (Saxe et al., 2014); or the identity, with
        zeros as biases, which lets relu units remember (Le, Jaitly & Hinton, 2015).
    spectral_radius : float, optional
        What weight_hh is scaled to: the largest magnitude of its eigenvalues.
    dtype : {"float32", "float64"}
        Of weights and results. Real input of the other width is converted.
    seed : None, int or numpy.random.Generator
        Initial weights are uniform in ±1/√H: drawn in float64, array by array in the order of `parameters()`, so that
        the two dtypes agree. Dropout has a generator of its own, which a further draw seeds.
    backend : {"numpy", "numba", "cython"}, optional
        For this layer; by default what `elman.use_backend` chose.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Notes
    -----
    A layer can be called from several threads at once, pickled and copied with `copy.deepcopy`. The attributes dropout,
    recurrent_dropout, nonlinearity, batch_first and backend may be set, to what the constructor takes; the others that
    have names of arguments are fixed.

    Examples
    --------
    >>> import numpy as np
    >>> rnn = RNN(3, 5, num_layers=2, seed=0)
    >>> y, h_n = rnn(np.ones((7, 4, 3), dtype=np.float32))  # 7 steps of 4 sequences
    >>> y.shape, h_n.shape
    ((7, 4, 5), (2, 4, 5))
    >>> rnn
    RNN(3, 5, num_layers=2) with 100 parameters
    """

    _default_backend: ClassVar[str | None] = None  # elman.reference sets it
    _fixed = frozenset(
        (
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "bidirectional",
            "dtype",
            "initialization",
            "spectral_radius",
        )
    )
    _settable: ClassVar[Checks] = {
        "nonlinearity": _nonlinearity,
        "batch_first": check.flag,
        "dropout": check.probability,
        "recurrent_dropout": check.below_one,
        "backend": optional(one_of(backends.NAMES)),
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_dropout: float = 0.0,
        initialization: str = "uniform",
        spectral_radius: float | None = None,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        self.input_size = check.size(input_size, "input_size")
        self.hidden_size = check.size(hidden_size, "hidden_size")
        self.num_layers = check.number_of_layers(num_layers, "num_layers")
        self.nonlinearity = nonlinearity  # what can be set again is checked wherever it is set
        self.bias = check.flag(bias, "bias")
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = check.flag(bidirectional, "bidirectional")
        self.recurrent_dropout = recurrent_dropout
        self.initialization = check.choice(initialization, "initialization", INITIALIZATIONS)
        self.spectral_radius = optional(check.finite_positive)(spectral_radius, "spectral_radius")
        self.dtype = check.real_dtype(dtype)
        self.backend = backend
        rng = check.generator(seed)
        self._check_size()
        self._bind(Parameters(self._entries(), self.dtype))
        self._draw_parameters(rng)
        self._dropout_rng = np.random.default_rng(rng.integers(1 << 63))

    # The public calls

    @overload
    def __call__(self, x: list[Real], h_0: Real | None = None, lengths: None = None) -> tuple[list[Real], Real]: ...
    @overload
    def __call__(self, x: Real, h_0: Real | None = None, lengths: Any = None) -> tuple[Real, Real]: ...
    def __call__(self, x: Any, h_0: Any = None, lengths: Any = None) -> tuple[Any, Real]:
        """Run the network over a batch of sequences.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) if batch_first; or unbatched (T, I); or a list of arrays (T_i, I)
            float32 or float64. In a list T_i may be 0.
        h_0 : array (L·D, B, H), or (L·D, H) if x is unbatched, optional
            Initial states, zeros by default.
        lengths : integers (B,), optional
            Sequence b of a padded x has lengths[b] steps, 0 to T; what lies beyond is not read.

        Returns
        -------
        y : array (T, B, D·H) in the form of x: (B, T, D·H), (T, D·H) or a list of (T_i, D·H)
            The last layer's states after each step; zero beyond a sequence's length.
        h_n : array in the shape of h_0
            Each layer's states at each sequence's own last step.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it, what was expected and what came.

        Examples
        --------
        >>> rnn = RNN(3, 5, bidirectional=True, seed=0)
        >>> y, h_n = rnn([np.ones((7, 3)), np.ones((2, 3))])
        >>> [item.shape for item in y], h_n.shape
        ([(7, 10), (2, 10)], (2, 2, 5))
        """
        batch = self._batch(x, h_0, lengths)
        y, h_n = batch.empty(self._n_outputs), np.empty_like(batch.h_0)
        self._forward(
            self._resolve(), batch.x, batch.h_0, h_n, y, batch.lengths, batch_major=batch.batch_major, training=False
        )
        return batch.show(y), batch.show_state(h_n)

    @overload
    def vjp(
        self, x: list[Real], h_0: Real | None = None, lengths: None = None
    ) -> tuple[list[Real], Real, Pullback]: ...
    @overload
    def vjp(self, x: Real, h_0: Real | None = None, lengths: Any = None) -> tuple[Real, Real, Pullback]: ...
    def vjp(self, x: Any, h_0: Any = None, lengths: Any = None) -> tuple[Any, Real, Pullback]:
        """Run the network and return, with its results, the function that takes their gradients back to the arguments.

        Arguments, the first two results and errors are those of a call, but there is dropout between the layers.

        Returns
        -------
        y, h_n
            As in a call; y is read-only, as the pullback needs it.
        pullback : function (d_y, d_h_n=None, *, input_grad=True) -> (d_x, d_h_0, d_params)
            Takes the gradients of a loss by y and h_n, in their shapes, None for zeros; d_y beyond a length is ignored.
            Returns the gradients by x (None without `input_grad`; zero beyond a length), by h_0, and by the parameters,
            a dict named and shaped like `parameters()`. It can be called again, with the same dropout. Neither x nor
            the weights may change before; of h_0 and lengths it has copies.

        Examples
        --------
        >>> rnn = RNN(3, 5, seed=0)
        >>> y, h_n, pullback = rnn.vjp(np.ones((7, 4, 3)))
        >>> d_x, d_h_0, d_params = pullback(2 * y)  # of the sum of squares
        >>> d_x.shape, d_h_0.shape, d_params["weight_ih_l0"].shape
        ((7, 4, 3), (1, 4, 5), (5, 3))
        """
        batch = self._batch(x, h_0, lengths)
        y, h_n = batch.empty(self._n_outputs), np.empty_like(batch.h_0)
        # h_0 is copied, as callers like to update their state in place before they call the pullback.
        tape = self._forward(
            self._resolve(), batch.x, batch.h_0.copy(), h_n, y, batch.lengths, batch_major=batch.batch_major
        )

        def pullback(d_y: Any, d_h_n: Any = None, *, input_grad: bool = True) -> tuple[Any, Real, dict[str, Real]]:
            """Gradients (d_x, d_h_0, d_params) from those of y and h_n: see RNN.vjp."""
            return self._pull_back(batch, tape, d_y, d_h_n, input_grad=input_grad)

        shown = y.view()
        shown.flags.writeable = False
        return batch.show(shown), batch.show_state(h_n), pullback

    def last_state(self, x: Any, h_0: Any = None, lengths: Any = None) -> Real:
        """The h_n of a call, bit for bit, in memory that does not grow with T (nor is any output kept).

        Arguments and errors are those of a call. x is read where it lies, unless it has to be converted. Where several
        layers run in both directions, each needs the outputs of the one below from both ends, so they are kept whole.

        Examples
        --------
        >>> RNN(3, 5, seed=0).last_state(np.ones((10_000, 1, 3), dtype=np.float32)).shape
        (1, 1, 5)
        """
        batch = self._batch(x, h_0, lengths)
        backend, h_n = self._resolve(), np.empty_like(batch.h_0)
        if not self.bidirectional:
            h, h_n = h_n, batch.h_0.copy()
            for part, part_lengths in _chunks(batch):
                h, h_n = h_n, h
                self._forward(backend, part, h, h_n, None, part_lengths, training=False)
        elif self.num_layers == 1:
            self._last_states_both_ways(backend, batch, h_n)
        else:
            self._forward(
                backend, batch.x, batch.h_0, h_n, None, batch.lengths, batch_major=batch.batch_major, training=False
            )
        return batch.show_state(h_n)

    def step(self, x_t: Any, h: Any = None) -> tuple[Real, Real]:
        """One time step, for input that comes in bit by bit: the same as a call with T = 1.

        Parameters
        ----------
        x_t : array (B, I), or (I,) unbatched
        h : array (L, B, H), or (L, H) unbatched, optional
            States after the previous step, zeros by default.

        Returns
        -------
        y_t : array (B, H) or (H,)
        h : array in the shape of h
            States after this step.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if the layer is bidirectional: it needs the future.

        Examples
        --------
        >>> rnn = RNN(3, 5, seed=0)
        >>> y_t, h = rnn.step(np.ones(3))
        >>> y_t, h = rnn.step(np.ones(3), h)
        >>> y_t.shape, h.shape
        ((5,), (1, 5))
        """
        if self.bidirectional:
            check.refuse("step is not possible with bidirectional=True: that direction begins at the last step")
        x_t = check.real_array(x_t, "x_t", self.dtype, ("B", self.input_size), (self.input_size,), contiguous=True)
        shape = (self.num_layers, *x_t.shape[:-1], self.hidden_size)
        h = np.zeros(shape, self.dtype) if h is None else check.real_array(h, "h", self.dtype, shape, contiguous=True)
        h_next = after = np.empty(shape, self.dtype)
        if x_t.ndim == 1:
            rows = (self.num_layers, 1, self.hidden_size)
            x_t, h, after = x_t.reshape(1, -1), h.reshape(rows), h_next.reshape(rows)
        self._advance(self._resolve(), x_t, h, after)
        return h_next[-1].copy(), h_next

    # Parameters

    def parameters(self) -> dict[str, Real]:
        """The parameters by name: live, writable arrays, in which a change takes effect at once.

        For each layer k: weight_ih_l{k} (H, I), or (H, D·H) above the first; weight_hh_l{k} (H, H); with a bias,
        bias_l{k} (H,). Those of the backward direction have "_reverse" behind the name.

        Examples
        --------
        >>> {name: array.shape for name, array in RNN(3, 5).parameters().items()}
        {'weight_ih_l0': (5, 3), 'weight_hh_l0': (5, 5), 'bias_l0': (5,)}
        """
        return self._parameters.named(self._n_entries)

    def state_dict(self, *, pytorch: bool = False) -> dict[str, Real]:
        """Copies of the parameters by name; if `pytorch`, what torch.nn.RNN.load_state_dict takes (as tensors).

        PyTorch's two biases are then ours, bias_ih_l{k}, and zeros, bias_hh_l{k}.

        Examples
        --------
        >>> list(RNN(3, 5).state_dict(pytorch=True))
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        own = self.parameters()
        if pytorch:
            return to_pytorch(own)
        return {name: array.copy() for name, array in own.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy parameters from a dict of arrays with the names of `state_dict()`, or of torch.nn.RNN.

        PyTorch's two biases are added up. Values are float32 or float64, in anything that NumPy makes an array of.

        Raises
        ------
        TypeError, ValueError
            If keys are missing or unexpected (all are listed), or if a value has the wrong shape or dtype or is not
            finite, in the layer's dtype, too (the message names the key). Then nothing is changed.

        Examples
        --------
        >>> a, b = RNN(3, 5, seed=1), RNN(3, 5, seed=2)
        >>> a.load_state_dict(b.state_dict())
        >>> bool(np.all(a.parameters()["bias_l0"] == b.parameters()["bias_l0"]))
        True
        """
        load_state(self.parameters(), state)

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(RNN).parameters.items():
            if name != "seed" and getattr(self, name) != parameter.default:
                value = self.dtype.name if name == "dtype" else getattr(self, name)
                shown.append(repr(value) if parameter.default is inspect.Parameter.empty else f"{name}={value!r}")
        n_parameters = sum(array.size for array in self.parameters().values())
        return f"{type(self).__name__}({', '.join(shown)}) with {n_parameters} parameters"

    def __getstate__(self) -> dict[str, Any]:
        derived = ("_pool", "_weights", "_step_weights")
        return {key: value for key, value in self.__dict__.items() if key not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["dtype"] = check.real_dtype(self.dtype)  # a pickled dtype comes back as another object
        self._bind(self._parameters)

    # From here on nothing is validated: what a model calls, too

    def _check_size(self) -> None:
        """Before there is an array for each layer."""
        n_inputs = max(self.input_size, self._n_outputs if self.num_layers > 1 else 0)
        n = self.num_layers * self._n_outputs * (n_inputs + self.hidden_size + 1)
        sizes = {name: getattr(self, name) for name in ("input_size", "hidden_size", "num_layers")}
        check.addressable(8 * n, **sizes)

    def _draw_parameters(self, rng: np.random.Generator) -> None:
        bound = 1 / math.sqrt(self.hidden_size)
        for array in self.parameters().values():
            array[...] = rng.uniform(-bound, bound, array.shape)
        for name, array in self.parameters().items():
            if self.initialization == "identity" and name.startswith("bias"):
                array[...] = 0
            if not name.startswith("weight_hh"):
                continue
            if self.initialization == "orthogonal":
                q, r = np.linalg.qr(rng.standard_normal(array.shape))
                array[...] = q * np.sign(np.diag(r))  # with these signs all rotations are equally likely
            elif self.initialization == "identity":
                array[...] = np.eye(self.hidden_size)
            if self.spectral_radius is not None:
                weight = array.astype(np.float64)
                array[...] = weight * (self.spectral_radius / np.abs(np.linalg.eigvals(weight)).max())

    @property
    def _n_outputs(self) -> int:
        return self.hidden_size * (2 if self.bidirectional else 1)

    def _entries(self) -> list[Entry]:
        """The layer's arrays in the order of the flat buffer."""
        entries = []
        for k in range(self.num_layers):
            suffixes = (f"_l{k}", f"_l{k}_reverse") if self.bidirectional else (f"_l{k}",)
            n_inputs = self._n_outputs if k else self.input_size
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (self.hidden_size, n_inputs),
                "weight_hh": (self.hidden_size, self.hidden_size),
                "bias": (self.hidden_size,),
            }
            for kind, shape in list(shapes.items())[: 3 if self.bias else 2]:
                entries.append(Entry(tuple(kind + suffix for suffix in suffixes), shape))
        return entries

    def _bind(self, parameters: Parameters) -> None:
        """Work on these parameters from now on: the layer's own entries, and a model's behind them if there are any."""
        self._parameters = parameters
        self._n_entries = len(self._entries())
        arrays = iter(parameters.arrays)
        self._weights: list[Weights] = [
            (next(arrays), next(arrays), next(arrays) if self.bias else None) for _ in range(self.num_layers)
        ]
        self._step_weights = [
            tuple(None if array is None else array[0] for array in arrays) for arrays in self._weights
        ]
        self._pool = Pool(self.dtype)

    def _move_to(self, parameters: Parameters) -> None:
        """Take the values along to a model's parameters, which begin with the layer's entries."""
        for array, before in zip(parameters.arrays, self._parameters.arrays, strict=False):
            array[...] = before
        self._bind(parameters)

    def _resolve(self) -> ModuleType:
        backend = backends.resolve(self.backend or self._default_backend)
        if isinstance(self.nonlinearity, Activation):
            _check_runs_activations(backend, self.nonlinearity)
        return backend

    def _batch(self, x: Any, h_0: Any, lengths: Any) -> _Batch:
        """Validate a call's arguments and bring them into the kernels' form."""
        lease = None
        if check.is_list_of_arrays(x):
            if lengths is not None:
                check.refuse("lengths must be None where x is a list, whose arrays have their own")
            sequences = forms.real_sequences(x, "x", self.dtype, *[("T", self.input_size)] * len(x))
            lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
            lease = self._gather(sequences)
            x, form = lease.arrays[0], "list"
        else:
            axes = ("B", "T") if self.batch_first else ("T", "B")
            x = check.real_array(x, "x", self.dtype, (*axes, self.input_size), ("T", self.input_size))
            if x.ndim == 2:
                if lengths is not None:
                    check.refuse("lengths must be None where x is unbatched, a single sequence (T, I)")
                x, form = x[:, None], "single"
            elif self.batch_first:
                x, form = x.swapaxes(0, 1), "batch_major"
            else:
                form = "time_major"
            if lengths is not None:
                lengths = check.lengths(lengths, x.shape[1], len(x))
        return _Batch(x, self._states(h_0, "h_0", x.shape[1], form), lengths, form, lease)

    def _states(self, h: Any, name: str, n_rows: int, form: str) -> Real:
        """Validated states (L·D, B, H), zeros for None."""
        n_states = self.num_layers * (2 if self.bidirectional else 1)
        if h is None:
            return np.zeros((n_states, n_rows, self.hidden_size), self.dtype)
        shape = (n_states, self.hidden_size) if form == "single" else (n_states, n_rows, self.hidden_size)
        states = check.real_array(h, name, self.dtype, shape, contiguous=True)
        return states.reshape(n_states, n_rows, self.hidden_size)

    def _gather(self, sequences: list[Real]) -> Lease:
        """Sequences (T_i, ·), copied into one (T, B, ·) that is not touched beyond their ends."""
        n_steps = max(1, *map(len, sequences))
        lease = self._pool.lease(1, n_steps, len(sequences), sequences[0].shape[1], batch_major=True)
        for b, sequence in enumerate(sequences):
            lease.arrays[0][: len(sequence), b] = sequence
        return lease

    def _advance(self, backend: ModuleType, x_t: Real | Int, h: Real, h_next: Real) -> None:
        """One time step through all layers: x_t (B, I) or tokens (B,), h (L, B, H); writes h_next (L, B, H)."""
        for k, (weight_ih, weight_hh, bias) in enumerate(self._step_weights):
            backend.step(x_t, h[k], weight_ih, weight_hh, bias, h_next[k], activation=self.nonlinearity)
            x_t = h_next[k]

    def _forward(
        self,
        backend: ModuleType,
        x: Real | Int,
        h_0: Real,
        h_n: Real,
        y: Real | None = None,
        lengths: Int | None = None,
        *,
        training: bool = True,
        recurrent_mask: Real | None = None,
        batch_major: bool = False,
    ) -> Tape:
        """Run all layers over x (T, B, I) or tokens (T, B), writing h_n (L·D, B, H) and y (T, B, D·H).

        Without y, the last layer's outputs lie in leased memory too: `tape.outputs[-1]`, as long as the tape lives.
        For training, there is dropout, and the tape is good for `_backward`; otherwise layers share two buffers. The
        mask of recurrent dropout is drawn, unless it is given.
        """
        n_steps, n_rows = x.shape[:2]
        n_inner = self.num_layers - 1
        n_buffers = n_inner if training else min(n_inner, 2)
        masks = self._draw_masks(n_steps, n_rows) if training and self.dropout and n_inner else None
        if training and self.recurrent_dropout and recurrent_mask is None:
            recurrent_mask = self._draw_recurrent_mask(n_rows)
        lease = self._pool.lease(
            n_buffers * (1 if masks is None else 2) + (y is None), n_steps, n_rows, self._n_outputs, batch_major
        )
        outputs = [lease.arrays[k % n_buffers] for k in range(n_inner)]
        outputs.append(lease.arrays[-1] if y is None else y)
        inputs: list[Real | Int] = [x, *outputs[:-1]]
        if masks is not None:
            inputs[1:] = lease.arrays[n_inner : 2 * n_inner]
        drawn = masks.arrays if masks else ()
        leases = (lease, masks)
        tape = Tape(
            backend, self.nonlinearity, h_0, lengths, inputs, outputs, drawn, recurrent_mask, batch_major, leases
        )
        stack.forward(tape, self._weights, h_n)
        return tape

    def _backward(
        self,
        tape: Tape,
        d_y: Real | None,
        d_h_n: Real | None,
        d_h_0: Real,
        d_x: Real | None,
        gradients: Parameters,
    ) -> None:
        """Write d_h_0 (L·D, B, H) and, unless None, d_x (T, B, I); *add* to gradients, which begin with the layer's."""
        n_steps, n_rows = tape.inputs[0].shape[:2]
        lease = self._pool.lease(min(self.num_layers, 3), n_steps, n_rows, self._n_outputs, tape.batch_major)
        stack.backward(tape, self._weights, d_y, d_h_n, d_h_0, d_x, gradients.arrays, lease.arrays)

    def _draw_masks(self, n_steps: int, n_rows: int) -> Lease:
        """What dropout multiplies each layer's outputs by, but the last: (T, B, D·H) of 0 or 1 / (1 - dropout)."""
        lease = self._pool.lease(self.num_layers - 1, n_steps, n_rows, self._n_outputs)
        for part in (mask[piece] for mask in lease.arrays for piece in pieces(mask)):
            self._dropout_rng.random(out=part, dtype=self.dtype)
            np.greater_equal(part, self.dropout, out=part)
            part *= 1 / (1 - self.dropout) if self.dropout < 1 else 0
        return lease

    def _draw_recurrent_mask(self, n_rows: int) -> Real:
        """What states are multiplied by on their way to the next step: (L·D, B, H) of 0 or 1 / (1 - p)."""
        n_states = self.num_layers * self._n_outputs // self.hidden_size
        kept = (
            self._dropout_rng.random((n_states, n_rows, self.hidden_size), dtype=self.dtype) >= self.recurrent_dropout
        )
        return np.asarray(kept / (1 - self.recurrent_dropout), dtype=self.dtype)

    def _pull_back(
        self, batch: _Batch, tape: Tape, d_y: Any, d_h_n: Any, *, input_grad: bool
    ) -> tuple[Any, Real, dict[str, Real]]:
        """The public pullback: `_backward` on a caller's arrays, with fresh results."""
        lease = None
        if d_y is not None:
            shapes = batch.shapes(self._n_outputs)
            if batch.form == "list":
                lease = self._gather(forms.real_sequences(d_y, "d_y", self.dtype, *shapes))
                d_y = lease.arrays[0]
            else:
                d_y = check.real_array(d_y, "d_y", self.dtype, *shapes)
                d_y = d_y[:, None] if batch.form == "single" else batch.show(d_y)
        if d_h_n is not None:
            d_h_n = self._states(d_h_n, "d_h_n", tape.h_0.shape[1], batch.form)
        d_x = batch.empty(self.input_size) if check.flag(input_grad, "input_grad") else None
        d_h_0 = np.empty_like(tape.h_0)
        gradients = Parameters(self._parameters.entries[: self._n_entries], self.dtype)
        self._backward(tape, d_y, d_h_n, d_h_0, d_x, gradients)
        del lease  # only now may the copied d_y go back
        return None if d_x is None else batch.show(d_x), batch.show_state(d_h_0), gradients.named()

    def _last_states_both_ways(self, backend: ModuleType, batch: _Batch, h_n: Real) -> None:
        """last_state of one bidirectional layer: one direction over the chunks, then the other from the last one."""
        n_steps, n_rows = batch.x.shape[:2]
        ((weight_ih, weight_hh, bias),) = self._weights
        lease = self._pool.lease(1, min(n_steps, _CHUNK), n_rows, self.hidden_size)
        for d in range(2):
            own = slice(d, d + 1)
            weights = weight_ih[own], weight_hh[own], None if bias is None else bias[own]
            h, h_end = np.empty_like(h_n[own]), batch.h_0[own].copy()
            for part, lengths in _chunks(batch, backwards=d == 1):
                h, h_end = h_end, h
                y = lease.arrays[0][: len(part)]
                backend.forward(Layer(part, h, *weights, y, h_end, self.nonlinearity, lengths, reverse=d == 1))
            h_n[own] = h_end


def _chunks(batch: _Batch, *, backwards: bool = False) -> Iterator[tuple[Real, Int | None]]:
    """Stretches of x and how many steps of each a sequence takes part in."""
    starts = range(0, len(batch.x), _CHUNK)
    for start in reversed(starts) if backwards else starts:
        part = batch.x[start : start + _CHUNK]
        yield part, None if batch.lengths is None else np.clip(batch.lengths - start, 0, len(part))


def _check_runs_activations(backend: ModuleType, nonlinearity: Any) -> None:
    if not backend.takes_activations:
        raise ValueError(
            f"nonlinearity {nonlinearity} must be compiled by Numba for the backend 'cython', and there is none here: "
            "pip install numba, or choose backend='numpy'"
        )
