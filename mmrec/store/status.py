"""What a store holds, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmrec.errors import Reason
from mmrec.remote import total_bytes
from mmrec.store.features import MODALITIES, Status
from mmrec.store.notebook import html_table

if TYPE_CHECKING:
    from mmrec.store.feature_store import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """What a store holds: items by status, reasons by modality, the encoders in use with their numbers of
    items, the languages of texts, the most frequent first, and of each set of labels how many items it has, how many
    of these changed since, and how many it lacks.

    >>> import mmrec
    >>> status = mmrec.FeatureStore("store").status()
    >>> status
    StoreStatus(16 items: 16 ok; audio 8, text 1024, visual 16; ... MB)
    >>> status.encoders[0]["name"], status.encoders[0]["items"]
    ('example audio', 16)
    """

    items: int
    statuses: dict[str, int]
    reasons: dict[str, dict[str, int]]
    encoders: list[dict[str, Any]]
    languages: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    bytes_on_disk: int

    def __repr__(self) -> str:
        statuses = ", ".join(f"{count} {status}" for status, count in self.statuses.items() if count)
        widths = ", ".join(f"{encoder['modality']} {encoder['dim']}" for encoder in self.encoders)
        parts = [f"{self.items} items" + (f": {statuses}" if statuses else ""), widths, self._size]
        return f"StoreStatus({'; '.join(part for part in parts if part)})"

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def _rows(self) -> Iterator[tuple[object, object]]:
        yield "items", self.items
        yield from self.statuses.items()
        for encoder in self.encoders:
            yield encoder["modality"], f"{encoder['name']}, {encoder['dim']} wide, {encoder['items']} items"
        for modality, counts in self.reasons.items():
            yield from ((f"{modality}: {reason}", count) for reason, count in counts.items())
        if self.languages:
            yield "languages", ", ".join(f"{name} {count}" for name, count in self.languages.items())
        for name, counts in self.labels.items():
            yield f"labels: {name}", f"{counts['items']} items, {counts['outdated']} of them changed since"
        yield "on disk", self._size

    @property
    def _size(self) -> str:
        return f"{self.bytes_on_disk / 1e6:.1f} MB"


def counted(store: FeatureStore) -> StoreStatus:
    statuses: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {modality: Counter() for modality in MODALITIES}
    used: Counter[tuple[str, str]] = Counter()
    languages: Counter[str] = Counter()
    columns = [f"{modality}_{name}" for modality in MODALITIES for name in ("reason", "fingerprint")]
    for batch in store.scan(["status", "text_language", *columns]):
        statuses.update(batch.column("status").to_pylist())
        languages.update(filter(None, batch.column("text_language").to_pylist()))
        for modality in MODALITIES:
            reasons[modality].update(r for r in batch.column(f"{modality}_reason").to_pylist() if r is not None)
            prints = batch.column(f"{modality}_fingerprint").to_pylist()
            used.update((modality, fingerprint) for fingerprint in prints if fingerprint is not None)
    known = {(str(e.modality), e.fingerprint): e for e in store.encoders()}
    encoders = [
        {"modality": m, "name": known[m, f].name, "dim": known[m, f].dim, "fingerprint": f, "items": count}
        for (m, f), count in sorted(used.items())
        if (m, f) in known
    ]
    return StoreStatus(
        items=sum(statuses.values()),
        statuses={status: statuses[status] for status in Status},
        reasons={modality: dict(counts) for modality, counts in reasons.items() if counts},
        encoders=encoders,
        languages=dict(languages.most_common()),
        labels={name: store.labels.state(name) for name in store.labels.names()},
        bytes_on_disk=total_bytes(store.folder),
    )


def faults(store: FeatureStore) -> Iterator[dict[str, str]]:
    """The faults of all items, one a modality: what could not be read, or not any more; why, and of which file.

    >>> import mmrec
    >>> from mmrec.store import faults
    >>> list(faults(mmrec.FeatureStore("store")))
    []
    """
    marks = [f"{modality}_{name}" for modality in MODALITIES for name in ("reason", "detail", "stale_since")]
    for batch in store.scan(["item_id", "status", "media", *marks]):
        for row in batch.to_pylist():
            for modality in MODALITIES:
                reason, since = row[f"{modality}_reason"], row[f"{modality}_stale_since"]
                if reason is not None and (since is not None or Reason(reason).is_fault):
                    yield {
                        "item_id": row["item_id"],
                        "status": row["status"],
                        "modality": modality,
                        "reason": reason,
                        "detail": row[f"{modality}_detail"] or "",
                        "media": row["media"] or "",
                        "stale_since": since.isoformat(timespec="seconds") if since else "",
                    }
