"""A derivation beside the source that it derives: the directive ``beside``.

    :::{beside} minicnn.layers.conv.Conv2D.backward
    :tests: tests/test_kernels.py::test_name

    Text and formulas.
    :::

The source is read from the package while the site is built, so it cannot go stale: a name that is gone, or a test that
is gone, is a warning, and a warning fails the build.
"""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


class Beside(SphinxDirective):
    """Put the text on the left and the named objects' source on the right; on a phone, one above the other.

    Arguments are dotted names of functions, classes or methods. `from` and `to` cut a part of one out: the lines from
    the first that contains the one text to the next that contains the other. `tests` names what holds it, as pytest
    does.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"from": directives.unchanged, "to": directives.unchanged, "tests": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the two columns."""
        prose = nodes.container("", classes=["beside-prose"])
        self.state.nested_parse(self.content, self.content_offset, prose)
        source = nodes.container("", classes=["beside-source"])
        try:
            for name in self.arguments[0].split():
                source += self.quoted(name)
            if tests := self.options.get("tests", "").split():
                source += held_by(tests)
        except ExtensionError as error:
            return [self.state.document.reporter.warning(f"beside: {error}", line=self.lineno)]
        return [nodes.container("", prose, source, classes=["beside"])]

    def quoted(self, name: str) -> list[nodes.Node]:
        """Return a line that says where the object stands, and its source."""
        module, qualname, lines, first = find(name)
        if "from" in self.options:
            lines, first = cut(lines, first, self.options["from"], self.options.get("to"))
        path = module.replace(".", "/") + ".py"
        link = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=qualname, refspecific=True, beside=True
        )
        link += nodes.literal("", qualname)
        where = nodes.paragraph("", "", link, nodes.Text(f"{path}, line {first}"), classes=["beside-where"])
        code = "\n".join(lines)
        self.env.note_dependency(str(ROOT / path))
        return [where, nodes.literal_block(code, code, language="python")]


def find(name: str) -> tuple[str, str, list[str], int]:
    """Return the module of a dotted name, the name in it, its lines without their indent, and the first's number."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        path = ROOT.joinpath(*parts[:end]).with_suffix(".py")
        if path.exists():
            module, qualname = ".".join(parts[:end]), ".".join(parts[end:])
            tags = ModuleAnalyzer.for_file(path, module).find_tags()
            if qualname not in tags:
                break
            _, first, last = tags[qualname]
            lines = path.read_text().splitlines()[first - 1 : last]
            while not lines[-1].strip():
                lines.pop()
            indent = len(lines[0]) - len(lines[0].lstrip())
            return module, qualname, [line[indent:] for line in lines], first
    raise ExtensionError(f"there is no {name} in the package")


def cut(lines: list[str], first: int, start: str, stop: str | None) -> tuple[list[str], int]:
    """Return the lines from the one that contains `start` to the next that contains `stop`."""
    begin = next((i for i, line in enumerate(lines) if start in line), None)
    if begin is None:
        raise ExtensionError(f"no line contains {start!r}")
    end = len(lines) - 1 if stop is None else next((i for i in range(begin, len(lines)) if stop in lines[i]), None)
    if end is None:
        raise ExtensionError(f"no line after {start!r} contains {stop!r}")
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    return [line[min(indent, len(line) - len(line.lstrip())) :] for line in lines[begin : end + 1]], first + begin


def held_by(tests: list[str]) -> nodes.Node:
    """Return the line that names the tests, all of which must exist."""
    for test in tests:
        file, _, function = test.partition("::")
        path = ROOT / file
        if not path.exists() or (function and f"def {function.split('::')[-1].split('[')[0]}(" not in path.read_text()):
            raise ExtensionError(f"there is no test {test}")
    line = nodes.paragraph("", "Held by ", classes=["beside-tests"])
    for i, test in enumerate(tests):
        line += [nodes.Text(", ")] * bool(i) + [nodes.literal("", test)]
    return line


def unlinked(app: Sphinx, env: object, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Leave the name as text where the reference has no entry for it: kernels have none."""
    return content if node.get("beside") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive("beside", Beside)
    app.connect("missing-reference", unlinked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
