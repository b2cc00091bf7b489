"""Linear maps that put features of any encoder on one footing."""

from __future__ import annotations

import scipy.linalg
import torch
from torch import Tensor

# A share of the width below which features count as collapsed: most of their variance lies in few directions, which
# then hide all others from cosines and from dropout.
COLLAPSED = 0.1
SHRINKAGE = 0.1


def is_collapsed(vectors_NW: Tensor) -> bool:
    """Whether the participation ratio of the standardised covariance, sum(v)^2 / sum(v^2), is below `COLLAPSED`."""
    if len(vectors_NW) < 2:
        return False
    deviation_W, mean_W = torch.std_mean(vectors_NW.double(), dim=0, correction=0)
    standard_NW = (vectors_NW.double() - mean_W) / deviation_W.clamp(min=1e-12)
    covariance_WW = standard_NW.T @ standard_NW / len(vectors_NW)
    ratio = covariance_WW.trace() ** 2 / (covariance_WW**2).sum().clamp(min=1e-12)
    return bool(ratio < COLLAPSED * min(vectors_NW.shape[1], len(vectors_NW)))


def standardising(vectors_NW: Tensor) -> tuple[Tensor, Tensor]:
    """(mean `(W,)`, matrix `(W, W)`): each feature to unit deviation; features that never vary to zero."""
    deviation_W, mean_W = torch.std_mean(vectors_NW.double(), dim=0, correction=0)
    varies_W = deviation_W > 1e-6 * mean_W.abs().clamp(min=1e-6)
    return mean_W.float(), torch.where(varies_W, 1 / deviation_W.clamp(min=1e-12), 0.0).diag().float()


def whitening(vectors_NW: Tensor) -> tuple[Tensor, Tensor]:
    """(mean `(W,)`, matrix `(W, W)`): no correlation between features, each of unit deviation.

    The mean eigenvalue of the covariance, times `SHRINKAGE`, is added to each, so that directions that hardly vary stay
    small; features that never vary become zero.
    """
    mean_W = vectors_NW.double().mean(0)
    centred_NW = vectors_NW.double() - mean_W
    values_W, basis_WW = principal_axes(centred_NW.T @ centred_NW / len(vectors_NW))
    values_W = values_W.clamp(min=0)
    matrix_WW = basis_WW * (values_W + SHRINKAGE * values_W.mean()).clamp(min=1e-12).rsqrt() @ basis_WW.T
    deviation_W = (centred_NW @ matrix_WW).std(0, correction=0)
    varies_W = centred_NW.std(0, correction=0) > 1e-6 * mean_W.abs().clamp(min=1e-6)
    return mean_W.float(), (matrix_WW * torch.where(varies_W, 1 / deviation_W.clamp(min=1e-12), 0.0)).float()


def principal_axes(symmetric_WW: Tensor) -> tuple[Tensor, Tensor]:
    """(ascending eigenvalues `(W,)`, eigenvectors as columns `(W, W)`) of a symmetric matrix in double precision.

    By SciPy: where few items fill few of many dimensions, `torch.linalg.eigh` ends without a result on some processors.
    """
    values_W, axes_WW = scipy.linalg.eigh(symmetric_WW.cpu().numpy())
    return torch.from_numpy(values_W).to(symmetric_WW.device), torch.from_numpy(axes_WW).to(symmetric_WW.device)
