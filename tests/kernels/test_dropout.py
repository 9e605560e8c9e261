"""Dropout: what is drawn (Philox4x32-10), by every backend the same, and what backward makes of it."""

import numpy as np
import pytest

from elman.backends import reference

LARGEST = (1 << 32) - 1


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # of Random123, tests/kat_vectors
        (0, 4 * [0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((1 << 64) - 1, 4 * [LARGEST], "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x299F31D0A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(key: int, counter: list[int], words: str):
    found = reference._philox(key, *(np.array([word]) for word in counter))
    assert " ".join(f"{word:08x}" for word in found[0]) == words
