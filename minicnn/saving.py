"""Models on disk: safetensors, with the architecture as JSON in its header. No pickle, nothing that runs.

A file holds every weight under "layer/weight" and, under the metadata key "minicnn", JSON of format version and model.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.errors import DataError, DataNotFoundError, DtypeError
from minicnn.files import replacing

FORMAT = "1"


def write(
    path: str | os.PathLike, tensors: dict[str, np.ndarray], model: dict[str, Any], **more: dict[str, Any]
) -> None:
    """Write tensors and a description of the model to `path`: the old file or the new one is there, never a part.

    What is `more` goes into the header beside the model, by its name.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    header = json.dumps({"format": FORMAT, "model": model, **more})
    content = save(tensors, {"minicnn": header})  # one key: safetensors writes several in a random order
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the weights and the description of the model that `write` wrote.

    Raises
    ------
    DataNotFoundError, DataError, DtypeError
        As in `read_all`.
    """
    tensors, header = read_all(path)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(":")}, header["model"]


def read_all(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return all tensors and the whole header of a file that `write` wrote; tensors that are no weights begin with ":".

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If it is not a file of this kind and version.
    """
    from safetensors import SafetensorError, safe_open

    if not isinstance(path, (str, os.PathLike)):
        raise DtypeError(f"expected the path of a file that model.save(path) wrote. Received: {path!r}")
    path = Path(path)
    try:
        if path.is_dir():
            raise DataNotFoundError(f"{path} is a folder. Expected a file that model.save(path) wrote.")
        if not path.is_file():
            raise DataNotFoundError(f"no model file at {path}. Expected a file that model.save(path) wrote.")
        with open(path, "rb") as start:  # of a file that may not be read, safetensors would say that it is not there
            theirs = start.read(8).startswith((b"PK", b"\x89HDF"))
        if theirs:
            raise ValueError("it is one of Keras's, for minicnn.foreign.load_keras_model or load_keras_weights")
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("minicnn", "null")
            header = json.loads(text, object_pairs_hook=_each_once, parse_constant=_refuse_constant)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        if any(map(np.iscomplexobj, tensors.values())):
            raise ValueError("weights are no complex numbers")
    except DataNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a model file, or is damaged ({error}). Expected a file that model.save(path) wrote."
        ) from None
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("model"), dict):
        raise DataError(
            f"{path} holds tensors, but not a model of this version (format {FORMAT}). "
            "Expected a file that model.save(path) wrote."
        )
    return tensors, header


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON whose names differ: of two equal ones, one program reads the first, another the last."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice in its description")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
