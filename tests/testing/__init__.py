"""Tests of what kassette ships for testing."""
