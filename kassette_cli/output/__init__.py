"""Output formats: JSON lines for programs, rich text for a terminal, and safe text for both.

- ``json_lines``  values as JSON lines, the contract that programs read
- ``pieces``      building blocks of the terminal views
- ``terminal``    the console and its progress displays
- ``escaping``, ``pasting``, ``units``  text that is safe to show, commands, durations and sizes

Nothing here knows a verb, reads a journal or opens a storage.
"""
