"""Training encoders further: all their weights, or low-rank adapters beside the layers that matter.

>>> adapter = add_adapter(encoder, frames_NFHWC[:1], rank=8)        # doctest: +SKIP
>>> encoder.forward(frames_NFHWC).sum().backward()                  # doctest: +SKIP
>>> save_adapter(adapter, folder)                                   # doctest: +SKIP
>>> load_encoder("open-clip", checkpoint=..., adapter=str(folder))  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from encoders.base import EncoderError


@runtime_checkable
class Tunable(Protocol):
    """An encoder with weights that can be trained."""

    name: str

    @property
    def network(self) -> nn.Module:
        """What is trained, and what adapters are made for; in evaluation mode."""
        ...

    def forward(self, batch: Any, /) -> torch.Tensor:
        """What `encode` gives, in one go and with gradients: `(N, dim)`."""
        ...

    def save_checkpoint(self, folder: Path) -> None:
        """Write the network, in the format it was read from, to a folder that the option `checkpoint` can name."""
        ...


def add_adapter(encoder: Tunable, batch: Any, rank: int) -> Any:
    """Freeze an encoder's network and add LoRA (Hu et al. 2022) to all its linear layers that a vector depends on.

    The vectors stay as they are until the adapter is trained. Returns PEFT's model around the network.

    Args:
        batch: what `forward` takes, as little of it as there is: it shows which layers count.
        rank: of the matrices that are trained.

    Raises:
        EncoderError: peft is not installed, or the network has no layer of that kind.
    """
    from transformers.pytorch_utils import Conv1D

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise EncoderError("adapters need the package peft; `pip install mmrec[adapters]` brings it") from error
    layers = _layers_that_count(encoder, batch)
    if not layers:
        raise EncoderError(f"{encoder.name} has no linear layers that could be adapted; train all of it instead")
    lies_transposed = all(isinstance(encoder.network.get_submodule(name), Conv1D) for name in layers)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, fan_in_fan_out=lies_transposed)
    return get_peft_model(encoder.network, config)


def save_adapter(adapter: Any, folder: Path) -> None:
    """Write what `add_adapter` added, as safetensors, to a folder that the option `adapter` can name."""
    adapter.save_pretrained(folder, save_embedding_layers=False)


def _layers_that_count(encoder: Tunable, batch: Any) -> list[str]:
    """The linear layers that are called and whose weights change the vectors.

    Some are not called although their weights count (torch's multi-head attention reads them itself): an adapter
    there would be ignored. Some are called in vain, as a pooler nobody reads; or never, as CLIP's text tower here.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D)  # as which GPT-2 has its linear layers
    linear = {name: module for name, module in encoder.network.named_modules() if isinstance(module, kinds)}
    called: set[nn.Module] = set()
    hooks = [module.register_forward_hook(lambda module, *_: called.add(module)) for module in linear.values()]
    try:
        vectors_ND = encoder.forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    weights = [module.weight for module in linear.values()]
    gradients = torch.autograd.grad(vectors_ND.sum(), weights, allow_unused=True)
    return [
        name
        for (name, module), gradient in zip(linear.items(), gradients, strict=True)
        if module in called and gradient is not None
    ]
