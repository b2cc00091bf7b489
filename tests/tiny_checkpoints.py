"""Writes small checkpoints with random weights in the real formats of the libraries that own them."""

import json
from pathlib import Path

import torch

WORDS = (
    "a an the dog cat bird piano song runs sleeps sings in on by and of park sea house quiet loud music "
    "狗 猫 鸟 歌 公 园"
).split()


def write_open_clip(folder: Path, *, seed: int = 0, **preprocessing) -> Path:
    """An open_clip folder; keywords replace parts of its preprocessing."""
    import open_clip
    from safetensors.torch import save_file

    model_config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    preprocess_config = {
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    torch.manual_seed(seed)
    model = open_clip.CLIP(**model_config)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess_config | preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(_contiguous(model), folder / "open_clip_model.safetensors")
    return folder


def write_wav2vec2(folder: Path, family: str = "wav2vec2", *, do_normalize: bool = True, seed: int = 0) -> Path:
    """A folder of "wav2vec2", "hubert", "wavlm" or "data2vec-audio", with the extractor of features."""
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 3),
        conv_stride=(5, 4, 4),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return folder


def write_clap(folder: Path, *, fused: bool = False, seed: int = 0) -> Path:
    """A CLAP folder with its extractor of features and its tokenizer."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    config = ClapConfig(
        text_config={
            "vocab_size": len(WORDS) + 5,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
        },
        audio_config={
            "spec_size": 64,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "hidden_size": 32,
            "window_size": 4,
            "num_mel_bins": 16,
            "enable_fusion": fused,
        },
        projection_dim=24,
    )
    torch.manual_seed(seed)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16, max_length_s=2, truncation="fusion" if fused else "rand_trunc"
    ).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def write_bert(folder: Path, *, seed: int = 0) -> Path:
    """A bare BERT with its tokenizer."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def write_e5(folder: Path) -> Path:
    """A folder as that of multilingual E5: a BERT, the tokenizer of XLM-R, means, unit norm."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, XLMRobertaTokenizer

    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        ":",
        *(f"▁{word}" for word in [*WORDS, "query", "passage"]),
        "<mask>",
    ]
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=2,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer = XLMRobertaTokenizer(vocab=[(piece, -float(at)) for at, piece in enumerate(pieces)], model_max_length=64)
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def write_siglip2(folder: Path) -> Path:
    """An open_clip folder as that of SigLIP 2: a tower of timm, and a tower for text with a tokenizer in the folder."""
    import open_clip
    from safetensors.torch import save_file

    model_config = {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": len(WORDS) + 5,
            "hf_tokenizer_name": "someone/siglip2",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 64,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    preprocess_config = {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{name: value for name, value in model_config.items() if name != "custom_text"})
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess_config}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(_contiguous(model), folder / "open_clip_model.safetensors")
    _tokenizer().save_pretrained(folder)
    return folder


def write_chat_model(folder: Path, *, context: int = 4096, template: str | None = None, seed: int = 0) -> Path:
    """A causal language model of bytes, with a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = _byte_tokenizer()
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    fast.chat_template = turns if template is None else template
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=1,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_gguf_model(path: Path, *, context: int = 4096, template: str | None = None, seed: int = 0) -> Path:
    """A causal language model of bytes with a chat template, as one GGUF file."""
    import numpy as np
    from gguf import GGUFWriter, TokenType

    tokens = [*_byte_vocabulary(), "Ġt"]
    width, hidden, layers = 32, 64, 2
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_block_count(layers)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(width // 2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    if template != "":
        writer.add_chat_template(template or turns)
    random = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.2, shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    add("token_embd", len(tokens), width)
    for layer in range(layers):
        for part in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{part}", width)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}", width, width)
        for part in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{part}", hidden, width)
        add(f"blk.{layer}.ffn_down", width, hidden)
    add("output_norm", width)
    add("output", len(tokens), width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_language_model(folder: Path, family: str = "qwen3", *, padding_side: str = "left", seed: int = 0) -> Path:
    """A causal language model of bytes: "qwen3", "mistral" or "gpt2"; only Qwen's tokenizer has a token for padding."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = _byte_tokenizer(pad_token="<pad>" if family == "qwen3" else None)
    tokenizer.padding_side = padding_side
    shared = {"vocab_size": len(tokenizer) + 1, "eos_token_id": 0, "bos_token_id": None, "pad_token_id": None}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    if family == "gpt2":
        config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=2, n_positions=512, **shared)
    else:
        sizes |= {"intermediate_size": 64, "max_position_embeddings": 512, "head_dim": 16}
        config = AutoConfig.for_model(family, **sizes, **shared)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # weights that make vectors differ as those of trained models do
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_embedding_model(folder: Path, family: str = "qwen3", **options) -> Path:
    """A folder as those of Qwen3-Embedding, E5-Mistral and GTE: the last token, unit norm, instructions for queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(write_language_model(folder / "bare", family, **options)))
    name = {"qwen3": "query", "mistral": "web_search_query"}[family]
    if transformer.tokenizer.pad_token is None:
        transformer.tokenizer.pad_token = "<end>"
    modules = [transformer, Pooling(32, pooling_mode="lasttoken"), Normalize()]
    prompts = {name: "Instruct: Find what fits.\nQuery: ", "document": ""}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(
        str(folder / "model"), create_model_card=False
    )
    file = folder / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_eos_token": True}))
    return folder / "model"


def write_sentence_transformer(folder: Path, *, pooling: str = "mean", prompts: dict[str, str] | None = None) -> Path:
    """A sentence-transformers folder: transformer, pooling, a dense layer, unit norm, and prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    transformer = Transformer(str(write_bert(folder / "bert")), max_seq_length=24)
    torch.manual_seed(1)
    modules = [transformer, Pooling(32, pooling_mode=pooling), Dense(32, 20), Normalize()]
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(
        str(folder / "model"), create_model_card=False
    )
    return folder / "model"


def write_adapter(folder: Path, model: torch.nn.Module, target_modules: list[str], *, seed: int = 0) -> Path:
    """A LoRA adapter, with weights that matter, for the named layers of a model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    get_peft_model(model, LoraConfig(r=2, target_modules=target_modules, init_lora_weights=False)).save_pretrained(
        folder
    )
    return folder


def _byte_vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    return ["<end>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]


def _byte_tokenizer(**special):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: at for at, token in enumerate(_byte_vocabulary())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"eos_token": "<end>", "pad_token": "<pad>"} | special)


def _tokenizer():
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=40)


def _contiguous(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
