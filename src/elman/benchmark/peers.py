"""Other ways to compute the same, each written as its users write it. A framework is imported when a case is prepared.

To add a peer: a function from a `Case` and a number of threads to a `Program`, and a line in `PEERS`.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from elman.benchmark.contestants import Contestant, Program, Unsupported, losses
from elman.benchmark.workloads import CLIP_NORM, LEARNING_RATE, Arrays, Case
from elman.typing import Real


def environment(n_threads: int) -> dict[str, str]:
    """Variables that tell frameworks, if they are set before the first import, to use n threads and to be quiet."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # the last one is XLA's
    return dict.fromkeys(threads, str(n_threads)) | {
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # TensorFlow's default, about which it would print a message
    }


def torch_program(case: Case, n_threads: int) -> Program:
    """`torch.nn.RNN`; for a training step with one-hot input, `Linear` and PyTorch's own loss, clipping, optimizer."""
    import torch

    return _torch_program(case, n_threads, torch.nn.RNN)


def elman_torch_program(case: Case, n_threads: int) -> Program:
    """The same program with `elman.torch.RNN`: what autograd and the form of PyTorch's weights cost."""
    import elman
    import elman.torch

    elman.set_num_threads(n_threads)
    return _torch_program(case, n_threads, elman.torch.RNN)


def _torch_program(case: Case, n_threads: int, layer: Any) -> Program:
    import torch

    torch.set_num_threads(n_threads)
    work = case.work
    dtype = getattr(torch, work.dtype)
    if work.nonlinearity not in ("tanh", "relu"):
        raise Unsupported(f"torch.nn.RNN has no {work.nonlinearity}")
    rnn = layer(
        work.shape.n_inputs,
        work.shape.n_units,
        work.num_layers,
        work.nonlinearity,
        bidirectional=work.bidirectional,
        dtype=dtype,
    )
    ours = {name: torch.tensor(array) for name, array in case.parameters.items()}
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            parameter.copy_(torch.zeros(()) if name.startswith("bias_hh") else ours[name.replace("bias_ih", "bias")])
    if work.is_training:
        return _torch_training(case, rnn, ours)

    x = torch.tensor(case.x, requires_grad=work.what == "both-dx")
    if work.what == "forward":

        def forward() -> Any:
            with torch.inference_mode():
                return rnn(x)

        return Program(forward, lambda found: {"y": found[0].numpy(), "h_n": found[1].numpy()})

    d_y = torch.tensor(case.d_y)

    def both() -> Any:
        rnn.zero_grad()
        x.grad = None
        y, h_n = rnn(x)
        y.backward(d_y)
        return y, h_n

    def results(found: Any) -> Arrays:
        gradients = {
            name.replace("bias_ih", "bias"): p.grad for name, p in rnn.named_parameters() if "bias_hh" not in name
        }
        if x.grad is not None:
            gradients["d_x"] = x.grad
        tensors = {"y": found[0], "h_n": found[1], **gradients}
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    return Program(both, results)


def _torch_training(case: Case, rnn: Any, ours: dict[str, Any]) -> Program:
    import torch
    from torch.nn.functional import cross_entropy, one_hot

    n_tokens, dtype = case.work.shape.n_inputs, getattr(torch, case.work.dtype)
    x, target = torch.tensor(case.x), torch.tensor(case.target)
    readout = torch.nn.Linear(ours["weight_ho"].shape[1], n_tokens, dtype=dtype)
    with torch.no_grad():
        readout.weight.copy_(ours["weight_ho"])
        readout.bias.copy_(ours["bias_o"])
    for name, parameter in rnn.named_parameters():  # two biases would learn at twice the rate of one
        parameter.requires_grad_("bias_hh" not in name)
    parameters = [p for p in (*rnn.parameters(), *readout.parameters()) if p.requires_grad]
    has_clipping = case.work.what == "train"
    optimizer = (torch.optim.Adam if has_clipping else torch.optim.SGD)(parameters, lr=LEARNING_RATE[case.work.what])

    def run() -> float:
        optimizer.zero_grad()
        y, _ = rnn(one_hot(x, n_tokens).to(dtype))
        loss = cross_entropy(readout(y).flatten(0, 1), target.flatten())
        loss.backward()
        if has_clipping:
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return float(loss.detach())

    return Program(run, losses(run))


def jax_program(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - see `environment`
    """`lax.scan` under `jit`, the input product in one piece before it."""
    import jax
    from jax import numpy as jnp

    work = case.work
    _only_passes("JAX", case)
    jax.config.update("jax_enable_x64", work.dtype == "float64")
    functions = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "identity": lambda a: a}
    f = functions[work.nonlinearity]

    def direction(parameters: Any, x: Any, suffix: str) -> Any:
        weight_hh, is_reverse = parameters[f"weight_hh{suffix}"].T, suffix.endswith("_reverse")
        driven = x @ parameters[f"weight_ih{suffix}"].T + parameters[f"bias{suffix}"]

        def step(h: Any, a: Any) -> Any:
            h = f(a + h @ weight_hh)
            return h, h

        h_0 = jnp.zeros((x.shape[1], work.shape.n_units), x.dtype)
        return jax.lax.scan(step, h_0, driven, reverse=is_reverse)

    def layers(parameters: Any, x: Any) -> Any:
        states = []
        for k in range(work.num_layers):
            ends = [direction(parameters, x, f"_l{k}{end}") for end in ("", "_reverse")[: work.n_directions]]
            states += [h_n for h_n, _ in ends]
            x = jnp.concatenate([y for _, y in ends], axis=-1)
        return x, jnp.stack(states)

    def gradients(parameters: Any, x: Any, d_y: Any) -> Any:
        (y, h_n), pullback = jax.vjp(layers, parameters, x)
        d_parameters, d_x = pullback((d_y, jnp.zeros_like(h_n)))
        return {"y": y, "h_n": h_n, **d_parameters, **({"d_x": d_x} if work.what == "both-dx" else {})}

    def forward(parameters: Any, x: Any, _: Any) -> Any:
        y, h_n = layers(parameters, x)
        return {"y": y, "h_n": h_n}

    compiled = jax.jit(forward if work.what == "forward" else gradients)
    arguments = jax.tree.map(jnp.asarray, (case.parameters, case.x, case.d_y))
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda found: {name: np.asarray(array) for name, array in found.items()},
    )


def keras_program(case: Case, n_threads: int) -> Program:
    """`keras.layers.SimpleRNN` on TensorFlow, in a `tf.function`; its arrays are (B, T, ·)."""
    import tensorflow as tf

    _set_tensorflow_threads(tf, n_threads)
    import keras

    work = case.work
    _only_passes("Keras", case)
    _only_one_layer("Keras", case)
    f = {"identity": "linear"}.get(work.nonlinearity, work.nonlinearity)
    layer = keras.layers.SimpleRNN(
        work.shape.n_units, activation=f, return_sequences=True, return_state=True, dtype=work.dtype
    )
    layer.build((work.shape.n_rows, work.shape.n_steps, work.shape.n_inputs))
    layer.set_weights([case.parameters[name].T for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0")])
    x = tf.constant(case.x.swapaxes(0, 1))
    d_y = tf.constant(case.d_y.swapaxes(0, 1)) if case.d_y is not None else None
    sources = [*(variable.value for variable in layer.trainable_variables), *([x] if work.what == "both-dx" else [])]

    def forward() -> Any:
        return layer(x)

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, h_n = layer(x)
        return y, h_n, tape.gradient(y, sources, output_gradients=d_y)

    def results(found: Any) -> Arrays:
        y, h_n, *rest = found
        arrays = {"y": y.numpy().swapaxes(0, 1), "h_n": h_n.numpy()[None]}
        for name, gradient in zip(("weight_ih_l0", "weight_hh_l0", "bias_l0", "d_x"), *rest or [()], strict=False):
            arrays[name] = gradient.numpy().swapaxes(0, 1) if name == "d_x" else gradient.numpy().T
        return arrays

    return Program(tf.function(forward if work.what == "forward" else gradients), results)


def _set_tensorflow_threads(tf: Any, n: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(n)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:  # it has started, and keeps what it started with
        if tf.config.threading.get_intra_op_parallelism_threads() != n:
            raise Unsupported("TensorFlow cannot change its number of threads once it runs") from error


def onnx_program(case: Case, n_threads: int) -> Program:
    """The operator RNN of ONNX in ONNX Runtime."""
    import onnxruntime
    from onnx import TensorProto, helper

    work = case.work
    _only_one_layer("the adapter for ONNX Runtime", case)
    if work.what != "forward" or work.dtype != "float32":
        raise Unsupported("ONNX Runtime's RNN is forward only, in float32")
    n_units = work.shape.n_units

    def constant(name: str, array: Real) -> Any:
        return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True)

    bias = np.concatenate([case.parameters["bias_l0"], np.zeros(n_units, np.float32)])
    weights = {"W": case.parameters["weight_ih_l0"], "R": case.parameters["weight_hh_l0"], "B": bias}
    f = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}[work.nonlinearity]
    attributes = {"activation_alpha": [1.0], "activation_beta": [0.0]} if f == "Affine" else {}
    node = helper.make_node("RNN", ["x", *weights], ["y", "h_n"], hidden_size=n_units, activations=[f], **attributes)
    graph = helper.make_graph(
        [node],
        "rnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "h_n")],
        [constant(name, np.ascontiguousarray(array[None])) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Program(lambda: session.run(None, {"x": case.x}), lambda found: {"y": found[0][:, 0], "h_n": found[1]})


def numpy_script_program(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - as many as NumPy uses
    """What a script of some dozen lines does: column vectors, one-hot input, a dict entry for each time step."""
    work = case.work
    if work.what != "train-sgd" or work.shape.n_rows != 1:
        raise Unsupported("a training step by gradient descent on one sequence is what the script does")
    _only_one_layer("the script", case)
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


def _only_passes(name: str, case: Case) -> None:
    if case.work.is_training:
        raise Unsupported(f"training steps are compared with PyTorch's and with a script, not with {name}'s")


def _only_one_layer(name: str, case: Case) -> None:
    if case.work.num_layers > 1 or case.work.bidirectional:
        raise Unsupported(f"one layer in one direction is what {name} is asked for")


PEERS = {
    peer.name: peer
    for peer in (
        Contestant("torch", ("torch",), torch_program),
        Contestant("elman.torch", ("torch",), elman_torch_program),
        Contestant("jax", ("jax",), jax_program),
        Contestant("keras", ("keras", "tensorflow"), keras_program),
        Contestant("onnxruntime", ("onnx", "onnxruntime"), onnx_program),
        Contestant("numpy-script", ("numpy",), numpy_script_program),
    )
}


def missing() -> dict[str, str]:
    """The peers that are not installed, and the command that installs each.

    Examples
    --------
    >>> "numpy-script" in missing()
    False
    """
    return {
        peer.name: f"pip install {' '.join(peer.packages)}"
        for peer in PEERS.values()
        if not all(map(importlib.util.find_spec, peer.packages))
    }
