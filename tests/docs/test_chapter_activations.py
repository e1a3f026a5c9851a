"""The chapter on ReLU: the figure's numbers, and the claims that no cell computes."""

import json
from pathlib import Path

import numpy as np

from minicnn import layers

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "figures" / "measured" / "activations.json").read_text())
PAGE = " ".join((DOCS / "activations.md").read_text().split())


def test_the_shares_of_zeros():
    epochs = MEASURED["epochs"]
    assert len(epochs) == 1 + 13
    assert [f"{100 * layer['zeros']:.0f}" for layer in epochs[0].values()] == ["62", "54", "58", "48"]
    assert "62, 54, 58 and 48 % at the start" in PAGE
    first, second, third, dense = ([row[layer]["zeros"] for row in epochs] for layer in epochs[0])
    assert f"{100 * third[10]:.0f}" == "84"
    assert max(third) == third[10]
    assert "after ten epochs 84 % of the third layer's" in PAGE
    assert 0.68 < dense[10] < second[10] < 0.74
    assert max(first) < 0.62
    assert all(layer[13] < layer[10] for layer in (first, second, third, dense))
    others = [next(iter(start.values()))["zeros"] for start in MEASURED["starts_of_other_seeds"]]
    assert (len(others), f"{100 * min(others):.0f} to {100 * max(others):.0f} %") == (5, "33 to 61 %")
    assert "of five other seeds it is 33 to 61 %" in PAGE


def test_the_dead_units():
    dead = [row["dense"]["dead"] for row in MEASURED["epochs"]]
    assert dead[:2] == [19, 2]
    assert not any(dead[6:])
    assert dead[5]
    assert "19 of the 128 dense units were zero for all 500 images" in PAGE
    filters = [row[name] for row in MEASURED["epochs"] for name in ("conv2d", "conv2d_1", "conv2d_2")]
    assert sum(layer["units"] for layer in filters[:3]) == 112
    assert not any(layer["dead"] for layer in filters)


def test_y_is_enough_for_the_leaky_unit_and_not_for_the_absolute_value():
    x = np.linspace(-1, 1, 7)
    assert ((np.where(x > 0, x, 0.1 * x) > 0) == (x > 0)).all()
    assert ((np.abs(x) > 0) != (x > 0)).any()


def test_the_curves_of_the_figure_and_where_they_turn(script):
    x, found = script("activations").curves()
    (y, slope), (_, leaky_slope), (relu, relu_slope) = (found[n] for n in ("GELU", "LeakyReLU", "ReLU"))
    assert (f"{y.min():.2f}", f"{x[y.argmin()]:.2f}") == ("-0.17", "-0.75")
    assert (f"{slope.min():.2f}", f"{slope.max():.2f}") == ("-0.13", "1.13")
    assert abs(x[slope.argmin()] + 2**0.5) <= 0.01 >= abs(x[slope.argmax()] - 2**0.5)
    for part in (
        "dips to -0.17 left of 0",
        "falls to -0.13 at -1.4",
        "rises to 1.13 at 1.4",
        "every y from -0.17 to 0",
    ):
        assert part in PAGE
    assert set(leaky_slope) == {0.3, 1} and set(relu_slope) == {0, 1}
    assert abs(y - relu)[abs(x) > 3.5].max() < 1e-3  # comes close to ReLU at both ends
    np.testing.assert_allclose(np.gradient(y, x)[1:-1], slope[1:-1], atol=1e-4)


def test_where_relu_leaves_zeros_its_relatives_leave_none():
    x = np.random.default_rng(0).standard_normal((1, 1000)).astype("f4")
    zeros = {
        kind: (kind().build((1000,)).forward(x) == 0).mean() for kind in (layers.ReLU, layers.LeakyReLU, layers.GELU)
    }
    assert zeros[layers.ReLU] > 0.4
    assert zeros[layers.LeakyReLU] == zeros[layers.GELU] == 0


def test_a_convolution_with_gelu_holds_its_sums_beside_its_outputs():
    x = np.random.default_rng(0).standard_normal((4, 9, 9, 3)).astype("f4")
    for name, held in (("relu", "y"), ("gelu", "x")):
        conv = layers.Conv2D(8, 3, activation=name).build((9, 9, 3))
        y = conv.forward(x)
        assert np.shares_memory(y, vars(conv.activation)[held]) == (name == "relu")


def test_an_activation_inside_another_layer_alone_may_overwrite():
    assert layers.Conv2D(1, 1, activation="relu").activation.in_place
    assert layers.Dense(1, activation="relu").activation.in_place
    assert not layers.ReLU().in_place


def test_a_convolution_that_overwrites_its_sums_has_the_gradients_of_one_that_does_not():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 5, 5, 2)).astype("f4"), rng.standard_normal((2, 3, 3, 4)).astype("f4")
    found = []
    conv = layers.Conv2D(4, 3, activation="relu").build((5, 5, 2))
    for conv.activation.in_place in (True, False):
        y = conv.forward(x)
        found.append([y.copy(), conv.backward(dy).copy(), *(grad.copy() for grad in conv.grads.values())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
