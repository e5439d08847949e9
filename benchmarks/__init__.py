"""What durability costs, always as a ratio to a floor that is measured in the same breath.

A map for newcomers:

- ``step``, ``concurrent``, ``replay``, ``typed``, ``growth``, ``opening``, ``imports``  one each
- ``harness``   contestants in processes of their own, whose rounds alternate
- ``worker``    one such process
- ``report``    medians, ratios, tables
- ``payloads``, ``inline``  the results that are recorded; the plain loop to be compared with
- ``machine``   where this ran, above all on which file system

``python -m benchmarks --help`` says how to run them. Figures are for the reader: absolute times
mean little from one machine to the next, and no exit code depends on them.
"""
