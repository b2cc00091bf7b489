"""Files that are in no catalog, embedded as the items of a store were, to be compared with them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from mmrec.catalog import Item
from mmrec.embedding.decoding import DecodeLimits, decode_items
from mmrec.embedding.encoding import encoded
from mmrec.embedding.preset_encoders import load_recorded_encoders
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.tasks import Task
from mmrec.store import EncoderRecord, Features


def embed_file(path: Path, records: Collection[EncoderRecord]) -> Features:
    """The tokens of a file by the recorded encoders of pictures and sound, decoded in a process of its own.

    Eight pictures and eight windows of five seconds are taken of it, whatever the items were sampled by. What it has
    not, or what cannot be read, is among the problems. Raises `EncoderError` where an encoder cannot be had.
    """
    loaded = load_recorded_encoders(records)
    task = Task(Item(item_id=path.name, media=path), text="", todo=frozenset(loaded.encoders))
    with (
        closing(decode_items([task], loaded.frames, loaded.sound, DecodeLimits(workers=1))) as decoded,
        closing(encoded(decoded, loaded, None, EmbedReport())) as finished,
    ):
        (features,) = finished
    return features
