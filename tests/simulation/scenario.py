"""One schedule from its choices: who does what to which run, and what befalls them; no judgement.

Workers deliver the run as a dispatcher does, again and again, and answer its waits, each with a
value of its own; senders deliver events again and again, asked or not; a process that died is
replaced. Some of them are tasks of one process, and share its storage. A forker branches runs off
while the source is written, a looker reads it again and again. In the end the faults stop, and one
more process must be able to bring every run to an end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from kassette import (
    EventPendingError,
    FencedError,
    KassetteError,
    RunCancelledError,
    SessionClosedError,
    StorageError,
    SuspendedError,
    TerminalRunError,
    UsageError,
    WriteContentionError,
)
from kassette_io.context import Context
from kassette_io.results import Failed, Success, Suspended
from kassette_io.storages.local import LocalStorage
from kassette_io.storages.remote import RemoteStorage
from kassette_io.workflows import Workflow
from tests.simulation.choices import Choices
from tests.simulation.disk import Disk
from tests.simulation.history import ONLY_READ, UNKNOWN_SESSION, Forked, History, Outcome
from tests.simulation.invariants import check
from tests.simulation.programs import EVENTS, PROGRAMS, Kit, Program
from tests.simulation.store import FAULTS, Store
from tests.simulation.watched import Watched
from tests.simulation.wiring import connect
from tests.simulation.world import Process, World, complete

RUN = "run"
DIRECTORY = "/data/runs"
TERMINAL_KINDS = {"complete": "completed", "error": "failed", "cancel": "cancelled"}
OF_THE_WORLD = (StorageError, WriteContentionError, FencedError, SessionClosedError)


Work = Callable[[Watched], None]


class Plan:
    """What a schedule is made of."""

    __slots__ = (
        "clock_jumps",
        "crash_rate",
        "crashes",
        "deliveries",
        "failing",
        "faults",
        "faults_at_most",
        "forks",
        "full",
        "kinds",
        "local",
        "lookers",
        "power_losses",
        "program",
        "restarts",
        "senders",
        "shared",
        "switching",
        "workers",
    )

    def __init__(self, *, local: bool, program: Program) -> None:
        self.local = local
        self.program = program
        self.workers = 2
        self.deliveries = 1
        self.restarts = self.crashes = self.power_losses = self.forks = self.senders = 0
        self.lookers = self.clock_jumps = 0
        self.shared = False
        self.faults = self.full = self.failing = 0.0
        self.faults_at_most = 1000
        self.kinds: tuple[str, ...] = ()
        self.switching, self.crash_rate = 0.5, 0.06

    @classmethod
    def drawn(cls, choices: Choices, *, local: bool) -> Plan:
        """Draw a plan. It has few kinds of faults, so that they meet each other."""
        plan = cls(local=local, program=PROGRAMS[choices.below(len(PROGRAMS))])
        name = plan.program.__name__
        plan.workers = 1 + choices.below(3)
        plan.deliveries, plan.restarts = 3, 4
        plan.shared = choices.chance(0.3)
        plan.crashes = choices.below(4)
        plan.forks = 1 if choices.chance(0.2) else 0
        plan.lookers = 1 if choices.chance(0.2) else 0
        plan.senders = choices.below(3) if name in EVENTS else 0
        plan.clock_jumps = choices.below(3) if name == "deadline" else 0
        if local:
            plan.power_losses = choices.below(3)
            plan.crash_rate = (0.02, 0.1)[choices.below(2)]
            plan.full = (0.0, 0.05, 0.3)[choices.below(3)]
            plan.failing = (0.05, 0.3)[choices.below(2)] if choices.chance(0.2) else 0.0
        else:
            plan.faults = (0.0, 0.1, 0.4)[choices.below(3)]
            plan.failing = plan.faults / 4
            plan.kinds = tuple(FAULTS[choices.below(len(FAULTS))] for _ in range(3))
        plan.switching = (0.1, 0.02, 0.5)[choices.below(3)]
        return plan


class Scenario:
    """One schedule."""

    def __init__(self, choices: Choices, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.world = World(choices, tracing=tracing)
        self.history = History(exclusive=plan.local and not plan.failing)
        self.disk = Disk(self.world)
        self.store = Store(self.world)
        self._processes: list[tuple[Process, tuple[Work, ...]]] = []
        self._runs = {RUN}
        self._restarts = plan.restarts
        self._flows: dict[Watched, Workflow[Any, Any]] = {}
        self.world.on_crash = self._replace
        self.world.on_power_loss = self._lose_power
        self.store.on_put = self._put
        connect(self.world, self.disk)

    def run(self) -> None:
        """Let it happen; raises the Violation."""
        world, plan = self.world, self.plan
        world.say(f"{'disk' if plan.local else 'store'}, workflow {plan.program.__name__!r}")
        works = [self._work] * plan.workers + [self._send] * plan.senders
        works += [self._fork] * plan.forks + [self._look] * plan.lookers
        if plan.shared:
            self._begin("P", *works)
        else:
            for number, work in enumerate(works):
                self._begin(f"P{number + 1}", work)
        self._let_go_wrong()
        world.run()
        if world.abandoned:
            return
        self._mend()
        self._begin("last", self._finish)
        world.run()
        if world.abandoned:
            return
        for run_id in self._runs:
            self.history.journals[run_id] = self._visible(run_id)
            self.history.unsynced[run_id] = self.disk.refused.get(_path(run_id), set())
        try:
            check(self.history)
        except BaseException as violation:
            world.say(f"VIOLATION of {violation}")
            raise

    def _let_go_wrong(self) -> None:
        world, plan = self.world, self.plan
        world.switch_rate = plan.switching
        world.crash_rate = plan.crash_rate
        world.crashes_left = plan.crashes
        world.power_losses_left = plan.power_losses
        world.clock_jumps_left = plan.clock_jumps
        self.store.fault_rate, self.store.faults = plan.faults, plan.kinds
        self.store.failing_rate, self.store.faults_left = plan.failing, plan.faults_at_most
        self.disk.full_rate, self.disk.failing_rate = plan.full, plan.failing

    def _mend(self) -> None:
        world = self.world
        world.crashes_left = world.power_losses_left = world.clock_jumps_left = 0
        self.store.fault_rate = self.store.failing_rate = self.disk.full_rate = (
            self.disk.failing_rate
        ) = 0.0
        if self.plan.power_losses:
            world.say("POWER LOSS")
            self.disk.lose_power()
        self._processes.clear()

    # --- processes -------------------------------------------------------------------------

    def _begin(self, name: str, *works: Work) -> None:
        """Begin a process whose tasks share one storage."""
        process = Process(name)
        self._processes.append((process, works))
        inner = LocalStorage(DIRECTORY) if self.plan.local else RemoteStorage(self.store)
        for number, work in enumerate(works):
            task = name if number == 0 else f"{name}/{number + 1}"
            watched = Watched(inner, self.world, self.history, task, self._durable, self._visible)
            self.world.spawn(process, f"task {number + 1}", partial(work, watched))

    def _replace(self, dead: list[Process]) -> None:
        self.disk.died(dead)
        for process, works in list(self._processes):
            if process in dead:
                self._processes.remove((process, works))
                if self._restarts:
                    self._restarts -= 1
                    name, _, life = process.name.partition(".")
                    self._begin(f"{name}.{int(life or 1) + 1}", *works)

    def _lose_power(self) -> list[Process]:
        self.disk.lose_power()
        return [process for process, _ in self._processes]

    # --- what processes do -----------------------------------------------------------------

    def _work(self, storage: Watched) -> None:
        for delivery in range(self.plan.deliveries):
            if delivery:
                self.world.sleep(self.world.choices.below(3))
            if self._deliver(storage, RUN):
                return

    def _send(self, storage: Watched) -> None:
        """Deliver an event again and again, whether the run waits for it (still) or not."""
        world = self.world
        events = EVENTS[self.plan.program.__name__]
        event, value = events[world.choices.below(len(events))], f"from {storage.owner}"
        for _ in range(self.plan.deliveries):
            for _ in range(world.choices.below(8)):
                world.pause("idle")
            try:
                self._call(RUN, lambda flow: flow.resume(RUN, event, value), storage)
            except TerminalRunError:
                return
            except (*OF_THE_WORLD, RunCancelledError, UsageError) as error:
                world.say(f"the event is refused: {error}")

    def _look(self, storage: Watched) -> None:
        """Read the run again and again."""
        for _ in range(2 * self.plan.deliveries):
            for _ in range(self.world.choices.below(12)):
                self.world.pause("idle")
            try:
                complete(storage.read_all(RUN))
            except StorageError as error:
                self.world.say(f"the look fails: {error}")

    def _finish(self, storage: Watched) -> None:
        for run_id in sorted(self._runs):
            for _ in range(8):
                if self._deliver(storage, run_id):
                    break
            else:
                raise self.world.broken("bounded", f"{run_id} cannot be brought to an end")

    def _fork(self, storage: Watched) -> None:
        for _ in range(2):
            for _ in range(self.world.choices.below(12)):
                self.world.pause("idle")
            try:
                size = len(complete(storage.read_all(RUN)))
                if not size:
                    continue
                cut = self.world.choices.below(size + 1)
                run_id = f"fork-{self.world.count()}"
                self._runs.add(run_id)
                storage.forking = Forked(0, run_id, RUN, cut)
                self._call(
                    run_id,
                    lambda flow, cut=cut, run_id=run_id: flow.fork(  # type: ignore[misc]
                        RUN, from_offset=cut, run_id=run_id
                    ),
                    storage,
                )
            except (*OF_THE_WORLD, UsageError) as error:
                self.world.say(f"the fork fails: {error}")

    def _deliver(self, storage: Watched, run_id: str) -> bool:
        """Start the run, or answer what it waits for; tell if it is over."""
        world = self.world
        try:
            try:
                kind = self._call(run_id, lambda flow: flow.start(run_id=run_id), storage)
            except EventPendingError as pending:
                event, value = pending.waiting_for, f"from {storage.owner}"
                kind = self._call(run_id, lambda flow: flow.resume(run_id, event, value), storage)
        except TerminalRunError as over:
            kind = TERMINAL_KINDS[over.terminal_state]
            self._note(run_id, ONLY_READ, kind, "")
        except RunCancelledError:
            kind = "cancelled"
            self._note(run_id, UNKNOWN_SESSION, kind, "")
        except OF_THE_WORLD as error:
            world.say(f"the delivery fails: {error}")
            return False
        except (EventPendingError, UsageError) as error:
            world.say(f"the delivery is refused: {error}")
            return False
        except KassetteError as error:
            raise world.broken("only_expected_errors", repr(error)) from error
        return kind in TERMINAL_KINDS.values()

    def _call(self, run_id: str, act: Callable[[Workflow[Any, Any]], Any], storage: Watched) -> str:
        flow = self._flows.get(storage) or self._flow(storage)
        outcome = complete(act(flow))
        kind, detail = "completed", ""
        match outcome:
            case Success():
                pass
            case Suspended(event=event):
                kind, detail = "suspended", event
                self._check_waits(run_id, storage)
            case Failed(error=error):
                kind, detail = "failed", repr(error)
                if isinstance(error, KassetteError) and not isinstance(
                    error, (*OF_THE_WORLD, SuspendedError)
                ):
                    raise self.world.broken("only_expected_errors", repr(error)) from error
        self._note(run_id, storage.session, kind, detail)
        return kind

    def _check_waits(self, run_id: str, storage: Watched) -> None:
        """See that every event the function has asked for can be delivered."""
        lines = map(orjson.loads, self._visible(run_id).splitlines())
        written = {line["waitingFor"] for line in lines if line["type"] == "suspend"}
        asked = [] if storage.kit is None else storage.kit.asked
        for event in asked:
            if event not in written:
                raise self.world.broken("every_wait_is_written", f"{run_id}: {event} is not")

    def _flow(self, storage: Watched) -> Workflow[Any, Any]:
        async def function(ctx: Context) -> None:
            storage.session = ctx._run.session
            kit = Kit(self.world, self.history, ctx, storage.session)
            kit.earlier, storage.kit = storage.kit, kit
            await self.plan.program(kit)

        flow = self._flows[storage] = Workflow(function, storage=storage)
        return flow

    def _note(self, run_id: str, session: int, kind: str, detail: str) -> None:
        self.world.say(f"{run_id}: {kind} {detail}")
        self.history.outcomes.append(Outcome(self.history.tick(), run_id, session, kind, detail))

    # --- what storage holds ----------------------------------------------------------------

    def _durable(self, run_id: str) -> bytes:
        if self.plan.local:
            return self.disk.durable(_path(run_id))
        return self.store.bodies.get(f"{run_id}/journal.jsonl", b"")

    def _visible(self, run_id: str) -> bytes:
        if self.plan.local:
            inode = self.disk.names.get(_path(run_id))
            return b"" if inode is None else inode.data
        return self.store.bodies.get(f"{run_id}/journal.jsonl", b"")

    def _put(self, key: str, old: bytes, new: bytes) -> None:
        if not new.startswith(old):
            raise self.world.broken("committed_entries_stay", f"{key} is overwritten")


def _path(run_id: str) -> str:
    return f"{DIRECTORY}/{run_id}.jsonl"
