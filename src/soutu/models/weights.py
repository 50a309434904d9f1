"""Read both towers out of a checkpoint, from its tensors and its configuration alone.

Checkpoints are laid out as open_clip or as the transformers library save them; of the latter
also texts' towers of their own, BERT and DistilBERT. What the configuration leaves out is that
library's default. Nothing is guessed: a part that this module does not know raises BadInput.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from soutu.errors import BadInput
from soutu.models.graph import AttentionPool, Block, ImageTower, Linear, Norm, Stack, TextTower
from soutu.types import Floats

Config = Mapping[str, Any]

ACTIVATIONS = {
    "gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip
# timm's image towers of SigLIP and SigLIP2, whose heads and activation no file names.
SIGLIP_TOWERS = {
    "vit_base_patch32_siglip_256": (12, "gelu_tanh"),
    "vit_base_patch16_siglip_224": (12, "gelu"),
    "vit_base_patch16_siglip_256": (12, "gelu"),
    "vit_base_patch16_siglip_384": (12, "gelu"),
    "vit_base_patch16_siglip_512": (12, "gelu"),
    "vit_large_patch16_siglip_256": (16, "gelu"),
    "vit_large_patch16_siglip_384": (16, "gelu"),
    "vit_large_patch16_siglip_512": (16, "gelu_tanh"),
    "vit_so400m_patch14_siglip_224": (16, "gelu"),
    "vit_so400m_patch14_siglip_378": (16, "gelu"),
    "vit_so400m_patch14_siglip_384": (16, "gelu"),
    "vit_so400m_patch16_siglip_256": (16, "gelu_tanh"),
    "vit_so400m_patch16_siglip_384": (16, "gelu_tanh"),
    "vit_so400m_patch16_siglip_512": (16, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": (16, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_384": (16, "gelu_tanh"),
}
SIGLIP_EPS = 1e-6
# The text models of open_clip's multilingual CLIPs: their configurations are not in the checkpoint.
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {"model_type": "xlm-roberta", "num_attention_heads": 12},
    "xlm-roberta-large": {"model_type": "xlm-roberta", "num_attention_heads": 16},
    "roberta-base": {"model_type": "roberta", "num_attention_heads": 12},
}
_ROBERTA = {"layer_norm_eps": 1e-5, "pad_token_id": 1}
# What an option of open_clip's configurations must be: else it is another architecture …
_PLAIN: dict[str, object] = {
    "attentional_pool": False, "pos_embed_type": "learnable", "block_type": None, "qk_norm": False,
    "scaled_cosine_attn": False, "scale_heads": False, "scale_attn_inner": False,
    "scale_attn": False, "scale_fc": False, "embed_cls": False,
}  # fmt: skip
# … and what is read below, or changes nothing here.
_OPTIONS = {
    "image_size", "patch_size", "layers", "width", "heads", "head_width", "mlp_ratio", "no_ln_pre",
    "ls_init_value", "act_kwargs", "norm_kwargs", "final_ln_after_pool", "pool_type", "proj_type",
    "proj_bias", "context_length", "vocab_size", "no_causal_mask", "hf_tokenizer_name",
    "tokenizer_mode", "tokenizer_kwargs", "pad_id", "eos_id", "output_tokens", "patch_dropout",
    "attn_pooler_queries", "attn_pooler_heads",
}  # fmt: skip


def open_clip_towers(
    tensors: Mapping[str, Floats], config: Config, text_model: Config | None = None
) -> tuple[ImageTower, TextTower]:
    """Read a checkpoint of open_clip.

    Parameters
    ----------
    tensors
        By name, as PyTorch lays them out: a linear layer is (out, in).
    config
        Of the model: ``model_cfg`` in ``open_clip_config.json``.
    text_model
        The configuration of the transformers library's text model, where the text tower is one
        that ``TEXT_MODELS`` does not have.

    Raises
    ------
    BadInput
        For an architecture that is none of these, or a tensor that is absent.
    """
    weights, text = _Weights(tensors), config["text_cfg"]
    visual = weights.below("visual.")
    if name := config["vision_cfg"].get("timm_model_name"):
        images = _timm_vision(visual, name, config["vision_cfg"])
    else:
        images = _open_clip_vision(visual, config)
    inner = weights.below("text.")
    if text.get("hf_model_name"):
        return images, _open_clip_bert(inner, text, text_model)
    return images, _open_clip_text(inner if len(inner) else weights, config)


def transformers_towers(
    tensors: Mapping[str, Floats], config: Config
) -> tuple[ImageTower, TextTower]:
    """Read a CLIP, SigLIP (also SigLIP2 of one resolution) or Chinese-CLIP of transformers.

    ``config`` is its ``config.json``; otherwise as ``open_clip_towers``.
    """
    weights, kind = _Weights(tensors), str(config.get("model_type"))
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    if kind == "siglip":
        return _siglip_vision(weights, vision), _siglip_text(weights, text)
    if kind not in ("clip", "chinese_clip"):
        raise _unsupported(f"model_type {kind}")
    images = _clip_vision(weights, vision)
    if kind == "clip":
        return images, _clip_text(weights, text)
    projection = (weights.linear("text_projection"),)
    return images, _bert(weights.below("text_model."), text, projection, "first")


def text_tower(
    tensors: Mapping[str, Floats], config: Config, dense: Mapping[str, Floats] | None = None
) -> TextTower:
    """Read a text tower that was trained against the image tower of another model.

    Parameters
    ----------
    tensors, config
        A BERT of transformers whose classifier gives the vector (Taiyi's), or a DistilBERT.
    dense
        The layer behind the DistilBERT's mean, as sentence-transformers saves it.
    """
    weights = _Weights(tensors)
    if config.get("model_type") == "distilbert" and dense is not None:
        return _distilbert(weights, config, (_Weights(dense).linear("linear"),))
    if config.get("model_type") == "bert" and "classifier.weight" in weights:
        layers = weights.linear("bert.pooler.dense"), weights.linear("classifier")
        return _bert(weights.below("bert."), config, layers, "first", between="tanh")
    raise _unsupported(f"text model {config.get('model_type')}")


class _Weights:
    """The tensors whose names begin with a prefix."""

    def __init__(self, tensors: Mapping[str, Floats], prefix: str = "") -> None:
        self._tensors, self._prefix = tensors, prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def __getitem__(self, name: str) -> Floats:
        try:
            return self._tensors[self._prefix + name]
        except KeyError:
            raise _unsupported(f"without the tensor {self._prefix}{name}") from None

    def __len__(self) -> int:
        return sum(name.startswith(self._prefix) for name in self._tensors)

    def below(self, prefix: str) -> _Weights:
        return _Weights(self._tensors, self._prefix + prefix)

    def blocks(self, prefix: str) -> Iterator[_Weights]:
        """Yield the numbered parts below ``prefix``, from 0 on."""
        for number in range(len(self._tensors)):
            block = self.below(f"{prefix}{number}.")
            if not len(block):
                return
            yield block

    def linear(self, *names: str, weight: str = ".weight", bias: str = ".bias") -> Linear:
        """Read a linear layer, or several side by side."""
        rows = np.concatenate([self[name + weight] for name in names])
        biases = [
            self[name + bias] if name + bias in self else np.zeros(len(self[name + weight]))
            for name in names
        ]
        joined = np.concatenate(biases).astype(np.float32)
        return Linear(np.ascontiguousarray(rows.T), joined)

    def scaled(self, name: str, scale: str) -> Linear:
        """Read a linear layer and fold in the layer scale behind it, if there is one."""
        layer = self.linear(name)
        if scale not in self:
            return layer
        return Linear(layer.weight * self[scale], layer.bias * self[scale])

    def norm(self, name: str, eps: float) -> Norm:
        return Norm(np.array(self[f"{name}.weight"]), np.array(self[f"{name}.bias"]), eps)

    def optional_norm(self, name: str, eps: float) -> Norm | None:
        return self.norm(name, eps) if f"{name}.weight" in self else None

    def patch(self, name: str) -> Linear:
        """Read the first convolution: to (row, column, colour) side by side."""
        kernel = self[f"{name}.weight"]
        rows = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)).reshape(-1, len(kernel))
        has_bias = f"{name}.bias" in self
        return Linear(
            rows, np.array(self[f"{name}.bias"]) if has_bias else np.zeros(len(kernel), np.float32)
        )

    def patch_size(self, name: str) -> int:
        return int(self[f"{name}.weight"].shape[-1])


# open_clip's own towers


def _open_clip_vision(weights: _Weights, config: Config) -> ImageTower:
    vision = config["vision_cfg"]
    _require_plain(vision)
    if vision.get("pool_type", "tok") != "tok":
        raise _unsupported(f"pool_type {vision['pool_type']}")
    size, width = vision.get("image_size", 224), int(vision.get("width", 768))
    sides = size if isinstance(size, (list, tuple)) else [size, size]
    if sides[0] != sides[-1]:
        raise _unsupported(f"image_size {size}")
    heads = width // int(vision.get("head_width", 64))
    return ImageTower(
        image_size=int(sides[0]),
        patch_size=weights.patch_size("conv1"),
        patch=weights.patch("conv1"),
        class_token=np.array(weights["class_embedding"]),
        positions=np.array(weights["positional_embedding"]),
        pre_norm=weights.optional_norm("ln_pre", _open_clip_eps(vision)),
        stack=_open_clip_stack(weights, heads, vision, config),
        post_norm=weights.optional_norm("ln_post", _open_clip_eps(vision)),
        head=None,
        projections=_open_clip_projection(weights, "proj"),
    )


def _open_clip_text(weights: _Weights, config: Config) -> TextTower:
    text = config["text_cfg"]
    _require_plain(text)
    pool = text.get("pool_type", "argmax")
    if pool not in ("argmax", "first", "last"):
        raise _unsupported(f"pool_type {pool}")
    return TextTower(
        tokens=weights["token_embedding.weight"],
        positions=np.array(weights["positional_embedding"]),
        pre_norm=None,
        stack=_open_clip_stack(weights, int(text.get("heads", 8)), text, config),
        post_norm=weights.optional_norm("ln_final", _open_clip_eps(text)),
        projections=_open_clip_projection(weights, "text_projection"),
        pool="end" if pool == "argmax" else pool,
        causal=not text.get("no_causal_mask", False),
    )


def _open_clip_stack(weights: _Weights, heads: int, tower: Config, config: Config) -> Stack:
    eps, blocks = _open_clip_eps(tower), []
    for block in weights.blocks("transformer.resblocks."):
        blocks.append(
            Block(
                norm1=block.norm("ln_1", eps),
                qkv=block.linear("attn.in_proj", weight="_weight", bias="_bias"),
                out=block.scaled("attn.out_proj", "ls_1.gamma"),
                norm2=block.norm("ln_2", eps),
                up=block.linear("mlp.c_fc"),
                down=block.scaled("mlp.c_proj", "ls_2.gamma"),
            )
        )
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    options = tower.get("act_kwargs") or {}
    if options == {"approximate": "tanh"} and activation == "gelu":
        activation = "gelu_tanh"
    elif options:
        raise _unsupported(f"{activation} with {options}")
    return Stack(tuple(blocks), heads, activation)


def _open_clip_eps(tower: Config) -> float:
    return float((tower.get("norm_kwargs") or {}).get("eps", 1e-5))


def _open_clip_projection(weights: _Weights, name: str) -> tuple[Linear, ...]:
    """Read a parameter (in, out), a linear layer, or nothing."""
    if f"{name}.weight" in weights:
        return (weights.linear(name),)
    if name not in weights:
        return ()
    matrix = np.array(weights[name])
    return (Linear(matrix, np.zeros(matrix.shape[1], np.float32)),)


def _open_clip_bert(weights: _Weights, text: Config, text_model: Config | None) -> TextTower:
    name = str(text["hf_model_name"]).rpartition("/")[2]
    config = text_model or TEXT_MODELS.get(name)
    pools = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}
    pooler, projection = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    if config is None or config.get("model_type") not in ("bert", "roberta", "xlm-roberta"):
        raise _unsupported(f"text model {name}")
    if pooler not in pools or projection not in ("mlp", "linear"):
        raise _unsupported(f"{pooler}, {projection}")
    names = ("proj.0", "proj.2") if projection == "mlp" else ("proj",)
    layers = tuple(weights.linear(layer) for layer in names)
    return _bert(weights.below("transformer."), config, layers, pools[pooler])


# timm's image tower of SigLIP: no class token, pooled by attention


def _timm_vision(weights: _Weights, name: str, vision: Config) -> ImageTower:
    if name not in SIGLIP_TOWERS or vision.get("timm_pool") != "map":
        raise _unsupported(f"image tower {name}, pool {vision.get('timm_pool')}")
    if vision.get("timm_proj", "linear") != "none":
        raise _unsupported(f"image tower {name}, projection {vision.get('timm_proj')}")
    (heads, activation), trunk = SIGLIP_TOWERS[name], weights.below("trunk.")
    blocks = [
        Block(
            norm1=block.norm("norm1", SIGLIP_EPS),
            qkv=block.linear("attn.qkv"),
            out=block.scaled("attn.proj", "ls1.gamma"),
            norm2=block.norm("norm2", SIGLIP_EPS),
            up=block.linear("mlp.fc1"),
            down=block.scaled("mlp.fc2", "ls2.gamma"),
        )
        for block in trunk.blocks("blocks.")
    ]
    pool, positions = trunk.below("attn_pool."), np.array(trunk["pos_embed"])[0]
    query = pool.linear("q")
    patch_size = trunk.patch_size("patch_embed.proj")
    return ImageTower(
        image_size=_image_size(positions, patch_size),
        patch_size=patch_size,
        patch=trunk.patch("patch_embed.proj"),
        class_token=None,
        positions=positions,
        pre_norm=trunk.optional_norm("norm_pre", SIGLIP_EPS),
        stack=Stack(tuple(blocks), heads, activation),
        post_norm=trunk.optional_norm("norm", SIGLIP_EPS),
        head=AttentionPool(
            query=(pool["latent"].reshape(-1) @ query.weight + query.bias).astype(np.float32),
            kv=pool.linear("kv"),
            out=pool.linear("proj"),
            norm=pool.norm("norm", SIGLIP_EPS),
            up=pool.linear("mlp.fc1"),
            down=pool.linear("mlp.fc2"),
        ),
        projections=(),
    )


def _image_size(positions: Floats, patch_size: int) -> int:
    """Return the side of the square whose patches have these positions."""
    return math.isqrt(len(positions)) * patch_size


# transformers' towers


def _clip_vision(weights: _Weights, config: Config) -> ImageTower:
    vision, eps = weights.below("vision_model."), float(config.get("layer_norm_eps", 1e-5))
    return ImageTower(
        image_size=int(config.get("image_size", 224)),
        patch_size=vision.patch_size("embeddings.patch_embedding"),
        patch=vision.patch("embeddings.patch_embedding"),
        class_token=np.array(vision["embeddings.class_embedding"]),
        positions=np.array(vision["embeddings.position_embedding.weight"]),
        pre_norm=vision.norm("pre_layrnorm", eps),  # spelt so in all files
        stack=_clip_stack(vision, config, heads=12, activation="quick_gelu", eps=eps),
        post_norm=vision.norm("post_layernorm", eps),
        head=None,
        projections=(weights.linear("visual_projection"),),
    )


def _clip_text(weights: _Weights, config: Config) -> TextTower:
    text, eps = weights.below("text_model."), float(config.get("layer_norm_eps", 1e-5))
    return TextTower(
        tokens=text["embeddings.token_embedding.weight"],
        positions=np.array(text["embeddings.position_embedding.weight"]),
        pre_norm=None,
        stack=_clip_stack(text, config, heads=8, activation="quick_gelu", eps=eps),
        post_norm=text.norm("final_layer_norm", eps),
        projections=(weights.linear("text_projection"),),
        pool="end",
        causal=True,
    )


def _siglip_vision(weights: _Weights, config: Config) -> ImageTower:
    vision, eps = weights.below("vision_model."), float(config.get("layer_norm_eps", 1e-6))
    head, positions = vision.below("head."), vision["embeddings.position_embedding.weight"]
    joined = head.linear("attention.in_proj", weight="_weight", bias="_bias")
    width = joined.weight.shape[0]
    probe = head["probe"].reshape(-1) @ joined.weight[:, :width] + joined.bias[:width]
    return ImageTower(
        image_size=int(config.get("image_size", 224)),
        patch_size=vision.patch_size("embeddings.patch_embedding"),
        patch=vision.patch("embeddings.patch_embedding"),
        class_token=None,
        positions=np.array(positions),
        pre_norm=None,
        stack=_clip_stack(vision, config, heads=12, activation="gelu_pytorch_tanh", eps=eps),
        post_norm=vision.norm("post_layernorm", eps),
        head=AttentionPool(
            query=probe.astype(np.float32),
            kv=Linear(np.ascontiguousarray(joined.weight[:, width:]), joined.bias[width:]),
            out=head.linear("attention.out_proj"),
            norm=head.norm("layernorm", eps),
            up=head.linear("mlp.fc1"),
            down=head.linear("mlp.fc2"),
        ),
        projections=(),
    )


def _siglip_text(weights: _Weights, config: Config) -> TextTower:
    text, eps = weights.below("text_model."), float(config.get("layer_norm_eps", 1e-6))
    return TextTower(
        tokens=text["embeddings.token_embedding.weight"],
        positions=np.array(text["embeddings.position_embedding.weight"]),
        pre_norm=None,
        stack=_clip_stack(text, config, heads=12, activation="gelu_pytorch_tanh", eps=eps),
        post_norm=text.norm("final_layer_norm", eps),
        projections=(text.linear("head"),),
        pool="last",
        causal=False,
    )


def _clip_stack(
    weights: _Weights, config: Config, *, heads: int, activation: str, eps: float
) -> Stack:
    """Read the blocks of CLIP or SigLIP; the keywords are what their configurations omit."""
    blocks = [
        Block(
            norm1=block.norm("layer_norm1", eps),
            qkv=block.linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out=block.linear("self_attn.out_proj"),
            norm2=block.norm("layer_norm2", eps),
            up=block.linear("mlp.fc1"),
            down=block.linear("mlp.fc2"),
        )
        for block in weights.blocks("encoder.layers.")
    ]
    heads = int(config.get("num_attention_heads", heads))
    return Stack(tuple(blocks), heads, _activation(config.get("hidden_act", activation)))


def _bert(
    weights: _Weights,
    config: Config,
    projections: tuple[Linear, ...],
    pool: str,
    *,
    between: str = "gelu",
) -> TextTower:
    """Read a BERT; RoBERTa's positions begin behind the id of its padding."""
    is_roberta = "roberta" in str(config.get("model_type"))
    config = {**(_ROBERTA if is_roberta else {}), **config}
    eps, pad_id = float(config.get("layer_norm_eps", 1e-12)), int(config.get("pad_token_id") or 0)
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise _unsupported(f"position_embedding_type {config['position_embedding_type']}")
    start = pad_id + 1 if is_roberta else 0
    embeddings = weights.below("embeddings.")
    positions = embeddings["position_embeddings.weight"][start:]
    blocks = [
        Block(
            norm1=layer.norm("attention.output.LayerNorm", eps),
            qkv=layer.linear(*(f"attention.self.{part}" for part in ("query", "key", "value"))),
            out=layer.linear("attention.output.dense"),
            norm2=layer.norm("output.LayerNorm", eps),
            up=layer.linear("intermediate.dense"),
            down=layer.linear("output.dense"),
        )
        for layer in weights.blocks("encoder.layer.")
    ]
    heads = int(config.get("num_attention_heads", 12))
    activation = _activation(config.get("hidden_act", "gelu"))
    return TextTower(
        tokens=embeddings["word_embeddings.weight"],
        positions=positions + embeddings["token_type_embeddings.weight"][0],
        pre_norm=embeddings.norm("LayerNorm", eps),
        stack=Stack(tuple(blocks), heads, activation, norm_last=True),
        post_norm=None,
        projections=projections,
        between=between,
        pool=pool,
        causal=False,
        pad_id=pad_id,
    )


def _distilbert(weights: _Weights, config: Config, projections: tuple[Linear, ...]) -> TextTower:
    eps, embeddings = 1e-12, weights.below("embeddings.")
    blocks = [
        Block(
            norm1=layer.norm("sa_layer_norm", eps),
            qkv=layer.linear(*(f"attention.{part}_lin" for part in "qkv")),
            out=layer.linear("attention.out_lin"),
            norm2=layer.norm("output_layer_norm", eps),
            up=layer.linear("ffn.lin1"),
            down=layer.linear("ffn.lin2"),
        )
        for layer in weights.blocks("transformer.layer.")
    ]
    heads = int(config.get("n_heads", 12))
    return TextTower(
        tokens=embeddings["word_embeddings.weight"],
        positions=np.array(embeddings["position_embeddings.weight"]),
        pre_norm=embeddings.norm("LayerNorm", eps),
        stack=Stack(tuple(blocks), heads, _activation(config.get("activation", "gelu")), True),
        post_norm=None,
        projections=projections,
        pool="mean",
        causal=False,
        pad_id=int(config.get("pad_token_id") or 0),
    )


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise _unsupported(f"activation {name}")
    return ACTIVATIONS[name]


def _require_plain(tower: Config) -> None:
    """Raise BadInput where a configuration says what this module does not build."""
    for name, value in tower.items():
        if name not in _OPTIONS and (name not in _PLAIN or value != _PLAIN[name]):
            raise _unsupported(f"{name} {value}")
    if not isinstance(tower.get("layers", 12), int):  # a ResNet
        raise _unsupported(f"layers {tower['layers']}")


def _unsupported(what: str) -> BadInput:
    return BadInput("export-unsupported", kind=what)
