"""ONNX: models as graphs that other programs run, networks read from graphs, and a backend with elman's kernels.

Imported only on request: `import elman.onnx`. Needs the package onnx, which `pip install 'elman[onnx]'` brings.

What a graph does not say of the model that it has been made of stands in its metadata_props:

- "elman.config" is JSON: the arguments of the class, as files of models have them (`elman.models.configuration`), and
  "kind", which is "RNN", "SequenceModel" or "Seq2Seq".
- "elman.digest" is the SHA-256, in hex, of the graph as protobuf serializes it deterministically and, behind it, that
  JSON in UTF-8. Where it does not fit, one of the two has been changed: the graph is read like one of another program.

Weights in a graph are those that act, with signs and masks, and a leak that is learned is there as α, not as its logit;
constants have the names of `parameters()`, with "encoder." or "decoder." before them in a Seq2Seq:

- weight_ih_l{k}, weight_hh_l{k}, bias_l{k} are those of a node RNN: (D, H, ·), both directions in one, and (D, 2·H);
- weight_ih_l{k}.T, weight_hh_l{k}.T, weight_ho.T are transposed, for MatMul and Gather, each direction's apart, with
  "_reverse" behind l{k}; so are bias_l{k}, bias_o and leak_l{k} beside them, as they are;
- h_0 is what all rows begin with, (L·D, 1, H), zeros where it is not learned.

Tokens that a node RNN reads are rows of a constant by Gather: of one_hot, the identity; or, where there are more tokens
than units, of weight_ih_l0.T (n, D·H), and the RNN's weight is units_l0, which passes them on. Where they have an
embedding, they are rows of that; of columns x (…, C), tokens are cast to int64, and rows of each are laid side by side.

All other entries of metadata_props are the model's `metadata`.
"""

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    raise ImportError("elman.onnx needs the package onnx: pip install 'elman[onnx]'") from error

from elman.onnx.backend import Backend
from elman.onnx.export import export
from elman.onnx.loading import load

__all__ = ["Backend", "export", "load"]
