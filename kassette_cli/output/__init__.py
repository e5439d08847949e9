"""How answers look: JSON lines for programs, rich for people, and text that is safe in both.

- ``json_lines``  values as JSON lines, the contract that programs read
- ``pieces``      what people are shown is made of
- ``terminal``    the console, and the progress of what takes longer than a moment
- ``escaping``, ``pasting``, ``units``  text that is safe to show, commands, durations and sizes

Nothing here knows a verb, reads a journal or opens a storage.
"""
