"""A catalog of small clips, as phones and platforms write them, with titles and descriptions of made-up words."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np

UNIQUE_CLIPS = 50
SIZES = ((320, 240), (426, 240), (240, 426))
RATE, SAMPLE_RATE = 24, 16_000
WORDS = "a quiet song of the sea and two dogs that run in green parks while soft music plays".split()


def write_catalog(folder: Path, count: int) -> Path:
    """A manifest of clips of 4 to 8 seconds, every one under a path of its own; few of them differ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    unique = [write_clip(folder / f"unique{number}.mp4", number, rng) for number in range(min(UNIQUE_CLIPS, count))]
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "media", "title", "description"])
        for number in range(count):
            clip = folder / f"clip{number}.mp4"
            shutil.copyfile(unique[number % len(unique)], clip)
            rows.writerow([f"clip {number}", clip.name, sentence(rng, 6), sentence(rng, 30)])
    return folder / "catalog.csv"


def sentence(rng: np.random.Generator, length: int) -> str:
    return " ".join(rng.choice(WORDS, length))


def write_clip(path: Path, number: int, rng: np.random.Generator) -> Path:
    """Moving shapes over noise, with a melody: H.264 and AAC, as phones and platforms write them."""
    width, height = SIZES[number % len(SIZES)]
    seconds = int(rng.integers(4, 9))
    grain_HWC = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    y_HW, x_HW = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound: Any = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for at in range(seconds * RATE):
            wave_HW = np.sin((x_HW * (1 + number % 3) + y_HW + 3 * at) / 25)
            image_HWC = grain_HWC + (90 + 80 * wave_HW[..., None] * np.array([1.0, 0.5, -0.7])).astype(np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.roll(image_HWC, at, axis=1), format="rgb24")))
        container.mux(video.encode(None))
        time_S = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
        wave_S = 0.3 * np.sin(2 * np.pi * (200 + 50 * (np.floor(time_S * 4) % 5)) * time_S)
        wave_S += 0.02 * rng.standard_normal(len(time_S))
        frame = av.AudioFrame.from_ndarray(wave_S.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path
