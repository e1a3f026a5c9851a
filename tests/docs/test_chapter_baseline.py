"""The chapter on the baseline: its tables, its ladder and its figures say the same."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = DOCS / "figures"
PAGE = (DOCS / "baseline.md").read_text()
ERRORS = json.loads((FIGURES / "measured" / "ladder.json").read_text())["errors"]


def test_our_table_is_what_the_runs_recorded(figures):
    runs = figures.load_runs()
    table = re.findall(
        r"^\| (\d) \| (\d+) / (\d+) \| ([\d.]+) \| (.*?) \|$", PAGE.split("Keras 2.15 on the same")[0], re.M
    )
    assert len(table) == len(runs) == 5
    for seed, stop, best, loss, rest in table:
        run = runs[seed]
        assert (int(stop), int(best)) == (len(run["val_loss"]), run["restored"] + 1)
        highest = max(run["val_accuracy"])
        expected = [run["val_accuracy"][run["restored"]], run["test_accuracy"], run["val_accuracy"][run["cuts"][0]]]
        cells = [f"{100 * value:.2f} %" for value in expected]
        cells.append(f"{100 * highest:.2f} %, {run['val_accuracy'].index(highest) + 1}")
        assert (loss, rest) == (f"{min(run['val_loss']):.4f}", " | ".join(cells))


def test_the_ten_runs_of_the_figure_fall_into_two_groups(figures):
    ours, keras = figures.our_seeds(), figures.keras_seeds()
    assert len(ours) == len(keras) == 5
    assert keras[2] == {"restored": 71.58, "test": 71.96, "after": 71.58}
    after = [seed["after"] for seed in ours + keras]
    assert (round(min(after), 1), round(max(after), 1)) == (71.1, 72.1)
    for key in ("restored", "test"):
        values = sorted(seed[key] for seed in ours + keras)
        assert values[6] < 70 < 71.5 < values[7]  # seven below, three above
    assert [seed["test"] for seed in ours + keras if seed["test"] > figures.NOTEBOOK] == [pytest.approx(72.41)]
    assert "one is above 72.29 % (72.41 %)" in PAGE
    assert round(100 * (0.72 * 0.28 / 10_000) ** 0.5, 2) == 0.45


def test_the_ladder_stands_far_inside_its_bounds():
    assert max(ERRORS["float64"].values()) < 1e-14
    above = [rung for rung, error in ERRORS["float32"].items() if error > ERRORS["Keras float32"][rung]]
    assert above == ["probabilities_batch0"]  # as the text of the figure says
    sizes = [f"{ERRORS[series]['probabilities_batch0']:.0e}" for series in ("Keras float32", "float32")]
    assert sizes == ["3e-07", "4e-07"]
    assert f"{ERRORS['Keras float32']['weights_after_12_steps']:.0e}" == "4e-03" and "are 4e-3 off" in PAGE


def test_the_ladder_is_computed_again(figures):
    errors = figures.measure()
    assert list(errors["float64"]) == list(ERRORS["float64"])
    assert max(errors["float64"].values()) < 1e-12  # its last digits are the processor's
    assert errors["Keras float32"] == pytest.approx(ERRORS["Keras float32"])
