"""What a server counts and measures, in the text form of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server; nothing of what a picture shows or is called is among them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "mixlab_requests",
            "Requests by status; 499: the client left before its answer.",
            ["status"],
            registry=registry,
        )
        self.pictures = Counter(
            "mixlab_pictures", "Pictures: answered, unknown, unreadable, failed.", ["result"], registry=registry
        )
        self.in_flight = Gauge("mixlab_in_flight", "Requests to /predict that are being answered.", registry=registry)
        self.seconds = Histogram(
            "mixlab_predict_seconds", "From the whole request to its answer.", buckets=TIMES, registry=registry
        )
        self.network_seconds = Histogram(
            "mixlab_network_seconds", "One batch in the network.", buckets=TIMES, registry=registry
        )
        self.batch = Histogram(
            "mixlab_batch_pictures", "Pictures in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.reloads = Counter("mixlab_reloads", "Times the model was read again.", ["result"], registry=registry)
        for result in ("ok", "failed"):
            self.reloads.labels(result)
        self.model = Gauge("mixlab_model", "1 for the model that answers.", ["name", "digest"], registry=registry)

    def answers_with(self, name: str, digest: str) -> None:
        """Note which model answers."""
        self.model.clear()
        self.model.labels(name, digest).set(1)

    def text(self) -> bytes:
        return generate_latest(self.registry)
