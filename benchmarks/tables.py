"""Results as Markdown tables, to read on a terminal or to paste into a page."""

from collections.abc import Callable, Iterable
from typing import Any

SHORT = {
    "torch": "PyTorch eager",
    "torch channels_last": "channels_last",
    "torch compiled": "compiled",
    "keras": "Keras",
}


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table whose columns are as wide as their widest cell.

    >>> print(table(["task", "ms"], [["a", "1.5"]]))
    | task | ms  |
    |------|-----|
    | a    | 1.5 |
    """
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *texts[1:]])


def spread(found: dict[str, float], scale: float = 1) -> str:
    """Return the median, and half the distance of the quartiles.

    >>> spread({"low": 0.0101, "median": 0.0123, "high": 0.0188}, 1e3)
    '12.3 ±4.35'
    """
    return f"{_digits(found['median'] * scale)} ±{_digits((found['high'] - found['low']) / 2 * scale)}"


def quartiles(found: dict[str, float]) -> str:
    """Return the median and, in brackets, the quartiles.

    >>> quartiles({"low": 0.331, "median": 0.352, "high": 0.41})
    '0.35 (0.33 to 0.41)'
    """
    low, median, high = (_digits(found[key]) for key in ("low", "median", "high"))
    return f"{median} ({low} to {high})"


def _digits(value: float) -> str:
    if value >= 100 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def comparison(results: list[dict[str, Any]]) -> str:
    """Return a row for each task: milliseconds of every program, and the ratios of minicnn to its peers."""
    return _compared(results, "ms", lambda found, _: spread(found, 1e3), "minicnn / ", quartiles)


def images_a_second(results: list[dict[str, Any]]) -> str:
    """Return a row for each task: images a second, and how many times those of its peers minicnn computes."""

    def inverse(ratio: dict[str, float]) -> str:
        return quartiles({"low": 1 / ratio["high"], "median": 1 / ratio["median"], "high": 1 / ratio["low"]})

    return _compared(results, "images/s", lambda found, N: f"{N / found['median']:,.0f}", "minicnn, times ", inverse)


def _compared(results: list[dict[str, Any]], unit: str, cell: Callable, word: str, ratio: Callable) -> str:
    programs, families = (
        {name: None for result in results for name in result[part]} for part in ("programs", "ratios")
    )
    head = ["task", "threads", *(f"{SHORT.get(p, p)}, {unit}" for p in programs), *(word + f for f in families)]
    rows = []
    for result in results:
        figures = [result["programs"].get(p) for p in programs]
        ratios = [result["ratios"].get(f) for f in families]
        cells = [cell(f, result["batch_size"]) if f else "" for f in figures] + [ratio(r) if r else "" for r in ratios]
        rows.append([result["title"], str(result["threads"]), *cells])
    return table(head, rows)


def memory(results: list[dict[str, Any]]) -> str:
    """Return a row for each task: the peak memory of every process, and minicnn's over that of the fastest PyTorch."""
    programs = {program: None for result in results for program in result["programs"]}
    rows = []
    for result in results:
        peaks = {program: found["peak"] for program, found in result["programs"].items()}
        fastest = result["ratios"].get("PyTorch", {}).get("program")
        ratio = f"{peaks['minicnn'] / peaks[fastest]:.2f} ({SHORT[fastest]})" if fastest else ""
        cells = [f"{peaks[p]:.0f}" if p in peaks else "" for p in programs]
        rows.append([result["title"], str(result["threads"]), *cells, ratio])
    return table(["peak memory", "threads", *(f"{SHORT.get(p, p)}, MB" for p in programs), "minicnn / PyTorch"], rows)


def growth(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return a row for each place on each axis."""
    flat = [result | {"title": f"{axis} {result['value']:g}"} for axis, line in results.items() for result in line]
    return comparison(flat)


def starts(rows: list[dict[str, Any]]) -> str:
    """Return a row for each program: seconds of the import, and until the first step is done."""
    cells = [[SHORT.get(r["program"], r["program"]), f"{r['import']:.2f}", f"{r['step']:.2f}"] for r in rows]
    return table(["start", "import, s", "import and first step, s"], cells)


def floors(found: list[dict[str, Any]]) -> str:
    """Return the peaks, and for each stage its time, its floor, and how many times the floor it takes."""
    parts = []
    for each in found:
        threads = f"{each['threads']} thread{'s' * (each['threads'] > 1)}"
        peaks = f"{each['flops'] / 1e9:.0f} GFLOP/s in registers, {each['bandwidth'] / 1e9:.1f} GB/s in a copy"
        rows = []
        for r in each["rows"]:
            bound = "operations" if r["flops"] / each["flops"] >= r["bytes"] / each["bandwidth"] else "bytes"
            live = "" if r["live"] is None else f"{r['live']:.2f}"
            figures = [r["seconds"] * 1e3, r["flops"] / 1e6, r["bytes"] / 1e6, r["floor"] * 1e3]
            times = f"{r['seconds'] / r['floor']:.1f}"
            rows.append([r["network"], r["stage"], r["way"], live, *map(_digits, figures), bound, times])
        head = ["network", "stage", "way", "live", "ms", "MFLOP", "MB", "floor, ms", "set by", "times the floor"]
        parts.append(f"{threads}: {peaks}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def whole(rows: list[dict[str, Any]]) -> str:
    """Return a row for each program, and the ratios of both."""
    parts = {
        "total": "total, s",
        "epochs": "epochs",
        "before": "before the first, s",
        "epoch": "each, s",
        "after": "evaluation, s",
        "same": "total at 17 epochs, s",
        "peak": "peak memory, MB",
    }
    cells = [[SHORT.get(r["program"], r["program"]), *(_digits(r[part]) for part in parts)] for r in rows]
    if len(rows) == 2:
        cells.append(["minicnn / Keras", *(f"{rows[0][part] / rows[1][part]:.2f}" for part in parts)])
    return table(["whole baseline", *parts.values()], cells)
