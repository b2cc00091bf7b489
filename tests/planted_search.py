"""A store whose tokens are planted: what is near to what is known."""

from __future__ import annotations

import numpy as np

from encoders.base import load_encoder
from mmrec.catalog import Item
from mmrec.store import Features, Tokens

WIDTH = 8
TITLES = {
    "rain": "Rain on the roof",
    "yoru": "屋根に降る雨の音",
    "piano": "轻柔的钢琴音乐",
    "goals": "Best goals of the week",
    "calm": "Quiet rain and piano",
}


def axis(number: int) -> np.ndarray:
    return np.eye(WIDTH, dtype=np.float32)[number]


def item(place: int, item_id: str) -> Features:
    """Its pictures: four frames of 2 s along axis `place`, but the third along the last axis mixed in by half."""
    frames_TD = np.stack([axis(place)] * 4)
    frames_TD[2] += place / 4 * axis(WIDTH - 1)
    starts_T = 2.0 * np.arange(4)
    words = load_encoder("hashed-ngrams", device="cpu")
    return Features(
        Item(
            item_id=item_id,
            title=TITLES[item_id],
            tags=("sleep",) if "rain" in TITLES[item_id].lower() else (),
            language="en" if TITLES[item_id].isascii() else "zh",
            metadata={"year": str(2000 + place)},
        ),
        tokens={
            "visual": Tokens(frames_TD, np.column_stack([starts_T, starts_T + 2])),
            "text": Tokens(words.encode([TITLES[item_id]]).numpy(), np.zeros((1, 2))),
        },
        fingerprints={"visual": "v", "text": "t"},
        keys={"visual": f"{place + 1:016x}", "text": f"{place + 1:016x}"},
        catalog_key=f"{place + 1:016x}",
    )
