"""The tasks of the house: `nox` runs what CI runs, `nox -s NAME` one of them.

What follows `--` goes to the tool, as in `nox -s tests -- tests/core -k codec` and
`nox -s bench -- --quick`.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", "site", "wheel", "tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTEST = ("-m", "pytest", "-m", "not slow", "--numprocesses=auto", "--maxprocesses=4")
PYTEST += ("-o", "faulthandler_timeout=500")  # what hangs says where, before its worker is killed


def install(session: nox.Session, *groups: str) -> None:
    """Install the project, editable and with every extra, and the dependency groups named."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(PROJECT, *groups))


def run_and_keep_last_line(session: nox.Session, *command: str) -> str:
    """Run a command of the session, show its output as it comes, and return its last line."""
    last = ""
    set_here = {name: value for name, value in session.env.items() if value is not None}
    with subprocess.Popen(
        [Path(session.bin, command[0]), *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | set_here | {"PATH": f"{session.bin}{os.pathsep}{os.environ['PATH']}"},
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            last = line.rstrip() or last
    if process.returncode:
        session.error(f"{' '.join(command)} exited with {process.returncode}")
    return last


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests under coverage; `kassette/` has to reach 100 % of its branches.

    With arguments of your own pytest runs alone: a part of the tests covers a part of the code.
    """
    install(session, "test")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run("coverage", "erase")
    color = "--color=yes" if sys.stdout.isatty() else "--color=no"
    # `-u` and not PYTHONUNBUFFERED: the processes that tests start must not inherit it.
    summary = run_and_keep_last_line(
        session, "python", "-u", "-m", "coverage", "run", *PYTEST, color
    )
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    session.run("coverage", "report", "--include=kassette/*", "--fail-under=100")
    print(f"\n{summary}")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the long simulations that `tests` leaves out."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Look for bytes that break a promise, guided by coverage; `-- --seconds N` for how long."""
    install(session, "test", "fuzz")
    session.run("python", "-m", "tests.fuzzing", *session.posargs)


@nox.session
def mutate(session: nox.Session) -> None:
    """Break the code in every small way and see a test fail; `-- [module …]`, `-- --sample N`."""
    install(session, "test")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulate for as long as you like; `-- --seconds 3600 --processes 2`, or `-- --help`."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def compat(session: nox.Session) -> None:
    """Run the tests on every Python that is supported and can be found here."""
    install(session, "test")
    session.run("python", *PYTEST, *session.posargs)


@nox.session(python=PROJECT["project"]["requires-python"].removeprefix(">="))
def oldest(session: nox.Session) -> None:
    """Run the tests on the oldest Python with the oldest version of everything that is declared."""
    pins = str(session.run("python", "-m", "tests.oldest", "test", silent=True))
    sdks = nox.project.dependency_groups(PROJECT, "sdks")
    session.install("-e", ".[all]", *pins.splitlines(), *sdks)
    session.run("python", *PYTEST, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of imports."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright."""
    install(session, "test", "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the code blocks of README.md and docs/."""
    install(session, "test")
    session.run("python", "-m", "pytest", "tests/docs", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or a name without a page fails it."""
    session.install(*nox.project.dependency_groups(PROJECT, "docs"))
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def browser(session: nox.Session) -> None:
    """Look at every page of the site in a Chromium, offline and at three widths.

    It needs a Chromium of the system's, and fails where there is none. `-- DIRECTORY` takes
    screenshots.
    """
    session.install(*nox.project.dependency_groups(PROJECT, "browser"))
    with tempfile.TemporaryDirectory() as tmp:
        build = ("mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp)
        session.run(*build, env={"NO_MKDOCS_2_WARNING": "1"})
        session.run("python", "-m", "tests.browser", tmp, *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the pages again: terminals and diagrams; needs npm and a Chromium."""
    install(session, "browser")
    session.run("python", "docs/state_diagram.py")
    session.run("python", "docs/pictures.py")
    with tempfile.TemporaryDirectory() as tmp:
        session.run("npm", "install", "--silent", "--prefix", tmp, "mermaid@11", external=True)
        mermaid = Path(tmp, "node_modules", "mermaid", "dist", "mermaid.min.js")
        session.run("python", "docs/diagrams.py", str(mermaid))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what durability costs; `-- --quick` for a short look."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel, check both, and use the wheel alone, as a stranger would."""
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as tmp:
        dist, venv, empty, source = (Path(tmp, x) for x in ("dist", "venv", "empty", "source"))
        session.run("python", "-m", "build", "--outdir", str(dist))  # the wheel, from the sdist
        (built,), (packed,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        session.run("twine", "check", "--strict", str(built), str(packed))
        check_contents(session, built, packed)
        session.run("python", "-m", "venv", str(venv))
        python = str(venv / "bin" / "python")
        empty.mkdir()
        for path in "README.md", "tests/examples/test_strangers_path.py":
            shutil.copy(path, empty)
        with session.chdir(empty):
            session.run(python, "-m", "pip", "install", "--quiet", str(built), external=True)
            session.run(python, "-c", USE_WHEEL, external=True)
            session.run(str(venv / "bin" / "kassette"), "--help", external=True, silent=True)
            wanted = (f"{built}[cli]", "pytest")
            session.run(python, "-m", "pip", "install", "--quiet", *wanted, external=True)
            session.run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", external=True)
        shutil.unpack_archive(packed, source, filter="data")
        (tree,) = source.iterdir()
        with session.chdir(tree):
            wanted = (f"{built}[all]", "hypothesis", "pytest", "pytest-timeout")
            session.run(python, "-m", "pip", "install", "--quiet", *wanted, external=True)
            session.run(python, "-m", "pytest", "-q", *TESTS_OF_THE_SDIST, external=True)


PACKAGES = ("kassette", "kassette_cli", "kassette_io")
TESTS_OF_THE_SDIST = (
    "tests/core/test_codec.py",
    "tests/test_distribution.py",
    "tests/test_release.py",
)

USE_WHEEL = """
import importlib, importlib.metadata, pathlib, sys
for name in "kassette", "kassette_io", "kassette_cli":
    here = pathlib.Path(importlib.import_module(name).__file__).parent
    assert here.is_relative_to(sys.prefix), f"{name} does not come from the wheel but from {here}"
assert importlib.metadata.entry_points(group="pytest11", name="kassette"), "no pytest plugin"
"""


def check_contents(session: nox.Session, wheel: Path, sdist: Path) -> None:
    """Fail unless the wheel holds the packages and nothing else, and the sdist the repository."""
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    code = {path.as_posix() for name in PACKAGES for path in Path(name).rglob("*.py")}
    code |= {f"{name}/py.typed" for name in PACKAGES}
    about = {each for each in installed if each.split("/")[0].endswith(".dist-info")}
    if installed - about != code or not any(each.endswith("/LICENSE") for each in about):
        session.error(f"the wheel differs from the packages in {(installed - about) ^ code}")
    with tarfile.open(sdist) as archive:
        packed = {each.partition("/")[2] for each in archive.getnames()}
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    files = session.run(*listing, external=True, silent=True)
    if tracked := set(str(files).splitlines()):
        if strange := packed - tracked - {"PKG-INFO"}:
            session.error(f"the sdist holds what the repository does not: {strange}")
        if missing := tracked - packed:
            session.error(f"the sdist lacks {missing}")
