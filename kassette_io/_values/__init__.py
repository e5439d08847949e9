"""How values of declared types are checked, written and rebuilt; ``typed`` is the door.

- ``annotations``, ``type_forms``  what was declared, resolved and taken apart
- ``compiling``     a declared type becomes what writes and rebuilds its values
- ``json_types``, ``containers``, ``shapes``, ``models``, ``answers``  the kinds of type there are
- ``numbers``       ints that stand for floats in models
- ``sameness``      whether what is rebuilt equals what was given
- ``given``         whether JSON that was given says what was read of it

Nothing here knows a run or a journal. All of it is internal: nothing here is promised to programs.
"""
