"""The directive that quotes the live source: what is gone is a warning, and a warning fails the build."""

from pathlib import Path

import pytest
from sphinx.testing.util import SphinxTestApp

BACKWARD = "minicnn.layers.conv.Conv2D.backward"
CONF = 'extensions = ["myst_parser", "beside"]\nmyst_enable_extensions = ["colon_fence"]'


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Give a function that builds one page and returns its HTML and the warnings."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "_ext")

    def built(text):
        source = tmp_path / "source"
        source.mkdir()
        (source / "conf.py").write_text(CONF)
        (source / "index.md").write_text("# Page\n\n" + text)
        app = SphinxTestApp("html", srcdir=source, builddir=tmp_path / "built")
        app.build()
        html = (app.outdir / "index.html").read_text()
        warnings = app.warning.getvalue()
        app.cleanup()
        return html, warnings

    return built


def test_a_part_of_a_method_is_quoted_with_its_line(build):
    html, warnings = build(
        ":::{beside} minicnn.layers.conv.Conv2D.backward\n:from: dz =\n:to: dx, dw, db\n"
        ":tests: tests/test_docs.py::test_every_code_block_runs\n\nText.\n:::\n"
    )
    assert warnings == ""
    assert "minicnn/layers/conv.py, line " in html
    assert "from_logits" in html
    assert "check_gradient" not in html
    assert "use_bias" not in html
    assert "tests/test_docs.py::test_every_code_block_runs" in html


@pytest.mark.parametrize(
    ("argument", "options", "said"),
    [
        ("minicnn.layers.conv.Conv2D.sideways", "", "there is no minicnn.layers.conv.Conv2D.sideways in the package"),
        ("nothing.at.all", "", "there is no nothing.at.all in the package"),
        (BACKWARD, ":from: not there\n", "no line contains 'not there'"),
        (BACKWARD, ":from: dz =\n:to: not there\n", "no line after 'dz =' contains"),
        (BACKWARD, ":tests: tests/test_docs.py::test_gone\n", "there is no test tests/test_docs.py::test_gone"),
        (BACKWARD, ":tests: tests/gone.py\n", "there is no test tests/gone.py"),
    ],
)
def test_what_is_gone_is_a_warning(build, argument, options, said):
    assert said in build(f":::{{beside}} {argument}\n{options}\nText.\n:::\n")[1]
