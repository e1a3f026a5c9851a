"""Image folders: one sub-folder per class, decoded once, in parallel, and kept in memory as uint8."""

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.checks import positive_integer
from minicnn.data.dataset import Dataset, random_generator
from minicnn.errors import ArgumentError, DataError, DataNotFoundError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
COLOR_MODES = {"grayscale": ("L", 1), "rgb": ("RGB", 3), "rgba": ("RGBA", 4)}  # Pillow's mode, channels
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CHUNK = 64  # images a thread decodes between two steps of the progress bar


def image_dataset_from_directory(
    directory: str | os.PathLike,
    labels: str = "inferred",
    label_mode: str = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int = 32,
    image_size: tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | np.random.Generator | None = None,
    interpolation: str = "bilinear",
    verbose: bool = True,
) -> Dataset:
    """Read a folder of images, one sub-folder per class, into batches of uint8 images and int32 labels.

    Names and defaults are Keras's. The classes are the sorted sub-folders; names that begin with a dot are skipped, and
    so is every file that does not end in bmp, gif, jpeg, jpg or png. With `shuffle`, the files are shuffled once and
    then each epoch through a reservoir of ``8 * batch_size`` images, as in Keras.

    Parameters
    ----------
    directory : path
        The folder that holds the class folders.
    labels : {"inferred"}
        From the folders.
    label_mode : {"int"}
        Class numbers, for the sparse categorical cross-entropy.
    class_names : sequence of str or None
        The sub-folders in another order than the sorted one.
    color_mode : {"rgb", "grayscale", "rgba"}
        3, 1 or 4 channels; files are converted.
    batch_size : int
        Images in a batch.
    image_size : (int, int)
        Height and width in pixels. Images of that size stay as they are, others are resized, without regard to their
        proportions, by Pillow; unlike Keras's default, that averages over pixels when it shrinks.
    shuffle : bool
        If false: by class, then by file name.
    seed : int, numpy.random.Generator or None
        Of the shuffle; None draws one from the generator of `minicnn.utils.set_random_seed`.
    interpolation : {"bilinear", "nearest", "bicubic", "lanczos"}
        How images are resized.
    verbose : bool
        Print the numbers of files and classes and, on a terminal, a progress bar.

    Returns
    -------
    Dataset
        All images are in memory: ``N * H * W * C`` bytes.

    Raises
    ------
    DataNotFoundError
        If the folder is missing, or no image is in it.
    DataError
        If a file is not a readable image, or the sub-folders are not `class_names`.
    ArgumentError
        If an argument has another value than those above.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from minicnn.utils import image_dataset_from_directory
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / name).mkdir()
    ...         Image.new("RGB", (9, 7)).save(Path(folder) / name / "1.png")
    ...     animals = image_dataset_from_directory(folder, image_size=(8, 8))
    Found 2 files belonging to 2 classes.
    >>> animals, animals.class_names
    (<Dataset: 2 images of 8x8x3 in 1 batches, 2 classes>, ['cat', 'dog'])
    """
    if labels != "inferred" or label_mode != "int":
        raise ArgumentError(
            'image_dataset_from_directory expects labels="inferred" and label_mode="int". '
            f"Received: {labels!r} and {label_mode!r}. For labels of your own use Dataset.from_arrays."
        )
    batch_size = positive_integer("batch_size", batch_size)
    found = class_folders(directory)
    names = found if class_names is None else list(class_names)
    if sorted(names) != found:
        raise DataError(f"class_names are expected to be the sub-folders of {directory}, {found}. Received: {names}")
    files = [_image_files(Path(directory) / name) for name in names]
    paths = [path for group in files for path in group]
    if not paths:
        raise DataNotFoundError(
            f"no image is in the class folders of {directory}. Expected files ending in {', '.join(EXTENSIONS)}."
        )
    if verbose:
        print(f"Found {len(paths)} files belonging to {len(names)} classes.", flush=True)
    numbers = np.repeat(np.arange(len(names)), [len(group) for group in files])  # (N,)
    generator = None
    if shuffle:
        generator = random_generator(seed)
        rows = generator.permutation(len(paths))
        paths, numbers = [paths[row] for row in rows], numbers[rows]  # (N,)
    images = read_images(paths, image_size, color_mode, interpolation, verbose)
    return Dataset.from_arrays(images, numbers, batch_size, shuffle, generator, names, buffer_size=8 * batch_size)


def read_images(
    paths: Sequence[str | os.PathLike],
    image_size: tuple[int, int],
    color_mode: str = "rgb",
    interpolation: str = "bilinear",
    verbose: bool = False,
    photos: bool = False,
) -> np.ndarray:
    """Decode image files, in parallel where that is faster, into one array.

    Parameters
    ----------
    paths : sequence of path
        Files in any of the formats bmp, gif (its first frame), jpeg and png.
    image_size, color_mode, interpolation
        As in `image_dataset_from_directory`.
    verbose : bool
        Show a progress bar on a terminal.
    photos : bool
        Take every format that Pillow knows, and turn a photograph upright as its EXIF orientation says; data sets are
        read without, as Keras does.

    Returns
    -------
    (N, H, W, C) uint8 array

    Raises
    ------
    DataNotFoundError
        If a file is missing.
    DataError
        If a file is not an image, is broken or cut off, or has more pixels than Pillow's limit.
    ArgumentError
        If an argument has another value than those above.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from minicnn.data.folders import read_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (640, 480), "red").save(f"{folder}/photo.png")
    ...     read_images([f"{folder}/photo.png"], (1, 1))
    array([[[[255,   0,   0]]]], dtype=uint8)
    """
    from PIL import Image, ImageOps
    from tqdm import tqdm

    if color_mode not in COLOR_MODES:
        raise ArgumentError(f"color_mode expects one of {', '.join(COLOR_MODES)}. Received: {color_mode!r}")
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(f"interpolation expects one of {', '.join(INTERPOLATIONS)}. Received: {interpolation!r}")
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise ArgumentError(f"image_size expects (height, width) in pixels. Received: {image_size!r}")
    height, width = (positive_integer("image_size", size) for size in image_size)
    mode, channels = COLOR_MODES[color_mode]
    resample = Image.Resampling[interpolation.upper()]
    images = np.empty((len(paths), height, width, channels), np.uint8)

    def decode(start: int) -> int:
        stop = min(start + CHUNK, len(paths))
        for row in range(start, stop):
            try:
                with open(paths[row], "rb") as file:
                    opened = Image.open(file, formats=None if photos else ("BMP", "GIF", "JPEG", "PNG"))
                    opened.load()
                    image = ImageOps.exif_transpose(opened) if photos else opened
            except FileNotFoundError as error:
                raise DataNotFoundError(f"the image {paths[row]} does not exist. Check the path.") from error
            except Exception as error:  # Pillow's decoders raise a dozen kinds on broken files
                raise DataError(_why_unreadable(paths[row], error)) from error
            images[row] = _pixels(image, mode, (width, height), resample)  # (H, W, C)
        return stop - start

    hidden = not (verbose and sys.stderr.isatty())
    with warnings.catch_warnings(), ThreadPoolExecutor(_threads(paths)) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with tqdm(total=len(paths), unit=" images", leave=False, disable=hidden) as bar:
            for count in pool.map(decode, range(0, len(paths), CHUNK)):  # an error cancels what has not begun
                bar.update(count)
    return images


def class_folders(directory: str | os.PathLike) -> list[str]:
    """Return the sorted names of the sub-folders of `directory`, without those that begin with a dot.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog", "cat", ".git"):
    ...         os.mkdir(f"{folder}/{name}")
    ...     class_folders(folder)
    ['cat', 'dog']
    """
    expected = "Expected a folder with one sub-folder of images per class"
    try:
        entries = sorted(Path(directory).iterdir())
    except OSError as error:
        raise DataNotFoundError(
            f"the image folder {directory} cannot be opened: {error.strerror}. {expected}: check the path."
        ) from error
    names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        content = "it has files, but no sub-folder" if entries else "it is empty"
        raise DataNotFoundError(f"no class is in the image folder {directory}: {content}. {expected}.")
    return names


def _image_files(folder: Path) -> list[Path]:
    found = []
    for root, _, files in sorted(os.walk(folder)):  # Keras, too, looks into a class's own sub-folders
        names = sorted(name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith("."))
        found += [Path(root, name) for name in names]
    return found


def _threads(paths: Sequence[str | os.PathLike]) -> int:
    """One per processor; but one in all for files of few kB, where passing Python's lock on costs more than it wins."""
    sample = sum(os.path.getsize(path) for path in paths[:100] if os.path.exists(path))  # bytes
    return min(8, os.cpu_count() or 1) if sample > 100 * 4096 else 1


def _pixels(image: Any, mode: str, size: tuple[int, int], resample: Any) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I;16"):  # 16-bit grey: keep the high byte, as TensorFlow does; Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != size:
        image = image.resize(size, resample)
    width, height = size
    return np.asarray(image).reshape(height, width, -1)  # (H, W, C)


def _why_unreadable(path: str | os.PathLike, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        problem = "is not an image, or not of a kind that is read here"
    elif isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        problem = f"has more than Pillow's limit of {Image.MAX_IMAGE_PIXELS:,} pixels"
    elif isinstance(error, OSError) and error.strerror:
        problem = f"cannot be opened ({error.strerror})"
    else:
        problem = f"is a broken image ({str(error) or type(error).__name__})"
    return f"the file {path} {problem}. Replace it or remove it."
