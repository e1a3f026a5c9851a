"""The chapter on dropout: its figures' numbers, and the claims that no cell computes."""

import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.baseline import model_s
from minicnn.gradcheck import check_layer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = " ".join((DOCS / "dropout.md").read_text().split())


@pytest.fixture
def measured(figures):
    return figures.measured()


def test_the_passes_of_the_figure(figures):
    x, rows = figures.passes()
    kept = figures.kept()
    assert figures.digits()[0][1][figures.DIGIT] == 3
    assert f"{len(rows):,} passes" in PAGE
    np.testing.assert_array_equal(rows, np.where(kept, 2 * x, 0))
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / np.sqrt(kept.size)
    assert abs(rows.mean(axis=0) - x).max() < 4 * x.max() / np.sqrt(len(rows))  # each has the standard error x / √n


def test_the_bells_of_the_figure(figures):
    x, n = figures.passes()[0], figures.PASSES
    minicnn.utils.set_random_seed(0)
    w = layers.Dense(1).build((64,)).params["kernel"][:, 0]
    deviations = []
    for rate in (0.2, 0.5, 0.8):
        quiet, scattered = figures.sums(rate)
        assert quiet == pytest.approx(x @ w, abs=1e-5)
        expected = np.sqrt(rate / (1 - rate) * np.sum((w * x) ** 2))
        assert abs(scattered.mean() - quiet) < 4 * expected / np.sqrt(n)
        assert scattered.std() == pytest.approx(expected, rel=0.03)
        deviations.append(f"{scattered.std():.2f}")
    image = re.search(r"!\[([^]]*)\]\(images/dropout_masks.svg\)", PAGE)[1]
    assert f"the same {quiet:.2f}" in image
    assert "deviations of {}, {} and {}".format(*deviations) in image


def test_the_record_says_what_made_it(figures, measured):
    assert measured["command"] == "python docs/figures/dropout.py --measure"
    assert f"`{measured['command']}`" in PAGE
    assert measured["seeds"] == list(figures.SEEDS) == list(range(10))  # as the caption says
    assert len(figures.digits()[0][1]) == 1085
    for rate in figures.RATES:
        for key in ("loss", "quiet_loss", "val_loss"):
            assert np.shape(measured["rates"][str(rate)][key]) == (3, figures.EPOCHS)


def test_the_losses_in_the_text_were_measured(measured):
    def median(rate, key):
        return np.array(measured["rates"][rate][key][1])

    quiet = [median(rate, "quiet_loss")[-1] for rate in ("0.0", "0.25", "0.5")]
    assert (f"{min(quiet):.3f}", f"{max(quiet):.3f}") == ("0.003", "0.005")
    assert max(quiet[1:]) < quiet[0]  # "fitted no worse than without dropout"
    shown = [median(rate, "loss")[-1] for rate in ("0.0", "0.25", "0.5", "0.75")]
    assert shown == sorted(shown) and f"{shown[3]:.2f}" == "0.16"
    assert quiet[2] / shown[2] == pytest.approx(0.1, abs=0.01)
    without = median("0.0", "val_loss")
    assert f"{without.min():.2f}" == "0.13" and f"{without[-1]:.2f}" == "0.14"
    for rate, expected in (("0.25", 0.105), ("0.5", 0.1), ("0.75", 0.125)):
        assert abs(median(rate, "val_loss")[50:] - expected).max() < 0.01


def test_the_accuracies_in_the_text_were_measured(measured):
    without, quarter, half = (np.array(measured["val_accuracy"][rate]) for rate in ("0.0", "0.25", "0.5"))
    assert f"against {100 * without.mean():.1f} %" in PAGE
    assert f"{100 * quarter.mean():.1f}" == f"{100 * half.mean():.1f}" == "97.2"
    strong = 100 * (np.array(measured["val_accuracy"]["0.75"]) - without)
    assert f"{strong.mean():.1f}" == "0.5"
    errors = []
    for accuracy in (quarter, half):
        gained = 100 * (accuracy - without)
        assert f"{gained.mean():.1f}" == "0.8"
        errors.append(f"{gained.std(ddof=1) / np.sqrt(len(gained)):.1f}")
    assert errors == ["0.1", "0.2"]
    for rate in ("0.0", "0.25", "0.5"):
        assert min(measured["quiet_accuracy"][rate]) == 1


def test_the_measurement_can_be_made_again(figures, measured):
    history = figures.train(0.5, seed=0, epochs=2)
    for key in ("loss", "quiet_loss", "val_loss"):
        low, _, high = measured["rates"]["0.5"][key]
        assert 0.9 * low[1] < history[key][1] < 1.1 * high[1]
    assert history["quiet_loss"][1] < history["loss"][1]


def test_the_first_dense_matrix_of_model_s_is_most_of_it():
    sizes = [w.size for w in model_s().get_weights()]
    assert f"{max(sizes) / sum(sizes):.0%}" == "84%"


def test_two_layers_without_a_seed_draw_different_masks():
    minicnn.utils.set_random_seed(0)
    ones = np.ones((4, 100), "f4")
    one, other = (layers.Dropout(0.5).build((100,)).forward(ones, training=True) for _ in range(2))
    assert (one != other).any()


class KeepsTheOthers(layers.Dropout):
    """Keeps what it should drop."""

    def draw(self, sample):
        return 2 * self.rate - super().draw(sample)


class OneMask(layers.Dropout):
    """Uses one mask for the whole batch."""

    def draw(self, sample):
        return np.repeat(sample(1), self.batch, axis=0)


class NeverDivides(layers.Dropout):
    """Forgets the division, forward and backward."""

    def forward(self, x, training=False):
        return super().forward(x, training) * (1 - self.rate if training else 1)

    def backward(self, dy):
        return super().backward(dy) * (1 - self.rate)


@pytest.mark.parametrize("kind", [KeepsTheOthers, OneMask, NeverDivides])
def test_what_the_gradient_check_cannot_see(kind):
    assert check_layer(kind(0.4), (5, 3)).ok
    y = kind(0.4, seed=0).build((100,)).forward(np.ones((100, 100), "f4"), training=True)
    images = y.mean(axis=1)  # of each image: 1, with a standard error of √(0.4 / 0.6 / 100)
    assert abs(y.mean() - 1) > 0.02 or images.std() < 0.01 < np.sqrt(0.4 / 0.6 / 100)


@pytest.mark.parametrize("draw", ["draw_masks", "draw_training"])
def test_no_title_of_a_figure_is_cut_off(figures, draw):
    figure = getattr(figures, draw)(*([] if draw == "draw_masks" else [figures.measured()]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in (axes.title, *axes.texts):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
