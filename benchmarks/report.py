"""Medians, ratios and tables; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from benchmarks.harness import Contestant, Sample

HEADINGS = ("", "median", "ratio", "half of the rounds", "target", "", "CPU ratio", "peak MB")


@dataclass(frozen=True, slots=True)
class Table:
    """What came of one competition; the first contestant is the floor of all.

    A figure of ``value`` reads ``value * scale`` ``unit``.
    """

    title: str
    unit: str
    scale: float
    contestants: Sequence[Contestant]
    samples: Sequence[Sequence[Sample]]
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant: medians over its rounds, against the floor's.

    ``low`` and ``high`` enclose the middle half of the ratios of single rounds.
    """

    name: str
    value: float
    ratio: float
    low: float
    high: float
    target: float | None
    cpu: float | None
    cpu_ratio: float | None
    peak: float | None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "ok" if self.ratio <= self.target else "over"


def rows(table: Table) -> list[Row]:
    return [
        row_of(contestant, samples, table.samples[0])
        for contestant, samples in zip(table.contestants, table.samples, strict=True)
    ]


def row_of(contestant: Contestant, samples: Sequence[Sample], floor: Sequence[Sample]) -> Row:
    value = median(each.value for each in samples)
    ratios = [one.value / other.value for one, other in zip(samples, floor, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    cpu, floor_cpu = cpu_of(samples), cpu_of(floor)
    return Row(
        name=contestant.name,
        value=value,
        ratio=value / median(each.value for each in floor),
        low=low,
        high=high,
        target=contestant.target,
        cpu=cpu,
        cpu_ratio=cpu / floor_cpu if cpu is not None and floor_cpu else None,
        peak=max((each.peak for each in samples if each.peak is not None), default=None),
    )


def cpu_of(samples: Sequence[Sample]) -> float | None:
    known = [each.cpu for each in samples if each.cpu is not None]
    return median(known) if known else None


def as_text(name: str, table: Table) -> str:
    lines = [
        HEADINGS,
        *(
            (
                row.name,
                f"{row.value * table.scale:.4g} {table.unit}",
                f"{row.ratio:.3g}",
                f"{row.low:.3g} to {row.high:.3g}",
                "" if row.target is None else f"at most {row.target:g}",
                row.verdict,
                "" if row.cpu_ratio is None else f"{row.cpu_ratio:.3g}",
                "" if row.peak is None else f"{row.peak:.0f}",
            )
            for row in rows(table)
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"\n{name}: {table.title}; {len(table.samples[0])} rounds"]
    for first, *others in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        text.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join([*text, *(f"  {remark}" for remark in table.remarks)])


def as_json(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "unit": table.unit,
        "scale": table.scale,
        "remarks": list(table.remarks),
        "rows": [
            {
                "contestant": row.name,
                "median": row.value,
                "ratio": row.ratio,
                "target": row.target,
                "ok": None if row.target is None else row.verdict == "ok",
                "cpu": row.cpu,
                "cpu_ratio": row.cpu_ratio,
                "peak_mb": row.peak,
                "rounds": [each.value for each in samples],
            }
            for row, samples in zip(rows(table), table.samples, strict=True)
        ],
    }
