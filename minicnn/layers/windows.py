"""The arithmetic of windows that slide over an image: output sizes and padding, as Keras computes them."""

from typing import Any

from minicnn.checks import positive_integer
from minicnn.errors import ArgumentError, ShapeError

Pair = tuple[int, int]


def pair(value: Any, what: str) -> Pair:
    """Return an integer or a pair of integers as a pair (vertical, horizontal); `what` names it in the error.

    >>> from minicnn.layers.windows import pair
    >>> pair(3, "kernel_size")
    (3, 3)
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ArgumentError(f"{what} expects an integer or a pair of them. Received: {value!r}")
    return positive_integer(what, values[0]), positive_integer(what, values[1])


def check_padding(padding: Any) -> str:
    """Return `padding` in lower case if it is one of the two that exist."""
    if str(padding).lower() not in ("valid", "same"):
        raise ArgumentError(f'padding expects "valid" or "same". Received: {padding!r}')
    return str(padding).lower()


def slide(size: Pair, window: Pair, strides: Pair, padding: str) -> tuple[Pair, tuple[Pair, Pair]]:
    """Return how often a window fits, (OH, OW), and the zeros around the image, ((top, bottom), (left, right)).

    valid: out = ceil((in - k + 1) / s), no zeros. same: out = ceil(in / s) with max((out-1)*s + k - in, 0) zeros,
    the smaller half before and the rest after: not PyTorch's symmetric padding.

    Raises
    ------
    ShapeError
        If the window is larger than the image and nothing is padded.

    Examples
    --------
    >>> from minicnn.layers.windows import slide
    >>> slide((32, 32), (3, 3), (2, 2), "same")
    ((16, 16), ((0, 1), (0, 1)))
    >>> slide((5, 5), (2, 2), (2, 2), "valid")
    ((2, 2), ((0, 0), (0, 0)))
    """
    outs, pads = [], []
    for have, k, s in zip(size, window, strides, strict=True):
        if padding == "same":
            out = -(-have // s)
            total = max((out - 1) * s + k - have, 0)
        else:
            out, total = -(-(have - k + 1) // s), 0
        if out < 1:
            raise ShapeError(
                f'a window of {window} does not fit into an image of {size}. Use padding="same" or a smaller window.'
            )
        outs.append(out)
        pads.append((total // 2, total - total // 2))
    return (outs[0], outs[1]), (pads[0], pads[1])
