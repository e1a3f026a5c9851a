"""The numbers of the chapter on fast kernels that no cell of it computes."""

import json
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import fusion, layers
from minicnn.kernels import cpu, reference, threads

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kernels.md").read_text()


@pytest.fixture
def record(figures):
    return json.loads(figures.RECORD.read_text())


def test_the_tables_are_the_record(figures, record):
    assert figures.tables(record) in PAGE
    assert record["command"] == figures.COMMAND
    assert figures.COMMAND in PAGE
    assert f"of {figures.ROUNDS} rounds" in PAGE
    assert f"quartiles of {figures.ROUNDS} alternating rounds" in record["method"]
    assert f"least of {figures.TRIES} " in record["method"]
    assert f"least of {figures.TRIES} " in PAGE


def test_what_the_prose_says_of_the_record(record):
    conv1 = {way: parts["forward"]["ms"]["median"] for way, parts in record["stages"]["conv1"].items()}
    assert round(conv1["Python loops"] / conv1["fused"], -3) == 23_000
    assert 0.4e-3 < conv1["Python loops"] / (64 * 32 * 32 * 27 * 16) < 0.6e-3  # ms a multiply-add
    ratios = [pair["2"] / pair["1"] for pair in record["threads"].values()]
    assert "{:.2f}, {:.2f} and {:.2f}".format(*ratios) in PAGE
    for count, row in (("1", "one thread"), ("2", "two threads")):
        assert f"| {row} | " + " | ".join(f"{pair[count]:.2f}" for pair in record["threads"].values()) + " |" in PAGE
    by_im2col = [ways["im2col + BLAS"]["forward"]["ms"]["median"] for ways in record["stages"].values()]
    assert by_im2col[0] == max(by_im2col)
    assert record["machine"]["float32 lanes"] == 16
    assert record["machine"]["cores"] == 2


def test_each_step_down_the_table_is_faster_and_fusion_needs_least_memory(figures, record):
    for ways in record["stages"].values():
        for part in ("forward", "both"):
            chain = [ways[way][part] for way in figures.WAYS if part in ways[way]]
            times = [step["ms"]["median"] for step in chain]
            assert times == sorted(times, reverse=True)
            assert chain[-1]["MB"] == min(step["MB"] for step in chain)
        assert max(parts["forward"]["difference"] for parts in ways.values()) < 1e-6


def test_all_ways_compute_the_same(figures, monkeypatch):
    monkeypatch.setattr(figures, "N", 3)
    for stage in ("conv1", "conv3"):
        ways = figures.forms(stage, "float64")
        right = ways["direct"]["forward"]()
        x, w, b, _ = figures.arrays(stage, "float64")
        np.testing.assert_allclose(cpu.conv2d_relu_maxpool2d(x, w, b)[0], right, rtol=0, atol=1e-12)
        for way in figures.WAYS[1:]:
            np.testing.assert_allclose(ways[way]["forward"](), right, rtol=0, atol=1e-12)
        gradients = [ways[way]["both"]() for way in figures.WAYS[3:]]
        for others in gradients[:-1]:
            for found, fused in zip(others, gradients[-1], strict=True):
                np.testing.assert_allclose(found, fused, rtol=0, atol=1e-11)


def test_the_python_loops_of_the_table_are_the_reference(figures, monkeypatch):
    monkeypatch.setattr(figures, "N", 1)
    monkeypatch.setitem(figures.STAGES, "conv1", (4, 3, 2))
    x, w, b, _ = figures.arrays("conv1")
    y = figures.forms("conv1")["Python loops"]["forward"]()
    np.testing.assert_array_equal(y, reference.conv2d_relu_maxpool2d(x, w, b)[0])


def test_compiled_loops_in_both_orders_give_the_bits_of_the_definition(figures):
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((2, 4, 5, 3), (3, 3, 3, 16), (16,)))
    right = reference.conv2d(x, w, b, *figures.SAME)
    for loops in (figures.compiled_loops(), figures.filters_innermost()):
        assert loops(x, w, b).tobytes() == right.tobytes()


def test_the_sizes_that_are_drawn(figures):
    sizes = figures.sizes()
    assert round(sizes["conv1"]["x"], 2) == 0.79
    assert round(sizes["conv1"]["cols"], 2) == 7.08
    assert "0.79 MB of pixels become 7.08 MB" in PAGE
    for stage, (size, C, _) in figures.STAGES.items():
        x = np.zeros((figures.N, size, size, C), np.float32)
        assert sizes[stage]["x"] == x.nbytes / 1e6
        assert sizes[stage]["cols"] == cpu.im2col(x, (3, 3), *figures.SAME).nbytes / 1e6


def test_what_the_page_says_of_blocks_and_fusion():
    assert len(threads.blocks(8)) == 1
    assert len(threads.blocks(16)) == 2
    assert len(threads.blocks(10_000)) == 16
    stage = [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    model = minicnn.Sequential([minicnn.Input((6, 6, 3)), *stage, layers.Dense(3, "softmax")])
    assert any(isinstance(step.layer, fusion.ConvReLUPool) for step in model._steps)


def test_a_peak_is_the_arrays_that_are_made(figures):
    assert figures.peak(lambda: np.zeros(1_000_000, np.float32)) == pytest.approx(4, abs=0.01)
    assert figures.peak(lambda: [np.zeros(1_000_000, np.uint8) for _ in range(3)]) == pytest.approx(3, abs=0.01)
