"""load(): a path, $MINICNN_DATA, the cache, the digits; and the digits themselves."""

import hashlib
import shutil
import socket
from collections import Counter

import numpy as np
import platformdirs
import pytest
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from minicnn.data import Dataset, cifar10, load
from minicnn.data.digits import load_digits
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, MinicnnError

FOLDERS = ["train1", "train2", "train3", "train4", "train5", "test"]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, an empty cache, no $MINICNN_DATA."""

    def no_such_host(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("MINICNN_DATA", raising=False)


@pytest.fixture
def folders(tmp_path):
    """Six folders of two classes with nine images each; a pixel tells (folder, class, image)."""
    root = tmp_path / "folders"
    for number, folder in enumerate(FOLDERS):
        for label, name in enumerate(["000_cat", "001_dog"]):
            (root / folder / name).mkdir(parents=True)
            for i in range(9):
                Image.new("RGB", (32, 32), (number, label, i)).save(root / folder / name / f"{i}.png")
    return root


@pytest.fixture
def binary(tmp_path, monkeypatch):
    """Official batches of ten records; record `i` of batch `b` has label `i` and every pixel b."""
    monkeypatch.setattr(cifar10, "RECORDS", 10)
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for number, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]):
        (root / f"{name}.bin").write_bytes(b"".join(bytes([i]) + bytes([number]) * 3072 for i in range(10)))
    shutil.copy(root / "data_batch_1.bin", root / "test_batch.bin")
    return root


def pixels(dataset):
    """Give each batch as a list of (folder, class, image)."""
    return [[tuple(pixel) for pixel in images[:, 5, 5].tolist()] for images, _ in dataset]


# From folders


def test_folders_are_batched_as_in_the_notebook(folders, capsys):
    data = load(folders, batch_size=4, seed=1)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 5, 5)
    assert (data.name, data.class_names) == ("folders", ["000_cat", "001_dog"])
    assert all(dataset.class_names == data.class_names for dataset in data[:3])
    assert capsys.readouterr().out == "Found 18 files belonging to 2 classes.\n" * 6
    epochs = [pixels(data.train) for _ in range(2)]
    expected = Counter((folder, label, i) for folder in range(4) for label in range(2) for i in range(9))
    for batches in epochs:
        assert Counter(map(len, batches)) == {4: 16, 2: 4}
        assert all(len({folder for folder, _, _ in batch}) == 1 for batch in batches)
        assert Counter(pixel for batch in batches for pixel in batch) == expected
        assert [batch[0][0] for batch in batches] != sorted(batch[0][0] for batch in batches)
    assert epochs[0] != epochs[1]
    for number, dataset in ((4, data.validation), (5, data.test)):
        flat = [pixel for batch in pixels(dataset) for pixel in batch]
        assert flat == [(number, label, i) for label in range(2) for i in range(9)]
    assert all((images[:, 0, 0, 1] == labels).all() for dataset in data[:3] for images, labels in dataset)


def test_the_same_seed_gives_the_same_epochs_and_folders_are_shuffled_apart(folders):
    def cut(batches, folder):
        """Give a folder's batches apart from the order they come in, which the shuffle of batches decides."""
        return frozenset(tuple(pixel[1:] for pixel in batch) for batch in batches if batch[0][0] == folder)

    one, two, other = (load(folders, batch_size=4, seed=seed, verbose=False) for seed in (1, 1, 2))
    epochs = [pixels(one.train) for _ in range(2)]
    assert epochs == [pixels(two.train) for _ in range(2)]
    assert len({cut(epochs[0], folder) for folder in range(4)}) == 4
    different = pixels(other.train)
    assert all(cut(epochs[0], folder) != cut(different, folder) for folder in range(4))


def test_folders_whose_classes_differ_are_named_before_any_image_is_read(folders):
    (folders / "train1" / "000_cat" / "0.png").write_text("broken")
    (folders / "train5" / "001_dog").rename(folders / "train5" / "001_fox")
    with pytest.raises(DataError) as caught:
        load(folders)
    first, fifth = folders / "train1", folders / "train5"
    assert f"{first} and {fifth} are expected to have the same classes" in str(caught.value)
    assert f"Received: {first} lacks 001_fox; {fifth} lacks 001_dog. " in str(caught.value)


# From the binary version


def test_the_binary_version_is_shuffled_as_a_whole(binary, capsys):
    for path in (binary, binary.parent):
        data = load(path, batch_size=8, seed=1)
        assert capsys.readouterr().out == f"Reading CIFAR-10 from {binary}.\n"
    assert (len(data.train), data.name, data.class_names[9]) == (5, "CIFAR-10", "truck")
    batches = [images[:, 0, 0, 0].tolist() for images, _ in data.train]
    assert Counter(value for batch in batches for value in batch) == dict.fromkeys(range(4), 10)
    assert any(len(set(batch)) > 1 for batch in batches)
    assert [labels.tolist() for _, labels in data.validation] == [list(range(8)), [8, 9]]
    assert {int(value) for images, _ in data.validation for value in images.ravel()} == {4}


# Without a path


def test_an_explicit_path_goes_before_the_environment(binary, folders, monkeypatch):
    monkeypatch.setenv("MINICNN_DATA", str(binary))
    assert load(verbose=False).name == "CIFAR-10"
    assert load(folders, verbose=False).name == "folders"


def test_a_wrong_environment_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICNN_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataNotFoundError, match=r"^\$MINICNN_DATA: .*missing does not exist"):
        load()


def test_the_archive_in_the_cache_needs_no_network(binary, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "minicnn"
    cache.mkdir(parents=True)
    shutil.make_archive(str(tmp_path / "made"), "gztar", tmp_path, "cifar-10-batches-bin")
    archive = (tmp_path / "made.tar.gz").rename(cache / "cifar-10-binary.tar.gz")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert load(verbose=False).name == "CIFAR-10"


def test_without_a_network_the_digits_stand_in_and_that_is_said_even_when_quiet(capsys):
    data = load(batch_size=64, seed=1, verbose=False)
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert written.err.startswith(
        "CIFAR-10 IS NOT HERE: CIFAR-10 could not be fetched from https://www.cs.toronto.edu/"
    )
    assert ": no connection (ConnectionError). " in written.err
    assert "1,797 handwritten digits instead: the figures that follow are not CIFAR-10's." in written.err
    assert (data.name, data.class_names) == ("digits", list("0123456789"))
    assert (data.train.num_samples, len(data.train), data.train.image_shape) == (1085, 17, (32, 32, 3))


def test_a_cache_that_cannot_be_written_leads_to_the_digits_too(tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    assert load().name == "digits"
    assert "cannot be written" in capsys.readouterr().err


# Bad input


def test_a_path_without_data_says_what_was_expected(tmp_path, folders):
    shutil.rmtree(folders / "train3")
    (tmp_path / "other").mkdir()
    (tmp_path / "photo.png").write_text("hello")
    for path, kind, problem in [
        (tmp_path / "missing", DataNotFoundError, "missing does not exist. Expected the image folders train1, train2,"),
        (tmp_path / "other", DataNotFoundError, "other holds no data set. Expected"),
        (folders, DataNotFoundError, "folders lacks train3. Expected"),
        (tmp_path / "photo.png", DataError, "photo.png is not a whole tar.gz archive"),
    ]:
        with pytest.raises(MinicnnError) as caught:
            load(path)
        assert type(caught.value) is kind
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bad_arguments_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ArgumentError, match="batch_size expects"):
        load(tmp_path / "missing", batch_size=0)
    with pytest.raises(ArgumentError, match="seed expects"):
        load(tmp_path / "missing", seed=-1)


# Digits


def test_digits_are_scikit_learns_enlarged_and_scaled():
    splits = load_digits()
    originals, labels = sklearn_digits(return_X_y=True)
    expected = Counter((int(label), original.tobytes()) for original, label in zip(originals, labels, strict=True))
    seen = Counter()
    for images, own in splits:
        assert (images.dtype, own.dtype, images.shape[1:]) == (np.uint8, np.int32, (32, 32, 3))
        blocks = images.reshape(-1, 8, 4, 8, 4, 3)  # (N, row, within, column, within, channel)
        assert (blocks == blocks[:, :, :1, :, :1, :1]).all()
        restored = np.round(blocks[:, :, 0, :, 0, 0] / 255 * 16)  # (N, 8, 8)
        seen.update((int(label), image.tobytes()) for image, label in zip(restored, own, strict=True))
    assert seen == expected
    assert max(images.max() for images, _ in splits) == 255


def test_digits_are_split_alike_in_every_class():
    counts = np.array([np.bincount(labels, minlength=10) for _, labels in load_digits()])  # (3, 10)
    assert counts.sum() == 1797
    assert np.abs(counts / counts.sum(0) - np.array([[0.6], [0.2], [0.2]])).max() < 0.01


def test_splits_are_data_sets():
    assert all(isinstance(dataset, Dataset) for dataset in load(verbose=False)[:3])
