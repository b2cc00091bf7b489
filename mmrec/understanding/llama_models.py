"""Language models on this machine, by llama.cpp: GGUF files, as they are, without unpacking their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.errors import ChatError
from mmrec.understanding.chat import Answer, Question, Usage
from mmrec.understanding.constrained import allowed_tokens, answer_of, grammar_of, prompt_of, too_long
from mmrec.understanding.weights import weights_digest

CONTEXT = 16_384
"""Tokens of a question and its answer; more takes more memory."""
TEMPLATE = "tokenizer.chat_template"


class LlamaChat:
    """A GGUF file with a chat template, run by llama.cpp; it answers greedily, and can write nothing but the schema.

    What all questions of one kind begin with, the instructions and the schema, is read once. Tokens that the schema
    forces are not computed.

    Args:
        model: a `.gguf` file.
        device: "auto" (a GPU where llama.cpp was built for one), "cpu", "cuda", "cuda:N".
        max_tokens: of one answer.
        context: tokens of a question and its answer, at most as many as the model was made for.
    """

    def __init__(self, model: str, *, device: str = "auto", max_tokens: int = 1024, context: int = CONTEXT) -> None:
        try:
            import llama_cpp
            from llama_cpp.llama_chat_format import Jinja2ChatFormatter
            from llguidance.llamacpp import lltokenizer_from_vocab
        except ImportError:
            raise ChatError("GGUF files by llama.cpp need llama-cpp-python: pip install 'mmrec[llama]'") from None
        index = int(device.partition(":")[2] or 0)
        threads = torch.get_num_threads()
        try:
            self._llama: Any = llama_cpp.Llama(
                model,
                n_ctx=context,
                n_gpu_layers=0 if device == "cpu" else -1,
                main_gpu=index,
                n_threads=threads,
                n_threads_batch=threads,
                swa_full=True,  # else what was read of a question cannot be taken back
                verbose=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ChatError(f"language model {model!r} cannot be loaded by llama.cpp: {error}") from error
        if TEMPLATE not in self._llama.metadata:
            raise ChatError(f"language model {model!r} has no chat template: expected a model tuned to follow a chat")
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        end, begin = (
            llama_cpp.llama_vocab_get_text(vocabulary, token).decode() if token >= 0 else ""
            for token in (self._llama.token_eos(), self._llama.token_bos())
        )
        self._template: Any = Jinja2ChatFormatter(self._llama.metadata[TEMPLATE], eos_token=end, bos_token=begin)
        self._vocabulary_size = int(self._llama.n_vocab())
        self._grammars = lltokenizer_from_vocab(vocabulary, n_vocab=self._vocabulary_size)
        self._max_tokens = max_tokens
        trained = (int(n) for name, n in self._llama.metadata.items() if name.endswith(".context_length"))
        self._context = min([context, *trained])
        self._head: list[int] = []
        self.name = Path(model).name
        self._fingerprint = weights_digest(model)

    @property
    def fingerprint(self) -> str:
        return f"llama.cpp:{self._fingerprint}:{self._max_tokens}:{self._context}"

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        yield from map(self._answer, questions)

    def _answer(self, question: Question) -> Answer:
        prompt = prompt_of(question, lambda messages: str(self._template(messages=messages).prompt))
        start = max(0, prompt.rfind(question.messages()[1]["content"]))
        head, rest = self._tokens(prompt[:start]), self._tokens(prompt[start:])
        read = len(head) + len(rest)
        if read + self._max_tokens > self._context:
            return too_long(self._context)
        try:
            self._read_head(head)
            written = self._written(rest, question)
        except RuntimeError as error:
            raise ChatError(f"language model {self.name!r}: {error}") from error
        text = self._llama.detokenize(written).decode("utf-8", errors="replace")
        return answer_of(text, question, Usage(read=read, written=len(written)))

    def _tokens(self, text: str) -> list[int]:
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True)) if text else []

    def _read_head(self, head: list[int]) -> None:
        """Make the model as it is after these tokens; always in the same way, so that no order of questions counts."""
        from llama_cpp import llama_get_memory, llama_memory_seq_rm

        is_read = bool(head) and head == self._head
        if is_read and llama_memory_seq_rm(llama_get_memory(self._llama.ctx), 0, len(head), -1):
            self._llama.n_tokens = len(head)
            return
        self._head = []
        self._llama.reset()
        if head:
            self._llama.eval(head)
            self._head = head

    def _written(self, unread: Sequence[int], question: Question) -> list[int]:
        """The tokens of the answer after those that are still to be read."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._grammars, grammar_of(question))
        written: list[int] = []
        todo = list(unread)
        while not matcher.is_stopped() and len(written) < self._max_tokens:
            new = matcher.compute_ff_tokens()
            if not new:
                self._llama.eval(todo)
                todo, new = [], [self._likeliest(matcher)]
            matcher.consume_tokens(new)
            written += new
            todo += new
        return written

    def _likeliest(self, matcher: Any) -> int:
        """The likeliest token of those that the grammar allows."""
        from llama_cpp import llama_get_logits_ith

        (allowed_V,) = allowed_tokens([matcher], self._vocabulary_size)
        logits_V = np.ctypeslib.as_array(llama_get_logits_ith(self._llama.ctx, -1), shape=(self._vocabulary_size,))
        return int(np.where(allowed_V, logits_V, -np.inf).argmax())
