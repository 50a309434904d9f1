"""CLIP's byte pairs, as open_clip holds them, in the form of the ``tokenizers`` library."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from soutu.errors import BadInput
from soutu.models.graph import AttentionPool, Block, ImageTower, Linear, Norm, Stack, TextTower
from soutu.types import Floats

# PyTorch modules as weights: what the readers of all libraries share.


def array(tensor: Any) -> Floats:
    values: Floats = tensor.detach().float().cpu().numpy()
    return values


def layer(weight: Any, bias: Any) -> Linear:
    kept = np.ascontiguousarray(array(weight).T)
    zero = np.zeros(kept.shape[1], np.float32)
    return Linear(kept, zero if bias is None else array(bias))


def linear(module: Any) -> Linear:
    return layer(module.weight, module.bias)


def patch(convolution: Any) -> Linear:
    kernel = convolution.weight.permute(2, 3, 1, 0)  # to (row, column, colour, out)
    flat = kernel.reshape(-1, kernel.shape[-1])
    return layer(flat.T, convolution.bias)


def projection(projection: Any) -> tuple[Linear, ...]:
    """A parameter (in, out), a Linear module or nothing."""
    if projection is None:
        return ()
    if hasattr(projection, "weight"):
        return (linear(projection),)
    return (layer(projection.T, None),)


def scaled(layer: Linear, scale: Any) -> Linear:
    """With the layer scale behind it folded in."""
    gamma = getattr(scale, "gamma", None)
    if gamma is None:
        return layer
    return Linear(layer.weight * array(gamma), layer.bias * array(gamma))


def norm(module: Any) -> Norm | None:
    if type(module).__name__ == "Identity":
        return None
    return Norm(array(module.weight), array(module.bias), float(module.eps))


def needed(module: Any) -> Norm:
    found = norm(module)
    if found is None:
        raise unsupported(module)
    return found


def act(module: Any) -> str:
    name = type(module).__name__
    if name == "QuickGELU":
        return "quick_gelu"
    if name == "GELU":
        return "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu"
    if name == "GELUTanh":
        return "gelu_tanh"
    raise unsupported(module)


def demand(module: Any, met: bool, what: str) -> None:
    if not met:
        raise unsupported(module, what)


def unsupported(module: Any, what: str = "") -> BadInput:
    kind = f"{type(module).__name__} {what}".strip()
    return BadInput("export-unsupported", kind=kind)


# Weights of transformers' models: BERT-like text towers, and Chinese-CLIP.


ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}


def chinese_clip_towers(model: Any) -> tuple[ImageTower, TextTower]:
    """Both towers of a ``ChineseCLIPModel``."""
    vision, config = model.vision_model, model.config.vision_config
    demand(vision, config.hidden_act in ACTIVATIONS, f"activation {config.hidden_act}")
    blocks = tuple(_vision_block(layer) for layer in vision.encoder.layers)
    images = ImageTower(
        size=config.image_size,
        side=config.patch_size,
        patch=patch(vision.embeddings.patch_embedding),
        class_token=array(vision.embeddings.class_embedding),
        positions=array(vision.embeddings.position_embedding.weight),
        before=norm(vision.pre_layrnorm),
        stack=Stack(blocks, config.num_attention_heads, ACTIVATIONS[config.hidden_act]),
        after=norm(vision.post_layernorm),
        head=None,
        project=(linear(model.visual_projection),),
    )
    project = (linear(model.text_projection),)
    return images, bert_tower(model.text_model, model.config.text_config, project, "first")


def _vision_block(layer: Any) -> Block:
    own = layer.self_attn
    return Block(
        first=needed(layer.layer_norm1),
        qkv=_beside(own.q_proj, own.k_proj, own.v_proj),
        out=linear(own.out_proj),
        second=needed(layer.layer_norm2),
        up=linear(layer.mlp.fc1),
        down=linear(layer.mlp.fc2),
    )


def bert_tower(bert: Any, config: Any, project: tuple[Linear, ...], pool: str) -> TextTower:
    """A BERT-like text tower. RoBERTa's positions begin behind the id of its padding."""
    embeddings = bert.embeddings
    start = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    positions = array(embeddings.position_embeddings.weight)[start:]
    kinds = array(embeddings.token_type_embeddings.weight)
    blocks = tuple(_bert_block(layer) for layer in bert.encoder.layer)
    demand(bert, config.hidden_act in ACTIVATIONS, f"activation {config.hidden_act}")
    return TextTower(
        tokens=array(embeddings.word_embeddings.weight),
        positions=positions + kinds[0],
        before=norm(embeddings.LayerNorm),
        stack=Stack(
            blocks, config.num_attention_heads, ACTIVATIONS[config.hidden_act], norm_last=True
        ),
        after=None,
        project=project,
        pool=pool,
        causal=False,
        mask=config.pad_token_id,
    )


def _bert_block(layer: Any) -> Block:
    attention = layer.attention
    own = attention.self
    return Block(
        first=needed(attention.output.LayerNorm),
        qkv=_beside(own.query, own.key, own.value),
        out=linear(attention.output.dense),
        second=needed(layer.output.LayerNorm),
        up=linear(layer.intermediate.dense),
        down=linear(layer.output.dense),
    )


def _beside(*projections: Any) -> Linear:
    parts = [linear(part) for part in projections]
    return Linear(
        np.concatenate([p.weight for p in parts], axis=1), np.concatenate([p.bias for p in parts])
    )


# Weights of an open_clip model, its own towers and those it takes from timm and transformers.


def image_tower(model: Any) -> ImageTower:
    """The image tower of an open_clip ``model``. Raises BadInput for a tower of another kind
    than a vision transformer."""
    visual = model.visual
    if type(visual).__name__ == "VisionTransformer":
        return _vision_transformer(visual)
    trunk = getattr(visual, "trunk", None)
    if type(trunk).__name__ == "VisionTransformer" and not len(visual.head):
        return _timm_transformer(trunk)
    raise unsupported(trunk if trunk is not None else visual)


def text_tower(model: Any) -> TextTower:
    """The text tower of an open_clip ``model``; CLIP's own, or BERT and XLM-R of transformers."""
    tower = getattr(model, "text", model)
    if type(tower).__name__ == "HFTextEncoder":
        return _hf_text(tower)
    if not hasattr(tower, "token_embedding"):
        raise unsupported(tower)
    return _text_transformer(tower)


def _vision_transformer(visual: Any) -> ImageTower:
    demand(visual, visual.pool_type == "tok", "pool_type")
    demand(visual, visual.attn_pool is None, "attentional_pool")
    return ImageTower(
        size=visual.image_size[0],
        side=visual.patch_size[0],
        patch=patch(visual.conv1),
        class_token=array(visual.class_embedding),
        positions=array(visual.positional_embedding),
        before=norm(visual.ln_pre),
        stack=_stack(visual.transformer),
        after=norm(visual.ln_post),
        head=None,
        project=projection(visual.proj),
    )


def _text_transformer(tower: Any) -> TextTower:
    pool = getattr(tower, "pool_type", None) or tower.text_pool_type
    demand(tower, pool in ("argmax", "first", "last"), f"pool_type {pool}")
    demand(tower, getattr(tower, "cls_emb", None) is None, "embed_cls")
    demand(tower, not getattr(tower, "use_pad_mask", False), "use_pad_mask")
    return TextTower(
        tokens=array(tower.token_embedding.weight),
        positions=array(tower.positional_embedding),
        before=None,
        stack=_stack(tower.transformer),
        after=norm(tower.ln_final),
        project=projection(tower.text_projection),
        pool="end" if pool == "argmax" else pool,
        causal=tower.attn_mask is not None,
    )


def _stack(transformer: Any) -> Stack:
    blocks = list(transformer.resblocks)
    for block in blocks:
        demand(block, type(block).__name__ == "ResidualAttentionBlock", "block")
    attention = blocks[0].attn
    return Stack(tuple(_block(b) for b in blocks), attention.num_heads, act(blocks[0].mlp.gelu))


def _block(block: Any) -> Block:
    attention = block.attn
    return Block(
        first=needed(block.ln_1),
        qkv=layer(attention.in_proj_weight, attention.in_proj_bias),
        out=scaled(linear(attention.out_proj), block.ls_1),
        second=needed(block.ln_2),
        up=linear(block.mlp.c_fc),
        down=scaled(linear(block.mlp.c_proj), block.ls_2),
    )


def _timm_transformer(trunk: Any) -> ImageTower:
    """timm's, as SigLIP uses it: no class token, pooled by attention."""
    pool = trunk.attn_pool
    demand(trunk, trunk.global_pool == "map" and pool is not None, f"pool {trunk.global_pool}")
    demand(trunk, trunk.cls_token is None and trunk.num_prefix_tokens == 0, "class token")
    demand(trunk, type(trunk.head).__name__ == "Identity", "head")
    blocks = tuple(_timm_block(block) for block in trunk.blocks)
    stack = Stack(blocks, trunk.blocks[0].attn.num_heads, act(trunk.blocks[0].mlp.act))
    query = pool.q(pool.latent).detach().reshape(-1)
    return ImageTower(
        size=trunk.patch_embed.img_size[0],
        side=trunk.patch_embed.patch_size[0],
        patch=patch(trunk.patch_embed.proj),
        class_token=None,
        positions=array(trunk.pos_embed)[0],
        before=norm(trunk.norm_pre),
        stack=stack,
        after=norm(trunk.norm),
        head=AttentionPool(
            query=array(query),
            kv=linear(pool.kv),
            out=linear(pool.proj),
            norm=needed(pool.norm),
            up=linear(pool.mlp.fc1),
            down=linear(pool.mlp.fc2),
        ),
        project=(),
    )


def _timm_block(block: Any) -> Block:
    return Block(
        first=needed(block.norm1),
        qkv=linear(block.attn.qkv),
        out=scaled(linear(block.attn.proj), block.ls1),
        second=needed(block.norm2),
        up=linear(block.mlp.fc1),
        down=scaled(linear(block.mlp.fc2), block.ls2),
    )


def _hf_text(tower: Any) -> TextTower:
    """BERT or XLM-R below open_clip's pooler."""
    kind = tower.config.model_type
    demand(tower, kind in ("bert", "roberta", "xlm-roberta"), f"text model {kind}")
    pooler = type(tower.pooler).__name__
    pools = {"MeanPooler": "mean", "ClsLastHiddenStatePooler": "first"}
    demand(tower, pooler in pools, pooler)
    project = [m for m in tower.proj.modules() if type(m).__name__ == "Linear"]
    linears = tuple(linear(one) for one in project)
    return bert_tower(tower.transformer, tower.config, linears, pools[pooler])


WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def clip_tokenizer(simple: Any) -> Tokenizer:
    """The same ids as open_clip's ``SimpleTokenizer`` gives for a text that it has cleaned."""
    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(models.BPE(dict(simple.encoder), merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
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
