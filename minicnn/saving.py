"""Models on disk: safetensors, with the architecture as JSON in its header. No pickle, nothing that runs.

A file holds every weight under "layer/weight" and the metadata "minicnn" (format version) and "model" (JSON).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.errors import DataError, DataNotFoundError
from minicnn.files import replacing

FORMAT = "1"


def write(path: str | os.PathLike, tensors: dict[str, np.ndarray], model: dict[str, Any]) -> None:
    """Write tensors and a description of the model to `path`: the old file or the new one is there, never a part.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    content = save(tensors, {"minicnn": FORMAT, "model": json.dumps(model)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the description of the model that `write` wrote.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If it is not a file of this kind and version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"no model file at {path}. Expected a file that model.save(path) wrote.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        model = json.loads(metadata.get("model", "null"))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a model file, or is damaged: {error}. Expected one of model.save.") from None
    if metadata.get("minicnn") != FORMAT or not isinstance(model, dict):
        raise DataError(f"{path} is not a minicnn model of format {FORMAT}. Received: {metadata.get('minicnn')}")
    return tensors, model
