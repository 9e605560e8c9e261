"""What `elman.onnx.export` writes, in ONNX Runtime: forward, or a step at a time, with a readout for a stream."""

from typing import Any

import numpy as np

import elman
from elman.benchmark.program import Program, Unsupported, by_steps, only_plain_units, only_possible_steps
from elman.benchmark.workloads import Arrays, Case
from elman.typing import Real


def prepare(case: Case, n_threads: int) -> Program:
    work = case.work
    only_plain_units("ONNX Runtime", case)
    if work.what not in ("forward", "step", "stream"):
        raise Unsupported("ONNX Runtime's layers are forward only")
    only_possible_steps(case)
    session = _session(case, n_threads)
    if work.what == "forward":
        return Program(lambda: session.run(None, {"x": case.x}), lambda found: {"y": found[0], "h_n": found[1]})
    name = session.get_inputs()[0].name

    def outputs(found: tuple[list[Real], Real]) -> Arrays:
        return {"y": np.concatenate(found[0]), "h_n": found[1]}

    def run(x: Any, h: Real) -> Any:
        return session.run(None, {name: x, "h_0": h})

    zeros = np.zeros((work.num_layers, work.shape.n_rows, work.shape.n_units), work.dtype)
    return Program(lambda: by_steps(run, [*case.x[:, None]], zeros), outputs)


def _session(case: Case, n_threads: int) -> Any:
    import onnxruntime

    from elman.onnx.export import model_proto

    work, options = case.work, onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    if work.is_model:
        model: Any = elman.SequenceModel(*work.kinds, hidden_size=work.shape.n_units, **work.options)
    else:
        model = elman.RNN(work.shape.n_inputs, work.shape.n_units, **work.options)
    model.load_state_dict(case.parameters)
    wanted: dict[str, Any] = {"states": work.what != "forward", "outputs": ["labels"] if work.is_model else None}
    proto = model_proto(model, scan=work.shape.n_rows >= 8, **wanted)  # a user would choose by batch, too
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
