"""The passes for JAX: operations of compiled programs, with a derivative of their own."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

import jax

from elman.keras import passes, xla
from elman.keras.passes import Call, Options

BEGINS_WITH_STATE = True
LEAST_STEPS, LEAST_STATES = 32, 20_000  # T and T·B·H


def is_symbolic(_: Any) -> bool:
    """Whether Keras only asks for shapes: it does so by tracing, as it does to compile."""
    return False


def runs(call: Call) -> bool:
    """Whether JAX computes on the CPU, and XLA's own loop would take longer: a call from there takes 0.1 ms.

    Measured with bench/keras_fit.py: docs/drop-in/keras.md.
    """
    n_rows, n_steps, _ = call.x.shape
    if not (isinstance(n_rows, int) and isinstance(n_steps, int)):  # jax.export's symbols
        return False
    is_worth_it = n_steps >= LEAST_STEPS and n_steps * n_rows * call.h_0.shape[1] >= LEAST_STATES
    return bool(is_worth_it and jax.default_backend() == "cpu")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rnn(call: Call, options: Options) -> tuple[Any, Any]:
    """Outputs and last states, as `passes.forward` has them."""
    result, h_n, _ = _forward(options, call)
    return result, h_n


class _Form(NamedTuple):
    """Of the arrays that an operation may take, those that it does, and with which options."""

    options: Options
    is_there: tuple[bool, ...]
    has_d_x: bool = False

    @classmethod
    @functools.lru_cache
    def read(cls, text: str) -> _Form:
        options, is_there, has_d_x = json.loads(text)
        return cls(Options(*options), tuple(is_there), has_d_x)

    def all(self, given: xla.Arrays) -> list[Any]:
        arrays = iter(given)
        return [next(arrays) if there else None for there in self.is_there]


def _run_forward(text: str, given: xla.Arrays, results: xla.Arrays) -> None:
    form = _Form.read(text)
    result, h_n, kept = results[0], results[1], results[-1] if len(results) == 3 else results[0]
    found = passes.forward(Call(*form.all(given)), form.options, kept)
    for array, target in zip(found, (result, h_n), strict=False):
        if array is not target:
            target[...] = array


def _run_backward(text: str, given: xla.Arrays, results: xla.Arrays) -> None:
    form = _Form.read(text)
    *call, kept, d_result, d_h_n = form.all(given)
    d_x, results = (results[0], results[1:]) if form.has_d_x else (None, results)
    found = passes.backward(Call(*call), form.options, kept, d_result, d_h_n, d_x)
    for array, target in zip((one for one in found if one is not None), results, strict=True):
        target[...] = array


_forward_operation = xla.operation("elman_keras_forward", _run_forward)
_backward_operation = xla.operation("elman_keras_backward", _run_backward)


def _once(function: Any) -> Any:
    """Of options and what it can be differentiated by, once more than it has been."""

    def refuse(*_: Any) -> Any:
        raise TypeError("elman.keras has no gradients of gradients: call elman.keras.restore(model) first")

    refusing = jax.custom_jvp(function, nondiff_argnums=(0,))
    refusing.defjvp(refuse)
    return refusing


@_once
def _forward(options: Options, call: Call) -> Any:
    """With the outputs of all steps as the third, which may be the first."""
    all_steps, states = _like(call.x, (*call.x.shape[:2], call.h_0.shape[1])), _like(call.h_0)
    is_kept = not (options.return_sequences and call.mask is None)
    results = [all_steps if options.return_sequences else states, states, *([all_steps] if is_kept else [])]
    found = _called(_forward_operation, options, call, results)
    return *found[:2], found[2] if is_kept else found[0]


def _called(operation: Any, options: Options, given: Any, results: Any, has_d_x: bool = False) -> Any:
    text = json.dumps(_Form(options, tuple(one is not None for one in given), has_d_x))
    return operation(text, results, [one for one in given if one is not None])


def _like(array: Any, shape: Any = None) -> Any:
    return jax.ShapeDtypeStruct(shape or array.shape, array.dtype)


def _keep(call: Call, options: Options) -> Any:
    given = Call(*[None if one is None else one.value for one in call])
    *results, kept = _forward(options, given)
    return tuple(results), (given, kept, () if call.x.perturbed else None)


def _differentiate(options: Options, saved: Any, d_results: Any) -> tuple[Any]:
    given, kept, has_d_x = saved
    d = [None if isinstance(one, jax.custom_derivatives.SymbolicZero) else one for one in d_results]
    found = _gradients((options, has_d_x is not None), (*given, kept, *d))
    return (Call._make((*found, None, None)),)


rnn.defvjp(_keep, _differentiate, symbolic_zeros=True)


@_once
def _gradients(form: tuple[Options, bool], given: Any) -> Any:
    (options, has_d_x), call = form, Call(*given[: len(Call._fields)])
    wanted = [has_d_x, True, True, True, call.bias is not None]
    results = [_like(one) for one, is_wanted in zip(call, wanted, strict=False) if is_wanted]
    found = iter(_called(_backward_operation, options, given, results, has_d_x))
    return [next(found) if is_wanted else None for is_wanted in wanted]
