"""The verbs: one file per verb, with everything about that verb; ``table`` finds them.

Every module of this package is the verb of that name. It defines, in this order:

- ``PLACE``          its position in the help, relative to the others
- ``SUMMARY``, ``DESCRIPTION``  its help text: one line, and the rest
- ``add_arguments(parser)``  its arguments
- ``async find(storage, arguments)``  the result, as a value
- ``lines(found, arguments)``  that value as JSON lines, each ending in a newline
- ``view(found, arguments)``  that value as rich renderables

It may also define:

- ``find_to_view``   finds the value for ``view``, where that needs more than ``lines``
- ``PROGRESS``       what a terminal shows while ``find`` takes longer than a moment
- ``stream_lines(storage, arguments, stdout)``, ``stream_view(storage, arguments, console)``
  instead of ``find``, ``lines`` and ``view``: for a result that is printed as it is read
- ``prints_lines(arguments)``  whether to print lines on a terminal as well
- ``exit_code(found)``  the exit code that the result stands for, if that may be other than 0
- ``is_live(arguments)``  whether to write each line as soon as it is available
- ``WRITES``         whether it writes to the storage
- ``OFFERED``        the completions a shell offers for the values of its options

A verb with neither ``find`` nor ``stream_lines`` needs no storage.

Start-up time is part of the product: a call imports its own verb and no other, and a verb's module
imports at its top only what ``--help`` needs, neither event loops nor rich.
"""
