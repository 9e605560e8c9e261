"""
Remembering over fifty steps
============================

The adding problem: of 50 random numbers two are marked, and the answer at the end is their sum. Whoever always answers
1, the mean, has a squared error of 1/6. To do better, the network has to carry a number over dozens of steps, and to
learn that, a gradient has to travel back over them. With tanh it fades on the way, and hardly anything is learned.
With relu and a recurrent matrix that begins as the identity (Le, Jaitly & Hinton, 2015) it arrives: the error falls
below 0.001.
"""

# %%
# The task
# --------
# `elman.tasks` generates the classic problems. Each step of this one has two features, a number and its mark.
import matplotlib.pyplot as plt

import elman
from elman import tasks

EPOCHS = 15

X, y = tasks.adding(8000, n_steps=50, seed=0)
held_out = X_test, y_test = tasks.adding(1000, n_steps=50, seed=1)
first, second = X[0, X[0, :, 1] == 1, 0]
print(f"In the first sequence, {first:.2f} and {second:.2f} are marked, so the answer is {y[0, 0]:.2f}")

# %%
# Two networks
# ------------
options = {"pattern": "many-to-one", "hidden_size": 100, "seed": 0}
models = {
    "tanh": elman.SequenceModel(elman.Features(2), elman.Reals(), **options),
    "relu, identity": elman.SequenceModel(
        elman.Features(2), elman.Reals(), nonlinearity="relu", initialization="identity", **options
    ),
}


# %%
# How the gradient flows
# ----------------------
# `gradient_norms` runs one pass, with time as the first axis, and says how long the gradient of the loss by the state
# is after each step. Here it is shown as a part of what it is after the last one.
def gradient_flow(model):
    norms, _ = model.gradient_norms(X_test.swapaxes(0, 1), y_test)
    return norms[0] / norms[0, -1]


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for (name, model), color in zip(models.items(), ["tab:orange", "tab:blue"], strict=True):
    steps, epochs = range(1, 51), range(1, EPOCHS + 1)
    left.semilogy(steps, gradient_flow(model), "--", color=color, label=f"{name}, before training")
    history = model.fit(X, y, epochs=EPOCHS, clip_norm=1.0, schedule=elman.schedules.Cosine(), validation_data=held_out)
    left.semilogy(steps, gradient_flow(model), color=color, label=f"{name}, after")
    right.semilogy(epochs, history["val_loss"], color=color, label=name)
    print(f"{name}: mean squared error {history['val_loss'][-1]:.4f} on held-out sequences")

left.set(title="Gradient flow", xlabel="step", ylabel="gradient by the state, relative to the last step")
right.set(title="Adding problem", xlabel="epoch", ylabel="mean squared error, held-out sequences")
right.axhline(tasks.BASELINES["adding"], color="gray", linestyle=":", label="always 1, the mean")
for axes in (left, right):
    axes.grid(alpha=0.3)
    axes.legend()
figure.savefig("memory.png", dpi=120)
print("The plot is in memory.png")
