"""Run the example on real CIFAR-10 folders and hold the run to the bounds of docs/baseline.md.

python .ci/baseline_gates.py DATA OUTPUT
"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

data, output = sys.argv[1], Path(sys.argv[2])
started = time.perf_counter()
command = [sys.executable, "-u", "examples/baseline_sgd.py", "--data", data, "--output", str(output)]
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
lines = []
for line in child.stdout:
    print(line, end="", flush=True)
    lines.append(line)
_, status, usage = os.wait4(child.pid, 0)
seconds, gigabytes = time.perf_counter() - started, usage.ru_maxrss / 1e6  # Linux counts in kB

if status:
    sys.exit(f"the example failed: exit status {os.waitstatus_to_exitcode(status)}")
with open(output / "history.csv", newline="") as file:
    epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
after_cut = [row["val_accuracy"] for row in epochs if row["learning_rate"] < epochs[0]["learning_rate"]]
test = json.loads((output / "metrics.json").read_text())["test"]

steps = {line.split(" ")[0] for line in lines if "/step - loss" in line}
gates = {
    "628 steps in every epoch": (steps, steps == {"628/628"}),
    "best val_loss in 0.88-0.95": (best := min(row["val_loss"] for row in epochs), 0.88 <= best <= 0.95),
    "validation accuracy >= 0.70 in the first epoch after the first cut": (
        after_cut[:1],
        bool(after_cut) and after_cut[0] >= 0.70,
    ),
    "test accuracy in 0.66-0.74": (test["accuracy"], 0.66 <= test["accuracy"] <= 0.74),
    "under 6 minutes": (f"{seconds:.0f} s", seconds < 360),
    "under 1.5 GB of memory": (f"{gigabytes:.2f} GB", gigabytes < 1.5),
}
for gate, (value, passed) in gates.items():
    print(f"{'pass' if passed else 'FAIL'}  {gate}: {value}")
sys.exit(0 if all(passed for _, passed in gates.values()) else 1)
