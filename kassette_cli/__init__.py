"""The ``kassette`` command: looks into runs and forks them; JSON in a pipe, rich on a terminal.

A map for newcomers:

- ``main``        where it begins and ends: dispatch, error lines, exit codes
- ``parser``      the command line; ``misuse`` is what it can be beside a command
- ``table``       which verbs there are
- ``verbs``       a file for each verb, and everything about that verb in it
- ``storage``     the storage that is looked into, and how verbs ask it
- ``journals``    journals entry by entry, and journals that still grow
- ``output``      how answers look, in a pipe and on a terminal
- ``interrupts``  Ctrl-C, also where Python does not feel it

What journals tell is not computed here but in ``kassette.evidence``.
"""
