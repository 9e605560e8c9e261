"""
Fixed points of a network that remembers
========================================

The task with which Sussillo & Barak (2013) opened the black box: on three lines come pulses, up or down, and three
outputs have to say which one came last on each. A network that can do it has eight things to remember, two to the power
of three. How does it? Without pulses, it is a dynamical system at rest: eight stable fixed points, the corners of a
cube, and between them saddles, over which a pulse has to carry the state.
"""

# %%
# The network
# -----------
# Units are leaky, so that states move in small steps.
import matplotlib.pyplot as plt
import numpy as np

import elman
from elman import tasks

EPOCHS = 200

X, Y = tasks.flip_flop(512, n_steps=60, seed=0)
held_out = X_test, Y_test = tasks.flip_flop(64, n_steps=60, seed=1)
model = elman.SequenceModel(elman.Features(3), elman.Reals(3), hidden_size=64, leak=0.5, seed=0)
options = {"optimizer": elman.Adam(5e-3), "schedule": elman.schedules.Cosine(), "clip_norm": 1.0}
model.fit(X, Y, epochs=EPOCHS, batch_size=64, **options)
right = np.mean(np.sign(model.predict(X_test)) == Y_test)
print(f"Right on held-out sequences: {right:.1%} of bits")

# %%
# Its fixed points
# ----------------
# Searched for without pulses, x = 0, from states that the network visits, moved a little. Stable ones come first, then
# saddles by the number of directions that lead away: one between two corners, two in the middle of a face.
states, _ = model.rnn(X_test.swapaxes(0, 1))  # the layer has time first
points = elman.fixed_points(model.rnn, np.zeros(3), states, n=2000, noise=0.2, seed=0)
print(points)

# %%
# What the network says there
# ---------------------------
# The readout of the stable points: each combination of three bits once.
p = model.parameters()
outputs = points.states @ p["weight_ho"].T + p["bias_o"]
corners = outputs[points.is_stable]
for corner in sorted(corners.round(1).tolist()):
    print("A stable point, where outputs are", corner)

# %%
# A cube
# ------
# The points are corners, edges, faces and the middle of a cube, as outputs and in the principal components of the
# states. `points.plot(states, n_components=3)` draws the latter, too, in one line.
centered = states.reshape(-1, states.shape[-1])
mean = centered.mean(axis=0)
_, _, components = np.linalg.svd(centered - mean, full_matrices=False)
views = {
    "Principal components of the states": lambda h: (h - mean) @ components[:3].T,
    "Outputs": lambda h: h @ p["weight_ho"].T + p["bias_o"],
}
figure = plt.figure(figsize=(13, 6), layout="constrained")
for place, (title, view) in enumerate(views.items(), start=1):
    axes = figure.add_subplot(1, 2, place, projection="3d", title=title)
    for sequence in states.swapaxes(0, 1)[:20]:
        axes.plot(*view(sequence).T, color="gray", lw=0.5, alpha=0.5)
    for count, color in enumerate(["tab:blue", "tab:orange", "tab:red", "black"]):
        axes.scatter(*view(points.states[points.n_unstable == count]).T, color=color, s=50, label=f"{count} unstable")
axes.legend(title="directions")
figure.savefig("flipflop.png", dpi=120)
print("The plot is in flipflop.png")
