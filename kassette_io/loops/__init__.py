"""What asyncio and trio do not do alike, and work outside of any loop; nothing here knows a run.

- ``threads``       threads that end with the process, for blocking calls
- ``waiting``       tasks, waking and shielding, in the words that both loops share
- ``waiting_asyncio``, ``waiting_trio``  how either of them does it
- ``asyncio_home``  an asyncio loop in a thread of its own, for clients that need one under trio

All of it is internal: nothing here is promised to programs.
"""
