"""Which engine runs a language model on this machine."""

from __future__ import annotations

from importlib.util import find_spec

from mmrec.understanding.llama_models import LlamaChat
from mmrec.understanding.local_models import LocalChat


def open_local(
    model: str, *, device: str = "auto", max_tokens: int = 1024, batch_size: int = 0
) -> LlamaChat | LocalChat:
    """A GGUF file by llama.cpp where that is installed; else, and for folders and names, by transformers.

    `batch_size`: questions at once; 0 leaves it to the engine.
    """
    if model.endswith(".gguf") and find_spec("llama_cpp") is not None:
        return LlamaChat(model, device=device, max_tokens=max_tokens, batch_size=batch_size or 1)
    return LocalChat(model, device=device, max_tokens=max_tokens, batch_size=batch_size)
