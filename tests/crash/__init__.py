"""Real processes, real signals, real disks against LocalStorage."""
