"""What is fuzzed: for each loader, good inputs to begin with, and the way from any bytes into the loader.

A target passes if nothing comes out of it but one of our errors, in one line. `run.py` beside this file feeds it with
mutations that reach new lines of the program, and `tests/test_fuzz.py` with some hundred that Hypothesis draws.
"""

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

import minicnn
from minicnn import layers, models
from minicnn.data import cifar10, image_dataset_from_directory
from minicnn.data.folders import read_images
from minicnn.errors import MinicnnError

SUFFIXES = ["png", "jpg", "gif", "bmp"]
RECORDS = 2  # in each CIFAR-10 batch, instead of 10,000: a mutation then meets something
PIXELS = 2**20  # Pillow's limit meanwhile: an image of its 89 million is allowed, and takes a second


@dataclass(frozen=True)
class Target:
    """A loader: `load(data, folder)` writes the bytes into the scratch folder in its own way and reads them."""

    name: str
    seeds: Callable[[], list[bytes]]
    load: Callable[[bytes, Path], object]

    def try_one(self, data: bytes, folder: Path) -> str | None:
        """Load `data`; return the message of our error, or None if it was taken. Anything else comes out."""
        try:
            self.load(data, folder)
        except MinicnnError as error:
            message = str(error)
        else:
            return None
        assert "\n" not in message, f"a message of several lines: {message}"
        return message


# Models


def model():
    """A small network with every kind of layer."""
    inputs = minicnn.Input((6, 6, 1), dtype="uint8")
    x = layers.Conv2D(2, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
    x = layers.MaxPooling2D(2)(layers.Add()([x, layers.ReLU()(x)]))
    x = layers.Concatenate(-2)([layers.LeakyReLU()(x), layers.AveragePooling2D((1, 2))(x), layers.GELU()(x)])
    x = layers.Dropout(0.5, seed=0)(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.Flatten()(x), layers.GlobalAveragePooling2D()(x)])
    network = minicnn.Model(inputs, layers.Dense(3, activation="softmax")(x))
    network.class_names = ["a", "b", "c"]
    network.compile(metrics=["accuracy"])
    return network


def weights(network):
    return {f"{layer.name}/{name}": w for layer in network.layers for name, w in layer.weights.items()}


def file_of(description, tensors):
    return save(tensors, {"minicnn": '{"format": "1", "model": ' + description + "}"})


def model_files():
    other = models.Sequential([minicnn.Input((4,)), layers.Dense(2)])
    return [file_of(json.dumps(each.get_config()), weights(each)) for each in (model(), other)]


def load_model(data, folder):
    path = folder / "model"
    path.write_bytes(data)
    loaded = models.load_model(path)
    assert sum(w.nbytes for w in loaded.weights()) <= 8 * len(data) + 1000  # float16 becomes float64 at most
    return loaded


def descriptions():
    return [json.dumps(model().get_config()).encode()]


SMALL = model()
GOOD = weights(SMALL)


def load_description(data, folder):
    """Put the bytes where a good file has the JSON of the model, beside its weights."""
    return load_model(file_of(data.decode("utf-8", "replace"), GOOD), folder)


DEEP = json.loads("[" * 500 + "]" * 500)
STRANGE = [
    None, True, False, -1, 0, 1, 2, 3, 10**12, 2**63, 10**30, -0.5, 0.5, 1e308, "", "x", "a\nb", "softmax", "relu",
    "float64", "uint8", "same", "Add", "Dense", "ReLU", "InputLayer", "Layer", "Input", "dense", "accuracy", [],
    "gelu", "GELU", "Concatenate", [0], [1, 1], [0, 0, 0], [10**12, 1], [[1]], [None], {}, {"a": 1}, DEEP,
]  # fmt: skip


def edited(data):
    """Return the model's description after an edit for every two bytes: which value, and what comes in its place."""
    root = {"model": json.loads(CONFIG)}
    for which, what in zip(data[:16:2], data[1:16:2], strict=False):  # eight at most: a copy may double it
        places = [(root, "model")]
        for container, key in places:  # grows meanwhile
            value = container[key]
            inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            places += [(value, each) for each, _ in inner if len(places) < 256]
        container, key = places[which % len(places)]
        if what < 200:
            container[key] = copied(STRANGE[what % len(STRANGE)])
        elif what < 225:
            del container[key]
            if not root:
                return "null"
        else:  # a copy of another value, such as a layer in the place of a name
            source, name = places[(which + what) % len(places)]
            container[key] = copied(source[name])
    return json.dumps(root["model"])


def copied(value):
    return json.loads(json.dumps(value))


CONFIG = json.dumps(model().get_config())


def load_edited(data, folder):
    """Change values of a good description: bytes in its text would seldom be JSON still."""
    return load_model(file_of(edited(data), GOOD), folder)


# CIFAR-10


@contextmanager
def small_batches():
    before, cifar10.RECORDS = cifar10.RECORDS, RECORDS
    try:
        yield
    finally:
        cifar10.RECORDS = before


def batches():
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return [records.tobytes(), bytes(RECORDS * 3073)]


def load_batch(data, folder):
    for name in cifar10.BATCHES[1:]:
        if not (folder / name).exists():
            (folder / name).write_bytes(bytes(RECORDS * 3073))
    (folder / cifar10.BATCHES[0]).write_bytes(data)
    with small_batches():
        return cifar10.load_binary(folder)


def archives():
    """The official layout, in each of the dialects of tar."""
    found = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=dialect) as archive:
            for name in cifar10.BATCHES + cifar10.TEXTS:
                member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
                member.size, member.mtime = RECORDS * 3073, 1.5  # a fraction takes an extended header
                archive.addfile(member, io.BytesIO(bytes(member.size)))
        found.append(file.getvalue())
    return found


def load_archive(data, folder):
    """Read the bytes as a tar archive, compressed here: mutations of compressed bytes would fail at a checksum."""
    path = folder / "archive.tar.gz"
    path.write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 1))
    with small_batches():
        return cifar10.load_binary(path)


# Images


@contextmanager
def small_images():
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images():
    """For each suffix the byte that chooses it, and an image of that kind."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    grey = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000)
    made = [(0, noise, "PNG"), (0, noise.quantize(4), "PNG"), (0, grey, "PNG"), (1, noise, "JPEG")]
    made += [(2, noise, "GIF"), (3, noise, "BMP"), (3, noise.quantize(4), "BMP")]
    return [bytes([number]) + encoded(image, kind) for number, image, kind in made]


def load_folder(data, folder):
    """Take the first byte for the suffix and the rest for the content of the only image of the only class."""
    where = folder / "class"
    where.mkdir(exist_ok=True)
    path = where / f"1.{SUFFIXES[data[0] % len(SUFFIXES)] if data else 'png'}"
    path.write_bytes(data[1:])
    try:
        with small_images():
            return image_dataset_from_directory(folder, image_size=(8, 8), verbose=False)
    finally:
        path.unlink()


def photos():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    kinds = [kind for kind in ("WEBP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG", "PNG") if kind in Image.SAVE]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned upright
    return [encoded(noise, kind, **({"exif": turned} if kind == "JPEG" else {})) for kind in kinds]


def load_photo(data, folder):
    path = folder / "photo"
    path.write_bytes(data)
    with small_images():
        return read_images([path], (8, 8), photos=True)


# Keras's files


@cache
def keras_members():
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_keras_model(model(), f"{folder}/model.keras")
        with zipfile.ZipFile(f"{folder}/model.keras") as file:
            return {name: file.read(name) for name in file.namelist()}


def keras_file(**changed):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in keras_members().items():
            archive.writestr(name, changed.get(name.split(".")[0], content))
    return file.getvalue()


def load_keras(data, folder):
    path = folder / "model.keras"
    path.write_bytes(data)
    return foreign.load_keras_model(path)


def load_keras_config(data, folder):
    return load_keras(keras_file(config=data), folder)


def load_keras_weights(data, folder):
    path = folder / "model.weights.h5"
    path.write_bytes(data)
    foreign.load_keras_weights(SMALL, path)


Image.init()
TARGETS = [
    Target("model", model_files, load_model),
    Target("description", descriptions, load_description),
    Target("edited", lambda: [bytes(2), bytes(range(200, 232)), bytes(range(16))], load_edited),
    Target("batch", batches, load_batch),
    Target("archive", archives, load_archive),
    Target("folder", images, load_folder),
    Target("photo", photos, load_photo),
]
if find_spec("minicnn.foreign") and find_spec("h5py"):  # an extra
    from minicnn import foreign

    TARGETS += [
        Target("keras", lambda: [keras_file()], load_keras),
        Target("keras_config", lambda: [keras_members()["config.json"]], load_keras_config),
        Target("keras_weights", lambda: [keras_members()["model.weights.h5"]], load_keras_weights),
    ]
