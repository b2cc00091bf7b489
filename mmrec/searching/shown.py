"""What pictures show, as words: which of the classes of a network's labels a search means.

It lets words in any language that the text encoder knows find pictures whose own encoder has no words.
Letters: C classes, B things of the background, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CLASS_PROMPT = "a photo of a {}"
BACKGROUND = (
    "dog bird fish insect tree flower fruit meal car ship aircraft house room chair machine tool computer bottle "
    "garment shoe ball instrument mountain person"
).split()
"""Things of many kinds: how near words are to these is how near they are to any thing."""
ABOVE_THE_BACKGROUND = 0.25
"""Chosen on words for things in five languages, which mean some class, and on titles and moods, which mean none."""
MOST_MEANT = 8
Floats = NDArray[np.float32]


def meant(text_D: Floats, classes_CD: Floats, background_BD: Floats, names: Sequence[str]) -> dict[str, float]:
    """The classes that words mean, with how much nearer they are than the background; all vectors L2-normalised.

    >>> import numpy as np
    >>> axes = np.eye(4, dtype=np.float32)
    >>> meant(axes[0], axes, axes, ["cat", "dog", "piano", "boat"])
    {'cat': 0.75}
    """
    above_C = classes_CD @ text_D - (background_BD @ text_D).mean()
    best = np.argsort(-above_C, kind="stable")[:MOST_MEANT]
    return {names[place]: float(above_C[place]) for place in best if above_C[place] >= ABOVE_THE_BACKGROUND}
