"""How the sample catalog looks: each function draws the frames of one kind, `(F, H, W, 3)` uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Frames = NDArray[np.uint8]
Canvas = NDArray[np.floating[Any]]

WIDTH, HEIGHT, FRAME_RATE = 160, 120, 12


def night(rng: Generator, num_frames: int) -> Frames:
    """A dark sky that slowly changes its colour, with twinkling stars."""
    t, y, _ = _grid(num_frames)
    glow = 0.5 + 0.35 * np.sin(2 * np.pi * (0.35 * y + rng.uniform(0.05, 0.1) * t + rng.uniform()))
    frames = _blend(glow, rng.uniform([5, 5, 20], [20, 20, 50]), rng.uniform([50, 20, 90], [90, 60, 150]))
    rows, columns = rng.integers(HEIGHT, size=30), rng.integers(WIDTH, size=30)
    twinkle = 0.6 + 0.4 * np.sin(2 * np.pi * (t.reshape(-1, 1) * 0.7 + rng.uniform(size=30)))
    frames[:, rows, columns] = 255 * twinkle[..., None]
    return _pixels(frames)


def stripes(rng: Generator, num_frames: int) -> Frames:
    """Hard, slanted stripes that run across the picture."""
    t, y, x = _grid(num_frames)
    angle = rng.uniform(0, np.pi)
    phase = rng.uniform(4, 7) * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(1.0, 2.0) * t
    return _pixels(
        _blend((np.sin(2 * np.pi * phase) > 0).astype(np.float32), rng.uniform(0, 90, 3), rng.uniform(150, 255, 3))
    )


def balls(rng: Generator, num_frames: int) -> Frames:
    """Balls that bounce on a plain court."""
    t, y, x = _grid(num_frames)
    frames = np.broadcast_to(rng.uniform([150, 110, 60], [210, 160, 110]), (num_frames, HEIGHT, WIDTH, 3)).copy()
    for _ in range(rng.integers(2, 5)):
        radius, start, speed = rng.uniform(0.07, 0.13), rng.uniform(0, 2), rng.uniform(0.3, 0.8)
        center_x = np.abs((start + speed * t) % 2 - 1) * 4 / 3
        center_y = 1 - radius - 0.75 * np.abs(np.sin(np.pi * (rng.uniform(0.8, 1.2) * t + rng.uniform())))
        frames[(x - center_x) ** 2 + (y - center_y) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return _pixels(frames)


def tunnel(rng: Generator, num_frames: int) -> Frames:
    """A flight through a chequered tunnel: an endless zoom."""
    t, y, x = _grid(num_frames)
    offset_x, offset_y = x - 2 / 3, y - 0.5
    depth = np.log(np.hypot(offset_x, offset_y) + 0.02) * 2.5 - rng.uniform(1, 2) * t
    around = np.arctan2(offset_y, offset_x) * rng.integers(3, 6) / np.pi
    chequers = (np.floor(depth) + np.floor(around)) % 2
    return _pixels(_blend(chequers, rng.uniform(0, 40, 3), rng.uniform(90, 200, 3)))


def waves(rng: Generator, num_frames: int) -> Frames:
    """Rolling blue waves under a pale sky."""
    t, y, x = _grid(num_frames)
    sky = np.broadcast_to(y, (num_frames, HEIGHT, WIDTH))
    frames = _blend(sky, rng.uniform([170, 200, 220], [220, 230, 250]), [230, 230, 235])
    for level in range(4):
        crest = np.sin(2 * np.pi * (rng.uniform(0.7, 1.6) * x + rng.uniform(-0.4, 0.4) * t + rng.uniform()))
        water = y > 0.35 + 0.15 * level + 0.04 * crest
        frames[water] = np.array([20, 70, 120]) + level * np.array([0, 20, 30]) + rng.uniform(0, 20, 3)
    return _pixels(frames)


def rain(rng: Generator, num_frames: int) -> Frames:
    """Grey noise that falls in short streaks."""
    streaks = np.repeat(rng.random((HEIGHT // 6, WIDTH), dtype=np.float32), 6, axis=0) ** 3
    speed = int(rng.integers(8, 15))
    falling = np.stack([np.roll(streaks, speed * frame, axis=0) for frame in range(num_frames)])
    flicker = 0.25 * rng.random(falling.shape, dtype=np.float32)
    return _pixels(_blend(falling * 0.75 + flicker, rng.uniform(20, 60, 3), rng.uniform([150] * 3, [180, 190, 210])))


def leaves(rng: Generator, num_frames: int) -> Frames:
    """Green patches that sway, with light between them."""
    t, y, x = _grid(num_frames)
    canopy = np.zeros((num_frames, HEIGHT, WIDTH), np.float32)
    for _ in range(7):
        across, down = rng.normal(0, 4), rng.normal(0, 4)
        sway = rng.uniform(0.02, 0.08) * np.sin(2 * np.pi * (rng.uniform(0.2, 0.5) * t + rng.uniform()))
        canopy += np.sin(2 * np.pi * (across * (x + sway) + down * y + rng.uniform()))
    light = 1 / (1 + np.exp(-2 * canopy))
    return _pixels(_blend(light, rng.uniform([10, 50, 10], [40, 80, 30]), rng.uniform([90, 150, 40], [190, 220, 120])))


def _grid(num_frames: int) -> tuple[Canvas, Canvas, Canvas]:
    """Time in seconds (F, 1, 1), height (1, H, 1) and width (1, 1, W) in units of the picture's height."""
    t = np.arange(num_frames, dtype=np.float32).reshape(-1, 1, 1) / FRAME_RATE
    y = np.arange(HEIGHT, dtype=np.float32).reshape(1, -1, 1) / HEIGHT
    x = np.arange(WIDTH, dtype=np.float32).reshape(1, 1, -1) / HEIGHT
    return t, y, x


def _blend(share: Canvas, low: ArrayLike, high: ArrayLike) -> Canvas:
    """Colours (F, H, W, 3) between `low` and `high` (3,)."""
    low_C, high_C = np.asarray(low, np.float32), np.asarray(high, np.float32)
    share_FHW = np.broadcast_to(share, (len(share), HEIGHT, WIDTH))
    return np.asarray(low_C + share_FHW[..., None] * (high_C - low_C))


def _pixels(frames: Canvas) -> Frames:
    return np.clip(frames, 0, 255).astype(np.uint8)
