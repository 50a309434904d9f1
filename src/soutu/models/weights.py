"""Read the towers' weights out of PyTorch models: open_clip's, timm's and transformers'.

Modules are told by the names of their classes, so that no library need be imported here. What
cannot be exported raises BadInput.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from soutu.errors import BadInput
from soutu.models.graph import AttentionPool, Block, ImageTower, Linear, Norm, Stack, TextTower
from soutu.types import Floats

_HF_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}
_CLIP_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def image_tower(model: Any) -> ImageTower:
    """Read the image tower of an open_clip ``model``, which must be a vision transformer."""
    visual = model.visual
    if type(visual).__name__ == "VisionTransformer":
        return _vision_transformer(visual)
    trunk = getattr(visual, "trunk", None)
    if type(trunk).__name__ == "VisionTransformer" and not len(visual.head):
        return _timm_transformer(trunk)
    raise _unsupported(trunk if trunk is not None else visual)


def text_tower(model: Any) -> TextTower:
    """Read the text tower of an open_clip ``model``: CLIP's own, or transformers' BERT, XLM-R."""
    tower = getattr(model, "text", model)
    if type(tower).__name__ == "HFTextEncoder":
        kind, pooler = tower.config.model_type, type(tower.pooler).__name__
        _require(tower, kind in ("bert", "roberta", "xlm-roberta"), f"text model {kind}")
        pools = {"MeanPooler": "mean", "ClsLastHiddenStatePooler": "first"}
        _require(tower, pooler in pools, pooler)
        layers = (m for m in tower.proj.modules() if type(m).__name__ == "Linear")
        projections = tuple(_linear(layer) for layer in layers)
        return _bert(tower.transformer, tower.config, projections, pools[pooler])
    if not hasattr(tower, "token_embedding"):
        raise _unsupported(tower)
    return _text_transformer(tower)


def chinese_clip_towers(model: Any) -> tuple[ImageTower, TextTower]:
    """Read both towers of transformers' ``ChineseCLIPModel``."""
    vision, config = model.vision_model, model.config.vision_config
    blocks = []
    for layer in vision.encoder.layers:
        attention, mlp = layer.self_attn, (layer.mlp.fc1, layer.mlp.fc2)
        qkv = _concatenate(attention.q_proj, attention.k_proj, attention.v_proj)
        blocks.append(_block(layer.layer_norm1, qkv, attention.out_proj, layer.layer_norm2, *mlp))
    heads, activation = config.num_attention_heads, _hf_activation(vision, config)
    images = ImageTower(
        image_size=config.image_size,
        patch_size=config.patch_size,
        patch=_patch(vision.embeddings.patch_embedding),
        class_token=_array(vision.embeddings.class_embedding),
        positions=_array(vision.embeddings.position_embedding.weight),
        pre_norm=_norm(vision.pre_layrnorm),
        stack=Stack(tuple(blocks), heads, activation),
        post_norm=_norm(vision.post_layernorm),
        head=None,
        projections=(_linear(model.visual_projection),),
    )
    projections = (_linear(model.text_projection),)
    return images, _bert(model.text_model, model.config.text_config, projections, "first")


def clip_tokenizer(simple: Any) -> Tokenizer:
    """Convert open_clip's ``SimpleTokenizer``: the same ids for a text that it has cleaned."""
    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(models.BPE(dict(simple.encoder), merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = (simple.decoder[i] for i in (simple.sot_token_id, simple.eot_token_id))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in (start, end)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, simple.sot_token_id), (end, simple.eot_token_id)],
    )
    return tokenizer


# open_clip's own towers


def _vision_transformer(visual: Any) -> ImageTower:
    _require(visual, visual.pool_type == "tok", "pool_type")
    _require(visual, visual.attn_pool is None, "attentional_pool")
    return ImageTower(
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        patch=_patch(visual.conv1),
        class_token=_array(visual.class_embedding),
        positions=_array(visual.positional_embedding),
        pre_norm=_optional_norm(visual.ln_pre),
        stack=_stack(visual.transformer),
        post_norm=_optional_norm(visual.ln_post),
        head=None,
        projections=_projections(visual.proj),
    )


def _text_transformer(tower: Any) -> TextTower:
    pool = getattr(tower, "pool_type", None) or tower.text_pool_type
    _require(tower, pool in ("argmax", "first", "last"), f"pool_type {pool}")
    _require(tower, getattr(tower, "cls_emb", None) is None, "embed_cls")
    _require(tower, not getattr(tower, "use_pad_mask", False), "use_pad_mask")
    return TextTower(
        tokens=_array(tower.token_embedding.weight),
        positions=_array(tower.positional_embedding),
        pre_norm=None,
        stack=_stack(tower.transformer),
        post_norm=_optional_norm(tower.ln_final),
        projections=_projections(tower.text_projection),
        pool="end" if pool == "argmax" else pool,
        causal=tower.attn_mask is not None,
    )


def _stack(transformer: Any) -> Stack:
    blocks = []
    for block in transformer.resblocks:
        _require(block, type(block).__name__ == "ResidualAttentionBlock", "block")
        attention = block.attn
        qkv = _layer(attention.in_proj_weight, attention.in_proj_bias)
        mlp, scales = block.mlp, (block.ls_1, block.ls_2)
        blocks.append(
            _block(block.ln_1, qkv, attention.out_proj, block.ln_2, mlp.c_fc, mlp.c_proj, *scales)
        )
    first = transformer.resblocks[0]
    return Stack(tuple(blocks), first.attn.num_heads, _activation(first.mlp.gelu))


# timm's tower, as SigLIP uses it: no class token, pooled by attention


def _timm_transformer(trunk: Any) -> ImageTower:
    pool = trunk.attn_pool
    _require(trunk, trunk.global_pool == "map" and pool is not None, f"pool {trunk.global_pool}")
    _require(trunk, trunk.cls_token is None and trunk.num_prefix_tokens == 0, "class token")
    _require(trunk, type(trunk.head).__name__ == "Identity", "head")
    first = trunk.blocks[0]
    blocks = tuple(
        _block(
            b.norm1, _linear(b.attn.qkv), b.attn.proj, b.norm2, b.mlp.fc1, b.mlp.fc2, b.ls1, b.ls2
        )
        for b in trunk.blocks
    )
    return ImageTower(
        image_size=trunk.patch_embed.img_size[0],
        patch_size=trunk.patch_embed.patch_size[0],
        patch=_patch(trunk.patch_embed.proj),
        class_token=None,
        positions=_array(trunk.pos_embed)[0],
        pre_norm=_optional_norm(trunk.norm_pre),
        stack=Stack(blocks, first.attn.num_heads, _activation(first.mlp.act)),
        post_norm=_optional_norm(trunk.norm),
        head=AttentionPool(
            query=_array(pool.q(pool.latent).reshape(-1)),
            kv=_linear(pool.kv),
            out=_linear(pool.proj),
            norm=_norm(pool.norm),
            up=_linear(pool.mlp.fc1),
            down=_linear(pool.mlp.fc2),
        ),
        projections=(),
    )


# transformers' towers: BERT and its kin, and Chinese-CLIP's images


def _bert(bert: Any, config: Any, projections: tuple[Linear, ...], pool: str) -> TextTower:
    """RoBERTa's positions begin behind the id of its padding."""
    embeddings = bert.embeddings
    start = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    positions = _array(embeddings.position_embeddings.weight)[start:]
    blocks = []
    for layer in bert.encoder.layer:
        attention, output = layer.attention.self, layer.attention.output
        qkv = _concatenate(attention.query, attention.key, attention.value)
        mlp = layer.intermediate.dense, layer.output.dense
        blocks.append(_block(output.LayerNorm, qkv, output.dense, layer.output.LayerNorm, *mlp))
    heads, activation = config.num_attention_heads, _hf_activation(bert, config)
    return TextTower(
        tokens=_array(embeddings.word_embeddings.weight),
        positions=positions + _array(embeddings.token_type_embeddings.weight)[0],
        pre_norm=_norm(embeddings.LayerNorm),
        stack=Stack(tuple(blocks), heads, activation, norm_last=True),
        post_norm=None,
        projections=projections,
        pool=pool,
        causal=False,
        pad_id=config.pad_token_id,
    )


def _hf_activation(module: Any, config: Any) -> str:
    name = config.hidden_act
    _require(module, name in _HF_ACTIVATIONS, f"activation {name}")
    return _HF_ACTIVATIONS[name]


# PyTorch's modules as arrays


def _block(
    norm1: Any,
    qkv: Linear,
    out: Any,
    norm2: Any,
    up: Any,
    down: Any,
    scale1: Any = None,
    scale2: Any = None,
) -> Block:
    out, down = _scale(_linear(out), scale1), _scale(_linear(down), scale2)
    return Block(_norm(norm1), qkv, out, _norm(norm2), _linear(up), down)


def _array(tensor: Any) -> Floats:
    values: Floats = tensor.detach().float().cpu().numpy()
    return values


def _layer(weight: Any, bias: Any) -> Linear:
    transposed = np.ascontiguousarray(_array(weight).T)
    zero = np.zeros(transposed.shape[1], np.float32)
    return Linear(transposed, zero if bias is None else _array(bias))


def _linear(module: Any) -> Linear:
    return _layer(module.weight, module.bias)


def _concatenate(*modules: Any) -> Linear:
    layers = [_linear(module) for module in modules]
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    return Linear(weight, np.concatenate([layer.bias for layer in layers]))


def _patch(convolution: Any) -> Linear:
    kernel = convolution.weight.permute(2, 3, 1, 0)  # to (row, column, colour, out)
    return _layer(kernel.reshape(-1, kernel.shape[-1]).T, convolution.bias)


def _projections(projection: Any) -> tuple[Linear, ...]:
    """Read a parameter (in, out), a Linear module or nothing."""
    if projection is None:
        return ()
    is_module = hasattr(projection, "weight")
    return (_linear(projection) if is_module else _layer(projection.T, None),)


def _scale(layer: Linear, scale: Any) -> Linear:
    """Fold in the layer scale behind it."""
    gamma = getattr(scale, "gamma", None)
    if gamma is None:
        return layer
    return Linear(layer.weight * _array(gamma), layer.bias * _array(gamma))


def _optional_norm(module: Any) -> Norm | None:
    return None if type(module).__name__ == "Identity" else _norm(module)


def _norm(module: Any) -> Norm:
    _require(module, hasattr(module, "weight"), "")
    return Norm(_array(module.weight), _array(module.bias), float(module.eps))


def _activation(module: Any) -> str:
    name = type(module).__name__
    if name == "GELUTanh" or (name == "GELU" and getattr(module, "approximate", "") == "tanh"):
        return "gelu_tanh"
    _require(module, name in ("GELU", "QuickGELU"), "")
    return "gelu" if name == "GELU" else "quick_gelu"


def _require(module: Any, met: bool, what: str) -> None:
    if not met:
        raise _unsupported(module, what)


def _unsupported(module: Any, what: str = "") -> BadInput:
    return BadInput("export-unsupported", kind=f"{type(module).__name__} {what}".strip())
