"""Image folders: one sub-folder per class, decoded once, in parallel, and kept in memory as uint8."""

import os
import stat
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
    directory: str | os.PathLike, labels: str = "inferred", label_mode: str = "int",
    class_names: Sequence[str] | None = None, color_mode: str = "rgb", batch_size: int = 32,
    image_size: tuple[int, int] = (256, 256), shuffle: bool = True, seed: int | np.random.Generator | None = None,
    interpolation: str = "bilinear", verbose: bool = True,
) -> Dataset:  # fmt: skip
    """Read a folder of images, one sub-folder per class, into batches of uint8 images and int32 labels.

    Names and defaults are Keras's. The classes are the sorted sub-folders; names that begin with a dot are skipped, and
    so is every file that does not end in bmp, gif, jpeg, jpg or png. With `shuffle`, the files are shuffled once and
    then each epoch through a reservoir of ``8 * batch_size`` images, as in Keras.

    Parameters
    ----------
    directory : path, the folder that holds the class folders
    labels, label_mode : {"inferred"}, {"int"}: class numbers, from the folders
    class_names : sequence of str or None, the sub-folders in another order than the sorted one
    color_mode : {"rgb", "grayscale", "rgba"}, 3, 1 or 4 channels; files are converted
    batch_size : int, images in a batch
    image_size : pair of int
        Height and width in pixels. Other images are resized by Pillow, without regard to their proportions; unlike
        Keras's default, that averages over pixels when it shrinks.
    shuffle : bool; if false: by class, then by file name
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    interpolation : {"bilinear", "nearest", "bicubic", "lanczos"}, how images are resized
    verbose : bool, print the numbers of files and classes and, on a terminal, a progress bar

    Returns
    -------
    Dataset
        All images are in memory: ``N * H * W * C`` bytes.

    Raises
    ------
    DataNotFoundError
        If the folder is missing, or no image is in it.
    DataError
        If a file is not an image, is broken or has more pixels than Pillow's limit; if `class_names` does not fit.
    ArgumentError
        If an argument has another value than those above.

    Examples
    --------
    >>> import os, tempfile
    >>> from PIL import Image
    >>> from minicnn.utils import image_dataset_from_directory
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.mkdir(f"{folder}/cat")
    ...     Image.new("RGB", (9, 7)).save(f"{folder}/cat/1.png")
    ...     image_dataset_from_directory(folder, image_size=(8, 8))
    Found 1 files belonging to 1 classes.
    <Dataset: 1 images of 8x8x3 in 1 batches, 1 classes>
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
    empty = [name for name, group in zip(names, files, strict=True) if not group]
    if empty:
        raise DataNotFoundError(
            f"no image is in {', '.join(empty)} of {directory}. Expected files ending in {', '.join(EXTENSIONS)}."
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
    paths: Sequence[str | os.PathLike], image_size: tuple[int, int], color_mode: str = "rgb",
    interpolation: str = "bilinear", verbose: bool = False, photos: bool = False,
) -> np.ndarray:  # fmt: skip
    """Decode image files, in parallel where that is faster, into one (N, H, W, C) uint8 array.

    Arguments and errors are those of `image_dataset_from_directory`; a file that is missing is a DataNotFoundError.
    With `photos`, every format that Pillow knows is read, and a photograph is turned upright as its EXIF says.
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
    formats = ["BMP", "GIF", "JPEG", "PNG"]
    if photos:
        Image.init()
        formats = [name for name in Image.ID if name != "EPS"]  # which would start another program, Ghostscript
    resample = Image.Resampling[interpolation.upper()]
    images = np.empty((len(paths), height, width, channels), np.uint8)

    def decode(rows: range) -> int:
        for row in rows:
            try:
                if not stat.S_ISREG(os.stat(paths[row]).st_mode):  # a pipe would be waited for
                    raise OSError(None, "it is not a regular file")
                with open(paths[row], "rb") as file:
                    image = Image.open(file, formats=formats)
                    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
                        raise Image.DecompressionBombError  # also where another thread silences Pillow's warning
                    image.load()
                    upright = ImageOps.exif_transpose(image) if photos else image
            except Exception as error:  # Pillow's decoders raise a dozen kinds on broken files
                raise _unreadable(paths[row], error) from error
            images[row] = _pixels(upright, mode, (width, height), resample)  # (H, W, C)
        return len(rows)

    chunks = [range(start, min(start + CHUNK, len(paths))) for start in range(0, len(paths), CHUNK)]
    hidden = not (verbose and sys.stderr.isatty())
    with warnings.catch_warnings(), ThreadPoolExecutor(_threads(paths)) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with tqdm(total=len(paths), unit=" images", leave=False, disable=hidden) as bar:
            for count in pool.map(decode, chunks):  # an error cancels what has not begun
                bar.update(count)
    return images


def class_folders(directory: str | os.PathLike) -> list[str]:
    """Return the sorted names of the sub-folders of `directory`, without those that begin with a dot."""
    expected = "Expected a folder with one sub-folder of images per class"
    try:
        entries = sorted(Path(directory).iterdir())
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataNotFoundError(
            f"the image folder {directory} cannot be opened: {error.strerror}. {expected}: check the path."
        ) from error
    if not names:
        content = "it has files, but no sub-folder" if entries else "it is empty"
        raise DataNotFoundError(f"no class is in the image folder {directory}: {content}. {expected}.")
    return names


def _image_files(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:  # os.walk itself would pass over the folder in silence
        raise DataNotFoundError(
            f"the folder {error.filename} cannot be opened: {error.strerror}. Make it readable, or remove it."
        ) from error

    found = []
    for root, _, files in sorted(os.walk(folder, onerror=refuse)):  # as Keras does, a class's own sub-folders, too
        names = sorted(name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith("."))
        found += [Path(root, name) for name in names]
    return found


def _threads(paths: Sequence[str | os.PathLike]) -> int:
    """One per processor, 8 at most; one for files of few kB, where passing Python's lock on costs more than it wins."""
    sizes = []  # bytes
    for path in paths[:100]:
        with suppress(OSError):  # whoever decodes it will say that it is gone
            sizes.append(os.path.getsize(path))
    return min(8, os.cpu_count() or 1) if sum(sizes) > 4096 * len(sizes) else 1


def _pixels(image: Any, mode: str, size: tuple[int, int], resample: Any) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I;16"):  # 16-bit grey: keep the high byte, as TensorFlow does; Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != size:
        image = image.resize(size, resample)
    return np.asarray(image).reshape(size[1], size[0], -1)  # (H, W, C)


def _unreadable(path: str | os.PathLike, error: Exception) -> DataError | DataNotFoundError:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return DataNotFoundError(f"the image {path} does not exist. Check the path.")
    if isinstance(error, UnidentifiedImageError):
        problem = "is not an image, or not of a kind that is read here"
    elif isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        problem = f"has more than Pillow's limit of {Image.MAX_IMAGE_PIXELS:,} pixels"
    elif isinstance(error, OSError) and error.strerror:
        problem = f"cannot be opened ({error.strerror})"
    else:
        problem = f"is a broken image ({str(error) or type(error).__name__})"
    shown = str(path) if str(path).isprintable() else repr(str(path))  # a name may hold line ends
    return DataError(f"the file {shown} {problem}. Replace it or remove it.")
