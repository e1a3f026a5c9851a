"""The notebook `examples/baseline_sgd.ipynb`: made from `docs/notebook.md`, and executed again.

``python tests/test_notebook_file.py`` makes it. `jupytext` reads the text form; this file executes it, because the
jupytext command keeps random cell ids and times of execution, and a notebook made twice should be the same file.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from minicnn.kernels.compiler import cache_folder

ROOT = Path(__file__).parents[1]
TEXT, NOTEBOOK = ROOT / "docs/notebook.md", ROOT / "examples/baseline_sgd.ipynb"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")
TRAINED_BY = "history = model.fit("  # the cell after which a processor's rounding decides more than the last digits


def make() -> nbformat.NotebookNode:
    """Return the notebook without outputs: nothing in it but what the text form says."""
    notebook = jupytext.read(TEXT)
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"]})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02}"
    return notebook


def main(path: Path) -> None:
    """Write the executed notebook to `path`; it runs in that folder."""
    from nbclient import NotebookClient

    notebook = make()
    client = NotebookClient(
        notebook,
        record_timing=False,
        coalesce_streams=True,  # how prints arrive in pieces depends on the machine
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata.pop("language_info")  # has Python's version
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def value_after(words: str, notebook: nbformat.NotebookNode) -> float:
    text = "\n".join(printed(cell) for cell in code_cells(notebook))
    found = re.findall(re.escape(words) + r"\s+([\d.]+)", text)
    assert len(found) == 1, (words, found)
    return float(found[0])


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def run_offline(tmp_path_factory):
    """Run a Python file where there is neither CIFAR-10 nor a network; compiled kernels alone are at hand."""
    home = tmp_path_factory.mktemp("home")
    own = {name: str(home) for name in ("TMPDIR", "XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    own |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    own |= {"MINICNN_CACHE_DIR": str(cache_folder().parent), "PYTHONPATH": str(ROOT)}
    left_out = ("MINICNN_DATA", "no_proxy", "NO_PROXY")
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | own

    def run(folder, *words):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not list(home.glob("tmp*"))  # temporary folders are gone
        return done

    return run


@pytest.fixture(scope="module")
def executed(run_offline, tmp_path_factory):
    """Make the notebook again, in an empty folder."""
    folder = tmp_path_factory.mktemp("run")
    run_offline(folder, __file__, NOTEBOOK.name)
    assert [file.name for file in folder.iterdir()] == [NOTEBOOK.name]  # whatever it wrote it took away again
    return nbformat.read(folder / NOTEBOOK.name, as_version=4)


def test_the_notebook_is_the_text_form_executed(committed):
    expected = make()
    for ours, theirs in zip(committed.cells, expected.cells, strict=True):
        assert (ours.cell_type, ours.source, ours.metadata) == (theirs.cell_type, theirs.source, theirs.metadata)
    assert [cell.id for cell in committed.cells] == [cell.id for cell in expected.cells]
    assert committed.metadata == expected.metadata
    assert committed.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code_cells(committed)] == list(range(1, len(code_cells(committed)) + 1))


def test_every_code_block_of_python_is_a_cell(committed):
    blocks = re.findall(r"^```(\S+)", TEXT.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(blocks) == {"{code-cell}", "sh"}
    assert blocks.count("{code-cell}") == len(code_cells(committed))


def test_no_cell_needs_ipython(committed):
    """The cells run in plain Python, so that the code can be copied into a script."""
    for cell in code_cells(committed):
        compile(cell.source, cell.id, "exec")  # no magics
        assert "display(" not in cell.source
        assert "IPython" not in cell.source


def test_the_file_is_small_and_free_of_what_belongs_to_one_machine(committed):
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < 300_000
    text = "\n".join(cell.source + printed(cell) for cell in code_cells(committed))
    assert not re.search(r"(?<![\w.])/(home|tmp|work|usr|root|opt|var|mnt|Users)\b|[A-Z]:\\", text)
    assert str(ROOT) not in content
    assert "Warning" not in content


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_outputs_are_words_and_pictures_and_no_errors(which, request):
    for cell in code_cells(request.getfixturevalue(which)):
        for output in cell.outputs:
            if output.output_type == "stream":
                assert output.name == "stdout"  # a warning would come on stderr
                assert len(output.text.splitlines()) <= 45
            else:
                assert output.output_type in ("display_data", "execute_result")
                assert set(output.data) == {"text/plain", "image/png"}
        pictures = [output for output in cell.outputs if "data" in output]
        assert len(pictures) == ("plot_" in cell.source or "plt.subplots" in cell.source)
        assert bool(pictures) == bool(cell.metadata.get("mystnb", {}).get("image", {}).get("alt"))


def test_before_training_another_run_prints_the_same(committed, executed):
    """Words exactly; numbers as far as float32 holds them on any processor, errors of the gradient check in size."""
    cells = [cell.source for cell in code_cells(committed)]
    trained = next(i for i, source in enumerate(cells) if TRAINED_BY in source)
    assert trained > 10
    for ours, theirs in list(zip(code_cells(executed), code_cells(committed), strict=True))[:trained]:
        ours, theirs = printed(ours), printed(theirs)
        assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
        for new, old in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True):
            if "e-" in old:
                assert 0 <= float(new) < 1e-6
            else:
                # four printed digits, one unit of the last for rounding: sums over 64 images in another order
                # differ by some 1e-6 of their size
                assert float(new.replace(",", "")) == pytest.approx(float(old.replace(",", "")), rel=1e-4, abs=1.5e-4)


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_the_first_step_is_what_theory_says(which, request):
    notebook = request.getfixturevalue(which)
    assert value_after("of a guess", notebook) == pytest.approx(2.302585, abs=1e-4)
    measured, predicted = (value_after(word, notebook) for word in ("fall measured", "predicted"))
    assert 0.8 < measured / predicted < 1.2  # curvature over a step of 0.01
    checks = [printed(cell) for cell in code_cells(notebook) if "check_layer(" in cell.source and printed(cell)]
    right, wrong = checks
    assert "WRONG" not in right
    assert re.findall(r"^WRONG: (\w+)", wrong, re.MULTILINE) == ["dkernel"]


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_the_network_is_as_good_as_such_networks_are(which, request):
    """Bounds, not digits: after some hundred steps another processor's rounding acts like another seed.

    355 test images and a true accuracy of 98 % have a standard deviation of 0.7 %: 95 % is four of them away.
    """
    notebook = request.getfixturevalue(which)
    accuracy = value_after("Test accuracy", notebook) / 100
    assert 0.95 < accuracy < 1
    assert value_after("mistakes:", notebook) == round((1 - accuracy) * 355)
    training = next(printed(cell) for cell in code_cells(notebook) if TRAINED_BY in cell.source)
    losses = [float(loss) for loss in re.findall(r"val_loss (\S+)", training)]
    best = re.search(r"Restoring model weights from the end of the best epoch: (\d+)\.\n\Z", training)
    assert losses[int(best[1]) - 1] == min(losses)
    assert len(losses) == 30 or (len(losses) == int(best[1]) + 6 and "early stopping" in training)
    text = "\n".join(printed(cell) for cell in code_cells(notebook))
    for claim in ("rows sum to zero", "same weights", "the same in the three channels", "same probabilities"):
        assert f"{claim}: True\n" in text


def test_the_script_on_the_digits_prints_the_same_test_metrics(executed, run_offline, tmp_path):
    """On one machine the same seed gives the same bits, whether cells or a script run it."""
    script = run_offline(tmp_path, ROOT / "examples/baseline_sgd.py", "--quiet")
    metrics = re.compile(r"^Test (\w+) +(\S+)$", re.MULTILINE)
    text = "\n".join(printed(cell) for cell in code_cells(executed))
    assert metrics.findall(script.stdout) == metrics.findall(text)
    assert len(metrics.findall(text)) == 7


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else NOTEBOOK)
