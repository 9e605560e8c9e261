"""
Excitation, inhibition, and a decision that depends on context
==============================================================

Neurons either excite or inhibit all that they reach: Dale's law. Here 80 of 100 units excite, 20 inhibit, and only the
first are read from (Song, Yang & Wang, 2016). The task is that of Mante et al. (2013): evidence of two kinds, motion
and color, each for the left or the right; the context says which of them counts.
"""

# %%
# Trials, in steps of 20 ms. Inputs are the context and the two kinds of evidence for either side.
import matplotlib.pyplot as plt
import numpy as np

import elman

EPOCHS = 40
STEP, BEFORE, EVIDENCE, DECISION = 20, 5, 30, 5  # milliseconds, and steps
COHERENCES = np.array([-0.4, -0.2, -0.1, 0.1, 0.2, 0.4])  # below 0: for the left


def trials(context, motion, color, rng):
    """Inputs (N, T, 6) and, at the end, 0 for left and 1 for right, (N, T)."""
    X = np.zeros((len(context), BEFORE + EVIDENCE + DECISION, 6), np.float32)
    X[np.arange(len(X)), :, context] = 1
    means = 0.5 + np.stack([-motion, motion, -color, color], axis=1) / 2
    X[:, BEFORE:-DECISION, 2:] = means[:, None] + 0.3 * rng.standard_normal((len(X), EVIDENCE, 4))
    Y = np.full(X.shape[:2], -1)  # no target before the decision
    Y[:, -DECISION:] = (np.where(context == 0, motion, color) > 0)[:, None]
    return X, Y


rng = np.random.default_rng(0)


def batches():
    while True:
        yield trials(rng.integers(0, 2, 64), *rng.choice(COHERENCES, (2, 64)), rng)


# %%
model = elman.SequenceModel(
    elman.Features(6), elman.Categories(2), hidden_size=100, nonlinearity="relu", leak=STEP / 100, noise=0.05,
    excitatory=0.8, readout_from="excitatory", mask_hh=~np.eye(100, dtype=bool), seed=0,
)  # fmt: skip
signs, first = np.repeat([1, -1], [80, 20]), model.effective_weights()["weight_hh_l0"]


def keep_signs(run):
    assert np.all(run.model.effective_weights()["weight_hh_l0"] * signs >= 0)


options = {"optimizer": elman.Adam(2e-3), "schedule": elman.schedules.Cosine(), "clip_norm": 1.0}
model.fit(batches, steps_per_epoch=50, epochs=EPOCHS, activation_l2=1e-3, callbacks=[keep_signs], **options)

# %%
# Choices follow the evidence that counts. Excitation and inhibition were balanced to begin with: without that, one
# eigenvalue would be far outside the circle that the others are in.
figure, (*curves, spectrum, weights) = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
pairs = np.stack(np.meshgrid(COHERENCES, COHERENCES)).reshape(2, -1).repeat(50, axis=1)
right = []
for context, axes in enumerate(curves):
    X, Y = trials(np.full(pairs.shape[1], context), *pairs, rng)
    chosen = model.predict(X, noise_seed=1)[:, -1]
    right.append(np.mean(chosen == Y[:, -1]))
    for values, name in zip(pairs, ("motion", "color"), strict=True):
        axes.plot(COHERENCES, [chosen[values == c].mean() for c in COHERENCES], "o-", label=name)
    axes.set(title=f"{('motion', 'color')[context]} counts", xlabel="coherence", ylabel="part of choices for the right")
    axes.legend()
print(f"Right where motion counts: {right[0]:.0%}, where color counts: {right[1]:.0%}; weights kept their signs")
for name, weight in ("not balanced", elman.RNN(1, 100, seed=0).parameters()["weight_hh_l0"]), ("balanced", first):
    eigenvalues = np.linalg.eigvals(np.abs(weight) * signs)
    spectrum.plot(eigenvalues.real, eigenvalues.imag, ".", label=name)
spectrum.set(title="Eigenvalues at first", xlabel="real part", ylabel="imaginary part", aspect="equal")
weights.imshow(model.effective_weights()["weight_hh_l0"], cmap="RdBu_r", vmin=-0.5, vmax=0.5)
weights.set(title="Weights, trained", xlabel="from unit", ylabel="to unit")
spectrum.legend()
figure.savefig("dale.png", dpi=120)
print("The plot is in dale.png")
