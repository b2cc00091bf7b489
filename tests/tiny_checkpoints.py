"""Writes small checkpoints with random weights in the real formats: open_clip, transformers, sentence-transformers."""

import json
from pathlib import Path

import torch


def write_open_clip(folder: Path, *, seed: int = 0, **sizes) -> Path:
    """An open_clip model: `open_clip_config.json` and `open_clip_model.safetensors`."""
    import open_clip
    from safetensors.torch import save_file

    model_config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    preprocessing = {
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    for name, value in sizes.items():
        (preprocessing if name in preprocessing else model_config)[name] = value
    torch.manual_seed(seed)
    model = open_clip.CLIP(**model_config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_config, "preprocess_cfg": preprocessing})
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder
