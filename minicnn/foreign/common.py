"""What reading and writing foreign files have in common."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicnn.errors import ArgumentError, DataNotFoundError, DtypeError, StateError
from minicnn.layers import Layer, Node
from minicnn.models import Model

Shapes = dict[str, tuple[int, ...]]


def optional(module: str, extra: str) -> Any:
    """Return a package that is installed only with the extra of this name.

    Raises
    ------
    StateError
        If it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StateError(
            f"this needs the package {module}, which cannot be imported ({error}). "
            f"Install it with: pip install 'minicnn[{extra}]'"
        ) from None


def nodes_of(model: Any) -> list[Node]:
    """Return the nodes of a model that has its shapes, each after its inputs.

    Raises
    ------
    DtypeError
        If it is no model.
    StateError
        If it has no shapes yet.
    """
    if not isinstance(model, Model):
        raise DtypeError(f"expected a model of minicnn. Received: {type(model).__name__}")
    if not model.layers:
        raise StateError("the model has no shapes yet. Call build(input_shape), or fit, first.")
    return model._nodes


def own_layer(layer: Layer, kinds: Any, where: str) -> None:
    """Do nothing if the layer is of one of these classes; of a subclass it could do anything.

    Raises
    ------
    ArgumentError
        If it is not.
    """
    if type(layer) not in kinds:
        raise ArgumentError(
            f"the layer {layer.name!r}, {layer}, cannot be told to {where}. "
            f"Expected one of: {', '.join(kind.__name__ for kind in kinds)}"
        )


def existing_file(path: Any, what: str) -> Path:
    """Return `path` as a Path if there is a file; the error calls it `what`.

    Raises
    ------
    DtypeError
        If it is not a path.
    DataNotFoundError
        If there is no such file.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DtypeError(f"expected the path of {what}. Received: {path!r}")
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"{path} is a folder." if path.is_dir() else f"no file at {path}. Expected {what}.")
    return path


def differences(own: Shapes, found: Shapes, labels: Mapping[str, str]) -> list[str]:
    """Return what does not fit between the shapes that the model expects and those in a file, by their names there.

    The labels are the names of the same weights in the model.
    """
    wrong = [f"{name} {shape}: not in the model" for name, shape in found.items() if name not in own]
    for name, shape in own.items():
        if name not in found:
            wrong.append(f"{name} for {labels[name]}: {shape} expected, missing")
        elif found[name] != shape:
            wrong.append(f"{name} for {labels[name]}: {shape} expected, received {found[name]}")
    return wrong
