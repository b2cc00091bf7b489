"""Writes full-size checkpoints with random weights, in the real formats, to try and to time encoders without downloads.

    python scripts/make_random_checkpoint.py FOLDER

makes FOLDER/clip-vit-b-32 (open_clip), FOLDER/wav2vec2-base (transformers), FOLDER/bert-base and FOLDER/minilm
(sentence-transformers): 1.6 GB. Their vectors mean nothing; their speed is that of the real ones.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from string import ascii_lowercase, digits, punctuation

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    writers = {
        "clip-vit-b-32": write_clip,
        "wav2vec2-base": write_wav2vec2,
        "bert-base": write_bert,
        "minilm": write_minilm,
    }
    for name, write in writers.items():
        torch.manual_seed(arguments.seed)
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        print(folder)


def write_clip(folder: Path) -> None:
    """The architecture of laion/CLIP-ViT-B-32-laion2B-s34B-b79K."""
    import open_clip
    from safetensors.torch import save_file

    model = open_clip.create_model("ViT-B-32", pretrained_text=False)
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": model.visual.preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")


def write_wav2vec2(folder: Path) -> None:
    """The architecture of facebook/wav2vec2-base-960h."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def write_bert(folder: Path) -> None:
    """The architecture of bert-base-uncased, its last layer averaged."""
    _write_sentence_transformer(folder, hidden_size=768, num_hidden_layers=12, num_attention_heads=12)


def write_minilm(folder: Path) -> None:
    """The architecture of sentence-transformers/all-MiniLM-L6-v2."""
    _write_sentence_transformer(folder, hidden_size=384, num_hidden_layers=6, num_attention_heads=12)


def _write_sentence_transformer(folder: Path, **sizes: int) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    vocabulary = _vocabulary()
    BertModel(
        BertConfig(vocab_size=len(vocabulary), intermediate_size=4 * sizes["hidden_size"], **sizes)
    ).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=256)
    modules = [transformer, Pooling(sizes["hidden_size"], pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)


def _vocabulary() -> dict[str, int]:
    """30,522 tokens, as BERT has: special ones, characters, and pairs and triples of letters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [*ascii_lowercase, *digits, *punctuation, *map(chr, range(0x4E00, 0x4E00 + 6000))]
    pieces = ["".join(letters) for length in (1, 2, 3) for letters in product(ascii_lowercase, repeat=length)]
    tokens = [*special, *characters, *(f"##{piece}" for piece in pieces)]
    tokens += [piece for piece in pieces if len(piece) > 1]
    unique = dict.fromkeys(tokens)
    return {token: number for number, token in enumerate(list(unique)[:30_522])}


if __name__ == "__main__":
    main()
