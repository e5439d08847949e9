"""The command ``python -m benchmarks``; no measuring here."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.harness import ROOT, Bench, WorkerFailed
from benchmarks.report import as_json, as_text

MODULES = {
    "step": "step",
    "concurrent": "concurrent",
    "replay": "replay",
    "typed": "typed",
    "growth": "growth",
    "open": "opening",
    "imports": "imports",
    "look": "looking",
    "remote": "remote",
}


def main() -> int:
    """Run the benchmarks that were asked for; 1 if one of them broke, whatever the figures say."""
    options = parse()
    parent: Path = options.dir
    made = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    here = machine.describe(parent)
    report = {"quick": options.quick, "machine": asdict(here), "tables": []}
    print(here, flush=True)
    if options.quick:
        print("quick: few and short rounds, to see that everything runs; no figure means much")
    try:
        with TemporaryDirectory(prefix="bench-", dir=parent) as directory:
            bench = Bench(Path(directory), quick=options.quick)
            for name in options.names or MODULES:
                for table in importlib.import_module(f"benchmarks.{MODULES[name]}").measure(bench):
                    print(as_text(name, table), flush=True)
                    report["tables"].append({"benchmark": name, **as_json(table)})
    except WorkerFailed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    finally:
        if made:
            parent.rmdir()
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which to run, of {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="a short look that proves little")
    parser.add_argument(
        "--dir",
        type=Path,
        default=ROOT / "build",
        help="where the journals are written, on the disk to be measured (default: build/)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args()
    unknown = set(options.names) - MODULES.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(MODULES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
