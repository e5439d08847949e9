"""The site as a reader's browser shows it; run by ``nox -s browser``, and by no other tests."""
