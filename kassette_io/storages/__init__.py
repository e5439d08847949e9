"""Where journals lie: what a storage promises, and the three that keep it.

- ``protocol``      what a storage promises
- ``local``         files on a local disk; ``local_journal`` is one of them, ``run_lock`` its lock
- ``remote``        one object a run, in any store of which ``object_store`` says what it takes
- ``store_check``   the proof that a store keeps these promises
- ``s3``            S3 as such a store; ``s3_errors`` reads its answers, ``s3_client`` makes clients
- ``memory``        journals that end with the process, for tests
- ``urls``          a storage by its URL

Nothing here knows a run's rules: those are the core's. Programs import the storages from
``kassette_io``.
"""
