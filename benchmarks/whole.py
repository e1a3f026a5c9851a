"""The whole baseline from start to end, images, training and evaluation: the example, and the same work in Keras.

python -m benchmarks.whole SCRIPT ... runs a script and says how long its `fit` took: the method is timed from outside.
"""

import json
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import answer

ROOT = Path(__file__).parents[1]
EPOCHS = 17  # of the notebook's run, to which both are brought: early stopping ends each run where it likes


def whole(data: str, epochs: int, programs: list[str]) -> list[dict[str, Any]]:
    """Run both, one after the other; return seconds before `fit`, of an epoch, and after it."""
    rows = []
    with tempfile.TemporaryDirectory() as output:
        scripts: dict[str, list] = {
            "minicnn": [ROOT / "examples" / "baseline_sgd.py", "--quiet", "--output", output],
            "keras": [ROOT / "benchmarks" / "keras_baseline.py"],
        }
        for program in (program for program in scripts if program in programs):
            words = ["benchmarks.whole", *scripts[program], "--data", data, "--epochs", epochs]
            started = time.perf_counter()
            found = answer(program, words)
            total = time.perf_counter() - started
            before, epoch = total - found["fit"] - found["after"], found["fit"] / found["epochs"]
            same = before + EPOCHS * epoch + found["after"]
            rows.append({"program": program, "total": total, "before": before, "epoch": epoch, "same": same} | found)
    return rows


def main() -> None:
    """Run a script with a clock around `fit`; print its seconds and epochs, those after it, and the peak of memory."""
    from benchmarks.worker import peak_memory

    script = sys.argv[1]
    if "keras" in script:
        from keras import Model
    else:
        from minicnn import Model
    fit: Any = Model.fit
    found: dict[str, Any] = {}

    def timed(self: Any, *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        history = fit(self, *arguments, **options)
        ended = time.perf_counter()
        found.update(fit=ended - started, ended=ended, epochs=len(history.history["loss"]))
        return history

    Model.fit = timed
    sys.argv = sys.argv[1:]
    runpy.run_path(script, run_name="__main__")
    found["after"] = time.perf_counter() - found.pop("ended")
    print(json.dumps(found | {"peak": peak_memory()}))


if __name__ == "__main__":
    main()
