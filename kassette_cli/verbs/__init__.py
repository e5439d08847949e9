"""The verbs: a file for each, and everything about that verb in it; ``table`` finds them.

Every module of this package is a verb of its name. It has, in this order:

- ``PLACE``          where it stands in the help, between which others
- ``SUMMARY``, ``DESCRIPTION``  its words: in a line, and in more
- ``add_arguments(parser)``  what it takes
- ``async find(storage, arguments)``  the answer, as a value
- ``lines(found, arguments)``  that value as JSON lines, each of which ends in a newline
- ``view(found, arguments)``  that value as rich renderables

It may have more:

- ``find_to_view``   finds what ``view`` is given, where that is more than ``lines`` needs
- ``PROGRESS``       what a terminal says while something is found, if that takes a moment
- ``stream_lines(storage, arguments, stdout)``, ``stream_view(storage, arguments, console)``  in
  place of the three: for an answer that comes bit by bit
- ``prints_lines(arguments)``  whether lines are wanted on a terminal as well
- ``is_live(arguments)``  whether each line is written as soon as it is there
- ``WRITES``         whether it writes to the storage
- ``OFFERED``        what a shell offers behind an option of it

A verb that finds nothing, as it has neither ``find`` nor ``stream_lines``, needs no storage.

Start-up time is part of the product: a call imports its own verb and no other, and a verb's module
imports at its top what ``--help`` needs, and nothing that knows event loops or rich.
"""
