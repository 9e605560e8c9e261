"""The layer: a stack of recurrent layers, in one direction or both.

Data flows one way: a `Call` (forms.py) holds a call's input as the kernels' (T, B, I), whatever form it came in; the
`Stack` (stack.py) leases memory and runs the layers; the `Call` gives the results the form of the input again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Protocol, overload

import numpy as np

from elman import backends, check
from elman.attributes import Checked, Checks, as_made, one_of, optional
from elman.backends.activations import Activation
from elman.backends.reference import ACTIVATIONS
from elman.layer import constraints, dynamics, tangents
from elman.layer.architecture import Architecture
from elman.layer.constraints import Constraints
from elman.layer.dynamics import INPUT_STREAM, Dynamics, row_keys
from elman.layer.forms import Call
from elman.layer.initial import INITIALIZATIONS, draw_layers
from elman.layer.jacobian import TimeStep
from elman.layer.parameters import Parameters, load_state, to_pytorch
from elman.layer.stack import Drawn, Mode, Stack
from elman.typing import Real


def _nonlinearity(value: Any, name: str) -> str | Activation:
    return value if isinstance(value, Activation) else check.choice(value, name, ACTIVATIONS)


class Pullback(Protocol):
    """The derivative of one call of `RNN.vjp`, transposed: from gradients of its results to those of its arguments."""

    def __call__(
        self, d_y: Any, d_h_n: Any = None, *, input_grad: bool = True
    ) -> tuple[Any, Real, dict[str, Real]]: ...


class RNN(Checked):
    """The Elman network: h[t] = f(weight_ih x[t] + weight_hh h[t-1] + bias), in layers and in one or two directions.

    Shapes and meaning are those of `torch.nn.RNN`, with one bias instead of two.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; each layer's outputs are the next one's inputs.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"} or Activation
        The function f. "softplus" is log(1 + e^a), "retanh" max(tanh a, 0), "power" max(a, 0)², whose slope, twice the
        root of the state, has no bound: small weights keep its states from exploding. A function of your own, from
        `elman.activation`, is compiled by Numba, but for the backend "numpy".
    bias : bool
        Whether there is a bias.
    batch_first : bool
        Whether padded inputs and outputs are (B, T, ·) instead of (T, B, ·). States are (L·D, B, H) all the same.
    dropout : float
        Probability with which `vjp` zeroes an output of a layer on its way to the next one; the rest is scaled by
        1 / (1 - dropout). A plain call drops nothing.
    bidirectional : bool
        Whether each layer also runs backwards in time (D = 2); its outputs stand behind the others, (T, B, 2·H).
    reverse : bool
        Whether all layers run backwards in time alone: each sequence from its own last step to its first, so that h_n
        is what there is after step 0, and outputs stay in the order of the input. Not with `bidirectional`.
    recurrent_dropout : float
        Probability with which `vjp` drops a state on its way to the next step, the same units at all steps of a
        sequence (Gal & Ghahramani, 2016); the rest is scaled by 1 / (1 - recurrent_dropout).
    initialization : {"uniform", "orthogonal", "identity"}
        Of weight_hh: uniform as all parameters; a random orthogonal matrix (Saxe et al., 2014); or the identity, with
        zeros as biases, which lets relu units remember (Le, Jaitly & Hinton, 2015).
    spectral_radius : float, optional
        What weight_hh, as it acts, is scaled to: the largest magnitude of its eigenvalues.
    leak : float, array (H,) or list of L of these
        α = dt / τ, above 0 and at most 1: how much of a state is new in a step, for all layers, for each unit, or for
        each layer. With 1 this is the network above.
    noise : float, array (H,) or list of L of these
        σ, the standard deviation of noise that `vjp` adds to pre-activations, in units of which the time step is no
        part; a plain call has none, unless it is given a `noise_seed`.
    form : {"rate", "potential"}
        What is leaky. "rate" (Yang et al., 2019): h[t] = (1 − α) h[t−1] + α f(a[t]) with a[t] = weight_ih x[t] +
        weight_hh h[t−1] + bias + σ √(2/α) ξ[t], ξ standard normal, and outputs y = h. "potential" (Song et al., 2016):
        v[t] = (1 − α) v[t−1] + α a[t] with weight_hh f(v[t−1]) in a[t], and outputs y = f(v); states, h_0 and h_n
        among them, are v.
    learn_leak : bool
        Whether α is learned, for each unit: the logit of it is a parameter, leak_l{k} (H,), which begins with `leak`.
    input_noise : float
        σ_in, of noise σ_in √(2/α) ξ that is added to x where there is noise. Needs one leak for all units.
    signs : array (H,) or (L, H), optional
        +1 or −1 for each unit, the same in all layers or each layer's own: with it, all that leads away from a unit has
        that sign (Dale's law; Song, Yang & Wang, 2016). A weight W from units then acts as \\|W\\| · diag(signs), that
        is weight_hh and, above the first layer, weight_ih.
    excitatory : float, optional
        Instead of `signs`, the part of units that have +1: the first round(excitatory · H) of each layer and direction.
    mask_hh : bools (H, H), or a list of L of these or None, optional
        Which elements of weight_hh there are, of all layers or of each. The others act as 0.
    mask_ih : bools (H, I), or a list of L of these or None, optional
        The same of weight_ih: of the first layer, or of each, (H, D·H) above the first.
    dtype : {"float32", "float64"}
        Of weights and results. Real input of the other width is converted.
    seed : None, int or numpy.random.Generator
        Initial weights are uniform in ±1/√H: drawn in float64, array by array in the order of `parameters()`, so that
        the two dtypes agree. Dropout has a generator of its own, which a further draw seeds. Where units have signs,
        weights are then scaled so that excitation and inhibition of each unit are equal in sum, and that activity
        neither dies nor explodes: for weight_hh to a spectral radius of about 1/√3, as it is without signs.
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

    What noise is depends on the seed of a row, the layer, the direction, the step and the unit, and on nothing else:
    not on other rows, threads or the backend. `noise_like` returns it.

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
            "reverse",
            "dtype",
            "initialization",
            "spectral_radius",
            "leak",
            "noise",
            "form",
            "learn_leak",
            "input_noise",
            *constraints.NAMES,
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
        reverse: bool = False,
        recurrent_dropout: float = 0.0,
        initialization: str = "uniform",
        spectral_radius: float | None = None,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        input_noise: float = 0.0,
        signs: Any = None,
        excitatory: float | None = None,
        mask_hh: Any = None,
        mask_ih: Any = None,
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
        self.reverse = check.flag(reverse, "reverse")
        if self.reverse and self.bidirectional:
            check.refuse("reverse must be False with bidirectional=True, which has that direction already")
        self.recurrent_dropout = recurrent_dropout
        self.initialization = check.choice(initialization, "initialization", INITIALIZATIONS)
        self.spectral_radius = optional(check.finite_positive)(spectral_radius, "spectral_radius")
        sizes = self.num_layers, self.hidden_size
        own_dynamics = Dynamics.of(leak, noise, form, learn_leak, input_noise, *sizes)
        self.leak, self.noise, self.form = own_dynamics.leak, own_dynamics.noise, own_dynamics.form
        self.learn_leak, self.input_noise = own_dynamics.is_learned, own_dynamics.input_noise
        self.dtype = check.real_dtype(dtype)
        own_dynamics.check_fits(self.dtype, self.num_layers)
        self.backend = backend
        rng = check.generator(seed)
        architecture = self._architecture()
        architecture.check_addressable()
        own_constraints = Constraints.of(signs, excitatory, mask_hh, mask_ih, architecture)
        self.signs, self.excitatory, self.mask_hh, self.mask_ih = own_constraints
        if own_constraints.have_signs and self.initialization != "uniform":
            given = f"initialization must be 'uniform' where units have signs, got {initialization!r}"
            check.refuse(f"{given}: a weight's magnitudes are balanced, which leaves nothing of it")
        factors = own_constraints.factors(architecture, self.dtype)
        parameters = Parameters(architecture.entries(), self.dtype)
        draw_layers(parameters, factors, rng, self.initialization, self.spectral_radius)
        dropout_rng = np.random.default_rng(rng.integers(1 << 63))
        self._stack = Stack(architecture, parameters, dropout_rng, own_dynamics, factors)
        for k, logits in enumerate(self._stack.leaks_of(parameters.arrays)):
            logits[...] = own_dynamics.initial_logits(k)

    # The public calls

    @overload
    def __call__(
        self,
        x: list[Real],
        h_0: Real | None = None,
        lengths: None = None,
        *,
        noise_seed: Any = None,
        resets: Any = None,
    ) -> tuple[list[Real], Real]: ...
    @overload
    def __call__(
        self, x: Real, h_0: Real | None = None, lengths: Any = None, *, noise_seed: Any = None, resets: Any = None
    ) -> tuple[Real, Real]: ...
    def __call__(
        self, x: Any, h_0: Any = None, lengths: Any = None, *, noise_seed: Any = None, resets: Any = None
    ) -> tuple[Any, Real]:
        """Run the network over a batch of sequences.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) if batch_first; or unbatched (T, I); or a list of arrays (T_i, I)
            float32 or float64. In a list T_i may be 0.
        h_0 : array (L·D, B, H), or (L·D, H) if x is unbatched, optional
            Initial states, zeros by default.
        lengths : integers (B,), optional
            Sequence b of a padded x has lengths[b] steps, 0 to T; what lies beyond is not read.
        noise_seed : int or integers (B,), optional
            For noise as in training: a seed for each row, or an int k, which gives row b the seed (k, b).
        resets : bool (T, B), or (B, T) if batch_first; (T,) unbatched; or a list of (T_i,), optional
            Where sequences begin anew: before such a step the states of all layers become zeros. Results are to the bit
            those of the pieces run apart, but for noise, which goes on. Needs the forward direction alone.

        Returns
        -------
        y : array (T, B, D·H) in the form of x: (B, T, D·H), (T, D·H) or a list of (T_i, D·H)
            The last layer's outputs after each step, states but with form="potential"; zero beyond a sequence's length.
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

        >>> rnn, x = RNN(3, 5, seed=0), np.ones((7, 3))
        >>> y, h_n = rnn(x, resets=np.arange(7) == 4)  # another sequence begins at step 4
        >>> bool(np.all(y[4:] == rnn(x[4:])[0]))
        True
        """
        call, stack = self._called(x, h_0, lengths, resets), self._stack
        drawn = self._drawn(noise_seed, call.x.shape[1])
        y, h_n = call.empty(stack.architecture.n_outputs), call.empty_states()
        stack.evaluate(mode_of(self), call.x, call.h_0, h_n, y, call.lengths, call.batch_major, drawn, call.resets)
        return call.show(y), call.show_states(h_n)

    @overload
    def vjp(
        self,
        x: list[Real],
        h_0: Real | None = None,
        lengths: None = None,
        *,
        noise_seed: Any = None,
        resets: Any = None,
    ) -> tuple[list[Real], Real, Pullback]: ...
    @overload
    def vjp(
        self, x: Real, h_0: Real | None = None, lengths: Any = None, *, noise_seed: Any = None, resets: Any = None
    ) -> tuple[Real, Real, Pullback]: ...
    def vjp(
        self, x: Any, h_0: Any = None, lengths: Any = None, *, noise_seed: Any = None, resets: Any = None
    ) -> tuple[Any, Real, Pullback]:
        """Run the network and return, with its results, the function that takes their gradients back to the arguments.

        Arguments, the first two results and errors are those of a call, but there is dropout between the layers, and
        noise, if the layer has some: without a `noise_seed`, from the layer's own generator.

        Returns
        -------
        y, h_n
            As in a call; y is read-only, as the pullback needs it.
        pullback : function (d_y, d_h_n=None, *, input_grad=True) -> (d_x, d_h_0, d_params)
            Takes the gradients of a loss by y and h_n, in their shapes, None for zeros; d_y beyond a length is ignored.
            Returns the gradients by x (None without `input_grad`; zero beyond a length), by h_0, and by the parameters,
            a dict named and shaped like `parameters()`, with the part of noise in that by a leak's logit. It can be
            called again, with the same dropout and noise. Neither x nor the weights may change before; of h_0, lengths
            and resets it has copies. Nothing goes back past a reset: to h_0 there is nothing from what follows it.

        Examples
        --------
        >>> rnn = RNN(3, 5, seed=0)
        >>> y, h_n, pullback = rnn.vjp(np.ones((7, 4, 3)))
        >>> d_x, d_h_0, d_params = pullback(2 * y)  # of the sum of squares
        >>> d_x.shape, d_h_0.shape, d_params["weight_ih_l0"].shape
        ((7, 4, 3), (1, 4, 5), (5, 3))
        """
        call, stack = self._called(x, h_0, lengths, resets), self._stack
        y, h_n = call.empty(stack.architecture.n_outputs), call.empty_states()
        # h_0 is copied, as callers like to update their state in place before they call the pullback.
        before, mode, n_rows = call.h_0 if h_0 is None else call.h_0.copy(), mode_of(self), call.x.shape[1]
        drawn = None if noise_seed is None else stack.draw(mode, n_rows, row_keys(noise_seed, n_rows))
        own: dict[str, Any] = {"drawn": drawn, "batch_major": call.batch_major, "resets": call.resets}
        tape = stack.forward(mode, call.x, before, h_n, y, call.lengths, **own)

        def pullback(d_y: Any, d_h_n: Any = None, *, input_grad: bool = True) -> tuple[Any, Real, dict[str, Real]]:
            """Gradients (d_x, d_h_0, d_params) from those of y and h_n: see RNN.vjp."""
            copied = None
            if d_y is not None:
                d_y, copied = call.over_time(d_y, "d_y", stack.architecture.n_outputs, stack.workspace)
            if d_h_n is not None:
                d_h_n = call.states(d_h_n, "d_h_n")
            wants_d_x = input_grad is True or check.flag(input_grad, "input_grad")
            d_x = call.empty(stack.architecture.input_size) if wants_d_x else None
            d_h_0, (gradients, d_params) = call.empty_states(), stack.zeros()
            stack.backward(tape, d_y, d_h_n, d_h_0, d_x, gradients)
            stack.chain(gradients)
            if copied is not None:
                copied.release()
            return None if d_x is None else call.show(d_x), call.show_states(d_h_0), d_params

        shown = y.view()  # whatever becomes of its shape, the tape's stays
        shown.setflags(write=False)
        return call.show(shown), call.show_states(h_n), pullback

    def jvp(
        self,
        x: Any,
        d_x: Any,
        h_0: Any = None,
        d_h_0: Any = None,
        d_params: Mapping[str, Any] | None = None,
        *,
        lengths: Any = None,
        noise_seed: Any = None,
        last_only: bool = False,
    ) -> tuple[Any, Real, Any, Real]:
        """A call, and how its results move when its arguments do: forward-mode derivatives, K at once.

        Parameters
        ----------
        x, h_0, lengths, noise_seed
            As in a call. Nothing is dropped.
        d_x : array (K, T, B, I), in the form of x with K in front of it (a list has arrays (K, T_i, I)), or None
            Tangents: the directions that x moves in. What is None does not move; not everything may be.
        d_h_0 : array (K, L·D, B, H), or (K, L·D, H) if x is unbatched, optional
        d_params : dict, optional
            Of the parameters that move: their names in `parameters()`, to arrays of their shapes with K in front.
        last_only : bool
            Whether only the last states are wanted. Then y and d_y are None, and memory does not grow with T, unless
            there are two directions.

        Returns
        -------
        y, h_n
            Those of a call.
        d_y, d_h_n
            Their tangents, in their forms with K in front; those of y are zero beyond a sequence's length.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.

        Notes
        -----
        A call with one tangent takes about as long as two or three without; the gradient of one number by everything
        is what `vjp` is for. With a bound on K it is real-time recurrent learning of K directions (Williams & Zipser,
        1989).

        Examples
        --------
        >>> rnn = RNN(3, 5, dtype="float64", seed=0)
        >>> x, d_x, eps = np.ones((7, 4, 3)), np.ones((1, 7, 4, 3)), 1e-6
        >>> y, h_n, d_y, d_h_n = rnn.jvp(x, d_x)
        >>> d_y.shape, d_h_n.shape
        ((1, 7, 4, 5), (1, 1, 4, 5))
        >>> bool(np.allclose((rnn(x + eps * d_x[0])[0] - y) / eps, d_y[0], atol=1e-5))
        True
        """
        call, stack, mode = self._called(x, h_0, lengths, None), self._stack, mode_of(self)
        shapes = {name: array.shape for name, array in self.parameters().items()}
        moves = tangents.moves_of(call, stack, shapes, d_x, d_h_0, d_params)
        drawn = self._drawn(noise_seed, call.x.shape[1])
        if check.flag(last_only, "last_only"):
            h_n, d_h_n = tangents.last(stack, mode, call, moves, drawn)
            return None, call.show_states(h_n), None, tangents.shown_states(call, d_h_n)
        y, h_n, d_y, d_h_n = tangents.over_time(stack, mode, call, moves, drawn)
        d_y = tangents.shown_over_time(call, d_y, moves.n)
        return call.show(y), call.show_states(h_n), d_y, tangents.shown_states(call, d_h_n)

    def last_state(
        self, x: Any, h_0: Any = None, lengths: Any = None, *, noise_seed: Any = None, resets: Any = None
    ) -> Real:
        """The h_n of a call, bit for bit, in memory that does not grow with T (nor is any output kept).

        Arguments and errors are those of a call. x is read where it lies, unless it has to be converted, or noise is
        added to it. Where several layers run in both directions, each needs the outputs of the one below from both
        ends, so they are kept whole; so are those of leaky layers in both directions.

        Examples
        --------
        >>> RNN(3, 5, seed=0).last_state(np.ones((10_000, 1, 3), dtype=np.float32)).shape
        (1, 1, 5)
        """
        call = self._called(x, h_0, lengths, resets)
        drawn = self._drawn(noise_seed, call.x.shape[1])
        rows = call.lengths, call.batch_major, drawn, call.resets
        h_n = self._stack.last_states(mode_of(self), call.x, call.h_0, *rows)
        return call.show_states(h_n)

    def noise_like(self, x: Any, *, noise_seed: Any, inputs: bool = False) -> Real:
        """The standard normals ξ of a call with this x and `noise_seed`: of which noise is made, whatever σ and α are.

        Parameters
        ----------
        x : array or list
            As in a call; only its form matters.
        noise_seed : int or integers (B,)
        inputs : bool
            Whether those are wanted that `input_noise` adds to x, instead of those of the layers.

        Returns
        -------
        array (L, T, B, D·H), or with `inputs` (T, B, I)
            In the layer's dtype, though there are no more digits than float32 has. For a list, T is the longest length;
            with `batch_first` it is all the same the axis before B.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.

        Examples
        --------
        >>> rnn = RNN(3, 5, num_layers=2, leak=0.2, noise=0.1, seed=0)
        >>> rnn.noise_like(np.ones((7, 4, 3)), noise_seed=1).shape
        (2, 7, 4, 5)
        """
        call, architecture = self._called(x, None, None, None), self._stack.architecture
        (n_steps, n_rows, _), n_units = call.x.shape, self.hidden_size
        keys, backend = row_keys(noise_seed, n_rows), self._backend()
        if keys is None:
            raise TypeError("noise_seed must be an int or integers (B,), got None")
        if check.flag(inputs, "inputs"):
            xi = np.empty((n_steps, n_rows, self.input_size), self.dtype)
            backend.normals(xi, keys, stream=INPUT_STREAM)
            return xi
        xi = np.empty((self.num_layers, n_steps, n_rows, architecture.n_outputs), self.dtype)
        for k in range(self.num_layers):
            for d in range(architecture.n_directions):
                backend.normals(xi[k, ..., d * n_units : (d + 1) * n_units], keys, stream=4 * k + 2 * d)
        return xi

    def step(self, x_t: Any, h: Any = None, *, noise_seed: Any = None) -> tuple[Real, Real]:
        """One time step, for input that comes in bit by bit: the same as a call with T = 1.

        Parameters
        ----------
        x_t : array (B, I), or (I,) unbatched
        h : array (L, B, H), or (L, H) unbatched, optional
            States after the previous step, zeros by default.
        noise_seed : int or integers (B,), optional
            As in a call: another one for each step.

        Returns
        -------
        y_t : array (B, H) or (H,)
        h : array in the shape of h
            States after this step.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if the layer is bidirectional or reverse: it needs the future.

        Examples
        --------
        >>> rnn = RNN(3, 5, seed=0)
        >>> y_t, h = rnn.step(np.ones(3))
        >>> y_t, h = rnn.step(np.ones(3), h)
        >>> y_t.shape, h.shape
        ((5,), (1, 5))
        """
        if runs_back := self._stack.architecture.runs_back:
            check.refuse(f"step is not possible with {runs_back}: that direction begins at the last step")
        x_t = check.real_array(x_t, "x_t", self.dtype, ("B", self.input_size), (self.input_size,), contiguous=True)
        shape = (self.num_layers, *x_t.shape[:-1], self.hidden_size)
        h = np.zeros(shape, self.dtype) if h is None else check.real_array(h, "h", self.dtype, shape, contiguous=True)
        h_next = after = np.empty(shape, self.dtype)
        if x_t.ndim == 1:
            rows = (self.num_layers, 1, self.hidden_size)
            x_t, h, after = x_t.reshape(1, -1), h.reshape(rows), h_next.reshape(rows)
        drawn = self._drawn(noise_seed, len(x_t))
        y = self._stack.step(mode_of(self), x_t, h, after, drawn)
        return (y[0] if after is not h_next else y).copy(), h_next

    def jacobian(self, h: Any, x: Any) -> Real:
        """The derivative of one time step's state by the state before, at N states at once.

        For "rate" that is (1 − α) I + α diag(f′(a)) weight_hh, and for "potential", where states are v,
        (1 − α) I + α weight_hh diag(f′(v)). There is no noise, and no dropout.

        Parameters
        ----------
        h : array (N, H) or (H,)
            States before the step.
        x : array (N, I) or (I,)
            Inputs of the step; one for all states, or one for each.

        Returns
        -------
        array (N, H, H), or (H, H) if h is (H,)
            ``[n, i, j]`` is the derivative of unit i's state after the step by unit j's before it.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if the layer has several layers or directions: their states depend on more
            than the step before.

        Examples
        --------
        >>> rnn = RNN(3, 5, leak=0.2, seed=0)
        >>> eigenvalues = np.linalg.eigvals(rnn.jacobian(np.zeros(5), np.zeros(3)))
        >>> bool(np.all(np.abs(eigenvalues) < 1))
        True
        """
        if self.num_layers > 1 or self.bidirectional:
            given = f"num_layers={self.num_layers}, bidirectional={self.bidirectional}"
            check.refuse(f"jacobian needs one layer and one direction, got {given}: use one layer's weights")
        h = check.real_array(h, "h", self.dtype, ("N", self.hidden_size), (self.hidden_size,))
        rows = np.atleast_2d(h)
        x = check.real_array(x, "x", self.dtype, (len(rows), self.input_size), (self.input_size,))
        found = TimeStep.of(self._stack, self.nonlinearity, self.dtype).jacobian(rows, np.atleast_2d(x))
        return found[0] if h.ndim == 1 else found

    # Parameters

    def parameters(self) -> dict[str, Real]:
        """The parameters by name: live, writable arrays, in which a change takes effect at once.

        For each layer k: weight_ih_l{k} (H, I), or (H, D·H) above the first; weight_hh_l{k} (H, H); with a bias,
        bias_l{k} (H,); with a leak that is learned, its logit, leak_l{k} (H,). Those of the backward direction have
        "_reverse" behind the name.

        Examples
        --------
        >>> {name: array.shape for name, array in RNN(3, 5).parameters().items()}
        {'weight_ih_l0': (5, 3), 'weight_hh_l0': (5, 5), 'bias_l0': (5,)}
        """
        return self._stack.parameters.named(self._stack.architecture.n_entries)

    def effective_weights(self) -> dict[str, Real]:
        """Copies of the parameters by name, weights as they act: with the signs of units, and 0 where a mask has False.

        Without signs and masks these are the parameters. With signs, `parameters()` holds W of which magnitudes act;
        gradients by it have the sign of the unit, and of W, where 0 counts as positive, and are 0 where the mask is.

        Examples
        --------
        >>> rnn = RNN(3, 5, excitatory=0.8, mask_hh=~np.eye(5, dtype=bool), seed=0)
        >>> np.sign(rnn.effective_weights()["weight_hh_l0"][:2]).tolist()
        [[0.0, 1.0, 1.0, 1.0, -1.0], [1.0, 0.0, 1.0, 1.0, -1.0]]
        """
        return self._stack.effective_weights()

    def state_dict(self, *, pytorch: bool = False) -> dict[str, Real]:
        """Copies of the parameters by name; if `pytorch`, what torch.nn.RNN.load_state_dict takes (as tensors).

        PyTorch's two biases are then ours, bias_ih_l{k}, and zeros, bias_hh_l{k}; its weights are those that act.

        Examples
        --------
        >>> list(RNN(3, 5).state_dict(pytorch=True))
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        if check.flag(pytorch, "pytorch"):
            return to_pytorch(self.effective_weights())
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy parameters from a dict of arrays with the names of `state_dict()`, or of torch.nn.RNN.

        Where units have signs, magnitudes are what acts: see `effective_weights`.

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
        return as_made(self, RNN, lambda name: self.dtype.name if name == "dtype" else getattr(self, name))

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "_stack"}
        return {**state, "_parameters": self._stack.parameters, "_dropout_rng": self._stack.rng}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({key: value for key, value in state.items() if key not in _OF_THE_STACK})
        self.__dict__["dtype"] = check.real_dtype(self.dtype)  # a pickled dtype comes back as another object
        usuals = {"reverse": False, **dynamics.USUAL, **dict.fromkeys(constraints.NAMES)}
        for name, usual in usuals.items():  # as pickles of 0.1 are
            self.__dict__.setdefault(name, usual)
        self.__dict__.update({name: dynamics.tuples(getattr(self, name)) for name in ("leak", "noise")})
        self.__dict__.update({name: constraints.unwritable(getattr(self, name)) for name in constraints.NAMES})
        architecture = self._architecture()
        factors = constraints.of_rnn(self).factors(architecture, self.dtype)
        kept = state["_parameters"], state["_dropout_rng"]
        self._stack = Stack(architecture, *kept, self._dynamics(), factors)

    def _architecture(self) -> Architecture:
        sizes = self.input_size, self.hidden_size, self.num_layers
        return Architecture(*sizes, self.bidirectional, self.bias, self.learn_leak, self.reverse)

    def _dynamics(self) -> Dynamics:
        return Dynamics(self.leak, self.noise, self.form, self.learn_leak, self.input_noise)

    def _drawn(self, noise_seed: Any, n_rows: int) -> Drawn | None:
        """What the noise of a call is drawn from, without dropout; None for none."""
        keys = row_keys(noise_seed, n_rows)
        return Drawn(keys=keys) if keys is not None and self._stack.dynamics.is_noisy else None

    def _backend(self) -> ModuleType:
        backend = backends.resolve(self.backend or self._default_backend)
        if isinstance(self.nonlinearity, Activation):
            _check_runs_activations(backend, self.nonlinearity)
        return backend

    def _called(self, x: Any, h_0: Any, lengths: Any, resets: Any) -> Call:
        return Call.of(x, h_0, lengths, resets, self._stack.architecture, self.batch_first, self._stack.workspace)


_OF_THE_STACK = ("_parameters", "_dropout_rng", "_n_entries")  # in a pickle


# What models build on, which look behind what an RNN shows to users


def stack_of(rnn: RNN) -> Stack:
    """The layers themselves: for calls whose arguments have been checked."""
    return rnn._stack


def mode_of(rnn: RNN) -> Mode:
    """How a call that begins now computes."""
    return tuple.__new__(Mode, (rnn._backend(), rnn.nonlinearity, rnn.dropout, rnn.recurrent_dropout))


def move_to(parameters: Parameters, rnn: RNN) -> None:
    """Let an RNN work on a model's parameters, which begin with its own, from now on. It takes its values along."""
    before = rnn._stack
    for array, values in zip(parameters.arrays, before.parameters.arrays, strict=False):
        array[...] = values
    rnn._stack = Stack(before.architecture, parameters, before.rng, before.dynamics, before.factors)


def _check_runs_activations(backend: ModuleType, nonlinearity: Any) -> None:
    if not backend.takes_activations:
        raise ValueError(
            f"nonlinearity {nonlinearity} must be compiled by Numba for the backend 'cython', and there is none here: "
            "pip install numba, or choose backend='numpy'"
        )
