"""Checks, encodes and decodes values of declared types; ``typed`` is the entry point.

- ``annotations``, ``type_forms``  resolve declared types and take them apart
- ``compiling``     turns a declared type into a codec for its values
- ``json_types``, ``containers``, ``shapes``, ``models``, ``answers``  the kinds of types
- ``numbers``       ints in the place of floats in models
- ``sameness``      whether a decoded value equals the original
- ``given``         whether JSON from a caller means what was decoded from it

Nothing here knows a run or a journal. The package is internal and not a stable API.
"""
