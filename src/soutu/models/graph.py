"""CLIP's towers as ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from soutu.types import Floats

# The weights of CLIP's towers in one form, whichever library they come from.
#
# Arrays are float32; a linear layer keeps its weight as (in, out), so that ``x @ weight + bias``.


ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")


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

    first: Norm
    qkv: Linear
    out: Linear
    second: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Stack:
    """The blocks of a tower. ``norm_last``: the norms stand behind the sums, as in BERT, and not
    before the layers, as in CLIP."""

    blocks: tuple[Block, ...]
    heads: int
    activation: str
    norm_last: bool = False


@dataclass(frozen=True)
class AttentionPool:
    """SigLIP's pooling: one learned ``query`` (d,), already projected, attends to all tokens
    (``kv`` (d, 2d)); a block of two layers follows."""

    query: Floats
    kv: Linear
    out: Linear
    norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class ImageTower:
    """``patch`` (side · side · 3, d) takes a patch's pixels row by row, red, green and blue
    together; ``positions`` (tokens, d). Without ``head`` the first token is the embedding."""

    size: int
    side: int
    patch: Linear
    class_token: Floats | None
    positions: Floats
    before: Norm | None
    stack: Stack
    after: Norm | None
    head: AttentionPool | None
    project: tuple[Linear, ...]


@dataclass(frozen=True)
class TextTower:
    """``tokens`` (vocabulary, d), ``positions`` (context, d). ``pool`` says which token is the
    embedding: "end" (the highest id), "first", "last", or the "mean" of those that are no
    padding. ``mask``: the id that no token attends to, None where there is none. Several
    projections have a GELU between them."""

    tokens: Floats
    positions: Floats
    before: Norm | None
    stack: Stack
    after: Norm | None
    project: tuple[Linear, ...]
    pool: str
    causal: bool
    mask: int | None = None


# A small writer of ONNX graphs: constants, operators, and linear layers in two precisions.


OPSET, IR = 20, 9
MICROSOFT = "com.microsoft"  # operators of ONNX Runtime beyond the standard
KINDS = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
}
EXTERNAL = 1024  # bytes from which an array lies in the file beside the graph


def quantise(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric int8 with one scale a column: (in, out) int8 in -127 … 127, and (out,)."""
    scale = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-12)) / np.float32(127)
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


class Graph:
    """``int8`` None writes float32 layers; else all linear layers are int8 but those named in it.

    ``tapped`` keeps, for each linear layer by name, the tensor that goes into it.
    """

    def __init__(self, keep_float: frozenset[str] | None = None) -> None:
        self.keep_float = keep_float
        self.tapped: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._arrays: list[onnx.TensorProto] = []

    @property
    def int8(self) -> bool:
        return self.keep_float is not None

    def constant(self, array: NDArray[Any] | float | Sequence[int]) -> str:
        """Floats become float32 and lists of integers int64."""
        if isinstance(array, float):
            array = np.float32(array)
        kept = np.asarray(array) if not isinstance(array, list) else np.array(array, np.int64)
        name = f"c{len(self._arrays)}"
        self._arrays.append(
            numpy_helper.from_array(np.ascontiguousarray(kept).reshape(kept.shape), name)
        )
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """An operator with one output; returns the output's name."""
        return self.many(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def many(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """An operator with several outputs."""
        stem = f"{kind.lower()}{len(self._nodes)}"
        names = [stem if outputs == 1 else f"{stem}.{i}" for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, domain=domain, **attributes)
        self._nodes.append(node)
        return names

    def linear(self, x: str, layer: Linear, name: str) -> str:
        """``x @ weight + bias``, in int8 unless ``name`` is to stay in float32."""
        self.tapped[name] = x
        if self.keep_float is None or name in self.keep_float:
            return self.op("Add", self.op("MatMul", x, self.constant(layer.weight)),
                           self.constant(layer.bias))  # fmt: skip
        weight, scale = quantise(layer.weight)
        zero = np.zeros(len(scale), np.int8)
        given = (self.constant(a) for a in (weight, scale, zero, layer.bias))
        return self.op("DynamicQuantizeMatMul", x, *given, domain=MICROSOFT)

    def pixels(self, x: str, layer: Linear, name: str) -> str:
        """A linear layer on uint8 values, which are int8 arithmetic's own: nothing is rounded
        but the weights."""
        self.tapped[name] = x
        if self.keep_float is not None and name not in self.keep_float:
            weight, scale = quantise(layer.weight)
            whole = self.op("MatMulInteger", x, self.constant(weight))
            product = self.op(
                "Mul", self.op("Cast", whole, to=TensorProto.FLOAT), self.constant(scale)
            )
        else:
            values = self.op("Cast", x, to=TensorProto.FLOAT)
            product = self.op("MatMul", values, self.constant(layer.weight))
        return self.op("Add", product, self.constant(layer.bias))

    def rows(self, table: Floats, ids: str) -> str:
        """Rows of ``table`` by id; in an int8 graph the table is int8, with one scale a row."""
        if not self.int8:
            return self.op("Gather", self.constant(table), ids)
        weight, scale = quantise(np.ascontiguousarray(table.T))
        values = self.op("Gather", self.constant(np.ascontiguousarray(weight.T)), ids)
        scales = self.op("Gather", self.constant(scale[:, None]), ids)
        return self.op("Mul", self.op("Cast", values, to=TensorProto.FLOAT), scales)

    def model(
        self, given: tuple[str, str, Sequence[Any]], output: str, width: int, *, taps: bool
    ) -> onnx.ModelProto:
        """The finished graph. ``given`` is the input's name, type and shape; ``output`` becomes
        ``embedding`` (n, width); with ``taps`` the inputs of the layers are outputs as well."""
        nodes = [*self._nodes, helper.make_node("Identity", [output], ["embedding"])]
        name, kind, shape = given
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width])]
        if taps:
            tapped = dict.fromkeys(t for t in self.tapped.values() if t != name)
            outputs += [helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in tapped]
        graph = helper.make_graph(
            nodes,
            "tower",
            [helper.make_tensor_value_info(name, KINDS[kind], list(shape))],
            outputs,
            self._arrays,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the graph to ``path`` and its arrays to ``path`` + ".data" beside it: they are
    memory-mapped when it is opened, and a graph of any size can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    onnx.save(
        model, str(path), save_as_external_data=True, location=data.name, size_threshold=EXTERNAL
    )
    if data.exists():
        data.chmod(path.stat().st_mode)  # onnx makes it the owner's alone


@dataclass(frozen=True)
class Built:
    """A graph, and for each linear layer by name the tensor that goes into it."""

    model: onnx.ModelProto
    tapped: dict[str, str]


FAR = -1e9  # added to the scores of tokens that must not be attended to


def image_graph(
    tower: ImageTower,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    keep_float: frozenset[str] | None = None,
    taps: bool = False,
) -> Built:
    """``image`` → ``embedding`` [n, D]. In float32 (``keep_float`` None) the image is
    [n, 3, S, S], normalised; in int8 it is uint8 [n, S, S, 3], the normalisation being part of
    the first layer."""
    graph, grid, side = Graph(keep_float), tower.size // tower.side, tower.side
    width = tower.patch.weight.shape[1]
    if graph.int8:
        x = graph.op("Reshape", "image", graph.constant([0, grid, side, grid, side * 3]))
        x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4])
        x = graph.op("Reshape", x, graph.constant([0, grid * grid, side * side * 3]))
        x = graph.pixels(x, _on_pixels(tower.patch, mean, std), "patch")
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
    first = graph.constant([0])
    pooled = tower.head is None
    x = _stack(graph, _norm(graph, x, tower.before), tower.stack, only=first if pooled else None)
    x = _norm(graph, x, tower.after)
    x = _attention_pool(graph, x, tower) if tower.head else x
    x = graph.op("Squeeze", x, graph.constant([1]))
    x = _project(graph, x, tower.project)
    size = tower.size
    given = [size, size, 3] if graph.int8 else [3, size, size]
    kind = "uint8" if graph.int8 else "float32"
    image = ("image", kind, ["n", *given])
    return Built(graph.model(image, x, _out(tower.project, width), taps=taps), graph.tapped)


def _on_pixels(patch: Linear, mean: tuple[float, ...], std: tuple[float, ...]) -> Linear:
    """The patch layer for pixels 0 … 255: ``(x / 255 - mean) / std`` folded into it."""
    count = len(patch.weight) // 3
    means, stds = np.tile(mean, count)[:, None], np.tile(std, count)[:, None]
    scaled = patch.weight / stds
    bias = patch.bias - (means * scaled).sum(axis=0)
    return Linear((scaled / 255).astype(np.float32), bias.astype(np.float32))


def text_graph(
    tower: TextTower, *, keep_float: frozenset[str] | None = None, taps: bool = False
) -> Built:
    """``text`` int64 [n, length] → ``embedding`` [n, D], for every length up to the context."""
    graph = Graph(keep_float)
    length = graph.op("Shape", "text", start=1)
    positions = graph.op(
        "Slice", graph.constant(tower.positions), graph.constant([0]), length, graph.constant([0])
    )
    x = graph.op("Add", graph.rows(tower.tokens, "text"), positions)
    bias = _causal(graph, tower, length) if tower.causal else _padding(graph, tower)
    only = {"first": lambda: graph.constant([0]), "last": lambda: graph.constant([-1])}
    pooled = only[tower.pool]() if tower.pool in only else None
    end = graph.op("ArgMax", "text", axis=1, keepdims=1) if tower.pool == "end" else None
    before = _norm(graph, x, tower.before)
    x = _stack(graph, before, tower.stack, bias=bias, only=pooled, end=end)
    x = _norm(graph, x, tower.after)
    if tower.pool == "mean":
        x = _mean(graph, x, tower)
    else:
        x = graph.op("Squeeze", x, graph.constant([1]))
    x = _project(graph, x, tower.project)
    out = _out(tower.project, tower.tokens.shape[1])
    text = ("text", "int64", ["n", "length"])
    return Built(graph.model(text, x, out, taps=taps), graph.tapped)


def _out(project: tuple[Linear, ...], width: int) -> int:
    return int(project[-1].weight.shape[1]) if project else width


def _norm(graph: Graph, x: str, norm: Norm | None) -> str:
    if norm is None:
        return x
    weights = graph.constant(norm.weight), graph.constant(norm.bias)
    return graph.op("LayerNormalization", x, *weights, epsilon=norm.eps)


def _causal(graph: Graph, tower: TextTower, length: str) -> str:
    """float32 [L, L]: no token attends to a later one."""
    context = len(tower.positions)
    mask = np.triu(np.full((context, context), FAR, np.float32), 1)
    ends = graph.op("Concat", length, length, axis=0)
    return graph.op(
        "Slice", graph.constant(mask), graph.constant([0, 0]), ends, graph.constant([0, 1])
    )


def _padding(graph: Graph, tower: TextTower) -> str | None:
    """float32 [n, 1, 1, L]: no token attends to padding; None where it may."""
    if tower.mask is None:
        return None
    padding = graph.op("Equal", "text", graph.constant(np.array(tower.mask, np.int64)))
    far = graph.op("Mul", graph.op("Cast", padding, to=TensorProto.FLOAT), graph.constant(FAR))
    return graph.op("Unsqueeze", far, graph.constant([1, 2]))


def _mean(graph: Graph, x: str, tower: TextTower) -> str:
    """Mean over the tokens that are no padding, [n, L, d] → [n, d]."""
    assert tower.mask is not None
    padding = graph.op("Equal", "text", graph.constant(np.array(tower.mask, np.int64)))
    real = graph.op("Cast", graph.op("Not", padding), to=TensorProto.FLOAT)
    kept = graph.op("Mul", x, graph.op("Unsqueeze", real, graph.constant([2])))
    total = graph.op("ReduceSum", kept, graph.constant([1]), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", real, graph.constant([1]), keepdims=1))


def _stack(
    graph: Graph,
    x: str,
    stack: Stack,
    *,
    bias: str | None = None,
    only: str | None = None,
    end: str | None = None,
) -> str:
    """All blocks, [n, L, d] → [n, L, d]. Where only one token is wanted (``only``: its index,
    ``end``: its index in each row), the last block computes just that one behind its attention,
    and the result is [n, 1, d]."""
    for number, block in enumerate(stack.blocks):
        name, last = f"blocks.{number}", number == len(stack.blocks) - 1
        entered = x if stack.norm_last else _norm(graph, x, block.first)
        mixed = _attention(
            graph, graph.linear(entered, block.qkv, f"{name}.qkv"), block, stack, bias
        )
        if last and only:
            mixed, x = (graph.op("Gather", t, only, axis=1) for t in (mixed, x))
        elif last and end:
            mixed, x = (_row(graph, t, end) for t in (mixed, x))
        x = graph.op("Add", x, graph.linear(mixed, block.out, f"{name}.out"))
        x = _norm(graph, x, block.first) if stack.norm_last else x
        entered = x if stack.norm_last else _norm(graph, x, block.second)
        wide = graph.linear(entered, block.up, f"{name}.up")
        wide = _activation(graph, wide, stack.activation)
        x = graph.op("Add", x, graph.linear(wide, block.down, f"{name}.down"))
        x = _norm(graph, x, block.second) if stack.norm_last else x
    return x


def _row(graph: Graph, x: str, index: str) -> str:
    """Token ``index`` [n, 1] of each row, [n, L, d] → [n, 1, d]."""
    picked = graph.op("GatherND", x, index, batch_dims=1)
    return graph.op("Unsqueeze", picked, graph.constant([1]))


def _attention(graph: Graph, qkv: str, block: Block, stack: Stack, bias: str | None) -> str:
    """Softmax attention of all heads, [n, L, 3d] → [n, L, d]."""
    width = block.out.weight.shape[0]
    each = width // stack.heads
    split = graph.op("Reshape", qkv, graph.constant([0, 0, 3, stack.heads, each]))
    split = graph.op("Transpose", split, perm=[2, 0, 3, 1, 4])
    parts = graph.many("Split", split, graph.constant([1, 1, 1]), outputs=3, axis=0)
    q, k, v = (graph.op("Squeeze", part, graph.constant([0])) for part in parts)
    return _mix(graph, (q, k, v), width, each, bias)


def _mix(graph: Graph, qkv: tuple[str, str, str], width: int, each: int, bias: str | None) -> str:
    q, k, v = qkv
    scaled = graph.op("Mul", q, graph.constant(float(each) ** -0.5))
    scores = graph.op("MatMul", scaled, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = graph.op("Add", scores, bias) if bias else scores
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.constant([0, 0, width]))


def _activation(graph: Graph, x: str, kind: str) -> str:
    if kind == "quick_gelu":
        if graph.int8:
            return graph.op("QuickGelu", x, domain=MICROSOFT, alpha=1.702)
        gate = graph.op("Sigmoid", graph.op("Mul", x, graph.constant(1.702)))
        return graph.op("Mul", x, gate)
    return graph.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")


def _attention_pool(graph: Graph, x: str, tower: ImageTower) -> str:
    """[n, L, d] → [n, 1, d]."""
    head: AttentionPool | None = tower.head
    assert head is not None
    heads, width = tower.stack.heads, len(head.query)
    each = width // heads
    kv = graph.linear(x, head.kv, "head.kv")
    kv = graph.op("Reshape", kv, graph.constant([0, 0, 2, heads, each]))
    kv = graph.op("Transpose", kv, perm=[2, 0, 3, 1, 4])
    parts = graph.many("Split", kv, graph.constant([1, 1]), outputs=2, axis=0)
    k, v = (graph.op("Squeeze", part, graph.constant([0])) for part in parts)
    query: Floats = head.query.reshape(1, heads, 1, each)
    mixed = _mix(graph, (graph.constant(query), k, v), width, each, None)
    x = graph.linear(mixed, head.out, "head.out")
    wide = graph.linear(_norm(graph, x, head.norm), head.up, "head.up")
    wide = _activation(graph, wide, tower.stack.activation)
    return graph.op("Add", x, graph.linear(wide, head.down, "head.down"))


def _project(graph: Graph, x: str, project: tuple[Linear, ...]) -> str:
    for number, layer in enumerate(project):
        x = _activation(graph, x, "gelu") if number else x
        x = graph.linear(x, layer, f"project.{number}")
    return x
