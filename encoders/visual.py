"""Visual encoders with weights: CLIP and its like through open_clip.

Letters: N frames, H, W pixels, C channels, D width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from encoders.base import EncoderError, FrameFit, Interpolation, Modality, fingerprint
from encoders.batches import checked_frames, in_parts
from encoders.checkpoints import Checkpoint, Source, adapted, digest, locate, reading
from encoders.cuda_graphs import CudaGraphs
from encoders.devices import resolve_device, resolve_precision
from encoders.inference import hasten, replace_forward, restore

if TYPE_CHECKING:
    import numpy as np


class OpenClip:
    """Any open_clip model, with its own preprocessing, and its text tower in the same space; unit norm.

    Args:
        checkpoint: a folder or a hub repository ("hf-hub:" may stand before it) with `open_clip_config.json` and
            weights; or, together with `pretrained`, the name of an open_clip architecture.
        pretrained: the tag of published weights for that architecture, or a file of weights.
        revision: of the hub repository.
        adapter: a folder or hub repository with a PEFT adapter, which is merged into the model.
        allow_pickle: read weights that exist only as a pickle.
    """

    REVISION = 1

    modality: Modality = "visual"
    frame_offsets: tuple[float, ...] = (0.0,)

    def __init__(
        self,
        *,
        checkpoint: str,
        pretrained: str | None = None,
        revision: str | None = None,
        adapter: str | None = None,
        allow_pickle: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self._checkpoint = locate(self.source(checkpoint, pretrained, revision, allow_pickle))
        self.name = f"open-clip {self._checkpoint.label}"
        self._architecture = checkpoint if pretrained else f"local-dir:{self._checkpoint.folder}"
        with reading(self._checkpoint):
            model, model_config = _open_clip_model(self._architecture, pretrained, self._checkpoint)
        self._config = model_config
        self._preprocessing = preprocessing = model.visual.preprocess_cfg
        model, adapter_digest = adapted(model, adapter, allow_pickle=allow_pickle)
        self._model = model.to(self._device, self._dtype)
        if self._device.type == "cuda":
            model.visual.to(memory_format=torch.channels_last)  # as frames are
        _hasten_tower(model.visual)
        self._graphs = CudaGraphs()
        self.dim: int = model_config["embed_dim"]
        if preprocessing["resize_mode"] == "longest" and preprocessing["fill_color"]:
            raise EncoderError(
                f"{self.name} pads with fill_color {preprocessing['fill_color']}; only black is possible"
            )
        self.frame_size: tuple[int, int] = tuple(preprocessing["size"])
        self.frame_fit: FrameFit = _FITS[preprocessing["resize_mode"]]
        self.interpolation: Interpolation = "bilinear" if preprocessing["interpolation"] == "bilinear" else "bicubic"
        mean_C, std_C = (torch.tensor(preprocessing[name], device=self._device) for name in ("mean", "std"))
        self._scale_C, self._shift_C = 1 / (255 * std_C), -mean_C / std_C
        self.fingerprint = fingerprint(
            "open-clip",
            self.REVISION,
            weights=digest(self._checkpoint.folder, self._checkpoint.weights),
            model=model_config,
            preprocessing=preprocessing,
            adapter=adapter_digest,
            precision=str(self._dtype),
        )

    @staticmethod
    def source(
        checkpoint: str, pretrained: str | None = None, revision: str | None = None, allow_pickle: bool = False
    ) -> Source:
        """Where the weights are."""
        if pretrained and Path(pretrained).is_file():
            file = Path(pretrained)
            safe = file.suffix == ".safetensors"
            return Source(
                name=str(file.parent),
                allow_pickle=allow_pickle,
                safetensors=(re.escape(file.name),) if safe else (),
                pickles=() if safe else (re.escape(file.name),),
            )
        return Source(
            name=_repository(checkpoint, pretrained) if pretrained else checkpoint.removeprefix("hf-hub:"),
            revision=revision,
            allow_pickle=allow_pickle,
            safetensors=(r"open_clip_(pytorch_)?model\.safetensors", r"(pytorch_)?model\.safetensors"),
            pickles=(r"open_clip_pytorch_model\.(bin|pth|pt)", r"(pytorch_)?model\.(bin|pth|pt)"),
        )

    def encode(self, frames_NFHWC: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Embed frames `(N, 1, H, W, 3)`, uint8 RGB at `frame_size`, as unit vectors `(N, dim)`."""
        return in_parts(self.forward, checked_frames(self, frames_NFHWC), dim=self.dim, device=self._device)

    def encode_text(self, texts: list[str], /) -> torch.Tensor:
        """Embed texts, in the space of the frames, as unit vectors `(N, dim)`; longer than the context is cut."""
        return in_parts(self._text_vectors, texts, dim=self.dim, device=self._device)

    def forward(self, frames_NFHWC: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """What `encode` gives, in one go and with gradients."""
        frames_NHWC = checked_frames(self, frames_NFHWC)[:, 0].to(self._device, non_blocking=True)
        return self._graphs.run(self._frame_vectors, frames_NHWC)

    def _frame_vectors(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        pixels_NHWC = torch.addcmul(self._shift_C, frames_NHWC, self._scale_C)
        vectors_ND = self._model.encode_image(pixels_NHWC.permute(0, 3, 1, 2).to(self._dtype))
        return functional.normalize(vectors_ND.float(), dim=-1)

    @property
    def network(self) -> torch.nn.Module:
        """The model, to be trained."""
        network: torch.nn.Module = self._model
        restore(network)
        self._graphs.stop()
        return network

    def save_checkpoint(self, folder: Path) -> None:
        """Write the model as it is now to a folder that `checkpoint` can name."""
        self._checkpoint.copy_small_files(folder)
        config = {"model_cfg": self._config, "preprocess_cfg": self._preprocessing}
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        tensors = {name: tensor.contiguous() for name, tensor in self._model.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")

    def _text_vectors(self, texts: list[str]) -> torch.Tensor:
        vectors_ND = self._model.encode_text(self._tokenize(texts).to(self._device))
        return functional.normalize(vectors_ND.float(), dim=-1)

    @cached_property
    def _tokenize(self) -> Any:
        import open_clip

        with reading(self._checkpoint):
            return open_clip.get_tokenizer(self._architecture)


def _hasten_tower(tower: nn.Module) -> None:
    """Let a tower take faster ways in inference; a vision transformer's vector needs one token of its last block."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    hasten(tower)
    if isinstance(tower, VisionTransformer) and tower.pool_type == "tok" and tower.attn_pool is None:
        last = tower.transformer.resblocks[-1]
        if isinstance(last, ResidualAttentionBlock):
            replace_forward(last, partial(_class_token, last))


def _class_token(block: Any, tokens_NTD: torch.Tensor, attn_mask: None = None) -> torch.Tensor:
    """What a block makes of the first token alone: `(N, 1, D)`."""
    normed_NTD = block.ln_1(tokens_NTD)
    attended_N1D, _ = block.attn(normed_NTD[:, :1], normed_NTD, normed_NTD, need_weights=False)
    token_N1D = tokens_NTD[:, :1] + block.ls_1(attended_N1D)
    output_N1D: torch.Tensor = token_N1D + block.ls_2(block.mlp(block.ln_2(token_N1D)))
    return output_N1D


_FITS: dict[str, FrameFit] = {"shortest": "crop", "squash": "squash", "longest": "pad"}


def _repository(architecture: str, tag: str) -> str:
    """The hub repository of weights that open_clip publishes under a tag."""
    from open_clip import pretrained

    known = pretrained.list_pretrained_tags_by_model(architecture)
    if not known:
        raise EncoderError(f"open_clip publishes no weights for an architecture {architecture!r}")
    config = pretrained.get_pretrained_cfg(architecture, tag)
    if not config:
        raise EncoderError(
            f"there is no file of weights {tag!r}, and open_clip publishes none under that tag for {architecture!r}; "
            f"it has {', '.join(known)}"
        )
    repository: str = config["hf_hub"].rpartition("/")[0]
    return repository


def _open_clip_model(architecture: str, pretrained: str | None, checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    """The model with its weights, in float32 on the CPU, and its configuration."""
    import open_clip

    published = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    quick_gelu = published.get("quick_gelu", False)
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise EncoderError(f"open_clip knows no architecture {architecture!r}")
    with _NoInitialization():
        model = open_clip.create_model(
            architecture,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg={name: published[name] for name in _PREPROCESSING if name in published},
        )
    weights = [str(file) for file in checkpoint.weights]
    if len(weights) > 1:
        raise EncoderError(f"checkpoint {checkpoint.source.name!r} has more than one file of weights: {weights}")
    open_clip.load_checkpoint(model, weights[0], strict=True, weights_only=True)
    return model.eval(), config | ({"quick_gelu": True} if quick_gelu else {})


class _NoInitialization(TorchFunctionMode):
    """Leaves most new weights as they lie in memory, for a model whose weights are all loaded, strictly, afterwards.

    Those are the ones that torch.nn.init lets be overridden, among them all of linear layers and convolutions.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
