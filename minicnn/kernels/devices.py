"""Which device computes: the processor, or one NVIDIA GPU; and what is missing where the GPU cannot be used.

The chosen device is where layers put what they are given; which room computes, the array itself decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from minicnn.errors import ArgumentError, DeviceError

_device = "cpu"


def get_device() -> str:
    """Return where layers compute, ``"cpu"`` or ``"gpu"``.

    >>> import minicnn
    >>> minicnn.get_device()
    'cpu'
    """
    return _device


def set_device(name: str) -> None:
    """Choose where layers compute from now on; weights and what an optimizer keeps follow when they are next used.

    Parameters
    ----------
    name : {"cpu", "gpu", "auto"}
        "auto" is the GPU if one can be used, else the CPU.

    Raises
    ------
    ArgumentError
        If `name` is none of these.
    DeviceError
        If the GPU is asked for and cannot be used; the message says what is missing.

    Examples
    --------
    >>> import minicnn
    >>> minicnn.set_device("cpu")
    >>> minicnn.get_device()
    'cpu'
    """
    global _device
    if name not in ("cpu", "gpu", "auto"):
        raise ArgumentError(f'set_device expects "cpu", "gpu" or "auto". Received: {name!r}')
    missing = None if name == "cpu" else what_is_missing()
    if name == "gpu" and missing:
        raise DeviceError(missing)
    _device = "cpu" if name == "cpu" or missing else "gpu"


@contextmanager
def device(name: str) -> Iterator[None]:
    """Choose where layers compute inside the block only.

    Parameters
    ----------
    name : as in `set_device`

    Raises
    ------
    ArgumentError, DeviceError
        As in `set_device`.

    Examples
    --------
    >>> import minicnn
    >>> with minicnn.device("cpu"):
    ...     minicnn.get_device()
    'cpu'
    """
    global _device
    before = _device
    set_device(name)
    try:
        yield
    finally:
        _device = before


def what_is_missing() -> str | None:
    """Return why the GPU cannot be used, in one line, or None if it can.

    CuPy is imported here, and only when somebody asks for the GPU.
    """
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            return "the GPU needs CuPy, which is not installed. Install it: pip install 'minicnn[gpu]'"
        return f"the GPU needs CuPy, which is installed but cannot be loaded ({error}). Install it again."
    runtime = cupy.cuda.runtime
    try:
        count, driver = 0, runtime.driverGetVersion()
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        said = str(error).partition(":")[0]
        if "NoDevice" not in said:
            if "InsufficientDriver" in said and driver == 0:
                return "the GPU needs NVIDIA's driver, and there is none. Install the driver, or use the CPU."
            if "InsufficientDriver" in said:
                have, want = (f"{v // 1000}.{v % 1000 // 10}" for v in (driver, runtime.runtimeGetVersion()))
                return f"NVIDIA's driver is too old: it serves CUDA {have}, CuPy needs {want}. Install a newer driver."
            return f"NVIDIA's driver does not answer ({error}). Restart the machine, or use the CPU."
    if count == 0:
        return "there is no NVIDIA GPU in this machine, or none that this process may see. Use the CPU."
    from minicnn.kernels import gpu

    return gpu.complaint()
