"""Weights of an open_clip model, its own towers and those it takes from timm and transformers."""

from __future__ import annotations

from typing import Any

from soutu.encoders.export.from_transformers import bert_tower
from soutu.encoders.export.modules import (
    act,
    array,
    demand,
    layer,
    linear,
    needed,
    norm,
    patch,
    projection,
    scaled,
    unsupported,
)
from soutu.encoders.export.towers import AttentionPool, Block, ImageTower, Stack, TextTower


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
