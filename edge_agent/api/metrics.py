"""Numbers of live inference in the text format of Prometheus (version 0.0.4).

Names and units follow its conventions; no label grows with samples or devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_agent.inference.latency import BOUNDS_S, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(
    counters: Mapping[str, tuple[str, float]],
    gauges: Mapping[str, tuple[str, float]],
    stages: Mapping[str, Histogram],
) -> bytes:
    """Return what a scrape gets.

    Args:
        counters: what each counts, and its value, by name without prefix and `_total`.
        gauges: likewise.
        stages: histograms of seconds by stage.
    """
    lines: list[str] = []
    for name, (text, value) in counters.items():
        lines += _family(f"fedistill_agent_{name}_total", "counter", text, [("", value)])
    for name, (text, value) in gauges.items():
        lines += _family(f"fedistill_agent_{name}", "gauge", text, [("", value)])
    name = "fedistill_agent_stage_seconds"
    lines += [f"# HELP {name} Time of a sample in a stage of inference.", f"# TYPE {name} histogram"]
    for stage, histogram in stages.items():
        lines += _buckets(name, stage, histogram)
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, kind: str, text: str, values: list[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{labels} {value:g}" if value != int(value) else f"{name}{labels} {int(value)}"


def _buckets(name: str, stage: str, histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound_s, count in zip(BOUNDS_S, histogram.counts, strict=False):
        total += count
        yield f'{name}_bucket{{stage="{stage}",le="{bound_s:g}"}} {total}'
    yield f'{name}_bucket{{stage="{stage}",le="+Inf"}} {histogram.count}'
    yield f'{name}_sum{{stage="{stage}"}} {histogram.sum_s:.9g}'
    yield f'{name}_count{{stage="{stage}"}} {histogram.count}'
