"""The differences between asyncio and trio, and work outside of any loop; nothing knows a run.

- ``threads``       threads that end with the process, for blocking calls
- ``waiting``       tasks, waking and shielding, in terms that both loops share
- ``waiting_asyncio``, ``waiting_trio``  the implementation for each loop
- ``asyncio_home``  an asyncio loop in its own thread, for clients that need one under trio

The package is internal and not a stable API.
"""
