"""The chapter on max-pooling: its figure's numbers, its table of ties, and the claims that no cell computes."""

import json
import re
from pathlib import Path

import numpy as np

import minicnn
from minicnn import layers
from minicnn.baseline import model_s

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "figures" / "measured" / "pooling.json").read_text())


def test_the_winners_of_the_figure(script):
    x, won, dx = script("pooling").winners()
    assert x.shape == (12, 24)
    assert won.sum() == 72
    assert (won & (x == 0)).sum() == 22
    windows = x.reshape(6, 2, 12, 2).transpose(0, 2, 1, 3).reshape(72, 4)  # (windows, PH*PW)
    assert (windows.max(axis=1) == 0).sum() == 22
    assert (dx == 0).sum() == 216
    assert ((dx != 0) == won).all()


def test_the_table_of_ties():
    page = " ".join((DOCS / "pooling.md").read_text().split())
    before, after = MEASURED["epochs"][0], MEASURED["epochs"][-1]
    assert len(MEASURED["epochs"]) == 1 + 13
    for row, name in zip(("first pooling", "second", "third"), before, strict=True):
        shares = [table[name][key] for key in ("tied", "tied_above_zero") for table in (before, after)]
        tied, above = [f"{100 * s:.1f}" for s in shares[:2]], [f"{100 * s:.2f}" for s in shares[2:]]
        assert f"| {row} | {' | '.join(tied + above)} |" in page
    others = [next(iter(start.values())) for start in MEASURED["starts_of_other_seeds"]]
    least, most = (f"{100 * pick(start['tied'] for start in others):.0f} %" for pick in (min, max))
    assert (least, most, len(others)) == ("27 %", "54 %", 5)
    assert f"five other seeds, 2 to 6: {least} to {most}, and 0.3 % to 0.5 % above 0" in page
    assert {f"{100 * start['tied_above_zero']:.1f}" for start in others} == {"0.3", "0.4", "0.5"}


def test_ties_are_counted_by_windows(script):
    x = np.array([[1, 1, 0, 0, 3], [0, 0, 0, 0, 2], [5, 4, 7, 7, 3], [3, 2, 7, 7, 4]], "f4")[:, :4, None]  # (H, W, C)
    assert script("record_run").tied(x[None]) == {"tied": 0.75, "tied_above_zero": 0.5}


def test_recording_draws_nothing_and_leaves_the_model_alone(script):
    record = script("record_run")
    minicnn.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.arange(6)
    model, data = model_s(), minicnn.data.Dataset.from_arrays(images, labels, 2, shuffle=True, seed=1)
    model.compile()
    weights, drawn = model.get_weights(), minicnn.utils.generator().bit_generator.state
    taken = record.without_drawing(data, 2)
    again = [labels for _, labels in data]
    assert [labels.tolist() for _, labels in taken] == [labels.tolist() for labels in again[:2]]
    record.walk(model, images)
    assert record.judge(model, taken)["loss"] > 0
    assert minicnn.utils.generator().bit_generator.state == drawn
    for before, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)


def test_ties_at_zero_do_not_matter_below_a_relu():
    x = np.random.default_rng(0).integers(-3, 2, (4, 8, 8, 3)).astype("f4")
    relu, pool = layers.ReLU().build((8, 8, 3)), layers.MaxPooling2D(2).build((8, 8, 3))
    y = pool.forward(relu.forward(x))
    tied = (y == 0) & (np.random.default_rng(1).random(y.shape) < 0.5)  # other winners for some of these
    dy = np.random.default_rng(2).standard_normal(y.shape).astype("f4")
    expected = relu.backward(pool.backward(dy))
    assert tied.sum() > 10
    pool.argmax = np.where(tied, 3, pool.argmax).astype(pool.argmax.dtype)
    np.testing.assert_array_equal(relu.backward(pool.backward(dy)), expected)


def test_what_global_average_pooling_would_save_in_model_s():
    page = " ".join((DOCS / "pooling.md").read_text().split())
    model = model_s()
    first = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    assert first.input_shape == (1024,) and "hands 1,024 numbers to the first dense layer" in page
    assert f"{first.params['kernel'].size / model.count_params():.0%}" == "84%" and "84 % of all weights" in page
    assert model.layers[-3].input_shape == (4, 4, 64)


def test_of_the_convolution_that_averages_nearly_all_products_are_with_a_zero():
    kernel = np.zeros((2, 2, 64, 64))
    kernel[:] = np.eye(64) / 4
    assert ((kernel[..., 0] == 0).sum(), kernel[..., 0].size) == (252, 256)
    assert "the zeros make 252 of 256 products" in " ".join((DOCS / "pooling.md").read_text().split())


def test_record_scripts_are_not_drawn_with_the_figures():
    assert re.search(r'script\.stem\.startswith\("record_"\)', (DOCS / "figures" / "__main__.py").read_text())
