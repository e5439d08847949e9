"""Analyses of a journal: entries in, findings out, one file per question; no IO, no output.

- ``spans``        how long each session, step and wait took
- ``found``        what a session finds of an earlier one that never ended
- ``open_waits``   the events that a run still waits for
- ``diagnosis``    what became of a run, why it stopped, and what to do next
- ``advice``       the call or command that is safe to follow
- ``pending``      the open waits of a run, each with the call that answers it
- ``sessions``     which process and which code wrote each session
- ``deliveries``   which events were delivered, by whom, and what became of each
- ``fork_points``  where a run can be forked, and what the fork replays
- ``difference``   where two runs diverge
- ``summary``      a summary of a run, for a long journal from its head and tail alone

A finding's ``to_json`` is the form that programs read. Everything here imports only the core, which
does not import it: reports, exporters and the command are built on it.
"""
