"""What the server counts, for Prometheus; a registry of its own, as several may run in one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client import generate_latest as written
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from soutu.errors import SoutuError
from soutu.models.batching import BatchingEncoder

if TYPE_CHECKING:
    from soutu.server.service import AppState

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


class Metrics:
    """``soutu_requests_total`` by route and status, ``soutu_request_seconds`` by route, and what
    ``_Now`` reads when it is asked."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, context: AppState) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "soutu_requests", "Requests answered", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "soutu_request_seconds", "Time to the answer's first byte", ("route",),
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Now(context))

    def count(self, route: str, status: int, seconds: float) -> None:
        """``route`` is a template (``/api/v1/images/{id}``): names that clients make up would be
        kept for good."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return written(self._registry)


class _Now(Collector):
    def __init__(self, context: AppState) -> None:
        self._context = context

    def describe(self) -> list[Metric]:
        return []  # else it would be asked once while the server is not there yet

    def collect(self) -> Iterator[Metric]:
        context = self._context
        waiting = GaugeMetricFamily("soutu_pending", "Requests that work or wait", labels=["work"])
        waiting.add_metric(["searches"], context.searches.pending)
        waiting.add_metric(["pictures"], context.pictures.pending)
        yield waiting
        yield GaugeMetricFamily("soutu_ready", "The gallery is open", int(context.opening.ready))
        if not context.opening.ready:
            return
        try:
            state = context.gallery.store.state()
        except SoutuError:
            return
        yield GaugeMetricFamily("soutu_index_images", "Pictures that can be found", state.images)
        yield GaugeMetricFamily("soutu_index_captions", "Captions", state.captions)
        yield GaugeMetricFamily("soutu_index_generation", "Index run", state.generation)
        if isinstance(context.gallery.encoder, BatchingEncoder):
            yield from _encoding(context.gallery.encoder)


def _encoding(encoder: BatchingEncoder) -> Iterator[Metric]:
    """Texts or pictures by batches is how many were encoded together."""
    batches = CounterMetricFamily("soutu_encoder_batches", "Runs of a tower", labels=["tower"])
    encoded = CounterMetricFamily("soutu_encoder_items", "Encoded in them", labels=["tower"])
    for tower, counts in (("text", encoder.texts.counts), ("image", encoder.images.counts)):
        batches.add_metric([tower], counts.batches)
        encoded.add_metric([tower], counts.encoded)
    yield batches
    yield encoded
    hits = encoder.texts.counts.hits
    yield CounterMetricFamily("soutu_text_cache_hits", "Texts that were remembered", hits)
