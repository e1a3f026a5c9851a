"""The official CIFAR-10 archive: its format, hostile archives, and fetching it without a network."""

import hashlib
import io
import tarfile

import numpy as np
import platformdirs
import pooch
import pytest
import requests

from minicnn.data import cifar10
from minicnn.errors import DataError, DataNotFoundError, MinicnnError, OutputError

RECORDS = 20  # in each batch of the small archives made here
NAMES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
FOLDER = "cifar-10-batches-bin"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)


def content(name):
    """Give the images, the labels and the bytes of one batch, record by record as the official page describes them."""
    generator = np.random.default_rng(NAMES.index(name))
    images = generator.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, RECORDS)
    records = b"".join(
        bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels, strict=True)
    )
    return images, labels, records


def make_folder(path, changed=()):
    path.mkdir()
    for name in NAMES:
        (path / name).write_bytes(content(name)[2])
    for name, data in dict(changed).items():
        (path / name).write_bytes(data)
    return path


def make_archive(path, extra=(), names=NAMES):
    """Write the official layout; then `extra` members: (TarInfo, bytes)."""
    with tarfile.open(path, "w:gz") as archive:
        top = tarfile.TarInfo(FOLDER)
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        files = [(name, content(name)[2]) for name in names]
        for name, data in [*files, ("batches.meta.txt", b"airplane\n"), ("readme.html", b"<html>")]:
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member, data in extra:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The format


def test_the_official_sizes(monkeypatch):
    monkeypatch.undo()
    assert cifar10.RECORDS * cifar10.RECORD_BYTES == 30_730_000
    assert NAMES == cifar10.BATCHES


@pytest.mark.parametrize("make", [make_folder, make_archive])
def test_folder_and_archive_give_batches_1_to_4_then_5_then_test(tmp_path, make):
    splits = cifar10.load_binary(make(tmp_path / "data"))
    for (images, labels), names in zip(splits, (NAMES[:4], NAMES[4:5], NAMES[5:]), strict=True):
        np.testing.assert_array_equal(images, np.concatenate([content(name)[0] for name in names]))
        np.testing.assert_array_equal(labels, np.concatenate([content(name)[1] for name in names]))
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


# Bad input


@pytest.mark.parametrize("cut", [0, 1, 3073, RECORDS * 3073 - 1])
def test_a_truncated_batch_is_named(tmp_path, cut):
    folder = make_folder(tmp_path / "data", {"data_batch_3.bin": content("data_batch_3.bin")[2][:cut]})
    with pytest.raises(DataError) as caught:
        cifar10.load_binary(folder)
    assert f"data_batch_3.bin in {folder} is expected to have 61,460 bytes. Received: {cut:,}." in one_line(caught)


def test_a_label_above_9_is_named(tmp_path):
    records = bytearray(content("test_batch.bin")[2])
    records[7 * 3073] = 10
    with pytest.raises(DataError) as caught:
        cifar10.load_binary(make_folder(tmp_path / "data", {"test_batch.bin": bytes(records)}))
    assert "labels are expected from 0 to 9. Received: 10 in record 7." in one_line(caught)


def test_missing_batches_are_named(tmp_path):
    archive = make_archive(tmp_path / "data.tar.gz", names=NAMES[:-2])
    with pytest.raises(DataNotFoundError) as caught:
        cifar10.load_binary(archive)
    assert f"{archive} lacks data_batch_5.bin, test_batch.bin." in one_line(caught)
    with pytest.raises(DataNotFoundError, match=r"lacks data_batch_1\.bin"):
        cifar10.load_binary(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "zip"])
def test_a_file_that_is_no_whole_archive_is_refused(tmp_path, kind):
    path = make_archive(tmp_path / "data.tar.gz")
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2], "zip": b"PK\x03\x04"}[kind])
    with pytest.raises(DataError) as caught:
        cifar10.load_binary(path)
    assert f"{path} is not a whole tar.gz archive" in one_line(caught)


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("hostile", "data"),
    [
        (member("../evil.bin"), b"evil"),
        (member(f"{FOLDER}/../../evil.bin"), b"evil"),
        (member("/tmp/evil.bin"), b"evil"),
        (member("evil.bin"), b"evil"),
        (member(f"{FOLDER}/test_batch.bin"), content("test_batch.bin")[2]),  # a second time
        (member(f"{FOLDER}/data_batch_1.bin", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member(f"{FOLDER}/data_batch_1.bin", tarfile.LNKTYPE, "/etc/passwd"), b""),
        (member(FOLDER, tarfile.SYMTYPE, "/etc"), b""),
        (member(f"{FOLDER}/data_batch_1.bin", tarfile.CHRTYPE), b""),
        (member(f"{FOLDER}/data_batch_1.bin", tarfile.BLKTYPE), b""),
        (member(f"{FOLDER}/data_batch_1.bin", tarfile.FIFOTYPE), b""),
        (member("../evil", tarfile.DIRTYPE), b""),
        (member("cifar-10-batches-py/data_batch_1"), b"\x80\x02."),  # the pickled version
    ],
)
def test_an_archive_with_anything_else_in_it_is_refused_and_nothing_is_written(tmp_path, hostile, data):
    archive = make_archive(tmp_path / "data.tar.gz", [(hostile, data)], [n for n in NAMES if n != "data_batch_1.bin"])
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        cifar10.load_binary(archive)
    assert f"{hostile.name!r}, {len(data):,} bytes, is not one of its regular files" in one_line(caught)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_member_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path):
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        huge = member(f"{FOLDER}/readme.html")
        huge.size = 2**40
        archive.fileobj.write(huge.tobuf())
    with pytest.raises(DataError, match=r"readme.html', 1,099,511,627,776 bytes, is not one of its regular files"):
        cifar10.load_binary(tmp_path / "data.tar.gz")


# Fetching


class Server:
    """Stands in for pooch's downloader: writes `data`, then raises `error`."""

    def __init__(self, monkeypatch, data, error=None):
        self.data, self.error, self.asked = data, error, []
        monkeypatch.setattr(pooch, "HTTPDownloader", lambda *args, **kwargs: self)
        monkeypatch.setattr(cifar10, "MD5", hashlib.md5(data).hexdigest())

    def __call__(self, url, output_file, _):
        self.asked.append(url)
        with open(output_file, "wb") as file:
            file.write(self.data)
        if self.error:
            raise self.error


def test_a_good_archive_is_fetched_once_and_kept(tmp_path, monkeypatch):
    data = make_archive(tmp_path / "source").read_bytes()
    server = Server(monkeypatch, data)
    path = cifar10.download(tmp_path / "cache", verbose=False)
    assert path == cifar10.download(tmp_path / "cache", verbose=False)
    assert server.asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["cifar-10-binary.tar.gz"]
    np.testing.assert_array_equal(cifar10.load_binary(path)[2][0], content("test_batch.bin")[0])


def test_a_damaged_archive_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    server = Server(monkeypatch, b"good")
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"damaged")
    assert cifar10.download(tmp_path, verbose=False).read_bytes() == b"good"
    assert len(server.asked) == 1


def test_the_users_cache_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    Server(monkeypatch, b"good")
    assert cifar10.download(verbose=False) == tmp_path / "minicnn" / "cifar-10-binary.tar.gz"


def test_a_wrong_checksum_is_one_line_and_nothing_is_kept(tmp_path, monkeypatch):
    Server(monkeypatch, b"something else")
    monkeypatch.setattr(cifar10, "MD5", "c32a1d4ab5d03f1284b67883e8d87530")
    with pytest.raises(DataError) as caught:
        cifar10.download(tmp_path, verbose=False)
    assert "MD5 checksum is expected to be c32a1d4ab5d03f1284b67883e8d87530. It was not kept." in one_line(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            requests.ConnectionError("HTTPSConnectionPool(host='www.cs.toronto.edu', port=443): Max"),
            ": no connection (ConnectionError).",
        ),
        (requests.exceptions.SSLError("bad certificate"), ": no connection (SSLError)."),
        (requests.Timeout(), ": no connection (Timeout)."),
        (requests.HTTPError("404 Client Error: Not Found"), ": 404 Client Error: Not Found."),
        (OSError(28, "No space left on device"), "No space left on device."),
    ],
)
def test_a_fetch_that_fails_says_why_and_leaves_nothing(tmp_path, monkeypatch, error, reason):
    Server(monkeypatch, b"the first half", error)
    with pytest.raises(DataNotFoundError) as caught:
        cifar10.download(tmp_path, verbose=False)
    assert reason in one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cache is a file") as caught:
        cifar10.download(tmp_path / "cache")
    assert isinstance(caught.value, MinicnnError)
