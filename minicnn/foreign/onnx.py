"""Models as ONNX, to run elsewhere: each layer becomes the operators that compute the same.

ONNX slides windows over (N, C, H, W), so an image is transposed on its way into the first convolution and stays so
until a layer needs the channels last: Flatten, whose order the dense weights know, or the output.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.files import replacing
from minicnn.foreign.common import nodes_of, optional, own_layer
from minicnn.layers import (
    Add,
    Conv2D,
    Dense,
    Flatten,
    InputLayer,
    Layer,
    Linear,
    MaxPooling2D,
    Node,
    RandomCrop,
    RandomCutout,
    RandomFlip,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minicnn.models import Model

OPSET, IR_VERSION = (
    13,
    8,
)  # the first that has all of these operators as they are used here, and what runs nearly anywhere
AS_THEY_ARE = (Linear, RandomCutout, RandomFlip, RandomTranslation)  # what a layer leaves so outside training
KINDS = (InputLayer, Add, Conv2D, Dense, Flatten, MaxPooling2D, RandomCrop, ReLU, Rescaling, Softmax, *AS_THEY_ARE)


def export_onnx(model: Model, path: str | os.PathLike) -> None:
    """Write an ONNX file that computes in float32 what `predict` does, for batches of any size.

    Its "input" has the model's shape, (N, H, W, C) of an image, and holds bytes if ``Input(dtype="uint8")`` said so,
    else float32. Its result is called "output".

    Parameters
    ----------
    model : Model
    path : path

    Raises
    ------
    StateError
        If the model has no shapes yet, or onnx is not installed.
    ArgumentError
        If a layer is not one of minicnn's.
    DtypeError
        If it is no model.
    OutputError
        If the file cannot be written.

    References
    ----------
    onnx.ai/onnx/operators

    Examples
    --------
    >>> import onnx, tempfile, minicnn
    >>> from minicnn.foreign import export_onnx
    >>> model = minicnn.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2, activation="softmax")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, f"{folder}/model.onnx")
    ...     [node.op_type for node in onnx.load(f"{folder}/model.onnx").graph.node]
    ['Gemm', 'Softmax', 'Identity']
    """
    nodes = nodes_of(model)
    for node in nodes:
        own_layer(node.layer, KINDS, "ONNX")
    graph = Graph()
    for node in nodes:
        graph.add(node)
    with replacing(path) as temporary:
        temporary.write_bytes(graph.finished(nodes, model.name))


class Graph:
    """An ONNX graph in the making; `values` says for each node what its output is called, by the order of its axes."""

    def __init__(self) -> None:
        self.onnx = optional("onnx", "onnx")
        self.operators: list[Any] = []
        self.constants: list[Any] = []
        self.values: dict[Node, dict[str, str]] = {}

    def add(self, node: Node) -> None:
        """Append the operators of one layer."""
        layer, order = node.layer, "channels last"
        if isinstance(layer, (Conv2D, MaxPooling2D)):
            order = "channels first"
        elif isinstance(layer, (Add, ReLU, Rescaling, *AS_THEY_ARE)):  # nothing is transposed for them
            order = next(iter(self.values[node.inputs[0]]))
        result = self.layer(layer, [self.value(parent, order) for parent in node.inputs])
        result = self.activation(getattr(layer, "activation", layer), result, order)
        self.values[node] = {order: result}

    def value(self, node: Node, order: str) -> str:
        """Return the name of a node's output with its axes in this order."""
        values = self.values[node]
        if order not in values and len(node.output_shape) == 3:
            turned = [0, 3, 1, 2] if order == "channels first" else [0, 2, 3, 1]
            values[order] = self.operator("Transpose", next(iter(values.values())), perm=turned)
        return values.get(order) or next(iter(values.values()))

    def layer(self, layer: Layer, inputs: Sequence[str]) -> str:
        """Return the name of what a layer computes before its activation."""
        if isinstance(layer, InputLayer):
            return "input" if layer.input_dtype != "uint8" else self.operator("Cast", "input", to=self.float32)
        if isinstance(layer, Rescaling):
            scaled = self.operator("Mul", inputs[0], self.constant(np.float32(layer.scale)))
            return self.operator("Add", scaled, self.constant(np.float32(layer.offset)))
        if isinstance(layer, RandomCrop):
            corners = np.array([layer.middle, np.add(layer.middle, layer.output_shape[:2])])  # (2, 2)
            places = [self.constant(array, np.int64) for array in (*corners, [1, 2])]  # starts, ends, axes
            return self.operator("Slice", inputs[0], *places)
        if isinstance(layer, Conv2D):
            w = kernels.on_host(layer.params["kernel"]).transpose(3, 2, 0, 1)  # (F, C, KH, KW)
            weights = [self.constant(array) for array in (w, *self.biases(layer))]
            return self.operator("Conv", inputs[0], *weights, **self.window(layer, layer.kernel_size))
        if isinstance(layer, MaxPooling2D):
            return self.operator("MaxPool", inputs[0], **self.window(layer, layer.pool_size))
        if isinstance(layer, Dense):
            weights = [self.constant(array) for array in (kernels.on_host(layer.params["kernel"]), *self.biases(layer))]
            return self.operator("Gemm", inputs[0], *weights)
        if isinstance(layer, Flatten):
            return self.operator("Flatten", inputs[0], axis=1)
        total = inputs[0]
        for more in inputs[1:]:  # of an Add
            total = self.operator("Add", total, more)
        return total

    def activation(self, layer: Layer, x: str, order: str) -> str:
        """Return the name of what an activation makes of x; any other layer is none."""
        if isinstance(layer, ReLU):
            return self.operator("Relu", x)
        if isinstance(layer, Softmax):  # over the channels
            return self.operator("Softmax", x, axis=1 if order == "channels first" else -1)
        return x

    @property
    def float32(self) -> Any:
        """The number by which ONNX knows float32."""
        return self.onnx.TensorProto.FLOAT

    def biases(self, layer: Layer) -> list[np.ndarray]:
        """Return the bias (F,) in a list, empty without one."""
        return [kernels.on_host(layer.params["bias"])] if "bias" in layer.params else []

    def window(self, layer: Any, size: Sequence[int]) -> dict[str, Any]:
        """Return the options of a window: ONNX gives the padding as top, left, bottom, right."""
        (top, bottom), (left, right) = layer.pads
        return {"kernel_shape": size, "strides": layer.strides, "pads": (top, left, bottom, right)}

    def operator(self, kind: str, *inputs: str, **options: Any) -> str:
        """Append an operator and return the name of its output."""
        name = f"{kind.lower()}_{len(self.operators)}"
        self.operators.append(self.onnx.helper.make_node(kind, inputs, [name], name, **options))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Append a constant array of this type and return its name."""
        name = f"weight_{len(self.constants)}"
        array = np.ascontiguousarray(array, dtype).reshape(np.shape(array))  # the former makes a scalar (1,)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def finished(self, nodes: Sequence[Node], title: str) -> bytes:
        """Return the file's content."""
        helper, first, last = self.onnx.helper, nodes[0], nodes[-1]
        final = self.onnx.helper.make_node("Identity", [self.value(last, "channels last")], ["output"], "output")
        kind = self.onnx.TensorProto.UINT8 if getattr(first.layer, "input_dtype", None) == "uint8" else self.float32
        ends = [
            helper.make_tensor_value_info(name, kind, ["N", *node.output_shape])
            for name, kind, node in (("input", kind, first), ("output", self.float32, last))
        ]
        graph = helper.make_graph([*self.operators, final], title or "model", ends[:1], ends[1:], self.constants)
        opset = helper.make_opsetid("", OPSET)
        whole = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="minicnn")
        return whole.SerializeToString()
