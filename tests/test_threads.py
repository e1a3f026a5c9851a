"""Threads change how long something takes and nothing else; seeds decide every bit."""

import multiprocessing
import threading

import numpy as np
import pytest

import minicnn
from minicnn import optimizers
from minicnn.baseline import model_s
from minicnn.errors import ArgumentError
from minicnn.kernels import cpu, threads


@pytest.fixture(autouse=True)
def _cores():
    before = minicnn.get_num_threads()
    yield
    minicnn.set_num_threads(before)


def digits(array):
    """The bits of an array, so that even -0 and 0 differ."""
    return array.tobytes()


def on(count, compute):
    minicnn.set_num_threads(count)
    return [digits(array) for array in compute()]


def every_kernel():
    """Every kernel that runs in parallel, on an odd batch that no number of threads divides."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((37, 13, 13, 3)).astype(np.float32), rng.standard_normal((3, 3, 3, 5)).astype(np.float32)
    where = ((1, 1), ((1, 1), (1, 1)))
    y = cpu.conv2d(x, w, np.ones(5, np.float32), *where)
    pooled, argmax = cpu.maxpool2d(y, (3, 3), (2, 2), ((0, 1), (1, 0)))
    unpooled = cpu.maxpool2d_backward(pooled, argmax, y.shape, (3, 3), (2, 2), ((0, 1), (1, 0)))
    averaged = cpu.averagepool2d(y, (3, 3), (2, 2), ((0, 1), (1, 0)))
    rows = rng.standard_normal((300, 1000)).astype(np.float32)  # longer than a chunk of element-wise work
    matrix, bias = rng.standard_normal((1000, 70)).astype(np.float32), np.ones(70, np.float32)
    z = cpu.dense(rows, matrix, bias)
    fused = cpu.conv2d_relu_maxpool2d(x[:, :12, :12], w, np.ones(5, np.float32))
    return [
        y,
        *cpu.conv2d_backward(y, x, w, *where),
        pooled,
        argmax,
        unpooled,
        averaged,
        cpu.averagepool2d_backward(averaged, y.shape, (3, 3), (2, 2), ((0, 1), (1, 0))),
        cpu.concatenate([x, y], 3),
        cpu.leaky_relu(rows, 0.3),
        cpu.leaky_relu_backward(rows, rows, 0.3),
        cpu.gelu(rows),
        cpu.gelu_backward(rows, rows),
        cpu.relu(rows),
        cpu.relu_backward(rows, cpu.relu(rows)),
        z,
        *cpu.dense_backward(z, rows, matrix),
        cpu.softmax(z),
        *fused,
        *cpu.conv2d_relu_maxpool2d_backward(fused[0], fused[1], x[:, :12, :12], w),
    ]


def trained(seed=3, steps=4):
    """The weights of Model S after a few steps, and what it then says, in float32."""
    minicnn.utils.set_random_seed(seed)
    model = model_s()
    model.compile(optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (steps * 33, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, steps * 33)
    history = model.fit(images, labels, batch_size=33, verbose=0)
    return [*model.get_weights(), model.predict(images), np.array(history.history["loss"])]


@pytest.mark.parametrize("compute", [every_kernel, trained])
def test_any_number_of_threads_gives_the_same_bits(compute):
    expected = on(1, compute)
    for count in (2, 5, 2):
        assert on(count, compute) == expected


def test_a_seed_decides_every_bit():
    first = [digits(array) for array in trained(seed=3)]
    assert [digits(array) for array in trained(seed=3)] == first
    other = [digits(array) for array in trained(seed=4)]
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_task_is_done_once(count):
    minicnn.set_num_threads(count)
    for tasks in (0, 1, 2, 100):
        done = []
        threads.run(done.append, tasks)
        assert sorted(done) == list(range(tasks))


def test_tasks_run_at_the_same_time():
    minicnn.set_num_threads(3)
    together = threading.Barrier(3, timeout=20)  # breaks unless three tasks are inside at once
    threads.run(lambda i: together.wait(), 3)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("failing", [0, 7, 19])
def test_an_exception_in_a_task_is_raised_in_the_caller(count, failing):
    minicnn.set_num_threads(count)
    before = blas()

    def task(i):
        if i == failing:
            raise KeyError("task 7 of 9")

    with pytest.raises(KeyError, match="task 7 of 9"):
        threads.run(task, 20)
    assert blas() == before
    done = []
    threads.run(done.append, 20)  # and the pool goes on working
    assert sorted(done) == list(range(20))


def blas():
    """How many threads each BLAS library would use now."""
    with threads.single_threaded_blas():
        pass  # now they are all loaded and known
    return [library.num_threads for library in threads._blas]


def test_blas_is_held_to_one_thread_and_then_given_back():
    libraries = threads._blas if blas() else []
    assert libraries
    before = blas()
    try:
        for library in libraries:
            library.set_num_threads(2)
        inside = []
        threads.run(lambda i: inside.extend(library.num_threads for library in libraries), 4)
        assert set(inside) == {1}
        assert blas() == [2] * len(libraries)
        with pytest.raises(ZeroDivisionError):
            threads.run(lambda i: 1 // 0, 1)
        assert blas() == [2] * len(libraries)
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


def test_many_callers_may_call_at_once():
    minicnn.set_num_threads(2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 9, 9, 2)).astype(np.float32)
    w, b = rng.standard_normal((3, 3, 2, 4)).astype(np.float32), np.zeros(4, np.float32)
    expected = digits(cpu.conv2d(x, w, b, (1, 1), ((1, 1), (1, 1))))
    found = []

    def caller():
        found.extend(digits(cpu.conv2d(x, w, b, (1, 1), ((1, 1), (1, 1)))) for _ in range(20))

    callers = [threading.Thread(target=caller, daemon=True) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(timeout=60)
    assert found == [expected] * 80


def in_child(connection):
    connection.send([digits(array) for array in every_kernel()])
    connection.close()


def forked(target):
    """What `target(connection)` sends from a forked child, or None if it sends nothing within a minute."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(there,), daemon=True)
    child.start()
    try:
        return here.recv() if here.poll(60) else None
    finally:
        child.kill()
        child.join()


needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # newer Pythons warn of what is tested here
def test_a_forked_child_computes_too():
    minicnn.set_num_threads(2)
    expected = [digits(array) for array in every_kernel()]  # the pool's threads run, and do not survive the fork
    assert forked(in_child) == expected


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_computation_does_not_wait_for_it():
    minicnn.set_num_threads(2)
    expected = [digits(array) for array in every_kernel()]
    inside, leave = threading.Event(), threading.Event()

    def task(i):
        inside.set()
        leave.wait(100)

    other = threading.Thread(target=threads.run, args=(task, 2), daemon=True)
    other.start()
    assert inside.wait(20)
    try:
        assert forked(in_child) == expected
    finally:
        leave.set()
        other.join(20)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "two"])
def test_a_number_of_threads_that_is_none(count):
    before = minicnn.get_num_threads()
    with pytest.raises(ArgumentError, match=r"expects an integer >= 1\. Received: "):
        minicnn.set_num_threads(count)
    assert minicnn.get_num_threads() == before
