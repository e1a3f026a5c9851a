"""The scripts behind the figures, as the tests of the chapters ask them for numbers."""

import importlib.util
import sys
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[2] / "docs" / "figures"


@pytest.fixture(scope="module")
def script():
    """Give a function that loads docs/figures/`name`.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FIGURES))  # the scripts share style.py, and some each other

        def load(name):
            spec = importlib.util.spec_from_file_location(f"figures_{name}", FIGURES / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module

        yield load
        for path in FIGURES.glob("*.py"):
            sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def figures(request, script):
    """The script of the chapter that the test's file is named after."""
    return script(request.module.__name__.removeprefix("test_chapter_"))
