"""Small models with random weights, saved as their official repositories lay them out."""

import json
from pathlib import Path

import numpy as np

from tests.small_models import TEXT, VISION, load_small, word_tokenizer

BERT_WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz猫狗灰金毛，。",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]  # fmt: skip
CLIP_FAMILIES = ("clip", "quick-gelu", "layer-scale", "xlm-roberta", "siglip")


def randomize(model, seed=0):
    """Move weights and biases away from their fresh values, so that no part is without effect."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=0.05 if parameter.ndim > 1 else 0.2)
    return model.eval()


def clip_files(folder: Path) -> None:
    """CLIP's vocabulary as its repositories have it."""
    import open_clip
    from transformers import CLIPTokenizerFast

    simple = open_clip.get_tokenizer("ViT-B-32")
    ids = dict(simple.encoder)
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(token, token): i for token, i in ids.items()}
    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = "".join(f"{a} {b}\n" for a, b in merges)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(
        str(folder)
    )


def open_clip_repository(kind: str, folder: Path, *, safe: bool = True):
    """Save a model of ``KINDS`` as open_clip publishes it; return the loaded model."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    loaded = load_small(kind, folder.parent)
    config = json.loads(json.dumps(loaded.config))
    if hasattr(loaded.tokenizer, "save_pretrained"):
        tokenizer = loaded.tokenizer
    else:
        clip_files(folder)
        tokenizer = open_clip.tokenizer.HFTokenizer(str(folder))
    save_for_hf(loaded.model, tokenizer, config, str(folder), safe_serialization=safe)
    return loaded


def bert_vocabulary(folder: Path) -> None:
    """What Chinese-CLIP and Taiyi have in place of tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")


def preprocessor(folder: Path, **config: object) -> None:
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    described = {"image_mean": mean, "image_std": std, "resample": 3, **config}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def chinese_clip(folder: Path, *, safe: bool = True):
    """transformers' Chinese-CLIP with vocab.txt alone, as OFA-Sys publishes it."""
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    text = {"vocab_size": len(BERT_WORDS), "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
            "type_vocab_size": 2}  # fmt: skip
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
    config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    model = randomize(ChineseCLIPModel(config))
    _save(model, folder, safe)
    bert_vocabulary(folder)
    preprocessor(folder, size={"height": 32, "width": 32}, do_center_crop=False)
    return model


def hf_clip(folder: Path, *, safe: bool = True):
    """transformers' CLIP."""
    from transformers import CLIPConfig, CLIPModel

    activation = "quick_gelu"
    text = {"vocab_size": TEXT["vocab_size"], "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 77,
            "hidden_act": activation, "projection_dim": 24, "eos_token_id": 49407}  # fmt: skip
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": VISION["image_size"], "patch_size": 8,
              "hidden_act": activation, "projection_dim": 24}  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    model = randomize(CLIPModel(config))
    _save(model, folder, safe)
    clip_files(folder)
    preprocessor(folder, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
                 do_center_crop=True)  # fmt: skip
    return model


def hf_siglip(folder: Path, *, safe: bool = True):
    """transformers' SigLIP; SigLIP2 of one resolution is the same with another vocabulary."""
    from transformers import SiglipConfig, SiglipModel

    text = {"vocab_size": 60, "hidden_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 96,
            "max_position_embeddings": 16}  # fmt: skip
    vision = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
    model = randomize(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))
    _save(model, folder, safe)
    word_tokenizer(folder)
    preprocessor(folder, size={"height": 32, "width": 32})
    return model


def taiyi(folder: Path):
    """A Chinese BERT whose classifier gives the vector."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=len(BERT_WORDS), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64, num_labels=24,
                        max_position_embeddings=64)  # fmt: skip
    model = randomize(BertForSequenceClassification(config))
    _save(model, folder, True)
    bert_vocabulary(folder)
    return model


def sentence_tower(folder: Path):
    """A DistilBERT, its mean, and a layer behind it, as sentence-transformers saves them."""
    import torch
    from safetensors.torch import save_file
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=len(BERT_WORDS), dim=32, n_layers=2, n_heads=2,
                              hidden_dim=64, max_position_embeddings=64)  # fmt: skip
    model = randomize(DistilBertModel(config))
    _save(model, folder, True)
    bert_vocabulary(folder)
    dense = randomize(torch.nn.Linear(32, 24, bias=False))
    (folder / "2_Dense").mkdir()
    save_file({"linear.weight": dense.weight.detach()}, str(folder / "2_Dense/model.safetensors"))
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"))
    for name, part in {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(parts)
        ],
        "2_Dense/config.json": {"in_features": 32, "out_features": 24, "bias": False,
                                "activation_function": "torch.nn.modules.linear.Identity"},
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(part))
    return model, dense


def _save(model, folder: Path, safe: bool) -> None:
    import torch

    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def unit(vectors) -> np.ndarray:
    rows = vectors.detach().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
