"""The ``kassette`` command: looks into runs and forks them; JSON in a pipe, rich on a terminal.

A map for newcomers:

- ``main``       where it begins and ends: dispatch, error lines, exit codes
- ``arguments``  the command line, in the words of ``manual``
- ``completion`` what shells complete it with
- ``verbs``      storage in, values out
- ``streams``    journals entry by entry, and journals that still grow
- ``summaries``  runs in brief, from the ends of their journals
- ``timeline``, ``forkpoints``, ``difference``  what is told from entries, as values
- ``piped``      the verbs as they go into a pipe
- ``plain``      values as JSON lines, the contract that programs read
- ``escaping``, ``pasting``, ``units``  text that is safe to show, commands, durations and sizes

On a terminal only, and only then imported:

- ``terminal``   the verbs as they go there, and the progress of what takes longer than a moment
- ``evidence``   what is shown there beyond the contract
- ``pretty``, ``views``, ``listing``  values as people read them
"""
