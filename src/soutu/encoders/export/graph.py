"""A small writer of ONNX graphs: constants, operators, and linear layers in two precisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from soutu.encoders.export.towers import Linear
from soutu.types import Floats

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
