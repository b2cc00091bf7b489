"""What can be read off a pair of frames without weights: colours, edges and motion.

Letters: N pairs, F frames of a pair, H, W pixels, C channels, G cells of a grid, P pixels of a cell, K bins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from encoders.base import FrameFit, Interpolation, Modality, fingerprint
from encoders.batches import checked_frames
from encoders.devices import resolve_device, resolve_precision

if TYPE_CHECKING:
    import numpy as np


class Descriptors:
    """Colour, edge and motion histograms of a pair of frames; needs no checkpoint.

    Every block is a histogram to which each pixel gives a mass of one, so that blank and still pictures are as well
    defined as any: a pixel without edge or movement falls in a bin of its own. Square roots of histograms (Hellinger)
    have unit norm, and the blocks are weighed so that the whole vector has unit norm too.

    - colour: soft CIELAB histogram of the whole frame, and a coarser one for each quarter
    - edges: orientations of the luminance gradient on a 4x4 grid (after Dalal and Triggs, 2005)
    - motion: direction and speed of the normal flow between the two frames, for each quarter
    """

    REVISION = 1

    name = "descriptors"
    modality: Modality = "visual"
    dim = 100 + 4 * 27 + 16 * 9 + 4 * 17
    frame_size = (128, 128)
    frame_fit: FrameFit = "squash"
    interpolation: Interpolation = "bilinear"
    frame_offsets: tuple[float, ...] = (0.0, 0.2)

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        self._device = resolve_device(device)
        resolve_precision(precision, self._device)
        self.fingerprint = fingerprint(
            self.name, self.REVISION, frame_size=self.frame_size, frame_offsets=self.frame_offsets
        )

    @torch.inference_mode()
    def encode(self, frames_NFHWC: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Describe pairs of frames `(N, 2, 128, 128, 3)`, uint8 RGB, as unit vectors `(N, dim)`."""
        frames_NFHWC = checked_frames(self, frames_NFHWC).to(self._device)
        if not len(frames_NFHWC):
            return torch.zeros(0, self.dim, device=self._device)
        # four at a time stay within the cache of a processor
        return torch.cat([_describe(chunk_NFHWC) for chunk_NFHWC in torch.split(frames_NFHWC, 4)])


def _describe(frames_NFHWC: torch.Tensor) -> torch.Tensor:
    frames_NFCHW = frames_NFHWC.permute(0, 1, 4, 2, 3).float() / 255
    luma_NFHW = torch.einsum("nfchw,c->nfhw", frames_NFCHW, _LUMA.to(frames_NFHWC.device))
    lab_NCHW = lab(functional.avg_pool2d(frames_NFCHW[:, 0], 2))
    blocks = [
        (0.25, _colours(lab_NCHW, grid=1, bins=(4, 5, 5))),
        (0.20, _colours(lab_NCHW, grid=2, bins=(3, 3, 3))),
        (0.30, _edges(luma_NFHW[:, 0], grid=4, directions=8)),
        (0.25, _motion(functional.avg_pool2d(luma_NFHW, 2), grid=2, directions=8)),
    ]
    return torch.cat([math.sqrt(weight) * histogram_NK.sqrt() for weight, histogram_NK in blocks], dim=1)


_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
_RGB_TO_XYZ = torch.tensor(  # sRGB, IEC 61966-2-1, relative to its white D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / torch.tensor([[0.95047], [1.0], [1.08883]])


def lab(rgb_NCHW: torch.Tensor) -> torch.Tensor:
    """CIELAB of sRGB in [0, 1]: lightness in [0, 100], a and b in about [-100, 100]."""
    linear_NCHW = torch.where(rgb_NCHW <= 0.04045, rgb_NCHW / 12.92, ((rgb_NCHW + 0.055) / 1.055) ** 2.4)
    xyz_NCHW = torch.einsum("dc,nchw->ndhw", _RGB_TO_XYZ.to(rgb_NCHW.device), linear_NCHW)
    f_NCHW = torch.where(xyz_NCHW > (6 / 29) ** 3, xyz_NCHW ** (1 / 3), xyz_NCHW * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f_NCHW.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _colours(lab_NCHW: torch.Tensor, *, grid: int, bins: tuple[int, int, int]) -> torch.Tensor:
    """Joint soft histograms of lightness, a and b in each cell; chroma is finer near grey, where most pixels are."""
    lightness, a, b = lab_NCHW.unbind(1)
    positions = [lightness / 100, _compressed_chroma(a), _compressed_chroma(b)]
    weights = [_soft_bins(_cells(position, grid), num_bins) for position, num_bins in zip(positions, bins, strict=True)]
    joint_NGKP = (weights[1][..., :, None, :] * weights[2][..., None, :, :]).flatten(-3, -2)
    histogram_NGJK = weights[0] @ joint_NGKP.transpose(-1, -2)
    return _shares(histogram_NGJK)


def _compressed_chroma(chroma: torch.Tensor) -> torch.Tensor:
    """Map [-100, 100] to [0, 1] with the slope greatest at 0."""
    return (torch.sign(chroma) * (chroma.abs() / 100).clamp(max=1).sqrt() + 1) / 2


def _edges(luma_NHW: torch.Tensor, *, grid: int, directions: int) -> torch.Tensor:
    """Orientations of edges in each cell, and the share of each cell that has none."""
    dy_NHW, dx_NHW = _gradient(luma_NHW)
    strength_NHW = torch.sqrt(dx_NHW**2 + dy_NHW**2)
    edge_NHW = strength_NHW / (strength_NHW + 0.05)
    turns_NHW = torch.atan2(dy_NHW, dx_NHW) / math.pi  # an edge and its negative have one orientation
    orientation_NGKP = _soft_turns(_cells(turns_NHW, grid), directions)
    edge_NGP = _cells(edge_NHW, grid)
    directed_NGK = (orientation_NGKP @ edge_NGP[..., None]).squeeze(-1)
    flat_NG1 = (1 - edge_NGP).sum(dim=-1, keepdim=True)
    return _shares(torch.cat([directed_NGK, flat_NG1], dim=-1))


def _motion(luma_NFHW: torch.Tensor, *, grid: int, directions: int) -> torch.Tensor:
    """Directions of the normal flow in each cell, slow and fast apart, and the share of each cell that is still.

    The normal flow is the movement along the gradient that explains the change of a pixel (Horn and Schunck, 1981).
    """
    before_NHW, after_NHW = luma_NFHW.unbind(1)
    dy_NHW, dx_NHW = _gradient(luma_NFHW.mean(dim=1))
    change_NHW = after_NHW - before_NHW
    strength_NHW = torch.sqrt(dx_NHW**2 + dy_NHW**2)
    speed_NHW = change_NHW.abs() / (strength_NHW + 0.02)  # pixels between the frames
    fast_NHW = speed_NHW / (speed_NHW + 2)
    moving_NHW = change_NHW.abs() / (change_NHW.abs() + 0.05)
    turns_NHW = torch.atan2(-dy_NHW * change_NHW.sign(), -dx_NHW * change_NHW.sign()) / (2 * math.pi)
    direction_NGKP = _soft_turns(_cells(turns_NHW, grid), directions)
    mass_NG2P = _cells(torch.stack([moving_NHW * (1 - fast_NHW), moving_NHW * fast_NHW], dim=1), grid).transpose(1, 2)
    directed_NGK = (mass_NG2P @ direction_NGKP.transpose(-1, -2)).flatten(-2)
    still_NG1 = _cells(1 - moving_NHW, grid).sum(dim=-1, keepdim=True)
    return _shares(torch.cat([directed_NGK, still_NG1], dim=-1))


def _gradient(image_NHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Central differences along y and x; the border repeats itself."""
    padded_NHW = functional.pad(image_NHW, (1, 1, 1, 1), mode="replicate")
    dy_NHW = (padded_NHW[:, 2:, 1:-1] - padded_NHW[:, :-2, 1:-1]) / 2
    dx_NHW = (padded_NHW[:, 1:-1, 2:] - padded_NHW[:, 1:-1, :-2]) / 2
    return dy_NHW, dx_NHW


def _cells(image: torch.Tensor, grid: int) -> torch.Tensor:
    """Cut `(..., H, W)` in grid x grid cells: `(..., G, P)`."""
    height, width = image.shape[-2] // grid, image.shape[-1] // grid
    cells = image.reshape(*image.shape[:-2], grid, height, grid, width).transpose(-3, -2)
    return cells.reshape(*image.shape[:-2], grid * grid, height * width)


def _soft_bins(position: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Share each value in [0, 1] between the two nearest of evenly spaced bins: `(..., P)` to `(..., K, P)`."""
    centres_K1 = torch.arange(num_bins, device=position.device)[:, None]
    distance = (position[..., None, :].clamp(0, 1) * (num_bins - 1) - centres_K1).abs_()
    return distance.neg_().add_(1).clamp_(min=0)


def _soft_turns(turns: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Share each angle, in turns, between the two nearest of evenly spaced directions: `(..., P)` to `(..., K, P)`."""
    centres_K1 = torch.arange(num_bins, device=turns.device)[:, None]
    distance = ((turns % 1)[..., None, :] * num_bins - centres_K1).abs_()
    # the larger of 1 - distance and distance - (num_bins - 1), around the circle
    return distance.sub_(num_bins / 2).abs_().sub_(num_bins / 2 - 1).clamp_(min=0)


def _shares(histogram: torch.Tensor) -> torch.Tensor:
    """Flatten all but the first dimension and let every row sum to one."""
    histogram_NK = histogram.flatten(1)
    return histogram_NK / histogram_NK.sum(dim=1, keepdim=True)
