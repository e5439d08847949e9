"""What the processes of the reader tests do: read one journal over and over, without a lock."""

from __future__ import annotations

from kassette import JournalCorruptionError, StepEntry
from kassette_io.storages.local_journal import LocalJournal

from .processes import Channel

TORN = "torn"


def read_for_ever(channel: Channel, *, directory: str, run_id: str) -> None:
    """Read until something is found that was never committed."""
    journal = LocalJournal(directory, run_id)
    channel.send("reading")
    while True:
        try:
            entries, _ = journal.read()
        except JournalCorruptionError as error:
            channel.send(str(error))
            return
        if any(isinstance(entry, StepEntry) and entry.name == TORN for entry in entries):
            channel.send("an entry that was never whole")
            return
