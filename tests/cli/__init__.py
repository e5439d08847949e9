"""Tests of the `kassette` command."""
