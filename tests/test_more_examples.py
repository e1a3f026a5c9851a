"""Model M and the residual network as a person runs them, on the digits: what they print and what they leave."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_example import offline  # noqa: F401 - a fixture

from minicnn import models

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(offline, tmp_path):  # noqa: F811
    """Run an example, or another script, as a process of its own, from an empty folder."""

    def call(name, *arguments):
        words = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]  # an absolute path stays
        return subprocess.run(words, cwd=tmp_path, env=offline, capture_output=True, text=True, timeout=300)

    return call


@pytest.mark.parametrize("augment", [True, False])
def test_model_m_trains_evaluates_and_reports(run, tmp_path, augment):
    finished = run("model_m_rmsprop", "--epochs", 1, "--output", "run", *["--augment"] * augment)
    assert finished.returncode == 0, finished.stderr
    assert "Total params: 815,914" in finished.stdout
    assert ("RandomTranslation" in finished.stdout) == augment
    assert re.search(r"^Test accuracy +\d+\.\d\d%$", finished.stdout, re.MULTILINE)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics
    title = "Model M with RMSprop" + " and augmentation" * augment
    assert title in (tmp_path / "run" / "report.html").read_text()
    model = models.load_model(tmp_path / "run" / "model.safetensors")
    assert model.count_params() == 815_914
    assert model.optimizer.get_config()["learning_rate"] < 1e-4  # at the end of the cosine


def test_model_m_goes_on_where_it_was_broken_off(run, tmp_path):
    whole = run("model_m_rmsprop", "--epochs", 2, "--augment", "--quiet", "--output", "whole")
    assert whole.returncode == 0, whole.stderr
    script = f"""
import runpy, sys, minicnn
from minicnn.callbacks import CSVLogger
def broken(self, epoch, logs=None):
    if epoch == 1:
        raise SystemExit(9)
    kept(self, epoch, logs)
kept, CSVLogger.on_epoch_end = CSVLogger.on_epoch_end, broken
sys.argv = ["x", "--epochs", "2", "--augment", "--quiet", "--output", "broken"]
runpy.run_path({str(EXAMPLES / "model_m_rmsprop.py")!r}, run_name="__main__")
"""
    (tmp_path / "break.py").write_text(script)
    broken = run(tmp_path / "break")
    assert broken.returncode == 9, broken.stderr
    again = run("model_m_rmsprop", "--epochs", 2, "--augment", "--quiet", "--output", "broken", "--resume")
    assert again.returncode == 0, again.stderr
    files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "broken")]
    assert files[0] == files[1]


def test_the_residual_network_shows_its_branches_and_trains(run, tmp_path):
    finished = run("residual_network", "--epochs", 2, "--output", "run")
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"add_2 \(Add\).*batch_normalization_\d+, batch_normalization_\d+", finished.stdout)
    found = re.search(r"^Test loss (\d+\.\d{4}), accuracy (\d+\.\d\d)%\. The model is in run$", finished.stdout, re.M)
    assert found
    model = models.load_model(tmp_path / "run" / "model.safetensors")
    assert [type(layer).__name__ for layer in model.layers].count("Add") == 3


@pytest.mark.parametrize("name", ["model_m_rmsprop", "residual_network"])
def test_a_mistake_is_one_line(run, name):
    for arguments in (["--data", "nowhere"], ["--epochs", "0"], ["--resume", "--output", "nothing"]):
        finished = run(name, *arguments)
        assert finished.returncode == 2
        assert finished.stderr.startswith("error: ") or "\nerror: " in finished.stderr
        assert len([line for line in finished.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert "Traceback" not in finished.stderr
