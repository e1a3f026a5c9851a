"""Models as ONNX, to run elsewhere: each layer becomes the operators that compute the same.

ONNX slides windows over (N, C, H, W), so an image is transposed on its way into the first convolution and stays so
until a layer needs the channels last: Flatten, whose order the dense weights know, or the output.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.files import replacing
from minicnn.foreign.common import nodes_of, optional, own_layer
from minicnn.layers import (
    GELU,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    InputLayer,
    Layer,
    LeakyReLU,
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
AS_THEY_ARE = (Dropout, Linear, RandomCutout, RandomFlip, RandomTranslation)  # what a layer leaves so outside training
CHANNELS_FIRST = (AveragePooling2D, BatchNormalization, Conv2D, GlobalAveragePooling2D, MaxPooling2D)
EITHER = (*AS_THEY_ARE, Add, Concatenate, GELU, LeakyReLU, ReLU, Rescaling)  # nothing is transposed for these
KINDS = (*CHANNELS_FIRST, *EITHER, Dense, Flatten, InputLayer, RandomCrop, Softmax)


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
        if isinstance(layer, CHANNELS_FIRST):
            order = "channels first"
        elif isinstance(layer, EITHER):
            order = next(iter(self.values[node.inputs[0]]))
        result = self.layer(layer, [self.value(parent, order) for parent in node.inputs], order)
        result = self.activation(getattr(layer, "activation", layer), result, order)
        self.values[node] = {order: result}

    def value(self, node: Node, order: str) -> str:
        """Return the name of a node's output with its axes in this order."""
        values, last = self.values[node], len(node.output_shape)
        if order not in values and last > 1:
            turned = [0, last, *range(1, last)] if order == "channels first" else [0, *range(2, last + 1), 1]
            values[order] = self.operator("Transpose", next(iter(values.values())), perm=turned)
        return values.get(order) or next(iter(values.values()))

    def layer(self, layer: Layer, inputs: Sequence[str], order: str) -> str:
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
        if isinstance(layer, AveragePooling2D):
            return self.operator("AveragePool", inputs[0], **self.window(layer, layer.pool_size), count_include_pad=0)
        if isinstance(layer, GlobalAveragePooling2D):
            return self.operator("Flatten", self.operator("GlobalAveragePool", inputs[0]), axis=1)  # (N, C, 1, 1)
        if isinstance(layer, BatchNormalization):
            return self.operator("BatchNormalization", inputs[0], *self.normalizer(layer), epsilon=layer.epsilon)
        if isinstance(layer, Dense):
            weights = [self.constant(array) for array in (kernels.on_host(layer.params["kernel"]), *self.biases(layer))]
            return self.operator("Gemm", inputs[0], *weights)
        if isinstance(layer, Flatten):
            return self.operator("Flatten", inputs[0], axis=1)
        if isinstance(layer, Concatenate):
            turned = (layer.place % len(layer.output_shape)) + 1  # the last axis becomes the first behind the batch
            return self.operator("Concat", *inputs, axis=turned if order == "channels first" else layer.place)
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
        if isinstance(layer, LeakyReLU):
            return self.operator("LeakyRelu", x, alpha=layer.negative_slope)
        if isinstance(layer, GELU):  # ONNX has an operator of this name from version 20 on
            erf = self.operator("Erf", self.operator("Mul", x, self.constant(math.sqrt(0.5))))
            half = self.operator("Mul", x, self.constant(0.5))
            return self.operator("Mul", half, self.operator("Add", erf, self.constant(1)))  # x / 2 * (erf + 1)
        return x

    @property
    def float32(self) -> Any:
        """The number by which ONNX knows float32."""
        return self.onnx.TensorProto.FLOAT

    def biases(self, layer: Layer) -> list[np.ndarray]:
        """Return the bias (F,) in a list, empty without one."""
        return [kernels.on_host(layer.params["bias"])] if "bias" in layer.params else []

    def normalizer(self, layer: BatchNormalization) -> list[str]:
        """Return the names of gamma, beta, mean and variance, (C,) each; ONNX demands all four."""
        w, C = layer.weights, layer.output_shape[-1]
        gamma, beta = w.get("gamma", np.ones(C)), w.get("beta", np.zeros(C))
        arrays = gamma, beta, w["moving_mean"], w["moving_variance"]
        return [self.constant(kernels.on_host(array)) for array in arrays]

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
