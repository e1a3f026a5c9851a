"""The chapter on batch normalization: its figures' numbers, and the claims that no cell computes."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.gradcheck import check_layer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = " ".join((DOCS / "batch_normalization.md").read_text().split())


@pytest.fixture
def measured(figures):
    return figures.measured()


def medians(runs, key):
    return np.median([run[key] for run in runs], axis=0)


def test_the_record_says_what_made_it(figures, measured):
    assert measured["command"] == "python docs/figures/batch_normalization.py --measure"
    assert f"`{measured['command']}`" in PAGE
    assert measured["seeds"] == list(figures.SEEDS) == [0, 1, 2, 3, 4]  # as the captions say
    assert list(measured["depth"]["with"]) == list(measured["depth"]["without"]) == list(figures.SCHEMES)
    images, labels = figures.digits()[0]
    assert images.shape == (1085, 8, 8, 1)
    assert figures.STEPS == -(-len(labels) // 64) == 17


def test_the_alternative_text_of_the_signals_is_what_was_measured(measured):
    ends = {
        (how, key): [medians(runs, key)[at] for runs in measured["depth"][how].values()]
        for how in ("without", "with")
        for key, at in (("z", -1), ("dz", 0))
    }
    shown = [pick(ends[case]) for case in itertools.product(("without", "with"), ("z", "dz")) for pick in (min, max)]
    image = re.search(r"!\[([^]]*)\]\(images/batch_normalization_depth.svg\)", PAGE)[1]
    numbers = [float(number) for number in re.findall(r"\d[\d.]*(?:e-?\d+)?", image)]
    np.testing.assert_allclose(numbers, shown, rtol=0.12)  # they are rounded to one or two digits


def test_with_normalization_the_gradient_grows_on_the_way_down(measured):
    factors = [medians(runs, "dz")[0] / medians(runs, "dz")[5] for runs in measured["depth"]["with"].values()]
    assert f"by a factor of {min(factors):.0f} to {max(factors):.0f}." in PAGE


def test_the_accuracies_by_three_averages(figures, measured):
    steps = (figures.STEPS * np.arange(1, 21)).tolist()
    none, quick, slow = (np.median(measured["averages"][str(m)], axis=0) for m in figures.MOMENTA)
    assert steps[2] == 51 and steps[-1] == 340
    assert f"{100 * none[2]:.0f}" == f"{100 * quick[2]:.0f}" == "97"
    assert min(none[2:].min(), quick[2:].min()) >= 0.969
    at = steps.index(221)
    assert (slow[1 : at + 1] < 0.25).all() and slow[0] < 0.3 < slow[at + 1]
    assert f"{100 * slow[-1]:.0f}" == "83"


def test_the_losses_and_the_accuracies_by_the_rate(figures, measured):
    rates = measured["rates"]
    last = {how: np.median(found["loss"], axis=0)[-1] for how, found in rates.items()}
    assert (f"{last['Glorot']:.1f}", f"{last['He']:.2f}", f"{last['normalized']:.3f}") == ("1.1", "0.03", "0.003")
    assert last["normalized"] < last["He"] / 10
    median = {how: {rate: np.median(rates[how]["accuracy"][str(rate)]) for rate in figures.RATES} for how in rates}
    good = {how: [rate for rate, accuracy in found.items() if accuracy > 0.94] for how, found in median.items()}
    assert good["normalized"] == [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    assert good["He"] == [0.03, 0.1, 0.3]
    assert f"{100 * max(median['Glorot'].values()):.0f}" == "71"
    assert max(rates["normalized"]["accuracy"]["3.0"]) < 0.15  # "at a rate of 3 nothing is learned"


def test_the_measurement_can_be_made_again(figures, measured):
    history = figures.train("normalized", seed=0, rate=figures.SHOWN, epochs=1)
    assert history["loss"][0] == pytest.approx(measured["rates"]["normalized"]["loss"][0][0], rel=0.02)


def test_no_momentum_changes_a_training():
    def trained(momentum):
        minicnn.utils.set_random_seed(0)
        parts = [minicnn.Input((6,)), layers.Dense(5, "relu"), layers.BatchNormalization(momentum)]
        model = minicnn.Sequential([*parts, layers.Dense(3, "softmax")])
        model.compile(minicnn.optimizers.SGD(0.1))
        x = np.random.default_rng(0).standard_normal((32, 6)).astype("f4")
        model.fit(x, np.arange(32) % 3, batch_size=8, epochs=3, verbose=0)
        return [w.tobytes() for w in model.trainable_weights()], model.layers[2].state["moving_mean"].tobytes()

    (slow, averages), (quick, others) = trained(0.99), trained(0.5)
    assert slow == quick
    assert averages != others


def test_the_projection_of_the_figure_is_the_layers_gradient(figures):
    deviations, centred, xhat, along = figures.normalized()
    assert np.linalg.norm(xhat) == pytest.approx(figures.RADIUS)
    np.testing.assert_allclose([deviations.sum(), centred.sum(), xhat.sum()], 0, atol=1e-12)
    np.testing.assert_allclose(xhat, deviations / np.sqrt((deviations**2).mean()))
    with minicnn.using_floatx("float64"):
        layer = layers.BatchNormalization(epsilon=1e-12).build((1,))
    np.testing.assert_allclose(layer.forward(figures.X[:, None], training=True)[:, 0], xhat)
    dx = layer.backward(figures.DY[:, None])[:, 0]
    np.testing.assert_allclose(dx / layer.rstd, centred - along, atol=1e-9)
    assert f"x = ({', '.join(f'{number:g}' for number in figures.X)})" in PAGE


def test_the_factors_of_the_unbiased_variance():
    for M, said in ((64 * 32 * 32, "1.5e-5"), (64, "1.6 %")):
        excess = M / (M - 1) - 1
        assert said in (f"{excess:.1e}".replace("e-05", "e-5"), f"{100 * excess:.1f} %")
        assert said in PAGE


def test_a_bias_in_front_of_a_normalization_does_nothing_and_behind_a_relu_it_does():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((4, 6, 6, 3)), rng.standard_normal((4, 6, 6, 5))
    for activation in (None, "relu"):
        with minicnn.using_floatx("float64"):
            conv = layers.Conv2D(5, 3, padding="same", activation=activation).build((6, 6, 3))
            norm = layers.BatchNormalization().build((6, 6, 5))
        norm.forward(conv.forward(x), training=True)
        conv.backward(norm.backward(dy))
        largest = abs(conv.grads["bias"]).max()
        assert largest > 0.1 if activation else largest < 1e-12


def test_a_dy_of_ones_sees_nothing():
    with minicnn.using_floatx("float64"):
        layer = layers.BatchNormalization().build((4, 4, 3))
    layer.params["gamma"][:] = 2
    layer.forward(np.random.default_rng(0).standard_normal((2, 4, 4, 3)), training=True)
    dx = layer.backward(np.ones((2, 4, 4, 3)))
    np.testing.assert_allclose(np.append(dx, layer.grads["gamma"]), 0, atol=1e-12)


class Unbiased(layers.BatchNormalization):
    """Takes the variance with 1/(M-1), forward and backward."""

    def forward(self, x, training=False):
        x = self.check(x)
        self.mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2), ddof=1)
        self.rstd = (variance + self.epsilon) ** -0.5
        self.xhat = (x - self.mean) * self.rstd
        return self.params["gamma"] * self.xhat + self.params["beta"]

    def backward(self, dy):
        M = dy.size / dy.shape[-1]
        self.grads = {"gamma": (dy * self.xhat).sum(axis=(0, 1, 2)), "beta": dy.sum(axis=(0, 1, 2))}
        rest = self.grads["beta"] / M + self.xhat * self.grads["gamma"] / (M - 1)
        return self.params["gamma"] * self.rstd * (dy - rest)


class TurnedRound(layers.BatchNormalization):
    """Takes PyTorch's momentum for Keras's."""

    def forward(self, x, training=False):
        self.momentum = 1 - self.momentum
        return super().forward(x, training)


@pytest.mark.parametrize("kind", [Unbiased, TurnedRound])
def test_what_the_gradient_check_cannot_see(kind):
    assert check_layer(kind(), (4, 3, 2)).ok
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 2)).astype("f4")
    right, wrong = layers.BatchNormalization().build((4, 3, 2)), kind().build((4, 3, 2))
    y, other = right.forward(x, training=True), wrong.forward(x, training=True)
    moved = [layer.state["moving_mean"] for layer in (right, wrong)]
    assert abs(y - other).max() > 1e-3 or abs(moved[0] - moved[1]).max() > 1e-3


def test_steps_at_a_right_angle_never_shorten_the_weights():
    minicnn.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    conv = layers.Conv2D(3, 3, activation="relu").build((6, 6, 2))
    norm = layers.BatchNormalization(epsilon=1e-9).build((4, 4, 3))
    lengths = []
    for _ in range(20):
        x, dy = rng.standard_normal((8, 6, 6, 2)).astype("f4"), rng.standard_normal((8, 4, 4, 3)).astype("f4")
        lengths.append(sum(np.square(w, dtype=float).sum() for w in conv.params.values()))
        norm.forward(conv.forward(x), training=True)
        conv.backward(norm.backward(dy))
        for key, w in conv.params.items():
            w -= 0.01 * conv.grads[key]
    assert (np.diff(lengths) > 0).all()


@pytest.mark.parametrize("draw", ["draw_depth", "draw_averages", "draw_projection", "draw_rates"])
def test_no_title_of_a_figure_is_cut_off(figures, draw):
    figure = getattr(figures, draw)(*([] if draw == "draw_projection" else [figures.measured()]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in (axes.title, *axes.texts):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
