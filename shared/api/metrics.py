"""What `/metrics` tells, in Prometheus' words.

The size of a batch and the time of a step come with each step's event, so that they are known
wherever the engine is. They are counted once for each image: an observation says in how large a
batch, and how fast, one image advanced.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)

from shared.api.job_service import Load
from shared.contract import BackendStatus, Done, Event, Step
from shared.store import Job

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PHASES = ("queued", "loading", "encoding", "denoising", "decoding", "total")


class Metrics:
    """One server's numbers. Memory of the process is told where there is a /proc, as on Linux."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._calls = Counter(
            "cygnet_http_requests",
            "HTTP calls by their answer",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._jobs = Counter(
            "cygnet_jobs", "jobs by how they ended", ["outcome", "code"], registry=self._registry
        )
        self._queued = Gauge("cygnet_queue_depth", "jobs that wait", registry=self._registry)
        self._running = Gauge("cygnet_jobs_running", "jobs at work", registry=self._registry)
        self._batch = Histogram(
            "cygnet_batch_size",
            "images that shared a denoising step, once for each of them",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self._step = Histogram(
            "cygnet_step_seconds",
            "time of a denoising step, once for each image in it",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._phase = Histogram(
            "cygnet_phase_seconds",
            "time of a job by phase",
            ["phase"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._memory = Gauge(
            "cygnet_device_memory_bytes",
            "memory that the engine holds on its device, where that is known",
            registry=self._registry,
        )

    def called(self, method: str, route: str, status: int) -> None:
        """An HTTP call was answered. `route` is the pattern, so that the labels are bounded."""
        self._calls.labels(method, route, status).inc()

    def event(self, event: Event) -> None:
        """A backend sent it."""
        match event:
            case Step():
                if event.batch is not None:
                    self._batch.observe(event.batch)
                if event.seconds is not None:
                    self._step.observe(event.seconds)
            case Done():
                for phase in _PHASES:
                    self._phase.labels(phase).observe(getattr(event.result.timings, phase))
            case _:
                pass

    def ended(self, job: Job) -> None:
        code = job.error["code"] if job.error else ""
        self._jobs.labels(job.status, code).inc()

    def exposition(self, load: Load, status: BackendStatus) -> bytes:
        """The text format, with what is true now."""
        self._queued.set(load.queued)
        self._running.set(load.running)
        self._memory.set(status.memory_bytes or 0)
        return generate_latest(_Told(self._registry))


class _Told(CollectorRegistry):
    """What a registry has, but for when each of its numbers began: that is no number to watch, and
    the library can leave it out for a whole process only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._all = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._all.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric
