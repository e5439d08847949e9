"""D3.1 for whatever can be declared: equal live and replayed, as result, input and payload, or refused."""

from __future__ import annotations

import copy
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, note, settings, strategies as st

from kassette_io import MemoryStorage, UsageError, start
from tests.io.generated_types import HASHABLE, LEAVES, Kind, kinds
from tests.io.keeping import every_way, strictly_same
from tests.io.stories import RUN, journal_types

LONG = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@LONG
@given(kinds(), st.data())
@pytest.mark.timeout(110)
def test_d3_1_a_value_of_any_declared_type_comes_back_equal_or_is_refused(
    kind: Kind, data: st.DataObject
) -> None:
    """If it fails, there is a type of which the journal loses content in silence."""
    value = data.draw(kind.values)
    note(f"declared: {kind.declared}")
    before = copy.deepcopy(value)
    try:
        seen, _ = anyio.run(every_way, kind.declared, value)
    except UsageError:
        return
    for each in seen:
        assert strictly_same(each, before), f"{before!r} came back as {each!r}"


@LONG
@given(st.sampled_from(LEAVES), st.data())
def test_d3_1_a_value_of_a_simple_type_comes_back(kind: Kind, data: st.DataObject) -> None:
    """If it fails, "or is refused" has become the rule: types that JSON can carry are refused."""
    value = data.draw(kind.values)
    seen, _ = anyio.run(every_way, kind.declared, value)
    assert all(strictly_same(each, value) for each in seen)


@LONG
@given(st.sampled_from(LEAVES), st.sampled_from(LEAVES), st.data())
def test_d3_1_a_value_of_another_type_is_refused_or_the_journals_form(
    declared: Kind, other: Kind, data: st.DataObject
) -> None:
    """If it fails, what is declared is not what the workflow gets."""
    value = data.draw(other.values)
    storage = MemoryStorage()

    async def step() -> Any:
        async with await start(storage, RUN) as run:
            return await run.record("a", lambda: value, result_type=declared.declared)

    try:
        given_back = anyio.run(step)
    except UsageError:
        assert anyio.run(journal_types, storage) == ["start"]
        return
    assert strictly_same(given_back, anyio.run(step)), "live is not replayed"
    if declared.declared in HASHABLE:
        assert type(given_back) is declared.declared
