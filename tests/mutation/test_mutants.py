"""The mutator itself: which mistakes it makes, and that a listed survivor can be found again."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from tests.mutation.mutants import mutants_of

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
    root = Path(__file__).parents[2]
    listed = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text())["survivors"]
    for group in listed:
        path = root / f"{group['module'].replace('.', '/')}.py"
        made = mutants_of(group["module"], ast.parse(path.read_text()))
        assert {(group["where"], key) for key in group["mutants"]} <= {
            (each.where, each.key) for each in made
        }
        assert len(group["reason"]) > 20
