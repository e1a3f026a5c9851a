"""Files that somebody damaged or made to do harm, and systems that fail: one of our errors, soon, with little memory.

What is not here is beside the tests of what it belongs to: other broken models in test_saving.py, hostile archives in
test_data_cifar10.py, compiled kernels in test_compiler.py.
"""

import ctypes
import gzip
import json
import math
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin
from safetensors.numpy import save

import minicnn
from minicnn import layers, models
from minicnn.callbacks import CSVLogger, ModelCheckpoint, TerminateOnNaN
from minicnn.data import Dataset, cifar10, folders, image_dataset_from_directory, load
from minicnn.data.folders import read_images
from minicnn.errors import DataError, DataNotFoundError, MinicnnError, OutputError, StateError
from minicnn.files import output_folder
from minicnn.kernels import threads
from minicnn.models import load_model

MB = 2**20
STATUS = Path("/proc/self/status")


@contextmanager
def little_memory(limit):
    """Fail if the process needs `limit` bytes more inside the block than before it, where the system counts them."""
    if not STATUS.exists() or os.getuid() != os.geteuid():  # another user may not ask
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = resident("VmHWM")
    yield
    assert resident("VmHWM") - before < limit


def resident(line):
    return int(STATUS.read_text().split(f"{line}:")[1].split()[0]) * 1024  # kB


def refused(read, *arguments, kind=DataError):
    """Return the message of the one-line error with which `read` refuses; it may take 64 MB and ten seconds."""
    begin = time.monotonic()
    with little_memory(64 * MB), pytest.raises(kind) as caught:
        read(*arguments)
    assert time.monotonic() - begin < 10
    assert isinstance(caught.value, MinicnnError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_time(task):
    """Run `task` in a thread; return what it raised. A test that fails must not hang either."""
    raised = []

    def work():
        try:
            task()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


# Model files


def network(units=2):
    model = models.Sequential([minicnn.Input((100,)), layers.Dense(150, "relu"), layers.Dense(units, "softmax")])
    model.compile()
    return model


def test_a_model_file_is_refused_wherever_it_is_cut_off(tmp_path):
    path = tmp_path / "model"
    network().save(path)
    content = path.read_bytes()
    assert len(content) > 60_000
    for size in range(0, len(content), 1024):
        path.write_bytes(content[:size])
        for read in (load_model, network().load_weights):
            assert "damaged" in refused(read, path)


def test_a_flipped_bit_is_refused_or_changes_a_number(tmp_path):
    path = tmp_path / "model"
    network().save(path)
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = [*range(header), *range(header, len(content), 997)]  # of the weights every 997th byte
    loaded = 0
    for place in places:
        for bit in {place % 8, 5 * place % 8}:
            content[place] ^= 1 << bit
            path.write_bytes(content)
            content[place] ^= 1 << bit
            try:
                model = load_model(path)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most flips are refused, some are not
            else:
                assert [w.shape for w in model.get_weights()] == [(100, 150), (150,), (150, 2), (2,)]
                loaded += 1
    assert 50 < loaded < len(places)  # a flipped bit of a weight is only another weight


def described(text=None, **weights):
    """The bytes of a saved network, with another description and other weights if they are given."""
    tensors = {"dense/kernel": np.zeros((4, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}
    if text is None:
        text = json.dumps(models.Sequential([minicnn.Input((4,)), layers.Dense(3)]).get_config())
    return save(tensors | weights, {"minicnn": f'{{"format": "1", "model": {text}}}'})


def changed(old, new):
    text = json.dumps(models.Sequential([minicnn.Input((4,)), layers.Dense(3)]).get_config())
    assert old in text
    return described(text.replace(old, new))


def raw(entries, size=4):
    metadata = json.dumps({"minicnn": '{"format": "1", "model": {"layers": []}}'})
    header = f'{{"__metadata__": {metadata}, {entries}}}'.encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


HOSTILE = {
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of a terabyte": struct.pack("<Q", 2**40) + bytes(100),
    "terabytes of weights": raw('"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}'),
    "a shape whose product overflows": raw('"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}'),
    "an empty array of a huge shape": raw(
        '"a":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}', 0
    ),
    "offsets that overlap": raw(
        '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    ),
    "offsets that go back": raw('"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}'),
    "100 axes": raw(f'"a":{{"dtype":"F32","shape":[{",".join("1" * 100)}],"data_offsets":[0,4]}}'),
    "a header that nests a million deep": raw(f'"a":{"[" * 10**6}'),
    "a name that occurs twice": changed('"units": 3', '"units": 4, "units": 3'),
    "not a number": changed('"units": 3', '"units": NaN'),
    "an infinite number": changed('"class_names": null', '"class_names": Infinity'),
    "an infinite number in digits": changed('"units": 3', '"units": 1e999'),
    "a layer of 10^12 units": changed('"units": 3', '"units": 1000000000000'),
    "a layer of 10^30 units": changed('"units": 3', f'"units": {10**30}'),
    "an input of 10^18": changed('"shape": [4]', '"shape": [1000000000, 1000000000]'),
    "complex weights": described(**{"dense/kernel": np.ones((4, 3), np.complex64)}),
    "a million layers": described(json.dumps({"layers": [{"class": "ReLU"}] * 10**6})),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_model_file_is_refused(content, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(described())
    load_model(path)  # else everything below might be refused for another reason; and what a loader needs is there
    path.write_bytes(content)
    margin = 32 * len(content)  # the description as objects of Python
    with little_memory(64 * MB + margin), pytest.raises(DataError) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# Archives


def gz(path, *pieces):
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


def head(name, kind=tarfile.REGTYPE, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_unpacks_to_200_mb_is_not_read(tmp_path, kind):
    """Tarfile reads a header of any size at once: a few hundred kB of file would fill the memory."""
    path = gz(tmp_path / "a.tar.gz", head("x", kind, 200 * MB), *[bytes(MB)] * 200)
    assert path.stat().st_size < 2 * MB
    assert "claims more bytes" in refused(cifar10.load_binary, path)


@pytest.mark.parametrize("size", [-1, -512, -2048, -(2**40)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_negative_size_does_not_lead_back(tmp_path, kind, size):
    name = cifar10.FOLDER if kind == tarfile.DIRTYPE else f"{cifar10.FOLDER}/readme.html"
    path = gz(tmp_path / "a.tar.gz", head(name), head(name, kind, size), bytes(4096))
    error = in_time(lambda: cifar10.load_binary(path))
    assert isinstance(error, DataError)


def test_an_endless_row_of_folders_ends_at_the_second(tmp_path):
    path = gz(tmp_path / "a.tar.gz", *[head(cifar10.FOLDER, tarfile.DIRTYPE)] * 2, *[b"?" * 512] * 9)
    assert f"'{cifar10.FOLDER}', 0 bytes, is not one of its regular files" in refused(cifar10.load_binary, path)


def test_a_sparse_file_is_refused(tmp_path):
    """Its list of pieces may be such that tarfile looks for the next one for ever."""
    block = bytearray(head(f"{cifar10.FOLDER}/data_batch_1.bin", tarfile.GNUTYPE_SPARSE, 512))
    block[386:410] = b"00000000001\x0000000000000\x00"  # a piece of no bytes, at 1
    block[483:495] = b"00000001000\x00"  # its size, unpacked
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block)
    path = gz(tmp_path / "a.tar.gz", bytes(block), bytes(4096))
    error = in_time(lambda: cifar10.load_binary(path))
    assert isinstance(error, DataError)
    assert "is not one of its regular files" in str(error)


def test_a_batch_of_a_terabyte_is_not_read(tmp_path):
    with open(tmp_path / "data_batch_1.bin", "wb") as file:
        try:
            file.truncate(2**40)  # takes no room on the disk
        except OSError:
            file.truncate(2**32)
    with little_memory(256 * MB), pytest.raises(DataError, match=r"30,730,000 bytes\. Received: more\."):
        cifar10.load_binary(tmp_path)


# Images


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra, pixels=b""):
    """A PNG of one byte a pixel whose header says what it likes."""
    data = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + data + b"".join(extra) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def image_file(tmp_path, content):
    path = tmp_path / "cat" / "1.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("side", [50_000, 2**31 - 1])
def test_an_image_of_50000x50000_is_refused_before_it_is_decoded(tmp_path, side):
    path = image_file(tmp_path, png(side, side, pixels=bytes(10**6)))
    for read in (lambda: image_dataset_from_directory(tmp_path, verbose=False), lambda: read_images([path], (8, 8))):
        assert refused(read).startswith(f"the file {path} ")


def test_pillows_limit_holds_even_where_its_warning_is_silenced(tmp_path, monkeypatch):
    """Filters of warnings belong to the process: another thread may take ours away."""
    path = image_file(tmp_path, png(10_000, 10_000))
    monkeypatch.setattr(folders.warnings, "simplefilter", lambda *arguments: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        assert "more than Pillow's limit of 89,478,485 pixels" in refused(read_images, [path], (8, 8))


def test_an_image_that_holds_more_than_it_says(tmp_path):
    image = png(2, 2, pixels=bytes(200 * MB))
    assert len(image) < MB
    path = image_file(tmp_path, image)
    with little_memory(64 * MB):
        assert read_images([path], (2, 2)).tolist() == np.zeros((1, 2, 2, 3)).tolist()  # the rest is not unpacked


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_in_an_image_that_unpacks_to_200_mb(tmp_path, kind):
    start = {b"zTXt": b"Comment\x00\x00", b"iTXt": b"Comment\x00\x01\x00\x00\x00"}[kind]
    text = chunk(kind, start + zlib.compress(bytes(200 * MB)))
    path = image_file(tmp_path, png(2, 2, text, pixels=bytes(6)))
    assert str(path) in refused(read_images, [path], (2, 2))
    assert PngImagePlugin.MAX_TEXT_CHUNK < 64 * MB


def test_other_formats_under_the_name_of_an_image(tmp_path, monkeypatch):
    path = image_file(tmp_path, b"")
    for kind in ("TIFF", "PPM", "ICO", "EPS"):  # what a folder may hold are four formats, told by their content
        Image.new("RGB", (16, 16)).save(path, kind)
        assert "is not an image, or not of a kind" in refused(read_images, [path], (8, 8))
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))
    assert "is not an image, or not of a kind" in refused(lambda: read_images([path], (8, 8), photos=True))
    assert started == []  # another program, for PostScript


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")


@contextmanager
def pipe(path):
    """Make a named pipe; at the end, let go who waits for it."""
    os.mkfifo(path)
    try:
        yield
    finally:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@needs_pipes
def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path):
    path = image_file(tmp_path, b"")
    path.unlink()
    with pipe(path):
        error = in_time(lambda: image_dataset_from_directory(tmp_path, verbose=False))
    assert isinstance(error, DataError)
    assert "it is not a regular file" in str(error)


@needs_pipes
def test_a_pipe_in_the_place_of_a_model_or_a_batch_is_not_waited_for(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    with pipe(path):
        for read, place in ((load_model, path), (cifar10.load_binary, tmp_path), (load, tmp_path)):
            assert isinstance(in_time(lambda: read(place)), DataNotFoundError)  # noqa: B023 - it is called at once


def test_a_file_name_cannot_break_the_line(tmp_path):
    path = tmp_path / "cat\x1b[2J\nerror: none.png"
    path.write_text("no image")
    message = refused(read_images, [path], (8, 8))
    assert "\x1b" not in message and r"cat\x1b[2J\nerror: none.png" in message


# Folders that vanish, and those that may not be read or written


def test_a_folder_that_vanishes_between_listing_and_reading(tmp_path, monkeypatch):
    image_file(tmp_path, png(2, 2, pixels=bytes(6)))
    listed = folders._image_files

    def vanishing(folder):
        found = listed(folder)
        shutil.rmtree(folder)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_image_files", vanishing)
        message = refused(lambda: image_dataset_from_directory(tmp_path, verbose=False), kind=DataNotFoundError)
    assert "cat/1.png does not exist" in message
    image_file(tmp_path, b"")
    monkeypatch.setattr(folders, "class_folders", lambda directory: ["cat", "dog"])  # there was a dog a moment ago
    message = refused(lambda: image_dataset_from_directory(tmp_path, verbose=False), kind=DataNotFoundError)
    assert f"the folder {tmp_path / 'dog'} cannot be opened" in message


def test_a_batch_that_vanishes_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert list(cifar10._unpacked(tmp_path)) == []


needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users and modes on this system")


@contextmanager
def mode(path, bits):
    """Give `path` these permissions; the superuser, whom they do not stop, is another user meanwhile."""
    os.chmod(path, bits)
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)
        os.chmod(path, 0o755)


@pytest.fixture
def public():
    """A folder below which everybody may come, other than pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@needs_users
def test_what_may_not_be_read_is_said(public):
    network().save(public / "model")
    path = image_file(public, png(2, 2, pixels=bytes(6)))
    (public / "cat" / "inner").mkdir()
    (public / "data_batch_1.bin").write_bytes(b"")
    load_model(public / "model")  # imports what another user might not
    image_dataset_from_directory(public, image_size=(2, 2), verbose=False)
    with mode(public / "cat" / "inner", 0):  # its images would be missed
        assert "inner cannot be opened: Permission denied" in refused(
            lambda: image_dataset_from_directory(public, verbose=False), kind=DataNotFoundError
        )
    for place, read, kind in [
        (public / "model", lambda: load_model(public / "model"), DataError),
        (path, lambda: image_dataset_from_directory(public, verbose=False), DataError),
        (public / "data_batch_1.bin", lambda: cifar10.load_binary(public), DataError),
        (public, lambda: load_model(public / "model"), DataError),
        (public, lambda: image_dataset_from_directory(public, verbose=False), DataNotFoundError),
        (public, lambda: cifar10.load_binary(public), DataError),
        (public, lambda: load(public), DataNotFoundError),
    ]:
        with mode(place, 0):
            assert "ermission denied" in refused(read, kind=kind)


def test_a_name_that_is_too_long():
    for read in (load_model, load, cifar10.load_binary, image_dataset_from_directory):
        assert "ame too long" in refused(read, "x" * 5000, kind=MinicnnError)


def fitted(model, *callbacks):
    model.fit(np.zeros((4, 100), np.float32), np.zeros(4, int), verbose=0, callbacks=callbacks)


def writers(folder):
    model = network()
    return [
        lambda: model.save(folder / "model"),
        lambda: model.save_weights(folder / "weights"),
        lambda: fitted(model, ModelCheckpoint(folder / "best", monitor="loss")),
        lambda: fitted(model, CSVLogger(folder / "log.csv")),
        lambda: output_folder(folder / "new"),
    ]


@needs_users
def test_a_folder_that_may_only_be_read_is_said_and_stays_as_it_is(public):
    fitted(network())  # compiles what there is to compile
    for write in writers(public):
        with mode(public, 0o555):
            message = refused(write, kind=OutputError)
        assert str(public) in message and "Permission denied" in message
    assert list(public.iterdir()) == []


@contextmanager
def full_disk(limit):
    """Let no file of this process grow beyond `limit` bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_leaves_the_old_file_or_none(tmp_path):
    model = network()
    fitted(model)
    path = tmp_path / "model"
    for old in (None, b"the old one"):
        if old:
            path.write_bytes(old)
        for write in (model.save, model.save_weights, lambda p: fitted(model, ModelCheckpoint(p, monitor="loss"))):
            with full_disk(10_000), pytest.raises(OutputError, match="File too large") as caught:
                write(path)
            assert str(path) in str(caught.value)
            assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"model": old} if old else {})


def test_two_processes_that_write_one_file_leave_one_of_theirs(tmp_path):
    program = (
        "import sys, minicnn\n"
        "model = minicnn.Sequential([minicnn.Input((100,)), minicnn.layers.Dense(100)])\n"
        "for _ in range(100):\n"
        "    model.set_weights([w * 0 + int(sys.argv[2]) for w in model.get_weights()])\n"
        "    model.save(sys.argv[1])\n"
    )
    path = tmp_path / "output" / "model"
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    writing = [subprocess.Popen([*command, number], stderr=subprocess.PIPE) for number in "12"]
    seen = set()
    while any(process.poll() is None for process in writing) or not seen:
        if path.exists():
            values = {number for w in load_model(path).get_weights() for number in np.unique(w)}
            assert len(values) == 1  # never a part of each
            seen |= values
    assert [process.communicate()[1] for process in writing] == [b"", b""]
    assert seen <= {1, 2}
    assert list(path.parent.iterdir()) == [path]


# Threads and forks


def kill(thread):
    """Let a SystemExit come up in a thread at its next step, which is outside of its work while it sleeps."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def numbered(size=8):
    return Dataset.from_arrays(np.zeros((size, 1)), np.arange(size), 1)


def test_a_prefetch_thread_that_dies_is_noticed():
    batches = iter(numbered().prefetch(1))
    next(batches)
    time.sleep(0.1)  # it has made one ahead, and sleeps
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("minicnn-prefetch")]
    kill(thread)
    error = in_time(lambda: list(batches))
    assert isinstance(error, StateError)
    assert "the thread that makes batches ahead is gone" in str(error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is its death
def test_a_kernel_thread_that_dies_costs_a_second():
    before = minicnn.get_num_threads()
    minicnn.set_num_threads(3)
    try:
        threads.run(lambda i: None, 3)
        helper = threads._helpers[0]
        kill(helper)
        for _ in range(2):
            done = []
            assert in_time(lambda: threads.run(done.append, 20)) is None  # noqa: B023 - it is called at once
            assert sorted(done) == list(range(20))
        assert not helper.is_alive() and all(other.is_alive() for other in threads._helpers)
    finally:
        if helper._answered.locked():
            helper._answered.release()  # let go who still waits for it
        minicnn.set_num_threads(before)


def test_without_more_threads_the_work_is_done_by_those_there_are(monkeypatch):
    def no_more(thread):
        raise RuntimeError("can't start new thread")

    before = minicnn.get_num_threads()
    minicnn.set_num_threads(3)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    try:
        done = []
        threads.run(done.append, 20)
        assert sorted(done) == list(range(20))
        assert [labels.tolist() for _, labels in numbered(3).prefetch(2)] == [[0], [1], [2]]
    finally:
        minicnn.set_num_threads(before)


def going_on(batches, connection):
    try:
        connection.send(len(list(batches)))
    except MinicnnError as error:
        connection.send(str(error))
    connection.send([labels.tolist() for _, labels in numbered(3).prefetch(2)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # newer Pythons warn of what is tested here
def test_a_forked_child_does_not_wait_for_the_thread_of_its_parent():
    batches = iter(numbered().prefetch(1))
    next(batches)
    time.sleep(0.1)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=going_on, args=(batches, there), daemon=True)
    child.start()
    try:
        assert here.poll(30), "it hangs"
        assert "the thread that makes batches ahead is gone" in here.recv()
        assert here.poll(30), "it hangs"
        assert here.recv() == [[0], [1], [2]]
    finally:
        child.kill()
        child.join()
    assert len(list(batches)) == 7  # here it goes on


# Numbers that are none


class Spoilt(layers.ReLU):
    """A layer whose gradient is no number."""

    def backward(self, dy):
        return super().backward(dy) * np.nan


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["images", "weights", "gradients"])
def test_a_training_that_meets_no_numbers_is_ended_and_that_is_said(capsys, place, value):
    x, y = np.ones((6, 4), np.float32), np.zeros(6, int)
    hidden = Spoilt() if place == "gradients" else layers.ReLU()
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(5), hidden, layers.Dense(3, "softmax")])
    model.compile()
    if place == "images":
        x[2] = value
    if place == "weights":
        model.layers[-1].params["kernel"][...] = value
        model.layers[1].params["bias"][...] = 1
    history = model.fit(x, y, 2, epochs=5, callbacks=TerminateOnNaN(), shuffle=False, verbose=0)
    assert len(history.epoch) == 1
    batch = 0 if place == "weights" else 1  # the images of the second batch; weights after the first
    assert capsys.readouterr().out == f"Batch {batch}: Invalid loss, terminating training\n"
