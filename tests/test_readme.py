"""What the README promises: its Python blocks run, its size is the package's."""

import contextlib
import io
import re
from pathlib import Path

import minicnn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_blocks_run():
    minicnn.utils.set_random_seed(0)
    names, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
            exec(block, names)
    losses = names["history"].history["loss"]
    assert losses[-1] < losses[0]
    assert out.getvalue().count("  ok") == 3  # dx, dkernel, dbias


def test_the_size_is_the_packages():
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "minicnn").rglob("*.py"))
    said = int(re.search(r"([\d,]+) lines", README)[1].replace(",", ""))
    assert said == lines
