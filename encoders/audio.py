"""Audio encoders: wav2vec2 and its family, CLAP.

Letters: N windows, S samples, T frames of a spectrogram or of a model, K bands, coefficients or bins, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from encoders.base import EncoderError, Modality, fingerprint
from encoders.batches import checked_windows, in_parts
from encoders.checkpoints import adapted, load_transformers, locate, reading, transformers_source
from encoders.cuda_graphs import CudaGraphs
from encoders.devices import resolve_device, resolve_precision
from encoders.inference import hasten, restore

if TYPE_CHECKING:
    import numpy as np


class Wav2Vec2:
    """wav2vec 2.0 and its family (HuBERT, WavLM, data2vec-audio) through transformers: the mean over time of layers.

    The windows of a batch have one length and are never padded: the group norm of these models would see the padding.

    Args:
        checkpoint: a folder or a hub repository.
        layers: "last", "mean" (of all transformer layers), or the numbers of the layers to take the mean of, where
            0 is what enters the first layer and -1 is the last.
        revision: of the hub repository.
        adapter: a folder or hub repository with a PEFT adapter, which is merged into the model.
        allow_pickle: read weights that exist only as a pickle.
    """

    REVISION = 1
    FAMILY = ("data2vec-audio", "hubert", "wav2vec2", "wavlm")

    source = staticmethod(transformers_source)

    modality: Modality = "audio"

    def __init__(
        self,
        *,
        checkpoint: str,
        layers: str | Sequence[int] = "last",
        revision: str | None = None,
        adapter: str | None = None,
        allow_pickle: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self._checkpoint = found = locate(transformers_source(checkpoint, revision, allow_pickle))
        self.name = f"wav2vec2 {found.label}"
        with reading(found):
            config = AutoConfig.from_pretrained(found.folder, trust_remote_code=False)
            if config.model_type not in self.FAMILY:
                known = ", ".join(self.FAMILY)
                raise EncoderError(
                    f"checkpoint {checkpoint!r} is a {config.model_type!r} model; this kind reads {known}"
                )
            self._layers = _layer_numbers(layers, config.num_hidden_layers)
            preprocessing = AutoFeatureExtractor.from_pretrained(found.folder, trust_remote_code=False)
            model = load_transformers(AutoModel, found, unused="masked_spec_embed")
        model, adapter_digest = adapted(model, adapter, allow_pickle=allow_pickle)
        self._model: Any = model.to(self._device, self._dtype)
        hasten(self._model)
        self._graphs = CudaGraphs()
        self._normalizes: bool = preprocessing.do_normalize
        self.sample_rate: int = preprocessing.sampling_rate
        self.dim: int = config.hidden_size
        self._min_samples = _receptive_field(config.conv_kernel, config.conv_stride)
        self.min_seconds = self._min_samples / self.sample_rate
        self.fingerprint = fingerprint(
            "wav2vec2",
            self.REVISION,
            checkpoint=found.digest,
            layers=self._layers,
            adapter=adapter_digest,
            precision=str(self._dtype),
        )

    def encode(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Embed windows `(N, S)`, all of one length, as `(N, dim)`."""
        windows_NS = checked_windows(self, windows_NS)
        return in_parts(self.forward, windows_NS, dim=self.dim, device=self._device, cpu_size=1, gpu_size=32)

    def forward(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """What `encode` gives, in one go and with gradients."""
        windows_NS = checked_windows(self, windows_NS).to(self._device, non_blocking=True)
        if windows_NS.shape[1] < self._min_samples:
            raise EncoderError(
                f"encoder {self.name!r} hears no less than {self._min_samples} samples, got {windows_NS.shape[1]}"
            )
        return self._graphs.run(self._window_vectors, windows_NS)

    def _window_vectors(self, windows_NS: torch.Tensor) -> torch.Tensor:
        if self._normalizes:  # as Wav2Vec2FeatureExtractor does, window by window
            variance_N1, mean_N1 = torch.var_mean(windows_NS, dim=1, correction=0, keepdim=True)
            windows_NS = (windows_NS - mean_N1) / torch.sqrt(variance_N1 + 1e-7)
        hidden_NTD = self._model(windows_NS.to(self._dtype), output_hidden_states=True).hidden_states
        return torch.stack([hidden_NTD[layer].float().mean(dim=1) for layer in self._layers]).mean(dim=0)

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
        self._model.save_pretrained(folder)


def _layer_numbers(layers: str | Sequence[int], num_layers: int) -> list[int]:
    if layers == "last":
        return [num_layers]
    if layers == "mean":
        return list(range(1, num_layers + 1))
    if isinstance(layers, str) or not layers or not set(layers) <= set(range(-num_layers - 1, num_layers + 1)):
        raise EncoderError(
            f"layers={layers!r}: expected 'last', 'mean' or a list of numbers from 0 to {num_layers} (-1 is the last)"
        )
    return [layer % (num_layers + 1) for layer in layers]


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many samples a stack of convolutions needs for one frame."""
    num_samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        num_samples = (num_samples - 1) * stride + kernel
    return num_samples


class Clap:
    """CLAP through transformers, and its text tower in the same space; unit norm.

    A window shorter than the model's (10 s) is repeated, as its feature extractor does; of a longer one the model hears
    the middle, where the feature extractor would choose a part at random.

    Args:
        checkpoint: a folder or a hub repository.
        revision: of the hub repository.
        adapter: a folder or hub repository with a PEFT adapter, which is merged into the model.
        allow_pickle: read weights that exist only as a pickle.
    """

    REVISION = 1

    source = staticmethod(transformers_source)

    modality: Modality = "audio"
    min_seconds = 0.1

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        adapter: str | None = None,
        allow_pickle: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self._checkpoint = found = locate(transformers_source(checkpoint, revision, allow_pickle))
        self.name = f"clap {found.label}"
        with reading(found):
            self._preprocessing = ClapFeatureExtractor.from_pretrained(found.folder)
            self._tokenizer = AutoTokenizer.from_pretrained(found.folder, trust_remote_code=False)
            model = load_transformers(ClapModel, found)
        model, adapter_digest = adapted(model, adapter, allow_pickle=allow_pickle)
        self._model: Any = model.to(self._device, self._dtype)
        hasten(self._model)
        self.dim: int = model.config.projection_dim
        self.sample_rate: int = self._preprocessing.sampling_rate
        text_config = model.config.text_config
        positions = text_config.max_position_embeddings - text_config.pad_token_id - 1  # as RoBERTa counts them
        self._context_length = min(self._tokenizer.model_max_length, positions)
        self.fingerprint = fingerprint(
            "clap", self.REVISION, checkpoint=found.digest, adapter=adapter_digest, precision=str(self._dtype)
        )

    def encode(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Embed windows `(N, S)`, all of one length, as unit vectors `(N, dim)`."""
        windows_NS = checked_windows(self, windows_NS)
        return in_parts(self.forward, windows_NS, dim=self.dim, device=self._device, gpu_size=32)

    def encode_text(self, texts: list[str], /) -> torch.Tensor:
        """Embed texts, in the space of the sounds, as unit vectors `(N, dim)`; longer than the context is cut."""
        return in_parts(self._text_vectors, texts, dim=self.dim, device=self._device)

    def forward(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """What `encode` gives, in one go and with gradients."""
        windows_NS = checked_windows(self, windows_NS).to(self._device, non_blocking=True)
        log_mel_N1TK = clap_log_mel(windows_NS, self._preprocessing)
        is_fused = self._preprocessing.truncation == "fusion"
        output = self._model.get_audio_features(
            log_mel_N1TK.expand(-1, 4 if is_fused else 1, -1, -1).to(self._dtype),
            is_longer=torch.zeros(len(windows_NS), 1, dtype=torch.bool, device=self._device),
        )
        return functional.normalize(output.pooler_output.float(), dim=-1)

    @property
    def network(self) -> torch.nn.Module:
        """The model, to be trained."""
        network: torch.nn.Module = self._model
        restore(network)
        return network

    def save_checkpoint(self, folder: Path) -> None:
        """Write the model as it is now to a folder that `checkpoint` can name."""
        self._checkpoint.copy_small_files(folder)
        self._model.save_pretrained(folder)

    def _text_vectors(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._context_length, return_tensors="pt"
        )
        output = self._model.get_text_features(**tokens.to(self._device))
        return functional.normalize(output.pooler_output.float(), dim=-1)


def clap_log_mel(windows_NS: torch.Tensor, preprocessing: Any) -> torch.Tensor:
    """What ClapFeatureExtractor makes of windows no longer than its own, for a whole batch at once: `(N, 1, T, K)`."""
    fused = preprocessing.truncation == "fusion"
    filters_FK = torch.from_numpy(preprocessing.mel_filters if fused else preprocessing.mel_filters_slaney).float()
    spectrum_NFT = torch.stft(
        _fitted(windows_NS, preprocessing.nb_max_samples, preprocessing.padding),
        preprocessing.fft_window_size,
        hop_length=preprocessing.hop_length,
        window=torch.hann_window(preprocessing.fft_window_size, device=windows_NS.device),
        pad_mode="reflect",
        return_complex=True,
    )
    power_NTF = spectrum_NFT.abs().square().transpose(1, 2)
    power_NTK: torch.Tensor = power_NTF @ filters_FK.to(windows_NS.device)
    return 10 * power_NTK.clamp(min=1e-10).log10()[:, None]


def _fitted(windows_NS: torch.Tensor, num_samples: int, padding: str) -> torch.Tensor:
    """The middle of longer windows; shorter ones as often as they fit ("repeat": and a part), and then silence."""
    surplus = windows_NS.shape[1] - num_samples
    if surplus >= 0:
        return windows_NS[:, surplus // 2 : surplus // 2 + num_samples]
    if padding.startswith("repeat"):
        times = num_samples // windows_NS.shape[1]
        windows_NS = windows_NS.repeat(1, times + (padding == "repeat"))[:, :num_samples]
    return functional.pad(windows_NS, (0, num_samples - windows_NS.shape[1]))
