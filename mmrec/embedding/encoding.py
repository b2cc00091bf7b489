"""From decoded media to tokens: what runs while the workers decode."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from mmrec.catalog import Item
from mmrec.embedding.encoder_threads import EncoderThreads
from mmrec.embedding.packing import Packer
from mmrec.embedding.preset_encoders import PresetEncoders
from mmrec.embedding.presets import Preset
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.tasks import Task
from mmrec.media import DecodedMedia
from mmrec.store import Features, Findings

T = TypeVar("T")


def encoded(
    decoded: Iterator[tuple[Task, DecodedMedia]],
    loaded: PresetEncoders,
    batch_size: int | None,
    report: EmbedReport,
    findings: Findings | None = None,
) -> Generator[Features, None, None]:
    """Encode what was decoded, in full batches across items; yields each item as it is finished.

    The `findings` hold the words that are heard and seen in some of them.

    >>> from mmrec.catalog import Item
    >>> from mmrec.embedding import EmbedReport, Task, encoded, load_preset, load_preset_encoders
    >>> from mmrec.media import DecodedMedia
    >>> encoders = load_preset_encoders(load_preset("preset.yaml"), device="cpu")
    >>> tasks = [Task(Item(item_id=name), name) for name in ("rain", "wind")]
    >>> for features in encoded(((task, DecodedMedia()) for task in tasks), encoders, None, EmbedReport()):
    ...     print(features.item.item_id, features.tokens["text"])
    rain Tokens(1 x 1024)
    wind Tokens(1 x 1024)
    """
    top_classes: Any = getattr(loaded.encoders.get("visual"), "top_classes", None)

    def classified(features: Features) -> Features:
        if top_classes is not None and "visual" in features.tokens:
            features.classes = top_classes(features.tokens["visual"].vectors_TD)
        return features

    with EncoderThreads(loaded.device) as threads:
        report.encoder_threads = threads.count
        packer = Packer(loaded, batch_size, threads, report.stage_seconds)
        for task, media in _timed(decoded, report):
            report.stage_seconds["decode"] += media.decode_seconds
            item, text = (task.item, task.text) if task.text else _told_by_the_file(task.item, media, loaded.preset)
            features = task.features(item)
            features.duration_seconds, features.facts = media.duration_seconds, media.facts
            features.language = loaded.language(item, text) or ""
            words = findings.words([item.item_id])[item.item_id] if findings is not None and task.has_words else []
            yield from map(classified, packer.add(features, media, text, words))
        yield from map(classified, packer.flush())


def _told_by_the_file(item: Item, media: DecodedMedia, preset: Preset) -> tuple[Item, str]:
    """An item without words gets a title from the tags of its file, or from the file's name."""
    if item.media is None or item.problem is not None or not (media.duration_seconds or media.facts):
        return item, ""
    parts = [str(media.facts[name]) for name in ("artist", "title") if media.facts.get(name)]
    title = " - ".join(parts) if media.facts.get("title") else re.sub(r"[\W_]+", " ", item.media.stem).strip()
    titled = dataclasses.replace(item, title=title)
    return titled, preset.text_of(titled)


def _timed(source: Iterator[T], report: EmbedReport) -> Iterator[T]:
    while True:
        start = time.perf_counter()
        value = next(source, None)
        report.stage_seconds["wait"] += time.perf_counter() - start
        if value is None:
            return
        yield value
