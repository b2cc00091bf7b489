"""What llama.cpp has read: several texts at once that begin alike, each in a sequence of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENS_AT_ONCE = 512


class LlamaSequences:
    """Reads tokens, and says what may follow.

    Sequence 0 holds what all texts begin with; text `row` is sequence `row + 1`. A model whose state cannot be taken
    back step by step works as well: texts are copies of the beginning, and are dropped whole.

    Args:
        model: a model of llama.cpp.
        context: tokens that are held, of all texts together.
        num_texts: at once.
        threads: that compute.
    """

    def __init__(self, model: Any, *, context: int, num_texts: int, threads: int) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch = context, TOKENS_AT_ONCE
        params.n_seq_max, params.kv_unified = num_texts + 1, True
        if not llama_cpp.llama_supports_gpu_offload():  # on a processor it sums in half precision
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = threads
        self._context: Any = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise MemoryError(f"there is no memory for {context} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch: Any = llama_cpp.llama_batch_init(TOKENS_AT_ONCE, 0, 1)
        self._vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)))
        self._head: list[int] | None = None
        self._lengths: dict[int, int] = {}

    def begin(self, head: Sequence[int], num_texts: int) -> None:
        """Start so many texts, all with these tokens, which are read again only where they are others than before."""
        for row in self._lengths:
            self._api.llama_memory_seq_rm(self._memory, row + 1, -1, -1)
        if head != self._head:
            self._head, self._lengths = None, {-1: 0}
            self._api.llama_memory_clear(self._memory, True)
            self.read({-1: head})
            self._head = list(head)
        for row in range(num_texts):
            self._api.llama_memory_seq_cp(self._memory, 0, row + 1, -1, -1)
        self._lengths = dict.fromkeys(range(num_texts), len(head))

    def read(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, NDArray[np.float32]]:
        """Go on in some texts; the logits of what follows each, `(V,)`. Raises `RuntimeError` where that fails."""
        steps = [(row, token, place + 1 == len(of)) for row, of in tokens.items() for place, token in enumerate(of)]
        found: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(steps), TOKENS_AT_ONCE):
            found.update(self._decode(steps[start : start + TOKENS_AT_ONCE]))
        return found

    def _decode(self, steps: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        batch = self._batch
        batch.n_tokens = len(steps)
        for place, (row, token, is_last) in enumerate(steps):
            batch.token[place], batch.pos[place] = token, self._lengths[row]
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row + 1
            batch.logits[place] = is_last
            self._lengths[row] += 1
        if code := self._api.llama_decode(self._context, batch):
            raise RuntimeError(f"llama.cpp could not go on: it returned {code}")
        for place, (row, _, is_last) in enumerate(steps):
            if is_last:
                pointer = self._api.llama_get_logits_ith(self._context, place)
                yield row, np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,)).copy()
