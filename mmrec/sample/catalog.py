"""A catalog made by code, to try everything on without a download: short clips of ten kinds, users with tastes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmrec.sample.items import all_entries
from mmrec.sample.media_files import make_media
from mmrec.sample.users import simulate_users


def make_sample_catalog(folder: Path, *, seed: int = 0) -> Path:
    """Write a sample catalog of 61 items and 200 simulated users into `folder`; return the path of its `catalog.csv`.

    - `catalog.csv`: `item_id, media, title, description, tags, language, kind`. Ten kinds, in English (`en`) and
      Chinese (`zh`). Kinds share looks and sounds and some titles say nothing, so no modality tells all kinds apart.
      `kind` is for evaluating results.
    - `media/`: clips of 3 to 6 seconds: video with sound, silent video, sound only, two still images and one
      damaged file. Some items have text only.
    - `interactions.csv`: `user_id, item_id, timestamp, weight`, in order of time. Each user likes one or two kinds and
      watched 4 to 20 items, the last one not in this file. Timestamps are seconds, weights watch shares in (0, 1].
    - `interactions_validation.csv`: the last interaction of each user.

    The same seed writes the same bytes. Files that already have the right content are left untouched.

    >>> from pathlib import Path
    >>> from mmrec.sample import make_sample_catalog
    >>> make_sample_catalog(Path("sample"))  # doctest: +SKIP
    PosixPath('sample/catalog.csv')
    """
    folder = Path(folder)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    entries = all_entries()
    for number, entry in enumerate(entries):
        if entry.media is not None:
            rng = np.random.default_rng([seed, number])
            _write_if_changed(folder / entry.media, make_media(entry, rng))
    train, held_out = simulate_users(entries, np.random.default_rng([seed, len(entries)]))
    header = ["user_id", "item_id", "timestamp", "weight"]
    _write_csv(folder / "interactions.csv", header, train)
    _write_csv(folder / "interactions_validation.csv", header, held_out)
    manifest = folder / "catalog.csv"
    _write_csv(
        manifest,
        ["item_id", "media", "title", "description", "tags", "language", "kind"],
        ([e.item_id, e.media or "", e.title, e.description, e.tags, e.language, e.kind.name] for e in entries),
    )
    return manifest


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write_if_changed(path, text.getvalue().encode())


def _write_if_changed(path: Path, data: bytes) -> None:
    """Write the whole file or nothing; a file that already says the same keeps its modification time."""
    if path.exists() and path.read_bytes() == data:
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
