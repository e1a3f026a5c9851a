"""`python -m benchmarks`: what is computed from the measurements, and that each part runs, on the smallest of work."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import benchmarks.__main__ as command
import minicnn
from benchmarks import floors, images, plot, processes, programs, rounds, starts, tables, tasks, whole
from benchmarks.tasks import Task

ROOT = Path(__file__).parents[1]

PHOTOGRAPHS = images.photographs()
SMALL = Task("train", "Model S", batch_size=2)


@pytest.fixture
def photographs(tmp_path):
    np.save(tmp_path / "photographs.npy", PHOTOGRAPHS)
    return str(tmp_path / "photographs.npy")


@pytest.fixture
def child(monkeypatch, capsys):
    """Run the `main` of a module that is meant for a process of its own in this one; return what it answers."""
    before = minicnn.get_num_threads()

    def call(module, *words):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
        module.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    yield call
    minicnn.set_num_threads(before)


@pytest.mark.parametrize("module", [tables, rounds])
def test_the_examples_in_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("size", [16, 32, 64])
def test_cuts_are_parts_of_the_photographs_and_labels_their_places(size):
    x, labels = images.cuts(PHOTOGRAPHS, 200, size)
    assert x.shape == (200, size, size, 3) and x.dtype == np.uint8
    assert set(labels.tolist()) == set(range(10))
    reach, photograph = 4 * size, PHOTOGRAPHS[labels[0] // 5]
    corners = np.argwhere((photograph[: 428 - reach, : 641 - reach] == x[0, 0, 0]).all(axis=2))
    found = [j for i, j in corners if (photograph[i : i + reach : 4, j : j + reach : 4] == x[0]).all()]
    assert any(5 * j // (640 - reach) == labels[0] % 5 for j in found)


@pytest.mark.parametrize(
    ("name", "weights"), [("Model S", 156_074), ("deeper", 896 + 9248 + 18496 + 36928 + 73856 + 147584 + 524544 + 2570)]
)
def test_networks_have_as_many_weights_as_counted_by_hand(name, weights):
    assert programs.network(minicnn, Task("train", name)).count_params() == weights


def test_widths_and_sizes_change_the_network():
    half = programs.network(minicnn, Task("train", "Model S", size=16, width=0.5))
    assert [layer.filters for layer in half.layers if isinstance(layer, minicnn.layers.Conv2D)] == [8, 16, 32]
    assert half.layers[-3].output_shape == (2 * 2 * 32,)


@pytest.mark.parametrize("program", tasks.PROGRAMS)
@pytest.mark.parametrize(
    "task", [SMALL, Task("predict", "Model S", 2), Task("convolution", "3x3 stride 2, 32 to 64", 2)]
)
def test_every_program_does_every_task(program, task):
    """Training brings the loss down, a prediction is a probability of each class."""
    if program == "torch compiled" or (program == "keras" and task.kind == "convolution"):
        pytest.skip("takes half a minute, or is not measured")
    pytest.importorskip({"minicnn": "minicnn", "keras": "tensorflow"}.get(program, "torch"))
    step = programs.prepare(program, task, *images.cuts(PHOTOGRAPHS, 2, 32), threads=1)
    results = [step() for _ in range(20)]
    if task.kind == "train":
        losses = [np.ravel(result)[0] for result in results]
        assert losses[-1] < losses[0] < 4
    if task.kind == "predict":
        assert results[0].shape == (2, 10)
        np.testing.assert_allclose(results[0].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", tasks.CONVOLUTIONS)
def test_dy_fits_the_output_of_each_convolution(name):
    x, dy = programs.maps(Task("convolution", name, 2))
    shape = tasks.CONVOLUTIONS[name]
    layer = minicnn.layers.Conv2D(shape.filters, shape.kernel, shape.strides, shape.padding).build(x.shape[1:])
    assert dy.shape[1:] == layer.output_shape


# Side by side


SECONDS = {  # wall and processor, in each round
    "minicnn": [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)],
    "torch": [(2.0, 8.0), (4.0, 8.0), (9.0, 8.0)],
    "torch compiled": [(9.0, 4.0)] * 3,
    "keras": [(1.0, 1.0)] * 3,
}


class Pretended:
    """A process whose seconds are given."""

    def __init__(self, program, task, threads, photographs):
        if program not in SECONDS:
            raise processes.ProgramError(program, "Traceback\nImportError: no such thing\n")
        self.program, self.repetitions, self.rounds = program, 1, iter(SECONDS[program])

    def measure(self, repetitions):
        return dict(zip(("wall", "cpu"), next(self.rounds), strict=True), peak=100.0)

    def end(self):
        assert next(self.rounds, None) is None


@pytest.mark.parametrize(
    ("threads", "clock", "fastest", "ratios", "keras"),
    [(1, "cpu", "torch compiled", [0.75, 1.0, 1.25], 4.0), (2, "wall", "torch", [5 / 12, 0.5, 0.5], 2.0)],
)
def test_ratios_are_to_the_fastest_mode_round_by_round(monkeypatch, capsys, threads, clock, fastest, ratios, keras):
    monkeypatch.setattr(rounds, "Process", Pretended)
    found = rounds.compare([*SECONDS, "torch channels_last"], SMALL, threads, 3, "")
    assert found["clock"] == clock
    ours = found["ratios"]["PyTorch"]
    assert ours["program"] == fastest
    assert [ours[key] for key in ("low", "median", "high")] == pytest.approx(ratios)
    assert found["ratios"]["Keras"]["median"] == keras
    assert "torch channels_last" not in found["programs"]
    assert capsys.readouterr().err == "left out: torch channels_last ended: ImportError: no such thing\n"


def test_minicnn_cannot_be_left_out(monkeypatch):
    monkeypatch.delitem(SECONDS, "minicnn")
    monkeypatch.setattr(rounds, "Process", Pretended)
    with pytest.raises(processes.ProgramError, match="no such thing"):
        rounds.compare(["minicnn"], SMALL, 1, 1, "")


def test_a_process_measures_and_one_that_fails_says_why(photographs, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS", 0.01)
    found = rounds.compare(["minicnn"], SMALL, 1, 2, photographs)["programs"]["minicnn"]
    assert 1e-5 < found["low"] <= found["median"] <= found["high"] < 1
    assert 30 < found["peak"] < 1000
    with pytest.raises(processes.ProgramError, match="minicnn ended: KeyError: 'nothing'"):
        processes.Process("minicnn", Task("train", "nothing"), 1, photographs)


def test_peak_memory_is_that_of_the_process_in_mb():
    program = (
        "import numpy as np; from benchmarks import worker; print(worker.peak_memory()); "
        "block = np.ones(100 << 20, np.uint8); print(worker.peak_memory())"
    )
    command = [sys.executable, "-c", program]  # a process of its own: this one has had its peak
    before, after = map(float, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split())
    assert before + 50 < after < before + 200


# The other parts


def test_a_start_takes_longer_than_its_import(child, photographs):
    found = child(starts, "minicnn", 1, photographs)
    assert 0 <= found["import"] < found["step"]


def test_floors_follow_from_the_peaks(child, photographs, monkeypatch):
    monkeypatch.setattr(floors, "NETWORKS", ["Model S"])
    monkeypatch.setattr(floors, "STEPS", 1)
    monkeypatch.setattr(floors, "TIMES", 1)
    monkeypatch.setattr(floors, "COPIED", 2**20)
    found = child(floors, 2, photographs)
    for row in found["rows"]:
        assert row["floor"] == max(row["flops"] / found["flops"], row["bytes"] / found["bandwidth"])
        assert row["seconds"] > 0
    assert sum(row["flops"] for row in found["rows"]) == 64 * 16_719_360  # as in test_profiler.py
    assert {row["stage"] for row in found["rows"]} >= {"conv2d + max_pooling2d", "dense"}


def test_the_whole_baseline_is_timed_in_parts_that_add_up(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("train1", "train2", "train3", "train4", "train5", "test"):
        for name in ("cat", "dog"):
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / folder / name / "1.png")
    (found,) = whole.whole(str(tmp_path), 2, ["minicnn"])
    assert found["epochs"] == 2
    assert found["before"] + 2 * found["epoch"] + found["after"] == pytest.approx(found["total"])
    assert found["same"] == pytest.approx(found["total"] + 15 * found["epoch"])
    assert min(found[part] for part in ("before", "epoch", "after")) > 0


# Tables and the picture


def compared(title, threads, **more):
    found = {"low": 0.009, "median": 0.010, "high": 0.012, "peak": 150.0}
    peer = {"low": 0.02, "median": 0.02, "high": 0.03, "peak": 300.0}
    ratios = {"PyTorch": {"program": "torch", "low": 0.4, "median": 0.5, "high": 0.625}}
    measured = {"programs": {"minicnn": found, "torch": peer}, "ratios": ratios}
    return {"title": title, "batch_size": 64, "threads": threads, "clock": "wall"} | measured | more


RESULTS = {
    "machine": {"processor": "Some Processor"},
    "train": [compared("a step", 1), compared("a step", 2)],
    "growth": {"batch size": [compared("b", 2, value=16), compared("b", 2, value=64)], "threads": [compared("b", 1)]},
}


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_tables_say_what_was_measured():
    head, _, row, _ = cells(tables.comparison(RESULTS["train"]))
    assert head == ["task", "threads", "minicnn, ms", "PyTorch eager, ms", "minicnn / PyTorch"]
    assert row == ["a step", "1", "10.0 ±1.50", "20.0 ±5.00", "0.50 (0.40 to 0.62)"]
    row = cells(tables.images_a_second(RESULTS["train"]))[2]
    assert row == ["a step", "1", "6,400", "3,200", "2.00 (1.60 to 2.50)"]
    assert cells(tables.memory(RESULTS["train"]))[2] == ["a step", "1", "150", "300", "0.50 (PyTorch eager)"]
    assert cells(tables.growth({"batch size": RESULTS["growth"]["batch size"]}))[3][0] == "batch size 64"


def test_the_table_of_the_whole_baseline_has_ratios():
    row = {"epochs": 17, "before": 2.0, "epoch": 3.0, "after": 1.0, "total": 54.0, "same": 54.0, "peak": 200.0}
    rows = [{"program": "minicnn"} | row, {"program": "keras"} | {name: 2 * value for name, value in row.items()}]
    assert cells(tables.whole(rows))[2:] == [
        ["minicnn", "54.0", "17", "2.00", "3.00", "1.00", "54.0", "200"],
        ["Keras", "108", "34", "4.00", "6.00", "2.00", "108", "400"],
        ["minicnn / Keras", *["0.50"] * 7],
    ]


@pytest.mark.parametrize("parts", [["train", "growth"], ["train"], ["growth"], []])
def test_the_picture_shows_what_was_measured(tmp_path, parts):
    plot.draw({name: RESULTS[name] for name in ["machine", *parts]}, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert "Some Processor" in text
    assert ("fastest mode" in text) == ("train" in parts)
    assert ("Growth with batch size" in text) == ("growth" in parts)
    assert "Growth with threads" not in text  # one place is no curve


# The command


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
    command.main()


def test_the_command_prints_and_writes_what_was_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "compare", lambda programs, task, threads, *_: compared(str(task), threads))
    run(monkeypatch, "--only", "train,growth", "--json", tmp_path / "r.json", "--plot", tmp_path / "r.png")
    out = capsys.readouterr().out
    assert "## train\n\n| task " in out and "## growth\n\n| task " in out
    written = json.loads((tmp_path / "r.json").read_text())
    threads = sorted({1, command.CORES})
    expected = [f"Model S, training step, batch {size}" for size in (16, 64, 256) for _ in threads]
    assert [row["title"] for row in written["train"]] == expected
    assert [row["value"] for row in written["growth"]["batch size"]] == [16, 64, 256, 1024]
    assert written["versions"]["minicnn"] == minicnn.__version__
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    run(monkeypatch, "--quick")
    assert capsys.readouterr().out.count("training step, batch 64") == 2 * len(threads)  # times and memory


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "train,fly"], "Received: fly"),
        (["--only", "whole"], "add --whole DATA"),
        (["--rounds", "0"], "expected an integer >= 1"),
        (["--plot", "picture"], "expected a file .png"),
    ],
)
def test_bad_arguments_end_in_one_line(monkeypatch, capsys, words, expected):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert errors.startswith("error: ") and expected in errors and errors.count("\n") == 1
