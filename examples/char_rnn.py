"""
A character model: one reader, and sixteen
==========================================

The classic first RNN script reads a text character by character in windows of 50 with one network of 100 units: batch
size 1, the state carried from window to window, plain SGD, gradients clipped to ±5. Here that workload runs beside
one that is the same but for its training: sixteen readers start at sixteen places of the text, and Adam averages
over them. The text, 460,000 characters of documentation, comes with Python. After 20 epochs the classic one needs about
2.3 bits for a character of held-out text; the other, in less time, 1.95.
"""

# %%
# The text
# --------
# `Corpus` gives each character a number and holds a tenth of the text out, in 20 pieces.
import time

import matplotlib.pyplot as plt
import numpy as np

import elman
from elman.text import Corpus, topics_text

EPOCHS = 20

corpus = Corpus.of(topics_text())
n_characters, text = len(corpus.vocabulary), corpus.train
held_out = corpus.held_out[:, :-1], corpus.held_out[:, 1:]
print(f"{len(text):,} characters to learn from, {n_characters} different ones")


# %%
# Two ways to read it
# -------------------
# A data set is a list of sequences. That of the classic script is a single one: the whole text, with each character's
# successor as its target. `tbptt=(50, 50)` makes an update after every 50 steps, with gradients that go back 50 steps.
def train(n_readers, optimizer, **options):
    model = elman.SequenceModel(elman.Tokens(n_characters), elman.Categories(n_characters), hidden_size=100, seed=0)
    length = (len(text) - 1) // n_readers
    x = text[: n_readers * length].reshape(n_readers, length)
    y = text[1 : n_readers * length + 1].reshape(n_readers, length)
    start, seconds = time.perf_counter(), []
    history = model.fit(
        x,
        y,
        epochs=EPOCHS,
        batch_size=n_readers,
        optimizer=optimizer,
        tbptt=(50, 50),
        validation_data=held_out,
        callbacks=[lambda _: seconds.append(time.perf_counter() - start)],
        **options,
    )
    bits = np.array(history["val_loss"]) / np.log(2)  # the loss is in nats
    print(f"batch size {n_readers}: {seconds[-1]:.1f} s, {bits[-1]:.2f} bits per character")
    return model, seconds, bits


classic = train(1, elman.SGD(lr=0.05), clip_value=5.0)
batched = train(16, elman.Adam(lr=0.01), clip_norm=1.0, schedule=elman.schedules.Cosine(warmup=1))

# %%
# What they write
# ---------------
# Each begins with an empty line, draws a character from its own prediction, and reads that as the next input.
figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for name, (model, seconds, bits) in {"batch size 1, SGD": classic, "batch size 16, Adam": batched}.items():
    tokens = model.generate(corpus.vocabulary.encode("\n\n"), 300, temperature=0.7, seed=0)
    print(f"\n--- {name} ---\n{corpus.vocabulary.decode(tokens)}")
    axes.plot(seconds, bits, "o-", ms=3, label=name)
axes.set(
    title="A character model of 100 units", xlabel="seconds of training", ylabel="bits per character, held-out text"
)
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("char_rnn.png", dpi=120)
print("\nThe plot is in char_rnn.png")
