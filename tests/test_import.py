"""Importing the package is quick because what is heavy loads when it is needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import minicnn

HEAVY = {"numba", "scipy", "sklearn", "matplotlib", "PIL", "tqdm", "pooch", "safetensors", "platformdirs", "cupy"}


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, minicnn, minicnn.evaluation; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert not HEAVY & loaded


def test_the_public_names_are_there_and_the_version_is_the_projects():
    for name in minicnn.__all__:
        assert hasattr(minicnn, name), name
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == minicnn.__version__
