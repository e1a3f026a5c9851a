"""The chapter on the dense layer: what its figures show and its text claims."""

import re
from pathlib import Path

import numpy as np

from minicnn import layers
from minicnn.gradcheck import check_layer

DOCS = Path(__file__).parents[2] / "docs"


def test_dw_is_the_sum_of_three_tiles_of_rank_one(figures):
    tiles, dw = figures.tiles()
    assert tiles.shape == (3, 4, 3)
    assert [np.linalg.matrix_rank(tile) for tile in tiles] == [1, 1, 1]
    np.testing.assert_array_equal(tiles.sum(axis=0), dw)
    layer = layers.Dense(3).build((4,))
    layer.forward(figures.X)
    layer.backward(figures.DY)
    np.testing.assert_array_equal(layer.grads["kernel"], dw)
    assert dw.tolist() == [[-1, 2, -1], [2, 2, -1], [-1, 7, 3], [-1, 2, 2]]


def test_the_gradient_of_a_unit_is_a_sum_of_images(figures):
    images, weights, dw = figures.pictures()
    np.testing.assert_allclose(dw, np.tensordot(weights, images, 1), rtol=1e-5, atol=1e-7)
    named = re.search(r"factors (-0\.\d+), \+(0\.\d+) and \+(0\.\d+)", (DOCS / "dense.md").read_text()).groups()
    np.testing.assert_allclose(weights, [float(number) for number in named], atol=5e-4)
    three, eight, one = images
    blue = dw < -0.02
    assert blue.any() and (three > eight + one)[blue].all()  # where it is blue, the 3 has more ink than the others
    assert (dw[(three == 0) & (eight + one > 0)] > 0).all()  # and orange where only they have some


def test_a_permuted_matrix_with_another_order_passes_every_check():
    layer = layers.Dense(4).build((12,))
    layer.params["kernel"][:] = layer.params["kernel"][np.random.default_rng(0).permutation(12)]
    assert check_layer(layer, (12,)).ok


def test_at_three_sizes_only_one_product_fits():
    N, In, Out = 2, 3, 4
    sizes = {"x": (N, In), "w": (In, Out), "dy": (N, Out)}
    sizes |= {f"{name}T": shape[::-1] for name, shape in sizes.items()}
    for shape, right in (((In, Out), ("xT", "dy")), ((N, In), ("dy", "wT"))):
        pairs = [(p, q) for p in sizes for q in sizes if p.rstrip("T") != q.rstrip("T")]
        fits = [(p, q) for p, q in pairs if sizes[p][1] == sizes[q][0] and (sizes[p][0], sizes[q][1]) == shape]
        assert fits == [right]
        assert len(pairs) == 24  # all of which fit where N = In = Out
