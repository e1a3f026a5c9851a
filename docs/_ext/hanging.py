"""Code that is too long for its place goes on below its own indent, and four more, instead of being cut or scrolled.

Each highlighted line becomes a block that knows its indent; the style sheet does the rest. The text stays as it is.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

BEGINNING = re.compile(r'<span id="line-\d+">((?:<span class="\w+">)?)( *)')


def visit_literal_block(translator: HTML5Translator, node: nodes.literal_block) -> None:
    """Write the highlighted code, a block for each line."""
    node["highlight_args"] = node.get("highlight_args", {}) | {"linespans": "line"}
    try:
        HTML5Translator.visit_literal_block(translator, node)
    except nodes.SkipNode:
        translator.body[-1] = BEGINNING.sub(beginning, translator.body[-1])
        raise


def beginning(found: re.Match) -> str:
    """Return the tags that open a line, and its indent, which takes no room in the block: padding stands for it."""
    token, indent = found.groups()
    return f'<span class="line" style="--indent: {len(indent)}ch">{token}<span class="indent">{indent}</span>'


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx how to write code."""
    app.add_node(nodes.literal_block, override=True, html=(visit_literal_block, HTML5Translator.depart_literal_block))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
