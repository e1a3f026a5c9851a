"""The chapter on tensors and shapes: what its figures show and its text claims."""

import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.gradcheck import check_layer

DOCS = Path(__file__).parents[2] / "docs"


def test_the_strips_are_the_bytes_of_six_pixels(figures):
    photograph = figures.flower()
    assert photograph.shape == (427, 640, 3) and photograph.strides == (1920, 3, 1)
    last, first = figures.strips()
    for h, w, c in np.ndindex(2, 3, 3):
        byte = photograph[figures.TOP + h, figures.LEFT + w, c]
        assert last[(h * 3 + w) * 3 + c] == byte == first[(c * 2 + h) * 3 + w]
    assert (figures.TOP, figures.LEFT) == (210, 300)  # as the caption says
    assert last[6] == first[2] == 207  # the third red, which the page computes from the strides


def test_transposing_keeps_the_photograph_and_reshaping_makes_nine_of_it(figures):
    planes, transposed, reshaped = figures.moved()
    square = figures.flower()[figures.SQUARE]
    assert square.shape == (360, 360, 3)
    np.testing.assert_array_equal(transposed, square)
    assert (reshaped == square).mean() < 0.05
    for row, place in np.ndindex(3, 3):  # a small flower is every third row of a plane, three neighbours a pixel
        small = reshaped[row * 120 : row * 120 + 120, place * 120 : place * 120 + 120]  # (120, 120, 3)
        np.testing.assert_array_equal(small, planes[row, place::3].reshape(120, 120, 3))


def test_a_product_and_a_quotient_differ_by_one_unit_for_126_bytes():
    every = np.arange(256, dtype=np.float32)
    times, divided = every * np.float32(1 / 255), every / np.float32(255)
    apart = np.abs(times - divided) / np.spacing(divided)
    assert sorted(set(apart)) == [0, 1]
    assert (apart == 1).sum() == 126


def test_an_own_layer_trains_and_is_not_saved(tmp_path):
    class Scale(layers.Layer):  # as on the page
        def build(self, input_shape):
            self.input_shape = self.output_shape = self.check_rank(input_shape, "HWC")
            self.add_weight("factor", (input_shape[-1],), lambda shape, generator, dtype: np.ones(shape, dtype))
            return self

        def forward(self, x, training=False):
            self.x = self.check(x)
            return self.x * self.params["factor"]

        def backward(self, dy):
            self.grads["factor"] = (self.x * dy).sum(axis=(0, 1, 2))
            return dy * self.params["factor"]

    model = minicnn.Sequential([minicnn.Input((2, 2, 3)), Scale(), layers.Flatten(), layers.Dense(2, "softmax")])
    model.compile(minicnn.optimizers.SGD(0.1))
    x = np.random.default_rng(0).standard_normal((8, 2, 2, 3)).astype(np.float32)
    before = model.get_weights()[0]
    model.fit(x, np.arange(8) % 2, epochs=1, verbose=0)
    assert (model.get_weights()[0] != before).all()
    with pytest.raises(minicnn.errors.MinicnnError):
        model.save(tmp_path / "model.safetensors")
    assert check_layer(Scale(), (4, 3, 2)).ok


def test_a_flatten_of_another_convention_passes_the_check():
    class ChannelsFirst(layers.Flatten):
        def forward(self, x, training=False):
            return super().forward(x).reshape(x.shape).transpose(0, 3, 1, 2).reshape(len(x), -1)

        def backward(self, dy):
            H, W, C = self.input_shape
            return dy.reshape(len(dy), C, H, W).transpose(0, 2, 3, 1)

    assert check_layer(ChannelsFirst(), (4, 3, 2)).ok


def test_each_small_layer_has_an_anchor_with_its_source_and_its_check():
    sections = re.split(r"^#{2,3} ", (DOCS / "base.md").read_text(), flags=re.M)
    for name in ("Input", "Rescaling", "Flatten", "Add", "Concatenate", "Linear"):
        (section,) = [text for text in sections if text.startswith(f"{name}\n")]
        assert ":::{beside} minicnn.layers." in section and "check_layer(" in section
