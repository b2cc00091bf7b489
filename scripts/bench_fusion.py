"""How fast tokens become item vectors, and what a step of training costs, for each fusion.

    python scripts/bench_fusion.py [--quick] [--out fusion.json]

Makes its own tokens (seeded): items with eight frames, six windows of sound and a text, a third of the items without
one of them. Beside ours stands the usual way, torch's own transformer layer over all tokens of an item and their mean.
Before timing, vectors are checked to be the same alone, in a batch, and with more padding. Contenders take turns in one
process; times are medians.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benching import median_ms, print_table, take_turns, write_report
from torch import Tensor, nn

from fusion.attention import FUSIONS
from fusion.base import Fusion
from fusion.objectives import full_softmax

WIDTHS = {"visual": 512, "audio": 768, "text": 384}
LENGTHS = {"visual": 8, "audio": 6, "text": 1}
DIM, HEADS, EXAMPLES = 64, 4, 1024
Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


class PlainTransformer(nn.Module):
    """Projections, one transformer encoder layer of torch's over all tokens, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, DIM) for name, width in WIDTHS.items()})
        self.layer = nn.TransformerEncoderLayer(DIM, HEADS, 2 * DIM, batch_first=True)

    def forward(self, tokens: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        tokens_BTD = torch.cat([self.projections[name](tokens[name]) for name in tokens], dim=1)
        mask_BT = torch.cat(list(masks.values()), dim=1)
        mixed_BTD = self.layer(tokens_BTD, src_key_padding_mask=~mask_BT) * mask_BT.unsqueeze(-1)
        return mixed_BTD.sum(1) / mask_BT.sum(1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer items and repeats: for CI")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    num_items, seconds = (500, 1.0) if arguments.quick else (10_000, 60.0)
    torch.manual_seed(0)
    batch = make_items(num_items)
    models: dict[str, Fusion | PlainTransformer] = {name: make_fusion(name, batch) for name in FUSIONS}
    for name, model in models.items():
        check(name, model, batch)
    models["torch's transformer layer"] = PlainTransformer()
    figures = []
    for title, make_run in (("item vectors", embed), ("step of training", train)):
        times = take_turns({name: make_run(model, batch) for name, model in models.items()}, seconds)
        slowest = median_ms(times["torch's transformer layer"])
        figures += [
            {
                "what": title,
                "fusion": name,
                "items": num_items,
                "median ms": median_ms(runs),
                "items/s": round(1e3 * num_items / median_ms(runs)),
                "times as fast as torch's layer": slowest / median_ms(runs),
                "runs": len(runs),
            }
            for name, runs in times.items()
        ]
    print_table(f"Fusions, width {DIM}, {torch.get_num_threads()} threads", figures)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")
    write_report(arguments.out, ["torch"], figures)


def make_items(num_items: int) -> Batch:
    tokens = {name: torch.randn(num_items, LENGTHS[name], width) for name, width in WIDTHS.items()}
    masks = {name: torch.ones(num_items, length, dtype=torch.bool) for name, length in LENGTHS.items()}
    for place, name in enumerate(WIDTHS):
        masks[name][place :: 3 * len(WIDTHS)] = False
    return tokens, masks


def make_fusion(name: str, batch: Batch) -> Fusion:
    fusion = FUSIONS[name](WIDTHS, dim=DIM, num_heads=HEADS)
    fusion.calibrate(*batch)
    return fusion


@torch.no_grad()
def check(name: str, fusion: Fusion, batch: Batch) -> None:
    """Vectors depend neither on the batch nor on padding."""
    tokens, masks = ({m: x[:16] for m, x in part.items()} for part in batch)
    together = fusion.eval()(tokens, masks).vectors_BD
    alone = torch.cat(
        [
            fusion({m: x[[k]] for m, x in tokens.items()}, {m: x[[k]] for m, x in masks.items()}).vectors_BD
            for k in range(16)
        ]
    )
    padded = fusion(
        {m: torch.cat([x, torch.full_like(x, 7.0)], dim=1) for m, x in tokens.items()},
        {m: torch.cat([x, torch.zeros_like(x)], dim=1) for m, x in masks.items()},
    ).vectors_BD
    for other in (alone, padded):
        cosine = (together * other).sum(1).min()
        assert cosine > 0.9999, f"{name}: vectors differ with their batch or padding, least cosine {cosine:.6f}"


def embed(model: Fusion | PlainTransformer, batch: Batch) -> Callable[[], Any]:
    def run() -> None:
        model.eval()
        with torch.no_grad():
            model(*batch)

    return run


def train(model: Fusion | PlainTransformer, batch: Batch) -> Callable[[], Any]:
    """One step of AdamW on the full softmax of a thousand examples, all items made anew."""
    optimizer = torch.optim.AdamW(model.parameters())
    targets_B = torch.randint(len(batch[0]["text"]), (EXAMPLES,))

    def run() -> None:
        model.train()
        out = model(*batch)
        vectors_ID = out if isinstance(out, Tensor) else out.pooled_BD
        loss = full_softmax(vectors_ID[targets_B.roll(1)], vectors_ID, targets_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
