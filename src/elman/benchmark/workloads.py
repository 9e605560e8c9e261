"""What is measured: sizes, what is computed on them, and the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from elman import check, reference
from elman.layer.architecture import Architecture
from elman.typing import Int, Real

Arrays = dict[str, Any]  # results by name; losses are an array of rank 1

WHAT = {
    "forward": "forward",
    "both": "forward + backward, gradients of all parameters, none of the input",
    "both-dx": "forward + backward, gradients of all parameters and of the input",
    "step": "T calls of `step`",
    "train": "training step: tokens, softmax cross-entropy, clipping by global norm, Adam",
    "train-sgd": "training step: tokens, softmax cross-entropy, gradient descent",
    "train-rates": "training step of rate units: features, softmax cross-entropy, Adam",
    "loss": "loss of a model: tokens, softmax cross-entropy",
    "stream": "T calls of a stream's `predict`, a token for each row",
    "generate": "`generate`: T tokens drawn, one row after the other",
    "fit-many": "`fit_many` on a worker for each thread: tokens, 1000 updates of each model by Adam",
}
_OF_LAYERS = ("forward", "both", "both-dx", "step")
_WITHOUT_GRADIENTS = ("forward", "step", "loss", "stream", "generate")
N_BATCHES, N_EPOCHS = 50, 20  # of each model of `fit_many`
N_CHECKED_STEPS = 3  # training steps whose losses are compared
CLIP_NORM = 1.0
# Small, since the same batch is learnt again and again; still, three steps change the loss visibly.
LEARNING_RATE = {"train": 1e-4, "train-sgd": 1e-2, "train-rates": 1e-4, "fit-many": 1e-4}


class Shape(NamedTuple):
    """T, B, I, H. Where a model reads tokens, I is the number of different ones, in and out."""

    n_steps: int
    n_rows: int
    n_inputs: int
    n_units: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape that four positive ints with commas in between name.

        Raises
        ------
        ValueError
            If they are not.

        Examples
        --------
        >>> Shape.parse("25,1,64,100")
        Shape(n_steps=25, n_rows=1, n_inputs=64, n_units=100)
        >>> Shape.parse("25,1")
        Traceback (most recent call last):
        ...
        ValueError: shape must be four positive ints T,B,I,H, got '25,1'
        """
        sizes = [check.int_in_text(part) or 0 for part in text.split(",")]
        if len(sizes) != 4 or not all(0 < size <= check.SIZE_MAX for size in sizes):
            check.refuse(f"shape must be four positive ints T,B,I,H, got {text!r}")
        return cls(*sizes)

    def __str__(self) -> str:
        return ",".join(map(str, self))


@dataclass(frozen=True)
class Workload:
    """A computation: `what` is a key of WHAT, the rest are arguments of `elman.RNN`, and how many models there are."""

    shape: Shape
    what: str = "both"
    nonlinearity: str = "tanh"
    num_layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"
    dropout: float = 0.0  # between the layers, and recurrent
    models: int = 1  # of `fit_many`
    leak: float = 1.0
    noise: float = 0.0
    n_labels: int | None = None  # that a model tells apart; as many as inputs if not given, or if those are tokens

    @property
    def is_model(self) -> bool:
        """Whether it is about a model, and not about a layer."""
        return self.what not in _OF_LAYERS

    @property
    def has_tokens(self) -> bool:
        """Whether it is about a model that reads tokens."""
        return self.is_model and self.what != "train-rates"

    @property
    def kinds(self) -> tuple[Any, reference.Categories]:
        """What a model reads, and what it tells."""
        n_inputs = self.shape.n_inputs
        if self.has_tokens:
            return reference.Tokens(n_inputs), reference.Categories(n_inputs)
        return reference.Features(n_inputs), reference.Categories(self.n_labels or n_inputs)

    @property
    def sizes(self) -> str:
        """T,B,I,H, and how many labels there are, if that is given."""
        return f"{self.shape},{self.n_labels}" if self.n_labels else str(self.shape)

    @property
    def has_gradients(self) -> bool:
        """Whether it goes backward, too."""
        return self.what not in _WITHOUT_GRADIENTS

    @property
    def is_single(self) -> bool:
        """Whether it is one time step of one row: some microseconds."""
        return self.shape.n_steps == self.shape.n_rows == 1

    @property
    def n_passes(self) -> int:
        """How often a sequence goes through a layer: once, but for `fit_many`."""
        return self.models * N_BATCHES * N_EPOCHS if self.what == "fit-many" else 1

    @property
    def architecture(self) -> Architecture:
        """Its sizes as a layer's; tokens are one-hot inputs to it."""
        return Architecture(self.shape.n_inputs, self.shape.n_units, self.num_layers, self.bidirectional)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of RNN that are no sizes; without dropout, leak and noise, which few contestants have."""
        names = ("nonlinearity", "num_layers", "bidirectional", "dtype")
        return {name: getattr(self, name) for name in names}

    @property
    def flops(self) -> int:
        """Operations of all matrix products: a multiplication and an addition each. Tokens need none, features do.

        Examples
        --------
        >>> t, b, i, h = 7, 5, 3, 11
        >>> Workload(Shape(t, b, i, h), "forward").flops == 2 * t * b * h * (h + i)
        True
        >>> Workload(Shape(t, b, i, h), "both").flops == 2 * t * b * h * (3 * h + 2 * i)
        True
        """
        n_steps, n_rows, n_inputs, n_units = self.shape
        n_outputs, has_gradients = self.architecture.n_outputs, self.has_gradients
        per_row = 0  # multiply-adds of one time step of one row
        for k in range(self.num_layers):
            reads = n_outputs if k else 0 if self.has_tokens else n_inputs
            uses_of_input = 1 + has_gradients + (has_gradients and (k > 0 or self.what == "both-dx"))
            per_row += n_outputs * (n_units * (3 if has_gradients else 1) + reads * uses_of_input)
        if self.is_model:
            per_row += (3 if has_gradients else 1) * n_outputs * self.kinds[1].n  # the readout
        return 2 * n_steps * n_rows * per_row * self.n_passes

    @property
    def recurrent_bytes(self) -> int:
        """Size of what each time step reads anew: `weight_hh`, all layers and directions."""
        return self.architecture.n_states * self.shape.n_units**2 * np.dtype(self.dtype).itemsize

    @property
    def bytes_read(self) -> int:
        """What must come from cache at least: `recurrent_bytes` in each time step of each pass."""
        return self.shape.n_steps * self.recurrent_bytes * (1 + self.has_gradients) * self.n_passes


def _set(shapes: str, **options: Any) -> list[Workload]:
    return [Workload(Shape.parse(shape), **options) for shape in shapes.split()]


SETS = {
    "quick": [*_set("25,1,64,100 100,32,32,64 128,64,64,128"), *_set("50,1,65,100", what="train")],
    "table": _set(
        "25,1,64,100 100,1,32,64 1000,1,64,256 100,32,32,64 50,32,64,128 500,64,8,100 128,64,64,128 100,20,64,256 "
        "200,16,50,512 128,64,128,256 128,128,512,512 50,64,1760,1760"
    ),
    "seq": [
        *_set("50,1,65,100 35,16,80,160 100,32,65,128 128,64,96,256 128,64,96,512", what="train"),
        *_set("50,1,65,100", what="train-sgd"),
    ],
    "hidden": _set(" ".join(f"100,32,65,{h}" for h in (16, 32, 64, 128, 256, 512, 1024)), what="train"),
    # DeepBench has no input product, which none of the layers compared here can leave out: I = 1 costs next to nothing.
    # Behind its shapes, the one of MXNet's benchmark of recurrent layers.
    "deepbench": [
        *_set(" ".join(f"50,{b},1,{h}" for h in (1760, 2048, 2560) for b in (16, 32, 64, 128)), nonlinearity="relu"),
        *_set("300,20,800,800"),
    ],
    "small": [
        *(work for what in ("both", "forward", "step") for work in _set("1,1,16,16", what=what)),
        *(work for what in ("train", "loss", "stream") for work in _set("1,1,50,32", what=what, num_layers=2)),
        *_set("100,1,50,32", what="generate", num_layers=2),
    ],
    "dropout": _set("100,32,64,128 128,64,128,256", what="train", num_layers=2, dropout=0.2),
    "many": _set("25,1,65,100", what="fit-many", models=16),
    "rates": [  # networks that neuroscience trains on its tasks: steps in time, trials, channels, units
        *_set("100,16,3,64 200,64,4,100", what="train-rates", leak=0.2, noise=0.1, n_labels=3),
        *_set("100,64,85,256 500,64,85,256", what="train-rates", leak=0.2, noise=0.1, n_labels=33),
    ],
}


@dataclass(frozen=True)
class Case:
    """A workload with its data, drawn from a fixed seed; tokens and a model's target are (T, B), or (T, N)."""

    work: Workload
    parameters: dict[str, Real] = field(repr=False)  # named and shaped like `parameters()` of RNN or SequenceModel
    x: Real | Int = field(repr=False)
    d_y: Real | None = field(repr=False)  # (T, B, D·H)
    target: Int | None = field(repr=False)

    @classmethod
    def of(cls, work: Workload) -> Case:
        rng = np.random.default_rng(0)
        n_steps, n_rows, n_inputs, n_units = work.shape
        if work.is_model:
            n_batches = N_BATCHES if work.what == "fit-many" else 1
            x, target = rng.integers(n_inputs, size=(2, n_steps, n_batches * n_rows))
            if not work.has_tokens:
                x = rng.standard_normal((*target.shape, n_inputs)).astype(work.dtype)
                target = rng.integers(work.kinds[1].n, size=target.shape)
            model = reference.SequenceModel(*work.kinds, hidden_size=n_units, seed=rng, **work.options)
            return cls(work, model.parameters(), x, None, target)
        x = rng.standard_normal((n_steps, n_rows, n_inputs)).astype(work.dtype)
        d_y = rng.standard_normal((n_steps, n_rows, work.architecture.n_outputs)).astype(work.dtype)
        return cls(work, reference.RNN(n_inputs, n_units, seed=rng, **work.options).parameters(), x, d_y, None)
