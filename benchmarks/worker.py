"""One contestant's process, started by ``harness.Worker``: a line in, one round, a line out."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.harness import Perform
from benchmarks.machine import peak_megabytes


def main(module: str, name: str, arguments: str, directory: str) -> None:
    prepare: Callable[..., Perform] = getattr(importlib.import_module(module), name)
    perform: Perform | None = None
    for _ in sys.stdin:
        if perform is None:
            perform = prepare(Path(directory), **json.loads(arguments))
        gc.collect()
        sample = perform()
        if sample.peak is None:
            sample = replace(sample, peak=peak_megabytes())
        print(json.dumps(asdict(sample)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
