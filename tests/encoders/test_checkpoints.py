import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_bert, write_open_clip, write_sentence_transformer, write_wav2vec2

from encoders.base import CheckpointNotFound, EncoderError, load_encoder
from encoders.checkpoints import Source, fetch, locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(kind: str, folder: Path | str, **options):
    return load_encoder(kind, checkpoint=str(folder), device="cpu", precision="float32", **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_open_clip(folder / "open-clip")
    write_wav2vec2(folder / "wav2vec2")
    write_bert(folder / "sentence-transformer")
    return folder


@pytest.fixture
def copied(written, tmp_path):
    """Copies of the checkpoints to be damaged, each in a folder named after its kind."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))

    def no_network(*args, **kwargs):
        raise huggingface_hub.errors.HTTPError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    return folder


def put_in_cache(cache: Path, name: str, folder: Path, *, branch: str = "main") -> None:
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / branch).write_text(COMMIT)


KINDS = ["open-clip", "wav2vec2", "sentence-transformer"]


@pytest.mark.parametrize("kind", KINDS)
class TestDamage:
    def test_truncated_weights(self, kind, copied):
        weights = next((copied / kind).glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(EncoderError, match=f"{kind}' is damaged or not of the kind"):
            load(kind, copied / kind)

    def test_missing_weights(self, kind, copied):
        weights = next((copied / kind).glob("*.safetensors"))
        tensors = load_file(weights)
        lost = next(name for name in tensors if "attn" in name or "attention" in name)
        save_file(
            {name: tensor for name, tensor in tensors.items() if name != lost}, weights, metadata={"format": "pt"}
        )
        with pytest.raises(EncoderError, match=lost.rpartition(".")[2]):
            load(kind, copied / kind)

    def test_wrong_shapes(self, kind, copied):
        weights = next((copied / kind).glob("*.safetensors"))
        tensors = {
            name: tensor[..., :-1].contiguous() if tensor.ndim else tensor
            for name, tensor in load_file(weights).items()
        }
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(EncoderError, match="damaged or not of the kind"):
            load(kind, copied / kind)

    @pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no such thing"}'])
    def test_bad_configuration(self, kind, copied, text):
        name = "open_clip_config.json" if kind == "open-clip" else "config.json"
        (copied / kind / name).write_text(text)
        with pytest.raises(EncoderError, match=kind):
            load(kind, copied / kind)

    def test_no_weights(self, kind, copied):
        next((copied / kind).glob("*.safetensors")).unlink()
        with pytest.raises(EncoderError, match="has no weights"):
            load(kind, copied / kind)

    def test_checkpoint_of_another_kind(self, kind, copied):
        other = KINDS[KINDS.index(kind) - 1]
        with pytest.raises(EncoderError, match=other):
            load(kind, copied / other)


class TestPickles:
    def turned_into_pickle(self, folder: Path, name: str) -> Path:
        weights = next(folder.glob("*.safetensors"))
        torch.save(load_file(weights), folder / name)
        weights.unlink()
        return folder

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("open-clip", "open_clip_pytorch_model.bin"),
            ("wav2vec2", "pytorch_model.bin"),
            ("sentence-transformer", "pytorch_model.bin"),
        ],
    )
    def test_refused_unless_allowed(self, kind, name, written, copied):
        folder = self.turned_into_pickle(copied / kind, name)
        with pytest.raises(EncoderError, match=rf"only as a pickle \({name}\).*allow_pickle"):
            load(kind, folder)
        assert load(kind, folder, allow_pickle=True).dim == load(kind, written / kind).dim

    @pytest.mark.parametrize("kind", ["open-clip", "wav2vec2", "sentence-transformer"])
    def test_code_is_never_run(self, kind, copied, tmp_path):
        name = "open_clip_pytorch_model.bin" if kind == "open-clip" else "pytorch_model.bin"
        folder = self.turned_into_pickle(copied / kind, name)

        class Touches:
            def __reduce__(self):
                return Path.touch, (tmp_path / "was here",)

        (folder / name).write_bytes(pickle.dumps({"weight": Touches()}, protocol=2))
        with pytest.raises(EncoderError, match="damaged or not of the kind"):
            load(kind, folder, allow_pickle=True)
        assert not (tmp_path / "was here").exists()

    def test_a_pickle_beside_safetensors_is_not_read(self, copied):
        folder = copied / "wav2vec2"
        fingerprint = load("wav2vec2", folder).fingerprint
        (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
        assert load("wav2vec2", folder).fingerprint == fingerprint
        assert load("wav2vec2", folder, allow_pickle=True).fingerprint == fingerprint

    def test_a_pickle_in_one_module_is_refused(self, tmp_path):
        folder = write_sentence_transformer(tmp_path)
        self.turned_into_pickle(folder / "2_Dense", "pytorch_model.bin")
        with pytest.raises(EncoderError, match="only as a pickle"):
            load("sentence-transformer", folder)
        assert load("sentence-transformer", folder, allow_pickle=True).dim == 20


class TestWhereItIsFound:
    def test_no_such_folder(self, tmp_path):
        with pytest.raises(CheckpointNotFound, match="no checkpoint folder"):
            load("wav2vec2", tmp_path / "nothing")

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_network_and_no_cache_says_both_ways_out_at_once(self, kind, cache):
        started = time.monotonic()
        with pytest.raises(
            CheckpointNotFound, match=r"'someone/something'.*`mmrec fetch --preset base`.*`--preset light`"
        ):
            load(kind, "someone/something")
        assert time.monotonic() - started < 5

    def test_offline_mode_needs_no_network_to_say_so(self, cache, monkeypatch):
        monkeypatch.undo()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointNotFound, match="HF_HUB_OFFLINE"):
            load("wav2vec2", "someone/something")

    def test_not_a_name(self, cache):
        with pytest.raises(CheckpointNotFound, match="neither a folder nor the name"):
            load("wav2vec2", "some thing?")

    @pytest.mark.parametrize("kind", KINDS)
    def test_cache_and_folder_have_one_fingerprint(self, kind, written, cache):
        put_in_cache(cache, "someone/something", written / kind)
        from_cache, from_folder = load(kind, "someone/something"), load(kind, written / kind)
        assert from_cache.fingerprint == from_folder.fingerprint
        assert from_cache.name == f"{kind} someone/something"

    def test_revisions(self, written, cache):
        put_in_cache(cache, "someone/something", written / "wav2vec2", branch="v2")
        assert load("wav2vec2", "someone/something", revision="v2").name == "wav2vec2 someone/something"
        assert load("wav2vec2", "someone/something", revision=COMMIT).dim == 32
        with pytest.raises(CheckpointNotFound, match="at revision 'v1'"):
            load("wav2vec2", "someone/something", revision="v1")

    def test_a_cache_without_weights_is_not_enough(self, written, cache, tmp_path):
        folder = tmp_path / "without weights"
        shutil.copytree(written / "wav2vec2", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        put_in_cache(cache, "someone/something", folder)
        with pytest.raises(CheckpointNotFound, match="not complete in the cache"):
            load("wav2vec2", "someone/something")

    def test_open_clip_tags_are_repositories(self, cache):
        with pytest.raises(CheckpointNotFound, match="laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
            load("open-clip", "ViT-B-32", pretrained="laion2b_s34b_b79k")
        with pytest.raises(EncoderError, match="laion400m_e32"):
            load("open-clip", "ViT-B-32", pretrained="no_such_tag")
        with pytest.raises(EncoderError, match="no weights for an architecture 'ViT-X'"):
            load("open-clip", "ViT-X", pretrained="openai")


class Hub:
    """A hub with one repository, as far as downloads need one."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.folder, self.cache, self.asked_for = folder, cache, []

    def model_info(self, api, name, *, revision, timeout):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in self.names])

    def snapshot_download(self, name, *, revision=None, allow_patterns, local_files_only=False):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        self.asked_for = allow_patterns
        for file in allow_patterns:
            (self.cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / file, self.cache / file)
        return str(self.cache)


class TestDownload:
    @pytest.fixture
    def hub(self, copied, tmp_path, monkeypatch):
        folder = copied / "wav2vec2"
        (folder / "pytorch_model.bin").write_bytes(b"pickled")
        (folder / "tf_model.h5").write_bytes(b"of another library")
        hub = Hub(folder, tmp_path / "downloaded")
        monkeypatch.setattr(
            huggingface_hub.HfApi, "model_info", lambda api, name, **options: hub.model_info(api, name, **options)
        )
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
        return hub

    def test_only_what_is_read_is_downloaded(self, hub):
        assert fetch("wav2vec2", checkpoint="someone/something", layers="mean") == hub.cache
        assert sorted(hub.asked_for) == ["config.json", "model.safetensors", "preprocessor_config.json"]

    def test_loading_downloads_what_is_not_there(self, hub):
        assert load("wav2vec2", "someone/something").dim == 32

    def test_pickles_are_refused_before_they_are_downloaded(self, hub):
        hub.names.remove("model.safetensors")
        with pytest.raises(EncoderError, match="only as a pickle"):
            fetch("wav2vec2", checkpoint="someone/something")
        assert hub.asked_for == []
        fetch("wav2vec2", checkpoint="someone/something", allow_pickle=True)
        assert "pytorch_model.bin" in hub.asked_for

    def test_what_the_hub_does_not_have(self, hub, monkeypatch):
        def not_found(*args, **kwargs):
            response = SimpleNamespace(headers={}, request=None, status_code=404)
            raise huggingface_hub.errors.RepositoryNotFoundError("404", response=response)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", not_found)
        with pytest.raises(CheckpointNotFound, match="hf auth login"):
            fetch("wav2vec2", checkpoint="someone/something")

    def test_what_needs_no_download(self, written):
        assert fetch("descriptors") is None
        assert fetch("wav2vec2", checkpoint=str(written / "wav2vec2")) == written / "wav2vec2"

    def test_open_clip_weights_are_preferred_to_others_of_the_same_repository(self):
        source = Source(name="laion/x", safetensors=(r"open_clip_(pytorch_)?model\.safetensors", r"model\.safetensors"))
        names = ["model.safetensors", "open_clip_model.safetensors", "onnx/model.safetensors", "config.json"]
        assert source.weights_among(names) == ["open_clip_model.safetensors"]

    def test_shards_and_modules_belong_to_the_weights(self):
        names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "2_Dense/model.safetensors"]
        assert Source(name="x").weights_among([*names, "onnx/model.safetensors", "pytorch_model.bin"]) == sorted(names)


class TestFingerprints:
    def test_follow_the_weights_and_the_preprocessing_but_not_the_place(self, written, copied, tmp_path):
        base = load("wav2vec2", written / "wav2vec2").fingerprint
        assert load("wav2vec2", copied / "wav2vec2").fingerprint == base
        others = {
            load("wav2vec2", write_wav2vec2(tmp_path / "seed", seed=1)).fingerprint,
            load("wav2vec2", write_wav2vec2(tmp_path / "raw", do_normalize=False)).fingerprint,
            load("wav2vec2", written / "wav2vec2", layers="mean").fingerprint,
            load_encoder(
                "wav2vec2", checkpoint=str(written / "wav2vec2"), device="cpu", precision="bfloat16"
            ).fingerprint,
        }
        assert len(others) == 4 and base not in others

    def test_files_that_are_not_read_do_not_count(self, written, copied):
        (copied / "wav2vec2" / "README.md").write_text("about")
        assert load("wav2vec2", copied / "wav2vec2").fingerprint == load("wav2vec2", written / "wav2vec2").fingerprint

    def test_configuration_counts(self, written, copied):
        file = copied / "open-clip" / "open_clip_config.json"
        config = json.loads(file.read_text())
        config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
        file.write_text(json.dumps(config))
        assert (
            load("open-clip", copied / "open-clip").fingerprint != load("open-clip", written / "open-clip").fingerprint
        )


def test_loading_sets_up_no_logging(written):
    code = (
        "import logging; from encoders.base import load_encoder;"
        f"load_encoder('open-clip', checkpoint={str(written / 'open-clip')!r}, device='cpu').encode_text(['a dog']);"
        "assert not logging.getLogger().handlers"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_locate_expands_home(tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(written))
    assert locate(Source(name="~/wav2vec2")).folder == written / "wav2vec2"
