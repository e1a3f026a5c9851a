"""Large arrays are used again, and only when nobody can see them any more."""

import threading

import numpy as np

import minicnn
from minicnn.baseline import model_s
from minicnn.kernels import buffers


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_used_again(monkeypatch):
    monkeypatch.setattr(buffers, "_blocks", [])
    a = buffers.empty((64, 1000), np.float32)
    first = address(a)
    b = buffers.empty((64, 1000), np.float32)
    assert not np.shares_memory(a, b)
    del a
    c = buffers.empty((16, 1000), np.float64)  # smaller, of another type and shape
    assert address(c) == first
    assert len(buffers._blocks) == 2


def test_a_view_keeps_its_memory(monkeypatch):
    monkeypatch.setattr(buffers, "_blocks", [])
    view = buffers.zeros((64, 1000), np.float32)[3:5].T
    other = buffers.empty((64, 1000), np.float32)
    other.fill(7)
    assert not view.any()


def test_a_block_that_is_too_small_gives_way(monkeypatch):
    monkeypatch.setattr(buffers, "_blocks", [])
    for size in range(1, 30):
        buffers.empty((size, 20_000), np.float32)
    assert len(buffers._blocks) == 1


def test_every_array_begins_at_a_line_of_the_cache():
    for size in (1, 3, 1000, 20_000, 33_333):
        for dtype in (np.uint8, np.float32, np.float64):
            array = buffers.zeros((size,), dtype)
            assert address(array) % 64 == 0
            assert (array.shape, array.dtype) == ((size,), dtype)
            assert not array.any()


def test_threads_never_share_an_array():
    wrong = []

    def work(number):
        for _ in range(300):
            array = buffers.empty((20_000,), np.float32)
            array.fill(number)
            wrong.extend([number] * bool((array != number).any()))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_steady_training_step_needs_no_new_memory(monkeypatch):
    monkeypatch.setattr(buffers, "_blocks", [])
    minicnn.utils.set_random_seed(0)
    model = model_s()
    model.compile("sgd")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), rng.integers(0, 10, 64)
    epoch = (64, 64, 64, 16)  # the last batch is smaller
    for N in 2 * epoch:
        model.train_on_batch(images[:N], labels[:N])
    before = [address(block) for block in buffers._blocks]
    for N in 3 * epoch:
        model.train_on_batch(images[:N], labels[:N])
    assert [address(block) for block in buffers._blocks] == before
