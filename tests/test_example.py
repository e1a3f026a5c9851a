"""The example as a person runs it: one command, what it prints, and the files that it leaves."""

import base64
import csv
import itertools
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minicnn as keras
from minicnn import models
from minicnn.data import cifar10
from minicnn.data.digits import load_digits

ROOT = Path(keras.__file__).parents[1]
EXAMPLE = Path(__file__).parents[1] / "examples" / "baseline_sgd.py"
FIGURES = ["confusion_matrix.png", "filters.png", "history.png", "mistakes.png", "roc.png"]
FILES = sorted(
    [
        *FIGURES,
        "best_model.safetensors",
        "history.csv",
        "history.json",
        "metrics.json",
        "report.html",
        "state.safetensors",
    ]
)
KEYS = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
AVERAGES = [f"{score}_{average}" for average in ("macro", "weighted") for score in ("precision", "recall", "f1")]
RESULTS = re.compile(
    r"\s*Validation loss (?P<val_loss>\d+\.\d{4}), accuracy (?P<val_accuracy>\d+\.\d\d)%\n"
    + "".join(rf"Test {name} +(?P<{name}>\d+\.\d\d)%\n" for name in ("accuracy", *AVERAGES))
    + r"Model, history and figures are in (?P<folder>\S+); open (?P<report>\S+)\n"
)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The environment of a machine without CIFAR-10: an empty cache, and a proxy that no one listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{probe.getsockname()[1]}"
    left_out = {"minicnn_data", "no_proxy"}
    environment = {name: value for name, value in os.environ.items() if name.lower() not in left_out}
    environment |= dict.fromkeys(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"], proxy)
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return environment | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "PYTHONPATH": path}


def command(environment, folder, *arguments):
    """Run the example from `folder` as a process of its own."""
    words = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def digits_run(offline, tmp_path_factory):
    """Two epochs on the digits: the finished process and its output folder."""
    folder = tmp_path_factory.mktemp("digits")
    return command(offline, folder, "--epochs", 2, "--output", "run"), folder / "run"


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run the example inside this process, where a warning is an error: status, standard output, standard error."""
    monkeypatch.delenv("MINICNN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The notebook's layout, small: noisy red, green and blue images, six of each colour in each of six folders."""
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(5)
    for folder in ("train1", "train2", "train3", "train4", "train5", "test"):
        for channel, name in enumerate(("000_red", "001_green", "002_blue")):
            (root / folder / name).mkdir(parents=True)
            for i in range(6):
                image = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                image[..., channel] += 100
                Image.fromarray(image).save(root / folder / name / f"{i}.png")
    return root


@pytest.fixture
def binary(tmp_path, monkeypatch):
    """CIFAR-10's binary batches with 20 records each, the top half of an image brighter the higher its label."""
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    root, rng = tmp_path / "batches", np.random.default_rng(6)
    root.mkdir()
    for name in cifar10.BATCHES:
        records = rng.integers(0, 30, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        records[:, 1:].reshape(20, 3, 32, 32)[:, :, :16] += (records[:, 0] * 20)[:, None, None, None]  # (N, 3, 16, 32)
        (root / name).write_bytes(records.tobytes())
    return root


def results(printed):
    """The figures of the closing lines, as they were printed."""
    found = RESULTS.search(printed)
    assert found, printed
    return found.groupdict()


def averages(labels, predicted):
    """Precision, recall and F1 over the classes that occur, macro and weighted, from counts alone."""
    pairs, true, said = Counter(zip(labels, predicted, strict=True)), Counter(labels), Counter(predicted)
    rows = []
    for k in sorted(true | said):
        hits = pairs[k, k]
        rows.append((hits / max(said[k], 1), hits / max(true[k], 1), 2 * hits / (true[k] + said[k]), true[k]))
    macro = [sum(row[i] for row in rows) / len(rows) for i in range(3)]
    return macro + [sum(row[i] * row[3] for row in rows) / len(labels) for i in range(3)]


# On the embedded digits, without a network


def test_without_cifar10_it_says_so_loudly_and_still_ends_well(digits_run):
    process, _ = digits_run
    assert process.returncode == 0, process.stderr
    downloading, loud = process.stderr.splitlines()  # and nothing else: no warning, no progress bar in a file
    assert downloading.startswith("Downloading data from 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'")
    assert loud.startswith("CIFAR-10 IS NOT HERE: ")
    assert "digits instead: the figures that follow are not CIFAR-10's." in loud


def test_it_prints_the_network_and_its_156074_weights(digits_run):
    printed = digits_run[0].stdout
    assert printed.startswith('Model: "model_s"\n')
    assert re.search(r"^Total params: 156,074 \(609\.66 KB\)$", printed, re.M)
    counts = [int(count.replace(",", "")) for count in re.findall(r"\(None, .*\) +([\d,]+)$", printed, re.M)]
    assert counts == [0, 0, 448, 0, 4640, 0, 18496, 0, 0, 131200, 1290]


def test_it_prints_a_line_an_epoch_with_the_figures_of_the_history(digits_run):
    process, output = digits_run
    history = json.loads((output / "history.json").read_text())
    lines = re.findall(r"^17/17 - .*$", process.stdout, re.M)  # 1,085 digits in batches of 64
    assert len(lines) == len(history["loss"]) == 2
    for epoch, line in enumerate(lines):
        assert f"Epoch {epoch + 1}/2\n" in process.stdout
        assert line.partition(" - loss: ")[1:] == (
            " - loss: ",
            " - ".join([f"{history['loss'][epoch]:.4f}"] + [f"{key}: {history[key][epoch]:.4f}" for key in KEYS[1:]]),
        )


def test_every_file_is_there_and_nothing_else(digits_run):
    process, output = digits_run
    assert sorted(path.name for path in output.parent.rglob("*")) == sorted(["run", *FILES])
    assert results(process.stdout)["folder"] == "run"
    assert results(process.stdout)["report"] == os.path.join("run", "report.html")


def test_the_saved_model_gives_the_printed_figures_again(digits_run):
    process, output = digits_run
    printed = results(process.stdout)
    model = models.load_model(output / "best_model.safetensors")
    assert model.class_names == [str(digit) for digit in range(10)]
    _, (images, labels), (test_images, test_labels) = load_digits()

    p = model.predict(images)  # (N, K)
    loss = -np.log(p[np.arange(len(labels)), labels].astype(np.float64)).mean()
    assert float(printed["val_loss"]) == pytest.approx(loss, abs=6e-5)  # printed to four decimals
    assert printed["val_accuracy"] == f"{np.mean(p.argmax(axis=1) == labels) * 100:.2f}"
    assert min(json.loads((output / "history.json").read_text())["val_loss"]) == pytest.approx(loss, rel=1e-5)

    predicted = model.predict(test_images).argmax(axis=1)  # (N,)
    assert printed["accuracy"] == f"{np.mean(predicted == test_labels) * 100:.2f}"
    for name, value in zip(AVERAGES, averages(test_labels.tolist(), predicted.tolist()), strict=True):
        assert float(printed[name]) == pytest.approx(value * 100, abs=0.0051), name


def test_history_as_csv_and_as_json_agree(digits_run):
    _, output = digits_run
    history = json.loads((output / "history.json").read_text())
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(rows[0]) == sorted(["epoch", *KEYS])
    assert list(history) == KEYS
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert {key: [float(row[key]) for row in rows] for key in KEYS} == history
    assert history["learning_rate"] == [float(np.float32(0.01))] * 2
    assert history["loss"][1] < history["loss"][0]


def test_the_numbers_of_the_report_are_the_printed_ones(digits_run):
    process, output = digits_run
    printed, numbers = results(process.stdout), json.loads((output / "metrics.json").read_text())
    assert f"{numbers['validation']['loss']:.4f}" == printed["val_loss"]
    assert {name: f"{value:.2%}" for name, value in numbers["test"].items()} == {
        name: f"{printed[name]}%" for name in ("accuracy", *AVERAGES)
    }
    assert np.sum(numbers["confusion_matrix"]) == 355
    assert (numbers["facts"]["Training images"], numbers["facts"]["Seed"]) == (1085, 1)
    assert numbers["facts"]["Data"] == "digits"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture(digits_run, name):
    with Image.open(digits_run[1] / name) as image:
        image.load()
    assert image.format == "PNG"
    assert min(image.size) > 200
    assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 4  # not a blank sheet


def test_the_report_loads_nothing_and_shows_every_figure(digits_run):
    _, output = digits_run
    page, shown = (output / "report.html").read_text("utf-8"), []
    tags: Counter = Counter()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags[tag] += 1
            for name, value in attributes:
                if name in ("src", "srcset", "href", "data", "poster", "action", "xlink:href"):
                    assert value.startswith(("data:", "#")), value[:80]
                if (tag, name) == ("img", "src"):
                    shown.append(base64.b64decode(value.partition("base64,")[2], validate=True))

    Reader(convert_charrefs=True).feed(page)
    assert not tags.keys() & {"script", "iframe", "object", "embed"}
    assert "@import" not in page
    assert "url(" not in page
    assert tags["img"] == tags["figure"] == len(FIGURES)
    assert sorted(shown) == sorted((output / name).read_bytes() for name in FIGURES)


def test_quiet_prints_only_results_and_the_same_seed_gives_the_same_bytes(digits_run, offline, tmp_path):
    process, output = digits_run
    quiet = command(offline, tmp_path, "--epochs", 2, "--output", "run", "--quiet")
    assert quiet.returncode == 0, quiet.stderr
    assert RESULTS.fullmatch(quiet.stdout), quiet.stdout
    assert results(quiet.stdout) == results(process.stdout)
    assert quiet.stderr.startswith("CIFAR-10 IS NOT HERE: ")
    assert quiet.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    for name in ("best_model.safetensors", "history.json", "history.csv", *FIGURES):
        assert (tmp_path / "run" / name).read_bytes() == (output / name).read_bytes(), name


def test_a_model_has_one_file(digits_run, tmp_path):
    model = models.load_model(digits_run[1] / "best_model.safetensors")
    for i in range(8):
        model.save(tmp_path / f"{i}.safetensors")
    expected = (digits_run[1] / "best_model.safetensors").read_bytes()
    assert [(tmp_path / f"{i}.safetensors").read_bytes() == expected for i in range(8)] == [True] * 8


# On other data


@pytest.mark.parametrize("seed", [1, 2])
def test_image_folders_are_batched_as_in_the_notebook_and_learned(here, folders, seed):
    status, printed, errors = here("--data", folders, "--epochs", 4, "--batch-size", 4, "--seed", seed, "--output", "o")
    assert (status, errors) == (0, "")
    assert printed.startswith("Found 18 files belonging to 3 classes.\n" * 6)
    assert len(re.findall(r"^20/20 - ", printed, re.M)) == 4  # four folders of 18 images: 4 full batches and one of 2
    assert float(results(printed)["accuracy"]) > 90  # the colours cannot be confused
    assert sorted(path.name for path in Path("o").iterdir()) == FILES
    model = models.load_model("o/best_model.safetensors")
    assert model.class_names == ["000_red", "001_green", "002_blue"]
    assert model.count_params() == 155_171
    numbers = json.loads(Path("o/metrics.json").read_text())
    assert [row["name"] for row in numbers["classes"]] == ["red", "green", "blue"]
    assert (numbers["facts"]["Training images"], numbers["facts"]["Data"]) == (72, "colours")


def test_model_and_figures_are_those_of_the_best_epoch_not_of_the_last(here, folders, monkeypatch):
    apply, steps = keras.optimizers.SGD.apply, itertools.count(1)

    def forgetful(self, gradients, weights):
        apply(self, gradients, weights)
        if next(steps) > 20:  # in the second epoch
            for w in weights:
                w[...] = 0

    monkeypatch.setattr(keras.optimizers.SGD, "apply", forgetful)
    status, printed, errors = here("--data", folders, "--epochs", 2, "--batch-size", 4, "--output", "o")
    assert (status, errors) == (0, "")
    first, last = json.loads(Path("o/history.json").read_text())["val_loss"]
    assert last == pytest.approx(np.log(3))  # all three colours equally likely
    assert first < last
    assert results(printed)["val_loss"] == f"{first:.4f}"
    assert json.loads(Path("o/metrics.json").read_text())["facts"]["Epochs"] == "2, the best was 1"
    paths = sorted((folders / "train5").rglob("*.png"))
    p = models.load_model("o/best_model.safetensors").predict(np.stack([np.asarray(Image.open(q)) for q in paths]))
    loss = -np.log(p[np.arange(18), np.repeat(np.arange(3), 6)].astype(np.float64)).mean()
    assert first == pytest.approx(loss, rel=1e-5)


def test_binary_batches_by_the_environment_variable(here, binary, monkeypatch):
    monkeypatch.setenv("MINICNN_DATA", str(binary))
    status, printed, errors = here("--epochs", 1, "--batch-size", 16, "--output", "o")
    assert (status, errors) == (0, "")
    assert printed.startswith(f"Reading CIFAR-10 from {binary}.\n")
    assert len(re.findall(r"^5/5 - ", printed, re.M)) == 1  # 80 images, shuffled as a whole
    assert models.load_model("o/best_model.safetensors").class_names == cifar10.CLASS_NAMES
    assert json.loads(Path("o/metrics.json").read_text())["facts"]["Data"] == "CIFAR-10"


def test_a_second_run_with_another_seed_differs_and_replaces_the_files_of_the_first(here, folders):
    losses = []
    for seed, epochs in ((1, 2), (2, 1)):
        assert here("--data", folders, "--epochs", epochs, "--seed", seed, "--output", "o", "--quiet")[0] == 0
        losses.append(json.loads(Path("o/history.json").read_text())["loss"])
        assert len(Path("o/history.csv").read_text().splitlines()) == 1 + epochs
        assert sorted(path.name for path in Path("o").iterdir()) == FILES
    assert [len(loss) for loss in losses] == [2, 1]
    assert losses[0][0] != losses[1][0]


# Bad input: one line, status 2, no file


def truncated(folders, root):
    shutil.copytree(folders, root / "broken")
    path = root / "broken" / "train3" / "001_green" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    return "broken"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "missing"], "missing does not exist. Expected the image folders train1, train2,"),
        (["--data", truncated], f"{os.path.join('broken', 'train3', '001_green', '2.png')} is a broken image"),
        (["--epochs", 0], "--epochs: expected an integer >= 1. Received: 0"),
        (["--batch-size", 0], "--batch-size: expected an integer >= 1. Received: 0"),
        (["--seed", -1], "--seed: expected an integer >= 0. Received: -1"),
        (["--output", "file"], "file is a file."),
        (["--output", "file/below"], f"the folder {os.path.join('file', 'below')} cannot be written"),
    ],
)
def test_bad_input_ends_in_one_line(here, folders, tmp_path, arguments, expected):
    (tmp_path / "file").write_text("not a folder")
    arguments = [word(folders, tmp_path) if callable(word) else word for word in arguments]
    before = set(tmp_path.rglob("*"))
    status, _, errors = here("--data", folders, "--epochs", 1, "--quiet", *arguments)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("error: ")
    assert expected in errors
    assert set(tmp_path.rglob("*")) == before


def test_a_loss_that_is_no_number_leaves_no_model_and_no_report(here, folders, monkeypatch):
    class Hot(keras.optimizers.SGD):
        def __init__(self, learning_rate, momentum):
            super().__init__(1e6, momentum)

    monkeypatch.setattr(keras.optimizers, "SGD", Hot)
    status, printed, errors = here("--data", folders, "--epochs", 3, "--batch-size", 4, "--output", "o", "--quiet")
    assert (status, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("error: the training loss is no longer a number.")
    assert "Validation loss" not in printed
    assert {path.name for path in Path("o").iterdir()} <= {"history.csv"}


def test_the_shell_sees_status_2_and_no_traceback(offline, tmp_path):
    process = command(offline, tmp_path, "--data", "missing", "--output", "o")
    assert process.returncode == 2
    assert process.stdout == ""
    assert re.fullmatch(r"error: missing does not exist\. .*\n", process.stderr)
