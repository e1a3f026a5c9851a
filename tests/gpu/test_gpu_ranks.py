"""Ranks on cards: what they tell each other goes through NCCL, or through the host, and a step is that of one process.

Nobody lends several cards here, so a communicator of the test's own stands in for the other rank.
"""

import ctypes
import sys
import types
import typing

import numpy as np
import pytest
from test_gpu_training import examples, network

from minicnn import ranks, training
from minicnn.kernels import here, on_host


class Other:
    """MPI's communicator with another rank that has the same arrays."""

    def __init__(self):
        self.calls = []

    def Allreduce(self, place, array, operation):  # noqa: N802 - MPI's name
        self.calls.append("Allreduce")
        assert isinstance(array, np.ndarray)
        array += array

    def Bcast(self, array, root):  # noqa: N802 - MPI's name
        self.calls.append("Bcast")
        assert root == 0


class Communicator:
    """NCCL's with another rank that has the same numbers, in the memory of the card."""

    made: typing.ClassVar = []

    def __init__(self, count, name, rank):
        assert (count, len(name), rank) == (2, 128, 0)
        self.made.append(self)
        self.kinds = []

    def allReduce(self, source, target, count, kind, operation, stream):  # noqa: N802 - NCCL's name
        assert source == target and operation == "sum"
        self.kinds.append(kind)
        number = {"float32": ctypes.c_float, "float64": ctypes.c_double}[kind]
        memory = np.ctypeslib.as_array(ctypes.cast(source, ctypes.POINTER(number)), (count,))
        memory += memory


@pytest.fixture
def two(gpu, on_card, monkeypatch):
    """Pretend to be rank 0 of 2; return the other one."""
    if on_card:
        pytest.skip("memory of a card cannot be written from here")
    other = Other()
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    monkeypatch.setattr(ranks, "_world", lambda: other)
    monkeypatch.setattr(ranks, "_mpi", lambda: types.SimpleNamespace(IN_PLACE=None, SUM=None))
    ranks._nccl.cache_clear()
    yield other
    ranks._nccl.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_the_card_are_added_by_nccl(two, gpu, monkeypatch, dtype):
    nccl = types.SimpleNamespace(
        available=True, get_unique_id=lambda: tuple(range(-64, 64)), NcclCommunicator=Communicator,
        NCCL_FLOAT32="float32", NCCL_FLOAT64="float64", NCCL_SUM="sum",
    )  # fmt: skip
    module = types.ModuleType("cupy.cuda")
    module.nccl = nccl
    monkeypatch.setitem(sys.modules, "cupy.cuda", module)
    monkeypatch.setattr(type(gpu.cupy.cuda.get_current_stream()), "ptr", 0, raising=False)
    monkeypatch.setattr(Communicator, "made", [])
    for numbers in (np.arange(5, dtype=dtype), np.ones(3, dtype)):
        array = here(numbers.copy())
        assert ranks.add(array) is array
        np.testing.assert_array_equal(on_host(array), 2 * numbers, strict=True)
    assert [each.kinds for each in Communicator.made] == [[dtype, dtype]]  # one communicator, made once
    assert two.calls == ["Bcast"]  # of its name


@pytest.mark.parametrize("available", [False, None])
def test_without_nccl_they_go_through_the_host(two, monkeypatch, available):
    if available is not None:
        module = types.ModuleType("cupy.cuda")
        module.nccl = types.SimpleNamespace(available=available)
        monkeypatch.setitem(sys.modules, "cupy.cuda", module)
    array = here(np.arange(5.0))
    ranks.add(array)
    np.testing.assert_array_equal(on_host(array), 2 * np.arange(5.0))
    assert two.calls == ["Allreduce"]


def test_weights_of_the_card_are_agreed_on(two):
    array = here(np.arange(5.0))
    ranks.agree(array)
    assert two.calls == ["Bcast"]
    np.testing.assert_array_equal(on_host(array), np.arange(5.0))


def test_a_shared_step_is_the_step_of_one_process(gpu, on_card, monkeypatch):
    if on_card:
        pytest.skip("the copy of the other rank's array is the stand-in's")
    images, labels = examples(7)
    expected = network()
    losses, correct = (on_host(a) for a in training.plain_step(expected, here(images), labels))
    told = []

    class ToldError(Exception):
        pass

    def tell(flat):
        told.append(on_host(flat).copy())
        raise ToldError

    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(ranks, "add", tell)
    with pytest.raises(ToldError):
        training.plain_step(network(), here(images), labels)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    monkeypatch.setattr(ranks, "add", lambda flat: flat.set(on_host(flat) + told[0]))
    model = network()
    mine = training.plain_step(model, here(images), labels)
    np.testing.assert_allclose(on_host(mine[0]), losses, rtol=1e-5)
    np.testing.assert_array_equal(on_host(mine[1]), correct)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
