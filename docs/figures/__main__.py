"""Draw every figure of the docs again: ``python docs/figures``."""

import runpy
from pathlib import Path

for script in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    if script.stem != "style" and not script.stem.startswith("record_"):  # record_*.py train for minutes: by hand
        runpy.run_path(str(script), run_name="__main__")
