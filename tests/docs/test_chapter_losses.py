"""The chapter on softmax and cross-entropy: the figure, the table of the real run, and the claims of the text."""

import json
from pathlib import Path

import numpy as np
import pytest

from minicnn.losses import SparseCategoricalCrossentropy

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "figures" / "measured" / "losses.json").read_text())
PAGE = " ".join((DOCS / "losses.md").read_text().split())


def test_the_bars_of_the_figure():
    names, cats = MEASURED["class_names"], [row["cats"][MEASURED["images"].index(3003)] for row in MEASURED["epochs"]]
    assert names[3] == "cat"
    p = np.array(cats)  # (epochs, K)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert 0.08 < p[0].min() < p[0].max() < 0.12
    assert names[p[1].argmax()] == "frog"
    assert p[1].max() == pytest.approx(0.56, abs=0.005)
    assert names[p[10].argmax()] == "cat"
    assert p[10].max() == pytest.approx(0.52, abs=0.005)
    assert (p[10] - np.eye(10)[3]).min() == pytest.approx(-0.48, abs=0.005)


def test_the_table_of_the_real_run():
    history = MEASURED["history"]
    for epoch in (1, 8, 9, 13):
        row = MEASURED["epochs"][epoch]["validation"]
        assert row["loss"] == pytest.approx(history["val_loss"][epoch - 1], abs=1e-5)
        assert row["accuracy"] == history["val_accuracy"][epoch - 1]
        accuracy, losses = (
            f"{100 * row['accuracy']:.1f} %",
            [row[key] for key in ("loss", "loss_of_right", "loss_of_wrong")],
        )
        assert f"| {epoch} | {accuracy} | {' | '.join(f'{number:.3f}' for number in losses)} |" in PAGE
    assert history["val_loss"][8] > history["val_loss"][7]
    assert history["val_accuracy"][8] > history["val_accuracy"][7]
    assert f"{MEASURED['epochs'][13]['validation']['share_of_worst_tenth']:.0%}" == "56%"


def test_the_losses_around_the_first_epoch():
    numbers = [MEASURED["history"]["loss"][0], MEASURED["history"]["val_loss"][0]]
    numbers += [MEASURED["epochs"][1]["training"]["loss"], MEASURED["epochs"][0]["validation"]["loss"]]
    assert [f"{number:.3f}" for number in numbers] == ["1.791", "1.474", "1.486", "2.312"]
    for number in numbers:
        assert f"{number:.3f}" in PAGE


def test_the_clip_of_probabilities_bounds_the_loss_and_stops_the_gradient():
    loss = SparseCategoricalCrossentropy()
    values = [loss(np.array([0]), np.array([[p, 1 - p]])) for p in (0.0, 1e-9, 9e-8)]
    assert [round(value, 3) for value in values] == [16.118] * 3
    assert loss(np.array([0]), np.array([[2e-7, 1.0]])) < values[0]


def test_float32_leaves_its_range_at_89():
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(np.float32(89)))
    assert np.isfinite(np.exp(np.float32(88)))


def test_smoothed_logits_stop_where_the_page_says_and_leave_the_entropy():
    K, s = 10, 0.1
    t = np.full(K, s / K)
    t[0] += 1 - s
    z = np.log(t)[None]  # (1, K): where p = t
    value, dz = SparseCategoricalCrossentropy(label_smoothing=s).value_and_gradient(z, np.array([0]))
    np.testing.assert_allclose(dz, 0, atol=1e-15)
    assert round(z[0, 0] - z[0, 1], 2) == round(np.log(K / s - K + 1), 2) == 4.51
    assert round(value.item(), 2) == round(-(t * np.log(t)).sum(), 2) == 0.50
    assert "which is 4.51 for ten classes" in PAGE and "-Σ t log t: 0.50 here" in PAGE
