"""Writing models to ONNX files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from elman import about, check
from elman.backends.activations import Activation
from elman.data.kinds import PATTERNS
from elman.data.outputs import Reals
from elman.layer.rnn import RNN, stack_of
from elman.models import configuration
from elman.models.base import network_of
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.onnx.export_graph import Graph
from elman.onnx.export_models import add_rnn, add_seq2seq, add_sequence_model
from elman.storage import atomic

OPSETS = 14, 24  # from the RNN that has a layout on, to the newest that tests have seen
CONFIG, DIGEST = "elman.config", "elman.digest"  # entries of metadata_props
MOST_BYTES = 2**31 - 1  # of one protocol buffer, which a file is


def export(
    model: RNN | SequenceModel | Seq2Seq,
    path: str | Path,
    opset: int = 22,
    *,
    lengths: bool = False,
    states: bool = False,
    outputs: Sequence[str] | None = None,
    dtype: Any = None,
    scan: bool = False,
) -> None:
    """Write a model to an ONNX file: one graph from inputs to predictions, for any T and B.

    What a file has as input must be given in every call, so only x, or tokens, is one unless more is asked for. Arrays
    have time first, (T, B, ·), as those of `train_step`; those of an `RNN` with batch_first=True are (B, T, ·).

    Parameters
    ----------
    model : RNN, SequenceModel or Seq2Seq
        Its weights as they act at present. As in a plain call, there is neither dropout nor noise.
    path : str or path
        The file appears whole or not at all; what was there is replaced.
    opset : int
        From 14 to 24, the version of ONNX's operators.
    lengths : bool
        Whether the lengths of sequences, int64 (B,), are an input.
    states : bool
        Whether the states before the first step, h_0 (L·D, B, H), are an input, and, of a SequenceModel, those after
        the last step, h_n, an output, to go on from in the next call.
    outputs : list of str, optional
        Of a SequenceModel, some of "logits", "probabilities" and "labels", which are what `predict` returns; by default
        all. Real numbers are "y"; of a distribution, or of quantiles, there are "units", what the readout
        gives. Where outputs have a `Scaler`, numbers and quantiles are float64, in the units of the targets, and units
        of a distribution are about scaled numbers.
    dtype : {"float32", "float64"}, optional
        Of weights and results, by default the model's. ONNX Runtime has the operator RNN for float32 alone, so layers
        in float64 are a Scan.
    scan : bool
        Whether layers are a Scan of products and an activation also where they could be the operator RNN. Which of
        them ONNX Runtime computes faster depends on sizes and batch; fewer programs read a Scan.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be, or if the nonlinearity is a function of your own.
    FloatingPointError
        If a parameter is not finite, in that dtype.
    OSError
        If the file cannot be written: it names path and cause.

    Examples
    --------
    >>> import elman, elman.onnx
    >>> model = elman.SequenceModel(elman.Tokens(9), elman.Categories(3), hidden_size=16, seed=0)
    >>> file = getfixture("tmp_path") / "tagger.onnx"
    >>> elman.onnx.export(model, file)
    >>> [output.name for output in onnx.load(file).graph.output]
    ['logits', 'probabilities', 'labels']
    """
    path = check.path(path, "path")
    proto = model_proto(model, opset, lengths=lengths, states=states, outputs=outputs, dtype=dtype, scan=scan)
    atomic.write(path, proto.SerializeToString())


def model_proto(
    model: RNN | SequenceModel | Seq2Seq,
    opset: int = 22,
    *,
    lengths: bool = False,
    states: bool = False,
    outputs: Sequence[str] | None = None,
    dtype: Any = None,
    scan: bool = False,
) -> onnx.ModelProto:
    """What `export` writes."""
    model = check.kind(model, "model", (RNN, SequenceModel, Seq2Seq))
    opset = _opset(opset)
    wanted = {"lengths": check.flag(lengths, "lengths"), "states": check.flag(states, "states")}
    rnns = [model] if isinstance(model, RNN) else network_of(model).rnns
    dtype = rnns[-1].dtype if dtype is None else check.real_dtype(dtype)
    names = _names_of_outputs(outputs, model)
    for rnn in rnns:
        if isinstance(rnn.nonlinearity, Activation):
            check.refuse(f"nonlinearity {rnn.nonlinearity} cannot be exported: ONNX has no such function")
    graph, kind, metadata = Graph(dtype, scan=check.flag(scan, "scan")), "RNN", {}
    if isinstance(model, RNN):
        own = {name: getattr(model, name) for name in ("input_size", "bias", "batch_first")}
        config = own | configuration.of_layers(model)
        add_rnn(graph, model, **wanted)
    else:
        _check_fits(model, **wanted)
        network, metadata = network_of(model), model.metadata
        kind, config = network.kind, network.check_saveable(metadata)
    if isinstance(model, SequenceModel):
        add_sequence_model(graph, model, names, **wanted)
    elif isinstance(model, Seq2Seq):
        add_seq2seq(graph, model, lengths=lengths)
    config = {"kind": kind, **config, "dtype": dtype.name}
    return _checked(graph, kind, json.dumps(config), metadata, opset, repr(model))


def _opset(value: Any) -> int:
    opset = check.integers(*OPSETS)(value, "opset")
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        check.refuse(f"opset must be at most {newest} with onnx {onnx.__version__}, got {opset}: pip install -U onnx")
    return opset


def _names_of_outputs(value: Any, model: Any) -> tuple[str, ...]:
    """What a SequenceModel's graph puts out besides states."""
    if not isinstance(model, SequenceModel):
        if value is not None:
            check.refuse(f"outputs must be None for a model that is no SequenceModel, got {check.shown(value)}")
        return ()
    known: tuple[str, ...] = ("logits", "probabilities", "labels")
    if model.outputs.is_of_sequences:
        known = known[:2]
    if isinstance(model.outputs, Reals):  # of distributions and quantiles what they are read from
        known = ("units",) if model.outputs.quantiles or model.outputs.distribution else ("y",)
    if value is None:
        return known
    if not isinstance(value, (list, tuple)) or not value:
        expected = f"a list of one or more of {check.listed(known)}"
        raise (ValueError if value in ([], ()) else TypeError)(f"outputs must be {expected}, got {check.shown(value)}")
    return tuple(dict.fromkeys(check.choice(one, f"outputs[{i}]", known) for i, one in enumerate(value)))


def _check_fits(model: SequenceModel | Seq2Seq, *, lengths: bool, states: bool) -> None:
    """Refuse inputs that a model cannot have, and metadata that a file cannot."""
    for key in CONFIG, DIGEST:
        if key in model.metadata:
            check.refuse(f"metadata must not have an entry {key!r}, which an ONNX file has of its own")
    if states and isinstance(model, Seq2Seq):
        check.refuse("states must be False for a Seq2Seq, whose encoder begins with zeros, or with what it has learned")
    if not isinstance(model, SequenceModel):
        return
    for name, is_wanted in {"lengths": lengths, "states": states}.items():
        if is_wanted and PATTERNS[model.pattern].one_input:
            check.refuse(f"{name} must be False with pattern={model.pattern!r}, whose input is one step")
    if states and model.learn_h_0:
        check.refuse("states must be False with learn_h_0=True, which is about the states that all begin with")
    if states and (runs_back := stack_of(model.rnn).architecture.runs_back):
        check.refuse(f"states must be False with {runs_back}: that direction begins at the end")


def _checked(graph: Graph, name: str, config: str, metadata: dict[str, str], opset: int, words: str) -> onnx.ModelProto:
    """All of a file, which has been checked in full."""
    n_bytes = sum(len(one.raw_data) for one in graph.constants.values())
    if n_bytes > MOST_BYTES:
        check.refuse(f"model must have at most {MOST_BYTES} bytes of weights, as ONNX files have, got {n_bytes}")
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        graph.proto(name),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the oldest, so that runtimes of that age take it
        producer_name="elman",
        producer_version=about.version(),
        doc_string=words,
    )
    proto.graph.initializer.extend(graph.constants.values())
    helper.set_model_props(proto, {CONFIG: config, DIGEST: digest(proto.graph, config), **metadata})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def digest(graph: onnx.GraphProto, config: str) -> str:
    """SHA-256 of both, in hex: whoever changes one of them does not write this anew."""
    return hashlib.sha256(graph.SerializeToString(deterministic=True) + config.encode()).hexdigest()
