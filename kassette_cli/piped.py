"""The verbs as they go into a pipe: arguments in, lines out; nothing is printed here."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import kassette
from kassette_cli import plain, verbs
from kassette_io.storages.local import LocalStorage

if TYPE_CHECKING:
    from argparse import Namespace

    from kassette_cli.summaries import RunSummary, Wanted
    from kassette_cli.verbs import OpenStorage


def lines(arguments: Namespace, storage: OpenStorage, stdout: int) -> Iterable[bytes]:
    """Do what the arguments ask and give what is to be printed; every item ends in a newline."""
    match arguments.verb:
        case "list":
            form = _bare if arguments.ids else plain.run_line
            return map(form, _run_ids(arguments, storage))
        case "status":
            entries = verbs.perform(storage, verbs.read_run, arguments.run)
            return [plain.status_line(kassette.run_status(entries))]
        case "dump":
            return _dump(arguments, storage, stdout)
        case "check":
            verbs.perform(storage, verbs.check_storage)
            return [plain.checked_line()]
        case "fork":
            forked = verbs.perform(
                storage,
                verbs.fork_run,
                arguments.run,
                from_offset=arguments.from_offset,
                from_step=arguments.from_step,
                new_run_id=arguments.new_run_id,
            )
            return [plain.run_line(forked)]
        case _:
            return map(plain.json_line, _analysis(arguments, storage))


def wanted_runs(arguments: Namespace) -> Wanted | None:
    """Give what ``list`` is to look for; None if it is to give every run."""
    if arguments.status is None and arguments.older_than is None:
        return None
    from kassette_cli.summaries import Wanted

    before = None
    if arguments.older_than is not None:
        try:
            before = datetime.now(UTC) - timedelta(seconds=arguments.older_than)
        except OverflowError:
            before = datetime.min.replace(tzinfo=UTC)
    statuses = None if arguments.status is None else frozenset(arguments.status)
    return Wanted(statuses=statuses, before=before)


def summaries(storage: OpenStorage, run_ids: list[str]) -> Iterator[RunSummary]:
    """Give runs in brief, in their order, each as soon as it has been read."""
    from kassette_cli.summaries import RunSummary, summarise, summarise_file

    if isinstance(storage, LocalStorage):
        directory = storage.directory
        for run_id in run_ids:
            yield summarise_file(directory, run_id)
        return
    with verbs.open_loop(storage) as call:
        for at in range(0, len(run_ids), verbs.TOGETHER):
            some = run_ids[at : at + verbs.TOGETHER]
            for run_id, found in zip(some, call(verbs.read_runs, some), strict=True):
                if isinstance(found, Exception):
                    yield RunSummary(run_id=run_id, status=found)
                else:
                    yield summarise(run_id, found)


def _run_ids(arguments: Namespace, storage: OpenStorage) -> Iterable[str]:
    wanted = wanted_runs(arguments)
    if wanted is None:
        return verbs.perform(storage, verbs.list_runs, arguments.limit)
    run_ids = verbs.perform(storage, verbs.list_runs)
    found = (each.run_id for each in summaries(storage, run_ids) if each in wanted)
    return islice(found, arguments.limit)


def _dump(arguments: Namespace, storage: OpenStorage, stdout: int) -> Iterable[bytes]:
    from kassette_cli import streams

    run_id, offset = arguments.run, arguments.offset
    if not arguments.follow:
        return map(plain.entry_line, streams.stream_run(storage, run_id, offset))
    batches = streams.follow_run(storage, run_id, offset, _while_read(stdout))
    return (b"".join(map(plain.entry_line, batch)) for batch in batches)


def _while_read(stdout: int) -> Callable[[float], None]:
    """Give a wait that ends with BrokenPipeError as soon as whoever reads the output has gone."""
    poll = select.poll()
    poll.register(stdout, 0)

    def wait(seconds: float) -> None:
        if any(event & select.POLLERR for _, event in poll.poll(seconds * 1000)):
            raise BrokenPipeError

    return wait


def _analysis(arguments: Namespace, storage: OpenStorage) -> Iterable[object]:
    if arguments.verb == "diff":
        from kassette_cli.difference import compare

        found = compare(*verbs.perform(storage, verbs.read_two, arguments.run, arguments.other))
        return [*(each.to_json() for each in found.differences), found.to_json()]
    entries = verbs.perform(storage, verbs.read_run, arguments.run)
    match arguments.verb:
        case "timeline":
            from kassette_cli.timeline import timeline

            return (span.to_json() for span in timeline(entries))
        case "steps":
            from kassette_cli.forkpoints import fork_points

            url: str = arguments.storage
            return [each.to_json(arguments.run, url) for each in fork_points(entries)]
        case _:
            raise kassette.InternalError(f"nobody does {arguments.verb!r}")


def _bare(run_id: str) -> bytes:
    return os.fsencode(run_id) + b"\n"
