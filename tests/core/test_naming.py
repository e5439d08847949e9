"""Names: run ids (D10), step names and branch keys (D8), event names and labels."""

from __future__ import annotations

from typing import Any

import pytest

from kassette import UsageError, check_run_id, is_run_id
from kassette.naming import (
    check_branch_key,
    check_event_name,
    check_label,
    check_step_name,
    full_step_name,
)

ALLOWED = "ABCXYZabcxyz0189._-:@+"


@pytest.mark.parametrize(
    "run_id", ["a", "0", "-", "_x", ":", "@", "+", "a.b", "a..", "a" * 200, ALLOWED]
)
def test_d10_usable_run_ids(run_id: str) -> None:
    """A legal run id would be refused."""
    assert check_run_id(run_id) == run_id
    assert is_run_id(run_id)


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        ".",
        "..",
        ".a",
        "a/b",
        "../a",
        "a\\b",
        "a b",
        "a\n",
        "\na",
        "a\0",
        "ü",
        "٣",
        "a" * 201,
        "a%2f",
    ],
)
def test_d10_unusable_run_ids(run_id: str) -> None:
    """A run id would leave its directory, hide itself, or be another one on another system."""
    assert not is_run_id(run_id)
    with pytest.raises(UsageError, match="is not a valid run id") as caught:
        check_run_id(run_id)
    assert repr(run_id) in str(caught.value)


@pytest.mark.parametrize("run_id", [None, 5, b"a", ["a"]])
def test_d10_a_run_id_is_text(run_id: Any) -> None:
    """Something that is no text would fail deep inside a storage."""
    with pytest.raises(UsageError):
        check_run_id(run_id)


CHECKS = {
    "step": (check_step_name, "#"),
    "key": (check_branch_key, "#:"),
    "event": (check_event_name, ""),
    "label": (lambda text: check_label("a reason", text), ""),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_d8_reserved_characters(kind: str) -> None:
    """A separator inside a name would make two different steps one."""
    check, forbidden = CHECKS[kind]
    for character in "#:":
        name = f"a{character}b"
        if character in forbidden:
            with pytest.raises(UsageError, match="reserved") as caught:
                check(name)
            assert repr(character) in str(caught.value)
        else:
            assert check(name) == name


@pytest.mark.parametrize("kind", CHECKS)
def test_names_are_text_that_can_be_written(kind: str) -> None:
    """A name would be refused by the encoder, with an error that does not say which."""
    check, _ = CHECKS[kind]
    for name in ("", None, 3, b"x"):
        with pytest.raises(UsageError, match="non-empty string"):
            check(name)
    with pytest.raises(UsageError, match="a lone surrogate"):
        check("cut \ud83d")
    for name in ("ü", "🙂", " ", "a\nb", '"', "x" * 10_000):
        assert check(name) == name


def test_d8_full_name_joins_path_and_name() -> None:
    """Journals could not be exchanged with the reference implementation."""
    assert full_step_name((), "search") == "search"
    assert full_step_name(("x",), "search") == "x:search"
    assert full_step_name(("x", "y"), "tool:search") == "x:y:tool:search"


def test_d8_names_are_free_but_for_the_reserved_characters() -> None:
    """A name that has always been fine would be refused, and its journal could not go on."""
    name = "Xx-1_ü. /"
    checked = (check_step_name, check_branch_key, check_event_name)
    assert [check(name) for check in checked] == [name] * 3
    assert check_label("a version", name + "#:") == name + "#:"
    assert check_event_name(name + "#:") == name + "#:"
