"""Text for a model of characters, words or bytes: what `elman train` and `elman sample` compute."""

from elman.text.corpus import Corpus, bigram_bits, split, topics_text
from elman.text.reading import read_text
from elman.text.training import Recorder, model_bits, train
from elman.text.vocabulary import Bytes, Vocabulary, Words

__all__ = [
    "Bytes",
    "Corpus",
    "Recorder",
    "Vocabulary",
    "Words",
    "bigram_bits",
    "model_bits",
    "read_text",
    "split",
    "topics_text",
    "train",
]
