"""What pictures show and which language words are in: kept in the rows, shown by the status, warned of."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from embedding_jobs import TEXT_PRESET, by_id, run, write_catalog, write_preset
from media_files import write_image

from encoders.descriptors import Descriptors
from encoders.text import HashedNgrams
from mmrec.store import FeatureStore


def test_the_classes_of_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def top_classes(self: Descriptors, vectors_TD: np.ndarray, count: int = 5) -> list[tuple[str, float]]:
        return [("painting", 0.75), (f"of {len(vectors_TD)} pictures", 0.25)]

    monkeypatch.setattr(Descriptors, "top_classes", top_classes, raising=False)
    write_image(tmp_path / "a.png")
    write_preset(tmp_path / "small.yaml", TEXT_PRESET + "visual: {kind: descriptors}\n")
    write_catalog(tmp_path / "catalog.csv", [{"item_id": "a", "media": "a.png"}, {"item_id": "b", "title": "words"}])
    run(tmp_path)
    rows = by_id(tmp_path / "store")
    assert rows["a"].classes == [("painting", 0.75), ("of 1 pictures", 0.25)] and rows["b"].classes == []
    write_catalog(tmp_path / "catalog.csv", [{"item_id": "a", "media": "a.png", "title": "new words"}])
    run(tmp_path)
    assert by_id(tmp_path / "store")["a"].classes == [("painting", 0.75), ("of 1 pictures", 0.25)]


def test_languages_are_told_by_the_words_or_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.setattr(HashedNgrams, "languages", frozenset({"de", "zh"}), raising=False)
    write_preset(tmp_path / "small.yaml", TEXT_PRESET)
    (tmp_path / "catalog.csv").write_text(
        "item_id,title,language\na,Ein Hund läuft durch den Park,\nb,轻柔的钢琴,\nc,A dog in the park,en-GB\nd,1984,\n",
        encoding="utf-8",
    )
    with caplog.at_level(logging.WARNING):
        report = run(tmp_path)
    assert {i: row.language for i, row in by_id(tmp_path / "store").items()} == {
        "a": "de",
        "b": "zh",
        "c": "en",
        "d": "",
    }
    assert FeatureStore(tmp_path / "store").status().languages == {"de": 1, "zh": 1, "en": 1}
    assert dict(report.unread_languages) == {"en": 1}
    assert "the text encoder does not know the languages of some texts: en 1" in caplog.text
