import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import yaml
from media_files import write_video
from safetensors.torch import load_file
from tiny_checkpoints import write_bert, write_language_model, write_open_clip, write_wav2vec2

from mmrec.adapting import adaptation
from mmrec.adapting.adaptation import adapt
from mmrec.adapting.training_data import CatalogMedia, Parts, TrainingBatches
from mmrec.cli import main
from mmrec.embedding.decoding import DecodeLimits
from mmrec.embedding.preset_encoders import load_preset_encoders
from mmrec.embedding.presets import load_preset
from mmrec.errors import EncoderError, MMRecError
from mmrec.store.feature_store import FeatureStore

ONE_WORKER = DecodeLimits(workers=1)
TITLES = ["a dog runs", "the cat sleeps", "loud piano music", "a quiet sea", "狗 in the park", "a bird sings"]


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on busy processors: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Six clips that differ in length, brightness and title; the last one has no media."""
    folder = tmp_path_factory.mktemp("catalog")
    rows = ["item_id,media,title"]
    for number, title in enumerate(TITLES):
        media = f"{number}.mp4" if number < 5 else ""
        if media:
            write_video(folder / media, frames=6 + 10 * number, sound_seconds=0.3 + 0.3 * number)
        rows.append(f"i{number},{media},{title}")
    (folder / "catalog.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "interactions.csv").write_text("user_id,item_id\nu,i0\nu,i1\nv,i1\nv,i5\nw,i3\n")
    return folder / "catalog.csv"


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset file with an encoder of each modality."""
    folder = tmp_path_factory.mktemp("preset")
    return write_preset(
        folder / "tiny.yaml",
        visual={"kind": "open-clip", "checkpoint": str(write_open_clip(folder / "clip"))},
        audio={"kind": "wav2vec2", "checkpoint": str(write_wav2vec2(folder / "wav2vec2")), "layers": "mean"},
        text={"kind": "sentence-transformer", "checkpoint": str(write_bert(folder / "bert")), "document_prompt": ""},
    )


def write_preset(path, **encoders):
    values = {"frames": {"count": 3}, "sound": {"window_seconds": 0.5, "count": 2}, "text_template": "$title"}
    path.write_text(yaml.safe_dump({**values, **encoders}))
    return path


@pytest.fixture
def loaded(preset):
    return load_preset_encoders(load_preset(preset), device="cpu", precision="float32")


def make_material(num_items=8, seed=0):
    """Items whose pictures, sounds and words are random; sounds of two lengths; the first lacks words."""
    random = np.random.default_rng(seed)
    visual, audio, text = {}, {}, {}
    for row in range(num_items):
        frames = list(random.integers(0, 256, (3, 1, 32, 32, 3), dtype=np.uint8))
        visual[row] = Parts(frames, np.arange(3, dtype=np.float32))
        sound = random.normal(0, 0.1, 3000 + 1000 * (row % 2)).astype(np.float32)
        audio[row] = Parts([sound], np.ones(1, np.float32))
        if row:
            text[row] = Parts([TITLES[row % 6], TITLES[(row * 5 + 1) % 6]], np.zeros(2, np.float32))
    return CatalogMedia([f"i{row}" for row in range(num_items)], {"visual": visual, "audio": audio, "text": text})


def make_trainer(loaded, media, seed=0, **options):
    torch.manual_seed(seed)
    trainables = adaptation._trainables(loaded, media, "adapters", 2)
    return adaptation._Trainer(loaded, media, trainables, options.get("learning_rate", 5e-3), seed), trainables


@pytest.fixture(scope="module")
def adapted(catalog, preset, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "adapted"
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "FUSION_EPOCHS", 0)  # so that there is more left to learn
        report = adapt(
            catalog,
            preset=preset,
            out=out,
            interactions=catalog.parent / "interactions.csv",
            epochs=6,
            rank=2,
            learning_rate=5e-3,
            device="cpu",
            limits=ONE_WORKER,
            progress=lambda epoch, loss: seen.append((epoch, loss)),
        )
    assert seen == list(enumerate(report.losses, start=1))
    return out, report


class TestWhatIsWritten:
    def test_the_loss_falls(self, adapted):
        _, report = adapted
        assert report.losses[-1] < 0.9 * report.losses[0]
        assert (report.catalog_items, report.items, report.reasons) == (6, 6, {"no_media": 2})

    def test_only_adapters(self, adapted):
        out, report = adapted
        assert sorted(path.name for path in out.iterdir()) == ["audio", "preset.yaml", "text", "visual"]
        for modality, count in report.parameters.items():
            saved = load_file(out / modality / "adapter_model.safetensors")
            assert sum(tensor.numel() for tensor in saved.values()) == count
            assert all("lora_" in name for name in saved)

    def test_the_preset_is_the_old_one_with_adapters(self, adapted, preset):
        _, report = adapted
        old, new = load_preset(preset), load_preset(report.preset)
        assert (new.frames, new.sound, new.text_template) == (old.frames, old.sound, old.text_template)
        for modality in ("visual", "audio", "text"):
            options = dict(getattr(new, modality).options)
            assert options.pop("adapter") == str(report.preset.parent / modality)
            assert options == getattr(old, modality).options
        panels = [load_preset_encoders(p, device="cpu", precision="float32") for p in (old, new)]
        assert not set(panels[0].fingerprints.values()) & set(panels[1].fingerprints.values())

    def test_embed_goes_on_with_it(self, adapted, catalog, tmp_path):
        _, report = adapted
        store = tmp_path / "store"
        command = ["embed", str(catalog), "--store", str(store), "--preset", str(report.preset)]
        assert main([*command, "--device", "cpu", "--precision", "float32", "--workers", "1"]) == 0
        new = load_preset_encoders(load_preset(report.preset), device="cpu", precision="float32")
        assert FeatureStore(store).fingerprints() == new.fingerprints


def test_the_command_trains_all_weights(catalog, preset, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["adapt", str(catalog), "--preset", str(preset), "--out", str(out), "--train", "all", "--epochs", "2"]
    assert main([*command, "--device", "cpu", "--workers", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["losses"]) == 2 and report["items"] == 5
    old, new = load_preset(preset), load_preset(report["preset"])
    for modality in ("visual", "audio", "text"):
        changed = {"checkpoint": str(out / modality)}
        assert getattr(new, modality).options == {**getattr(old, modality).options, **changed}
    assert load_preset_encoders(new, device="cpu").encoders["visual"].dim == 32


def test_a_language_model_gets_an_adapter_of_its_own(catalog, tmp_path):
    model = {"kind": "sentence-transformer", "checkpoint": str(write_language_model(tmp_path / "model"))}
    text = {**model, "pooling": "last", "passage_tokens": 64}
    preset = write_preset(tmp_path / "preset.yaml", visual={"kind": "descriptors"}, text=text)
    report = adapt(catalog, preset=preset, out=tmp_path / "out", epochs=2, rank=2, device="cpu", limits=ONE_WORKER)
    old, new = (load_preset_encoders(load_preset(path), device="cpu") for path in (preset, report.preset))
    assert report.parameters.keys() == {"text"} and np.isfinite(report.losses).all()
    assert (new.encoders["text"].encode(TITLES) - old.encoders["text"].encode(TITLES)).abs().max() > 1e-4
    assert new.encoders["text"].passages("x" * 100) == old.encoders["text"].passages("x" * 100) == ["x" * 64, "x" * 36]


class TestTraining:
    def test_the_saved_adapters_give_the_trained_vectors(self, loaded, tmp_path):
        media = make_material()
        trainer, trainables = make_trainer(loaded, media)
        training_batches = TrainingBatches(media, None, 8, 0)
        trainer.fit_fusion(training_batches)
        for epoch in range(4):
            trainer.run_epoch(training_batches, epoch)
        new = load_preset_encoders(
            load_preset(adaptation._write(tmp_path, loaded, trainables)), device="cpu", precision="float32"
        )
        for modality, encoder in loaded.encoders.items():
            batch = adaptation._stacked(media.parts[modality][1].data)
            torch.testing.assert_close(new.encoders[modality].encode(batch), encoder.encode(batch), atol=1e-4, rtol=0)

    def test_the_encoders_learn(self, loaded, monkeypatch):
        """Beside a fusion that stays as it is."""
        monkeypatch.setattr(adaptation, "FUSION_EPOCHS", 2)
        media = make_material(6)
        trainer, _ = make_trainer(loaded, media, learning_rate=1e-3)
        training_batches = TrainingBatches(media, None, 6, 0)
        trainer.fit_fusion(training_batches)
        trainer._fusion.eval()
        trainer._optimizer.param_groups[1]["lr"] = 0.0
        losses = [trainer.run_epoch(training_batches, epoch) for epoch in range(12)]
        assert losses[-1] < 0.9 * losses[0], losses

    def test_the_gradient_is_that_of_one_pass(self, loaded, monkeypatch):
        """Whatever goes through the encoders at once: the same weights after a step as by plain backpropagation."""
        media = make_material(4)

        def weights_after_a_step(**parts_at_once):
            monkeypatch.setattr(adaptation, "PARTS_AT_ONCE", parts_at_once)
            return self.gradients(panel_of(loaded), media)

        def panel_of(old):
            return load_preset_encoders(old.preset, device="cpu", precision="float32")

        cached = weights_after_a_step(visual=2, audio=1, text=3)
        whole = self.gradients(panel_of(loaded), media, cached=False)
        assert cached.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(cached[name], gradient, atol=1e-6, rtol=1e-3)

    def gradients(self, loaded, media, *, cached=True):
        trainer, trainables = make_trainer(loaded, media)
        trainer._fusion.eval()  # no dropout
        for trainable in trainables.values():  # an adapter that is zero would hide half of its gradient
            for p in trainable.parameters:
                torch.nn.init.normal_(p, std=0.1)
        batch = next(TrainingBatches(media, taken(4, [0, 1], [1, 2]), 4, 0).batches())
        trainer._optimizer.step = lambda: None
        trainer._random = np.random.default_rng(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.zeros(()))
            if cached:
                trainer._step(batch, 1)
            else:
                chosen = trainer._choose(batch.rows)
                vectors = {m: adapting_vectors(loaded, m, own) for m, own in chosen.items()}
                trainer._loss(adaptation._padded(vectors, chosen, len(batch.rows)), batch).backward()
        return {
            f"{m} {name}": p.grad
            for m, trainable in trainables.items()
            for name, p in trainable.encoder.network.named_parameters()
            if p.requires_grad
        }

    def test_one_seed_one_result(self, preset):
        def losses(seed):
            loaded = load_preset_encoders(load_preset(preset), device="cpu", precision="float32")
            media = make_material()
            trainer, _ = make_trainer(loaded, media, seed)
            training_batches = TrainingBatches(media, None, 4, seed)
            trainer.fit_fusion(training_batches)
            return [trainer.run_epoch(training_batches, epoch) for epoch in range(2)]

        assert losses(0) == losses(0) != losses(1)

    def test_a_loss_that_is_not_finite_stops(self, loaded):
        media = make_material()
        trainer, _ = make_trainer(loaded, media, learning_rate=1e20)
        training_batches = TrainingBatches(media, None, 8, 0)
        with pytest.raises(MMRecError, match=r"the loss became .*lower the learning rate"):
            for epoch in range(5):
                trainer.run_epoch(training_batches, epoch)


def adapting_vectors(loaded, modality, chosen):
    """The vectors of parts, one by one, with gradients."""
    return torch.cat([loaded.encoders[modality].forward(adaptation._stacked([part])) for part in chosen.parts])


def taken(num_items, *users):
    """Interactions."""
    rows = np.zeros((len(users), num_items), np.float32)
    for user, items in enumerate(users):
        rows[user, items] = 1
    return sp.csr_array(rows)


class TestTrainingBatches:
    def words(self, *rows, num_items):
        parts = {row: Parts(["a dog"], np.zeros(1, np.float32)) for row in rows}
        return CatalogMedia([f"i{row}" for row in range(num_items)], {"visual": {}, "text": parts})

    def test_every_item_once(self):
        training_batches = TrainingBatches(make_material(11), None, 4, 0)
        sizes = [len(batch.rows) for batch in training_batches.batches()]
        assert sorted(sizes) == [5, 6]
        assert sorted(row for batch in training_batches.batches() for row in batch.rows) == list(range(11))

    def test_companions_are_of_one_user_and_what_a_user_took_is_no_negative(self):
        media = self.words(*range(6), num_items=7)
        users = [{0, 1, 2}, {2, 3}, {4, 6}]  # nobody took 5; 6 has no content, so that 4 has no positive
        training_batches = TrainingBatches(media, taken(7, *map(list, users)), 2, 0)
        assert training_batches.rows.tolist() == [0, 1, 2, 3]
        for _ in range(20):
            for batch in training_batches.batches():
                targets, positives = batch.rows[batch.anchors_Q], batch.rows[batch.positives_Q]
                assert all(
                    a != b and any({a, b} <= user for user in users) for a, b in zip(targets, positives, strict=True)
                )
                excluded = {(int(query), int(targets[other])) for query, other in batch.excluded}
                for query, (target, positive) in enumerate(zip(targets, positives, strict=True)):
                    if positive in targets:
                        assert (query, positive) in excluded
                    assert (query, target) not in excluded

    def test_nothing_to_learn_from(self):
        media = self.words(0, 1, num_items=3)
        with pytest.raises(MMRecError, match="0 of 3 items have content in two of visual, text"):
            TrainingBatches(media, None, 2, 0)
        with pytest.raises(MMRecError, match="no user interacted with two items"):
            TrainingBatches(media, taken(3, [0, 2], [1]), 2, 0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ({"train": "some"}, "adapters, all"),
            ({"rank": 0}, "rank is 0"),
            ({"epochs": 0}, "epochs is 0"),
            ({"batch_size": 1}, "batch_size is 1"),
            ({"learning_rate": float("nan")}, "learning rate is nan"),
        ],
    )
    def test_options(self, option, words, catalog, preset, tmp_path):
        with pytest.raises(MMRecError, match=words):
            adapt(catalog, preset=preset, out=tmp_path, **option)

    def test_out_is_in_use(self, catalog, preset, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(MMRecError, match="is not empty"):
            adapt(catalog, preset=preset, out=tmp_path)
        with pytest.raises(MMRecError, match="cannot be written"):
            adapt(catalog, preset=preset, out=tmp_path / "file" / "out")

    def test_encoders_without_weights(self, catalog, tmp_path):
        preset = write_preset(tmp_path / "p.yaml", visual={"kind": "descriptors"}, text={"kind": "hashed-ngrams"})
        with pytest.raises(EncoderError, match="no encoder with weights to adapt, only descriptors, hashed-ngrams"):
            adapt(catalog, preset=preset, out=tmp_path / "out", device="cpu")

    def test_an_adapter_on_an_adapter(self, catalog, loaded, tmp_path):
        media = make_material(2)
        _, trainables = make_trainer(loaded, media)
        path = adaptation._write(tmp_path, loaded, trainables)
        with pytest.raises(EncoderError, match="has an adapter already"):
            adapt(catalog, preset=path, out=tmp_path / "out", device="cpu")

    def test_more_media_than_memory(self, catalog, preset, tmp_path):
        with pytest.raises(MMRecError, match=r"take more than .* GiB: adapt to a part of the catalog"):
            adapt(catalog, preset=preset, out=tmp_path, memory_bytes=20_000, device="cpu", limits=ONE_WORKER)
