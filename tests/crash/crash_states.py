"""Every state of the disk that a crash at a given moment may leave; nothing is written here.

What is modelled, of everything that was not synced:

- ``in order``: writes and truncations of a file reach the disk in their order, the last one up to
  any byte: each line's boundary and its neighbours, the middle of a line, each block's boundary.
- ``size first``: the file has its new size, or that of whole blocks, and zeros where data should
  be. XFS and ext4 (``data=writeback``) have left that.
- ``any order``: of two contents that the file had, blocks of 512 bytes (so of 4096 as well) come
  from the one before a boundary and from the other behind it, or one block alone does, at the size
  of either; blocks that the older did not have are zeros. So a truncation can be undone below data
  written after it, and a block in the middle can be missing.
- The lock file, whose text is for people, is there or not; its text is varied with whole writes.
- Names: of the changes in a directory any one alone, all but any one, any number from the first,
  or all. A rename is one change. A directory's name may be missing with all that is in it.

What is not: other patterns of old and new blocks within a file, blocks that are neither
old, new nor zeros, what a disk loses that said that it had synced, and damage to what was synced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, product
from pathlib import Path
from typing import NamedTuple

from .page_cache import ROOT, Change, Moment, renamed

SECTOR = 512
PAGE = 4096

Tree = dict[str, bytes | None]
"""What a disk holds: files by path, and directories, which are None."""


class State(NamedTuple):
    """A disk after a crash. ``in_order`` unless blocks of a file were written in any order."""

    tree: Tree
    in_order: bool


def crash_states(moment: Moment, *, whole: bool = False) -> Iterator[State]:
    """Give every state that a crash at ``moment`` may leave, some of them more than once.

    ``whole`` leaves out those in which a write or a truncation is half done.
    """
    locks = {
        node
        for folder in moment.folders.values()
        for name, node in chain(folder.durable.items(), *(each.items() for each in folder.changes))
        if name.endswith(".lock")
    }
    contents = {
        node: _contents(versions[-1:] if node in locks and not whole else versions, whole=whole)
        for node, versions in moment.files.items()
    }
    choices = [(node, tuple(_choices(each.changes))) for node, each in moment.folders.items()]
    for chosen in product(*(changes for _, changes in choices)):
        names = {
            node: renamed(moment.folders[node].durable, changes)
            for (node, _), changes in zip(choices, chosen, strict=True)
        }
        paths = dict(_paths(names, ROOT, Path()))
        places = [path for path, node in paths.items() if node in contents]
        varied = [contents[paths[path]] for path in places]
        folders: Tree = {path: None for path, node in paths.items() if node not in contents}
        for found in product(*varied):
            tree = folders | {path: data for path, (data, _) in zip(places, found, strict=True)}
            yield State(tree, all(in_order for _, in_order in found))


def _paths(names: dict[int, dict[str, int]], node: int, above: Path) -> Iterator[tuple[str, int]]:
    for name, below in names[node].items():
        yield str(above / name), below
        if below in names:
            yield from _paths(names, below, above / name)


def _choices(changes: tuple[Change, ...]) -> Iterator[tuple[Change, ...]]:
    seen: list[tuple[Change, ...]] = []
    singles = range(len(changes))
    for each in chain(
        (changes[:count] for count in range(len(changes) + 1)),
        (changes[at : at + 1] for at in singles),
        (changes[:at] + changes[at + 1 :] for at in singles),
    ):
        if each not in seen:
            seen.append(each)
            yield each


def _contents(versions: Sequence[bytes], *, whole: bool) -> list[tuple[bytes, bool]]:
    found = dict.fromkeys(versions, True)
    if whole:
        return list(found.items())
    for old, new in pairwise(versions):
        if new.startswith(old):
            for cut in _cuts(len(old), new):
                for size in _sizes(cut, len(new)):
                    found[new[:cut].ljust(size, b"\0")] = True
    for position, older in enumerate(versions):
        for newer in versions[position + 1 :]:
            for mixed in _mixtures(older, newer):
                found.setdefault(mixed, False)
    return list(found.items())


def _cuts(begin: int, data: bytes) -> set[int]:
    """Give the places at which a write from ``begin`` to the end of ``data`` may be cut off."""
    end = len(data)
    cuts = {begin, (begin + end) // 2}
    line = begin
    while line < end:
        following = data.index(b"\n", line) + 1 if b"\n" in data[line:] else end
        cuts |= {line, line + 1, (line + following) // 2, following - 1}
        line = following
    cuts |= {each + by for each in _boundaries(begin, end) for by in (-1, 0, 1)}
    return {cut for cut in cuts if begin <= cut <= end}


def _sizes(cut: int, end: int) -> set[int]:
    rounded = {min(-(-cut // block) * block, end) for block in (SECTOR, PAGE)}
    return {cut, end, *rounded}


def _boundaries(begin: int, end: int) -> range:
    return range(max(-(-begin // SECTOR), 0) * SECTOR, end + 1, SECTOR)


def _mixtures(older: bytes, newer: bytes) -> Iterator[bytes]:
    size = max(len(older), len(newer))
    old, new = older.ljust(size, b"\0"), newer.ljust(size, b"\0")
    same = next((at for at in range(size) if old[at] != new[at]), size)
    for cut in _boundaries(same - SECTOR, size):
        end = cut + SECTOR
        for mixed in (
            old[:cut] + new[cut:],
            new[:cut] + old[cut:],
            new[:cut] + old[cut:end] + new[end:],
            old[:cut] + new[cut:end] + old[end:],
        ):
            yield mixed[: len(older)]
            yield mixed[: len(newer)]
