"""Weights of transformers' models: BERT-like text towers, and Chinese-CLIP."""

from __future__ import annotations

from typing import Any

import numpy as np

from soutu.encoders.export.modules import array, demand, linear, needed, norm, patch
from soutu.encoders.export.towers import Block, ImageTower, Linear, Stack, TextTower

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
