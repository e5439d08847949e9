"""The ``kassette`` command: inspects and forks runs; JSON in a pipe, rich text on a terminal.

A map for newcomers:

- ``main``        entry point: dispatch, error lines, exit codes
- ``parser``      the command line; ``misuse`` has the exceptions it raises
- ``table``       which verbs there are
- ``verbs``       one file per verb, with everything about that verb
- ``storage``     the storage to read, and how verbs query it
- ``journals``    journals entry by entry, also while they grow
- ``output``      how results look, in a pipe and on a terminal
- ``interrupts``  Ctrl-C, even while the main thread is blocked

Analyses of journals are computed in ``kassette.evidence``, not here.
"""
