"""What sounds like what: fingerprints of whole sounds, and one laid upon another, up to 5 % faster or slower.

After Haitsma and Kalker (ISMIR 2002): whether the level of a band rises against its neighbour's, compared in time.
Letters: S samples, T frames of a fingerprint, B bands, W ways to play a sound, L offsets, F frequencies of a transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.ndimage import uniform_filter1d

from mmrec.searching.alignment import LEAST_SHARE, Alignment

SAMPLE_RATE = 16_000
FRAMES_PER_SECOND = 20
LEAST_FRAMES = FRAMES_PER_SECOND
"""Of what two sounds must have in common: less is heard in others by chance."""
LEAST_PLACES = 250
"""Where both speak: the beginning and the end of any steady tone are some 200."""
HOP, FFT = SAMPLE_RATE // FRAMES_PER_SECOND, 2048
LOWEST_HZ, BANDS, BANDS_PER_OCTAVE = 200.0, 30, 6
RANGE_DECIBELS, STEPS_PER_DECIBEL = 60, 4
FRAMES_AT_ONCE = 4096
TREND_FRAMES = 21
SILENT_DECIBELS = 1.5
SPEED_STEP = 0.0125
SPEEDS = tuple(1 + SPEED_STEP * step for step in (-4, -3, -2, -1, 1, 2, 3, 4))
WAYS = ((1.0, False), *((speed, pitched) for speed in SPEEDS for pitched in (False, True)))
"""Speed, and whether the pitch went with it, as it does on a turntable."""
PIECE_FRAMES = 16 * FRAMES_PER_SECOND
CHUNK_FRAMES = 2048
HINT = 0.3

Levels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def fingerprint(samples_S: Floats) -> Levels:
    """The levels of `BANDS` bands, `FRAMES_PER_SECOND` times a second, in quarters of a decibel; 0 is 60 below the top.

    >>> import numpy as np
    >>> from mmrec.searching.acoustics import SAMPLE_RATE, fingerprint
    >>> tone_S = np.sin(np.arange(2 * SAMPLE_RATE) * 2 * np.pi * 400 / SAMPLE_RATE).astype(np.float32)
    >>> levels_TB = fingerprint(tone_S)
    >>> levels_TB.shape, int(levels_TB[20].argmax())
    ((41, 30), 6)
    """
    padded_S = np.pad(samples_S, FFT // 2)
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded_S, FFT)[::HOP]
    window_S = np.hanning(FFT).astype(np.float32)
    blocks = [
        (np.abs(rfft(frames_TS[begin : begin + FRAMES_AT_ONCE] * window_S, axis=1)) ** 2) @ _band_weights()
        for begin in range(0, len(frames_TS), FRAMES_AT_ONCE)
    ]
    decibels_TB = 10 * np.log10(np.concatenate(blocks) + 1e-8)
    above_TB = decibels_TB - decibels_TB.max() + RANGE_DECIBELS
    levels_TB: Levels = (above_TB.clip(0) * STEPS_PER_DECIBEL).round().astype(np.uint8)
    return levels_TB


@cache
def _band_weights() -> Floats:
    """Triangles that overlap, evenly spaced in octaves: (frequencies, bands)."""
    hertz_F = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    edges = LOWEST_HZ * 2 ** (np.arange(-1, BANDS + 1) / BANDS_PER_OCTAVE)
    rise_FB = (hertz_F[:, None] - edges[:-2]) / np.diff(edges[:-1])
    fall_FB = (edges[2:] - hertz_F[:, None]) / np.diff(edges[1:])
    weights_FB: Floats = np.minimum(rise_FB, fall_FB).clip(0).astype(np.float32)
    return weights_FB


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of the sound that is sought, from frame `begin` on, as it is if played in each way."""

    begin: int
    frames: int
    least_share: float
    played: list[Floats]
    lengths_W1: NDArray[np.int64]
    sums_WT: NDArray[np.float64]

    @property
    def longest(self) -> int:
        return int(self.lengths_W1.max())


class SoughtSound:
    """A sound that is to be found in others, prepared once.

    A short one is sought as a whole, of a longer one the busiest seconds of each half: of what it has in common with
    another, which is at least its first or its last half, one of them is a part.

    >>> import numpy as np
    >>> from mmrec.searching.acoustics import SAMPLE_RATE, SoughtSound, fingerprint
    >>> noise_S = np.random.default_rng(0).normal(size=8 * SAMPLE_RATE).astype(np.float32)
    >>> cut = SoughtSound(fingerprint(noise_S[3 * SAMPLE_RATE :]))
    >>> cut.within(fingerprint(noise_S), 0.5)
    Alignment(score=0.98..., offset=3.0, speed=1.0)
    """

    def __init__(self, levels_TB: Levels) -> None:
        self._levels_TB = levels_TB
        self._spectra: dict[tuple[int, int], NDArray[np.complex64]] = {}
        if len(levels_TB) <= 2 * PIECE_FRAMES:
            self._pieces = [_piece(levels_TB, 0, len(levels_TB), LEAST_SHARE)]
        else:
            busy = np.cumsum(np.abs(_signs(levels_TB)).sum(axis=1))
            half = len(levels_TB) // 2
            begins = (_busiest(busy, 0, half), _busiest(busy, half, len(levels_TB)))
            self._pieces = [_piece(levels_TB, begin, PIECE_FRAMES, 1.0) for begin in begins]

    def within(self, other_TB: Levels, least_score: float) -> Alignment | None:
        """How this sound lies upon another one; None where none of the ways to lay it agrees by `least_score`.

        Both last at least `LEAST_FRAMES`.

        1 is agreement in all bands at all times, 0 what chance gives.
        """
        signs_TB = _signs(other_TB)
        best: Alignment | None = None
        for place, piece in enumerate(self._pieces):
            score, offset, (speed, pitched) = self._hint(signs_TB, place)
            if score < HINT:
                continue
            middle = piece.begin + piece.frames / 2
            at = offset + speed * piece.frames / 2
            found = _refined(signs_TB, self._levels_TB, middle, at, speed, pitched, piece.frames)
            if found.score >= least_score and (best is None or found.score > best.score):
                best = found
        return best

    def _hint(self, signs_TB: Floats, place: int) -> tuple[float, int, tuple[float, bool]]:
        """The best score of a piece, at which frame of the other sound it begins, and the way it is played."""
        piece = self._pieces[place]
        longest = piece.longest
        size = 1 << (min(CHUNK_FRAMES, len(signs_TB) + 2 * longest) + longest - 1).bit_length()
        spectra_WFB = self._transformed(place, size)
        padded_TB = np.pad(signs_TB, ((longest, longest + size), (0, 0)))
        step, last = size - longest + 1, len(signs_TB) + longest
        chunks = [
            irfft(np.einsum("fb,wfb->wf", rfft(padded_TB[begin : begin + size], axis=0), spectra_WFB), size, axis=1)
            for begin in range(0, last, step)
        ]
        products_WL = np.concatenate([chunk_WL[:, :step] for chunk_WL in chunks], axis=1)[:, :last]
        offsets_L, theirs = np.arange(last) - longest, _sums(signs_TB)
        begins_WL = np.broadcast_to(offsets_L.clip(0), products_WL.shape)
        ends_WL = (offsets_L + piece.lengths_W1).clip(0, len(signs_TB))
        least_W1 = np.maximum(piece.least_share * piece.lengths_W1.clip(max=len(signs_TB)) - 1, LEAST_FRAMES)
        first_WL, last_WL = ((edges - offsets_L).clip(0, longest) for edges in (begins_WL, ends_WL))
        mine_WL = np.take_along_axis(piece.sums_WT, last_WL, 1) - np.take_along_axis(piece.sums_WT, first_WL, 1)
        scores_WL = _agreement(products_WL, (theirs[ends_WL] - theirs[begins_WL]) * mine_WL)
        scores_WL[ends_WL - begins_WL < least_W1] = 0.0
        way, lag = np.unravel_index(scores_WL.argmax(), scores_WL.shape)
        return float(scores_WL[way, lag]), int(offsets_L[lag]), WAYS[way]

    def _transformed(self, place: int, size: int) -> NDArray[np.complex64]:
        if (place, size) not in self._spectra:
            spectra = [np.conj(rfft(played_TB, size, axis=0)) for played_TB in self._pieces[place].played]
            self._spectra[place, size] = np.stack(spectra)
        return self._spectra[place, size]


def _piece(levels_TB: Levels, begin: int, frames: int, least_share: float) -> _Piece:
    played = [_signs(_played(levels_TB[begin : begin + frames], *way)) for way in WAYS]
    lengths = [len(played_TB) for played_TB in played]
    sums = [np.pad(_sums(played_TB), (0, max(lengths) - len(played_TB)), mode="edge") for played_TB in played]
    return _Piece(begin, frames, least_share, played, np.array(lengths)[:, None], np.stack(sums))


def _busiest(busy_T: Floats, begin: int, end: int) -> int:
    return begin + int((busy_T[begin + PIECE_FRAMES : end] - busy_T[begin : end - PIECE_FRAMES]).argmax())


def _signs(levels_TB: Levels | Floats) -> Floats:
    """1 where a band is louder against the next but one than it is around that time, -1 where it is less loud, or 0."""
    levels_TB = levels_TB.astype(np.float32)
    slopes_TB = levels_TB[:, 2:] - levels_TB[:, :-2]
    slopes_TB -= uniform_filter1d(slopes_TB, TREND_FRAMES, axis=0, mode="nearest")
    signs_TB: Floats = np.sign(slopes_TB) * (np.abs(slopes_TB) > SILENT_DECIBELS * STEPS_PER_DECIBEL)
    return signs_TB


def _played(levels_TB: Levels, speed: float, pitched: bool) -> Floats:
    """A sound of which each second is made to last `speed` seconds."""
    frames = max(1, round(len(levels_TB) * speed))
    return _read(levels_TB, (np.arange(frames) / speed), speed if pitched else 1.0)


def _read(levels_TB: Levels, times_T: NDArray[np.floating], pitch: float) -> Floats:
    """The levels at times between frames, of bands that are `pitch` times as high."""
    before_T = times_T.astype(int).clip(0, len(levels_TB) - 1)
    after_T, share_T1 = (before_T + 1).clip(max=len(levels_TB) - 1), (times_T - before_T).astype(np.float32)[:, None]
    read_TB: Floats = levels_TB[before_T] * (1 - share_T1) + levels_TB[after_T] * share_T1
    if pitch == 1.0:
        return read_TB
    bands_B = (np.arange(BANDS) + BANDS_PER_OCTAVE * np.log2(pitch)).clip(0, BANDS - 1)
    below_B = bands_B.astype(int)
    above_B, share_B = (below_B + 1).clip(max=BANDS - 1), (bands_B - below_B).astype(np.float32)
    shifted_TB: Floats = read_TB[:, below_B] * (1 - share_B) + read_TB[:, above_B] * share_B
    return shifted_TB


def _sums(signs_TB: Floats) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.abs(signs_TB).sum(axis=1, dtype=np.float64))])


def _agreement(products: NDArray[np.floating], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of signs over what they would be if all were alike; 0 where too little is heard to tell."""
    alike = np.sqrt(np.maximum(numbers, 1.0))
    scores: NDArray[np.float64] = np.where(alike >= LEAST_PLACES, products / alike, 0.0)
    return scores


def _refined(
    signs_TB: Floats, levels_TB: Levels, middle: float, at: float, speed: float, pitched: bool, frames: int
) -> Alignment:
    """The best speed, first around the frame `middle`, which is frame `at` of the other sound, then ever further."""
    step = SPEED_STEP / 2 if speed != 1.0 else 0.0
    while True:
        speeds = [speed + step * share for share in np.linspace(-1, 1, 9).tolist()] if step else [speed]
        tried = [(_along(signs_TB, levels_TB, middle, at, one, pitched, frames / 2), -abs(one - 1)) for one in speeds]
        best = max(range(len(speeds)), key=lambda place: tried[place])
        speed = speeds[best]
        if frames >= 2 * len(levels_TB):
            offset = (at - speed * middle) / FRAMES_PER_SECOND
            return Alignment(tried[best][0], offset, speed)
        frames, step = 4 * frames, step / 4


def _along(
    signs_TB: Floats, levels_TB: Levels, middle: float, at: float, speed: float, pitched: bool, reach: float
) -> float:
    """How two sounds agree from `reach` frames before the middle to as many after it."""
    first = max(0.0, at - speed * min(middle, reach))
    last = min(float(len(signs_TB)), at + speed * min(len(levels_TB) - middle, reach))
    frames_T = np.arange(int(np.ceil(first)), int(last))
    shorter = min(len(signs_TB), speed * len(levels_TB))
    if len(frames_T) < LEAST_FRAMES:
        return 0.0
    if reach >= len(levels_TB) and len(frames_T) < LEAST_SHARE * shorter - 1:
        return 0.0
    times_T = (middle + (frames_T - at) / speed).astype(np.float64)
    mine_TB = _signs(_read(levels_TB, times_T, speed if pitched else 1.0))
    theirs_TB = signs_TB[frames_T]
    numbers = np.abs(mine_TB).sum(dtype=np.float64) * np.abs(theirs_TB).sum(dtype=np.float64)
    return float(_agreement(np.array((mine_TB * theirs_TB).sum()), numbers))
