"""The chapter on optimizers: what its figures show."""

from pathlib import Path

import numpy as np
import pytest

from minicnn.optimizers import SGD, Adam, RMSprop

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
PAGE = (FIGURES.parent / "optimizers.md").read_text()


def test_the_page_starts_where_the_figure_ends_up(figures):
    best, lowest, (flat, steep) = figures.minimum()
    written = "np.array([6.58620055, -6.87934967])"
    assert written in PAGE
    np.testing.assert_allclose(best, [6.58620055, -6.87934967], atol=1e-7)
    assert f"the minimum ({lowest:.4f})" in PAGE
    assert steep / flat == pytest.approx(58.4, abs=0.1)
    assert f"rates above 2/h = {2 / steep:.1f}" in " ".join(PAGE.split())
    assert (figures.ones_and_sevens()[0] > 0.5).all(axis=1).mean() > 0.5  # both pixels dark in most of the images
    assert len(figures.ones_and_sevens()[0]) == 361


def test_momentum_of_nine_tenths_comes_nearest_and_more_shoots_past(figures):
    best, *_ = figures.minimum()
    data = figures.ones_and_sevens()
    ends = [figures.path(SGD(figures.RATE, momentum))[-1] for momentum in figures.MOMENTA]
    losses = [figures.loss_and_gradient(end, *data)[0] for end in ends]
    assert [round(loss, 4) for loss in losses] == [0.3560, 0.3404, 0.3308, 0.5813]
    assert np.linalg.norm(ends[2] - best) < 0.2
    assert figures.path(SGD(figures.RATE, 0.99))[:, 0].max() > 3 * best[0]


def test_forty_two_steps_are_too_long_with_the_rate_inside_and_none_outside(figures):
    inside, outside = (figures.around_a_cut(make(0.01, 0.9)) for make in (SGD, figures.Outside))
    new = 0.01  # 0.001 / (1 - 0.9)
    np.testing.assert_allclose(inside[:60], outside[:60], rtol=1e-6)
    late = np.flatnonzero(inside[60:] > 1.1 * new) + 1
    assert (late[0], late[-1], len(late)) == (1, 42, 42)
    assert not (outside[60:] > 1.1 * new).any()
    assert "The shaded 42 steps" in PAGE


def test_adams_first_steps_are_of_the_rates_length_and_uncorrected_ones_far_too_long(figures):
    np.testing.assert_allclose(figures.first_steps(Adam(0.001), 10_000), 1, rtol=1e-5)
    uncorrected, rmsprop = (
        figures.first_steps(figures.Uncorrected(0.001), 10_000),
        figures.first_steps(RMSprop(0.001), 99),
    )
    assert (int(np.argmax(uncorrected)) + 1, round(uncorrected.max(), 1)) == (12, 6.6)
    assert (uncorrected > 2).sum() > 250 and uncorrected[-1] < 1.001
    assert round(rmsprop[0], 1) == 3.2 and rmsprop[20] < 1.1
    assert (round(1 - 0.9**12, 2), round(1 - 0.999**12, 3)) == (0.72, 0.012)
    assert "6.6 times too long" in PAGE and "the mean has 72 % of its factors together and the square 1.2 %" in PAGE


def test_half_of_a_weight_is_gone_after_as_many_steps_as_the_page_says():
    assert round(np.log(2) / (0.001 * 0.004), -3) == 173_000
    assert "173,000 steps" in PAGE
