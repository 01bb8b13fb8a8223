"""The text that Prometheus reads, in both of its forms: samples are written alike, what stands above them is not.

Written here and not by prometheus-client, whose text takes twelve times as long, all of it in the job server's loop;
the tests read ours with its parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from geartrain.web.families import FAMILIES, Family

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass
class Exposition:
    """All samples of one moment, as text, by metric."""

    samples: dict[Family, list[bytes]] = field(default_factory=dict)

    def add(self, family: Family, lines: Iterable[str]) -> None:
        """Samples in a metric's own form, each a whole line."""
        self.samples.setdefault(family, []).append("".join(lines).encode())

    def pieces(self, media_type: str) -> list[bytes]:
        """The text in a form; the samples are not copied."""
        made: list[bytes] = []
        for family in FAMILIES:
            if family in self.samples:
                made.append(_heading(family, media_type).encode())
                made += self.samples[family]
        if media_type == OPENMETRICS:
            made.append(b"# EOF\n")
        return made


def _heading(family: Family, media_type: str) -> str:
    name, kind = family.name, family.kind
    if media_type == PLAIN:  # which has no infos, and calls a counter by its samples' name
        name, kind = family.sample, "gauge" if kind == "info" else kind
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n"


def labels(**values: str) -> str:
    """Labels as they stand before a sample's value."""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in values.items())
    return f"{{{','.join(pairs)}}}"


def line(family: Family, value: float, labelled: str = "") -> str:
    """A counter's, gauge's or info's sample."""
    return f"{family.sample}{labelled} {value!r}\n"


def histogram(
    name: str, bounds: Sequence[str], counts: Iterable[float], total: float, labelled: str = ""
) -> Iterable[str]:
    """The samples of a histogram, from the counts of its buckets, the last one of those above all ``bounds``."""
    inside = labelled[1:-1] + "," if labelled else ""
    for bound, count in zip((*bounds, "+Inf"), accumulate(counts), strict=True):
        yield f'{name}_bucket{{{inside}le="{bound}"}} {count!r}\n'
    yield f"{name}_count{labelled} {count!r}\n"
    yield f"{name}_sum{labelled} {total!r}\n"


def media_type(accept: str) -> str:
    """The form that a client wants most, by its Accept header; plain text where it names no OpenMetrics."""
    best = {PLAIN: -1.0, OPENMETRICS: -1.0}
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((_weight(word[2:]) for word in parameters if word.startswith("q=")), 1.0)
        for form in (
            [OPENMETRICS] if name == "application/openmetrics-text"
            else [PLAIN] if name in ("text/plain", "text/*", "*/*") else []
        ):  # fmt: skip
            best[form] = max(best[form], weight)
    return OPENMETRICS if best[OPENMETRICS] > 0 and best[OPENMETRICS] >= best[PLAIN] else PLAIN


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
