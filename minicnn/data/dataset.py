"""A data set: NumPy batches of images and labels, in an order that is drawn anew each epoch.

An epoch's order is a list of recipes, each "these rows of that source". It is drawn whole when iteration starts,
so the random generators advance once an epoch, however many batches are then used. Concatenating, shuffling and
taking only rearrange recipes; the images of a batch are copied when its turn comes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minicnn import checks, config
from minicnn.checks import positive_integer
from minicnn.errors import DataError, DtypeError, ShapeError, StateError

AUTOTUNE = -1  # TensorFlow's name for "you choose": here, two batches ahead

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels
Recipe = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, rows: a batch that has not been gathered yet


@dataclass(eq=False, repr=False)
class Dataset:
    """Batches of images with their labels: iterate over it once an epoch, and `len` counts the batches.

    `Dataset.from_arrays`, `minicnn.data.image_dataset_from_directory` and `minicnn.data.load` build one. Each method
    returns a new data set and leaves this one as it is.

    Attributes
    ----------
    image_shape : tuple of int, one image's ``(H, W, C)``
    class_names : list of str or None, in the order of the labels
    generators : list of numpy.random.Generator
        Every generator that decides the order. Their states are all that an epoch's order depends on.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.data import AUTOTUNE, Dataset
    >>> five = Dataset.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), np.arange(5), batch_size=2, shuffle=True, seed=1)
    >>> five
    <Dataset: 5 images of 8x8x3 in 3 batches>
    >>> train = five.concatenate(five).shuffle(1000, seed=1).take(3).prefetch(AUTOTUNE)
    >>> [labels.tolist() for epoch in range(2) for images, labels in train]
    [[3], [2], [3, 0], [2, 3], [4, 0], [1, 3]]
    """

    _order: Callable[[], list[Recipe]]
    _batch_sizes: list[int]
    image_shape: tuple[int, ...]
    class_names: list[str] | None = None
    generators: list[np.random.Generator] = field(default_factory=list)
    _ahead: int = 0  # batches to prefetch

    @classmethod
    def from_arrays(
        cls, images: np.ndarray, labels: np.ndarray, batch_size: int = 32, shuffle: bool = False,
        seed: int | np.random.Generator | None = None, class_names: Sequence[str] | None = None,
        buffer_size: int | None = None,
    ) -> "Dataset":  # fmt: skip
        """Return arrays cut into batches; the last one is short if `batch_size` does not divide their length.

        Parameters
        ----------
        images : (N, ...) array, kept as it is; usually (N, H, W, C), uint8 or float
        labels : (N,) or (N, 1) array of int from 0; batches carry them as int32
        batch_size : int, images in a batch
        shuffle : bool
            Draw a new order each epoch: any permutation of all images, unless `buffer_size` is given.
        seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
        class_names : sequence of str or None, in the order of the labels
        buffer_size : int or None
            Shuffle through a reservoir of so many images, as tf.data does, instead of all.

        Raises
        ------
        ShapeError, DtypeError
            If `images` and `labels` are empty or differ in length, or the labels are not integers.
        DataError
            If a label is negative or has no class name.
        ArgumentError
            If a size is not a positive integer, or the seed is negative.
        """
        images, labels = np.asarray(images), _checked_labels(labels, class_names)
        size = len(labels)
        if images.ndim < 2 or len(images) != size or size == 0:
            raise ShapeError(
                "a data set needs images (N, H, W, C) and as many labels (N,), N >= 1. "
                f"Received: images {images.shape}, labels {labels.shape}"
            )
        batch_size = positive_integer("batch_size", batch_size)
        buffer_size = size if buffer_size is None else positive_integer("buffer_size", buffer_size)
        generator = random_generator(seed) if shuffle else None

        def order() -> list[Recipe]:
            if generator is None:
                rows = np.arange(size)
            elif buffer_size < size:
                rows = np.array(reservoir(list(range(size)), buffer_size, generator))
            else:
                rows = generator.permutation(size)  # what a reservoir of all of them comes to, in one step
            return [(images, labels, rows[start : start + batch_size]) for start in range(0, size, batch_size)]

        batch_sizes = [min(batch_size, size - start) for start in range(0, size, batch_size)]
        names = None if class_names is None else list(class_names)
        return cls(order, batch_sizes, images.shape[1:], names, [generator] if generator else [])

    @property
    def num_samples(self) -> int:
        """Images in an epoch; the most there can be after ``shuffle(...).take(n)``, where chance picks the batches."""
        return sum(self._batch_sizes)

    def __iter__(self) -> Iterator[Arrays]:
        recipes = self._order()  # now, not at the first batch: the generators advance once for each iteration
        batches = ((images[rows], labels[rows]) for images, labels, rows in recipes)  # (B, H, W, C), (B,)
        return _made_ahead(batches, self._ahead) if self._ahead else batches

    def __len__(self) -> int:
        return len(self._batch_sizes)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"<Dataset: {self.num_samples} images of {shape} in {len(self)} batches{classes}>"

    def concatenate(self, other: "Dataset") -> "Dataset":
        """Return this data set's batches followed by another's; no batch mixes images of both.

        Parameters
        ----------
        other : Dataset

        Raises
        ------
        DataError, ShapeError
            If the class names, where both have them, or the image shapes differ.
        """
        if self.class_names and other.class_names and self.class_names != other.class_names:
            raise DataError(
                "data sets that are concatenated need the same classes in the same order. "
                f"Received: {self.class_names} and {other.class_names}"
            )
        if self.image_shape != other.image_shape:
            raise ShapeError(
                "data sets that are concatenated need images of one shape. "
                f"Received: {self.image_shape} and {other.image_shape}"
            )
        return replace(
            self,
            _order=lambda: self._order() + other._order(),
            _batch_sizes=self._batch_sizes + other._batch_sizes,
            class_names=self.class_names or other.class_names,
            generators=list(dict.fromkeys(self.generators + other.generators)),  # each once
            _ahead=max(self._ahead, other._ahead),
        )

    def shuffle(self, buffer_size: int, seed: int | np.random.Generator | None = None) -> "Dataset":
        """Return the batches, not the images in them, permuted through a reservoir; anew each epoch, as tf.data does.

        Parameters
        ----------
        buffer_size : int, batches in the reservoir: with at least ``len(self)`` every order is equally likely
        seed : as in `from_arrays`

        Raises
        ------
        ArgumentError
            If the size is not a positive integer, or the seed is negative.
        """
        buffer_size, generator = positive_integer("buffer_size", buffer_size), random_generator(seed)
        return replace(
            self,
            _order=lambda: reservoir(self._order(), buffer_size, generator),
            _batch_sizes=sorted(self._batch_sizes, reverse=True),  # `take` then counts the most there can be
            generators=list(dict.fromkeys([*self.generators, generator])),
        )

    def take(self, n: int) -> "Dataset":
        """Return the first batches of each epoch, or all if there are fewer.

        Parameters
        ----------
        n : int

        Raises
        ------
        ArgumentError
            If `n` is not a positive integer.
        """
        n = positive_integer("n", n)
        return replace(self, _order=lambda: self._order()[:n], _batch_sizes=self._batch_sizes[:n])

    def prefetch(self, buffer_size: int) -> "Dataset":
        """Return the same batches, some of them gathered ahead in a background thread.

        The thread ends with the iteration, also when that is left early, and an error in it is raised where the batches
        are used.

        Parameters
        ----------
        buffer_size : int, the most batches ahead; ``AUTOTUNE`` means 2

        Raises
        ------
        ArgumentError
            If it is neither that nor a positive integer.
        """
        return replace(self, _ahead=2 if buffer_size == AUTOTUNE else positive_integer("buffer_size", buffer_size))


def random_generator(seed: int | np.random.Generator | None) -> np.random.Generator:
    """Return `seed` itself if it is a generator, else a new one; None takes its seed from `minicnn.config`'s."""
    if isinstance(seed, np.random.Generator):
        return seed
    if seed is None:
        seed = int(config.generator().integers(2**63))
    return np.random.default_rng(checks.whole_number("seed", seed))


def reservoir(items: list, buffer_size: int, generator: np.random.Generator) -> list:
    """Shuffle `items` as tf.data does: hold `buffer_size` of them, give a random one, refill its place with the next.

    So an item comes out at most ``buffer_size - 1`` places early, and any number of places late.

    >>> import numpy as np
    >>> reservoir(list("abcdef"), 2, np.random.default_rng(1))
    ['a', 'b', 'd', 'e', 'c', 'f']
    """
    buffer, waiting = items[:buffer_size], iter(items[buffer_size:])
    held = np.minimum(buffer_size, np.arange(len(items), 0, -1))  # how many the reservoir holds at each draw
    shuffled = []
    for place in generator.integers(held).tolist():
        shuffled.append(buffer[place])
        buffer[place] = next(waiting, buffer[-1])
        if len(shuffled) > len(items) - buffer_size:  # nothing is waiting: the last one has moved into the gap
            buffer.pop()
    return shuffled


def _checked_labels(labels: Any, class_names: Sequence[str] | None) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # (N,)
    if labels.ndim != 1:
        raise ShapeError(f"labels are expected as (N,) or (N, 1), one class number an image. Received: {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"labels are expected as integers, the classes' numbers. Received: {labels.dtype}")
    top = len(class_names) if class_names is not None else 2**31
    wrong = np.flatnonzero((labels < 0) | (labels >= top))
    if wrong.size:
        raise DataError(f"labels are expected from 0 to {top - 1}. Received: {labels[wrong[0]]} at index {wrong[0]}")
    return labels.astype(np.int32)


def _made_ahead(batches: Iterator[Arrays], ahead: int) -> Iterator[Arrays]:
    """Yield `batches`, made by a thread that keeps at most `ahead` of them ready."""
    thread = ThreadPoolExecutor(1, "minicnn-prefetch")
    try:
        ready: deque[Future] = deque(thread.submit(next, batches, None) for _ in range(ahead))
    except RuntimeError:  # the system gives no more threads: the same batches, none ahead
        yield from batches
        return
    try:
        while (batch := _result(ready.popleft(), thread)) is not None:  # an error in the thread is raised here
            ready.append(thread.submit(next, batches, None))
            yield batch
    finally:  # also when the caller stops early: the generator is closed
        thread.shutdown(cancel_futures=True)


def _result(future: Future, thread: ThreadPoolExecutor) -> Any:
    """Wait for what the thread makes, but not for ever: it may be gone, or left behind in the process before a fork."""
    while not wait([future], timeout=1).done:
        if not any(worker.is_alive() for worker in thread._threads) and not future.done():
            raise StateError(
                "the thread that makes batches ahead is gone. Expected to use them in the process that began the "
                "iteration, with its threads left alone: begin another one."
            )
    return future.result()
