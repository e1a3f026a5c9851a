"""Keras's files: `.keras`, a zip of the layers as JSON and the weights as HDF5, and `.weights.h5`, the weights alone.

Nothing in a file is executed or unpacked to the disk: its JSON names layers, which are looked up in a table.
"""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.errors import DataError, MinicnnError, ShapeError
from minicnn.files import replacing
from minicnn.foreign import keras_config, keras_weights
from minicnn.foreign.common import differences, existing_file, nodes_of
from minicnn.models import Model

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"  # the members of the zip
CONFIG_LIMIT = 2**24  # bytes; a layer takes one or two thousand


def load_keras_model(path: str | os.PathLike) -> Model:
    """Return the model in a `.keras` file of Keras 2.15 or 3: its layers and their weights.

    What concerns training alone is left out: optimizer, loss, initializers, regularizers, constraints, `trainable`.

    Parameters
    ----------
    path : path

    Returns
    -------
    Model
        Not compiled; its layers have their names in Keras.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If it is damaged, or has a layer or an option that minicnn has not: the message names it.
    DtypeError
        If `path` is not a path.
    StateError
        If h5py is not installed.

    References
    ----------
    keras.io/api/models/model_saving_apis

    Examples
    --------
    >>> import tempfile, minicnn
    >>> from minicnn.foreign import load_keras_model, save_keras_model
    >>> model = minicnn.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2, activation="softmax")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_keras_model(model, f"{folder}/model.keras")
    ...     load_keras_model(f"{folder}/model.keras")
    <Model "sequential": 2 layers, 10 weights>
    """
    path = existing_file(path, "a .keras file")
    config, tensors = _member(path, CONFIG, CONFIG_LIMIT), _weights(path)
    try:
        return keras_config.model_from(json.loads(config), tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, MinicnnError) else f"{CONFIG} is damaged ({error!r})"
        raise DataError(f"{path} does not hold a model that minicnn can build: {reason}") from None


def save_keras_model(model: Model, path: str | os.PathLike) -> None:
    """Write a `.keras` file, which Keras 3 loads: the layers and their weights.

    Parameters
    ----------
    model : Model
    path : path
        Keras itself demands that the name ends in `.keras`.

    Raises
    ------
    StateError
        If the model has no shapes yet, or h5py is not installed.
    ArgumentError
        If a layer is not one of minicnn's, or has a name that Keras does not allow.
    DtypeError
        If it is no model.
    OutputError
        If the file cannot be written.

    References
    ----------
    keras.io/api/models/model_saving_apis

    Examples
    --------
    >>> import tempfile, zipfile, minicnn
    >>> from minicnn.foreign import save_keras_model
    >>> model = minicnn.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_keras_model(model, f"{folder}/model.keras")
    ...     zipfile.ZipFile(f"{folder}/model.keras").namelist()
    ['metadata.json', 'config.json', 'model.weights.h5']
    """
    nodes = keras_weights.in_keras_order(nodes_of(model))
    members = {
        METADATA: json.dumps({"keras_version": "3.0.0"}).encode(),
        CONFIG: json.dumps(keras_config.config_of(model, nodes)).encode(),
        WEIGHTS: keras_weights.written(nodes),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without the time: equal models are equal files
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def load_keras_weights(model: Model, path: str | os.PathLike) -> None:
    """Read the weights in a `.weights.h5` or `.keras` file of Keras 2.15 or 3 into a model of the same layers.

    The file names a layer by its class and place, not by its name: the second convolution is conv2d_1.

    Parameters
    ----------
    model : Model
    path : path

    Raises
    ------
    DataNotFoundError, DataError, DtypeError
        If the file is missing or damaged, `path` is not a path, or `model` is no model.
    ShapeError
        If names or shapes differ: all differences are listed and nothing is changed.
    StateError
        If the model has no shapes yet, or h5py is not installed.

    References
    ----------
    keras.io/api/models/model_saving_apis

    Examples
    --------
    >>> import tempfile, minicnn
    >>> from minicnn.foreign import load_keras_weights, save_keras_weights
    >>> old, new = (minicnn.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2)]) for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_keras_weights(old, f"{folder}/model.weights.h5")
    ...     load_keras_weights(new, f"{folder}/model.weights.h5")
    >>> bool((new.get_weights()[0] == old.get_weights()[0]).all())
    True
    """
    nodes, path = nodes_of(model), existing_file(path, "a .weights.h5 file")
    if zipfile.is_zipfile(path):
        tensors = _weights(path)
    else:
        with open(path, "rb") as file:
            tensors = keras_weights.read(file, path)
    own = keras_weights.named(keras_weights.in_keras_order(nodes))
    expected = {name: layer.weights[param].shape for name, (layer, param) in own.items()}
    labels = {name: f"{layer.name}/{param}" for name, (layer, param) in own.items()}
    if wrong := differences(expected, {name: tensor.shape for name, tensor in tensors.items()}, labels):
        raise ShapeError(f"the weights in {path} do not fit the model: " + "; ".join(wrong))
    found = {place: tensors[name] for name, place in own.items()}
    model.set_weights([found[layer, param] for layer in model.layers for param in layer.weights])


def save_keras_weights(model: Model, path: str | os.PathLike) -> None:
    """Write the weights alone, as a `.weights.h5` file that Keras 2.15 and 3 load into a model of the same layers.

    Parameters
    ----------
    model : Model
    path : path
        Keras itself demands that the name ends in `.weights.h5`.

    Raises
    ------
    StateError
        If the model has no shapes yet, or h5py is not installed.
    DtypeError
        If it is no model.
    OutputError
        If the file cannot be written.

    References
    ----------
    keras.io/api/models/model_saving_apis

    Examples
    --------
    >>> import h5py, tempfile, minicnn
    >>> from minicnn.foreign import save_keras_weights
    >>> model = minicnn.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_keras_weights(model, f"{folder}/model.weights.h5")
    ...     with h5py.File(f"{folder}/model.weights.h5") as file:
    ...         print(file["layers/dense/vars/0"].shape, file["layers/dense/vars/1"].shape)
    (4, 2) (2,)
    """
    content = keras_weights.written(keras_weights.in_keras_order(nodes_of(model)))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _weights(path: Path) -> dict[str, np.ndarray]:
    # Keras does not compress. Somebody else may have, by which weights hardly shrink, though an HDF5 file's margins do.
    limit = 2 * path.stat().st_size + 2**20
    return keras_weights.read(io.BytesIO(_member(path, WEIGHTS, limit)), path)


def _member(path: Path, name: str, limit: int) -> bytes:
    """Return one member of the zip, of at most `limit` bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts: list[Any] = [(other, other.replace("\\", "/").split("/")) for other in archive.namelist()]
            outside = [other for other, folders in parts if ".." in folders or not folders[0]]
            if outside:
                raise DataError(f"{path} is no file of Keras: its member {outside[0]!r} leads out of it.")
            member = archive.getinfo(name)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{path} is no file of Keras: its member {name} is compressed in an unusual way.")
            if member.file_size > limit:
                raise DataError(
                    f"{path} is damaged or hostile: its member {name} claims {member.file_size:,} bytes. "
                    f"Expected at most {limit:,}."
                )
            return archive.read(member)
    except MinicnnError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a .keras file, or is damaged ({error}).") from None
