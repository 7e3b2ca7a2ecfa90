"""Choose a person: colours and traits that are the same all over a face."""

from typing import NamedTuple

import numpy as np

# Red, green and blue in [0, 1]: skin from pale to dark, hair from black to white.
SKIN_TONES = np.array(
    [
        [0.95, 0.80, 0.72],
        [0.86, 0.66, 0.54],
        [0.72, 0.51, 0.38],
        [0.50, 0.33, 0.23],
        [0.30, 0.19, 0.14],
    ]
)
HAIR_COLOURS = np.array(
    [
        [0.05, 0.04, 0.04],
        [0.16, 0.10, 0.07],
        [0.32, 0.20, 0.12],
        [0.55, 0.40, 0.24],
        [0.80, 0.68, 0.47],
        [0.50, 0.22, 0.10],
        [0.55, 0.55, 0.55],
        [0.85, 0.84, 0.82],
    ]
)

# Fractions of the hair colours.
HAIR_SHARES = [0.28, 0.24, 0.14, 0.07, 0.07, 0.04, 0.10, 0.06]


class Sitter(NamedTuple):
    """The colours (3,) in [0, 1] and the traits in [0, 1] of one person."""

    skin: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    manly: bool
    age: float
    makeup: float


def choose_sitter(rng: np.random.Generator) -> Sitter:
    """Choose a random person; colours and traits are correlated as in real people."""
    place = rng.beta(0.9, 1.4) * (len(SKIN_TONES) - 1)
    skin = np.array([np.interp(place, range(len(SKIN_TONES)), channel) for channel in SKIN_TONES.T])
    skin = np.clip(skin * rng.uniform(0.9, 1.08) + rng.normal(0, 0.02, 3), 0.08, 1)

    hair = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_SHARES)]
    hair = np.clip(hair * rng.uniform(0.7, 1.3) + rng.normal(0, 0.02, 3), 0.02, 0.95)

    manly = bool(rng.random() < 0.6)
    makeup = 0.0 if manly or rng.random() < 0.3 else float(rng.uniform(0.2, 1))
    brow = np.minimum(hair * rng.uniform(0.5, 1.0), skin * rng.uniform(0.3, 0.8))
    return Sitter(skin, hair, brow, manly, float(rng.random()), makeup)
