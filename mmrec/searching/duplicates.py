"""The same content again: copies, edited copies, and parts inside longer items, by tokens in a store and by listening.

Letters: T tokens, D width.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np

from mmrec.embedding import DecodeLimits
from mmrec.errors import StoreError
from mmrec.searching.alignment import Alignment, Timeline, align, score_along
from mmrec.searching.candidates import Pair, alike_pairs, nearest_pairs, units
from mmrec.searching.listening import laid_upon_each_other, listen
from mmrec.store import Features, FeatureStore, Modality

Medium = Literal["clips", "pictures", "sounds"]
MODALITY_OF: dict[Medium, Modality] = {"clips": "visual", "pictures": "visual", "sounds": "audio"}
THRESHOLDS: dict[str, dict[Medium, float]] = {
    "efficientnet-lite": {"clips": 0.75, "pictures": 0.77},
    "log-mel": {"sounds": 0.98},
}
"""Least mean cosines by kind of encoder, chosen on the variants of `scripts/bench_duplicates.py`; others must be given.

Different recordings reached .60 (clips), .747 (pictures) and .972 (sounds: one voice, other words) there.
"""
OTHER_SOUND = 0.85
SEARCH_SLACK, HEARD_SLACK = 0.05, 0.18
"""So much less alike may tokens of candidates be: where tokens decide, and where they are listened to."""
MOST_NEIGHBOURS, MOST_PAIRS = 50, 100_000
"""To listen to: of each sound, and of all; the most alike."""
SAME_LENGTH_SECONDS = 0.5
LIMITS = DecodeLimits()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Two items with the same content; `first` is the longer one, or the larger picture.

    The second begins at `offset_seconds` of the first (below 0: before it); a second of it lasts `speed` seconds of the
    first. `score` is the mean cosine of their tokens where they run together; of sounds that were
    listened to, how they agree there, from 0 (by chance) to 1. `differs` says what is not the same: of
    the first, of the second.
    """

    first: str
    second: str
    medium: Medium
    score: float
    same_file: bool = False
    offset_seconds: float = 0.0
    speed: float = 1.0
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """An item, and those that are the same as it or as a part of it."""

    item_id: str
    duplicates: list[Duplicate]


@dataclass(slots=True)
class _Found:
    """What is known of the items before their tokens are read again."""

    media: dict[str, Medium] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def find_duplicates(
    store: FeatureStore, *, thresholds: Mapping[str, float] | None = None, limits: DecodeLimits | None = LIMITS
) -> list[Duplicate]:
    """The pairs of items of a store that have the same content, the surest first.

    Clips and pictures are compared by what they show, sounds by what is heard; a clip's sound only tells whether it
    differs. Identical files are found by their hash. `thresholds` are the least mean cosines of "clips", "pictures" and
    "sounds".

    Sounds whose tokens are somewhat alike are decoded again, within `limits`, and listened to: 50 pairs of each,
    100,000 in all. Without `limits`, and where a file cannot be read any more, the tokens decide.

    Raises `StoreError` where no item has pictures or sound, where an encoder's threshold is neither known nor given, or
    where tokens of several encoders lie mixed.

    >>> import mmrec
    >>> from mmrec.searching import find_duplicates
    >>> least = {"clips": 0.999, "pictures": 0.999, "sounds": 0.999}
    >>> all(pair.score >= 0.999 for pair in find_duplicates(mmrec.FeatureStore("store"), thresholds=least, limits=None))
    True
    """
    found = _scan(store)
    if not found.media:
        raise StoreError(f"store {store.folder} has no item with pictures or sound: embed a catalog with media into it")
    least = _thresholds(store, set(found.media.values()), thresholds or {})
    candidates = {pair for ids in found.files.values() for pair in combinations(sorted(ids), 2)}
    for medium, score in least.items():
        candidates |= _candidates(store, medium, found.media, score, listening=limits is not None)
    logger.info("%d pairs of %d items to compare", len(candidates), len(found.media))
    wanted = {item_id for pair in candidates for item_id in pair}
    items = {row.item.item_id: row for row in store.features(wanted)} if wanted else {}
    pairs = [_longest_first(items[a], items[b]) for a, b in sorted(candidates) if a in items and b in items]
    heard = _heard(pairs, found.media, limits) if limits is not None else {}
    compared = (_compared(first, second, found.media, least, heard) for first, second in pairs)
    return sorted(filter(None, compared), key=lambda pair: (-pair.score, pair.first, pair.second))


def group_duplicates(pairs: Sequence[Duplicate]) -> list[DuplicateGroup]:
    """Each item that is the first of pairs, with those; a pair of two that are in a group already is left out.

    >>> from mmrec.searching import Duplicate, group_duplicates
    >>> pairs = [Duplicate(first=a, second=b, medium="clips", score=1.0) for a, b in ["ab", "ac", "bc"]]
    >>> [(group.item_id, [pair.second for pair in group.duplicates]) for group in group_duplicates(pairs)]
    [('a', ['b', 'c'])]
    """
    of_first: dict[str, list[Duplicate]] = defaultdict(list)
    for pair in pairs:
        of_first[pair.first].append(pair)
    groups: list[DuplicateGroup] = []
    together: set[frozenset[str]] = set()
    for item_id in sorted(of_first, key=lambda name: (-len(of_first[name]), name)):
        new = [pair for pair in of_first[item_id] if frozenset((item_id, pair.second)) not in together]
        if new:
            groups.append(DuplicateGroup(item_id, new))
            members = [item_id, *(pair.second for pair in new)]
            together |= {frozenset(both) for both in combinations(members, 2)}
    return groups


def _scan(store: FeatureStore) -> _Found:
    found = _Found()
    columns = ["item_id", "media_hash", "duration_seconds", "facts", "visual_fingerprint", "audio_fingerprint"]
    for batch in store.scan(columns):
        for row in batch.to_pylist():
            shows = row["visual_fingerprint"] and json.loads(row["facts"]).get("visual_source") != "attached_picture"
            if shows:
                found.media[row["item_id"]] = "clips" if row["duration_seconds"] else "pictures"
            elif row["audio_fingerprint"]:
                found.media[row["item_id"]] = "sounds"
            if row["media_hash"] and row["item_id"] in found.media:
                found.files[row["media_hash"]].append(row["item_id"])
    return found


def _thresholds(store: FeatureStore, media: set[Medium], given: Mapping[str, float]) -> dict[Medium, float]:
    used = store.fingerprints()
    kinds = {record.fingerprint: record.spec.get("kind", record.name) for record in store.encoders()}
    least: dict[Medium, float] = {}
    for medium in sorted(media):
        kind = kinds.get(used[MODALITY_OF[medium]], "unknown")
        known = given.get(medium, THRESHOLDS.get(kind, {}).get(medium))
        if known is None:
            raise StoreError(
                f"store {store.folder}: from which cosine on {medium} are the same is not known for the "
                f"{MODALITY_OF[medium]} encoder {kind!r}: say it, as in `--threshold {medium}=0.95`"
            )
        least[medium] = known
    return least


def _candidates(
    store: FeatureStore, medium: Medium, media: Mapping[str, Medium], least: float, *, listening: bool
) -> set[Pair]:
    modality, of = MODALITY_OF[medium], {item_id for item_id, its in media.items() if its == medium}
    pairs = alike_pairs(store, modality, of, least - SEARCH_SLACK)
    if medium == "sounds" and listening:
        pairs |= nearest_pairs(store, modality, of, least - HEARD_SLACK, most_each=MOST_NEIGHBOURS, most=MOST_PAIRS)
    return pairs


def _heard(
    pairs: Sequence[tuple[Features, Features]], media: Mapping[str, Medium], limits: DecodeLimits
) -> dict[Pair, Alignment | None]:
    sounds = [pair for pair in pairs if media[pair[0].item.item_id] == "sounds" and not _is_same_file(*pair)]
    rows = {row.item.item_id: row for pair in sounds for row in pair}
    if not rows:
        return {}
    heard = listen(rows.values(), limits)
    return laid_upon_each_other(((first.item.item_id, second.item.item_id) for first, second in sounds), heard)


def _compared(
    first: Features,
    second: Features,
    media: Mapping[str, Medium],
    least: Mapping[Medium, float],
    heard: Mapping[Pair, Alignment | None],
) -> Duplicate | None:
    medium, pair = media[first.item.item_id], (first.item.item_id, second.item.item_id)
    modality, same_file = MODALITY_OF[medium], _is_same_file(first, second)
    found: Alignment | None
    if same_file:
        found = Alignment(1.0, 0.0, 1.0)
    elif pair in heard:
        found = heard[pair]
    else:
        found = align(_timeline(first, modality), _timeline(second, modality), least[medium])
    if found is None:
        return None
    return Duplicate(
        first=first.item.item_id,
        second=second.item.item_id,
        medium=medium,
        score=round(min(1.0, found.score), 4),
        same_file=same_file,
        offset_seconds=round(found.offset, 2),
        speed=round(found.speed, 3),
        differs={} if same_file else _differences(first, second, medium, found),
    )


def _is_same_file(first: Features, second: Features) -> bool:
    return bool(first.media_hash) and first.media_hash == second.media_hash


def _longest_first(one: Features, other: Features) -> tuple[Features, Features]:
    first, second = sorted((one, other), key=_standing)
    return first, second


def _standing(row: Features) -> tuple[float, int, bool, str]:
    pixels = row.facts.get("width", 0) * row.facts.get("height", 0)
    return -round(row.duration_seconds, 1), -pixels, "audio" not in row.tokens, row.item.item_id


def _timeline(row: Features, modality: Modality) -> Timeline:
    tokens = row.tokens[modality]
    spans_T2 = tokens.spans_T2
    reach = row.duration_seconds / len(spans_T2) if modality == "visual" else np.mean(spans_T2[:, 1] - spans_T2[:, 0])
    return Timeline(units(tokens.vectors_TD), spans_T2.mean(axis=1), row.duration_seconds, float(reach) / 2)


def _differences(first: Features, second: Features, medium: Medium, found: Alignment) -> dict[str, tuple[Any, Any]]:
    facts: dict[str, tuple[Any, Any]] = {}
    if abs(first.duration_seconds - second.duration_seconds) > SAME_LENGTH_SECONDS:
        facts["seconds"] = (round(first.duration_seconds, 1), round(second.duration_seconds, 1))
    if medium != "sounds":
        facts["size"] = (_size(first), _size(second))
    if medium == "clips":
        facts["sound"] = _sounds(first, second, found)
    codec = "audio_codec" if medium == "sounds" else "video_codec"
    facts[codec] = (first.facts.get(codec), second.facts.get(codec))
    return {name: values for name, values in facts.items() if values[0] != values[1]}


def _size(row: Features) -> str:
    return f"{row.facts.get('width', 0)}x{row.facts.get('height', 0)}"


def _sounds(first: Features, second: Features, found: Alignment) -> tuple[str, str]:
    if "audio" in first.tokens and "audio" in second.tokens:
        score = score_along(_timeline(first, "audio"), _timeline(second, "audio"), found)
        return ("its own", "its own" if score >= OTHER_SOUND else "another")
    return ("some" if "audio" in first.tokens else "none", "some" if "audio" in second.tokens else "none")
