"""Every public name says what it takes, of which type and shape, what it gives back and how it fails.

What a function raises is read from its source: its own `raise` statements and those of the functions of the package
that it calls, however deep, less what an `except` around the call catches. Calls through a variable are not followed.
"""

import ast
import builtins
import doctest
import importlib
import inspect
import itertools
import pkgutil
import pydoc
import re
import textwrap
import typing
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import checks, errors, gradcheck
from minicnn.__main__ import main
from minicnn.callbacks import Monitor, ProgressBar
from minicnn.data import cifar10, image_dataset_from_directory, load
from minicnn.errors import ArgumentError, DataError, DtypeError, ShapeError, StateError
from minicnn.evaluation import write_report
from minicnn.kernels import reference
from minicnn.layers import InputLayer, Layer, Linear

PUBLIC = [
    "baseline", "callbacks", "config", "data", "data.cifar10", "data.digits", "errors", "evaluation", "foreign",
    "gradcheck", "initializers", "kernels", "layers", "losses", "models", "optimizers", "profiler", "ranks",
    "schedules", "utils",
]  # fmt: skip
INNER = [
    "__main__", "arguments", "checks", "data.dataset", "data.folders", "data.sources", "evaluation.figures",
    "evaluation.metrics", "evaluation.report", "files", "foreign.common", "foreign.keras", "foreign.keras_config",
    "foreign.keras_weights", "foreign.onnx", "foreign.torch", "fusion", "kernels.buffers", "kernels.compiler",
    "kernels.cpu", "kernels.devices", "kernels.direct", "kernels.fused", "kernels.gpu", "kernels.reference",
    "kernels.threads", "kernels.winograd", "layers.activations", "layers.add", "layers.augmentation", "layers.base",
    "layers.batch_normalization", "layers.concatenate", "layers.conv", "layers.dense", "layers.dropout",
    "layers.flatten", "layers.input",
    "layers.pooling", "layers.rescaling", "layers.windows", "resume", "saving", "training", "witness",
]  # fmt: skip
HELPERS = {
    "minicnn.callbacks.CallbackList",
    "minicnn.errors.leave",
    "minicnn.profiler.Clock",
}  # of public modules, for their own use
HELPERS |= {f"minicnn.ranks.{name}" for name in ("add", "agree", "agree_text", "batch", "memory")}
HELPERS |= {f"minicnn.ranks.{name}" for name in ("shared", "sharing")}
HELPERS |= {"minicnn.ranks.Signals", "minicnn.ranks.tell_witness"}
NO_EXAMPLE = {cifar10.download, cifar10.load_binary, write_report}  # they need a network, the archive, a trained model
NO_EXAMPLE |= {Monitor, ProgressBar, InputLayer, Linear}  # others make them, or derive from them
PAGES = Path(__file__).parents[1] / "docs" / "reference"
UNREACHED = {reader: {ShapeError, DtypeError} for reader in (load, image_dataset_from_directory)}  # theirs always fit
UNREACHED[gradcheck.check_model] = {ArgumentError}  # of a loss whose arguments are right
SHAPE = re.compile(r"\((\w[\w*/]*|\.\.\.),[^()]*\)|\bshapes?\b")  # (N, H, W, C), (N,), (..., K), "of x's shape"


def public_names():
    """Return the public functions and classes, each under the first of its names."""
    found = {}
    for place in ["minicnn", *(f"minicnn.{name}" for name in PUBLIC)]:
        module = importlib.import_module(place)
        for name in getattr(module, "__all__", None) or own_names(module):
            value = getattr(module, name)
            if (inspect.isfunction(value) or inspect.isclass(value)) and value not in found.values():
                found[f"{place}.{name}"] = value
    return {name: value for name, value in found.items() if name not in HELPERS}


def own_names(module):
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own if not name.startswith("_")]


def methods_of(kind):
    kinds = (type(methods_of), classmethod, property)
    own = {name: value for name, value in vars(kind).items() if isinstance(value, kinds)}
    return {name: value for name, value in own.items() if name == "__call__" or not name.startswith("_")}


NAMES = public_names()
CLASSES = {name: value for name, value in NAMES.items() if inspect.isclass(value)}
METHODS = {
    f"{name}.{each}": (value, kind) for name, kind in CLASSES.items() for each, value in methods_of(kind).items()
}
DOORS = {name: getattr(reference, name) for name in own_names(reference)}


# What a docstring says


def sections(documented):
    """Return the lines of a docstring by the titles of its sections; "" is what stands above the first."""
    lines = inspect.cleandoc(documented).splitlines()
    found, title = {}, ""
    for line, following in itertools.pairwise([*lines, ""]):
        if set(following) == {"-"}:
            title = line
        elif set(line) != {"-"}:
            found.setdefault(title, []).append(line)
    return found


def entries(documented, *titles):
    """Return what the sections say of each name: the text after " : " in "a, b : type", and the lines below it."""
    found, names = {}, []
    for line in [line for title in titles for line in sections(documented).get(title, [])]:
        if line and not line.startswith(" "):
            left, _, text = line.partition(" : ")
            names = left.split(", ")
            found |= dict.fromkeys(names, text)
        else:
            found |= {name: f"{found[name]}\n{line}" for name in names}
    return found


def is_array(text):
    return re.search(r"ndarray|\barrays?\b", text) is not None


# What a function raises


def plain(value):
    """Return the function behind a method, a class, a property or a decorated function."""
    if inspect.isclass(value):
        value = value.__init__
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return inspect.unwrap(value) if inspect.isfunction(value) else value


def raised(function, owner=None, above=()):
    """Return the classes of errors that `function`, a method of the class `owner`, may raise."""
    if not inspect.isfunction(function) or function in above:
        return set()
    if not function.__module__.startswith(("minicnn", __name__)):
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # a constructor that dataclass wrote
        return set()
    return Raised(function, owner, (*above, function)).by(tree.body[0].body)


class Raised:
    """Reads a function's source; a name stands for what it stands for in the function's module."""

    def __init__(self, function, owner, above):
        self.function, self.owner, self.above = function, owner, above

    def by(self, nodes):
        return set().union(*map(self.by_one, nodes))

    def by_one(self, node):
        if isinstance(node, ast.Try):
            return self.by_try(node)
        found = self.by(ast.iter_child_nodes(node))
        if isinstance(node, ast.Raise) and node.exc is not None:
            found |= self.errors(node.exc.func if isinstance(node.exc, ast.Call) else node.exc) - {NotImplementedError}
        elif isinstance(node, ast.Call):
            found |= raised(*self.called(node.func), self.above)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):  # self.learning_rate = ...
            found |= raised(getattr(self.value(node), "fset", None), self.owner, self.above)
        return found

    def by_try(self, node):
        found = self.by(node.body)
        for handler in node.handlers:
            again = [part.exc for part in ast.walk(handler) if isinstance(part, ast.Raise)]
            if not any(exc is None or ast.unparse(exc).startswith("type(") for exc in again):
                caught = tuple(self.errors(handler.type))
                found = {error for error in found if not issubclass(error, caught)}
        return found | self.by([*node.handlers, *node.orelse, *node.finalbody])

    def errors(self, node):
        """Return the errors that a name or a tuple of names stands for, or that the function so named returns."""
        values = [self.value(name) for name in getattr(node, "elts", [node])]
        hints = [typing.get_type_hints(value).get("return") if inspect.isfunction(value) else value for value in values]
        kinds = [kind for hint in hints for kind in typing.get_args(hint) or [hint]]
        return {kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseException)}

    def called(self, node):
        """Return the function that a call runs and the class of its `self`."""
        value = self.value(node)
        owner = value if inspect.isclass(value) else None
        if isinstance(node, ast.Attribute):
            within = self.owner if ast.unparse(node.value) == "super()" else self.value(node.value)
            owner = within if inspect.isclass(within) else owner
        return plain(value), owner

    def value(self, node):
        if isinstance(node, ast.Name):
            own = {"self": self.owner, "cls": self.owner}
            return {**vars(builtins), **self.function.__globals__, **own}.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if ast.unparse(node.value) == "super()":
            order = list(self.owner.__mro__)
            here = next(kind for kind in order if plain(vars(kind).get(self.function.__name__)) is self.function)
            bases = order[order.index(here) + 1 :]
            return next((vars(kind)[node.attr] for kind in bases if node.attr in vars(kind)), None)
        within = self.value(node.value)
        known = inspect.ismodule(within) or inspect.isclass(within)
        return inspect.getattr_static(within, node.attr, None) if known else None


# What is missing


def problems(value, owner=None):
    """Return what the docstring of a public function, a class, or a method of the class `owner` lacks.

    A method may leave to the method that it overrides, and to its class, what they say of arguments, result and errors.
    """
    function, own, others = plain(value), value.__doc__ or "", []
    is_class = inspect.isclass(value)
    bare = isinstance(value, property) or (is_class and issubclass(value, Exception))
    signature = None if bare else inspect.signature(value if is_class else function)
    if is_class:  # its constructor may be inherited
        others = [next(kind.__doc__ or "" for kind in value.__mro__ if "__init__" in vars(kind))]
    elif owner:
        name = function.__name__
        bases = [kind for kind in owner.__mro__[1:] if name in vars(kind)]
        inherited = [text for kind in bases if (text := vars(kind)[name].__doc__)]
        others = [*inherited, owner.__doc__ or ""] if bases else []
        own = own or "".join(inherited[:1])
        if not own and is_hook(name, signature, owner):
            return error_problems(raised(function, owner), others)
    if not own:
        return ["has no docstring"]
    kinds = raised(function, value if is_class else owner) - UNREACHED.get(value, set())
    found = summary_problems(own) + error_problems(kinds, [own, *others])
    if signature:
        found += argument_problems(signature, own, others)
        found += [] if is_class else result_problems(signature, [own, *others])
    return found


def is_hook(name, signature, owner):
    """Tell whether the docstring of a class, or of one of its bases, describes the method, as "``name(arguments)``"."""
    written = signature and f"``{name}({', '.join(arguments(signature))})``"
    return any(written and written in (kind.__doc__ or "") for kind in owner.__mro__)


def arguments(signature):
    """Return the names of the arguments that a caller gives."""
    return [name for name in signature.parameters if name not in ("self", "cls") and not name.startswith("_")]


def summary_problems(own):
    first = own.strip().split("\n\n")[0]
    one = "\n" not in first and first.endswith(".") and not re.search(r"\. [A-Z]", first)
    return [] if one else ["does not begin with one sentence, on one line, that ends in a full stop"]


def argument_problems(signature, own, others):
    said, found = {}, []
    for text in (*reversed(others), own):
        said |= entries(text, "Parameters", "Attributes")
    for name in arguments(signature):
        kind, _, more = said.get(name, "").partition("\n")
        if not kind:
            found.append(f"does not say of which type {name} is")
        elif is_array(f"{signature.parameters[name].annotation} {kind}") and not SHAPE.search(f"{kind} {more}"):
            found.append(f"does not say of which shape {name} is")
    gone = [name for name in entries(own, "Parameters") if name not in signature.parameters]
    return found + [f"describes {name}, which is no argument" for name in gone]


def result_problems(signature, contracts):
    """Demand a section Returns, or a summary "Return ..." that leaves nothing to say; either gives an array's shape."""
    hint = signature.return_annotation
    if hint is None or str(hint).endswith("[None]"):  # nothing, or a context manager that gives nothing
        return []
    said = ""
    for text in contracts:
        above = "\n".join(sections(text).get("", []))
        said += "\n".join(sections(text).get("Returns", [])) + above * above.startswith(("Return", "Tell whether"))
    if not said:
        return ["does not say what it returns"]
    return ["does not say of which shape the result is"] if is_array(str(hint)) and not SHAPE.search(said) else []


def error_problems(kinds, contracts):
    said = {name for text in contracts for name in entries(text, "Raises")}
    known = {**vars(builtins), **vars(errors)}
    found = [f"does not say that it raises {name}" for name in sorted({kind.__name__ for kind in kinds} - said)]
    return found + [f"says that it raises {name}, which is no error" for name in said if name not in known]


def door_problems(function):
    """Return the array arguments of a kernel whose shape its docstring does not give, as in "x (N, H, W, C)"."""
    hints = inspect.signature(function).parameters.items()
    arrays = [name for name, parameter in hints if "ndarray" in str(parameter.annotation)]
    said = function.__doc__ or ""
    shaped = r"\b{}\b[\w, ]*? \((\w[\w*/]*|\.\.\.)[,)]"  # "dy and y (N, K)" gives the shape of both
    return [f"does not say of which shape {name} is" for name in arrays if not re.search(shaped.format(name), said)]


# The package


def test_every_module_is_public_or_not():
    found = [module.name for module in pkgutil.walk_packages(minicnn.__path__, "minicnn.")]
    assert sorted(found) == sorted(f"minicnn.{name}" for name in PUBLIC + INNER)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_described(name):
    assert problems(NAMES[name]) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_public_method_is_described(name):
    assert problems(*METHODS[name]) == []


@pytest.mark.parametrize("name", DOORS)
def test_a_kernel_gives_the_shapes_of_its_arrays(name):
    assert summary_problems(DOORS[name].__doc__) + door_problems(DOORS[name]) == []


def test_what_a_person_begins_with_has_an_example():
    def made_by_others(value):
        return inspect.isclass(value) and (issubclass(value, Exception | tuple) or is_dataclass(value))

    without = {value for value in NAMES.values() if ">>>" not in (value.__doc__ or "") and not made_by_others(value)}
    assert without == NO_EXAMPLE


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_pasted(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(NAMES[name], globs={}):  # without the names of its module
        assert runner.run(example).failed == 0


@pytest.mark.parametrize("name", [*NAMES, *(f"minicnn.kernels.reference.{name}" for name in DOORS)])
def test_a_public_name_is_on_a_page_of_the_reference(name):
    shown = {pydoc.locate(place): options for place, options in directives()}
    value = pydoc.locate(name)
    assert value in shown
    if inspect.isclass(value):
        methods = methods_of(value)
        assert not methods or ":members:" in shown[value]
        assert "__call__" not in methods or ":special-members: __call__" in shown[value]


def directives():
    """Return the name and the options of each autodoc directive of the reference's pages."""
    pages = "".join(path.read_text() for path in sorted(PAGES.glob("*.md")))
    return re.findall(r"^\.\. auto\w+:: (\S+)((?:\n +:.*)*)", pages, re.MULTILINE)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "gradcheck", "profile"])
def test_the_page_of_the_command_line_is_its_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    page = (PAGES / "command-line.md").read_text()
    assert f"## {command}\n\n```text\n{capsys.readouterr().out}```" in page


# The check itself: each omission that is planted here must be found, and nothing else


def complete(x: np.ndarray, size: int = 1) -> np.ndarray:
    """Return x, of its shape.

    Parameters
    ----------
    x : array (N, K)
    size : int, how much

    Raises
    ------
    ShapeError, ArgumentError
        If one of them is wrong.
    """
    if x.ndim != 2:
        raise ShapeError("x")
    return x[: checks.positive_integer("size", size)]


class Whole(Layer):
    """A layer that leaves to the base what the base says."""

    def forward(self, x, training=False):
        return self.check(x)

    def backward(self, dy):
        """Return dy."""
        return self.check_gradient(dy)


def test_nothing_is_missing_where_nothing_was_left_out():
    assert problems(complete) == []
    assert problems(Whole) == problems(Whole.forward, Whole) == problems(Whole.backward, Whole) == []


@pytest.mark.parametrize(
    ("said", "instead", "problem"),
    [
        ("Return x, of its shape.", "Return x, of its shape", "does not begin with one sentence"),
        ("Return x, of its shape.", "Return x. Of its shape.", "does not begin with one sentence"),
        ("Return x, of its shape.", "Return x.", "does not say of which shape the result is"),
        ("Return x, of its shape.", "Give x.", "does not say what it returns"),
        ("x : array (N, K)\n", "", "does not say of which type x is"),
        ("x : array (N, K)", "x", "does not say of which type x is"),
        ("array (N, K)", "array", "does not say of which shape x is"),
        ("size : int", "width : int", "does not say of which type size is"),
        ("ShapeError, ArgumentError", "ArgumentError", "does not say that it raises ShapeError"),
        ("ShapeError, ArgumentError", "ShapeError", "does not say that it raises ArgumentError"),  # two calls below
        ("ShapeError, ArgumentError", "ShapeError, ArgumentError, SizeError", "raises SizeError, which is no error"),
    ],
)
def test_what_is_left_out_is_found(said, instead, problem, monkeypatch):
    documented = inspect.cleandoc(complete.__doc__)
    assert documented.count(said) == 1
    monkeypatch.setattr(complete, "__doc__", documented.replace(said, instead))
    found = problems(complete)
    assert len(found) == 1 + ("width" in instead)
    assert problem in found[0]


def catches():
    try:
        checks.positive_integer("size", 0)
    except ArgumentError as error:
        raise DataError("size") from error


def lets_through():
    try:
        checks.positive_integer("size", 0)
    except (ArgumentError, DataError) as error:
        raise type(error)("size") from error


def chooses(error: Exception) -> ShapeError | DtypeError:
    return ShapeError() if error else DtypeError()


def asks():
    raise chooses(KeyError())


class Setting:
    @property
    def size(self):
        return 1

    @size.setter
    def size(self, value):
        checks.positive_integer("size", value)

    def change(self):
        self.size = 2


@pytest.mark.parametrize(
    ("function", "owner", "expected"),
    [
        (complete, None, {ShapeError, ArgumentError}),
        (catches, None, {DataError}),
        (lets_through, None, {ArgumentError}),
        (asks, None, {ShapeError, DtypeError}),
        (Setting.change, Setting, {ArgumentError}),
        (Whole.forward, Whole, {StateError, DtypeError, ShapeError}),
    ],
)
def test_errors_are_followed_through_calls(function, owner, expected):
    assert raised(function, owner) == expected


def test_what_is_said_not_to_happen_would_otherwise_be_asked_for():
    for function, kinds in UNREACHED.items():
        assert kinds <= raised(function)


def test_a_kernel_without_a_shape_is_found():
    def dense(x: np.ndarray, w: np.ndarray, scale: float) -> np.ndarray:
        """Return x (N, In) @ w."""

    assert door_problems(dense) == ["does not say of which shape w is"]
