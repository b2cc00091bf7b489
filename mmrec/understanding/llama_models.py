"""Language models on this machine, by llama.cpp: GGUF files, as they are, without unpacking their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec.errors import ChatError
from mmrec.understanding.chat import Answer, Question, Usage
from mmrec.understanding.constrained import allowed_tokens, answer_of, grammar_of, prompt_of, too_long
from mmrec.understanding.llama_sequences import LlamaSequences
from mmrec.understanding.weights import weights_digest

CONTEXT = 16_384
TEMPLATE = "tokenizer.chat_template"


class LlamaChat:
    """A GGUF file with a chat template, run by llama.cpp; it answers greedily, and can write nothing but the schema.

    What questions of one kind begin with, the instructions and the schema, is read once; tokens that the schema forces
    are not computed.

    Args:
        model: a `.gguf` file.
        device: "auto" (a GPU where llama.cpp was built for one), "cpu", "cuda", "cuda:N".
        max_tokens: of one answer.
        batch_size: questions at once. More take less time, but llama.cpp multiplies quantised weights with several rows
            otherwise than with one: where words are nearly as likely, answers then depend on their neighbours.
        context: tokens of the questions and answers at once; a question that takes more is not asked.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        max_tokens: int = 1024,
        batch_size: int = 1,
        context: int = CONTEXT,
    ) -> None:
        try:
            import llama_cpp
            from llama_cpp.llama_chat_format import Jinja2ChatFormatter
            from llguidance.llamacpp import lltokenizer_from_vocab
        except ImportError:
            raise ChatError("GGUF files by llama.cpp need llama-cpp-python: pip install 'mmrec[llama]'") from None
        where = {"n_gpu_layers": 0 if device == "cpu" else -1, "main_gpu": int(device.partition(":")[2] or 0)}
        try:
            self._llama: Any = llama_cpp.Llama(model, n_ctx=1, verbose=False, **where)
            trained = (int(n) for name, n in self._llama.metadata.items() if name.endswith(".context_length"))
            self._context = min([context, *trained])
            self._sequences = LlamaSequences(
                self._llama.model, context=self._context, num_texts=batch_size, threads=torch.get_num_threads()
            )
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise ChatError(f"language model {model!r} cannot be loaded by llama.cpp: {error}") from error
        if TEMPLATE not in self._llama.metadata:
            raise ChatError(f"language model {model!r} has no chat template: expected a model tuned to follow a chat")
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        end, begin = (
            llama_cpp.llama_vocab_get_text(vocabulary, token).decode() if token >= 0 else ""
            for token in (self._llama.token_eos(), self._llama.token_bos())
        )
        self._template: Any = Jinja2ChatFormatter(self._llama.metadata[TEMPLATE], eos_token=end, bos_token=begin)
        self._grammars = lltokenizer_from_vocab(vocabulary, n_vocab=self._llama.n_vocab())
        self._max_tokens, self._batch_size = max_tokens, batch_size
        self.name = Path(model).name
        self._fingerprint = weights_digest(model)

    @property
    def fingerprint(self) -> str:
        return f"llama.cpp:{self._fingerprint}:{self._max_tokens}:{self._context}"

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        batch: list[_Prompt] = []
        for prompt in map(self._prompt, questions):
            if batch and not self._fits(batch, prompt):
                yield from self._answers(batch)
                batch = []
            batch.append(prompt)
            if len(batch) == self._batch_size:
                yield from self._answers(batch)
                batch = []
        if batch:
            yield from self._answers(batch)

    def _prompt(self, question: Question) -> _Prompt:
        text = prompt_of(question, lambda messages: str(self._template(messages=messages).prompt))
        start = max(0, text.rfind(question.messages()[1]["content"]))
        return _Prompt(question, self._tokens(text[:start]), self._tokens(text[start:]))

    def _tokens(self, text: str) -> list[int]:
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True)) if text else []

    def _fits(self, batch: Sequence[_Prompt], more: _Prompt) -> bool:
        """Whether a prompt begins as those of a batch do, and there is room for it beside them."""
        return more.head == batch[0].head and self._room([*batch, more]) <= self._context

    def _room(self, batch: Sequence[_Prompt]) -> int:
        return len(batch[0].head) + sum(len(prompt.rest) + self._max_tokens for prompt in batch)

    def _answers(self, batch: Sequence[_Prompt]) -> Iterator[Answer]:
        if self._room(batch) > self._context:  # then it is one alone
            yield too_long(self._context)
            return
        try:
            texts = self._written(batch)
        except RuntimeError as error:
            raise ChatError(f"language model {self.name!r}: {error}") from error
        for prompt, text in zip(batch, texts, strict=True):
            words = self._llama.detokenize(text.tokens).decode("utf-8", errors="replace")
            usage = Usage(read=len(prompt.head) + len(prompt.rest), written=len(text.tokens))
            yield answer_of(words, prompt.question, usage)

    def _written(self, batch: Sequence[_Prompt]) -> list[_Text]:
        from llguidance import LLMatcher

        texts = [_Text(LLMatcher(self._grammars, grammar_of(prompt.question)), list(prompt.rest)) for prompt in batch]
        self._sequences.begin(batch[0].head, len(batch))
        while unread := {row: text.unread for row, text in enumerate(texts) if text.goes_on(self._max_tokens)}:
            for row, logits_V in self._sequences.read(unread).items():
                texts[row].add_likeliest(logits_V)
        return texts


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The tokens of a question: what others of its kind begin with as well, and the rest."""

    question: Question
    head: list[int]
    rest: list[int]


@dataclass(slots=True)
class _Text:
    """An answer while it is written; `unread` are the tokens that the model has not read."""

    matcher: Any
    unread: list[int]
    tokens: list[int] = field(default_factory=list)

    def goes_on(self, max_tokens: int) -> bool:
        """Write what the grammar forces; whether a token is left to be chosen."""
        while not self.matcher.is_stopped() and len(self.tokens) < max_tokens:
            forced = self.matcher.compute_ff_tokens()
            if not forced:
                return True
            self._add(forced)
        return False

    def add_likeliest(self, logits_V: NDArray[np.float32]) -> None:
        """Write the likeliest token of those that the grammar allows."""
        (allowed_V,) = allowed_tokens([self.matcher], len(logits_V))
        self.unread = []
        self._add([int(np.where(allowed_V, logits_V, -np.inf).argmax())])

    def _add(self, tokens: list[int]) -> None:
        self.matcher.consume_tokens(tokens)
        self.tokens += tokens
        self.unread += tokens
