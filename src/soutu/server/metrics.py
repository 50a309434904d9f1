"""Metrics for Prometheus, in a registry of their own: several servers may run in one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from soutu.errors import SoutuError
from soutu.models.batching import BatchingEncoder

if TYPE_CHECKING:
    from soutu.server.service import SearchService

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # seconds


class Metrics:
    """Requests by route and status, their seconds by route, and the state of ``service``."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, service: SearchService) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "soutu_requests", "Requests answered", ("route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "soutu_request_seconds", "Time to the answer's first byte", ("route",),
            buckets=BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(StateCollector(service))

    def text(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self._registry)


class StateCollector(Collector):
    """Reads the state of a service when metrics are asked for."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Name nothing ahead: else ``collect`` would run while there is no server yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield gauges of the queue, the index and the encoder."""
        service = self._service
        pending = GaugeMetricFamily("soutu_pending", "Requests that work or wait", labels=["work"])
        pending.add_metric(["searches"], service.search_executor.pending)
        pending.add_metric(["pictures"], service.image_executor.pending)
        yield pending
        yield GaugeMetricFamily("soutu_ready", "The gallery is open", int(service.is_ready))
        if not service.is_ready:
            return
        try:
            state = service.gallery.store.state()
        except SoutuError:
            return
        yield GaugeMetricFamily("soutu_index_images", "Pictures that can be found", state.images)
        yield GaugeMetricFamily("soutu_index_captions", "Captions", state.captions)
        yield GaugeMetricFamily("soutu_index_generation", "Index run", state.generation)
        encoder = service.gallery.encoder
        if not isinstance(encoder, BatchingEncoder):
            return
        # Items by batches is how many were encoded together.
        batches = CounterMetricFamily("soutu_encoder_batches", "Runs of a tower", labels=["tower"])
        items = CounterMetricFamily("soutu_encoder_items", "Encoded in them", labels=["tower"])
        for tower, counts in (("text", encoder.texts.counts), ("image", encoder.images.counts)):
            batches.add_metric([tower], counts.batches)
            items.add_metric([tower], counts.encoded)
        yield from (batches, items)
        hits = encoder.texts.counts.hits
        yield CounterMetricFamily("soutu_text_cache_hits", "Texts that were remembered", hits)
