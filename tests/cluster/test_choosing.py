"""Which engine is asked for is told before anything is done, with or without Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from planted import quick, watched

from mmrec.cli import main
from mmrec.cluster import uses_ray
from mmrec.embedding import embed
from mmrec.errors import MMRecError
from mmrec.recommending import write_recommendations
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(MMRecError, match="'spark': expected 'local' or 'ray'"):
        uses_ray("spark")
    with pytest.raises(MMRecError, match=r"only the engine 'ray' takes address$"):
        uses_ray("local", address="auto", gpus_per_encoder=None)
    assert not uses_ray("local", address=None)


def test_without_the_package_there_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted_store: FeatureStore
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "catalog.csv").write_text("item_id,title\n1,one\n")
    with pytest.raises(MMRecError, match=r"^the engine 'ray' needs the package ray: pip install 'mmrec\[ray\]'$"):
        embed(tmp_path / "catalog.csv", tmp_path / "store", preset="descriptors", engine="ray")
    model = quick(planted_store, watched([])[0])
    with pytest.raises(MMRecError, match="needs the package ray"):
        write_recommendations(model, model.user_ids, tmp_path / "all.csv", engine="ray")
    assert not list(tmp_path.glob("all.csv*"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--all", "--address", "auto"], "only the engine 'ray' takes address"),
        (["--user", "u1", "--engine", "ray"], "name them by --users or --all"),
        (["--text", "piano", "--engine", "ray"], "name them by --users or --all"),
    ],
)
def test_the_command_refuses_what_no_cluster_is_for(
    capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    if "ray" in options:
        pytest.importorskip("ray")
    assert main(["recommend", "--model", "nowhere", *options]) == 1
    assert complaint in capsys.readouterr().err
