"""The programs with --device: on the GPU, and what they say where there is none."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minicnn
from minicnn.__main__ import main

EXAMPLE = Path(minicnn.__file__).parents[1] / "examples" / "baseline_sgd.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The notebook's layout, small: four noisy images of each of two shades in each of six folders."""
    root, rng = tmp_path_factory.mktemp("data") / "shades", np.random.default_rng(0)
    for folder in ("train1", "train2", "train3", "train4", "train5", "test"):
        for number, name in enumerate(("dark", "light")):
            (root / folder / f"{number:03d}_{name}").mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(120 * number, 120 * number + 100, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:03d}_{name}" / f"{i}.png")
    return root


@pytest.mark.usefixtures("gpu")
def test_the_command_line_trains_on_one_device_and_predicts_on_another(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(folders)]
    assert main(["train", *data, "--epochs", "2", "--batch-size", "4", "--output", "run", "--device", "gpu"]) == 0
    said = {}
    image = str(folders / "test" / "001_light" / "0.png")
    for device in ("gpu", "cpu", "auto"):
        capsys.readouterr()
        assert main(["evaluate", "run/best_model.safetensors", *data, "--device", device]) == 0
        assert main(["predict", "run/best_model.safetensors", image, "--device", device]) == 0
        said[device] = capsys.readouterr().out
    assert "Test accuracy" in said["gpu"] and said["gpu"] == said["cpu"]
    assert said["auto"].replace("Computing on the GPU.\n", "") == said["gpu"] != said["auto"]


@pytest.mark.usefixtures("gpu")
def test_the_example_runs_on_the_gpu_and_says_so(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["baseline_sgd.py", "--data", str(folders), "--epochs", "1", "--batch-size", "4", "--device", "gpu"]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "Test accuracy" in capsys.readouterr().out
    assert json.loads(Path("output/metrics.json").read_text())["facts"]["Device"] == "GPU"


@pytest.mark.parametrize(
    "command", ["train", "evaluate run.safetensors", "predict run.safetensors cat.png", "gradcheck"]
)
def test_without_cupy_a_line_says_what_to_install(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--device", "gpu"])
    assert stop.value.code == 2
    expected = "error: the GPU needs CuPy, which is not installed. Install it: pip install 'minicnn[gpu]'\n"
    assert capsys.readouterr().err == expected
    assert list(tmp_path.iterdir()) == []


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit):
        main(["predict", "no-such.safetensors", "cat.png", "--device", "auto"])
    out, err = capsys.readouterr()
    assert out == "Computing on the CPU.\n"
    assert re.match("error: no model file at no-such.safetensors", err)


def test_cupy_is_not_imported_before_somebody_asks_for_the_gpu():
    import subprocess

    program = "import sys, minicnn; minicnn.kernels.room; minicnn.set_device('cpu'); print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
