"""`elman.keras.SimpleRNN` on PyTorch, as Keras's users with its backend "torch" have it; its arrays are (B, T, ·)."""

import os
from typing import Any

from elman.benchmark.contestants.keras import FUNCTIONS
from elman.benchmark.program import Program, Unsupported, only_one_layer, only_passes
from elman.benchmark.workloads import Arrays, Case

ENVIRONMENT = {"KERAS_BACKEND": "torch"}


def prepare(case: Case, n_threads: int) -> Program:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    import elman

    work = case.work
    only_passes("elman.keras", case)
    only_one_layer("elman.keras", case)
    if work.what == "step":
        raise Unsupported("the adapter for elman.keras has no steps")
    if work.nonlinearity not in FUNCTIONS:
        raise Unsupported(f"the adapter for elman.keras has no {work.nonlinearity}")
    if keras.backend.backend() != "torch":
        raise Unsupported(f"the adapter for elman.keras needs Keras on torch, got {keras.backend.backend()}")
    import elman.keras

    torch.set_num_threads(n_threads)
    elman.set_num_threads(n_threads)
    options = {"activation": FUNCTIONS[work.nonlinearity], "return_sequences": True, "return_state": True}
    layer = elman.keras.SimpleRNN(work.shape.n_units, dtype=work.dtype, **options)
    layer.build((work.shape.n_rows, work.shape.n_steps, work.shape.n_inputs))
    layer.set_weights([case.parameters[name].T for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0")])
    x = torch.tensor(case.x.swapaxes(0, 1)).requires_grad_(work.what == "both-dx")
    d_y = None if case.d_y is None else torch.tensor(case.d_y.swapaxes(0, 1))
    sources = [*(variable.value for variable in layer.trainable_variables), *([x] if work.what == "both-dx" else [])]

    def forward() -> Any:
        with torch.no_grad():
            return layer(x)

    def gradients() -> Any:
        y, h_n = layer(x)
        return y, h_n, torch.autograd.grad(y, sources, d_y)

    def results(found: Any) -> Arrays:
        y, h_n, *rest = found
        arrays = {"y": y.detach().numpy().swapaxes(0, 1), "h_n": h_n.detach().numpy()[None]}
        for name, gradient in zip(("weight_ih_l0", "weight_hh_l0", "bias_l0", "d_x"), *rest or [()], strict=False):
            arrays[name] = gradient.numpy().swapaxes(0, 1) if name == "d_x" else gradient.numpy().T
        return arrays

    return Program(forward if work.what == "forward" else gradients, results)
