"""What a journal tells: entries in, findings out, one file for each question; no IO, nothing shown.

- ``spans``        who took how long, and the gaps between
- ``found``        what a session finds of one before it that never ended
- ``open_waits``   the events that a run still waits for
- ``fork_points``  where a run can be forked, and what that keeps
- ``difference``   where two runs part
- ``summary``      a run in brief, also from the ends of a long journal alone

A finding's ``to_json`` is the form that programs read. Everything here imports only the core, which
does not know it: a report, an exporter and the command are built on it alike.
"""
