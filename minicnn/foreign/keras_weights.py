"""Weights as Keras keeps them in HDF5: `layers/conv2d_1/vars/0` is the second Conv2D's kernel, `.../1` its bias."""

import io
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from minicnn import kernels
from minicnn.errors import DataError, MinicnnError
from minicnn.foreign.common import optional
from minicnn.layers import GELU, BatchNormalization, Layer, Linear, Node, ReLU, Softmax

# Keras 2.12 called the group _layer_checkpoint_dependencies, and on Windows joined the parts by backslashes.
PLACE = re.compile(r"(?:layers|_layer_checkpoint_dependencies)/(.*)")
WEIGHT = re.compile(r"(.*)/vars/(\d+)")


def in_keras_order(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes of a graph as Keras lists them: by the longest way to the output, then as a search finds them.

    Branches can come in another order than the one in which minicnn runs them, and Keras counts names along its own.
    """
    depth: dict[Node, int] = defaultdict(int)
    for node in reversed(nodes):  # after everything that it leads to
        for parent in node.inputs:
            depth[parent] = max(depth[parent], depth[node] + 1)
    found: dict[Node, int] = {}
    stack = [nodes[-1]]
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = len(found)
            stack.extend(reversed(node.inputs))
    return sorted(nodes, key=lambda node: (-depth[node], found[node]))


def groups(layers: Sequence[Layer]) -> list[str]:
    """Return the name of each layer's group: its class, counted."""
    return _counted([layer.base_name for layer in layers])


def _counted(bases: Sequence[str]) -> list[str]:
    counts, names = Counter[str](), []
    for base in bases:
        names.append(base + f"_{counts[base]}" * (counts[base] > 0))
        counts[base] += 1
    return names


def names(layer: Layer) -> list[str]:
    """Return the names of the weights that a layer of this kind can have, in the order of their numbers."""
    if isinstance(layer, BatchNormalization):
        return ["gamma"] * layer.scale + ["beta"] * layer.center + ["moving_mean", "moving_variance"]
    return ["kernel", "bias"]


def named(nodes: Sequence[Node]) -> dict[str, tuple[Layer, str]]:
    """Return which weight stands where: a layer and the name of its weight, by group and number."""
    layers = [node.layer for node in nodes]
    return {
        f"{group}/vars/{i}": (layer, name)
        for group, layer in zip(groups(layers), layers, strict=True)
        for i, name in enumerate(layer.weights)
    }


def written(nodes: Sequence[Node]) -> bytes:
    """Return an HDF5 file of the weights of nodes in Keras's order.

    Raises
    ------
    StateError
        If h5py is not installed.
    """
    h5py, content = optional("h5py", "keras"), io.BytesIO()
    layers = [node.layer for node in nodes]
    # Keras 2.15 demands a group for a layer without weights too, and our ReLU may be an Activation there.
    activations = ["activation" for layer in layers if isinstance(layer, (GELU, Linear, ReLU, Softmax))]
    with h5py.File(content, "w") as file:
        file.create_group("vars")
        for name in groups(layers) + _counted(activations):
            file.create_group(f"layers/{name}/vars")
        for name, (layer, param) in named(nodes).items():
            file[f"layers/{name}"] = kernels.on_host(layer.weights[param])
    return content.getvalue()


def read(source: IO[bytes], path: Path) -> dict[str, np.ndarray]:
    """Return the layers' weights in an HDF5 file, by group and number; the errors call it `path`.

    Raises
    ------
    DataError
        If it is damaged, or claims more than it holds.
    StateError
        If h5py is not installed.
    """
    h5py = optional("h5py", "keras")
    found: dict[str, Any] = {}

    def collect(name: str, item: Any) -> None:
        place = PLACE.fullmatch(name.replace("\\", "/"))
        if place and isinstance(item, h5py.Dataset):
            found[place[1]] = item

    try:
        with h5py.File(source, "r") as file:
            file.visititems(collect)  # follows no link, so the file cannot lead to another one, nor in a circle
            for name, item in found.items():
                if item.dtype.kind != "f" or item.external or item.is_virtual:
                    raise DataError(f"{path} holds at {name} no plain numbers: {item.dtype}. Expected floats.")
            held, claimed = source.seek(0, io.SEEK_END), sum(item.nbytes for item in found.values())
            if claimed > held:  # Keras does not compress; without this check a few bytes could ask for terabytes
                raise DataError(f"{path} is damaged or hostile: {held:,} bytes claim to hold {claimed:,} of weights.")
            return {name: item[()] for name, item in found.items()}
    except MinicnnError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} does not hold weights as Keras keeps them, or is damaged ({error}).") from None
