"""Tests of the sans-IO core: no event loop, no file, no clock, no sleeping."""
