"""Fusions: shapes, masks, invariances, and the errors a caller can cause."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fusion.attention import FUSIONS, CrossModalFusion
from fusion.base import Fusion
from fusion.projections import FusionError

WIDTHS = {"visual": 12, "audio": 7, "text": 5}
LENGTHS = {"visual": 4, "audio": 3, "text": 1}


def make_batch(
    batch_size: int = 6, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    tokens, masks, times = {}, {}, {}
    for modality, width in WIDTHS.items():
        tokens[modality] = torch.randn(batch_size, LENGTHS[modality], width, generator=generator)
        masks[modality] = torch.rand(batch_size, LENGTHS[modality], generator=generator) > 0.3
        masks[modality][:, 0] = True
        times[modality] = torch.rand(batch_size, LENGTHS[modality], generator=generator) * 60
    return tokens, masks, times


def make_fusion(kind: str, seed: int = 0, **options: float) -> Fusion:
    torch.manual_seed(seed)
    fusion = FUSIONS[kind](WIDTHS, dim=16, num_heads=2, **options)  # type: ignore[arg-type]
    for parameter in fusion.parameters():  # nothing stays at its zero start: every path is live
        torch.nn.init.normal_(parameter, std=0.3)
    return fusion.eval()


every_kind = pytest.mark.parametrize("kind", FUSIONS)


@every_kind
def test_vectors_are_unit_and_weights_sum_to_one(kind: str) -> None:
    fused = make_fusion(kind)(*make_batch())
    assert fused.vectors_BD.shape == (6, 16)
    assert torch.allclose(fused.vectors_BD.norm(dim=1), torch.ones(6), atol=1e-5)
    total_B = sum(fused.modality_weights.values())
    assert torch.allclose(torch.as_tensor(total_B), torch.ones(6), atol=1e-5)


@every_kind
def test_padding_and_neighbours_do_not_matter(kind: str) -> None:
    fusion = make_fusion(kind)
    tokens, masks, times = make_batch()
    expected_BD = fusion(tokens, masks, times).vectors_BD
    for modality in WIDTHS:
        tokens[modality] = torch.where(masks[modality].unsqueeze(-1), tokens[modality], torch.nan)
        tokens[modality] = F.pad(tokens[modality], (0, 0, 0, 3), value=torch.inf)
        masks[modality] = F.pad(masks[modality], (0, 3), value=False)
        times[modality] = F.pad(times[modality], (0, 3), value=torch.nan)
    padded_BD = fusion(tokens, masks, times).vectors_BD
    assert torch.allclose(padded_BD, expected_BD, atol=1e-5)
    for row in range(6):
        alone = [{m: x[m][[row]] for m in WIDTHS} for x in (tokens, masks, times)]
        assert torch.allclose(fusion(*alone).vectors_BD[0], expected_BD[row], atol=1e-5)


@every_kind
def test_token_order_does_not_matter_but_time_does(kind: str) -> None:
    fusion = make_fusion(kind)
    tokens, masks, times = make_batch()
    expected_BD = fusion(tokens, masks, times).vectors_BD
    shuffled = [{m: x[m].flip(1) for m in WIDTHS} for x in (tokens, masks, times)]
    assert torch.allclose(fusion(*shuffled).vectors_BD, expected_BD, atol=1e-5)
    later = {m: seconds_BT + 30 for m, seconds_BT in times.items()}
    assert not torch.allclose(fusion(tokens, masks, later).vectors_BD, expected_BD, atol=1e-3)


@every_kind
def test_absent_modality_equals_masked_modality(kind: str) -> None:
    fusion = make_fusion(kind)
    tokens, masks, _ = make_batch()
    masks["audio"] = torch.zeros_like(masks["audio"])
    masked = fusion(tokens, masks)
    left_out = fusion({m: tokens[m] for m in ("visual", "text")}, {m: masks[m] for m in ("visual", "text")})
    assert torch.allclose(masked.vectors_BD, left_out.vectors_BD, atol=1e-5)
    assert masked.modality_weights["audio"].abs().max() == 0
    assert masked.modality_vectors["audio"].abs().max() == 0


@every_kind
@pytest.mark.parametrize("kept", [["visual"], ["audio"], ["text"], ["visual", "text"]])
def test_any_subset_works_and_trains(kind: str, kept: list[str]) -> None:
    fusion = make_fusion(kind, modality_dropout=0.5).train()
    tokens, masks, times = make_batch()
    fused = fusion(*({m: x[m] for m in kept} for x in (tokens, masks, times)))
    fused.vectors_BD.sum().backward()
    gradients = [p.grad for p in fusion.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


def test_untrained_attention_is_the_mean() -> None:
    batch = make_batch()
    torch.manual_seed(0)
    attention = CrossModalFusion(WIDTHS, dim=16).eval()
    mean = FUSIONS["mean"](WIDTHS, dim=16).eval()
    mean.load_state_dict(attention.state_dict(), strict=False)
    assert torch.allclose(attention(*batch).vectors_BD, mean(*batch).vectors_BD, atol=1e-5)


def test_attention_looks_at_other_modalities_only() -> None:
    tokens, masks, times = make_batch()
    fused = make_fusion("attention")(tokens, masks, times, details=True)
    assert fused.attention_BTT is not None
    there_BT = torch.cat([masks[m] for m in fused.spans], dim=1)
    sums_BT = fused.attention_BTT.sum(-1)
    assert torch.allclose(sums_BT, there_BT.float(), atol=1e-5)
    visual = fused.attention_BTT[:, fused.spans["visual"], fused.spans["visual"]]
    assert (visual * ~torch.eye(4, dtype=torch.bool)).abs().max() == 0
    assert fused.attention_BTT[:, :, ~there_BT[0]][0].sum() == 0


def test_attention_matches_torch_multihead() -> None:
    fusion = make_fusion("attention")
    block = fusion.attention
    tokens_BTD = torch.randn(3, 5, 16)
    allowed_BTT = torch.rand(3, 5, 5) > 0.4
    allowed_BTT |= torch.eye(5, dtype=torch.bool)
    reference = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    reference.in_proj_weight.data.copy_(torch.cat([block.query_key.weight, torch.eye(16)]))
    reference.in_proj_bias.data.copy_(torch.cat([block.query_key.bias, torch.zeros(16)]))
    reference.out_proj.weight.data.copy_(block.gain_D.diag())
    reference.out_proj.bias.data.zero_()
    normed = block.norm(tokens_BTD)
    mixed, weights = reference(normed, normed, tokens_BTD, attn_mask=~allowed_BTT.repeat_interleave(2, dim=0))
    assert torch.allclose(block(tokens_BTD, allowed_BTT), tokens_BTD + mixed, atol=1e-5)
    assert torch.allclose(block.weights(tokens_BTD, allowed_BTT), weights, atol=1e-5)


def test_modality_dropout_leaves_every_item_something() -> None:
    fusion = make_fusion("mean", modality_dropout=0.5).train()
    tokens, masks, _ = make_batch(batch_size=200)
    masks["visual"][::2] = False
    masks["text"][::2] = False  # these items have sound alone, which must never be dropped
    weights = fusion(tokens, masks).modality_weights
    assert torch.allclose(torch.stack(list(weights.values())).sum(0), torch.ones(200), atol=1e-5)
    assert (weights["audio"][::2] == 1).all()
    assert (weights["visual"][1::2] == 0).float().mean() > 0.25


def test_calibration_standardises_and_survives_constant_features() -> None:
    fusion = CrossModalFusion({"visual": 3}, dim=8, num_heads=2)
    tokens = torch.randn(50, 2, 3) * torch.tensor([5.0, 0.1, 0.0]) + torch.tensor([100.0, -3.0, 7.0])
    masks = torch.ones(50, 2, dtype=torch.bool)
    masks[:, 1] = False
    fusion.calibrate({"visual": tokens}, {"visual": masks})
    projection = fusion.projections["visual"]
    standardised = (tokens[:, 0] - projection.centre_W) @ projection.matrix_WW
    assert torch.allclose(standardised.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(standardised.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)


def test_calibration_on_one_token_is_finite() -> None:
    fusion = CrossModalFusion({"visual": 3}, dim=8, num_heads=2)
    one = {"visual": torch.ones(1, 1, 3)}
    mask = {"visual": torch.ones(1, 1, dtype=torch.bool)}
    fusion.calibrate(one, mask)
    assert fusion(one, mask).vectors_BD.isfinite().all()


def test_saved_and_loaded_is_the_same() -> None:
    batch = make_batch()
    fusion = make_fusion("attention")
    fusion.calibrate(batch[0], batch[1])
    other = make_fusion("attention", seed=1)
    other.load_state_dict(fusion.state_dict())
    assert torch.equal(other(*batch).vectors_BD, fusion(*batch).vectors_BD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.update(visual=t["visual"][..., :5]), "expected"),
        (lambda t, m: t.update(visual=t["visual"][:3]), "disagree"),
        (lambda t, m: t.update(smell=t["visual"]), "unknown modalities"),
        (lambda t, m: m.pop("audio"), "needs tokens and a mask"),
        (lambda t, m: m.update(audio=m["audio"].float()), "torch.bool"),
        (lambda t, m: [m[k].__setitem__(2, False) for k in m], r"no token in any modality: rows \[2\]"),
        (lambda t, m: (t.clear(), m.clear()), "needs tokens"),
    ],
)
def test_bad_batches_are_refused(change, words) -> None:  # type: ignore[no-untyped-def]
    tokens, masks, _ = make_batch()
    change(tokens, masks)
    with pytest.raises(FusionError, match=words):
        make_fusion("attention")(tokens, masks)


@pytest.mark.parametrize(
    ("widths", "options"),
    [({}, {}), ({"visual": 0}, {}), (WIDTHS, {"dim": 10, "num_heads": 4}), (WIDTHS, {"modality_dropout": 1.0})],
)
def test_bad_options_are_refused(widths: dict[str, int], options: dict[str, float]) -> None:
    with pytest.raises(FusionError):
        CrossModalFusion(widths, **options)  # type: ignore[arg-type]
