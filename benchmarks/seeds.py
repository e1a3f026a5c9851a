"""Train the baseline once a seed and print the table of docs/baseline.md.

python benchmarks/seeds.py --data PATH [--seeds 1 2 3 4 5] [--output runs]
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Train with each seed, then print the table."""
    parser = argparse.ArgumentParser(description="Train the baseline once a seed and print a table of the results.")
    parser.add_argument("--data", required=True, metavar="PATH", help="as for examples/baseline_sgd.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="FOLDER", help="a folder a seed goes here")
    arguments = parser.parse_args()
    example = Path(__file__).parents[1] / "examples" / "baseline_sgd.py"
    rows = []
    for seed in arguments.seeds:
        output = arguments.output / str(seed)
        command = [sys.executable, example, "--data", arguments.data, "--seed", str(seed), "--output", output]
        subprocess.run(command, check=True)
        rows.append(row(seed, output))
    head = "seed | stop / best epoch | best val_loss | val acc at best | test acc"
    print(f"\n| {head} | val acc after the cut | highest val acc, epoch |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def row(seed: int, output: Path) -> str:
    """Return a line of the table from what the example wrote."""
    with open(output / "history.csv", newline="") as file:
        epochs = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
    test = json.loads((output / "metrics.json").read_text())["test"]["accuracy"]
    best = min(range(len(epochs)), key=lambda i: epochs[i]["val_loss"])
    after = [line["val_accuracy"] for line in epochs if line["learning_rate"] < epochs[0]["learning_rate"]]
    cut = f"{after[0]:.2%}" if after else "no cut"
    found = epochs[best]
    highest, place = max((line["val_accuracy"], i + 1) for i, line in enumerate(epochs))
    return (
        f"| {seed} | {len(epochs)} / {best + 1} | {found['val_loss']:.4f} | {found['val_accuracy']:.2%} "
        f"| {test:.2%} | {cut} | {highest:.2%}, {place} |"
    )


if __name__ == "__main__":
    main()
