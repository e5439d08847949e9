"""Whole systems of sessions, crashes, clocks, disks and stores, simulated from one integer seed."""
