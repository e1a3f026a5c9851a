"""PyTorch's weights: a state dict, kept as safetensors, of a network that runs the same layers on (N, C, H, W).

A kernel (KH, KW, C, F) is (F, C, KH, KW) there, a dense matrix (In, Out) is (Out, In), and the rows of the first dense
matrix after Flatten, which here list (H, W, C), list (C, H, W). Batch normalization's weights have other names.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.errors import ArgumentError, DataError, ShapeError
from minicnn.files import replacing
from minicnn.foreign.common import Shapes, differences, existing_file, nodes_of, own_layer
from minicnn.layers import (
    GELU,
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    Node,
    ReLU,
    Rescaling,
    Softmax,
)
from minicnn.models import Model

PARTS = {"kernel": "weight", "bias": "bias"}
PARTS |= {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
COUNTER = "num_batches_tracked"  # an integer beside these four, which nothing here needs
ELEMENT_BY_ELEMENT = (Add, BatchNormalization, Dropout, GELU, LeakyReLU, Linear, ReLU, Rescaling, Softmax)
Order = (
    np.ndarray | None
)  # which of our elements stands at each place of PyTorch's row; None if all stand where ours do


def load_torch_weights(model: Model, path: str | os.PathLike, names: Sequence[str] | None = None) -> None:
    """Read the weights of a PyTorch network of the same layers, written by ``safetensors.torch.save_file``.

    A safetensors file does not keep the order of its tensors. So without `names` a layer is found by its own name if
    the file has just these, else by its shapes; among equal shapes the numbers in the names decide, 2 before 10.

    Parameters
    ----------
    model : Model
    path : path
    names : sequence of str, optional
        PyTorch's names of the layers that have weights, in the model's order: ["0", "3", "7"], or ["conv1", "fc"].

    Raises
    ------
    DataNotFoundError, DataError, DtypeError
        If the file is missing or damaged, `path` is not a path, or `model` is no model.
    ShapeError
        If names or shapes differ: all differences are listed and nothing is changed.
    ArgumentError
        If the names do not tell which of several layers of one shape is which, or a layer is not known to PyTorch.
    StateError
        If the model has no shapes yet.

    References
    ----------
    docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html, .../torch.nn.Linear.html

    Examples
    --------
    >>> import tempfile, minicnn, numpy as np
    >>> from minicnn.foreign import load_torch_weights
    >>> from safetensors.numpy import save_file
    >>> model = minicnn.Sequential([minicnn.Input((2,)), minicnn.layers.Dense(3)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"0.weight": np.eye(3, 2), "0.bias": np.ones(3)}, f"{folder}/torch.safetensors")
    ...     load_torch_weights(model, f"{folder}/torch.safetensors")
    >>> model.get_weights()[0].shape
    (2, 3)
    """
    places = _places(model)
    path = existing_file(path, "a safetensors file with a state dict")
    tensors = _read(path)
    wanted = [{part: w.shape for part, w in _to_torch(*place).items()} for place in places]
    found: dict[str, Shapes] = defaultdict(dict)
    for name, tensor in tensors.items():
        group, _, part = name.rpartition(".")
        found[group][part] = tensor.shape
    own_names = [str(layer.name) for layer, _ in places]
    if names is None:
        chosen = own_names if set(own_names) == set(found) else _by_shape(wanted, found)
    else:
        chosen = _checked(names, own_names)
    expected: Shapes = {}
    labels: dict[str, str] = {}
    for name, shapes, (layer, _) in zip(chosen, wanted, places, strict=True):
        expected |= {f"{name}.{part}": shape for part, shape in shapes.items()}
        labels |= {f"{name}.{PARTS[own]}": f"{layer.name}/{own}" for own in layer.weights}
    if wrong := differences(expected, {name: tensor.shape for name, tensor in tensors.items()}, labels):
        raise ShapeError(f"the weights in {path} do not fit the model: " + "; ".join(wrong))
    if names is None and chosen != own_names:
        _require_an_order(chosen, wanted)
    model.set_weights(
        [
            _from_torch(tensors[f"{name}.{PARTS[own]}"], None if own == "bias" else order)
            for name, (layer, order) in zip(chosen, places, strict=True)
            for own in layer.weights
        ]
    )


def save_torch_weights(model: Model, path: str | os.PathLike, names: Sequence[str] | None = None) -> None:
    """Write the weights as a state dict that ``load_state_dict(safetensors.torch.load_file(path))`` takes.

    Parameters
    ----------
    model : Model
    path : path
    names : sequence of str, optional
        PyTorch's names of the layers that have weights, in the model's order; by default the model's own.

    Raises
    ------
    ArgumentError
        If a layer is not known to PyTorch, or there are not as many different names as layers with weights.
    DtypeError, StateError
        If it is no model, or has no shapes yet.
    OutputError
        If the file cannot be written.

    References
    ----------
    docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html, .../torch.nn.Linear.html

    Examples
    --------
    >>> import tempfile, minicnn
    >>> from minicnn.foreign import save_torch_weights
    >>> from safetensors.numpy import load_file
    >>> model = minicnn.Sequential([minicnn.Input((8, 8, 3)), minicnn.layers.Conv2D(16, 5)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_torch_weights(model, f"{folder}/torch.safetensors", names=["0"])
    ...     load_file(f"{folder}/torch.safetensors")["0.weight"].shape
    (16, 3, 5, 5)
    """
    from safetensors.numpy import save

    places = _places(model)
    own_names = [str(layer.name) for layer, _ in places]
    chosen = own_names if names is None else _checked(names, own_names)
    tensors = {
        f"{name}.{part}": np.ascontiguousarray(w)
        for name, place in zip(chosen, places, strict=True)
        for part, w in _to_torch(*place).items()
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, {"format": "pt"}))


# Arrays


def _to_torch(layer: Layer, order: Order) -> dict[str, np.ndarray]:
    """Return a layer's weights by PyTorch's names, each with its axes and rows in PyTorch's order."""
    found = {}
    for name, w in layer.weights.items():
        w = kernels.on_host(w)
        if w.ndim == 4:
            w = w.transpose(3, 2, 0, 1)  # (F, C, KH, KW)
        elif order is not None and name != "bias":  # which is of the outputs, whose order is ours
            w = w[order]
        found[PARTS[name]] = w.T if w.ndim == 2 else w  # (Out, In)
    return found


def _from_torch(w: np.ndarray, order: Order) -> np.ndarray:
    """Return a weight in minicnn's order, back from `_to_torch`."""
    if w.ndim == 4:
        return w.transpose(2, 3, 1, 0)  # (KH, KW, C, F)
    if order is None:
        return w.T  # (In, Out), or a vector as it is
    rows = np.empty_like(w.T)
    rows[order] = w.T
    return rows


# Layers


def _places(model: Model) -> list[tuple[Layer, Order]]:
    """Return the layers with weights, each with the order in which PyTorch lists the elements of a row that it gets."""
    orders: dict[Node, Order] = {}
    places: list[tuple[Layer, Order]] = []
    for node in nodes_of(model):
        layer, above = node.layer, [orders[parent] for parent in node.inputs]
        if layer.weights:
            own_layer(layer, (BatchNormalization, Conv2D, Dense), "PyTorch")
            if isinstance(layer, BatchNormalization) and layer.scale != layer.center:
                raise ArgumentError(f"{layer.name!r} has a gamma or a beta. Expected both or none, as in PyTorch.")
            places.append((layer, above[0]))
        if isinstance(layer, Flatten) and len(layer.input_shape) == 3:
            pixels = np.arange(layer.output_shape[0]).reshape(layer.input_shape)  # (H, W, C)
            orders[node] = pixels.transpose(2, 0, 1).reshape(-1)  # (C*H*W,)
        elif isinstance(layer, Dense) or all(order is None for order in above):
            orders[node] = None
        elif type(layer) is Concatenate:
            orders[node] = _joined(above, [shape[0] for shape in layer.input_shape])
        else:
            own_layer(layer, (*ELEMENT_BY_ELEMENT, Concatenate, Flatten), "PyTorch")
            if len({None if order is None else order.tobytes() for order in above}) > 1:
                raise ArgumentError(f"the inputs of {layer.name!r} list pixels in different orders in PyTorch.")
            orders[node] = above[0]
    return places


def _joined(orders: Sequence[Order], sizes: Sequence[int]) -> np.ndarray:
    """Return the order of rows of these sizes one behind the other."""
    starts = np.cumsum([0, *sizes[:-1]])
    whole = [np.arange(size) if order is None else order for order, size in zip(orders, sizes, strict=True)]
    return np.concatenate([order + start for order, start in zip(whole, starts, strict=True)])


def _checked(names: Sequence[str], layers: Sequence[str]) -> list[str]:
    if isinstance(names, str) or len(set(names)) != len(names) or len(names) != len(layers):
        raise ArgumentError(f"names expects a different name for each of {', '.join(layers)}. Received: {names!r}")
    return [str(name) for name in names]


def _by_shape(wanted: Sequence[Shapes], found: dict[str, Shapes]) -> list[str]:
    """Return for each layer the first name left that has its shapes; those that have none take the rest as it comes."""
    free = sorted(found, key=_counting)
    chosen: list[Any] = []
    for shapes in wanted:
        name = next((name for name in free if found[name] == shapes), None)
        chosen.append(name)
        free = [other for other in free if other != name]
    rest = iter(free)
    return [next(rest, f"(layer {i})") if name is None else name for i, name in enumerate(chosen)]


def _counting(name: str) -> list[Any]:
    """Return a key that sorts conv2 before conv10: every second part is a number, by its length and then its digits."""
    parts: list[Any] = re.split(r"(\d+)", name)
    parts[1::2] = [(len(digits.lstrip("0")), digits) for digits in parts[1::2]]
    return parts


def _require_an_order(chosen: Sequence[str], wanted: Sequence[Shapes]) -> None:
    """Raise unless layers of one shape have names that differ in their numbers alone."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name, shapes in zip(chosen, wanted, strict=True):
        alike[str(shapes)].append(name)
    for names in alike.values():
        if len({re.sub(r"\d+", "#", name) for name in names}) > 1:
            raise ArgumentError(
                f"which of {', '.join(names)} comes first is not told by the file, and their shapes are equal. "
                "Give PyTorch's names in the order of the model's layers: load_torch_weights(model, path, names=[...])"
            )


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.rpartition(".")[2] != COUNTER]  # noqa: SIM118 - no dictionary
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a safetensors file, or is damaged ({error}).") from None
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise DataError(f"{path} holds at {name} no weights, but {tensor.dtype}. Expected floats.")
    return tensors
