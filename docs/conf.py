"""How Sphinx builds the site: ``python -m sphinx -W -n docs site``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from jupyter_client import KernelManager

import minicnn

KernelManager.transport_encryption.default_value = "auto"  # a kernel that is not told to encrypt warns on every page

project = "minicnn"
author = "The minicnn authors"
copyright = author
release = version = minicnn.__version__

extensions = [
    "beside",  # ours: a derivation beside the live source
    "hanging",  # ours: long lines of code go on below their indent
    "myst_nb",  # Markdown, and code cells that run while the site is built
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax's files go into the site: no page needs the network
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext", "_static", "figures", "tests"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # names in backticks: arguments have no entry
    ("py:class", r"(numpy|os|pathlib|collections\.abc|types)\..*|Figure"),  # other projects': links need a network
]
default_role = "py:obj"  # a name in a docstring's backticks is a link where the reference has it, else code
smartquotes = False  # "same" is a value

autodoc_inherit_docstrings = False  # an override that adds nothing is not shown again
autodoc_member_order = "bysource"  # forward above backward

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3  # the anchors that GitHub makes of headings
nb_execution_mode = "force"  # a cache would not notice that the package has changed
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "minicnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_search_summary = False  # summaries are fetched, which browsers forbid to pages opened from a disk
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
