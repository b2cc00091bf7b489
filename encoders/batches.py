"""What encoders do with a batch before it reaches a model: check it, and pass it on in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encoders.base import EncoderError

if TYPE_CHECKING:
    from encoders.base import AudioEncoder, Encoder, VisualEncoder


def checked_frames(encoder: VisualEncoder, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The batch as a tensor, if it has the shape and type that the encoder asks for.

    Raises:
        EncoderError: it has not.
    """
    frames_NFHWC = _as_tensor(frames)
    expected = (len(encoder.frame_offsets), *encoder.frame_size, 3)
    if frames_NFHWC.dtype != torch.uint8 or tuple(frames_NFHWC.shape[1:]) != expected:
        raise EncoderError(
            f"encoder {encoder.name!r} takes uint8 frames (N, {', '.join(map(str, expected))}) as N F H W C, "
            f"got {str(frames_NFHWC.dtype).removeprefix('torch.')} {tuple(frames_NFHWC.shape)}"
        )
    return frames_NFHWC


def checked_windows(encoder: AudioEncoder, windows: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The batch as a tensor, if it is float32 `(N, S)` with at least one sample.

    Raises:
        EncoderError: it is not.
    """
    windows_NS = _as_tensor(windows)
    if windows_NS.dtype != torch.float32 or windows_NS.ndim != 2 or not windows_NS.shape[1]:
        raise EncoderError(
            f"encoder {encoder.name!r} takes float32 windows (N, S), mono, "
            f"got {str(windows_NS.dtype).removeprefix('torch.')} {tuple(windows_NS.shape)}"
        )
    return windows_NS


def checked_texts(encoder: Encoder, texts: Sequence[str]) -> Sequence[str]:
    """The batch as it is, if it is a list of strings.

    Raises:
        EncoderError: it is a single string, or has members that are none.
    """
    strangers = {"a single string"} if isinstance(texts, str) else {type(t).__name__ for t in texts} - {"str"}
    if strangers:
        raise EncoderError(f"encoder {encoder.name!r} takes a list of strings, got {', '.join(sorted(strangers))}")
    return texts


def _as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A tensor of an array, which is copied only where torch could not hold it: read-only or with negative strides."""
    if isinstance(array, torch.Tensor):
        return array
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def in_parts(
    embed: Callable[[Any], torch.Tensor],
    batch: torch.Tensor | Sequence[str],
    *,
    dim: int,
    device: torch.device,
    cpu_size: int = 32,
    gpu_size: int = 256,
) -> torch.Tensor:
    """Embed a batch of any size in parts of a size that suits the device, without gradients: float32 `(N, dim)`.

    `cpu_size` inputs are what fills a processor without leaving its cache, `gpu_size` what fills a large GPU.
    """
    size = cpu_size if device.type == "cpu" else gpu_size
    with torch.inference_mode():
        parts = [embed(batch[at : at + size]) for at in range(0, len(batch), size)]
    return torch.cat([torch.empty(0, dim, device=device), *parts])
