"""
A decision about noisy evidence
===============================

A task of monkeys and of networks that model their brains: two streams of evidence, noise around two means that are
nearly equal; after a while the fixation point goes out, and it has to be said which one was larger. Units are leaky,
with a time constant of 100 ms, and have noise of their own (Yang et al., 2019). What is learned is to integrate: the
psychometric curve becomes steep, and some units' activity ramps up with the evidence, to one side or the other.
"""

# %%
# Trials
# ------
# Steps of 20 ms: fixation, evidence, decision. There is no target before the decision, -1, but to look at the point.
import matplotlib.pyplot as plt
import numpy as np

import elman

EPOCHS = 30
STEP, FIXATION, EVIDENCE, DECISION = 20, 10, 40, 5  # milliseconds, and steps
LOOK, LEFT, RIGHT = range(3)


def trials(coherence, rng):
    """Inputs (N, T, 3), fixation and two streams, and what to do (N, T)."""
    X = np.zeros((len(coherence), FIXATION + EVIDENCE + DECISION, 3), np.float32)
    X[:, : FIXATION + EVIDENCE, 0] = 1
    means = 0.5 + np.stack([-coherence, coherence], axis=1) / 2
    X[:, FIXATION:-DECISION, 1:] = means[:, None] + 0.5 * rng.standard_normal((len(X), EVIDENCE, 2))
    Y = np.full(X.shape[:2], LOOK)
    Y[:, -DECISION:] = np.where(coherence > 0, RIGHT, LEFT)[:, None]
    return X, Y


rng = np.random.default_rng(0)


def batches():
    while True:
        yield trials(rng.choice([-0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4], 64), rng)


# %%
# The network
# -----------
# Trials are made while it learns, a batch ahead.
model = elman.SequenceModel(
    elman.Features(3), elman.Categories(3, class_weights=[0.1, 1, 1]), hidden_size=64, seed=0,
    nonlinearity="softplus", leak=STEP / 100, noise=0.1, spectral_radius=0.9,
)  # fmt: skip
options = {"optimizer": elman.Adam(3e-3), "schedule": elman.schedules.Cosine(), "clip_norm": 1.0}
model.fit(batches, steps_per_epoch=60, epochs=EPOCHS, activation_l2=1e-4, **options)

# %%
# What it does, and how
# ---------------------
# With a `noise_seed` there is noise as in training: the same trial may be decided otherwise.
levels = np.linspace(-0.4, 0.4, 17)
inputs, _ = trials(np.repeat(levels, 100), rng)
chosen = model.predict(inputs, noise_seed=1)[:, -1].reshape(17, 100)
curve = (chosen == RIGHT).mean(axis=1)
print(f"Right of 100 trials: {100 * curve[0]:.0f} where it is left, {100 * curve[-1]:.0f} where it is right")

rates, _ = model.rnn(inputs.swapaxes(0, 1), noise_seed=1)  # the layer has time first
of_levels = rates.reshape(len(rates), 17, 100, 64).mean(axis=2)
selective = np.argsort(of_levels[-DECISION - 1, -1] - of_levels[-DECISION - 1, 0])[[0, -1]]

figure, (left, *others) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
left.plot(levels, curve, "o-")
left.set(title="Psychometric curve", xlabel="coherence", ylabel="part of decisions for the right")
for axes, unit in zip(others, selective, strict=True):
    for level in (0, 4, 6, 10, 12, 16):
        axes.plot(STEP * np.arange(len(rates)), of_levels[:, level, unit], label=f"{levels[level]:+.2f}")
    axes.axvspan(STEP * FIXATION, STEP * (FIXATION + EVIDENCE), color="gray", alpha=0.15)
    axes.set(title=f"Unit {unit}, means of 100 trials", xlabel="milliseconds", ylabel="rate")
others[1].legend(title="coherence")
figure.savefig("decision.png", dpi=120)
print("The plot is in decision.png")
