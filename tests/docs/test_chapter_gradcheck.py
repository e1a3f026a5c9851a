"""The numbers of the chapter on gradient checking that no cell of it computes."""

import re
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn.baseline import model_s
from minicnn.gradcheck import check_model, tie_free

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gradcheck.md").read_text()


@pytest.fixture
def record(figures):
    return figures.json.loads(figures.RECORD.read_text())


def at(record, dtype, which, h):
    return record[dtype][which][int(np.argmin(abs(np.log(np.array(record["h"]) / h))))]


def test_the_three_vs_have_their_lowest_points_where_the_page_says(figures):
    h = {name: figures.STEPS[np.argmin(errors)] for name, errors in figures.smooth().items()}
    assert 1e-9 < h["one-sided"] < 1e-7
    assert 1e-7 < h["central"] < 1e-4
    assert 1e-4 < h["Richardson"] < 1e-2
    errors = figures.smooth()
    assert errors["Richardson"].min() < 1e-12 < errors["central"].min() < 1e-10 < errors["one-sided"].min()
    large = figures.STEPS > 1e-3
    np.testing.assert_allclose(errors["central"][large], figures.STEPS[large] ** 2 / 6, rtol=0.01)


def test_model_s_as_the_page_and_the_caption_say(figures, record):
    assert record["command"] == figures.COMMAND
    assert figures.COMMAND in PAGE
    assert f"{record['entries']:,} entries" in PAGE
    assert f"{at(record, 'float64', 'median', 1e-5):.0e}" == "7e-10"
    assert f"{at(record, 'float64', 'worst', 1e-5):.0e}" == "5e-03"
    assert min(record["float64"]["median"]) == at(record, "float64", "median", 1e-4) == pytest.approx(1e-10, rel=0.1)
    assert min(record["float64"]["worst"]) == at(record, "float64", "worst", 3.2e-6) < 1e-6
    assert at(record, "float64", "above 1e-6", 3.2e-6) == 0
    assert at(record, "float64", "above 1e-6", 1e-6) == 8
    assert min(record["float32"]["median"]) > 4e-3
    assert min(record["float32"]["worst"]) > 0.5


def test_the_checker_does_better_than_any_single_step(record):
    minicnn.utils.set_random_seed(0)
    worst = check_model(model_s(), max_entries=8).worst
    assert worst < 1e-7 < min(record["float64"]["worst"])
    assert record["checker"]["worst"] < 1e-7


def test_a_few_of_the_recorded_errors_come_out_again(figures, record, monkeypatch):
    monkeypatch.setattr(figures, "ENTRIES", 4)
    monkeypatch.setattr(figures, "STEPS", np.array([1e-10, 3.2e-6]))
    errors = figures.errors_of_model_s("float64")
    assert errors.shape == (2, 44)  # ten weights and the images
    assert 0.2 < np.median(errors[0]) / at(record, "float64", "median", 1e-10) < 5
    assert errors[1].max() < 1e-6


def test_the_kink_that_is_drawn(figures):
    texts = [text.get_text() for axes in figures.draw_kink().axes for text in axes.texts]
    slopes = re.findall(r"slope over \S+: ([\d.]+)", " ".join(texts))
    assert slopes == ["0.69", "0.89"]
    assert "slopes 0.69 and 0.89" in PAGE


def test_the_kink_of_the_exercise_lies_exactly_on_an_input():
    rng = np.random.default_rng(0)
    assert sorted(tie_free((1, 3), rng).ravel()) == [-0.625, -0.125, 0.375]
    assert 0.375 not in tie_free((1, 4), rng)


def test_the_planted_bugs_are_as_many_as_it_says():
    text = (ROOT / "tests" / "test_gradcheck.py").read_text()
    bugs = re.search(r"^BUGS = \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)[1]
    count = len(re.findall(r'^    "', bugs, re.MULTILINE))
    assert f"a list of {count} mistakes" in PAGE
    assert f"each of the {count} [planted bugs]" in PAGE


def test_four_bugs_of_eleven_pass_where_dy_is_one():
    cells = re.findall(r"^```\{code-cell\}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    names = {"np": np}
    exec(next(cell for cell in cells if "gallery = {" in cell), names)
    passing = [
        name
        for name, bug in names["gallery"].items()
        if names["error"](bug(names["ones"]), names["slopes"]["ones"]) < 1e-6
    ]
    assert passing == [
        "(no bug)",
        "dy rolled by a pixel",
        "dy transposed",
        "dy mixed between images",
        "dy averaged over pixels",
    ]
    assert len(names["gallery"]) == 12
    for name, bug in names["gallery"].items():
        passes = names["error"](bug(names["random"]), names["slopes"]["random"]) < 1e-6
        assert passes == (name == "(no bug)"), name
