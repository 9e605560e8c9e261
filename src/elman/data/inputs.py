"""What goes into a model: kinds of input."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.check import Shape
from elman.data.learned import Kind
from elman.data.named import Named, room
from elman.data.scaler import Scaler
from elman.lengths import within
from elman.typing import Int, Real


class Input(Kind):
    """What all kinds of input have."""

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Any:
        """Validated input: of one of these shapes, with another axis of n for features."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """How many inputs layers have for it."""
        return self.n

    @property
    def is_laid_out(self) -> bool:
        """Whether layers read something else than what comes in."""
        return bool(self.embedded)

    @property
    def embedded(self) -> dict[str, Tokens]:
        """The tokens that have an embedding, by the name of this parameter (n, d)."""
        return {}

    def check_addressable(self) -> None:
        """Refuse embeddings that memory has no addresses for, before there are any."""
        for tokens in self.embedded.values():
            check.addressable(8 * tokens.n * tokens.width, n=tokens.n, embedding_dim=tokens.width)

    # What layers read. Tables are the embeddings, as they lie in a buffer of parameters: (d, n), or None

    def laid_out(self, x: Any, tables: Sequence[Any]) -> Any:  # noqa: ARG002
        """Of inputs (T, B, ·): tokens (T, B) that have no embedding, or (T, B, width)."""
        return x

    def moved(self, x: Any, tangents: Sequence[Real]) -> Any:
        """How that moves where the tables do."""
        return self.laid_out(x, tangents)

    def add_by_tables(self, d_tables: Sequence[Real | None], x: Any, d_x: Real) -> None:
        """Add the gradients by the tables that are wanted, given that by what was laid out, 0 beyond the lengths."""


class Tokens(Named, Input):
    """One of n tokens at each step: a word, a character, a symbol. They are integers from 0 to n - 1, or labels.

    As they are, layers read them as one-hot vectors, of which the kernels need no arrays. With an embedding they read a
    vector of d learned numbers for each token (Bengio et al., 2003): the parameter "embedding" (n, d) of the model.

    Parameters
    ----------
    n : int
        How many there are; by default as many as there are labels.
    labels : list of str, int or bool, or "fit", optional
        What stands in the place of integers wherever the model is given tokens, in the order of the integers that they
        stand for: no two the same. A str is a sequence of characters where labels are characters. With "fit", the first
        `fit` says them: all that there are in what it trains on, sorted, of which there may be n. (Where `Categories`
        of as many n wait for labels, too, both have those of X and Y.) A model has them from then on, and its files
        too; before, it can do nothing else.
    unknown : str, int or bool, optional
        The label that all others are taken for; where it is not among the labels, it comes behind them. By default
        others are refused.
    embedding_dim : int, optional
        d. The embedding is drawn from N(0, 1), as torch.nn.Embedding is: with weights that are uniform in ±1/√H, a
        pre-activation gets a variance of d / 3H from it, which leaves tanh where it is steep for d up to about H.
    embedding : array (n, d), optional
        Instead: what the embedding begins with, such as word vectors of another model. It is learned like any parameter
        unless the `trainable` of a training leaves it out.

    Attributes
    ----------
    n, embedding_dim : int
        The latter is None without an embedding.
    embedding : array (n, d) of float64 or None
        As given, read-only. A model's `inputs` have None: its embedding is among its `parameters()`.
    labels : tuple, "fit" or None
        With that of `unknown`, if there is one.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Examples
    --------
    >>> Tokens(27)
    Tokens(27)
    >>> Tokens(27, embedding_dim=8)
    Tokens(27, embedding_dim=8)
    >>> import elman
    >>> tokens = Tokens(labels=["the", "cat", "sat"], unknown="?")
    >>> tokens
    Tokens(4, labels=('the', 'cat', 'sat', '?'), unknown='?')
    >>> model = elman.SequenceModel(tokens, elman.Categories(labels=["noun", "other"]), hidden_size=8, seed=0)
    >>> X, Y = [["the", "cat", "sat"], ["the", "dog"]], [["other", "noun", "other"], ["other", "noun"]]
    >>> history = model.fit(X, Y, epochs=50, optimizer=elman.Adam(0.02), progress=False)
    >>> model.predict([["the", "mat"]])[0].tolist()
    ['other', 'noun']
    """

    _fixed = frozenset(("n", "labels", "unknown", "embedding_dim", "embedding"))
    embedding_dim: int | None = None
    embedding: Real | None = None

    def __init__(
        self,
        n: int | None = None,
        *,
        labels: Any = None,
        unknown: Any = None,
        embedding_dim: int | None = None,
        embedding: Any = None,
    ) -> None:
        n, labels = room(n, labels, unknown)
        super().__init__(n)
        if labels is not None:
            self._put(unknown=unknown.item() if isinstance(unknown, np.generic) else unknown)
            self._put(labels=labels)
        if embedding is not None and embedding_dim is not None:
            check.refuse("embedding_dim must be None where there is an embedding, whose second axis it is")
        if embedding is not None:
            if isinstance(labels, str):
                check.refuse(
                    "labels must be a list where there is an embedding, whose rows are in its order, got 'fit'"
                )
            embedding = check.real_array(embedding, "embedding", np.dtype(np.float64), (self.n, "d")).copy()
            check.finite(embedding, "embedding")
            embedding.flags.writeable = False
            embedding_dim = embedding.shape[1]
        embedding_dim = None if embedding_dim is None else check.size(embedding_dim, "embedding_dim")
        self._put(embedding_dim=embedding_dim, embedding=embedding)

    def settings(self) -> dict[str, Any]:
        return super(Tokens, self.one_s_own()).settings()

    def one_s_own(self) -> Tokens:
        """Without what the embedding begins with, as a model has it among its parameters."""
        own = super().one_s_own()
        if own.embedding is not None:
            own = copy.copy(own)
            own._put(embedding=None)
        return own

    def __eq__(self, other: object) -> bool:
        begins: list[Any] = [getattr(one, "embedding", None) for one in (self, other)]
        return super().__eq__(other) and np.array_equal(*begins)

    __hash__ = Input.__hash__

    @property
    def width(self) -> int:
        return self.n if self.embedding_dim is None else self.embedding_dim

    @property
    def embedded(self) -> dict[str, Tokens]:
        return {} if self.embedding_dim is None else {"embedding": self}

    def laid_out(self, x: Any, tables: Sequence[Any]) -> Any:
        # beyond the lengths there may be any number
        return x if self.embedding_dim is None else tables[0].T[x.clip(0, self.n - 1)]

    def add_by_tables(self, d_tables: Sequence[Real | None], x: Any, d_x: Real) -> None:
        """In the order of all parameters' gradients: steps descending, rows ascending."""
        for d_table in d_tables:
            if d_table is not None:
                tokens, columns = x[::-1].clip(0, self.n - 1).ravel(), d_x[::-1].reshape(-1, d_x.shape[-1]).T
                for of_all, of_places in zip(d_table, columns, strict=True):
                    np.add.at(of_all, tokens, of_places)

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Int:  # noqa: ARG002
        if self.labels is None:
            return check.tokens(x, name, self.n, *shapes, row_lengths=row_lengths)

        def wrong(strangers: NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
            if row_lengths is not None:
                n_steps, n_rows = strangers.shape
                strangers = strangers & within(n_steps, check.lengths(row_lengths, n_rows, n_steps))
            yield from map(tuple, np.argwhere(strangers)[:1].tolist())

        return self.coder.codes(x, name, shapes, wrong, may_miss=False)


class Features(Input):
    """n real numbers at each step. One-hot features give a model the same numbers as the tokens that they stand for.

    They are float32 or float64; in data sets also bool, float16, or integers of up to 16 bits.

    Parameters
    ----------
    n : int
    scaler : Scaler, optional
        What brings them to about unit size before layers read them. One that has not been fitted is so by the first
        `fit` of the model, on what is trained on, within the lengths; the model and its files have it then. Before,
        there is nothing that the model can be used for.

    Examples
    --------
    >>> Features(8)
    Features(8)
    >>> import elman
    >>> Features(8, scaler=elman.Scaler())
    Features(8, scaler=Scaler())
    """

    _fixed = frozenset(("n", "scaler"))

    def __init__(self, n: int, *, scaler: Scaler | None = None) -> None:
        super().__init__(n)
        self._put_scaler(scaler)

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Real:
        array = check.real_array(x, name, self.as_read(x, dtype), *[(*shape, self.n) for shape in shapes])
        if row_lengths is not None:
            row_lengths = check.lengths(row_lengths, array.shape[1], len(array))
        check.finite(array, name, row_lengths)
        return array
