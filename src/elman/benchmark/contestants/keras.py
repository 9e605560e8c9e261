"""`keras.layers.SimpleRNN` on TensorFlow, in a `tf.function`; its arrays are (B, T, ·)."""

from typing import Any

from elman.benchmark.program import Program, Unsupported, only_one_layer, only_passes
from elman.benchmark.workloads import Arrays, Case

FUNCTIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "identity": "linear", "softplus": "softplus"}

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # TensorFlow's default, about which it would print a message
}


def prepare(case: Case, n_threads: int) -> Program:
    import tensorflow as tf

    _set_tensorflow_threads(tf, n_threads)
    import keras

    work = case.work
    only_passes("Keras", case)
    only_one_layer("Keras", case)
    if work.what == "step":
        raise Unsupported("the adapter for Keras has no steps")
    if work.nonlinearity not in FUNCTIONS:
        raise Unsupported(f"the adapter for Keras has no {work.nonlinearity}")
    options = {"activation": FUNCTIONS[work.nonlinearity], "return_sequences": True, "return_state": True}
    layer = keras.layers.SimpleRNN(work.shape.n_units, dtype=work.dtype, **options)
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
