"""Language models on this machine, by transformers: a folder, a name on the hub, or a GGUF file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmrec.errors import ChatError
from mmrec.understanding.chat import Answer, Question, Usage
from mmrec.understanding.constrained import allowed_tokens, answer_of, grammar_of, prompt_of, too_long
from mmrec.understanding.weights import weights_digest

BATCH_SIZES = {"cpu": 1, "cuda": 16}


class LocalChat:
    """A causal language model with a chat template; it answers greedily, and can write nothing but the schema.

    The schema is compiled to a grammar (llguidance), which leaves at each step only the tokens that may follow.

    Args:
        model: a folder as `save_pretrained` makes it, a `.gguf` file, or a name on the hub.
        device: "auto", "cpu", "cuda", "cuda:N".
        max_tokens: of one answer.
        batch_size: questions at once; by default 1 on a processor, 16 on a GPU.
    """

    def __init__(self, model: str, *, device: str = "auto", max_tokens: int = 1024, batch_size: int = 0) -> None:
        try:
            import llguidance.hf
        except ImportError:
            raise ChatError("language models on this machine need llguidance: pip install 'mmrec[chat]'") from None
        from transformers import AutoModelForCausalLM, AutoTokenizer

        chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        path = Path(model)
        name, options = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (model, {})
        dtype = torch.float32 if chosen == "cpu" else torch.bfloat16
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, padding_side="left", **options)
            self._model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options).to(chosen).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ChatError(f"language model {model!r} cannot be loaded: {words[0]}") from error
        if not self._tokenizer.chat_template:
            raise ChatError(f"language model {model!r} has no chat template: expected a model tuned to follow a chat")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        text_config = self._model.config.get_text_config()
        self._grammars = llguidance.hf.from_tokenizer(self._tokenizer, n_vocab=text_config.vocab_size)
        self._max_tokens = max_tokens
        self._batch_size = batch_size or BATCH_SIZES.get(self._model.device.type, 1)
        self._context = int(getattr(text_config, "max_position_embeddings", 0) or 2**31)
        self.name = path.name if path.exists() else model
        self._fingerprint = weights_digest(model)

    @property
    def fingerprint(self) -> str:
        return f"{self._fingerprint}:{self._max_tokens}"

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        remaining = iter(questions)
        while batch := list(itertools.islice(remaining, self._batch_size)):
            yield from self._answers(batch)

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        prompts = [prompt_of(question, self._rendered) for question in questions]
        lengths = [len(self._tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
        fitting = [place for place, length in enumerate(lengths) if length + self._max_tokens <= self._context]
        answers = [too_long(self._context)] * len(questions)
        if fitting:
            texts = self._written([prompts[p] for p in fitting], [questions[p] for p in fitting])
            for place, (text, written) in zip(fitting, texts, strict=True):
                answers[place] = answer_of(text, questions[place], Usage(read=lengths[place], written=written))
        return answers

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _written(self, prompts: Sequence[str], questions: Sequence[Question]) -> list[tuple[str, int]]:
        """The texts that the model writes, and of how many tokens each is."""
        from transformers import LogitsProcessorList

        inputs = self._tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {name: inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        width = inputs["input_ids"].shape[1]
        mask = _GrammarMask(self._grammars, questions, width)
        with torch.inference_mode():
            written = self._model.generate(
                **inputs,
                max_new_tokens=self._max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([mask]),
            )[:, width:]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        counts = (written != self._tokenizer.pad_token_id).sum(dim=1).tolist()
        return list(zip(texts, counts, strict=True))


class _GrammarMask:
    """At each step forbids the tokens that the grammar of a row does not allow; transformers' `LogitsProcessor`."""

    def __init__(self, tokenizer: Any, questions: Sequence[Question], prompt_width: int) -> None:
        from llguidance import LLMatcher

        self._matchers = [LLMatcher(tokenizer, grammar_of(question)) for question in questions]
        self._prompt_width = prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, matcher in enumerate(self._matchers):
            if input_ids.shape[1] > self._prompt_width and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
        allowed_BV = torch.from_numpy(allowed_tokens(self._matchers, scores.shape[-1]))
        return scores.masked_fill(~allowed_BV.to(scores.device), -torch.inf)
