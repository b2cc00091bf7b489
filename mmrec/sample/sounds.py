"""How the sample catalog sounds: each function plays one kind, `(S,)` at `SAMPLE_RATE`, at any loudness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Sound = NDArray[np.floating[Any]]

SAMPLE_RATE = 24_000


def piano(rng: Generator, num_samples: int) -> Sound:
    """Slow chords of decaying strings."""
    sound = np.zeros(num_samples)
    root, beat = rng.uniform(196, 294), int(rng.uniform(0.9, 1.3) * SAMPLE_RATE)
    for start in range(0, num_samples, beat):
        degree = rng.choice([0, 5, 7, 9])
        for step in rng.permutation([(0, 4, 7), (0, 3, 7)])[0]:
            pitch = root * 2 ** ((degree + step - rng.choice([0, 12])) / 12)
            _mix(sound, start + int(rng.integers(0, 600)), _string(pitch, 2.5))
    return sound


def drums(rng: Generator, num_samples: int) -> Sound:
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


def bass(rng: Generator, num_samples: int) -> Sound:
    """Low, pulsing tones."""
    t = _seconds(num_samples)
    pulse = rng.uniform(1.5, 2.5)
    note = np.floor(t * pulse / 4).astype(int)
    pitch = rng.uniform(45, 60) * 2 ** (rng.choice([0, 3, 5, 7], size=note.max() + 1)[note] / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(h * phase) / h for h in (1, 2, 3))
    return np.asarray(tone * (0.2 + 0.8 * np.exp(-4 * ((t * pulse) % 1))))


def wash(rng: Generator, num_samples: int) -> Sound:
    """Noise that swells and ebbs, as surf and rain do."""
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    frequency = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / (frequency + 200) ** rng.uniform(0.5, 0.8), num_samples)
    swell = np.sin(2 * np.pi * (rng.uniform(0.2, 0.4) * _seconds(num_samples) + rng.uniform()))
    return np.asarray(noise * (0.6 + 0.4 * swell))


def speech(rng: Generator, num_samples: int) -> Sound:
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


def chirps(rng: Generator, num_samples: int) -> Sound:
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
