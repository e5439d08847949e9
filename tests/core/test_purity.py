"""The core reaches for nothing but values: its imports, its calls, its exports."""

from __future__ import annotations

import ast
import inspect
import pickle
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import kassette
import kassette_io
import kassette_io.testing

ROOT = Path(kassette.__file__).parent
MODULES = sorted(each.name for each in pkgutil.walk_packages([str(ROOT)], "kassette."))
FORBIDDEN = {
    # DESIGN section 1, and what leads there
    *("asyncio", "anyio", "trio", "os", "io", "time", "random", "uuid", "logging", "threading"),
    *("socket", "pathlib", "concurrent", "ctypes", "fcntl", "multiprocessing", "queue", "secrets"),
    *("select", "selectors", "shutil", "signal", "sqlite3", "ssl", "subprocess", "tempfile"),
    *("urllib", "http", "glob", "mmap", "sched", "aiofiles", "aioboto3", "pydantic", "rich"),
}
LOADED = {
    *("asyncio", "anyio", "trio", "aiofiles", "aioboto3", "socket", "threading", "logging"),
    *("random", "uuid", "subprocess", "tempfile", "pathlib", "pydantic", "rich"),
}


def _trees() -> list[tuple[str, ast.Module]]:
    paths = sorted(ROOT.rglob("*.py"))
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))) for path in paths]


def _loaded(program: str) -> set[str]:
    """Run ``program`` in a fresh interpreter; give the top-level modules it has loaded."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_importing_the_core_loads_nothing_that_touches_the_world() -> None:
    """The import contract of DESIGN section 1 would be broken, directly or through a dependency."""
    baseline = _loaded("import orjson, dataclasses, datetime, json, enum, typing")
    imports = "\n".join(f"import {module}" for module in MODULES)
    everything = "\nfor name in kassette.__all__: getattr(kassette, name)"
    loaded = _loaded(f"import kassette\n{imports}{everything}")
    assert "kassette" in loaded
    assert (loaded - baseline) & LOADED == set()
    assert "kassette_io" not in loaded


def test_no_module_imports_what_the_core_may_not_touch() -> None:
    """The core would read a clock, draw randomness, or open a file, a socket or a thread."""
    for name, tree in _trees():
        for node in ast.walk(tree):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports relatively"
                imported = [node.module or ""]
            tops = {each.partition(".")[0] for each in imported}
            assert not tops & FORBIDDEN, f"{name} imports {tops & FORBIDDEN}"
            assert tops <= {"kassette", "orjson", *sys.stdlib_module_names, "__future__"}


def test_nothing_reads_the_clock_or_opens_a_file() -> None:
    """Time would come from elsewhere than the ``now`` argument, and no test could choose it."""
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"now", "utcnow", "today"}, f"{name} reads the clock"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input", "exec", "eval"}, name


def test_only_the_machine_assigns_its_state() -> None:
    """A state would change past the table of transitions."""
    for name, tree in _trees():
        for node in ast.walk(tree):
            stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if stored and node.attr == "_state":  # type: ignore[attr-defined]
                assert name == "machine.py"


def test_all_is_sorted_complete_and_importable() -> None:
    """A public name would be missing from the package, or promised and not there."""
    assert kassette.__all__ == sorted(set(kassette.__all__))
    for name in kassette.__all__:
        assert getattr(kassette, name) is not None
    defined = {
        name
        for module in MODULES
        for name, value in vars(import_module(module)).items()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__.startswith("kassette")
    }
    assert defined <= set(kassette.__all__)
    for vocabulary in (kassette.Command, kassette.Effect, kassette.Entry, kassette.RunStatus):
        for each in vocabulary.__args__:
            assert getattr(kassette, each.__name__) is each


def test_an_unknown_name_is_an_attribute_error() -> None:
    """``hasattr`` and ``from kassette import …`` would raise something else for a mistyped name."""
    assert not hasattr(kassette, "Machnie")
    with pytest.raises(AttributeError, match="module 'kassette' has no attribute 'Machnie'"):
        kassette.Machnie  # noqa: B018
    with pytest.raises(ImportError):
        from kassette import Machnie  # noqa: F401


@pytest.mark.parametrize(
    ("package", "other"),
    [
        (kassette, kassette_io),
        (kassette_io, kassette),
        (kassette_io, kassette_io.testing),
        (kassette_io.testing, kassette_io),
    ],
)
def test_a_name_of_the_other_package_is_told_where_it_is(
    package: ModuleType, other: ModuleType
) -> None:
    """A newcomer who takes one package for the other would have to search for every name."""
    mine, theirs = package.__name__, other.__name__
    elsewhere = sorted(set(other.__all__) - set(package.__all__))
    assert elsewhere
    for name in elsewhere:
        says = f"'{mine}' has no '{name}', but '{theirs}' has: from {theirs} import {name}"
        with pytest.raises(ImportError) as imported:
            exec(f"from {mine} import {name}", {})
        assert (str(imported.value), imported.value.name) == (says, mine)
        with pytest.raises(AttributeError) as asked:
            getattr(package, name)
        assert str(asked.value) == says
        assert not hasattr(package, name)


def test_type_checkers_see_the_names_that_are_there() -> None:
    """A checker would accept a name that is missing at run time, or the other way round."""
    tree = dict(_trees())["__init__.py"]
    seen = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
        if alias.name not in {"lazy_names", "annotations"}
    }
    assert set(seen) == set(kassette.__all__)
    for name, module in seen.items():
        assert getattr(import_module(module or ""), name) is getattr(kassette, name)


def test_each_public_name_has_a_docstring() -> None:
    """A reader would have to guess what a name is for."""
    documented = set()
    for _, tree in _trees():
        for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                documented.add(node.name)
            target = (
                node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            )
            if isinstance(target, ast.Name) and isinstance(following, ast.Expr):
                documented.add(target.id)
    assert sorted(set(kassette.__all__) - documented) == []


def test_each_public_method_has_a_docstring() -> None:
    """As above, for what the names can do."""
    for name in kassette.__all__:
        value = getattr(kassette, name)
        if isinstance(value, type):
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and (
                    inspect.isfunction(member) or isinstance(member, (property, classmethod))
                ):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


def test_each_module_says_what_lives_there() -> None:
    """The map for newcomers would have a blank spot, or name a module that is gone."""
    for module in MODULES:
        assert import_module(module).__doc__
    for module in MODULES:
        package, _, short = module.rpartition(".")
        listed = import_module(package).__doc__ or ""
        if not short.startswith("_"):
            assert f"``{short}``" in listed, f"{short} is missing from the map"


def test_the_core_does_not_know_what_is_told_from_it() -> None:
    """Rules would begin to depend on how a report words them."""
    for path in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("kassette.evidence"), path.name


def test_public_values_are_pickled_by_their_public_home() -> None:
    """Values would not survive a process boundary when a module moves."""
    for name in ("State", "Retry", "Machine", "UsageError"):
        value = getattr(kassette, name)
        assert pickle.loads(pickle.dumps(value)) is value
