"""Compiled kernels on disk: found again, and never in the way when the disk is."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from numba.core import event
from minicnn.kernels import cpu

with event.install_recorder("numba:compile") as recorder:
    y = cpu.relu(np.array([-1.0, 2.0], np.float32)), cpu.relu(np.array([-1.0, 2.0]))
print(y[0].tolist() == y[1].tolist() == [0, 2], len(recorder.buffer) // 2)
"""


def start(folder):
    environment = os.environ | {"MINICNN_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(folder):
    """What the program printed: whether its results were right, and how many kernels it compiled."""
    process = start(folder)
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    return out.split()


def stored(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_kernel_is_compiled_once(tmp_path):
    assert run(tmp_path) == ["True", "2"]
    assert run(tmp_path) == ["True", "0"]
    assert len(list(tmp_path.iterdir())) == 1  # a folder for this processor and these versions


def test_processes_that_start_at_once(tmp_path):
    processes = [start(tmp_path) for _ in range(4)]
    for process in processes:
        out, error = process.communicate()
        assert (process.returncode, error, out.split()[0]) == (0, "", "True")
    run(tmp_path)  # compiles what one of them may have written over another's
    assert run(tmp_path) == ["True", "0"]


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert run(file)[0] == "True"
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_damaged_files_are_compiled_again(tmp_path, damage):
    run(tmp_path)
    for path in stored(tmp_path):
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": b"\x80\x04noise" * 50}[damage])
    assert run(tmp_path) == ["True", "2"]
    assert run(tmp_path) == ["True", "0"]
