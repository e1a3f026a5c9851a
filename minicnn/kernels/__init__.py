"""The loops below the layers: one room a kind of array, with the same doors in each.

`cpu` is NumPy, Numba and BLAS; `reference` says the same in plain loops and is the oracle of the tests.
"""

from types import ModuleType

import numpy as np

from minicnn.errors import DtypeError


def room(array: np.ndarray) -> ModuleType:
    """Return the module of kernels that computes with arrays of this type.

    Parameters
    ----------
    array : numpy.ndarray of any shape

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
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"expected a NumPy array. Received: {type(array).__name__}. Convert it with numpy.asarray.")
    from minicnn.kernels import cpu  # here and not above: Numba takes half a second to import

    return cpu
