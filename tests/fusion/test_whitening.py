"""Standardising and whitening."""

from __future__ import annotations

import torch

from fusion.whitening import is_collapsed, principal_axes, standardising, whitening


def make_features(strength: float, num: int = 2000, width: int = 40) -> torch.Tensor:
    """One direction of the given strength, shared by all features, plus independent noise."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(num, 1, generator=generator) * strength
    return shared + torch.randn(num, width, generator=generator) + 5


def test_collapse_is_told_from_spread() -> None:
    assert is_collapsed(make_features(3.0))
    assert not is_collapsed(make_features(0.3))
    assert not is_collapsed(make_features(3.0)[:1])


def test_whitening_removes_correlation() -> None:
    features = make_features(3.0)
    mean, matrix = whitening(features)
    covariance = torch.cov(((features - mean) @ matrix).T)
    assert torch.allclose(covariance.diag(), torch.ones(40), atol=0.01)
    assert (covariance - covariance.diag().diag()).abs().max() < 0.15
    assert torch.corrcoef(features.T).abs().min() > 0.8


def test_features_that_never_vary_become_zero() -> None:
    features = make_features(1.0)
    features[:, 3] = 100.0
    for mean, matrix in (whitening(features), standardising(features)):
        changed = (features - mean) @ matrix
        assert changed[:, 3].abs().max() < 1e-3
        assert changed.isfinite().all()
        assert torch.allclose(changed[:, 4:].std(0, correction=0), torch.ones(36), atol=1e-3)


def test_few_items_of_nearly_the_same_words_have_principal_axes() -> None:
    """Of matrices such as this one, some processors' `torch.linalg.eigh` finds none."""
    buckets = torch.randperm(1024, generator=torch.Generator().manual_seed(0))[:48]
    words_NW = torch.zeros(12, 1024)
    words_NW[:, buckets[:33]], words_NW[:, buckets[46:]] = 1.0, -1.0
    words_NW[torch.arange(12), buckets[33:45]] = 1.0
    words_NW = torch.nn.functional.normalize(words_NW).double()
    square_WW = words_NW.T @ words_NW
    values_W, axes_WW = principal_axes(square_WW)
    torch.testing.assert_close(axes_WW * values_W @ axes_WW.T, square_WW)
    torch.testing.assert_close(axes_WW.T @ axes_WW, torch.eye(1024, dtype=torch.float64))
    assert int((values_W > 1e-9).sum()) == 12
