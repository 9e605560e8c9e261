"""
A PyTorch program, with one line more
=====================================

A model of characters: `nn.Embedding`, `nn.RNN`, `nn.Linear`, Adam, clipped gradients. It is trained twice from the same
start, as it is and after `elman.torch.accelerate(model)`. Losses are the same to rounding, in less than half the time:
PyTorch has some operations for each time step, elman one call for all. It needs ``pip install '.[examples,torch]'``.
"""

# %%
# It predicts each next character of a text that comes with Python.
import time
from pydoc_data.topics import topics

try:
    import matplotlib.pyplot as plt
    import torch

    import elman.torch
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[examples,torch]'") from None
nn = torch.nn
STEPS = 200
text = "\n".join(topics.values())[:200_000]
alphabet = sorted(set(text))
tokens = torch.tensor([alphabet.index(character) for character in text])


class CharacterModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(alphabet), 32)
        self.rnn = nn.RNN(32, 64, batch_first=True)
        self.readout = nn.Linear(64, len(alphabet))

    def forward(self, x):
        return self.readout(self.rnn(self.embedding(x))[0])


def train(model, n_steps):
    """Losses of all steps, and the seconds that they took."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses, start = [], time.perf_counter()
    for _ in range(n_steps):
        batch = tokens[
            torch.randint(len(tokens) - 101, (8, 1)) + torch.arange(101)
        ]  # (B, T + 1): stretches of the text
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, time.perf_counter() - start


# %%
# Without and with the line
# -------------------------
runs = {}
train(CharacterModel(), 3)  # what PyTorch loads with the first step is not to count
for name in ("torch.nn.RNN", "accelerated"):
    torch.manual_seed(0)
    model = CharacterModel()
    if name == "accelerated":
        print(elman.torch.accelerate(model))  # the line
    runs[name] = train(model, STEPS)
    print(f"{name}: {runs[name][1]:.2f} s, last loss {runs[name][0][-1]:.4f}")
(losses, seconds), (accelerated, fewer_seconds) = runs.values()
difference = max(abs(a - b) for a, b in zip(losses, accelerated, strict=True))
print(f"{seconds / fewer_seconds:.1f} times as fast; the losses differ by at most {difference:.1e}")

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
axes.plot(losses, lw=4, alpha=0.4, label=f"torch.nn.RNN, {seconds:.1f} s")
axes.plot(accelerated, lw=1, label=f"accelerated, {fewer_seconds:.1f} s")
axes.set(title="The same training", xlabel="step", ylabel="loss in nats per character")
axes.legend()
figure.savefig("pytorch.png", dpi=120)
print("The plot is in pytorch.png")
