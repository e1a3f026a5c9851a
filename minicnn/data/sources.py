"""Where training, validation and test data come from: a path, the cache, the network, or the embedded digits."""

import os
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn import ranks
from minicnn.checks import positive_integer
from minicnn.data import cifar10, digits
from minicnn.data.dataset import AUTOTUNE, Arrays, Dataset, random_generator
from minicnn.data.folders import class_folders, image_dataset_from_directory
from minicnn.errors import DataError, DataNotFoundError, OutputError

FOLDERS = ["train1", "train2", "train3", "train4", "train5", "test"]


class Splits(NamedTuple):
    """Three data sets with the same classes.

    Attributes
    ----------
    train : Dataset, shuffled and prefetched
    validation, test : Dataset, in a fixed order
    name : str, what the data are, for people
    class_names : list of str, in the order of the labels
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    name: str
    class_names: list[str]


def load(
    path: str | os.PathLike | None = None, batch_size: int = 64, seed: int | None = None, verbose: bool = True
) -> Splits:
    """Find CIFAR-10, or take the embedded digits: `path`, else ``$MINICNN_DATA``, else cache or download, else digits.

    Parameters
    ----------
    path : path or None
        A folder with the image folders ``train1`` ... ``train5`` and ``test``: the first four are batched one by one,
        so that no batch mixes them, and their batches are shuffled, as in the notebook; ``train5`` validates. Or
        CIFAR-10's binary archive, or the folder it unpacks to: shuffled as a whole; batch 5 validates.
    batch_size : int, images in a batch
    seed : int or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    verbose : bool
        Say what is read, and show progress on a terminal; of several ranks, rank 0 does. If the digits stand in, that
        is said in any case.

    Returns
    -------
    Splits

    Raises
    ------
    DataNotFoundError
        If `path` or ``$MINICNN_DATA`` does not exist or holds none of these.
    DataError
        If what it holds is broken, or its folders' classes differ.
    ArgumentError
        If `batch_size` is not a positive integer, or the seed is negative.

    Examples
    --------
    >>> import minicnn
    >>> minicnn.data.load("no/such/folder")
    Traceback (most recent call last):
    minicnn.errors.DataNotFoundError: no/such/folder does not exist. Expected ...
    """
    batch_size, generator = positive_integer("batch_size", batch_size), random_generator(seed)
    verbose = verbose and ranks.rank() == 0
    if path is not None:
        return _from_path(Path(path), batch_size, generator, verbose)
    if variable := os.environ.get("MINICNN_DATA"):
        try:
            return _from_path(Path(variable), batch_size, generator, verbose)
        except (DataError, DataNotFoundError) as error:
            raise type(error)(f"$MINICNN_DATA: {error}") from error
    try:
        with ranks.first():  # of several ranks one downloads, the others find it
            archive = cifar10.download(verbose=verbose)
    except (DataError, DataNotFoundError, OutputError) as error:  # a login page in place of the archive is a DataError
        stand_in = "Using scikit-learn's 1,797 handwritten digits instead: the figures that follow are not CIFAR-10's."
        if ranks.rank() == 0:
            print(f"CIFAR-10 IS NOT HERE: {error} {stand_in}", file=sys.stderr, flush=True)
        return _from_arrays(digits.load_digits(), "digits", digits.CLASS_NAMES, batch_size, generator)
    return _from_path(archive, batch_size, generator, verbose)


def _from_path(path: Path, batch_size: int, generator: np.random.Generator, verbose: bool) -> Splits:
    try:
        missing = [name for name in FOLDERS if not (path / name).is_dir()]
        places = (path, path / cifar10.FOLDER)
        binaries = [p for p in places if p.is_file() or any((p / name).is_file() for name in cifar10.BATCHES)]
    except OSError as error:  # folders that may not be entered, names that are too long
        raise DataNotFoundError(
            f"{path} cannot be opened: {error.strerror}. Check the path, and who may read it."
        ) from error
    if not missing:
        return _from_folders(path, batch_size, generator, verbose)
    for binary in binaries[:1]:
        if verbose:
            print(f"Reading CIFAR-10 from {binary}.", flush=True)
        return _from_arrays(cifar10.load_binary(binary), "CIFAR-10", cifar10.CLASS_NAMES, batch_size, generator)
    if not path.exists():
        problem = "does not exist"
    elif len(missing) < len(FOLDERS):
        problem = f"lacks {', '.join(missing)}"
    else:
        problem = "holds no data set"
    raise DataNotFoundError(
        f"{path} {problem}. Expected the image folders {', '.join(FOLDERS)}, each with one sub-folder per class; or "
        f"CIFAR-10's binary version ({cifar10.URL}): the archive, or the folder it unpacks to. Check the path."
    )


def _from_folders(path: Path, batch_size: int, generator: np.random.Generator, verbose: bool) -> Splits:
    first, *others = [path / name for name in FOLDERS]
    classes = class_folders(first)
    for folder in others:  # all of them before any image is decoded
        theirs = class_folders(folder)
        lacking = {first: sorted(set(theirs) - set(classes)), folder: sorted(set(classes) - set(theirs))}
        if theirs != classes:
            received = "; ".join(f"{which} lacks {', '.join(names)}" for which, names in lacking.items() if names)
            raise DataError(
                f"{first} and {folder} are expected to have the same classes. Received: {received}. "
                "Add what is missing, or remove it everywhere."
            )

    common: dict[str, Any] = {"batch_size": batch_size, "image_size": (32, 32), "verbose": verbose}
    *seeds, batch_seed = generator.spawn(5)
    parts = [
        image_dataset_from_directory(path / name, seed=seed, **common)
        for name, seed in zip(FOLDERS[:4], seeds, strict=True)
    ]
    train = reduce(Dataset.concatenate, parts).shuffle(1000, batch_seed).prefetch(AUTOTUNE)
    validation, test = (image_dataset_from_directory(path / name, shuffle=False, **common) for name in FOLDERS[4:])
    return Splits(train, validation, test, path.resolve().name, classes)


def _from_arrays(
    arrays: Sequence[Arrays], name: str, classes: list[str], batch_size: int, generator: np.random.Generator
) -> Splits:
    train = Dataset.from_arrays(*arrays[0], batch_size, shuffle=True, seed=generator, class_names=classes)
    validation, test = (Dataset.from_arrays(*split, batch_size, class_names=classes) for split in arrays[1:])
    return Splits(train.prefetch(AUTOTUNE), validation, test, name, classes)
