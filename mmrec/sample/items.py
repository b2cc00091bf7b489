"""The items of the sample catalog: ten kinds, what is said of each, and what an item lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.random import Generator

import mmrec.sample.looks as looks
import mmrec.sample.sounds as sounds


@dataclass(frozen=True)
class Kind:
    """A kind of item: how it looks and sounds, and (title, description) pairs in English and Chinese."""

    name: str
    look: Callable[[Generator, int], looks.Frames]
    sound: Callable[[Generator, int], sounds.Sound]
    tags: str
    english: Sequence[tuple[str, str]]
    chinese: Sequence[tuple[str, str]]


KINDS = (
    Kind(
        "slow_piano",
        looks.night,
        sounds.piano,
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
        looks.night,
        sounds.speech,
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
        looks.stripes,
        sounds.drums,
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
        looks.balls,
        sounds.drums,
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
        looks.stripes,
        sounds.bass,
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
        looks.tunnel,
        sounds.bass,
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
        looks.waves,
        sounds.wash,
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
        looks.rain,
        sounds.wash,
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
        looks.leaves,
        sounds.chirps,
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
        looks.leaves,
        sounds.speech,
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


def all_entries() -> list[Entry]:
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
