"""Times mmrec's encoders against the plain float32 models of the libraries that own them, in one process.

    python scripts/bench_encode.py [--quick] [--out FILE]

Full-size models with random weights: CLIP ViT-B/32 (open_clip), wav2vec2-base (transformers), MiniLM
(sentence-transformers). Before anything is timed, the vectors must agree. The rounds take turns; figures are medians,
and a ratio is the median of the rounds' own ratios, which a busy machine disturbs least.

For CLIP it also prints the share of the device's matrix rate: the operations a second of its image tower over those of
one large matrix product in the same type. Operations are those of open_clip's tower but for the products inside its
attention, 1 % of them; mmrec saves 6 % by computing of the last block what the vector needs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benching import describe_machine
from make_random_checkpoint import write_clip, write_minilm, write_wav2vec2
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from encoders.base import load_encoder
from encoders.devices import computes_bfloat16, resolve_device, resolve_precision

PACKAGES = ("torch", "open_clip_torch", "transformers", "sentence-transformers", "numpy")

COSINE_BAR = 0.999
RATIO_BAR = 3.0  # for the visual encoder, on a processor with bfloat16
SHARE_BAR = 0.5  # of the matrix rate, for the visual encoder on CUDA
MORE = {"cpu": 1, "mps": 4, "cuda": 16}  # inputs, so that a round takes a while
Run = Callable[[], torch.Tensor]


@dataclass
class Contest:
    """Two ways to the same vectors: mmrec's and that of the library alone."""

    name: str
    unit: str
    count: int
    ours: Run
    plain: Run
    bar: float | None = None


@dataclass
class Result:
    name: str
    unit: str
    ours_per_second: float
    plain_per_second: float
    ratio: float
    ratio_bar: float | None
    cosine: float
    cosine_bar: float = COSINE_BAR

    @property
    def is_met(self) -> bool:
        return self.cosine >= self.cosine_bar and (self.ratio_bar is None or self.ratio >= self.ratio_bar)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few inputs and two rounds: whether it runs, not how fast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    rounds = 2 if arguments.quick else arguments.rounds
    results: list[Result] = []
    print_heading()
    with tempfile.TemporaryDirectory() as folder:
        for contest in contests(Path(folder), device, arguments.quick):
            results.append(race(contest, rounds))
            print_row(results[-1])
        share = share_of_matrix_rate(Path(folder) / "clip", device, rounds, arguments.quick)
        print_share(share)
    if arguments.out:
        machine = describe_machine(PACKAGES, bfloat16=computes_bfloat16(device), device=str(device))
        report = {"machine": machine, "rounds": rounds, "results": [asdict(result) for result in results]}
        report["share_of_matrix_rate"] = asdict(share)
        arguments.out.write_text(json.dumps(report, indent=2))
    agree = all(result.cosine >= COSINE_BAR for result in results)
    return 0 if agree else 1


def race(contest: Contest, rounds: int) -> Result:
    ours, plain = contest.ours(), contest.plain()  # and a warm-up
    cosine = functional.cosine_similarity(ours.float().cpu(), plain.float().cpu()).min().item()
    seconds = [(timed(contest.ours), timed(contest.plain)) for _ in range(rounds)]
    return Result(
        contest.name,
        contest.unit,
        ours_per_second=contest.count / statistics.median(own for own, _ in seconds),
        plain_per_second=contest.count / statistics.median(other for _, other in seconds),
        ratio=statistics.median(other / own for own, other in seconds),
        ratio_bar=contest.bar,
        cosine=cosine,
    )


def timed(run: Run) -> float:
    start = time.perf_counter()
    run().float().cpu()
    return time.perf_counter() - start


def contests(folder: Path, device: torch.device, quick: bool) -> Iterator[Contest]:
    yield clip(folder / "clip", device, quick)
    yield wav2vec2(folder / "wav2vec2", device, quick)
    yield minilm(folder / "minilm", device, quick)


def prepared(folder: Path, write: Callable[[Path], Any]) -> str:
    torch.manual_seed(0)
    folder.mkdir()
    write(folder)
    return str(folder)


def clip(folder: Path, device: torch.device, quick: bool) -> Contest:
    """Frames are preprocessed beforehand for open_clip; mmrec takes them as bytes."""
    import open_clip

    checkpoint = prepared(folder, write_clip)
    encoder: Any = load_encoder("open-clip", checkpoint=checkpoint, device=str(device))
    model = open_clip.create_model(f"local-dir:{checkpoint}").eval().to(device)
    count = 4 if quick else 64 * MORE[device.type]
    frames_NFHWC = np.random.default_rng(0).integers(0, 256, (count, 1, 224, 224, 3), dtype=np.uint8)
    mean_C, std_C = (torch.tensor(model.visual.preprocess_cfg[name]) for name in ("mean", "std"))
    pixels_NCHW = ((torch.from_numpy(frames_NFHWC[:, 0]) / 255 - mean_C) / std_C).permute(0, 3, 1, 2).contiguous()
    pixels_NCHW = pixels_NCHW.to(device)

    def plain(size: int) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model.encode_image(part) for part in pixels_NCHW.split(size)])

    size = fastest_size(plain, (16, min(count, 256)))
    bar = RATIO_BAR if device.type == "cpu" and computes_bfloat16(device) and not quick else None
    ours = lambda: encoder.encode(frames_NFHWC)  # noqa: E731
    return Contest(f"CLIP ViT-B/32 (open_clip, batches of {size})", "frames", count, ours, lambda: plain(size), bar)


def fastest_size(run: Callable[[int], torch.Tensor], sizes: tuple[int, ...]) -> int:
    """The batch size that suits the plain model best."""
    for size in sizes:
        run(size)
    return min(sizes, key=lambda size: timed(lambda: run(size)))


def wav2vec2(folder: Path, device: torch.device, quick: bool) -> Contest:
    from transformers import Wav2Vec2Model

    checkpoint = prepared(folder, write_wav2vec2)
    encoder: Any = load_encoder("wav2vec2", checkpoint=checkpoint, layers="mean", device=str(device))
    model: Any = Wav2Vec2Model.from_pretrained(checkpoint).eval().to(device)  # type: ignore[arg-type]
    count = 2 if quick else 8 * MORE[device.type]
    windows_NS = np.random.default_rng(0).normal(size=(count, 16_000 if quick else 80_000)).astype(np.float32)
    normed_NS = (windows_NS - windows_NS.mean(1, keepdims=True)) / np.sqrt(windows_NS.var(1, keepdims=True) + 1e-7)
    inputs_NS = torch.from_numpy(normed_NS).to(device)

    def plain(size: int) -> torch.Tensor:
        with torch.inference_mode():
            layers = [model(part, output_hidden_states=True).hidden_states[1:] for part in inputs_NS.split(size)]
            return torch.cat([torch.stack([excluded.mean(dim=1) for excluded in part]).mean(dim=0) for part in layers])

    size = fastest_size(plain, (1, min(count, 32)))
    ours = lambda: encoder.encode(windows_NS)  # noqa: E731
    return Contest(
        f"wav2vec2-base (transformers, batches of {size})", "windows of 5 s", count, ours, lambda: plain(size)
    )


def minilm(folder: Path, device: torch.device, quick: bool) -> Contest:
    from sentence_transformers import SentenceTransformer

    checkpoint = prepared(folder, write_minilm)
    encoder: Any = load_encoder("sentence-transformer", checkpoint=checkpoint, device=str(device))
    model = SentenceTransformer(checkpoint, device=str(device))
    rng = np.random.default_rng(0)
    words = "a quiet song of the sea and dogs that run in green parks while music plays".split()
    texts = [" ".join(rng.choice(words, rng.integers(5, 80))) for _ in range(8 if quick else 256 * MORE[device.type])]

    def plain() -> torch.Tensor:
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False)

    return Contest("MiniLM (sentence-transformers)", "texts", len(texts), lambda: encoder.encode(texts), plain)


@dataclass
class Share:
    """What an encoder and a large matrix product compute, in TFLOP/s, and the one's share of the other."""

    dtype: str
    encoder: float
    product: float
    share: float
    bar: float | None


def share_of_matrix_rate(checkpoint: Path, device: torch.device, rounds: int, quick: bool) -> Share:
    """Frames and factors lie on the device: nothing is copied to it."""
    encoder: Any = load_encoder("open-clip", checkpoint=str(checkpoint), device=str(device))
    dtype = resolve_precision("auto", device)
    on_cuda = device.type == "cuda"
    count, size = (4, 512) if quick else (4096, 8192) if on_cuda else (64, 2048)
    frames_NFHWC = torch.randint(256, (count, 1, 224, 224, 3), dtype=torch.uint8, device=device)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def encode() -> torch.Tensor:
        return encoder.encode(frames_NFHWC)

    def multiply() -> torch.Tensor:
        for _ in range(10):
            product = left @ right
        return product[:1]

    for _ in range(3):  # a graph is recorded when a shape comes the third time
        encode(), multiply()
    seconds = [(timed(encode), timed(multiply)) for _ in range(rounds)]
    encoder_rate = count * operations_of_a_frame() / statistics.median(own for own, _ in seconds) / 1e12
    product_rate = 10 * 2 * size**3 / statistics.median(other for _, other in seconds) / 1e12
    bar = SHARE_BAR if on_cuda and not quick else None
    return Share(str(dtype), encoder_rate, product_rate, encoder_rate / product_rate, bar)


def operations_of_a_frame() -> int:
    """Multiplications and additions of CLIP ViT-B/32's image tower."""
    import open_clip

    model = open_clip.create_model("ViT-B-32")
    with FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, 224, 224))
    return int(counter.get_total_flops())


def print_share(share: Share) -> None:
    bar = "" if share.bar is None else f", bar {share.bar}: {'met' if share.share >= share.bar else 'NOT MET'}"
    print(f"CLIP ViT-B/32 alone: {share.encoder:.3f} of {share.product:.3f} TFLOP/s", end="")
    print(f" of a matrix product ({share.dtype}): {share.share:.2f}{bar}")


def print_heading() -> None:
    print(f"{'encoder':48}{'mmrec /s':>10}{'plain /s':>10}{'ratio':>7}{'bar':>6}{'cosine':>9}{'bar':>7}")


def print_row(result: Result) -> None:
    bar = "" if result.ratio_bar is None else f"{result.ratio_bar:.1f}"
    print(
        f"{result.name:48}{result.ours_per_second:10.1f}{result.plain_per_second:10.1f}{result.ratio:7.2f}{bar:>6}"
        f"{result.cosine:9.5f}{result.cosine_bar:7}  {'met' if result.is_met else 'NOT MET'} ({result.unit})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
