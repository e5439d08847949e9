"""Storages for journals: the protocol, and its three implementations.

- ``protocol``      what a storage guarantees
- ``local``         files on a local disk; ``local_journal`` is one file, ``run_lock`` its lock
- ``remote``        one object per run, in any store with an ``object_store`` client
- ``store_check``   verifies that a store meets the requirements
- ``s3``            the client for S3; ``s3_errors`` interprets errors, ``s3_client`` makes clients
- ``memory``        journals that end with the process, for tests
- ``urls``          a storage by its URL

The rules of a run are in the core, not here. Programs import the storages from ``kassette_io``.
"""
