"""The loops below the layers: one room a kind of array, with the same doors in each.

`cpu` is NumPy, Numba and BLAS; `gpu` is CUDA through CuPy; `reference` says the same in plain loops and is the oracle
of the tests.
"""

from types import ModuleType
from typing import Any

import numpy as np

from minicnn.errors import DtypeError
from minicnn.kernels.devices import get_device


def room(array: Any) -> ModuleType:
    """Return the module of kernels that computes with arrays of this type.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray of any shape

    Raises
    ------
    DtypeError
        If `array` is not an array of a kind that has a room.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn import kernels
    >>> kernels.room(np.zeros(3)).__name__
    'minicnn.kernels.cpu'
    """
    if isinstance(array, np.ndarray):
        return _room("cpu")
    if type(array).__module__.partition(".")[0] == "cupy":
        return _room("gpu")
    raise DtypeError(
        f"expected a NumPy or CuPy array. Received: {type(array).__name__}. Convert it with numpy.asarray."
    )


def chosen_room() -> ModuleType:
    """Return the module of kernels of the chosen device.

    >>> from minicnn import kernels
    >>> kernels.chosen_room().__name__
    'minicnn.kernels.cpu'
    """
    return _room(get_device())


def _room(name: str) -> ModuleType:
    if name == "gpu":
        from minicnn.kernels import gpu

        return gpu
    from minicnn.kernels import cpu  # here and not above: Numba takes half a second to import

    return cpu


def here(array: Any) -> Any:
    """Return an array in the memory of the chosen device: itself, if it is there already.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray of any shape

    Returns
    -------
    numpy.ndarray or cupy.ndarray, of the same shape and type

    Raises
    ------
    DeviceMemoryError
        If the GPU has no room for it.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn import kernels
    >>> kernels.here(np.zeros(3)).shape
    (3,)
    """
    if get_device() == "cpu":
        return on_host(array)
    return _room("gpu").on_device(array)


def on_host(array: Any) -> np.ndarray:
    """Return an array as NumPy's: itself, if it is one already.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray of any shape

    Returns
    -------
    numpy.ndarray, of the same shape and type

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn import kernels
    >>> kernels.on_host(np.zeros(3)).shape
    (3,)
    """
    return array if isinstance(array, np.ndarray) or not hasattr(array, "get") else array.get()
