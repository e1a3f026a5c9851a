"""The chapter on evaluation: the recorded predictions agree with themselves and with what the page says."""

import json
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
RUN = json.loads((DOCS / "figures" / "measured" / "evaluation.json").read_text())
PAGE = (DOCS / "evaluation.md").read_text()
COUNTS = np.array(RUN["confusion_matrix"])  # (K, K)


def test_the_caption_names_the_run():
    assert RUN["seed"] == 1
    assert COUNTS.sum() == 10_000 and (COUNTS.sum(axis=1) == 1000).all()
    assert np.trace(COUNTS) == 6842 and "68.42 % lie on the diagonal" in PAGE
    seeds = json.loads((DOCS / "figures" / "measured" / "seeds.json").read_text())["runs"]
    assert RUN["test"]["accuracy"] == seeds["1"]["test_accuracy"] == 0.6842


def test_metrics_of_the_classes_follow_from_the_table():
    for k, row in enumerate(RUN["classes"].values()):
        assert row["recall"] == pytest.approx(COUNTS[k, k] / COUNTS[k].sum())
        assert row["precision"] == pytest.approx(COUNTS[k, k] / COUNTS[:, k].sum())
    precision = np.diag(COUNTS) / COUNTS.sum(axis=0)
    assert RUN["test"]["precision_macro"] == pytest.approx(precision.mean())
    for name in ("precision", "recall", "f1"):  # the page says so: the classes are equally large
        assert RUN["test"][f"{name}_weighted"] == pytest.approx(RUN["test"][f"{name}_macro"])
    assert RUN["test"]["recall_macro"] == pytest.approx(RUN["test"]["accuracy"])


def test_the_largest_confusions_are_the_ones_that_the_page_names():
    names = list(RUN["classes"])
    mistakes = COUNTS - np.diag(np.diag(COUNTS))
    order = np.argsort(-mistakes, axis=None)[:2]
    pairs = [(names[i], names[j], int(mistakes[i, j])) for i, j in zip(*np.unravel_index(order, (10, 10)), strict=True)]
    assert pairs == [("cat", "dog", 223), ("automobile", "truck", 123)]
    assert "223 cats are called dogs, 103 dogs cats" in PAGE and mistakes[5, 3] == 103
    called = dict(zip(names, COUNTS.sum(axis=0).tolist(), strict=True))
    assert (called["cat"], called["bird"]) == (714, 1178)
    assert "for 714 images instead of 1,000" in PAGE and "for 1,178 images" in PAGE


def test_the_curves_are_of_the_largest_area_and_the_two_smallest():
    areas = {name: row["auc"] for name, row in RUN["classes"].items()}
    order = sorted(areas, key=areas.get)
    assert order[:2] == ["cat", "bird"] and order[-1] == "ship"
    assert [f"{areas[name]:.3f}" for name in ("ship", "bird", "cat")] == ["0.979", "0.918", "0.896"]
    for name, (x, y) in RUN["roc"].items():  # 60 points carry the area of them all
        assert np.trapezoid(y, x) == pytest.approx(areas[name], abs=5e-3)


def test_the_model_is_a_little_too_sure():
    bins = [row for row in RUN["bins"] if row["images"] >= 50]
    assert all(row["accuracy"] < row["confidence"] for row in bins)
    assert sum(row["images"] for row in RUN["bins"]) == 10_000
    hits = sum(row["images"] * (row["accuracy"] or 0) for row in RUN["bins"])
    assert hits == pytest.approx(6842)
    filled = [row for row in RUN["bins"] if row["images"]]
    error = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in filled) / 10_000
    assert round(error, 2) == 0.03 and "by 3 points on average" in PAGE
