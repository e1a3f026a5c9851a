"""Augmentation: in training, every image is shown a little differently each time, and stays what it is.

Flips, translations and crops move pixels and change none. Each is two lists for every image n: row i of the output is
row rows[n, i] of the input, column j is column cols[n, j]; so one kernel serves all three. Bytes stay bytes, which are
a quarter of what floats are to move: these layers stand before Rescaling. Other numbers come in the layer's float type.
"""

import math
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import number, positive_integer
from minicnn.data.dataset import random_generator
from minicnn.errors import ArgumentError, ShapeError
from minicnn.layers.base import Layer, Shape

Seed = int | np.random.Generator | None
Factor = float | tuple[float, float]
FILL_MODES = ("reflect", "constant", "nearest", "wrap")


class PixelMover(Layer):
    """What flips, translations and crops share: y[n,i,j,c] = x[n, rows[n,i], cols[n,j], c], 0 where an index is -1.

    The gradient goes back where the pixel came from, dx[n, rows[n,i], cols[n,j], c] += dy[n,i,j,c]: a reflection shows
    a pixel twice.

    Parameters
    ----------
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If the seed is negative.
    """

    generator: np.random.Generator
    moved: tuple[np.ndarray, ...] | None = None  # rows (N, OH) and cols (N, OW) of the last forward

    def __init__(self, seed: Seed, name: str | None) -> None:
        super().__init__(name)
        self.seed = None if isinstance(seed, np.random.Generator) else seed
        self.generator = random_generator(seed)

    def build(self, input_shape: Shape) -> "PixelMover":
        """Fix the shapes for inputs of shape (H, W, C)."""
        self.input_shape = self.output_shape = self.check_rank(input_shape, "HWC")
        return self

    def places(self, training: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """Return rows (N, OH) and cols (N, OW) for the N images of the batch; None leaves them as they are.

        Parameters
        ----------
        training : as in `forward`
        """
        raise NotImplementedError(f"{type(self).__name__} must define places(training)")

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, OH, OW, C) for x (N, H, W, C), in x's type if that is uint8."""
        x, self.moved = _bytes_or_floats(self, x), None
        if (places := self.places(training)) is None:
            return x
        self.moved = tuple(kernels.here(place.astype(np.int32)) for place in places)
        return kernels.room(x).gather_pixels(x, *self.moved)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, H, W, C) for dy (N, OH, OW, C)."""
        dy, x_shape = self.check_gradient(dy), (len(dy), *self.input_shape)
        return dy if self.moved is None else kernels.room(dy).gather_pixels_backward(dy, *self.moved, x_shape)


class RandomFlip(PixelMover):
    """Mirror each image with probability 1/2, in training only: left and right, top and bottom, or each by itself.

    Parameters
    ----------
    mode : {"horizontal", "vertical", "horizontal_and_vertical"}
        "horizontal" exchanges left and right.
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C).

    References
    ----------
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012,
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import RandomFlip
    >>> layer = RandomFlip("horizontal", seed=1).build((1, 3, 1))
    >>> x = np.array([[1, 2, 3]] * 4, np.uint8).reshape(4, 1, 3, 1)
    >>> layer.forward(x, training=True).reshape(4, 3)
    array([[3, 2, 1],
           [3, 2, 1],
           [1, 2, 3],
           [3, 2, 1]], dtype=uint8)
    >>> bool((layer.forward(x) == x).all())
    True
    """

    def __init__(self, mode: str = "horizontal_and_vertical", seed: Seed = None, name: str | None = None) -> None:
        super().__init__(seed, name)
        if mode not in ("horizontal", "vertical", "horizontal_and_vertical"):
            raise ArgumentError(
                f'RandomFlip(mode) expects "horizontal", "vertical" or "horizontal_and_vertical". Received: {mode!r}'
            )
        self.mode = mode

    def places(self, training: bool) -> tuple[np.ndarray, np.ndarray] | None:
        if not training:
            return None
        flips = self.draw(lambda N: self.generator.integers(0, 2, (N, 2)))  # (N, 2): vertical, horizontal
        flips *= np.array(["vertical" in self.mode, "horizontal" in self.mode])
        rows, cols = (np.arange(size) for size in self.input_shape[:2])  # (H,), (W,)
        return np.where(flips[:, :1], rows[::-1], rows), np.where(flips[:, 1:], cols[::-1], cols)  # (N, H), (N, W)

    def get_config(self) -> dict[str, Any]:
        return {"mode": self.mode, "seed": self.seed}


class RandomTranslation(PixelMover):
    """Shift each image by a random number of whole pixels, in training only.

    Every whole number of pixels from low * H to high * H is equally likely, and likewise for the width. Keras shifts by
    fractions too, which mixes neighbouring pixels; here none changes, and bytes stay bytes.

    Parameters
    ----------
    height_factor : float or pair of float
        (low, high), parts of the height from -1 to 1: above 0 is down. A single f means (-f, f).
    width_factor : float or pair of float
        The same of the width: above 0 is to the right.
    fill_mode : {"reflect", "constant", "nearest", "wrap"}
        What comes in at the edge of a row a b c d: its mirror image d c b a | a b c d | d c b a; zeros; the edge
        a a a a | a b c d | d d d d; or the other end of it, a b c d | a b c d | a b c d.
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C), or there is no whole number of pixels between low and high.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012,
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import RandomTranslation
    >>> layer = RandomTranslation(0, (0.5, 0.5)).build((1, 4, 1))
    >>> x = np.array([1, 2, 3, 4], np.uint8).reshape(1, 1, 4, 1)
    >>> layer.forward(x, training=True).ravel()
    array([2, 1, 1, 2], dtype=uint8)
    >>> layer.backward(np.ones((1, 1, 4, 1), np.float32)).ravel()
    array([2., 2., 0., 0.], dtype=float32)
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        seed: Seed = None,
        name: str | None = None,
    ) -> None:
        super().__init__(seed, name)
        self.height_factor = _factor("RandomTranslation(height_factor)", height_factor)
        self.width_factor = _factor("RandomTranslation(width_factor)", width_factor)
        if fill_mode not in FILL_MODES:
            expected = ", ".join(f'"{mode}"' for mode in FILL_MODES)
            raise ArgumentError(f"RandomTranslation(fill_mode) expects one of {expected}. Received: {fill_mode!r}")
        self.fill_mode = fill_mode

    def build(self, input_shape: Shape) -> "RandomTranslation":
        """Fix the shapes and the range of the shifts for inputs of shape (H, W, C)."""
        super().build(input_shape)
        H, W, _ = self.input_shape
        vertical, horizontal = _pixels(self.height_factor, H), _pixels(self.width_factor, W)
        for what, (low, high) in (("height_factor", vertical), ("width_factor", horizontal)):
            if low > high:
                raise ShapeError(
                    f"{self} expects a whole number of pixels within its {what}. Received: an image of {H}x{W} pixels, "
                    "of which there is none. Take a wider range."
                )
        self.low, self.high = zip(vertical, horizontal, strict=True)
        return self

    def places(self, training: bool) -> tuple[np.ndarray, np.ndarray] | None:
        if not training:
            return None
        shifts = self.draw(lambda N: self.generator.integers(self.low, self.high, (N, 2), endpoint=True))  # (N, 2)
        H, W, _ = self.input_shape
        rows, cols = np.arange(H) - shifts[:, :1], np.arange(W) - shifts[:, 1:]  # (N, H), (N, W)
        return _filled(rows, H, self.fill_mode), _filled(cols, W, self.fill_mode)

    def get_config(self) -> dict[str, Any]:
        return {
            "height_factor": self.height_factor,
            "width_factor": self.width_factor,
            "fill_mode": self.fill_mode,
            "seed": self.seed,
        }


class RandomCrop(PixelMover):
    """Cut a window out of each image: a random one in training, each equally likely, the one in the middle otherwise.

    Where the borders cannot be equal, the upper and the left one are smaller by a pixel. Keras takes one window for
    the whole batch, and resizes the image where it is not training.

    Parameters
    ----------
    height, width : int, in pixels
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C), or is smaller than the window.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012,
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import RandomCrop
    >>> layer = RandomCrop(1, 3, seed=1).build((1, 5, 1))
    >>> x = np.arange(5, dtype=np.uint8).reshape(1, 1, 5, 1)
    >>> [layer.forward(x, training=True).ravel().tolist() for step in range(3)]
    [[1, 2, 3], [1, 2, 3], [2, 3, 4]]
    >>> layer.forward(x).ravel().tolist()
    [1, 2, 3]
    """

    def __init__(self, height: int, width: int, seed: Seed = None, name: str | None = None) -> None:
        super().__init__(seed, name)
        self.height = positive_integer("RandomCrop(height)", height)
        self.width = positive_integer("RandomCrop(width)", width)

    def build(self, input_shape: Shape) -> "RandomCrop":
        """Fix the output shape for inputs of shape (H, W, C)."""
        H, W, C = self.input_shape = self.check_rank(input_shape, "HWC")
        if self.height > H or self.width > W:
            raise ShapeError(
                f"{self} expects images of at least {self.height}x{self.width} pixels. Received: {H}x{W}. "
                "Cut out a smaller window."
            )
        self.output_shape = (self.height, self.width, C)
        self.spare = H - self.height, W - self.width  # pixels that are cut off
        return self

    @property
    def middle(self) -> tuple[int, int]:
        """The upper left corner of the window that is cut out where it is not training: row and column."""
        return self.spare[0] // 2, self.spare[1] // 2

    def places(self, training: bool) -> tuple[np.ndarray, np.ndarray]:
        if training:
            corners = self.draw(lambda N: self.generator.integers(0, self.spare, (N, 2), endpoint=True))  # (N, 2)
        else:
            assert self.batch is not None
            corners = np.full((self.batch, 2), self.middle)
        return corners[:, :1] + np.arange(self.height), corners[:, 1:] + np.arange(self.width)  # (N, OH), (N, OW)

    def get_config(self) -> dict[str, Any]:
        return {"height": self.height, "width": self.width, "seed": self.seed}


class RandomCutout(Layer):
    """Cover a rectangle of each image, in training only: its centre is any pixel, so its edge may leave the image.

    The gradient is 0 where the image was covered.

    Parameters
    ----------
    height_factor, width_factor : float above 0, at most 1
        Size of the rectangle in parts of the image, rounded to whole pixels, at least one.
    fill_value : float
        What the rectangle is filled with; for bytes a whole number from 0 to 255.
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C).

    References
    ----------
    DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, arXiv:1708.04552, 2017,
    section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import RandomCutout
    >>> layer = RandomCutout(1, 0.5, seed=1).build((1, 6, 1))
    >>> x = np.arange(1, 7, dtype=np.uint8).reshape(1, 1, 6, 1)
    >>> [layer.forward(x, training=True).ravel().tolist() for step in range(2)]
    [[1, 0, 0, 0, 5, 6], [1, 2, 0, 0, 0, 6]]
    """

    def __init__(
        self,
        height_factor: float,
        width_factor: float,
        fill_value: float = 0.0,
        seed: Seed = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.height_factor = _part("RandomCutout(height_factor)", height_factor)
        self.width_factor = _part("RandomCutout(width_factor)", width_factor)
        self.fill_value = number("RandomCutout(fill_value)", fill_value)
        self.seed = None if isinstance(seed, np.random.Generator) else seed
        self.generator: np.random.Generator = random_generator(seed)
        self.boxes: np.ndarray | None = None  # (N, 4) of the last forward: top, bottom, left, right

    def build(self, input_shape: Shape) -> "RandomCutout":
        """Fix the shapes for inputs of shape (H, W, C)."""
        self.input_shape = self.output_shape = self.check_rank(input_shape, "HWC")
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y, of x's shape, and of its type if that is uint8."""
        x, self.boxes = _bytes_or_floats(self, x), None
        if not training:
            return x
        if x.dtype == np.uint8 and self.fill_value not in range(256):
            raise ArgumentError(
                f"{self} expects a fill_value that is a byte, a whole number from 0 to 255, since the images are bytes."
            )
        H, W, _ = self.input_shape
        sizes = np.array([max(1, round(self.height_factor * H)), max(1, round(self.width_factor * W))])
        starts = self.draw(lambda N: self.generator.integers(0, (H, W), (N, 2))) - sizes // 2  # (N, 2)
        boxes = np.stack([starts, starts + sizes], axis=2).clip(0, [[H], [W]])  # (N, 2, 2)
        self.boxes = kernels.here(boxes.reshape(-1, 4).astype(np.int32))  # (N, 4)
        return kernels.room(x).cutout(x, self.boxes, self.fill_value)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx, of x's shape."""
        dy = self.check_gradient(dy)
        return dy if self.boxes is None else kernels.room(dy).cutout(dy, self.boxes, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {
            "height_factor": self.height_factor,
            "width_factor": self.width_factor,
            "fill_value": self.fill_value,
            "seed": self.seed,
        }


def _bytes_or_floats(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return the batch x (N, H, W, C), checked: bytes as they are, other numbers in the layer's float type."""
    x = layer.check(x, cast=False)
    return x if x.dtype == np.uint8 else x.astype(layer.dtype, copy=False)


def _factor(what: str, value: Any) -> Factor:
    """Return a part of the height or width, or a pair of them, low and high; `what` names it in the error."""
    if not isinstance(value, (tuple, list)):
        return number(what, value, 0, 1)
    if len(value) != 2 or number(what, value[0], -1, 1) > number(what, value[1], -1, 1):
        raise ArgumentError(f"{what} expects a number or a pair (low, high) with low <= high. Received: {value!r}")
    return float(value[0]), float(value[1])


def _part(what: str, value: Any) -> float:
    if number(what, value, 0, 1) == 0:
        raise ArgumentError(f"{what} expects a number above 0: nothing would be covered. Received: {value!r}")
    return float(value)


def _pixels(factor: Factor, size: int) -> tuple[int, int]:
    """Return the least and the greatest whole number of pixels in a range of parts of `size`."""
    low, high = factor if isinstance(factor, tuple) else (-factor, factor)
    return math.ceil(low * size - 1e-9), math.floor(high * size + 1e-9)  # 0.29 * 100 is 28.999999999999996


def _filled(places: np.ndarray, size: int, fill_mode: str) -> np.ndarray:
    """Return the places (N, OH) of pixels in an image of `size`, those outside replaced by what is shown there."""
    if fill_mode == "reflect":  # a b c d d c b a, over and over
        places = places % (2 * size)
        return np.minimum(places, 2 * size - 1 - places)
    if fill_mode == "nearest":
        return places.clip(0, size - 1)
    if fill_mode == "wrap":
        return places % size
    return np.where((places >= 0) & (places < size), places, -1)
