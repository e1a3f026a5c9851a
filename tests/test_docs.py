"""What the docs promise: every code block runs, every figure has a text and a script, every link and number holds."""

import contextlib
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import minicnn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
BLOCK = re.compile(
    r"^```(?:python|\{code-cell\}[^\n]*)\n"
    r"(?:---\n.*?^---\n|(?::\w+:[^\n]*\n)+)?"  # a cell's options
    r"(.*?)^```",
    re.DOTALL | re.MULTILINE,
)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.DOTALL | re.MULTILINE)
CHAPTERS = ("activations", "augmentation", "base", "baseline", "batch_normalization", "callbacks", "conv", "dense")
CHAPTERS += ("dropout", "evaluation", "gradcheck", "initializers", "kernels", "losses", "optimizers", "pooling")


def code(page):
    """Return the page's Python as one text in which each line has the number that it has in the page."""
    text, lines = page.read_text(), []
    for block in BLOCK.finditer(text):
        lines += [""] * (text[: block.start(1)].count("\n") - len(lines))
        lines += block[1].splitlines()
    return "\n".join(lines)


def prose(page):
    return FENCE.sub("", page.read_text())


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in READ if BLOCK.search(page.read_text())], ids=name)
def test_every_code_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page leaves nothing behind
    monkeypatch.setenv("MPLBACKEND", "Agg")
    minicnn.utils.set_random_seed(0)
    block = compile(code(page), name(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(block, {"__name__": "__main__"})
    plt.close("all")
    assert out.getvalue()
    assert not list(tmp_path.iterdir())


def test_there_is_no_block_of_another_kind():
    known = {"sh", "text", "python", "{code-cell}", "{toctree}", "{eval-rst}"}
    for page in READ:
        kinds = set(re.findall(r"^```(\S+)[^\n]*\n.*?^```", page.read_text(), re.DOTALL | re.MULTILINE))
        assert kinds <= known, name(page)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_shows_its_source_runs_its_check_and_ends_with_exercises(chapter):
    text = (DOCS / f"{chapter}.md").read_text()
    source = re.search(r"^Source: `minicnn/\S+`", text, re.MULTILINE)
    assert source
    assert list((ROOT / "minicnn").rglob(f"{chapter}*")), "a chapter is named as its source file"
    shown = re.findall(r"^:::\{beside\} (.+)$", text, re.MULTILINE)
    assert any(chapter in part for names in shown for part in names.split(".")), shown
    for heading in ("## The check", "## Exercises", "## Sources"):
        assert re.search(f"^{heading}$", text, re.MULTILINE), heading
    assert "{code-cell}" in text.split("## The check")[1]
    exercises = text.split("## Exercises")[1]
    solutions = exercises.count("<details><summary>Solution</summary>")
    assert 2 <= solutions == len(re.findall(r"^\*\*\d\. ", exercises, re.MULTILINE))
    assert "{code-cell}" in exercises


def test_every_figure_has_a_text_a_script_and_a_page():
    scripts = "".join(path.read_text() for path in (DOCS / "figures").glob("*.py"))
    used = set()
    for page in READ:
        text = page.read_text()
        shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
        shown += [(alt, source) for source, alt in re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]+)"', text)]
        assert text.count("<img") + text.count("![") == len(shown), name(page)
        for alt, source in shown:
            assert len(alt) >= 30, f"{name(page)}: {source} needs a text that says what is to be seen"
            used.add((page.parent / source).resolve())
    images = set((DOCS / "images").iterdir())
    assert used == images
    for image in images:
        assert image.name in scripts or image.name in (ROOT / "CONTRIBUTING.md").read_text(), image.name


@pytest.mark.parametrize("page", READ, ids=name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose(page)):
        target, _, heading = "".join(target).partition("#")
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name(page)}: {target}"
        if heading:
            assert heading in anchors(path), f"{name(page)}: {target}#{heading}"


def anchors(page):
    """Return the anchors that a code host, and MyST, make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_nothing_is_fetched_from_the_network():
    for page in PAGES:
        assert not re.search(r'(?:src|href)="https?:|!\[[^\]]*\]\(https?:', page.read_text()), name(page)
