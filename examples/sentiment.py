"""
The sentiment of a sentence
===========================

Many words in, one answer out: *many-to-one* with binary cross-entropy. First three words of three letters; then film
reviews, generated here, that say "not bad at all" and "far from funny". A bag of words, which only knows what words
there are, stays near 75 %. The network reads them in their order and judges more than 99 % of held-out reviews right.
"""

# %%
# Three words
# -----------
# Is it an animal? The answer is in the first letter, and is asked for after the last: the state has to carry it.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

import elman

EPOCHS = 15

words, letters = ["cat", "mat", "rat"], elman.Tokens(labels=list("acmrt"))
toy = elman.SequenceModel(letters, elman.Binary(), pattern="many-to-one", hidden_size=8, seed=0)
toy.fit(words, [1, 0, 1], epochs=200, optimizer=elman.Adam(lr=0.01))
for word, probability in zip(words, toy.predict_proba(words)[:, 0], strict=True):
    print(f"{word} is an animal with probability {probability:.3f}")

# %%
# Reviews
# -------
# One in four has a negation in it, which turns the adjective's meaning around. They differ in length, too.
rng = np.random.default_rng(0)
OPENINGS = ["", "to be honest", "we saw it on sunday and", "i went with my sister and", "as far as i can tell"]
THINGS = ["the film", "the acting", "the music", "the story", "the ending", "the whole evening"]
ADVERBS = ["", "", "really", "simply", "in my opinion"]
NEGATIONS = ["not {}", "not {} at all", "never {}", "anything but {}", "far from {}", "not even remotely {}"]
ENDINGS = ["", "and we left early", "and the cinema was full", "as my friends will tell you"]
GOOD, BAD = ["good", "brilliant", "funny", "moving", "clever"], ["bad", "boring", "awful", "dull", "silly"]


def review():
    adjective, is_negated = rng.choice(GOOD + BAD), rng.random() < 0.25
    phrase = rng.choice(NEGATIONS).format(adjective) if is_negated else adjective
    parts = [rng.choice(OPENINGS), rng.choice(THINGS), "was", rng.choice(ADVERBS), phrase, rng.choice(ENDINGS)]
    return " ".join(" ".join(parts).split()), (adjective in GOOD) != is_negated


reviews = dict(review() for _ in range(6000))  # none twice
texts, y = list(reviews), np.array(list(reviews.values()))
test, train = slice(None, 1000), slice(1000, None)
print("\n".join(texts[:3]))

# %%
# A bag of words, and a sequence of them
# --------------------------------------
vectorizer = CountVectorizer(token_pattern=r"\w+")
bags = vectorizer.fit_transform(texts)
bag_accuracy = LogisticRegression().fit(bags[train], y[train]).score(bags[test], y[test])

X, vocabulary = [text.split() for text in texts], elman.Tokens(labels=vectorizer.get_feature_names_out())
model = elman.SequenceModel(vocabulary, elman.Binary(), pattern="many-to-one", hidden_size=32, seed=0)
history = model.fit(X[train], y[train], epochs=EPOCHS, optimizer=elman.Adam(5e-3), validation_data=(X[test], y[test]))
accuracy = history["val_accuracy"][-1]
print(f"held-out reviews judged right: bag of words {bag_accuracy:.1%}, recurrent network {accuracy:.1%}")

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
axes.plot(range(1, EPOCHS + 1), history["val_accuracy"], "o-", label="recurrent network")
axes.axhline(bag_accuracy, color="gray", linestyle="--", label="bag of words, logistic regression")
axes.set(title="Reviews with negations", xlabel="epoch", ylabel="part of held-out reviews judged right")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("sentiment.png", dpi=120)
print("The plot is in sentiment.png")
