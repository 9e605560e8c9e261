"""What a script of some dozen lines does: column vectors, one-hot input, a dict entry for each time step."""

import numpy as np

from elman.benchmark.program import Program, Unsupported, losses, only_one_layer, only_plain_units
from elman.benchmark.workloads import LEARNING_RATE, Case
from elman.typing import Real


def prepare(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - as many as NumPy uses
    work = case.work
    only_plain_units("the script", case)
    if work.what != "train-sgd" or work.shape.n_rows != 1:
        raise Unsupported("a training step by gradient descent on one sequence is what the script does")
    only_one_layer("the script", case)
    if work.nonlinearity != "tanh":
        raise Unsupported("the script knows tanh only")
    assert case.target is not None
    n_tokens, n_units = work.shape.n_inputs, work.shape.n_units
    U, W, V = (case.parameters[name].copy() for name in ("weight_ih_l0", "weight_hh_l0", "weight_ho"))
    b, c = (case.parameters[name].reshape(-1, 1).copy() for name in ("bias_l0", "bias_o"))
    inputs, targets = case.x[:, 0].tolist(), case.target[:, 0].tolist()
    rate = LEARNING_RATE["train-sgd"] / len(inputs)

    def run() -> float:
        x: dict[int, Real] = {}
        p: dict[int, Real] = {}
        h: dict[int, Real] = {-1: np.zeros((n_units, 1), work.dtype)}
        loss = 0.0
        for t, token in enumerate(inputs):
            x[t] = np.zeros((n_tokens, 1), work.dtype)
            x[t][token] = 1
            h[t] = np.tanh(U @ x[t] + W @ h[t - 1] + b)
            e = np.exp(V @ h[t] + c)
            p[t] = e / np.sum(e)
            loss -= np.log(p[t][targets[t], 0])
        dU, dW, dV, db, dc = (np.zeros_like(array) for array in (U, W, V, b, c))
        d_next = np.zeros_like(h[0])
        for t in reversed(range(len(inputs))):
            d_o = p[t].copy()
            d_o[targets[t]] -= 1
            dV += d_o @ h[t].T
            dc += d_o
            d_a = (V.T @ d_o + d_next) * (1 - h[t] * h[t])
            db += d_a
            dU += d_a @ x[t].T
            dW += d_a @ h[t - 1].T
            d_next = W.T @ d_a
        for parameter, gradient in zip((U, W, V, b, c), (dU, dW, dV, db, dc), strict=True):
            parameter -= rate * gradient
        return loss / len(inputs)

    return Program(run, losses(run))
