"""Where encoders run and in which precision."""

from __future__ import annotations

import re

import torch

from encoders.base import EncoderError

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        EncoderError: another name, or a device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", device):
        raise EncoderError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:N or mps")
    resolved = torch.device(device)
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise EncoderError(f"device {device!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    if resolved.type == "mps" and not _has_mps():
        raise EncoderError("device 'mps' is not there: torch finds no Metal device on this machine")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type of the weights; "auto" is bfloat16 where the device computes in it natively, else float32.

    Raises:
        EncoderError: an unknown name.
    """
    if precision == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if precision not in _PRECISIONS:
        raise EncoderError(f"unknown precision {precision!r}; expected auto, {', '.join(_PRECISIONS)}")
    return _PRECISIONS[precision]


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
