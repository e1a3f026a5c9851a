"""The chapter on initialisation: its figure's measured numbers, and what the text says of them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.baseline import model_s
from minicnn.data.digits import load_digits

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def medians(figures):
    return figures.medians(json.loads(figures.RECORD.read_text()))


def test_the_record_says_what_made_it(figures):
    record = json.loads(figures.RECORD.read_text())
    assert record["command"] == "python docs/figures/initializers.py --data PATH"
    assert record["seeds"] == list(figures.SEEDS) == [0, 1, 2, 3, 4]  # as the caption says
    assert list(record["schemes"]) == list(figures.SCHEMES)
    assert all(len(run["z"]) == len(run["dz"]) == 5 for runs in record["schemes"].values() for run in runs)


def test_the_alternative_text_is_what_was_measured(medians):
    image = re.search(r"!\[(.*?)\]\(images/initializers_spread.svg\)", (DOCS / "initializers.md").read_text())[1]
    numbers = [
        float(number) for number in re.findall(r"\d[\d.]*(?:e-?\d+)?", image.replace("0.01", "").replace("0.2", ""))
    ]
    tiny, glorot, he, large = (medians[name] for name in ("sd 0.01", "Glorot", "He", "sd 0.2"))
    shown = [tiny["z"][4], glorot["z"][4], he["z"][4], large["z"][4], tiny["dz"][0], glorot["dz"][0], he["dz"][0]]
    for number, value in zip(numbers, shown, strict=True):
        assert 0.7 < number / value < 1.4  # they are rounded to one digit


def test_the_losses_in_the_text_were_measured(medians):
    assert f"{medians['sd 0.01']['loss']:.2f}" == f"{math.log(10):.2f}" == "2.30"
    assert f"{medians['sd 0.2']['loss']:.0f}" == "30"
    assert medians["sd 0.2"]["z"][4] > 10  # "the logits differ by tens"


def test_glorot_and_he_change_the_signals_by_less_than_six_per_layer(medians):
    for name in ("Glorot", "He"):
        for key in ("z", "dz"):
            ratios = np.diff(np.log(medians[name][key]))
            assert np.exp(np.abs(ratios).max()) < 6
    assert medians["sd 0.01"]["z"][0] / medians["sd 0.01"]["z"][4] > 6**4  # unlike the two others
    assert (np.diff(medians["He"]["dz"][:4]) > 0).all()  # "dz sinks towards the left under He's too"


def test_under_hes_variance_the_gradient_shrinks_as_the_fans_and_the_pooling_say(medians):
    page = " ".join((DOCS / "initializers.md").read_text().split())
    ratios = (np.array(medians["He"]["dz"])[:-1] / np.array(medians["He"]["dz"])[1:])[::-1]  # from right to left
    expected = np.sqrt([10 / 128, 128 / 4096, 2 / 4, 2 / 4])
    np.testing.assert_allclose(ratios, expected, rtol=0.15)
    for numbers in (expected, ratios):
        assert "by {:.2f}, {:.2f}, {:.2f} and {:.2f}".format(*numbers) in page


def test_the_measurement_can_be_made_again_on_digits(figures):
    (images, labels), _, _ = load_digits()
    images, labels = images[:64], labels[:64]
    minicnn.utils.set_random_seed(0)
    run = figures.spread(images, labels, figures.glorot, seed=0)
    fine = figures.spread(images, labels, figures.SCHEMES["sd 0.01"], seed=0)
    assert fine["loss"] == pytest.approx(math.log(10), abs=1e-3)
    assert run["z"][4] > 100 * fine["z"][4] and run["dz"][0] > 100 * fine["dz"][0]
    assert run["dz"][4] == pytest.approx(0.3, abs=0.02)  # p - onehot where p is 1/10: sqrt(0.1 * 0.9)


def test_the_figures_network_is_model_s(figures):
    chain = [layer for layer in figures.model_s(figures.glorot, seed=0) if layer.params]
    model = model_s()
    assert [w.shape for layer in chain for w in layer.params.values()] == [w.shape for w in model.get_weights()]
    model.set_weights([w for layer in chain for w in layer.params.values()])
    images = load_digits()[0][0][:8]
    x = images
    for layer in figures.model_s(figures.glorot, seed=0):
        x = layer.forward(x)
    p = model.predict(images)
    np.testing.assert_allclose(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), p, rtol=1e-4)


def test_max_pooling_halves_the_spread_of_the_gradient():
    pool = layers.MaxPooling2D(2).build((8, 8, 4))
    rng = np.random.default_rng(0)
    pool.forward(rng.standard_normal((2, 8, 8, 4)).astype(np.float32))
    dy = rng.standard_normal((2, 4, 4, 4)).astype(np.float32)
    assert np.square(pool.backward(dy)).mean() == pytest.approx(np.square(dy).mean() / 4, rel=1e-5)


def test_from_zeros_only_the_last_bias_moves():
    model = model_s()
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    model.compile(minicnn.optimizers.SGD(0.1))
    (images, labels), _, _ = load_digits()
    model.fit(images[:64], labels[:64], batch_size=32, epochs=3, verbose=0)
    assert [bool(w.any()) for w in model.get_weights()] == [False] * 9 + [True]
