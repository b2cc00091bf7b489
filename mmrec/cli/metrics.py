"""What a job counted, as a text file for Prometheus: node_exporter's textfile collector reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmrec.errors import MMRecError

if TYPE_CHECKING:
    from mmrec.embedding import EmbedReport


def write_metrics(report: EmbedReport, path: Path) -> None:
    """Write the file anew, at once or not at all."""
    try:
        from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
    except ImportError:
        raise MMRecError("--metrics-file needs the package prometheus-client: pip install 'mmrec[metrics]'") from None
    registry = CollectorRegistry()
    items = Gauge("mmrec_embed_items", "Items of the last job by what became of them", ["outcome"], registry=registry)
    for outcome, count in report.counts().items():
        items.labels(outcome="all" if outcome == "items" else outcome).set(count)
    missing = Gauge("mmrec_embed_missing", "Modalities without all tokens, by reason", ["reason"], registry=registry)
    for reason, count in report.reasons.items():
        missing.labels(reason=reason).set(count)
    values = {
        "mmrec_embed_seconds": ("How long the last job took", report.seconds),
        "mmrec_embed_media_seconds": ("How long the media that it embedded last", report.media_seconds),
        "mmrec_embed_failed": ("1 where it ended with a problem", float(bool(report.problem))),
    }
    for name, (help_text, value) in values.items():
        Gauge(name, help_text, registry=registry).set(value)
    Gauge("mmrec_embed_end_seconds", "When the last job ended", registry=registry).set_to_current_time()
    write_to_textfile(str(path), registry)
