"""Tests against real S3 servers, through a real proxy where something must go wrong."""
