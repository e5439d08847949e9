"""`python -m tests.fuzzing [target] [--seconds N]`: look for bytes that break a promise.

Every target runs in a process of its own, guided by the branches of `kassette` that its inputs
reach. An input that breaks a promise is kept next to the corpus and printed; fails then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, NoReturn

NAMES = ("journal", "line", "value")


def fuzz(name: str, seconds: int, corpus: Path) -> NoReturn:
    """Fuzz one target in this process, which libFuzzer ends."""
    atheris: Any = import_module("atheris")

    with atheris.instrument_imports(include=["kassette"]):
        from tests.fuzzing import targets
    from tests.core.hostile import FRAGMENTS, MUTATIONS

    for number, seed in enumerate(targets.corpus(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = corpus.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(each)}"\n' for each in FRAGMENTS if len(each) < 100))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        places = random.randrange(1 << 16), random.randrange(1 << 16)
        return random.choice(MUTATIONS)(data, *places)[:most]

    options = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-dict={words}",
        f"-artifact_prefix={corpus}.found-",
        "-max_len=8192",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    target: Any = targets.TARGETS[name]
    atheris.Setup(options, target, custom_mutator=mutate)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main(arguments: Sequence[str]) -> int:
    """Fuzz the targets named, all of them otherwise; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], metavar="target")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--corpus", type=Path, help="a directory that is kept and grows")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names: Sequence[str] = options.targets or NAMES
    if options.here:
        fuzz(names[0], options.seconds, options.corpus)
    seconds = max(options.seconds // len(names), 1)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.corpus or Path(scratch)
        return max(_fuzz_apart(name, seconds, root / name) for name in names)


def _fuzz_apart(name: str, seconds: int, corpus: Path) -> int:
    corpus.mkdir(parents=True, exist_ok=True)
    print(f"{name}, for {seconds} s", flush=True)
    here = [sys.executable, "-m", "tests.fuzzing", name, "--here", f"--seconds={seconds}"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        [*here, f"--corpus={corpus}"], stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    if process.returncode == 0:
        lines = said.splitlines()
        print("\n".join(each for each in lines if each.startswith(("stat::", "Done"))), flush=True)
        return 0
    print(said[-6000:])
    for found in corpus.parent.glob(f"{corpus.name}.found-*"):
        print(f"{found.name}: {found.read_bytes()!r}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
