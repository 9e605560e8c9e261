"""
Episodes that end anywhere
==========================

A policy that has to remember, learned by REINFORCE (Williams, 1992). In each of 32 environments, episodes follow one
another: the first step shows a cue, the last one asks for it. They end anywhere in the 64 steps of an update. With
`resets` these are one call all the same. Where a layer has none, a program goes step by step and multiplies the state
by 1 − done; such an update, in PyTorch, is timed beside it.
"""

# %%
# The task: an episode is a cue, some steps of nothing, and a question.
import time
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np

import elman

UPDATES = 400
T, B, CUES = 64, 32, 4  # steps of an update, environments
rng = np.random.default_rng(0)
left, cue = np.zeros((2, B), int)  # steps until each environment's episode ends, and what it is about


def observe():
    """Observations (T, B, 5), a cue or the question; where episodes begin and end; what is right."""
    x, right, (begins, ends) = np.zeros((T, B, CUES + 1)), np.zeros((T, B), int), np.zeros((2, T, B), bool)
    for t in range(T):
        new = begins[t] = left == 0
        cue[new], left[new] = rng.integers(CUES, size=new.sum()), rng.integers(3, 12, size=new.sum())
        x[t, new, cue[new]] = 1
        left[:] -= 1
        ends[t], right[t] = left == 0, cue
    x[ends, CUES] = 1
    return x, begins, ends, right


# %%
# The stream acts; the update is a step along log π(action) of what was rewarded. States go on into the next one.
policy = elman.SequenceModel(elman.Features(CUES + 1), elman.Categories(CUES), hidden_size=64, seed=0)
optimizer, stream, rewards, seconds = elman.Adam(3e-3), policy.stream(B), [], []
for _ in range(UPDATES):
    (x, begins, ends, right), state = observe(), stream.state.copy()
    chances = stream.predict_proba(x, resets=begins).cumsum(axis=2)
    action = (chances[..., :-1] < rng.random((T, B, 1))).sum(axis=2)
    rewarded = ends & (action == right)
    rewards.append(rewarded.sum() / ends.sum())
    start = time.perf_counter()
    policy.train_step(x, action, weights=rewarded, resets=begins, state=state, optimizer=optimizer)
    seconds.append(time.perf_counter() - start)
print(f"rewarded: {np.mean(rewards[:20]):.0%} of the first episodes, {np.mean(rewards[-20:]):.0%} of the last")
print(f"an update by elman: {1e3 * np.median(seconds):.2f} ms")

# %%
# The loop over steps:
if find_spec("torch"):
    import torch

    torch.set_num_threads(1)  # faster than more of them for operations as small as these
    rnn, readout, h = torch.nn.RNN(CUES + 1, 64), torch.nn.Linear(64, CUES), torch.zeros(1, B, 64)
    adam, by_steps = torch.optim.Adam([*rnn.parameters(), *readout.parameters()], lr=3e-3), []
    (x, keep), target = (torch.tensor(array).float() for array in (x, ~begins)), torch.tensor(action[rewarded])
    for _ in range(20):
        states, h, start = [], h.detach(), time.perf_counter()
        for t in range(T):
            h = rnn(x[t : t + 1], h * keep[t, :, None])[1]  # h * (1 - done)
            states.append(h)
        adam.zero_grad()
        torch.nn.functional.cross_entropy(readout(torch.cat(states))[rewarded], target).backward()
        adam.step()
        by_steps.append(time.perf_counter() - start)
    print(f"an update step by step in PyTorch: {1e3 * np.median(by_steps):.2f} ms")

plt.plot(rewards)
plt.gca().set(xlabel="update", ylabel="part of the episodes that is rewarded")
plt.savefig("episodes.png", dpi=120)
print("The plot is in episodes.png")
