"""CLIP's towers: their weights in one form, and the ONNX graphs written from them.

Arrays are float32; a linear layer keeps its weight as (in, out), so that ``x @ weight + bias``.
In shapes n is the batch, L the tokens, d the width and D the dimension of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from soutu.types import Floats

_OPSET, _IR = 20, 9
_MICROSOFT = "com.microsoft"  # operators of ONNX Runtime beyond the standard
_DTYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}
_EXTERNAL_BYTES = 1024  # arrays from this size on lie in the file beside the graph
_MASKED = -1e9  # added to the scores of tokens that must not be attended to


@dataclass(frozen=True)
class Linear:
    """``weight`` (in, out), ``bias`` (out,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """A layer norm: ``weight`` and ``bias`` (d,)."""

    weight: Floats
    bias: Floats
    eps: float


@dataclass(frozen=True)
class Block:
    """One transformer block; ``qkv`` (d, 3d) holds the three projections side by side."""

    norm1: Norm
    qkv: Linear
    out: Linear
    norm2: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Stack:
    """The blocks of a tower.

    ``activation`` is "gelu", "gelu_tanh" or "quick_gelu". With ``norm_last`` the norms stand
    behind the sums, as in BERT, and not before the layers, as in CLIP.
    """

    blocks: tuple[Block, ...]
    heads: int
    activation: str
    norm_last: bool = False


@dataclass(frozen=True)
class AttentionPool:
    """SigLIP's pooling, and the block of two layers that follows it.

    One learned ``query`` (d,), already projected, attends to all tokens (``kv`` (d, 2d)).
    """

    query: Floats
    kv: Linear
    out: Linear
    norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class ImageTower:
    """The weights of an image tower.

    ``patch`` (side · side · 3, d) takes a patch's pixels row by row, red, green and blue
    together; ``positions`` (tokens, d). Without ``head`` the first token is the embedding.
    """

    image_size: int
    patch_size: int
    patch: Linear
    class_token: Floats | None
    positions: Floats
    pre_norm: Norm | None
    stack: Stack
    post_norm: Norm | None
    head: AttentionPool | None
    projections: tuple[Linear, ...]


@dataclass(frozen=True)
class TextTower:
    """The weights of a text tower.

    ``tokens`` (vocabulary, d), ``positions`` (context, d). ``pool`` says which token is the
    embedding: "end" (the highest id), "first", "last", or the "mean" of those that are no
    padding. ``pad_id`` is what no token attends to, None where there is none. Between two
    projections stands ``between``, "gelu" or "tanh".
    """

    tokens: Floats
    positions: Floats
    pre_norm: Norm | None
    stack: Stack
    post_norm: Norm | None
    projections: tuple[Linear, ...]
    pool: str
    causal: bool
    pad_id: int | None = None
    between: str = "gelu"


@dataclass(frozen=True)
class TowerGraph:
    """A graph, and for each linear layer by name the tensor that goes into it."""

    model: onnx.ModelProto
    layer_inputs: dict[str, str]


def image_graph(
    tower: ImageTower,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    keep_float: frozenset[str] | None = None,
    expose_inputs: bool = False,
) -> TowerGraph:
    """Write the graph of an image tower: ``image`` → ``embedding`` [n, D].

    Parameters
    ----------
    tower
        Its weights.
    mean, std
        The normalisation, which in int8 is part of the first layer.
    keep_float
        None: all layers are float32 and the image is [n, 3, S, S], normalised. Else all linear
        layers are int8 but those named here, and the image is uint8 [n, S, S, 3].
    expose_inputs
        Whether the inputs of the linear layers are outputs of the graph as well.
    """
    graph, size, side = _GraphWriter(keep_float), tower.image_size, tower.patch_size
    grid, width = size // side, tower.patch.weight.shape[1]
    if graph.int8:
        x = graph.op("Reshape", "image", graph.constant([0, grid, side, grid, side * 3]))
        x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4])
        x = graph.op("Reshape", x, graph.constant([0, grid * grid, side * side * 3]))
        x = graph.pixel_linear(x, _fold_normalisation(tower.patch, mean, std), "patch")
    else:
        kernel = tower.patch.weight.reshape(side, side, 3, width).transpose(3, 2, 0, 1)
        weights = graph.constant(np.ascontiguousarray(kernel)), graph.constant(tower.patch.bias)
        x = graph.op("Conv", "image", *weights, kernel_shape=[side, side], strides=[side, side])
        x = graph.op("Reshape", x, graph.constant([0, width, grid * grid]))
        x = graph.op("Transpose", x, perm=[0, 2, 1])
    if tower.class_token is not None:
        count = graph.op("Shape", "image", end=1)
        shape = graph.op("Concat", count, graph.constant([1, width]), axis=0)
        token = graph.constant(tower.class_token.reshape(1, 1, width))
        x = graph.op("Concat", graph.op("Expand", token, shape), x, axis=1)
    x = graph.op("Add", x, graph.constant(tower.positions))
    select = None if tower.head else _token_selector(graph, "first")
    x = _write_stack(graph, _write_norm(graph, x, tower.pre_norm), tower.stack, select=select)
    x = _write_norm(graph, x, tower.post_norm)
    if tower.head:
        x = _write_attention_pool(graph, x, tower.head, tower.stack)
    x = graph.op("Squeeze", x, graph.constant([1]))
    image = ("uint8", ["n", size, size, 3]) if graph.int8 else ("float32", ["n", 3, size, size])
    x, width = _write_projections(graph, x, tower.projections, "gelu", width)
    return _finish(graph, x, width, ("image", *image), expose_inputs)


def text_graph(
    tower: TextTower, *, keep_float: frozenset[str] | None = None, expose_inputs: bool = False
) -> TowerGraph:
    """Write the graph of a text tower: ``text`` int64 [n, L] → ``embedding`` [n, D].

    It takes every length up to the context. ``keep_float`` and ``expose_inputs`` as in
    ``image_graph``.
    """
    graph = _GraphWriter(keep_float)
    length = graph.op("Shape", "text", start=1)
    positions = graph.op(
        "Slice", graph.constant(tower.positions), graph.constant([0]), length, graph.constant([0])
    )
    x = graph.op("Add", graph.gather_rows(tower.tokens, "text"), positions)
    bias = None
    if tower.causal:
        bias = _write_causal_mask(graph, len(tower.positions), length)
    elif tower.pad_id is not None:
        bias = _write_padding_mask(graph, tower.pad_id)
    select = _token_selector(graph, tower.pool)
    x = _write_norm(graph, x, tower.pre_norm)
    x = _write_stack(graph, x, tower.stack, bias=bias, select=select)
    x = _write_norm(graph, x, tower.post_norm)
    if select:
        x = graph.op("Squeeze", x, graph.constant([1]))
    else:
        x = _write_mean(graph, x, tower.pad_id)
    text = ("text", "int64", ["n", "length"])
    width = tower.tokens.shape[1]
    x, width = _write_projections(graph, x, tower.projections, tower.between, width)
    return _finish(graph, x, width, text, expose_inputs)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the graph to ``path`` and its arrays to ``path`` + ".data" beside it.

    So they are memory-mapped when it is opened, and a graph of any size can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        location=data.name,
        size_threshold=_EXTERNAL_BYTES,
    )
    if data.exists():
        data.chmod(path.stat().st_mode)  # onnx makes it the owner's alone


def quantize_columns(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Quantize symmetrically, one scale a column: int8 (in, out) in -127 … 127, and (out,)."""
    scale = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-12)) / np.float32(127)
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


class _GraphWriter:
    """Writes constants, operators, and linear layers in two precisions."""

    def __init__(self, keep_float: frozenset[str] | None) -> None:
        self._keep_float = keep_float
        self.int8 = keep_float is not None
        self.layer_inputs: dict[str, str] = {}
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        empty = helper.make_graph([], "tower", [], [])
        self.model = helper.make_model(empty, opset_imports=opsets, ir_version=_IR)
        # Written in place: a message that is put into another is copied, and arrays are large.
        self.nodes, self.arrays = self.model.graph.node, self.model.graph.initializer

    def constant(self, value: NDArray[Any] | float | Sequence[int]) -> str:
        """Floats become float32 and lists of integers int64."""
        if isinstance(value, float):
            value = np.float32(value)
        array = np.array(value, np.int64) if isinstance(value, list) else np.asarray(value)
        name = f"c{len(self.arrays)}"
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.arrays.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output; return the output's name."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def split(self, x: str, count: int) -> list[str]:
        """Take the first axis apart."""
        names = [f"split{len(self.nodes)}.{i}" for i in range(count)]
        sizes = self.constant([1] * count)
        self.nodes.append(helper.make_node("Split", [x, sizes], names, domain="", axis=0))
        return [self.op("Squeeze", name, self.constant([0])) for name in names]

    def linear(self, x: str, layer: Linear, name: str) -> str:
        """``x @ weight + bias``, in int8 unless ``name`` is to stay in float32."""
        self.layer_inputs[name] = x
        if self._keep_float is None or name in self._keep_float:
            product = self.op("MatMul", x, self.constant(layer.weight))
            return self.op("Add", product, self.constant(layer.bias))
        weight, scale = quantize_columns(layer.weight)
        arrays = weight, scale, np.zeros(len(scale), np.int8), layer.bias
        inputs = [self.constant(array) for array in arrays]
        return self.op("DynamicQuantizeMatMul", x, *inputs, domain=_MICROSOFT)

    def pixel_linear(self, x: str, layer: Linear, name: str) -> str:
        """Apply a linear layer to uint8, int8 arithmetic's own: only the weights are rounded."""
        self.layer_inputs[name] = x
        if self._keep_float is not None and name not in self._keep_float:
            weight, scale = quantize_columns(layer.weight)
            integers = self.op("MatMulInteger", x, self.constant(weight))
            values = self.op("Cast", integers, to=TensorProto.FLOAT)
            product = self.op("Mul", values, self.constant(scale))
        else:
            values = self.op("Cast", x, to=TensorProto.FLOAT)
            product = self.op("MatMul", values, self.constant(layer.weight))
        return self.op("Add", product, self.constant(layer.bias))

    def gather_rows(self, table: Floats, ids: str) -> str:
        """Rows of ``table`` by id; in an int8 graph it is int8, with one scale a row."""
        if not self.int8:
            return self.op("Gather", self.constant(table), ids)
        weight, scale = quantize_columns(np.ascontiguousarray(table.T))
        values = self.op("Gather", self.constant(np.ascontiguousarray(weight.T)), ids)
        scales = self.op("Gather", self.constant(scale[:, None]), ids)
        return self.op("Mul", self.op("Cast", values, to=TensorProto.FLOAT), scales)


def _fold_normalisation(patch: Linear, mean: tuple[float, ...], std: tuple[float, ...]) -> Linear:
    """Fold ``(x / 255 - mean) / std`` into the patch layer, which then takes pixels 0 … 255."""
    count = len(patch.weight) // 3
    means, stds = np.tile(mean, count)[:, None], np.tile(std, count)[:, None]
    scaled = patch.weight / stds
    bias = patch.bias - (means * scaled).sum(axis=0)
    return Linear((scaled / 255).astype(np.float32), bias.astype(np.float32))


def _token_selector(graph: _GraphWriter, pool: str) -> Callable[[str], str] | None:
    """Return what takes the pooled token out of x, [n, L, d] → [n, 1, d]; None for the mean."""
    if pool == "mean":
        return None
    if pool == "end":
        end = graph.op("ArgMax", "text", axis=1, keepdims=1)

        def select(x: str) -> str:
            row = graph.op("GatherND", x, end, batch_dims=1)
            return graph.op("Unsqueeze", row, graph.constant([1]))

        return select
    index = graph.constant([{"first": 0, "last": -1}[pool]])
    return lambda x: graph.op("Gather", x, index, axis=1)


def _write_norm(graph: _GraphWriter, x: str, norm: Norm | None) -> str:
    if norm is None:
        return x
    weights = graph.constant(norm.weight), graph.constant(norm.bias)
    return graph.op("LayerNormalization", x, *weights, epsilon=norm.eps)


def _write_stack(
    graph: _GraphWriter,
    x: str,
    stack: Stack,
    *,
    bias: str | None = None,
    select: Callable[[str], str] | None,
) -> str:
    """All blocks, [n, L, d] → [n, L, d].

    With ``select`` the last block computes only the selected token behind its attention, and
    the result is [n, 1, d].
    """
    for number, block in enumerate(stack.blocks):
        name, last = f"blocks.{number}", number == len(stack.blocks) - 1
        y = x if stack.norm_last else _write_norm(graph, x, block.norm1)
        qkv = graph.linear(y, block.qkv, f"{name}.qkv")
        width = block.out.weight.shape[0]
        head_width = width // stack.heads
        heads = graph.op("Reshape", qkv, graph.constant([0, 0, 3, stack.heads, head_width]))
        heads = graph.op("Transpose", heads, perm=[2, 0, 3, 1, 4])
        y = _write_attention(graph, graph.split(heads, 3), width, head_width, bias)
        if last and select:
            y, x = select(y), select(x)
        x = graph.op("Add", x, graph.linear(y, block.out, f"{name}.out"))
        x = _write_norm(graph, x, block.norm1) if stack.norm_last else x
        y = x if stack.norm_last else _write_norm(graph, x, block.norm2)
        y = graph.linear(y, block.up, f"{name}.up")
        y = _write_activation(graph, y, stack.activation)
        x = graph.op("Add", x, graph.linear(y, block.down, f"{name}.down"))
        x = _write_norm(graph, x, block.norm2) if stack.norm_last else x
    return x


def _write_attention(
    graph: _GraphWriter, qkv: Sequence[str], width: int, head_width: int, bias: str | None
) -> str:
    """Softmax attention of all heads, [n, heads, L, head_width] each → [n, L, width]."""
    q, k, v = qkv
    scaled = graph.op("Mul", q, graph.constant(float(head_width) ** -0.5))
    scores = graph.op("MatMul", scaled, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = graph.op("Add", scores, bias) if bias else scores
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.constant([0, 0, width]))


def _write_activation(graph: _GraphWriter, x: str, kind: str) -> str:
    if kind == "tanh":
        return graph.op("Tanh", x)
    if kind == "quick_gelu":
        if graph.int8:
            return graph.op("QuickGelu", x, domain=_MICROSOFT, alpha=1.702)
        gate = graph.op("Sigmoid", graph.op("Mul", x, graph.constant(1.702)))
        return graph.op("Mul", x, gate)
    return graph.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")


def _write_attention_pool(graph: _GraphWriter, x: str, head: AttentionPool, stack: Stack) -> str:
    """[n, L, d] → [n, 1, d]."""
    width = len(head.query)
    head_width = width // stack.heads
    kv = graph.linear(x, head.kv, "head.kv")
    kv = graph.op("Reshape", kv, graph.constant([0, 0, 2, stack.heads, head_width]))
    kv = graph.op("Transpose", kv, perm=[2, 0, 3, 1, 4])
    keys_values = graph.split(kv, 2)
    query = graph.constant(head.query.reshape(1, stack.heads, 1, head_width))
    mixed = _write_attention(graph, [query, *keys_values], width, head_width, None)
    x = graph.linear(mixed, head.out, "head.out")
    y = graph.linear(_write_norm(graph, x, head.norm), head.up, "head.up")
    y = _write_activation(graph, y, stack.activation)
    return graph.op("Add", x, graph.linear(y, head.down, "head.down"))


def _write_causal_mask(graph: _GraphWriter, context: int, length: str) -> str:
    """float32 [L, L]: no token attends to a later one."""
    mask = np.triu(np.full((context, context), _MASKED, np.float32), 1)
    ends = graph.op("Concat", length, length, axis=0)
    return graph.op(
        "Slice", graph.constant(mask), graph.constant([0, 0]), ends, graph.constant([0, 1])
    )


def _write_padding_mask(graph: _GraphWriter, pad_id: int) -> str:
    """float32 [n, 1, 1, L]: no token attends to padding."""
    padding = graph.op("Equal", "text", graph.constant(np.array(pad_id, np.int64)))
    bias = graph.op("Cast", padding, to=TensorProto.FLOAT)
    bias = graph.op("Mul", bias, graph.constant(_MASKED))
    return graph.op("Unsqueeze", bias, graph.constant([1, 2]))


def _write_mean(graph: _GraphWriter, x: str, pad_id: int | None) -> str:
    """Mean over the tokens that are no padding, [n, L, d] → [n, d]."""
    padding = graph.op("Equal", "text", graph.constant(np.array(pad_id, np.int64)))
    real = graph.op("Cast", graph.op("Not", padding), to=TensorProto.FLOAT)
    masked = graph.op("Mul", x, graph.op("Unsqueeze", real, graph.constant([2])))
    total = graph.op("ReduceSum", masked, graph.constant([1]), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", real, graph.constant([1]), keepdims=1))


def _write_projections(
    graph: _GraphWriter, x: str, projections: tuple[Linear, ...], between: str, width: int
) -> tuple[str, int]:
    """[n, width] → [n, D]; return D as well."""
    for number, layer in enumerate(projections):
        x = _write_activation(graph, x, between) if number else x
        x = graph.linear(x, layer, f"project.{number}")
        width = int(layer.weight.shape[1])
    return x, width


def _finish(
    graph: _GraphWriter,
    x: str,
    width: int,
    input_: tuple[str, str, Sequence[Any]],
    expose: bool,
) -> TowerGraph:
    """Call the result ``embedding``; ``input_`` is the input's name, dtype and shape."""
    graph.nodes.append(helper.make_node("Identity", [x], ["embedding"]))
    name, dtype, shape = input_
    inputs = [helper.make_tensor_value_info(name, _DTYPES[dtype], list(shape))]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width])]
    if expose:
        inner = dict.fromkeys(t for t in graph.layer_inputs.values() if t != name)
        outputs += [helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in inner]
    graph.model.graph.input.extend(inputs)
    graph.model.graph.output.extend(outputs)
    return TowerGraph(graph.model, graph.layer_inputs)
