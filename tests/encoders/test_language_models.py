"""Language models as encoders of text: whose vectors they give, whatever they are padded with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_checkpoints import write_embedding_model, write_language_model
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from encoders.base import EncoderError, load_encoder
from encoders.testing import check_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ["qwen3", "mistral", "gpt2"]
TEXTS = ["a dog runs", "狗 猫", "a", "the cat sleeps in the park by the sea and dreams", "song", "🐶 & <b>"]
INSTRUCTION = "Instruct: Find what fits.\nQuery: "
END = "<end>"


def load(checkpoint: Path, **options: Any) -> Any:
    options = {"device": "cpu", "precision": "float32"} | options
    return load_encoder("sentence-transformer", checkpoint=str(checkpoint), **options)


def hidden(folder: Path, text: str) -> torch.Tensor:
    """The last hidden states `(T, D)` of a text by itself, as transformers gives them."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        states_TD: torch.Tensor = AutoModel.from_pretrained(folder).eval()(tokens["input_ids"]).last_hidden_state[0]
    return states_TD


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_language_model_gives_the_means_of_its_last_hidden_states(family: str, side: str, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path, family, padding_side=side)
    expected_ND = torch.stack([hidden(folder, text).mean(0) for text in TEXTS])
    torch.testing.assert_close(load(folder).encode(TEXTS), expected_ND, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_token_is_the_one_that_ends_the_text(family: str, side: str, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path, family, padding_side=side)
    expected_ND = torch.stack([hidden(folder, text + END)[-1] for text in TEXTS])
    encoder = load(folder, pooling="last")
    torch.testing.assert_close(encoder.encode(TEXTS), expected_ND, atol=1e-4, rtol=0)
    assert encoder.fingerprint != load(folder).fingerprint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_the_contract_is_kept(family: str, pooling: str, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "one", family)
    other = write_language_model(tmp_path / "two", family, seed=1)
    make = partial(load_encoder, "sentence-transformer", device="cpu", precision="float32", pooling=pooling)
    changes = [{"passage_tokens": 40}, {"checkpoint": str(other)}, {"document_prompt": "Text: "}]
    check_encoder(partial(make, checkpoint=str(folder)), changes=changes)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_text_without_a_token_has_a_vector_of_its_own(pooling: str, tmp_path: Path) -> None:
    encoder = load(write_language_model(tmp_path), pooling=pooling)
    alone_ND, among_ND = encoder.encode([""]), encoder.encode(["", "a dog"])
    assert alone_ND.isfinite().all() and alone_ND.any()
    torch.testing.assert_close(among_ND[:1], alone_ND, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
class TestEmbeddingModels:
    def test_texts_and_queries_are_those_of_sentence_transformers(self, family: str, tmp_path: Path) -> None:
        folder = write_embedding_model(tmp_path, family)
        reference, encoder = SentenceTransformer(str(folder), device="cpu"), load(folder)
        texts_ND = reference.encode([text + END for text in TEXTS], convert_to_tensor=True)
        queries_ND = reference.encode([f"{INSTRUCTION}{text}{END}" for text in TEXTS], convert_to_tensor=True)
        torch.testing.assert_close(encoder.encode(TEXTS), texts_ND, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(TEXTS), queries_ND, atol=1e-5, rtol=0)
        check_encoder(partial(load, folder))

    def test_the_card_by_hand(self, family: str, tmp_path: Path) -> None:
        """Last token, unit norm, an instruction before queries alone: by transformers and without padding."""
        folder = write_embedding_model(tmp_path, family)
        encoder = load(folder)
        for text in TEXTS:
            query_D = functional.normalize(hidden(folder, f"{INSTRUCTION}{text}{END}")[-1], dim=0)
            text_D = functional.normalize(hidden(folder, text + END)[-1], dim=0)
            assert encoder.encode_text([text])[0] @ query_D > 0.9999
            assert encoder.encode([text])[0] @ text_D > 0.9999
            assert abs(query_D @ text_D) < 0.999

    def test_an_instruction_of_ones_own(self, family: str, tmp_path: Path) -> None:
        folder = write_embedding_model(tmp_path, family)
        encoder, own = load(folder), load(folder, query_prompt="Instruct: Find quiet songs.\nQuery: ")
        assert (encoder.encode_text(TEXTS) * own.encode_text(TEXTS)).sum(1).max() < 0.9999
        torch.testing.assert_close(encoder.encode(TEXTS), own.encode(TEXTS))

    def test_an_end_is_not_added_twice(self, family: str, tmp_path: Path) -> None:
        encoder = load(write_embedding_model(tmp_path / "one", family))
        encoder.save_checkpoint(tmp_path / "again")
        file = tmp_path / "again" / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"add_eos_token": True}))
        for options in ({}, {"pooling": "last"}):
            torch.testing.assert_close(load(tmp_path / "again", **options).encode(TEXTS), encoder.encode(TEXTS))


class TestWindows:
    def test_passages_are_as_long_as_asked_for_and_read_whole(self, tmp_path: Path) -> None:
        encoder = load(write_language_model(tmp_path), pooling="last", passage_tokens=40)
        text = "The dog runs in the park. " * 9 + "狗猫" * 30
        passages = encoder.passages(text)
        assert max(len(passage.encode()) for passage in passages) <= 40
        assert "".join(passages).replace(" ", "") == text.replace(" ", "")

    def test_what_a_model_reads_is_the_most(self, tmp_path: Path) -> None:
        encoder = load(write_language_model(tmp_path, "gpt2"), pooling="last", document_prompt="Text: ")
        passages = encoder.passages("x" * 2000)
        assert max(map(len, passages)) == 512 - len("Text: ") - 1
        assert encoder.encode(passages).isfinite().all()

    def test_a_text_that_is_cut_still_has_its_end(self, tmp_path: Path) -> None:
        folder = write_language_model(tmp_path, "gpt2")
        expected_D = hidden(folder, "x" * 511 + END)[-1]
        vector_D = load(folder, pooling="last").encode(["x" * 2000])[0]
        torch.testing.assert_close(vector_D, expected_D, atol=1e-4, rtol=0)


def test_options_that_are_wrong(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    with pytest.raises(EncoderError, match="pooling is 'first': expected one of mean, last"):
        load(folder, pooling="first")
    with pytest.raises(EncoderError, match="passage_tokens is 0"):
        load(folder, passage_tokens=0)


def test_a_model_without_an_end(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            file = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({k: v for k, v in file.items() if k != "eos_token"}))
    with pytest.raises(EncoderError, match="has no token that ends a text"):
        load(folder, pooling="last")
