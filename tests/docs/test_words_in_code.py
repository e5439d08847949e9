"""Docstrings, help and errors are plain English: the field's words, imperatives, no numbers of notes."""

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kassette_cli.misuse import HelpWanted
from kassette_cli.parser import parse_arguments
from kassette_cli.table import names
from tests.docs.words import found

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for package in ("kassette", "kassette_io", "kassette_cli")
    for path in ROOT.glob(f"{package}/**/*.py")
)
PUBLIC = ("kassette", "kassette_io", "kassette_io.testing")

NAMES = re.compile(r"``.+?``", re.DOTALL)
"""Names in a docstring, which stay what they are."""

THIRD_PERSON = re.compile(
    r"(?:^|[.;:] )(?:Raises|Returns|Gives?|Tells?|Yields|Does as|Do as)\b", re.MULTILINE
)

_VERBS = """
    Abandon Accept Add Append Apply Await Begin Build Call Cancel Check Close Compare
    Continue Count Create Declare Decode Delete Deliver Describe Discard Drop Encode End
    Escape Exit Fail Forget Fork Format Forward Handle Join Leave Log Make Mark Note Notify Number Open
    Parse Pause Post Prepend Print Protect Put Quote Raise Read Record Refuse Release Remove
    Replace Replay Resolve Return Run See Send Serve Set Show Sleep Store Sync Take Verify
    Wait Wake Wrap Write Yield
"""
VERBS = frozenset(_VERBS.split())
"""How a function's docstring begins. A verb that is missing here is added; a noun is not."""


class Text(NamedTuple):
    """A docstring, a string or a comment, its first line, and what it documents."""

    line: int
    text: str
    documents: ast.AST | None = None


def texts(path: Path) -> Iterator[Text]:
    """Yield all that a person may read in a file of source code."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    documented = {
        id(node.body[0].value): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value, documented.get(id(node)))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)


def offences(text: str, line: int = 1) -> list[str]:
    return [
        f"line {line + each.line - 1}: {each.word} -> {each.instead}"
        for each in found(NAMES.sub(lambda name: re.sub(r"[^\n]", " ", name[0]), text))
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_uses_the_field_s_words(path: Path) -> None:
    """A reader would meet words that only this project knows, or a number of an internal note."""
    prose = (each for each in texts(path) if " " in each.text)
    assert [line for each in prose for line in offences(each.text, each.line)] == []


def grammar(each: Text) -> str | None:
    """Return what is wrong with the grammar of a docstring, if it is one."""
    if each.documents is None:
        return None
    wrong = THIRD_PERSON.search(inspect.cleandoc(each.text))
    if wrong is not None:
        return f"line {each.line}: {wrong[0]!r} is not an imperative"
    if not isinstance(each.documents, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    if any("property" in ast.unparse(decorator) for decorator in each.documents.decorator_list):
        return None
    first = each.text.split()[0].rstrip(",")
    return None if first in VERBS else f"line {each.line}: {first!r} is not in VERBS"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_are_imperative(path: Path) -> None:
    """The reference would say "Give …" on one line, "Raises …" on another, or name a thing."""
    assert [wrong for each in texts(path) if (wrong := grammar(each))] == []


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield every public name with its object, and every public method of a class."""
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{package}.{name}", value
            for attribute, member in vars(value).items() if inspect.isclass(value) else ():
                plain = getattr(member, "__func__", member)
                if not attribute.startswith("_") and (
                    inspect.isfunction(plain) or isinstance(plain, property)
                ):
                    yield f"{package}.{name}.{attribute}", plain


def own_docstring(value: object) -> str | None:
    """Return a docstring, of a class only if it does not inherit it."""
    doc: str | None = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return doc


def test_every_public_name_has_a_docstring_of_its_own() -> None:
    """The site would have a name and nothing about it, or what some base class says of itself."""
    objects = dict(public_objects())
    assert len(objects) > 200
    assert [name for name, value in objects.items() if not own_docstring(value)] == []
    assert [name for name, value in objects.items() if offences(inspect.getdoc(value) or "")] == []


@pytest.mark.parametrize("verb", [None, *sorted(names())])
def test_help_uses_the_field_s_words(verb: str | None) -> None:
    """Somebody who asks the command for help would get words that only this project knows."""
    with pytest.raises(HelpWanted) as wanted:
        parse_arguments(["--help"] if verb is None else [verb, "--help"])
    assert offences(str(wanted.value)) == []


def test_offences_are_found() -> None:
    """A check that lets everything pass would be green for ever."""
    planted = ast.parse(
        'def f():\n    """Gives what ``kept`` says (D13).\n\n    Raises nothing.\n    """\n'
        'def g():\n    """The answer."""\n'
        '@property\ndef h():\n    """The answer, kept."""\n'
    )
    functions = [each for each in ast.walk(planted) if isinstance(each, ast.FunctionDef)]
    docs = [Text(1, ast.get_docstring(each, clean=False) or "", each) for each in functions]
    assert [grammar(each) for each in docs] == [
        "line 1: 'Gives' is not an imperative",
        "line 1: 'The' is not in VERBS",
        None,
    ]
    assert [offences(each.text) for each in docs] == [
        ["line 1: D13 -> say the rule"],
        [],
        ["line 1: kept -> recorded, stored, honoured"],
    ]
