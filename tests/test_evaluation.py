"""Metrics against plain counting, figures against the data they show, the report as a browser reads it."""

import json
import struct
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import evaluation
from minicnn.errors import ArgumentError, DataError, DtypeError, MinicnnError, OutputError, ShapeError, TrainingError
from minicnn.evaluation import figures

HOSTILE = ["000_airplane", "<script>alert(1)</script>", '$\\frac{$ & "quoted"', "_a very long name that fits nowhere"]
HISTORY = {
    "loss": [2.0, 1.5, 1.2, 1.0, 0.9],
    "accuracy": [0.3, 0.45, 0.55, 0.62, 0.66],
    "val_loss": [1.9, 1.4, 1.1, 1.3, 1.2],
    "val_accuracy": [0.35, 0.5, 0.61, 0.6, 0.62],
    "learning_rate": [0.01, 0.01, 0.001, 0.001, 0.0001],
}


@pytest.fixture
def predictions():
    """Sixty labels of four classes, and probabilities that are right more often than not."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=60).astype(np.int32)  # (N,)
    scores = rng.random((60, 4)) + 0.5 * np.eye(4)[labels]  # (N, K)
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)  # (N, K)


def plain_metrics(labels, predicted):
    """Precision, recall and F1 from counts alone, class by class and averaged."""
    rows = {}
    for k in sorted(set(labels) | set(predicted)):
        hits = sum(1 for a, b in zip(labels, predicted, strict=True) if a == b == k)
        precision = hits / predicted.count(k) if k in predicted else 0.0
        recall = hits / labels.count(k) if k in labels else 0.0
        rows[k] = (precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)
    macro = [sum(row[i] for row in rows.values()) / len(rows) for i in range(3)]
    weighted = [sum(rows[k][i] * labels.count(k) for k in rows) / len(labels) for i in range(3)]
    hits = sum(a == b for a, b in zip(labels, predicted, strict=True))
    return [hits / len(labels), *macro, *weighted], rows


def pair_area(positive, scores):
    """The chance that a positive scores above a negative: what the area under a ROC curve is."""
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    return sum(pairs) / len(pairs)


def test_metrics_equal_plain_counting(predictions):
    labels, probabilities = predictions
    expected, rows = plain_metrics(labels.tolist(), probabilities.argmax(axis=1).tolist())
    metrics = evaluation.test_metrics(labels, probabilities)
    assert list(metrics) == [
        *("accuracy", "precision_macro", "recall_macro", "f1_macro"),
        *("precision_weighted", "recall_weighted", "f1_weighted"),
    ]
    assert list(metrics.values()) == pytest.approx(expected, abs=1e-12)
    for k, row in enumerate(evaluation.class_metrics(labels, probabilities)):
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(rows[k], abs=1e-12)
        assert row["support"] == labels.tolist().count(k)
        assert row["auc"] == pytest.approx(pair_area(labels == k, probabilities[:, k]), abs=1e-12)


def test_confusion_matrix_has_true_classes_in_rows(predictions):
    labels, probabilities = predictions
    counted = Counter(zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))
    matrix = evaluation.confusion_matrix(labels, probabilities)
    assert matrix.shape == (4, 4)
    assert {index: n for index, n in np.ndenumerate(matrix) if n} == counted


def test_absent_class_has_no_area_and_nothing_crashes(predictions):
    labels, probabilities = predictions
    labels = np.where(labels == 2, 1, labels)  # (N,)
    areas = [row["auc"] for row in evaluation.class_metrics(labels, probabilities)]
    assert areas[2] is None and all(0 <= area <= 1 for k, area in enumerate(areas) if k != 2)
    legend = evaluation.plot_roc(labels, probabilities, list("abcd")).axes[0].get_legend()
    assert legend.get_texts()[-1].get_text() == "undefined  c"
    assert evaluation.roc_curves([1, 1], [[0.2, 0.8], [0.6, 0.4]]) == [None, None]


@pytest.mark.parametrize(
    ("labels", "probabilities", "error", "words"),
    [
        ([0, 1], [[0.5, 0.5]], ShapeError, r"\(2,\) and \(1, 2\)"),
        ([[0], [1]], [[0.5, 0.5], [0.5, 0.5]], ShapeError, r"\(2, 1\)"),
        ([], np.zeros((0, 2)), ShapeError, "neither empty"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], DtypeError, "float64"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], DataError, "labels from 0 to 2"),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]], DataError, "labels from -1 to 0"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], DataError, "row 1.*nan"),
        ([0, 1], [[3.0, -2.0], [0.5, 0.5]], DataError, "row 0"),
        ([0, 1], [[0.9, 0.9], [0.5, 0.5]], DataError, "sum to 1"),
    ],
)
def test_bad_predictions_give_one_clear_line(labels, probabilities, error, words):
    with pytest.raises(error, match=words) as caught:
        evaluation.test_metrics(labels, probabilities)
    assert isinstance(caught.value, MinicnnError) and "\n" not in str(caught.value)


def test_history_figure_shows_curves_best_epoch_and_cuts():
    figure = evaluation.plot_history(HISTORY)
    for axes, key, best in zip(figure.axes, ("accuracy", "loss"), (0.61, 1.1), strict=True):
        curves = {line.get_label(): line.get_xydata() for line in axes.lines}
        np.testing.assert_array_equal(curves["Training"], list(enumerate(HISTORY[key], start=1)))
        np.testing.assert_array_equal(curves["Validation"], list(enumerate(HISTORY["val_" + key], start=1)))
        ring, cuts = axes.collections
        np.testing.assert_array_equal(ring.get_offsets(), [(3, best)])
        assert axes.get_title() == f"{best:.4f} in the best epoch"
        assert [x for ((x, _), _) in cuts.get_segments()] == [2.5, 4.5]  # after epochs 2 and 4
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Training", "Validation", "Best epoch (3)", "Learning-rate cut"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"val_loss": [1.9, 1.4, float("nan"), 1.3, 1.2]}, TrainingError, "val_loss = nan in epoch 3"),
        ({"loss": [1.0]}, ArgumentError, "lengths"),
        ({"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": [], "learning_rate": []}, ArgumentError, "one v"),
    ],
)
def test_bad_history_is_an_error(change, error, words):
    with pytest.raises(error, match=words):
        evaluation.plot_history(HISTORY | change)


def test_history_without_curves_is_an_error():
    with pytest.raises(ArgumentError, match="SimpleNamespace"):
        evaluation.plot_history(SimpleNamespace(history=HISTORY))
    with pytest.raises(ArgumentError, match=r"Received: \['loss'\]"):
        evaluation.plot_history({"loss": [1.0]})


def test_confusion_figure_prints_every_count(predictions):
    labels, probabilities = predictions
    axes = evaluation.plot_confusion_matrix(labels, probabilities, HOSTILE).axes[0]
    shown = {(round(y), round(x)): int(text.get_text()) for text in axes.texts for x, y in [text.get_position()]}
    assert shown == dict(np.ndenumerate(evaluation.confusion_matrix(labels, probabilities)))
    assert axes.get_yticklabels()[0].get_text() == "airplane"


def contrast(one, other):
    """WCAG's contrast ratio of two colours."""
    from matplotlib.colors import to_rgb

    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_figures_are_legible():
    counts = [(share, 100 - share) for share in range(0, 101, 5)]  # every shade of the matrix, in both its rows
    for wrong, right in counts:
        labels = np.repeat([0, 1], 100)  # (N,)
        predicted = np.repeat([0, 1, 0, 1], [right, wrong, wrong, right])  # (N,)
        figure = evaluation.plot_confusion_matrix(labels, np.eye(2)[predicted], ["a", "b"])
        cells = figure.axes[0].images[0]
        shades = cells.to_rgba(cells.get_array())  # (K, K, 4)
        for text in figure.axes[0].texts:
            column, row = text.get_position()
            assert contrast(text.get_color(), shades[row, column]) >= 4.5, (right, text.get_text())
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert min(contrast(colour, "white") for colour in (figures._INK, figures._MUTED)) >= 4.5
    assert min(contrast(hue, "white") for hue in figures._HUES) >= 3


def test_filters_are_stretched_one_by_one():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 5)) * [1, 1, 10, 0.1, 0]  # (KH, KW, Cin, F)
    pictures = [image.get_array() for image in evaluation.plot_filters(kernel).axes[0].images]
    assert len(pictures) == 5
    for picture, index in zip(pictures[:4], range(4), strict=True):
        assert (picture.min(), picture.max()) == (0, 1)
        ranks = kernel[..., index].ravel().argsort()  # (KH*KW*Cin,)
        assert np.array_equal(np.asarray(picture).ravel().argsort(), ranks)  # stretched, nothing moved
    assert np.all(pictures[4] == 0.5)  # a constant filter
    grey = evaluation.plot_filters(np.ones((5, 5, 8, 70))).axes[0].images
    assert len(grey) == 70 and grey[0].get_array().shape == (5, 5)
    with pytest.raises(ShapeError, match=r"\(3, 3\)"):
        evaluation.plot_filters(np.ones((3, 3)))
    with pytest.raises(DataError, match="NaN"):
        evaluation.plot_filters(np.full((3, 3, 3, 1), np.nan))


def test_mistakes_are_the_surest_ones_and_show_their_images():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 4, 3), np.uint8)  # (N, H, W, C)
    probabilities = [[0.6, 0.4], [0.2, 0.8], [0.999, 0.001], [0.3, 0.7], [1.0, 0.0]]
    figure = evaluation.plot_mistakes(images, [1, 0, 1, 1, 0], probabilities, ["0_cat", "1_dog"], count=2)
    shown = [(int(a.images[0].get_array()[0, 0, 0]), a.get_title(), a.get_xlabel()) for a in figure.axes]
    assert shown == [(2, "cat > 99%", "truth: dog"), (1, "dog 80%", "truth: cat")]
    none = evaluation.plot_mistakes(images[:1], [0], [[0.9, 0.1]], ["cat", "dog"])
    assert none.texts[0].get_text() == "No mistakes in 1 images"
    with pytest.raises(ShapeError, match=r"Received: \(5, 4, 4, 3\)"):
        evaluation.plot_mistakes(images, [0], [[0.9, 0.1]], ["cat", "dog"])
    with pytest.raises(ArgumentError, match="count expects an integer >= 1"):
        evaluation.plot_mistakes(images[:1], [0], [[0.9, 0.1]], ["cat", "dog"], count=0)
    with pytest.raises(ShapeError, match="expects 2 names"):
        evaluation.plot_mistakes(images[:1], [0], [[0.9, 0.1]], ["cat"])


class Page(HTMLParser):
    """Collects the tags and text of a page and insists that every element is closed in order."""

    VOID = ("meta", "link", "img", "source", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture
def run(predictions):
    """What a finished run hands to the report, with a stand-in for the model."""
    labels, probabilities = predictions
    kernel = np.random.default_rng(2).normal(size=(3, 3, 3, 16))  # (KH, KW, Cin, F)
    model = SimpleNamespace(
        get_weights=lambda: [kernel, np.zeros(16)],
        summary=lambda print_fn: print_fn("Model: <b> & 448 parameters"),
    )
    images = np.random.default_rng(3).integers(256, size=(60, 8, 8, 3), dtype=np.uint8)  # (N, H, W, C)
    return {
        "title": "A <run> & its $report",
        "model": model,
        "history": HISTORY,
        "labels": labels,
        "probabilities": probabilities,
        "images": images,
        "class_names": HOSTILE,
        "validation": (1.1, 0.61),
        "facts": {"Seed": 7, "Data <set>": "<i>digits</i> & more"},
    }


def test_report_is_complete_and_self_contained(tmp_path, run):
    path = evaluation.write_report(tmp_path / "new" / "folder", **run)
    pngs = [f"{name}.png" for name in ("confusion_matrix", "filters", "history", "mistakes", "roc")]
    names = sorted([*pngs, "history.json", "metrics.json", "report.html"])
    assert sorted(file.name for file in path.parent.iterdir()) == names
    assert all((path.parent / name).read_bytes().startswith(b"\x89PNG") for name in pngs)
    assert json.loads((path.parent / "history.json").read_text()) == HISTORY
    numbers = json.loads((path.parent / "metrics.json").read_text())
    assert numbers["test"] == evaluation.test_metrics(run["labels"], run["probabilities"])
    assert numbers["validation"] == {"loss": 1.1, "accuracy": 0.61} and numbers["facts"]["Seed"] == 7

    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and "$" not in text.replace("$report", "").replace("$\\frac{$", "")
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["img"] == 5 and not {"script", "b", "i", "run", "iframe"} & set(tags)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        for name in {"src", "srcset", "href"} & set(attributes):
            assert attributes[name].startswith("data:")
        assert tag != "img" or len(attributes["alt"]) > 20
    assert "url(" not in text and "@import" not in text
    words = " ".join(page.words)
    for expected in (
        "<script>alert(1)</script>",
        "airplane",
        '"quoted"',
        "Model: <b> & 448",
        "Data <set>",
        run["title"],
    ):
        assert expected in words
    assert "000_airplane" not in words and f"{numbers['test']['accuracy']:.2%}" in words


def test_report_pictures_declare_their_size_and_repeat(tmp_path, run):
    first = evaluation.write_report(tmp_path / "1", **run)
    second = evaluation.write_report(tmp_path / "2", **run)
    for file in first.parent.iterdir():
        assert file.read_bytes() == (second.parent / file.name).read_bytes(), file.name
    width, height = struct.unpack(">II", (first.parent / "roc.png").read_bytes()[16:24])
    assert f'width="{width // 2}" height="{height // 2}"' in first.read_text(encoding="utf-8")


def test_report_of_a_model_without_convolution_or_validation(tmp_path, run):
    run["model"].get_weights = lambda: [np.zeros(16)]
    run["history"] = {"loss": [1.0], "accuracy": [0.5]}
    run["labels"] = run["probabilities"].argmax(axis=1)  # (N,): no mistake
    run["labels"][run["labels"] == 3] = 0
    path = evaluation.write_report(tmp_path, **run)
    assert not (tmp_path / "filters.png").exists() and "undefined" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("images", np.zeros((3, 8, 8, 3), np.uint8), ShapeError),
        ("class_names", ["a", "b"], ShapeError),
        ("labels", np.full(60, 4), DataError),
        ("probabilities", np.full((60, 4), np.nan), DataError),
        ("history", HISTORY | {"loss": [1, 2, float("inf"), 1, 1]}, TrainingError),
        ("validation", (float("nan"), 0.5), DataError),
    ],
)
def test_bad_input_to_the_report_leaves_nothing_behind(tmp_path, run, name, value, error):
    with pytest.raises(error):
        evaluation.write_report(tmp_path / "out", **(run | {name: value}))
    assert not (tmp_path / "out").exists()


def test_unwritable_folder_is_an_output_error(tmp_path, run):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        evaluation.write_report(tmp_path / "file", **run)
