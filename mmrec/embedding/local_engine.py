"""The stages of a job in one process, with threads that encode and write, and worker processes that decode for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import chain

from mmrec.catalog import Catalog
from mmrec.embedding.decoding import decode_items
from mmrec.embedding.lazy_encoders import LazyEncoders
from mmrec.embedding.stages import Telling, Work, settled, unfinished, word_digests
from mmrec.embedding.tasks import Reading, Task
from mmrec.embedding.writing import Writer
from mmrec.store import FeatureStore, Findings, Modality, StoredKeys


class LocalEngine:
    """Runs the stages of a job on this machine."""

    def __init__(self, encoders: LazyEncoders) -> None:
        self._encoders = encoders
        self._keys: StoredKeys

    @property
    def fingerprints(self) -> Mapping[Modality, str]:
        return self._encoders.fingerprints

    def begin(self, store: FeatureStore) -> None:
        self._keys = store.keys()

    def num_leaving(self, manifest: Catalog) -> int:
        return self._keys.num_leaving(manifest.item_ids())

    def prune(self, store: FeatureStore, manifest: Catalog) -> int:
        return store.prune(manifest.item_ids())

    def compact(self, store: FeatureStore, keep_versions: timedelta) -> None:
        store.compact(keep_versions)

    def embed(self, manifest: Catalog, work: Work, telling: Telling) -> None:
        telling.report.workers = work.limits.num_workers
        reading = Reading(manifest)
        with Writer(work.store, self._keys, telling.report) as writer:
            tasks = unfinished(reading.items(), work, self._keys, word_digests(work), telling.report, writer.put)
            first = next(tasks, None)
            telling.started()
            if first is not None:
                self._embed(chain([first], tasks), work, writer, telling)
        self._encoders.remember()
        reading.check()

    def _embed(self, tasks: Iterator[Task], work: Work, writer: Writer, telling: Telling) -> None:
        from mmrec.embedding.encoding import encoded

        loaded, report = self._encoders.load(), telling.report
        work.store.add_encoders(loaded.records())
        telling.ready()
        with (
            closing(decode_items(tasks, loaded.frames, loaded.sound, work.limits)) as decoded,
            closing(encoded(decoded, loaded, work.batch_size, report, Findings(work.store))) as finished,
        ):
            for row in settled(finished, work, loaded, report):
                writer.put(row)
                telling.went_on()
