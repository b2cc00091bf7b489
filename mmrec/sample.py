"""A catalog made by code, to try everything on without a download: short clips of ten kinds, users with tastes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.video.stream import VideoStream
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Frames = NDArray[np.uint8]
Canvas = NDArray[np.floating[Any]]
Sound = NDArray[np.floating[Any]]

WIDTH, HEIGHT, FRAME_RATE = 160, 120, 12
SAMPLE_RATE = 24_000
NUM_USERS = 200
NUM_DAYS = 90
FIRST_DAY = 1_735_689_600  # 2025-01-01, seconds since 1970
TASTE_FACTOR = 40.0  # how much more often users choose an item of a kind they like


def make_sample_catalog(folder: Path, *, seed: int = 0) -> Path:
    """Write a sample catalog of 61 items and 200 simulated users into `folder`; return the path of its `catalog.csv`.

    - `catalog.csv`: `item_id, media, title, description, tags, language, kind`. Ten kinds, in English (`en`) and
      Chinese (`zh`). Kinds share looks and sounds and some titles say nothing, so no modality tells all kinds apart.
      `kind` is for judging results.
    - `media/`: clips of 3 to 6 seconds: video with sound, silent video, sound only, two still images and one
      damaged file. Some items have text only.
    - `interactions.csv`: `user_id, item_id, timestamp, weight`, in order of time. Each user likes one or two kinds and
      watched 4 to 20 items, the last one not in this file. Timestamps are seconds, weights watch shares in (0, 1].
    - `interactions_validation.csv`: the last interaction of each user.

    The same seed writes the same bytes. Files that already have the right content are left untouched.
    """
    folder = Path(folder)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    entries = _entries()
    for number, entry in enumerate(entries):
        if entry.media is not None:
            rng = np.random.default_rng([seed, number])
            _write_if_changed(folder / entry.media, _make_media(entry, rng))
    train, held_out = _simulate_users(entries, np.random.default_rng([seed, len(entries)]))
    header = ["user_id", "item_id", "timestamp", "weight"]
    _write_csv(folder / "interactions.csv", header, train)
    _write_csv(folder / "interactions_validation.csv", header, held_out)
    manifest = folder / "catalog.csv"
    _write_csv(
        manifest,
        ["item_id", "media", "title", "description", "tags", "language", "kind"],
        ([e.item_id, e.media or "", e.title, e.description, e.tags, e.language, e.kind.name] for e in entries),
    )
    return manifest


# --- looks: (rng, number of frames) -> uint8 (F, H, W, 3) ---


def _night(rng: Generator, num_frames: int) -> Frames:
    """A dark sky that slowly changes its colour, with twinkling stars."""
    t, y, _ = _grid(num_frames)
    glow = 0.5 + 0.35 * np.sin(2 * np.pi * (0.35 * y + rng.uniform(0.05, 0.1) * t + rng.uniform()))
    frames = _blend(glow, rng.uniform([5, 5, 20], [20, 20, 50]), rng.uniform([50, 20, 90], [90, 60, 150]))
    rows, columns = rng.integers(HEIGHT, size=30), rng.integers(WIDTH, size=30)
    twinkle = 0.6 + 0.4 * np.sin(2 * np.pi * (t.reshape(-1, 1) * 0.7 + rng.uniform(size=30)))
    frames[:, rows, columns] = 255 * twinkle[..., None]
    return _pixels(frames)


def _stripes(rng: Generator, num_frames: int) -> Frames:
    """Hard, slanted stripes that run across the picture."""
    t, y, x = _grid(num_frames)
    angle = rng.uniform(0, np.pi)
    phase = rng.uniform(4, 7) * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(1.0, 2.0) * t
    return _pixels(
        _blend((np.sin(2 * np.pi * phase) > 0).astype(np.float32), rng.uniform(0, 90, 3), rng.uniform(150, 255, 3))
    )


def _balls(rng: Generator, num_frames: int) -> Frames:
    """Balls that bounce on a plain court."""
    t, y, x = _grid(num_frames)
    frames = np.broadcast_to(rng.uniform([150, 110, 60], [210, 160, 110]), (num_frames, HEIGHT, WIDTH, 3)).copy()
    for _ in range(rng.integers(2, 5)):
        radius, start, speed = rng.uniform(0.07, 0.13), rng.uniform(0, 2), rng.uniform(0.3, 0.8)
        center_x = np.abs((start + speed * t) % 2 - 1) * 4 / 3
        center_y = 1 - radius - 0.75 * np.abs(np.sin(np.pi * (rng.uniform(0.8, 1.2) * t + rng.uniform())))
        frames[(x - center_x) ** 2 + (y - center_y) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return _pixels(frames)


def _tunnel(rng: Generator, num_frames: int) -> Frames:
    """A flight through a chequered tunnel: an endless zoom."""
    t, y, x = _grid(num_frames)
    offset_x, offset_y = x - 2 / 3, y - 0.5
    depth = np.log(np.hypot(offset_x, offset_y) + 0.02) * 2.5 - rng.uniform(1, 2) * t
    around = np.arctan2(offset_y, offset_x) * rng.integers(3, 6) / np.pi
    chequers = (np.floor(depth) + np.floor(around)) % 2
    return _pixels(_blend(chequers, rng.uniform(0, 40, 3), rng.uniform(90, 200, 3)))


def _waves(rng: Generator, num_frames: int) -> Frames:
    """Rolling blue waves under a pale sky."""
    t, y, x = _grid(num_frames)
    sky = np.broadcast_to(y, (num_frames, HEIGHT, WIDTH))
    frames = _blend(sky, rng.uniform([170, 200, 220], [220, 230, 250]), [230, 230, 235])
    for level in range(4):
        crest = np.sin(2 * np.pi * (rng.uniform(0.7, 1.6) * x + rng.uniform(-0.4, 0.4) * t + rng.uniform()))
        water = y > 0.35 + 0.15 * level + 0.04 * crest
        frames[water] = np.array([20, 70, 120]) + level * np.array([0, 20, 30]) + rng.uniform(0, 20, 3)
    return _pixels(frames)


def _rain(rng: Generator, num_frames: int) -> Frames:
    """Grey noise that falls in short streaks."""
    streaks = np.repeat(rng.random((HEIGHT // 6, WIDTH), dtype=np.float32), 6, axis=0) ** 3
    speed = int(rng.integers(8, 15))
    falling = np.stack([np.roll(streaks, speed * frame, axis=0) for frame in range(num_frames)])
    flicker = 0.25 * rng.random(falling.shape, dtype=np.float32)
    return _pixels(_blend(falling * 0.75 + flicker, rng.uniform(20, 60, 3), rng.uniform([150] * 3, [180, 190, 210])))


def _leaves(rng: Generator, num_frames: int) -> Frames:
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


# --- sounds: (rng, number of samples) -> float64 (S,), any scale ---


def _piano(rng: Generator, num_samples: int) -> Sound:
    """Slow chords of decaying strings."""
    sound = np.zeros(num_samples)
    root, beat = rng.uniform(196, 294), int(rng.uniform(0.9, 1.3) * SAMPLE_RATE)
    for start in range(0, num_samples, beat):
        degree = rng.choice([0, 5, 7, 9])
        for step in rng.permutation([(0, 4, 7), (0, 3, 7)])[0]:
            pitch = root * 2 ** ((degree + step - rng.choice([0, 12])) / 12)
            _mix(sound, start + int(rng.integers(0, 600)), _string(pitch, 2.5))
    return sound


def _drums(rng: Generator, num_samples: int) -> Sound:
    """A fast rhythm of kick, snare and hi-hat."""
    sound = np.zeros(num_samples)
    t = _seconds(int(0.2 * SAMPLE_RATE))
    kick = np.sin(2 * np.pi * (50 * t + 3 * (1 - np.exp(-t * 30)))) * np.exp(-t * 18)
    snare = (0.6 * rng.normal(size=t.size) + np.sin(2 * np.pi * 190 * t)) * np.exp(-t * 25) * 0.6
    hat = np.diff(rng.normal(size=t.size), prepend=0) * np.exp(-t * 70) * 0.3
    step = int(SAMPLE_RATE * 15 / rng.uniform(135, 175))
    kicks = {0, 8, int(rng.integers(3, 7)), int(rng.integers(9, 12))}
    for beat, start in enumerate(range(0, num_samples, step)):
        if beat % 16 in kicks:
            _mix(sound, start, kick)
        if beat % 8 == 4:
            _mix(sound, start, snare)
        if beat % 2 == 0 or rng.uniform() < 0.3:
            _mix(sound, start, hat)
    return sound


def _bass(rng: Generator, num_samples: int) -> Sound:
    """Low, pulsing tones."""
    t = _seconds(num_samples)
    pulse = rng.uniform(1.5, 2.5)
    note = np.floor(t * pulse / 4).astype(int)
    pitch = rng.uniform(45, 60) * 2 ** (rng.choice([0, 3, 5, 7], size=note.max() + 1)[note] / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(h * phase) / h for h in (1, 2, 3))
    return np.asarray(tone * (0.2 + 0.8 * np.exp(-4 * ((t * pulse) % 1))))


def _wash(rng: Generator, num_samples: int) -> Sound:
    """Noise that swells and ebbs, as surf and rain do."""
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    frequency = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / (frequency + 200) ** rng.uniform(0.5, 0.8), num_samples)
    swell = np.sin(2 * np.pi * (rng.uniform(0.2, 0.4) * _seconds(num_samples) + rng.uniform()))
    return np.asarray(noise * (0.6 + 0.4 * swell))


def _speech(rng: Generator, num_samples: int) -> Sound:
    """Babble: a voice with vowels, pauses and some hissing consonants."""
    vowels = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]])
    voice, sound = rng.uniform(95, 210), np.zeros(num_samples)
    start = 0
    while start < num_samples:
        t = _seconds(int(rng.uniform(0.12, 0.26) * SAMPLE_RATE))
        begin, end = vowels[rng.integers(5, size=2)]
        progress = (t / t[-1])[:, None]
        formants = begin * (1 - progress) + end * progress
        pitch = voice * (1.1 - 0.2 * progress[:, 0] + rng.uniform(-0.08, 0.08))
        harmonics = np.arange(1, 24)
        frequency = pitch[:, None] * harmonics
        gain = sum(np.exp(-(((frequency - formants[:, [f]]) / 110) ** 2)) / (f + 1) for f in range(3)) + 0.02
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        syllable = (gain * np.sin(phase[:, None] * harmonics)).sum(axis=1) * np.hanning(t.size)
        if rng.uniform() < 0.5:
            hiss = np.diff(rng.normal(size=1500), prepend=0) * 0.15 * np.hanning(1500)
            _mix(sound, start, hiss)
        _mix(sound, start + 800, syllable)
        start += t.size + int(rng.choice([0.02, 0.02, 0.02, 0.3]) * SAMPLE_RATE)
    return sound


def _chirps(rng: Generator, num_samples: int) -> Sound:
    """Groups of short, high sweeps, as birds sing."""
    sound = 0.005 * rng.normal(size=num_samples)
    start = 0
    while start < num_samples:
        low, sweep, length = rng.uniform(2200, 4000), rng.uniform(-900, 1500), rng.uniform(0.05, 0.14)
        t = _seconds(int(length * SAMPLE_RATE))
        phase = 2 * np.pi * (low * t + sweep * t**2 / (2 * length)) + 3 * np.sin(2 * np.pi * 35 * t)
        for _ in range(rng.integers(2, 6)):
            _mix(sound, start, np.sin(phase) * np.sin(np.pi * t / length))
            start += int(1.4 * t.size)
        start += int(rng.uniform(0.1, 0.5) * SAMPLE_RATE)
    return sound


def _seconds(num_samples: int) -> Sound:
    return np.arange(num_samples) / SAMPLE_RATE


def _string(pitch: float, seconds: float) -> Sound:
    """One struck string: harmonics of which the high ones die first."""
    t = _seconds(int(seconds * SAMPLE_RATE))
    tone = sum(np.sin(2 * np.pi * h * pitch * t) * np.exp(-t * (1.2 + 0.8 * h)) / h**1.3 for h in range(1, 8))
    return np.asarray(tone * np.minimum(1, t / 0.004))


def _mix(sound: Sound, start: int, part: Sound) -> None:
    """Add `part` to `sound` at sample `start`, cut at the end."""
    end = min(start + part.size, sound.size)
    sound[start:end] += part[: max(end - start, 0)]


# --- kinds and what is said of them ---


@dataclass(frozen=True)
class Kind:
    """A kind of item: how it looks and sounds, and (title, description) pairs in English and Chinese."""

    name: str
    look: Callable[[Generator, int], Frames]
    sound: Callable[[Generator, int], Sound]
    tags: str
    english: Sequence[tuple[str, str]]
    chinese: Sequence[tuple[str, str]]


KINDS = (
    Kind(
        "slow_piano",
        _night,
        _piano,
        "music|piano|calm",
        [
            ("Slow piano at midnight", "Quiet solo piano music, long chords to rest by."),
            ("A gentle piano piece", "Soft and slow piano chords for reading or falling asleep."),
            ("Slow piano music for a calm evening", "An hour of peaceful piano; nothing but slow chords."),
        ],
        [("深夜慢钢琴", "安静舒缓的钢琴独奏，适合放松。"), ("轻柔的钢琴曲", "缓慢的钢琴和弦，伴你入睡。")],
    ),
    Kind(
        "bedtime_story",
        _night,
        _speech,
        "story|reading|sleep",
        [
            ("Bedtime story: the lost lantern", "A narrator reads a fairy tale for children."),
            ("The fox who counted stars", "A story read aloud before sleep."),
            ("Tales for tired children", "Tonight: how the bear learned to whisper."),
        ],
        [("睡前故事：小狐狸", "给孩子朗读的童话故事。"), ("星星的童话", "讲述者轻声读一个睡前故事。")],
    ),
    Kind(
        "drum_rhythm",
        _stripes,
        _drums,
        "music|drums|lesson",
        [
            ("Fast drum grooves", "Rhythm practice on the drum kit at 150 beats a minute."),
            ("Drum kit warm-up", "Kick, snare and hi-hat patterns for drummers."),
            ("Percussion drills", "Play along with these drum beats, slow counting, fast sticks."),
        ],
        [("架子鼓快节奏练习", "每分钟一百五十拍的鼓点。"), ("鼓手热身", "底鼓、军鼓和踩镲的节奏型。")],
    ),
    Kind(
        "ball_game",
        _balls,
        _drums,
        "sport|ball|game",
        [
            ("Street basketball highlights", "Dribbles and shots from the neighbourhood court."),
            ("Best goals of the week", "Players, balls and a loud stadium."),
            ("Juggling three balls", "Sport tricks: keep the ball bouncing."),
        ],
        [("街头篮球精彩集锦", "运球、投篮，球场上的精彩瞬间。"), ("本周最佳进球", "球员与热闹的体育场。")],
    ),
    Kind(
        "dance_night",
        _stripes,
        _bass,
        "dance|club|electronic",
        [
            ("Club dance session", "Electronic bass and lights from the dance floor."),
            ("Deep house for dancing", "A DJ set with heavy bass lines."),
            ("Learn to shuffle dance", "Steps for the next party night."),
        ],
        [("夜店舞曲", "电子低音与灯光的舞池。"), ("跟我学跳舞", "派对之夜的舞步教学。")],
    ),
    Kind(
        "space_flight",
        _tunnel,
        _bass,
        "space|science|travel",
        [
            ("Through the wormhole", "A flight between the stars in a rocket."),
            ("Journey to the outer planets", "Space travel: Jupiter, Saturn and what lies beyond."),
            ("The hum of a spaceship", "Astronauts cross the galaxy."),
        ],
        [("穿越虫洞", "乘火箭在群星之间飞行。"), ("前往外行星之旅", "太空旅行：木星、土星与更远的地方。")],
    ),
    Kind(
        "ocean_waves",
        _waves,
        _wash,
        "nature|sea|relax",
        [
            ("Ocean waves at the beach", "The sea rolls in; surf on sand."),
            ("Atlantic surf", "Waves break on the shore, seen from the cliffs."),
            ("A day by the sea", "Blue water, tides and wind."),
        ],
        [("海边的浪花", "海浪拍打沙滩的声音。"), ("大海的一天", "蓝色的海水、潮汐和海风。")],
    ),
    Kind(
        "rain",
        _rain,
        _wash,
        "nature|weather|relax",
        [
            ("Rain on the window", "Heavy rain in a grey city."),
            ("Thunderstorm in the valley", "Weather: clouds, drops and a downpour."),
            ("Monsoon afternoon", "It pours; stay inside with tea."),
        ],
        [("窗外的雨", "灰色城市里的大雨。"), ("山谷雷雨", "乌云、雨滴与倾盆大雨。")],
    ),
    Kind(
        "birdsong",
        _leaves,
        _chirps,
        "nature|birds|forest",
        [
            ("Birdsong at dawn", "Robins and blackbirds sing in the forest."),
            ("Chirping in the trees", "A nightingale answers another bird."),
            ("Birds of the woodland", "Warblers among green leaves, early in spring."),
        ],
        [("清晨鸟鸣", "知更鸟在森林里歌唱。"), ("林间的鸟儿", "夜莺在树上鸣叫。")],
    ),
    Kind(
        "gardening",
        _leaves,
        _speech,
        "garden|plants|advice",
        [
            ("How to prune your hedge", "A gardener explains tools, soil and cutting."),
            ("Growing tomatoes at home", "Advice on planting, watering and compost."),
            ("Garden talk: roses", "We discuss plants, seeds and fertiliser."),
        ],
        [("怎样修剪树篱", "园丁讲解工具与土壤。"), ("在家种番茄", "种植、浇水与堆肥的建议。")],
    ),
)

VAGUE_TITLES = ("Part 2", "untitled", "New upload", "Try this", "", "Sunday", "my clip (final)", "For you", "", "04")


# --- items ---


@dataclass(frozen=True)
class Entry:
    """One row of the catalog and how its media file is made."""

    item_id: str
    kind: Kind
    media: str | None
    title: str
    description: str
    tags: str
    language: str
    has_look: bool = True
    has_sound: bool = True
    damaged: bool = False


def _entries() -> list[Entry]:
    """Six items of each kind, in turn, then a damaged one."""
    entries: list[Entry] = []
    for member in range(6):
        for rank, kind in enumerate(KINDS):
            entries.append(_entry(f"item{len(entries):03d}", kind, rank, member))
    (title, description), ball_game = ("Ball tricks, uncut", "A football freestyler at the court."), KINDS[3]
    media = f"media/item{len(entries):03d}.mp4"
    entries.append(
        Entry(f"item{len(entries):03d}", ball_game, media, title, description, ball_game.tags, "en", damaged=True)
    )
    return entries


def _entry(item_id: str, kind: Kind, rank: int, member: int) -> Entry:
    title, description, tags, language = _texts(kind, rank, member)
    suffix, has_look, has_sound = _form(rank, member)
    media = f"media/{item_id}{suffix}" if suffix else None
    return Entry(item_id, kind, media, title, description, tags, language, has_look, has_sound)


def _texts(kind: Kind, rank: int, member: int) -> tuple[str, str, str, str]:
    """Title, description, tags and language: members 1 and 4 are Chinese, member 2 says nothing of its kind."""
    if member == 2:
        return VAGUE_TITLES[rank], "", "", "en"
    if member in (1, 4):
        return *kind.chinese[member // 4], "", "zh"
    return *kind.english[{0: 0, 3: 1, 5: 2}[member]], kind.tags if member == 0 else "", "en"


def _form(rank: int, member: int) -> tuple[str | None, bool, bool]:
    """File name suffix (None: text only), and whether there is a look and a sound."""
    if member == 3 and rank % 2:
        return ".mp4", True, False
    if member == 4 and rank % 2 == 0:
        return (".wav", ".mp3", ".ogg", ".flac", ".m4a")[rank // 2], False, True
    if member == 5 and rank in (0, 5, 8):
        return None, False, False
    if member == 5 and rank in (4, 6):
        return (".png" if rank == 4 else ".jpg"), True, False
    return (".webm" if member == 1 and rank % 3 == 0 else ".mp4"), True, True


# --- media files ---


@dataclass(frozen=True)
class Format:
    """How a file of one suffix is written."""

    container: str
    video_codec: str = ""
    audio_codec: str = ""
    pixels: str = "yuv420p"


FORMATS = {
    ".mp4": Format("mp4", "libx264", "aac"),
    ".webm": Format("webm", "libvpx", "libopus"),
    ".png": Format("image2pipe", "png", pixels="rgb24"),
    ".jpg": Format("image2pipe", "mjpeg", pixels="yuvj420p"),
    ".wav": Format("wav", audio_codec="pcm_s16le"),
    ".mp3": Format("mp3", audio_codec="libmp3lame"),
    ".ogg": Format("ogg", audio_codec="libopus"),
    ".flac": Format("flac", audio_codec="flac"),
    ".m4a": Format("mp4", audio_codec="aac"),
}
CODEC_OPTIONS = {
    "libx264": {"preset": "superfast", "crf": "25"},  # slower presets do not give the same bytes every time
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "600k"},
    "aac": {"aac_coder": "fast"},
}


def _make_media(entry: Entry, rng: Generator) -> bytes:
    assert entry.media is not None
    suffix = Path(entry.media).suffix
    num_frames = 1 if suffix in (".png", ".jpg") else int(rng.integers(3 * FRAME_RATE, 6 * FRAME_RATE + 1))
    frames = entry.kind.look(rng, num_frames) if entry.has_look else None
    sound = _loud(entry.kind.sound(rng, num_frames * SAMPLE_RATE // FRAME_RATE), rng) if entry.has_sound else None
    data = _encode(FORMATS[suffix], frames, sound)
    return data[: len(data) // 2] if entry.damaged else data


def _loud(sound: Sound, rng: Generator) -> Sound:
    return np.asarray(sound * (rng.uniform(0.4, 0.9) / np.abs(sound).max()))


def _encode(form: Format, frames_FHWC: Frames | None, sound_S: Sound | None) -> bytes:
    """The bytes of a media file, the same ones every time."""
    file = io.BytesIO()
    with av.open(file, "w", format=form.container, options={"fflags": "+bitexact"}) as container:
        streams: list[tuple[VideoStream | AudioStream, Iterable[av.VideoFrame | av.AudioFrame]]] = []
        if frames_FHWC is not None:
            video = container.add_stream(form.video_codec, rate=FRAME_RATE, options=CODEC_OPTIONS.get(form.video_codec))
            assert isinstance(video, VideoStream)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, form.pixels
            streams.append((video, (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames_FHWC)))
        if sound_S is not None:
            audio = container.add_stream(
                form.audio_codec, rate=SAMPLE_RATE, options=CODEC_OPTIONS.get(form.audio_codec)
            )
            assert isinstance(audio, AudioStream)
            audio.codec_context.layout = "mono"
            frame = av.AudioFrame.from_ndarray(sound_S[None].astype(np.float32), format="flt", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            streams.append((audio, [frame]))
        for stream, _ in streams:
            stream.codec_context.flags |= Flags.bitexact
            stream.codec_context.thread_count = 1
        for stream, parts in streams:
            for part in (*parts, None):
                container.mux(stream.encode(part))  # type: ignore[arg-type]
    return file.getvalue()


# --- users ---

Interaction = tuple[str, str, int, float]


def _simulate_users(entries: Sequence[Entry], rng: Generator) -> tuple[list[Interaction], list[Interaction]]:
    """All interactions but each user's last, and the last ones, both in order of time."""
    popularity = rng.permutation(1 / np.arange(1, len(entries) + 1) ** 0.6)
    train, held_out = [], []
    for user in range(NUM_USERS):
        history = _watch(f"user{user:03d}", entries, popularity, rng)
        train += history[:-1]
        held_out.append(history[-1])
    return sorted(train, key=lambda row: row[2]), sorted(held_out, key=lambda row: row[2])


def _watch(
    user_id: str, entries: Sequence[Entry], popularity: NDArray[np.float64], rng: Generator
) -> list[Interaction]:
    """What one user watched, in order of time."""
    tastes = rng.choice(len(KINDS), size=rng.integers(1, 3), replace=False)
    liked = np.isin([KINDS.index(entry.kind) for entry in entries], tastes)
    chances = popularity * np.where(liked, TASTE_FACTOR, 1.0)
    num_watched = min(4 + int(rng.geometric(0.25)) - 1, 20)
    # Drawn without replacement, the likely ones come first: shuffled, the last one watched is like the others.
    watched = rng.permutation(rng.choice(len(entries), size=num_watched, replace=False, p=chances / chances.sum()))
    times = FIRST_DAY + np.sort(rng.choice(NUM_DAYS * 86_400, size=num_watched, replace=False))
    shares = np.where(liked[watched], rng.beta(6, 2, num_watched), rng.beta(2, 4, num_watched))
    weights = np.clip(shares.round(3), 0.001, 1)
    return [
        (user_id, entries[item].item_id, int(time), float(weight))
        for item, time, weight in zip(watched, times, weights, strict=True)
    ]


# --- files ---


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write_if_changed(path, text.getvalue().encode())


def _write_if_changed(path: Path, data: bytes) -> None:
    """Write the whole file or nothing; a file that already says the same keeps its modification time."""
    if path.exists() and path.read_bytes() == data:
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
