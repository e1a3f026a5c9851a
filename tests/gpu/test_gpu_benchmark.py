"""The benchmark on a GPU, as far as it can be tried without one: its programs run, its table is filled."""

import sys

import numpy as np
import pytest

from benchmarks import gpu as benchmark
from benchmarks.tasks import Task


def test_without_a_gpu_a_line_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: the GPU needs CuPy")


@pytest.mark.usefixtures("gpu")
def test_every_program_runs_or_says_why_not(on_card, monkeypatch, capsys):
    if not on_card:
        monkeypatch.setitem(sys.modules, "torch", None)
    tasks = [Task("train", "Model S", 4), Task("predict", "Model S", 4)]
    monkeypatch.setattr(benchmark, "TASKS", tasks)
    monkeypatch.setattr(benchmark, "WARM_UP", 3)
    monkeypatch.setattr(sys, "argv", ["gpu", "--rounds", "2", "--steps", "2"])
    benchmark.main()
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("| batch 4")]
    assert len(lines) == 2
    if not on_card:
        assert out.startswith("Stand-in, 2 GiB; ")
        assert lines[0].split("|")[2:4] == [" 2.000 ", " 2.000 "]  # 4 ms for two steps
        assert lines[1].split("|")[2] == " 2,000 "
        assert err.count("left out: torch") == 6


def test_the_ratio_is_taken_round_by_round():
    seconds = {"minicnn": np.array([1.0, 4.0, 3.0]), "torch": np.array([2.0, 2.0, 2.0]), "torch, recorded": np.ones(3)}
    assert benchmark.row(Task("train", "Model S", 64), seconds).endswith("| 3.00 (2.00-3.50) |")
