"""What a service says of itself: a line of JSON for each request, and figures for Prometheus."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Of the environment: where several workers put their figures, so that each can tell those of all."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OWN_FIELDS = ("request_id", "method", "route", "status", "milliseconds", "client")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and of a request what is known of it.

    >>> import json, logging
    >>> from mmrec.service import JsonFormatter
    >>> record = logging.LogRecord("mmrec", logging.INFO, "", 0, "%s is ready", ("it",), None)
    >>> json.loads(JsonFormatter().format(record))["message"]
    'it is ready'
    """

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: getattr(record, name) for name in OWN_FIELDS if hasattr(record, name)}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


class Figures:
    """Requests by route and status, how long they took, and what was published but does not answer."""

    def __init__(self) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
        )  # which reads the environment only once

        self._registry = CollectorRegistry()
        labels = ["route", "method"]
        self._requests = Counter("mmrec_requests", "Requests", [*labels, "status"], registry=self._registry)
        self._seconds = Histogram(
            "mmrec_request_seconds", "How long requests took", labels, registry=self._registry, buckets=BUCKETS
        )
        self._not_taken_up = Gauge(
            "mmrec_not_taken_up",
            "Store and models whose published version cannot be loaded",
            registry=self._registry,
            multiprocess_mode="livemax",
        )

    def not_taken_up(self, count: int) -> None:
        """Of the store and the models, how many have a version that could not be loaded."""
        self._not_taken_up.set(count)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """All figures, of all workers where there are several, and the content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
