"""The official CIFAR-10 archive, in its binary version: fetched by checksum, read without unpacking it to disk.

Each of its six batches is 10,000 records of 3,073 bytes: the label, then a red, a green and a blue plane of 32x32.

References
----------
A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.data.dataset import Arrays
from minicnn.errors import DataError, DataNotFoundError
from minicnn.files import output_folder

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FOLDER = "cifar-10-batches-bin"  # the one folder of the archive
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
TEXTS = ["batches.meta.txt", "readme.html"]  # the other files of the archive; nothing in them is needed
ADVICE = f"Get the official archive from {URL}."
RECORDS = 10_000  # in a batch
RECORD_BYTES = 1 + 3 * 32 * 32
HEADERS = 8192  # bytes that tar may spend on headers and padding between two files; a plain header has 512


def download(cache: str | os.PathLike | None = None, verbose: bool = True) -> Path:
    """Return the path of the official archive in the cache; fetch it (170 MB) if it is not there or is damaged.

    Parameters
    ----------
    cache : path or None, the folder to keep it in; None is the user's cache folder for minicnn
    verbose : bool, say what is fetched and, on a terminal, show progress

    Raises
    ------
    DataNotFoundError
        If the archive is not in the cache and cannot be fetched.
    DataError
        If what was fetched has not the official MD5 checksum; it is not kept.
    OutputError
        If the cache cannot be written.
    """
    import platformdirs
    import pooch
    import requests

    cache = output_folder(platformdirs.user_cache_path("minicnn") if cache is None else cache)
    pooch.get_logger().setLevel("INFO" if verbose else "WARNING")
    progress, timeout = verbose and sys.stderr.isatty(), (10, 60)  # seconds to connect, seconds without a byte
    fetch = pooch.HTTPDownloader(progress, chunk_size=2**20, timeout=timeout)
    by_hand = "or download it by hand and give its path"
    try:
        return Path(pooch.retrieve(URL, f"md5:{MD5}", URL.rsplit("/", 1)[-1], cache, downloader=fetch))
    except OSError as error:  # those of requests are among them, with long texts
        offline = isinstance(error, (requests.ConnectionError, requests.Timeout))
        reason = f"no connection ({type(error).__name__})" if offline else str(error)
        raise DataNotFoundError(
            f"CIFAR-10 could not be fetched from {URL} into {cache}: {reason}. Try again with a connection, {by_hand}."
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise DataError(
            f"what came from {URL} is not CIFAR-10's archive: its MD5 checksum is expected to be {MD5}. "
            f"It was not kept. Try again, {by_hand}."
        ) from error


def load_binary(path: str | os.PathLike) -> tuple[Arrays, Arrays, Arrays]:
    """Read the binary batches from the official archive or from the folder that it unpacks to.

    Parameters
    ----------
    path : path
        ``cifar-10-binary.tar.gz``, or a folder with ``data_batch_1.bin`` ... ``test_batch.bin``.

    Returns
    -------
    train, validation, test : tuple of two arrays each
        Images (N, 32, 32, 3) uint8 and labels (N,) int32: batches 1 to 4, batch 5 and the test batch.

    Raises
    ------
    DataNotFoundError
        If a batch is missing.
    DataError
        If a batch cannot be read, has not the official size or has a label above 9; if the archive is broken or holds
        anything but the official files: links, devices, paths that lead elsewhere and claims of more are refused.
    """
    path = Path(path)
    images, labels = np.empty((6, RECORDS, 32, 32, 3), np.uint8), np.empty((6, RECORDS), np.int32)
    missing = set(BATCHES)
    for name, content in _archived(path) if os.path.isfile(path) else _unpacked(path):
        row = BATCHES.index(name)
        images[row], labels[row] = _decoded(content, f"{name} in {path}")
        missing.remove(name)
    if missing:
        raise DataNotFoundError(f"{path} lacks {', '.join(sorted(missing))}. {ADVICE}")
    train = images[:4].reshape(-1, 32, 32, 3), labels[:4].reshape(-1)  # (40000, 32, 32, 3), (40000,)
    return train, (images[4], labels[4]), (images[5], labels[5])


def _archived(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches of a tar archive; refuse one that holds anything but the official files, each once."""
    expected = {FOLDER} | {f"{FOLDER}/{name}" for name in BATCHES + TEXTS}
    try:
        with gzip.open(path) as stream:
            within: Any = _Within(stream)  # as much of a file as tarfile needs
            with tarfile.open(fileobj=within, mode="r:") as archive:
                for member in archive:
                    regular = member.isfile() and not member.issparse() and 0 <= member.size <= RECORDS * RECORD_BYTES
                    if not (member.isdir() if member.name == FOLDER else regular) or member.name not in expected:
                        raise DataError(
                            f"the archive {path} is not CIFAR-10's binary version: {member.name!r}, {member.size:,} "
                            f"bytes, is not one of its regular files. Nothing was unpacked. {ADVICE}"
                        )
                    expected.remove(member.name)
                    within.end = member.offset_data + HEADERS + (member.size if regular else 0)
                    if (file := archive.extractfile(member)) and (name := Path(member.name).name) in BATCHES:
                        yield name, file.read()
    except DataError:
        raise
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a whole tar.gz archive ({error}). {ADVICE} "
            "If it is a zip of image folders, unzip it and give the folder."
        ) from error


class _Within:
    """An unpacked stream that is not read beyond `end`: tarfile believes a header, and reads as much as that claims."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.end = stream, HEADERS
        self.tell, self.seekable = stream.tell, stream.seekable

    def seek(self, position: int) -> int:
        return self.stream.seek(self._checked(position))

    def read(self, size: int) -> bytes:
        self._checked(self.tell() + size if size >= 0 else -1)
        return self.stream.read(size)

    def _checked(self, position: int) -> int:
        if not 0 <= position <= self.end:
            raise ValueError("a header in it claims more bytes than CIFAR-10's have")
        return position


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches that are in a folder, without more than a byte too much of any."""
    for name in BATCHES:
        try:
            if not (path / name).is_file():
                continue
            with open(path / name, "rb") as file:
                content = file.read(RECORDS * RECORD_BYTES + 1)
        except FileNotFoundError:  # deleted a moment ago
            continue
        except OSError as error:
            raise DataError(f"{name} in {path} cannot be read: {error.strerror}. Check its permissions.") from error
        yield name, content


def _decoded(content: bytes, where: str) -> Arrays:
    size = RECORDS * RECORD_BYTES
    if len(content) != size:
        received = f"{len(content):,}" if len(content) < size else "more"
        raise DataError(f"{where} is expected to have {size:,} bytes. Received: {received}. {ADVICE}")
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD_BYTES)  # (N, 1 + 3*32*32)
    labels = records[:, 0]  # (N,)
    if labels.max() > 9:
        row = int(labels.argmax())
        received = f"{labels[row]} in record {row}"
        raise DataError(f"{where}: labels are expected from 0 to 9. Received: {received}. {ADVICE}")
    return records[:, 1:].reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1), labels  # (N, 32, 32, 3), (N,)
