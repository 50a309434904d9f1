"""Small open_clip models of every kind that can be exported, with random weights."""

import json
import warnings
from pathlib import Path

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
WORDS = ["a", "photo", "of", "cat", "dog", "red", "猫", "狗", "灰", "金", "毛"]


def word_tokenizer(folder: Path) -> Path:
    """A tokenizer of the transformers library with a few words, BERT's special tokens and
    characters for all else."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz" if c not in WORDS]
    vocabulary = {t: i for i, t in enumerate([*special, *WORDS, *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _register(name: str, config: dict, folder: Path) -> str:
    import open_clip

    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    open_clip.add_model_config(file)
    return name


def clip(folder: Path) -> str:
    return _register(
        "soutu-test-clip", {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}, folder
    )


def quick_clip(folder: Path) -> str:
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    return _register("soutu-test-quick", config, folder)


def scaled_clip(folder: Path) -> str:
    """With layer scale, without the first norm."""
    vision = {**VISION, "ls_init_value": 0.3, "no_ln_pre": True}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    return _register("soutu-test-scaled", config, folder)


def xlm_roberta(folder: Path) -> str:
    """A multilingual text tower of transformers, masked mean, two projections."""
    text = word_tokenizer(folder / "xlm")
    (text / "config.json").write_text(
        json.dumps({
            "model_type": "xlm-roberta", "vocab_size": 60, "hidden_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 90, "type_vocab_size": 1, "pad_token_id": 0,
        })
    )  # fmt: skip
    hf = {"hf_model_name": str(text), "hf_tokenizer_name": str(text),
          "hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp"}  # fmt: skip
    return _register(
        "soutu-test-xlm", {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": hf}, folder
    )


def siglip(folder: Path) -> str:
    """timm's image tower pooled by attention; a text tower that sees its padding."""
    import timm

    if "soutu_test_siglip" not in timm.list_models():

        @timm.models.register_model
        def soutu_test_siglip(pretrained=False, **kwargs):
            given = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4,
                     "class_token": False, "global_pool": "map"}  # fmt: skip
            from timm.models.vision_transformer import VisionTransformer

            kwargs = {k: v for k, v in kwargs.items() if k in ("num_classes", "global_pool")}
            return VisionTransformer(**{**given, **kwargs})

    from soutu.models.weights import SIGLIP_TOWERS

    SIGLIP_TOWERS["soutu_test_siglip"] = (4, "gelu")
    text = {"context_length": 16, "vocab_size": 60, "width": 48, "heads": 4, "layers": 2,
            "hf_tokenizer_name": str(word_tokenizer(folder / "sig")), "no_causal_mask": True,
            "tokenizer_kwargs": {"clean": "canonicalize"}, "proj_bias": True, "pool_type": "last",
            "act_kwargs": {"approximate": "tanh"}}  # fmt: skip
    vision = {"image_size": 32, "timm_model_name": "soutu_test_siglip", "timm_pool": "map",
              "timm_proj": "none"}  # fmt: skip
    config = {"embed_dim": 48, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    return _register("soutu-test-siglip", config, folder)


KINDS = {
    "clip": clip,
    "quick-gelu": quick_clip,
    "layer-scale": scaled_clip,
    "xlm-roberta": xlm_roberta,
    "siglip": siglip,
}


def load_small(kind: str, folder: Path, seed: int = 0):
    """A loaded model of that kind, its vectors further apart than those of fresh weights."""
    import torch

    from soutu.models.open_clip import Checkpoint, load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(Checkpoint(KINDS[kind](folder), f"random:{seed}"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "logit" not in name and parameter.ndim > 0:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=0.05 if parameter.ndim > 1 else 0.2)
    return loaded
