"""What Prometheus reads of a gateway, under vLLM's names where vLLM has one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60, 120)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


class Metrics:
    """Metrics of one gateway in a registry of their own. Latencies in seconds; label `policy` on most."""

    def __init__(self):
        self.registry = CollectorRegistry()
        of = {"registry": self.registry}
        policy = {"labelnames": ["policy"], **of}
        self.latency = Histogram("e2e_request_latency_seconds", "Whole answers", buckets=SECONDS, **policy)
        self.first_token = Histogram("time_to_first_token_seconds", "Streamed answers", buckets=SECONDS, **policy)
        self.between = Histogram("inter_token_latency_seconds", "Between pieces of a stream", buckets=BETWEEN, **policy)
        self.running = Gauge("num_requests_running", "In work", **of)
        self.prompt_tokens = Counter("prompt_tokens_total", "As the engine counts", **policy)
        self.tokens = Counter("generation_tokens_total", "As the engine counts", **policy)
        self.success = Counter("request_success_total", "Whole answers", ["policy", "finished_reason"], **of)
        self.failure = Counter("request_failure_total", "Answers that were not whole", ["policy", "reason"], **of)
        self.rejected = Counter("requests_rejected_total", "Refused by the gateway", ["code"], **of)
        self.feedback = Counter("feedback_total", "New feedback", ["policy", "kind", "value"], **of)
        self.reward = Histogram("policy_reward", "Rewards of a sampled share", buckets=range(-10, 11), **policy)
        self.engine_up = Gauge("engine_up", "1 where the engine answers", **policy)
        self.restarts = Counter("engine_restarts_total", "Engines that ended and were started again", **policy)
        self.dropped = Gauge("records_dropped", "Records that could not be stored", **of)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
