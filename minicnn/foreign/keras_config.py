"""A graph of layers as the JSON of a `.keras` file, in the words of Keras 3, and back, from 2.15's too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn import config
from minicnn.errors import ArgumentError, DataError
from minicnn.foreign import keras_weights
from minicnn.foreign.common import own_layer
from minicnn.layers import (
    GELU,
    Activation,
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
from minicnn.layers.activations import activation_name
from minicnn.models import Model


@dataclass
class Kind:
    """How a class of Keras is said here: `make(**options)`, where options are those of the same name.

    What minicnn cannot do has, in `fixed`, the one value that leaves it undone. `old` has names of Keras 2.
    """

    make: Any
    options: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)


SHAPES = ("batch_shape", "batch_input_shape")  # as Keras 3 says it, and as Keras 2
LAST = {"data_format": "channels_last"}
KINDS = {
    "Activation": Kind(lambda activation: Activation(activation), ("activation",)),
    "Add": Kind(Add),
    "AveragePooling2D": Kind(AveragePooling2D, ("pool_size", "strides", "padding"), LAST),
    "BatchNormalization": Kind(
        lambda axis, **options: BatchNormalization(**options),  # which axis is the last one is not known yet
        ("axis", "momentum", "epsilon", "center", "scale"),
        {"axis": -1},
    ),
    "Concatenate": Kind(Concatenate, ("axis",)),
    "Conv2D": Kind(
        Conv2D,
        ("filters", "kernel_size", "strides", "padding", "activation", "use_bias"),
        {**LAST, "dilation_rate": [1, 1], "groups": 1},
    ),
    "Dense": Kind(Dense, ("units", "activation", "use_bias")),
    "Dropout": Kind(Dropout, ("rate", "seed")),
    "Flatten": Kind(Flatten, (), LAST),
    "GlobalAveragePooling2D": Kind(GlobalAveragePooling2D, (), LAST),
    "InputLayer": Kind(InputLayer, SHAPES),
    "LeakyReLU": Kind(LeakyReLU, ("negative_slope",), old={"alpha": "negative_slope"}),
    "MaxPooling2D": Kind(MaxPooling2D, ("pool_size", "strides", "padding"), LAST),
    "RandomFlip": Kind(RandomFlip, ("mode", "seed"), LAST),
    "RandomTranslation": Kind(
        RandomTranslation,
        ("height_factor", "width_factor", "fill_mode", "seed"),
        {**LAST, "interpolation": "nearest", "fill_value": 0.0},
    ),
    "ReLU": Kind(ReLU, (), {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    "Rescaling": Kind(Rescaling, ("scale", "offset")),
    "Softmax": Kind(Softmax, (), {"axis": -1}),
}
BY_NAME = (GELU, Linear)  # which have no class in Keras, but are an Activation
OURS: tuple[type[Layer], ...]
OURS = (InputLayer, *BY_NAME, Add, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, Dense, Dropout, Flatten)
OURS += (GlobalAveragePooling2D, LeakyReLU, MaxPooling2D, RandomCrop, RandomCutout, RandomFlip, RandomTranslation)
OURS += (ReLU, Rescaling, Softmax)
ENDS = ("input_layers", "output_layers")
LEFT_OUT = re.compile(
    "name|dtype|trainable|batch_input_shape|interpolation|renorm_momentum|.*_(initializer|regularizer|constraint)"
)  # of training, or said elsewhere


# From a model to JSON


def config_of(model: Model, nodes: Sequence[Node]) -> dict[str, Any]:
    """Return what Keras builds the model from; the nodes are in Keras's order.

    Raises
    ------
    ArgumentError
        If a layer is not one of minicnn's, or has a name that Keras does not allow.
    """
    ends = {"input_layers": nodes[0].layer, "output_layers": nodes[-1].layer}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": model.name,
            "trainable": True,
            "layers": [_entry(node) for node in nodes],
            **{end: [layer.name, 0, 0] for end, layer in ends.items()},
        },
        "registered_name": "Functional",
    }


def _entry(node: Node) -> dict[str, Any]:
    layer = node.layer
    own_layer(layer, OURS, "Keras")
    if "/" in str(layer.name):
        raise ArgumentError(f"Keras does not allow a slash in the name of a layer. Received: {layer.name!r}")
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": layer.dtype}, "registered_name": None}
    kind, options = type(layer).__name__, layer.get_config()
    if isinstance(layer, BY_NAME):
        kind, options = "Activation", {"activation": activation_name(layer)}
    elif isinstance(layer, RandomCutout):  # Keras has none: what it does outside training, nothing
        kind, options = "Activation", {"activation": "linear"}
    elif isinstance(layer, RandomCrop):  # Keras's resizes, or does nothing, outside training
        kind, options = "CenterCrop", {"height": layer.height, "width": layer.width}
    options = {"name": layer.name, "trainable": True, "dtype": policy, **options}
    if isinstance(layer, InputLayer):
        options = {"name": layer.name, "batch_shape": list(node.shape), "dtype": _type_of(node)}
    options |= KINDS[kind].fixed if kind in KINDS else LAST
    tensors = [_tensor(parent) for parent in node.inputs]
    call: dict[str, Any] = {"args": [tensors] if layer.merges else tensors, "kwargs": {}}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": options,
        "registered_name": None,
        "name": layer.name,
        "inbound_nodes": [call] if tensors else [],
    }


def _tensor(node: Node) -> dict[str, Any]:
    history = [node.layer.name, 0, 0]
    options = {"shape": list(node.shape), "dtype": _type_of(node), "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": options}


def _type_of(node: Node) -> str:
    return getattr(node.layer, "input_dtype", None) or node.layer.dtype


# From JSON to a model


def model_from(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> Model:
    """Return the model that Keras described, with these weights.

    Raises
    ------
    ArgumentError
        If it has something that minicnn has not.
    DataError
        If weights and layers do not fit.
    ShapeError
        If a layer does not fit its input or its weights.
    """
    options, kind = description["config"], description["class_name"]
    if not _of_keras(description) or kind not in ("Functional", "Model", "Sequential"):
        raise ArgumentError(f"unknown kind of model {kind!r}. Expected a Functional or a Sequential one.")
    entries, nodes = list(options["layers"]), dict[str, Node]()
    if kind == "Sequential" and entries[0]["class_name"] != "InputLayer":
        shape = {"name": "input_layer", "batch_shape": options["build_input_shape"], "dtype": config.floatx()}
        entries.insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": shape})
    layers = [_layer(entry) for entry in entries]
    for group, entry, layer in zip(keras_weights.groups(layers), entries, layers, strict=True):
        if str(layer.name) in nodes:
            raise DataError(f"two layers have the name {layer.name!r}.")
        parents = list(nodes)[-1:] if kind == "Sequential" else _parents(entry)
        places = {name: f"{group}/vars/{i}" for i, name in enumerate(keras_weights.names(layer))}
        layer.saved = {name: tensors.pop(place) for name, place in places.items() if place in tensors}
        node = nodes[str(layer.name)] = _apply(layer, [nodes[parent] for parent in parents])
        if layer.saved.keys() != layer.weights.keys():
            raise DataError(f"the layer {layer.name!r} has the weights {[*layer.weights]}. Received: {[*layer.saved]}")
        if isinstance(layer, BatchNormalization):
            _check_axis(entry, node)
        layer.saved = None
    if tensors:
        raise DataError(f"it has weights that belong to no layer: {', '.join(tensors)}")
    names = list(nodes)
    first, last = (names[0], names[-1]) if kind == "Sequential" else map(_end, (options, options), ENDS)
    return Model(nodes[first], nodes[last], str(options["name"]))


def _end(options: dict[str, Any], end: str) -> str:
    """Return the name of the one layer where the graph begins or ends, written as [name, 0, 0] or as [[name, 0, 0]]."""
    value = _single(options[end])
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)):
        raise ArgumentError(f"a model has one input and one output here. Received for {end}: {value}")
    return value[0]


def _single(value: Any) -> Any:
    """Return the element of a list of one, anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _of_keras(entry: dict[str, Any]) -> bool:
    """Tell whether a class is Keras's own: somebody's class can have the same name."""
    return str(entry["module"]).split(".")[0] in ("keras", "tf_keras")


def _layer(entry: dict[str, Any]) -> Layer:
    given, name = dict(entry["config"]), entry["class_name"]
    title = f"the layer {given.get('name')!r} of class {name!r}"
    if not _of_keras(entry) or name not in KINDS:
        raise ArgumentError(f"{title} is not known. Expected one of: {', '.join(KINDS)}")
    given = {KINDS[name].old.get(key, key): value for key, value in given.items()}
    dtype = given.get("dtype", "float32")
    dtype = dtype["config"]["name"] if isinstance(dtype, dict) else dtype
    kind = KINDS[name]
    for key, value in given.items():
        if key in kind.options or LEFT_OUT.fullmatch(key):
            continue
        if value != kind.fixed.get(key, None if value is None else False):  # what is not in the table must be off
            raise ArgumentError(f"{title} has an option that minicnn has not: {key}={value!r}")
    if name == "InputLayer":
        shape = next(given[key] for key in SHAPES if key in given)
        # Floats are what Keras takes by default; without a type ours takes bytes too, and does not copy them to floats.
        floats = dtype in ("float32", "float64")
        with config.using_floatx(dtype if floats else config.floatx()):
            layer: Layer = InputLayer(tuple(shape[1:]), None if floats else dtype)
    else:
        with config.using_floatx(dtype):
            layer = kind.make(**{key: given[key] for key in kind.options})
    layer.name, layer.named = str(given["name"]), True
    return layer


def _parents(entry: dict[str, Any]) -> list[str]:
    """Return the names of the layers whose outputs a layer is applied to."""
    calls, name = entry["inbound_nodes"], entry["config"]["name"]
    if entry["class_name"] == "InputLayer":
        return []
    if len(calls) != 1:
        raise ArgumentError(f"the layer {name!r} is applied {len(calls)} times. Expected once: make several layers.")
    if isinstance(calls[0], dict):  # Keras 3: {"args": [tensor] or [[tensor, tensor]], "kwargs": {}}
        tensors = calls[0]["args"]
        tensors = tensors[0] if isinstance(tensors[0], list) else tensors
        histories = [tensor["config"]["keras_history"] for tensor in tensors]
        kwargs, augments = calls[0]["kwargs"], entry["class_name"].startswith("Random")
        options = [{**kwargs, "training": None} if augments else kwargs]  # for these Keras 3 sets training=True itself
    else:  # Keras 2: [[name, 0, 0, kwargs], ...]
        histories = [call[:3] for call in calls[0]]
        options = [call[3] for call in calls[0] if len(call) > 3]
    given = [key for kwargs in options for key, value in kwargs.items() if value not in (None, False)]  # training=False
    if given:
        raise ArgumentError(f"the layer {name!r} is called with {given[0]}, which minicnn has not.")
    return [history[0] for history in histories]


def _check_axis(entry: dict[str, Any], node: Node) -> None:
    """Raise unless it is the last axis that is normalized: -1 in Keras 3, [3] of four in Keras 2."""
    axis, name = entry["config"]["axis"], node.layer.name
    if _single(axis) not in (-1, len(node.output_shape)):
        raise ArgumentError(f"the layer {name!r} normalizes the axis {axis}. Expected the last one, -1.")


def _apply(layer: Layer, parents: list[Node]) -> Node:
    if isinstance(layer, InputLayer):
        return Node(layer, (), layer.output_shape)
    if not layer.merges and len(parents) != 1:
        raise DataError(f"the layer {layer.name!r} takes one input. Received: {len(parents)}")
    try:
        return layer(parents if layer.merges else parents[0])
    except KeyError as missing:
        raise DataError(f"the weight {missing.args[0]!r} of the layer {layer.name!r} is missing.") from None
