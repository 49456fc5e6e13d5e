"""What a service says of itself when it is asked: what runs, its queues and store."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lifelong.errors import StoreError
from lifelong.online.background import running
from lifelong.online.serving.service import Service
from lifelong.online.serving.takeovers import Takeovers
from lifelong.version import __version__


class ServiceCollector(Collector):
    """Figures that are read when they are asked for: build, queues, store.

    Args:
        service: the one that they are of.
        takeovers: of its store.
    """

    def __init__(self, service: Service, takeovers: Takeovers) -> None:
        self._service, self._takeovers = service, takeovers

    def describe(self) -> Iterable[Metric]:
        """Nothing: the store is not asked before the service runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        service, artifact = self._service, self._service.artifact
        build = {
            "version": __version__,
            "python": platform.python_version(),
            "artifact": artifact.id[:12],
            "model": artifact.config.model,
        }
        yield _gauge("lifelong_build_info", "1, with what runs as labels", build, [(list(build.values()), 1)])
        epoch = service.updater.artifacts.epoch
        yield GaugeMetricFamily("lifelong_artifact_list_epoch", "Changes of the store's list of artifacts", value=epoch)
        queues = [(["reads"], service.reads), (["writes"], service.writes)]
        waiting = [(labels, len(queue)) for labels, queue in queues]
        yield _gauge("lifelong_waiting_requests", "Requests that wait for a thread", ["queue"], waiting)
        yield from self._of_background()
        # Where a server keeps the memories, its own metrics say this; a store of your own need not.
        for name, value in getattr(service.store, "figures", dict)().items():
            yield GaugeMetricFamily(f"lifelong_store_{name}", _STORE[name], value=value)

    def _of_background(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("lifelong_background_up", "Whether background work is done", labels=["work"])
        failed = CounterMetricFamily("lifelong_background_failures", "Passes that failed", labels=["work"])
        for work in running():
            up.add_metric([work.name], work.failing is None)
            failed.add_metric([work.name], work.failures)
        yield from (up, failed)
        # While the store is away this is not known, and the rest is to be said.
        with contextlib.suppress(StoreError):
            unbuilt = self._takeovers.unbuilt()
            yield GaugeMetricFamily("lifelong_building", "Artifacts whose memories are not complete", value=unbuilt)


def _gauge(name: str, text: str, labels: Iterable[str], samples: Iterable[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for values, value in samples:
        family.add_metric(values, value)
    return family


_STORE = {
    "bytes": "Size of the tables on the disk",
    "records": "Records, estimated",
    "memtable_bytes": "Written bytes that are in RAM and in the log",
    "level0_files": "Tables that no compaction has merged",
    "compactions": "Compactions that run",
    "compaction_bytes": "Bytes that compactions have yet to rewrite, estimated",
    "write_limit_bytes": "Bytes a second to which writes are slowed down; 0 for none",
    "writes_stopped": "1 while writes wait for compactions",
    "background_errors": "Failures of flushes and compactions",
}
"""What a store says of itself, if it can -> in words."""
