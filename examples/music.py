"""
A chorale melody from one note
==============================

One note in, a whole melody out: *one-to-many*. The network is told the first note of a melody and whether its key is
major or minor; all further notes it writes itself, each from those before it. It learns from the soprano parts of Bach
chorales in music21's corpus. For the next note of a tune that it does not know it needs about 3.5 bits, where the
frequencies of the notes alone need 5.4. In the end it writes a melody of its own, as MIDI and as a picture.
"""

# %%
# The melodies
# ------------
# music21 can analyse whole chorales, which takes a while. Here only the notes of the first part are picked from its
# files, which are MusicXML. All melodies are moved to the tonic C, so that they have more in common.
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
from music21 import converter, corpus, note, stream
from sklearn.model_selection import GroupShuffleSplit

import elman

EPOCHS = 20


def read(score):
    part = score.find("part")
    is_minor = part.findtext(".//mode") == "minor"
    tonic = (7 * int(part.findtext(".//fifths")) + 9 * is_minor + 6) % 12 - 6  # semitones above C, from -6 to 5
    quarter, notes = int(part.findtext(".//divisions")), []
    for pitch, duration in ((item.find("pitch"), item.find("duration")) for item in part.iter("note")):
        if pitch is not None and duration is not None:  # neither a rest nor a grace note
            above_c = "C D EF G A B".index(pitch.findtext("step")) + int(pitch.findtext("alter", "0"))
            notes.append((12 * int(pitch.findtext("octave")) + 12 + above_c - tonic, int(duration.text) / quarter))
    return is_minor, notes


paths = [path for path in corpus.getComposer("bach") if path.suffix == ".mxl"]
texts = [converter.ArchiveManager(path).getData().partition("</part>")[0] for path in paths]
scores = [ElementTree.fromstring(text + "</part></score-partwise>") for text in texts]
melodies = [read(score) for score in scores if score.findtext(".//part-name") == "Soprano"]

# %%
# Each note is a token, and so is the end. A melody starts from its first note, one-hot, and a 1 if it is in minor.
# Chorales share tunes: of those that begin alike, all are held out or none.
vocabulary = sorted({item for _, notes in melodies for item in notes})
END = len(vocabulary)
X = np.stack([np.append(np.eye(END)[vocabulary.index(notes[0])], is_minor) for is_minor, notes in melodies])
Y = np.array([[*map(vocabulary.index, notes[1:]), END] for _, notes in melodies], dtype=object)
openings = [str(notes[:5]) for _, notes in melodies]
train, test = next(GroupShuffleSplit(test_size=0.15, random_state=0).split(X, groups=openings))

# %%
# Training, and a new melody
# --------------------------
options = {"pattern": "one-to-many", "hidden_size": 128, "seed": 0}
model = elman.SequenceModel(elman.Features(END + 1), elman.Categories(END + 1), **options)
optimizer, schedule = elman.AdamW(lr=3e-3, weight_decay=0.5), elman.schedules.Cosine(warmup=1)
model.fit(X[train], Y[train], epochs=EPOCHS, batch_size=4, optimizer=optimizer, schedule=schedule, clip_norm=1.0)
bits = model.evaluate(X[test], Y[test])["loss"] / np.log(2)
counts = np.bincount(np.concatenate(Y[train]), minlength=END + 1) + 1
by_frequency = -np.log2(counts / counts.sum())[np.concatenate(Y[test])].mean()
print(f"{bits:.2f} bits per note of {len(test)} held-out melodies; the notes' frequencies need {by_frequency:.2f}")

start, is_minor = vocabulary.index((72, 1.0)), False  # C major, a quarter on the tonic
tokens = model.generate(np.append(np.eye(END)[start], is_minor), 100, temperature=0.7, end=END, seed=0)
melody = [vocabulary[token] for token in (start, *tokens)]
stream.Stream(note.Note(pitch, quarterLength=length) for pitch, length in melody).write("midi", "music.mid")

figure, axes = plt.subplots(figsize=(11, 4), layout="constrained")
pitches, lengths = np.transpose(melody)
axes.hlines(pitches, lengths.cumsum() - lengths, lengths.cumsum() - 0.1, linewidth=8)
axes.set_yticks([60, 64, 67, 72, 76, 79, 84], ["C4", "E4", "G4", "C5", "E5", "G5", "C6"])
axes.set(title="A melody in C major, from its first note", xlabel="quarters", ylabel="pitch")
axes.grid(alpha=0.3)
figure.savefig("music.png", dpi=120)
print("The melody is in music.mid. The plot is in music.png")
