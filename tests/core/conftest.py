"""How Hypothesis runs here: without a clock, and alike on every machine."""

from hypothesis import settings

settings.register_profile("core", deadline=None, derandomize=True, database=None)
settings.load_profile("core")
