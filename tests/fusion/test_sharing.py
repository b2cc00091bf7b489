"""A fit shared by two processes ends as one by one does: the same weights in both, and as good."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusion_data import SMALL, planted_kinds, ragged, random_histories, random_table

from fusion import runs
from fusion.config import FitProgress, FusionConfig, Hardware, TrainingError
from fusion.histories import ChunkBatches, Chunks
from fusion.sharing import Share
from fusion.tasks import RankingTask, Task
from fusion.token_table import RaggedPart, RaggedTokens
from fusion.training import fit_alignment, fit_ranking
from fusion.validation import BestWeights

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = replace(SMALL, max_epochs=4, patience=4, full_softmax_items=0, num_uniform=12, num_popular=4)
FOLDER = "TEST_OF_SHARING_FOLDER"


def take_part_and_keep(
    task: Task, config: FusionConfig, hardware: Hardware, checkpoint: Path | None, share: Share
) -> None:
    """As the other process of a fit, which keeps its weights for once."""
    task.share, best = share, BestWeights()
    runs._train(task, config, hardware, checkpoint, runs._Curves(), best)
    torch.save(best.weights, Path(os.environ[FOLDER]) / "weights.pt")


def fail(*_: object) -> None:
    raise TrainingError("it has no time")


def die(*_: object) -> None:
    os._exit(7)


def test_two_processes_end_with_the_same_weights_and_as_good_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_take_part", take_part_and_keep)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(RankingTask, "choose_factors", lambda task: {})  # what was trained is compared, as it was
    data = planted_kinds(ordered=True)
    found = []
    for num_devices in (1, 2):
        progress: list[FitProgress] = []
        hardware = Hardware(num_devices=num_devices, on_progress=progress.append)
        towers, report = fit_ranking(
            ragged(data.table), data.histories, validation_UI=data.held_out_UI, config=CONFIG, hardware=hardware
        )
        found.append((report, [one.step for one in progress]))
    (one, one_steps), (two, two_steps) = found
    assert two_steps == one_steps
    assert two.epochs == one.epochs and two.examples == one.examples
    assert two.metrics["val_recall@20"] == pytest.approx(one.metrics["val_recall@20"], abs=0.05)
    assert two.metrics["val_ndcg@20"] == pytest.approx(one.metrics["val_ndcg@20"], abs=0.05)
    theirs = torch.load(tmp_path / "weights.pt")
    ours = {name: value for name, value in towers.state_dict().items() if not name.endswith("cold_bias")}
    for name, value in ours.items():
        torch.testing.assert_close(theirs[f"towers.{name}"], value, rtol=0, atol=0, msg=name)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("other", "complaint"),
    [(fail, "a process of the fit failed: TrainingError: it has no time"), (die, "it ended with status 7")],
)
def test_a_process_that_ends_early_ends_the_fit(monkeypatch: pytest.MonkeyPatch, other: object, complaint: str) -> None:
    monkeypatch.setattr(runs, "_take_part", other)
    data = planted_kinds(ordered=False)
    with pytest.raises(TrainingError, match=complaint):
        fit_ranking(data.table, data.histories, config=CONFIG, hardware=Hardware(num_devices=2))
    assert not torch.distributed.is_initialized()


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(TrainingError, match="a fit without interactions takes one device, not 2"):
        fit_alignment(random_table(), hardware=Hardware(num_devices=2))
    with pytest.raises(TrainingError, match="num_devices is 0"):
        Hardware(num_devices=0)
    chunks = Chunks(random_histories([3, 4], ordered=True), size=100, user_weight=1.0, seed=0)
    with pytest.raises(TrainingError, match="3 processes are too many to share 2 pieces"):
        ChunkBatches(chunks, 4, 0, Share(0, 3))


def test_processes_share_out_all_pieces() -> None:
    chunks = Chunks(random_histories([5] * 60, ordered=True), size=100, user_weight=1.0, seed=0)
    for count in (1, 2, 3):
        shares = [ChunkBatches(chunks, 60, 0, Share(rank, count)) for rank in range(count)]
        for share in shares:
            share.set_epoch(1)
        batches = [list(share) for share in shares]
        assert [len(own) for own in batches] == [5] * count == [len(share) for share in shares]
        pieces = np.concatenate([piece for own in batches for piece in own])
        assert sorted(pieces) == list(range(60))
        assert all(abs(len(piece) - 12 / count) <= 1 for own in batches for piece in own)


def test_tokens_in_a_file_without_a_name_go_to_another_process() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes())
        file.flush()
        part = RaggedPart(2, np.array([4, 0]), np.array([2, 4]), np.zeros(6, np.float32), file)
        copied = pickle.loads(pickle.dumps(RaggedTokens({"visual": part})))  # noqa: S301
    found = copied.select(torch.tensor([1, 0]))
    assert isinstance(copied.parts["visual"].values, io.BufferedReader)
    assert found.tokens["visual"][0].tolist() == values[:4].tolist()
    assert found.tokens["visual"][1, :2].tolist() == values[4:].tolist()
    copied.parts["visual"].values.close()
