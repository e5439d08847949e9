"""The ``kassette`` command: looks into runs and forks them; JSON in a pipe, rich on a terminal.

A map for newcomers:

- ``main``       where it begins and ends: dispatch, error lines, exit codes
- ``arguments``  the command line
- ``verbs``      storage in, values out
- ``plain``      values as JSON lines, the contract that programs read
- ``escaping``   text that is safe to show

On a terminal only, and only then imported:

- ``terminal``   the verbs as they go there, and the progress of what takes longer than a moment
- ``evidence``   what is shown there beyond the contract
- ``pretty``     values as people read them
"""
