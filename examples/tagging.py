"""
People, places and companies
============================

A tag for each word, *many-to-many*: which words name a person, a place or a company? Sentences are filled with names
that the package Faker makes up; no name in the test sentences occurs in the training sentences. What a name stands for
is often decided by the words behind it. A network that reads from left to right has not seen them yet, and gets about
three names in four right. One that reads in both directions has, and gets more than 99 % right.
"""

# %%
# The sentences
# -------------
# Each sentence of this little text is a template.
import re
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from faker import Faker

import elman

EPOCHS = 12

TEMPLATES = """
PER was born in LOC and works for ORG. ORG has opened an office in LOC. Yesterday ORG hired PER. LOC had snow in May.
PER and PER were married in LOC. ORG and ORG merged last year. LOC and LOC are twin towns. LOC lies on a river.
We asked ORG for a refund. We asked PER about her childhood. I went to LOC with PER and her brother. PER laughed.
The mayor of LOC wrote to PER. The shares of ORG fell when PER left. PER sold ORG to ORG. They spoke of PER who is ill.
They spoke of ORG which is bankrupt. They spoke of LOC where it rained."""

# %%
# The first word of a name gets the tag B-…, its further words I-…, and all other words O. Names are divided into those
# for training and those for testing.
rng, fake = np.random.default_rng(0), Faker("en_US")
fake.seed_instance(0)
makers = {"PER": fake.name, "LOC": fake.city, "ORG": fake.company}
names = {kind: sorted({make() for _ in range(3000)}) for kind, make in makers.items()}
TAGS = ["O", *(f"{place}-{kind}" for kind in names for place in "BI")]


def sentence(half):
    tagged = []
    for word in rng.choice(TEMPLATES.split(".")[:-1]).split():
        words = rng.choice(names[word][half::2]).split() if word in names else [word]
        tagged += [(w, f"{'I' if i else 'B'}-{word}" if word in names else "O") for i, w in enumerate(words)]
    return tuple(zip(*tagged, strict=True))  # words, tags


train, test = [sentence(0) for _ in range(3000)], [sentence(1) for _ in range(1000)]

# %%
# Two networks
# ------------
# A word that is rare in training, as most names are, is taken for "?". So is a new word of the test sentences.
counts = Counter(word for words, _ in train for word in words)
tokens = elman.Tokens(labels=["?", *(word for word in counts if counts[word] >= 10)], unknown="?")
(X, Y), (X_test, Y_test) = (zip(*part, strict=True) for part in (train, test))
true = "\n".join("".join(f"{tag:6}" for tag in tags) for tags in Y_test)  # each tag is six letters of a text

f1, (figure, axes) = [], plt.subplots(figsize=(8, 5), layout="constrained")
for bidirectional, label in [(False, "left to right"), (True, "in both directions")]:
    options = {"hidden_size": 64, "bidirectional": bidirectional, "seed": 0}
    model = elman.SequenceModel(tokens, elman.Categories(labels=TAGS), **options)
    model.fit(X, Y, epochs=EPOCHS, optimizer=elman.Adam(lr=3e-3), schedule=elman.schedules.Cosine(), clip_norm=1.0)
    text = "\n".join("".join(f"{tag:6}" for tag in tags) for tags in model.predict(X_test))
    there, found = ({(m.start(), m[0]) for m in re.finditer(r"B-(\w+) +(I-\1 +)*", part)} for part in (true, text))
    hits, total = (Counter(name[2:5] for _, name in part) for part in (there & found, [*there, *found]))
    f1.append([*(2 * hits[kind] / total[kind] for kind in names), 2 * hits.total() / total.total()])
    print(f"read {label}: F1 {f1[-1][-1]:.3f} over all names")
    axes.bar(np.arange(4) + 0.4 * bidirectional, f1[-1], width=0.38, label=f"read {label}")
axes.set_xticks(np.arange(4) + 0.2, ["people", "places", "companies", "all names"])
axes.set(title="Names in test sentences, none of them seen in training", ylabel="F1, by whole names", ylim=(0, 1.15))
axes.legend(loc="upper left", ncols=2)
figure.savefig("tagging.png", dpi=120)
print("The plot is in tagging.png")
