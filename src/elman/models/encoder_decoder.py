"""What is behind `Seq2Seq`: two stacks, the second of which begins with the last states of the first, and search."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data.inputs import Input
from elman.data.metrics import OF_LOSS, Exact, Measured, Metrics
from elman.data.outputs import Categories, Output, finite_outputs, penalize
from elman.data.sequences import Batch, DataSet, PairedBatch, Pairs, Window
from elman.layer.dynamics import mixed
from elman.layer.parameters import Parameters
from elman.layer.rnn import RNN, mode_of, move_to, stack_of
from elman.layer.stack import Drawn, Mode
from elman.lengths import n_within
from elman.models import configuration, scheduled
from elman.models.generation import Begun, Uniforms, go_on, named
from elman.models.network import Kept, Network
from elman.models.reading import Reading
from elman.models.recomputation import Cost, OfLast, differentiated, segment_lengths
from elman.training.plan import Descent
from elman.typing import Int, Real


class EncoderDecoder(Network):
    """An encoder and a decoder, which work on the network's parameters, and the readout of the decoder."""

    written: Output  # the tokens that come out; of those that are predicted, the last stands for the start and the end
    kind = "Seq2Seq"
    metrics: Sequence[str] = (*Exact.names, *OF_LOSS)

    def __init__(self, inputs: Input, written: Output, rnns: tuple[RNN, RNN], kept: Kept) -> None:
        for rnn, part in zip(rnns, _parts(kept.parameters, rnns), strict=True):
            move_to(part, rnn)
        given = written.class_weights
        class_weights = None if given is None else [*given, 1.0]
        super().__init__(rnns, inputs, Categories(written.n + 1, class_weights=class_weights), kept)
        self.written = written
        self._encoder, self._decoder = stack_of(rnns[0]), self.stack

    def modes(self) -> tuple[Mode, Mode]:
        """How a call that begins now computes in the encoder and in the decoder, whose backend is that of both."""
        encoder, decoder = map(mode_of, self.rnns)
        return encoder._replace(backend=decoder.backend), decoder

    def gradients_of(self, window: Window, state: Any, descent: Descent, /) -> tuple[float, Real | None]:  # noqa: ARG002
        """One update's mean loss; `gradients` are written. There is one window, so nothing is handed on."""
        (encoding, decoding), into = self.modes(), descent.wanted(self.gradients)
        into.flat.fill(0)
        read, written = _batches(window.batch)
        to_encoder, to_decoder = self._lowest_of(into)
        scales = self.activation_scales(descent.penalties, window.batch)
        decode = functools.partial(self._decode, gradients=into, scales=scales, lowest=to_decoder)
        n_read, n_written = len(read.x), len(written.x)
        if descent.memory is not None:
            of_encoder = Cost.of(self._encoder, encoding, read.x, self.n_read)
            of_decoder = Cost.of(self._decoder, decoding, written.x, self.predicted.n)
            n_read, n_written = segment_lengths([of_encoder, of_decoder], descent.memory)

        def of_last(h_x: Real) -> tuple[float, Real]:
            h_0 = self._handed_over(h_x)
            loss, _, d_h_0 = differentiated(decode, n_written, self._decoder, decoding, written, h_0)
            return loss, self._handed_back(d_h_0)

        reading = self.reading(encoding, read.x, into)
        encode = functools.partial(self._encode, of_last=of_last, reading=reading, lowest=to_encoder)
        first = self.initial_state(read.x.shape[1])
        own: Any = {"of_last": of_last, "reading": reading}
        loss, _, d_first = differentiated(encode, n_read, self._encoder, encoding, read, first, **own)
        reading.end()
        self.add_by_h_0(into, d_first)
        return loss + self.penalize_weights(descent.penalties, into), None

    def fed_back(self, batch: PairedBatch, probability: float) -> PairedBatch:
        """An end that is predicted is not fed back: nothing is read after one."""
        assert batch.keys is not None
        modes, edge = self.modes(), self.written.n
        h = self._encoded(modes[0], batch.x, batch.lengths)
        given = batch.y, batch.targets.lengths, h, self.predict_of
        found = scheduled.predictions(self._decoder, modes[1], *given)[:-1]
        is_own = scheduled.is_fed_back(batch.keys, len(found), probability) & (found != edge)
        return batch._replace(y=np.concatenate([batch.y[:1], np.where(is_own, found, batch.y[1:])]))

    def n_penalized(self, batch: PairedBatch) -> int:
        return n_within(*batch.targets[:2])

    def _lowest_of(self, gradients: Parameters) -> tuple[int, int]:
        """The lowest layers of encoder and decoder of which gradients are wanted, L where none is."""
        n = self._encoder.architecture.n_entries
        of_encoder, of_decoder = gradients.arrays[:n], gradients.arrays[n:]
        to_encoder, to_decoder = self._encoder.lowest_of(of_encoder), self._decoder.lowest_of(of_decoder)
        to_encoder = 0 if self.trains_h_0(gradients) or self.trains_inputs(gradients) else to_encoder
        # To the encoder by way of the states that the decoder begins with
        return to_encoder, 0 if to_encoder < len(self._encoder.weights) else to_decoder

    def _encode(
        self,
        mode: Mode,
        batch: Batch,
        h_0: Real,
        *,
        of_last: OfLast,
        reading: Reading,
        lowest: int,
        d_h_n: Real | None = None,
        drawn: Drawn | None = None,
        loss: float = 0.0,
        direction: int | None = None,
    ) -> tuple[float, Real, Real]:
        """A stretch of the encoder's steps, as `recomputation.differentiated` asks for it."""
        h_n, d_h_0, x = np.empty_like(h_0), np.empty_like(h_0), reading.of(batch.x)
        d_x, given = reading.room(x), {"lengths": batch.lengths, "drawn": drawn, "weights": reading.weights}
        with self._encoder.forward(mode, x, h_0, h_n, **given) as tape:  # type: ignore[arg-type]
            if d_h_n is None:
                loss, d_h_n = of_last(h_n)
            own = reading.arrays, None, lowest, direction
            self._encoder.backward(tape, None, d_h_n, d_h_0, d_x, *own)
        reading.add(batch.x, d_x)
        return loss, h_n, d_h_0

    def _decode(
        self,
        mode: Mode,
        batch: Batch,
        h_0: Real,
        *,
        gradients: Parameters,
        scales: tuple[float, float] | None,
        lowest: int,
        d_h_n: Real | None = None,
        drawn: Drawn | None = None,
        loss: float = 0.0,
    ) -> tuple[float, Real, Real]:
        """The same of the decoder's, with the loss of what they put out."""
        h_n, d_h_0, targets = np.empty_like(h_0), np.empty_like(h_0), batch.targets
        with self._decoder.forward(mode, batch.x, h_0, h_n, lengths=batch.lengths, drawn=drawn) as tape:
            h, d_h = tape.layers[-1].y, tape.d_y if lowest < len(self._decoder.weights) else None
            loss += self.loss_of(mode.backend, h, targets, d_h, gradients)
            if scales:
                loss += penalize(h, targets.lengths, scales, d_h)
            of_decoder = gradients.arrays[self._encoder.architecture.n_entries :]
            self._decoder.backward(tape, d_h, d_h_n, d_h_0, None, of_decoder, lowest=lowest)
        return loss, h_n, d_h_0

    def evaluate(self, data: Pairs, batch_size: int, metrics: Metrics) -> dict[str, float]:
        """The loss of a data set, with its targets fed to the decoder, and metrics of what `decode` makes of it."""
        modes, losses, totals = self.modes(), [], []
        with data.each(data.batch, batch_size) as batches:
            for _, batch in batches:
                h_0 = self._encoded(modes[0], batch.x, batch.lengths)
                h_n = np.empty_like(h_0)
                with self._decoder.lease(*batch.y.shape) as (h,):
                    self._decoder.evaluate(modes[1], batch.y, h_0, h_n, h, batch.targets.lengths)
                    losses.append(self.loss_of(modes[1].backend, h, batch.targets))
                totals.append(batch.targets.total)
        finite_outputs(losses, "loss")
        # No prediction of more tokens than there are can be right: one beyond them tells. Functions see whole ones.
        limits = np.maximum(data.y_lengths + 1, longest(data.lengths) if metrics.functions else 0)
        predicted, rows = self.decode(data, limits, 1, batch_size), data.rows().tolist()
        measured = Measured(metrics, Exact(), self.written.named)
        measured.add([data.y[row] for row in rows], [predicted[row] for row in rows], np.ones(len(rows)))
        return measured.values(float(np.average(losses, weights=totals)))

    def generate(
        self, data: DataSet, limits: Int, n_samples: int, batch_size: int, options: dict[str, Any], rng: Any = None
    ) -> list[list[Int]]:
        """So many sequences of tokens that each of a data set becomes, drawn with `options` of `Generation`."""
        mode, edge, is_random = self.modes()[0], self.written.n, options["temperature"] > 0
        rngs = rng.spawn(len(data.lengths)) if is_random else []
        results: list[list[Int]] = [[] for _ in data.lengths]
        with data.each(data.inputs_of, batch_size) as batches:
            for rows, inputs in batches:
                begun = Begun(self._encoded(mode, *inputs), np.full((1, len(rows)), edge)).repeated(n_samples)
                uniforms = Uniforms([rngs[row] for row in rows] if rngs else [], n_samples, int(is_random))
                name = named("largest output of X[{}] at step {}", rows, n_samples)
                path = go_on(self, begun, int(limits[rows].max()), uniforms, name, {**options, "end": edge})
                for i, n in enumerate(path.n_drawn):
                    row = rows[i // n_samples]
                    results[row].append(path.drawn[: min(n, limits[row]), i].copy())
        return results

    def decode(self, data: DataSet, limits: Int, beam: int, batch_size: int) -> list[Any]:
        """What each sequence of a data set becomes: tokens (n,), no more than its limit; None where it is not read."""
        if beam == 1:
            found = self.generate(data, limits, 1, batch_size, {"temperature": 0.0})
            return [samples[0] if samples else None for samples in found]
        modes, results = self.modes(), list[Any]([None] * len(data.lengths))
        with data.each(data.inputs_of, batch_size) as batches:
            for rows, inputs in batches:
                h = self._encoded(modes[0], *inputs)
                for row, tokens in zip(rows, self._search(modes[1], h, beam, limits[rows]), strict=True):
                    results[row] = np.array(tokens, dtype=np.int64)
        return results

    def _search(self, mode: Mode, h: Real, beam: int, limits: Int) -> list[list[int]]:
        """The best sequence for each row of first states h (L, B, D·H), by beam search."""
        searches = [_Search(beam, self.written.n, int(limit)) for limit in limits]
        active = [search for search in searches if search.limit > 0]
        h = np.ascontiguousarray(h[:, limits > 0])
        while active:
            tokens = np.array([beginning[-1] for search in active for beginning in search.beginnings])
            h_next = np.empty_like(h)
            y = self._decoder.step(mode, tokens, h, h_next)
            log_p = _log_softmax(self.outputs(mode.backend, y[None])[0])
            kept, start = [], 0  # which states the beginnings of the next step come from
            for search in active:
                stop = start + len(search.beginnings)
                kept += [start + parent for parent in search.extend(log_p[start:stop])]
                start = stop
            active = [search for search in active if search.beginnings]
            h = h_next if kept == list(range(start)) else np.ascontiguousarray(h_next[:, kept])
        return [search.best() for search in searches]

    def _encoded(self, mode: Mode, x: Real | Int, lengths: Int | None) -> Real:
        """The decoder's first states (L, B, D·H)."""
        first, reading = self.initial_state(x.shape[1]), self.reading(mode, x)
        h_x = self._encoder.last_states(mode, reading.of(x), first, lengths, weights=reading.weights)
        return self._handed_over(h_x)

    def _handed_over(self, h_x: Real) -> Real:
        """The decoder's first states (L, B, D·H): for each layer the encoder's last ones (L·D, B, H), side by side."""
        n_layers, (_, n_rows, n_units) = self._encoder.architecture.num_layers, h_x.shape
        by_layer = h_x.reshape(n_layers, -1, n_rows, n_units)
        return np.ascontiguousarray(by_layer.swapaxes(1, 2)).reshape(n_layers, n_rows, -1)

    def _handed_back(self, d_h_0: Real) -> Real:
        """Its derivative, transposed."""
        n_units, (n_layers, n_rows, _) = self._encoder.architecture.hidden_size, d_h_0.shape
        by_direction = d_h_0.reshape(n_layers, n_rows, -1, n_units)
        return np.ascontiguousarray(by_direction.swapaxes(1, 2)).reshape(-1, n_rows, n_units)

    def config(self) -> dict[str, Any]:
        """Arguments of `Seq2Seq`, as JSON has them; an error where encoder and decoder differ in one."""
        encoder, decoder = self.rnns
        for name in ("nonlinearity", "dropout", "recurrent_dropout"):
            one, other = getattr(encoder, name), getattr(decoder, name)
            if one != other:
                check.refuse(f"{name} must be the same in encoder and decoder to be saved, got {one} and {other}")
        return configuration.described(self.inputs, self.written, encoder) | self.own_config()


def longest(lengths: Int) -> Int:
    """How many tokens there are to be at most if nobody says so, of what becomes of so many steps."""
    return 2 * lengths + 10


def _parts(parameters: Parameters, rnns: tuple[RNN, RNN]) -> list[Parameters]:
    """The encoder's and the decoder's, under their own names."""
    first, second = (stack_of(rnn).architecture.entries() for rnn in rnns)
    return [parameters.part(0, first), parameters.part(len(first), second)]


def _batches(batch: PairedBatch) -> tuple[Batch, Batch]:
    """What the encoder reads, beside targets that are not its own, and what the decoder does."""
    keys = None if batch.keys is None else mixed(batch.keys.view(np.uint64), 0).view(np.int64)
    x, lengths, y, targets, _ = batch
    return Batch(x, lengths, targets, batch.keys), Batch(y, targets.lengths, targets, keys)


class _Search:
    """Beam search for one sequence: the likeliest beginnings, and the sequences that came to an end.

    Beginnings are lists of tokens that the start stands before. A sequence that ends takes its place in the beam with
    it, so that poor ends cannot crowd out a good beginning; it is over when there are none left, or at the limit.
    """

    def __init__(self, beam: int, edge: int, limit: int) -> None:
        self.beam, self.edge, self.limit = beam, edge, limit
        self.beginnings: list[list[int]] = [[edge]]
        self.scores: NDArray[np.float64] = np.zeros(1)  # sums of log-probabilities
        self.ended: list[tuple[float, list[int]]] = []  # with the mean over their tokens and the end

    def extend(self, log_p: NDArray[np.float64]) -> list[int]:
        """Go on by one token, given the log-probabilities (beginnings, tokens); which of them each one comes from."""
        scores = (self.scores[:, None] + log_p).ravel()
        n = log_p.shape[1]
        parents, beginnings, kept = [], [], []
        for i in np.argsort(-scores, kind="stable")[: self.beam - len(self.ended)].tolist():
            parent, token = divmod(i, n)
            tokens = self.beginnings[parent]
            if token == self.edge:
                self.ended.append((scores[i] / len(tokens), tokens[1:]))
            elif len(tokens) == self.limit:
                self.ended.append((scores[i] / len(tokens), [*tokens[1:], token]))
            else:
                parents.append(parent)
                beginnings.append([*tokens, token])
                kept.append(scores[i])
        self.beginnings, self.scores = beginnings, np.array(kept)
        return parents

    def best(self) -> list[int]:
        return max(self.ended, key=lambda item: item[0])[1] if self.ended else []


def _log_softmax(o: Real) -> NDArray[np.float64]:
    z = o.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return z
