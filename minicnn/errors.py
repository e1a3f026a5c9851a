"""Every error that minicnn raises on purpose: a `MinicnnError` that is also the fitting built-in kind.

A message names the thing, says what was expected and what came, and ends with what to do:

>>> from minicnn.errors import MinicnnError, ShapeError
>>> issubclass(ShapeError, MinicnnError) and issubclass(ShapeError, ValueError)
True
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MinicnnError(Exception):
    """Base of all errors of this package: catch it to catch them all."""


class ShapeError(MinicnnError, ValueError):
    """Arrays whose shapes do not fit the layer, the labels or each other."""


class ArgumentError(MinicnnError, ValueError):
    """An argument outside what the function accepts: an unknown name, a negative size."""


class DtypeError(MinicnnError, TypeError):
    """An array or argument of a type that the operation does not compute with."""


class StateError(MinicnnError, RuntimeError):
    """A call that came too early, such as ``fit`` before ``compile``."""


class DeviceError(MinicnnError, RuntimeError):
    """A GPU that was asked for and cannot be used."""


class DeviceMemoryError(MinicnnError, MemoryError):
    """More memory than the GPU has left."""


class DataError(MinicnnError, ValueError):
    """Data that was found but is wrong: a broken image, a truncated archive, labels out of range."""


class DataNotFoundError(MinicnnError, FileNotFoundError):
    """A file or folder that is missing or empty."""


class OutputError(MinicnnError, OSError):
    """A place that cannot be written to."""


class TrainingError(MinicnnError, ArithmeticError):
    """A training run whose loss is no longer a finite number."""


def leave(line: str, status: int) -> None:
    """Print the error that ends the program; with several ranks, `minicnn.ranks` puts a function here that ends all.

    Parameters
    ----------
    line : str
    status : int, of the process
    """
    print(line, file=sys.stderr)


@contextmanager
def plain_exit() -> Iterator[None]:
    """End the program with one line and status 2 instead of a traceback when one of our errors comes out of the block.

    Ctrl-C ends it with one line and status 130, as shells expect.

    Raises
    ------
    SystemExit
        With the status, in place of the error.

    Examples
    --------
    >>> from minicnn.errors import DataError, plain_exit
    >>> with plain_exit():
    ...     raise DataError("cat.png is not an image.")
    Traceback (most recent call last):
        ...
    SystemExit: 2
    """
    try:
        yield
    except MinicnnError as error:
        leave(f"error: {error}", 2)
        raise SystemExit(2) from None
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
