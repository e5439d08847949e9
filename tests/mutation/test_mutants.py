"""The mutator itself: which mistakes it makes, and that a listed survivor can be found again."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation import trial
from tests.mutation.__main__ import Name, choose, draw, name_of, read_lists
from tests.mutation.children import forked
from tests.mutation.mutants import mutants_of
from tests.mutation.suites import NOT_JUDGED, ROOT, SUITES, files_of, path_of

CODE = '''
"""A docstring, with text."""
from x import y

LIMIT: int = 5

def clamp(value: int, least: int = 0) -> int:
    """Not this."""
    if value < least and not y:
        raise ValueError("a message with spaces")
    for each in [one for one in value if one]:
        log(each)
    match value:
        case 1 if y:
            return min(value, LIMIT)
        case _:
            return cast("int", value)
'''
EXPECTED = {
    "5 -> 6",
    "0 -> 1",
    "value < least and (not y) -> value < least",
    "value < least and (not y) -> value < least or not y",
    "value < least -> value <= least",
    "value < least -> value >= least",
    "not y -> y",
    "raise ValueError('a message with spaces') -> pass",
    "one -> True",
    "log(each) -> pass",
    "1 -> never",
    "y -> nothing",
    "min(value, LIMIT) -> None",
    "min(value, LIMIT) -> max(value, LIMIT)",
}


def test_the_small_mistakes_are_made_and_the_meaningless_ones_are_not() -> None:
    """A class of mistakes would go untried, or the list fill up with changes of messages."""
    made = {f"{each.old} -> {each.new}" for each in mutants_of("m", ast.parse(CODE))}
    assert made >= EXPECTED
    assert not [each for each in made if "docstring" in each or "spaces'X" in each]
    assert not [each for each in made if each.startswith(("'int'", "x ->", "y -> y"))]


def test_every_mutant_is_another_program_that_compiles_and_has_a_name_of_its_own() -> None:
    """A mutant that changes nothing would survive for ever; two of one name would hide each other."""
    plain = ast.unparse(ast.parse(CODE))
    names = [(each.where, each.key) for each in mutants_of("m", ast.parse(CODE))]
    assert len(names) == len(set(names))
    for number in range(len(names)):
        tree = ast.parse(CODE)
        mutants_of("m", tree)[number].apply()
        compile(tree, "m", "exec")
        assert ast.unparse(tree) != plain


def test_a_mutant_keeps_its_name_when_its_statement_moves() -> None:
    """Every edit of a module would make its list of survivors stale."""
    moved = CODE.replace("LIMIT: int = 5\n", "LIMIT: int = 5\nMORE = None\n")
    names = [{each.key for each in mutants_of("m", ast.parse(code))} for code in (CODE, moved)]
    assert names[0] == names[1]


def test_every_listed_survivor_is_a_mutant_and_has_a_reason() -> None:
    """The list would excuse what is no longer there."""
    made: set[Name] = set()
    for suite in SUITES:
        for module in suite.modules:
            tree = ast.parse(path_of(module).read_text())
            made |= {name_of(each) for each in mutants_of(module, tree)}
    listed = read_lists()
    assert listed.keys() <= made
    assert [reason for reason in listed.values() if len(reason) <= 20] == []


def test_every_module_is_judged_by_one_suite() -> None:
    """A module would be added, and no mutant of it ever tried."""
    judged = [module for suite in SUITES for module in suite.modules]
    packages = (ROOT / each for each in ("kassette", "kassette_io", "kassette_cli"))
    written = {path for package in packages for path in package.rglob("*.py")}
    assert len(judged) == len(set(judged))
    assert written - {path_of(each) for each in judged} == NOT_JUDGED
    assert all((ROOT / file).is_file() for suite in SUITES for file in files_of(suite))


def test_modules_are_chosen_by_name_by_its_last_part_or_by_any_package_around_them() -> None:
    """Whoever asks for one folder would have to write down its files, and forget the new ones."""
    every = choose([])
    assert choose(["kassette.waits"]) == choose(["waits"]) == ["kassette.waits"]
    assert choose(["kassette_cli.output.units", "waits"]) == [
        "kassette.waits",
        "kassette_cli.output.units",
    ]
    for package in ("kassette", "kassette.evidence", "kassette_io.testing", "kassette_cli.verbs"):
        inside = [each for each in every if f"{each}.".startswith(f"{package}.")]
        assert choose([f"{package}.*"]) == inside != []
    with pytest.raises(SystemExit, match=r"no module kassette\.evidenc\.\*, wait\. There are "):
        choose(["kassette.evidenc.*", "wait", "waits"])


def test_a_sample_is_the_same_for_its_seed_and_leaves_out_what_is_known_to_survive() -> None:
    """CI would be red one day and green the next, for another reason than a change."""
    modules = ["kassette.naming", "kassette_cli.output.units"]
    drawn = draw(modules, {}, 20, "1")
    assert len(drawn) == 20
    assert drawn == draw(modules, {}, 20, "1")
    assert drawn != draw(modules, {}, 20, "2")
    known = dict.fromkeys(list(drawn)[:5], "it is known")
    assert len(draw(modules, known, 20, "1") & drawn) == 15
    assert {module for module, _, _ in drawn} == set(modules)


PRINTING = """
import os, sys
print(os.environ["A"], os.getcwd(), sys.argv[1:], sys.mark, flush=True)
print("é", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit(3)", 3), ("os._exit(4)", 4), ("1/0", 1), ("sys.exit('no')", 1)],
)
def test_a_python_process_is_a_fork_that_behaves_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, code: int
) -> None:
    """Tests of the command would judge the code on the disk, or another command than users have."""
    monkeypatch.setattr(sys, "mark", "as in the parent", raising=False)
    program = [sys.executable, "-c", PRINTING + ending, "x", "y"]
    told = tmp_path / "told"
    with forked(at_exit=told.touch):
        done = subprocess.run(
            program,
            env={"A": "1"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    assert told.exists()
    assert done.returncode == code
    assert done.stdout.decode() == f"1 {tmp_path} ['x', 'y'] as in the parent\n"
    assert done.stderr.decode().startswith("é\n")


def test_every_other_program_is_executed() -> None:
    """A test of bash would run something else."""
    with forked():
        done = subprocess.run(["sh", "-c", "echo $0"], capture_output=True, check=True)
    assert done.stdout == b"sh\n"


@pytest.mark.parametrize("code", [trial.SURVIVED, trial.KILLED])
def test_a_trial_ends_whatever_its_tests_have_closed(code: int) -> None:
    """Each trial would go on as a bench of its own, and soon there would be thousands."""

    def work() -> int:
        sys.stdout.close()
        return code

    bench = os.getpid()
    pid, status = trial.wait(trial.fork(work))
    assert os.getpid() == bench
    assert pid != bench
    assert os.waitstatus_to_exitcode(status) == code


JUDGED = """
from judged import ran

def test_quick():
    assert ran(2) == 3

def test_slow():
    assert ran(3) == 4
"""
MUTATED = """
USED = 1
UNUSED = 2

def ran(value):
    return value + USED

def never_run(value):
    return value + 1
"""


def test_only_what_a_test_tells_is_killed(tmp_path: Path) -> None:
    """Figures would be better than the tests: code that no test runs cannot be killed."""
    (tmp_path / "judged.py").write_text(MUTATED)
    (tmp_path / "test_judged.py").write_text(JUDGED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    program = f"""
import ast, os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
sys.path.insert(0, {str(tmp_path)!r})
from tests.mutation import trial
from tests.mutation.mutants import mutants_of
os.chdir({str(tmp_path)!r})
path = Path("judged.py").resolve()
source = path.read_text()
tell = os.dup(1)

def work(bench):
    bench.measure()
    tree = ast.parse(source)
    for mutant in mutants_of("judged", tree):
        pid = trial.fork(lambda: bench.judge(mutant, path, tree))
        verdict = "survived" if trial.wait(pid)[1] == trial.SURVIVED else "killed"
        os.write(tell, f"{{mutant.where}}: {{mutant.old}} -> {{mutant.new}} {{verdict}}\\n".encode())

trial.run_bench(Path("."), ["test_judged.py"], ["judged"], work, 60.0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.endswith(("killed", "survived"))]
    assert sorted(told) == [
        ": 1 -> 2 killed",
        ": 2 -> 3 survived",
        "never_run: 1 -> 2 survived",
        "never_run: value + 1 -> None survived",
        "never_run: value + 1 -> value - 1 survived",
        "ran: value + USED -> None killed",
        "ran: value + USED -> value - USED killed",
    ], done.stdout + done.stderr
