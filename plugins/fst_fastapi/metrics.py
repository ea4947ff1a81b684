"""Metrics for Prometheus: vLLM's names where they mean the same, `fst:` for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_fastapi.admission import Line

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_FIRST: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
_BETWEEN: Final = (
    0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
)  # fmt: skip
_WHOLE: Final = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
_OUTCOMES: Final = ("ok", "failed", "aborted", "rejected")


class Metrics:
    """What a server counts; each has a registry of its own."""

    def __init__(self, model: str, line: Line) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._gauge("vllm:num_requests_running", "Generations that run.").set_function(
            lambda: line.running
        )
        self._gauge("vllm:num_requests_waiting", "Generations that wait for a place.").set_function(
            lambda: line.waiting
        )
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("vllm:generation_tokens", "Tokens generated.")
        self.first_token = self._histogram(
            "vllm:time_to_first_token_seconds",
            "From a request's beginning to its first token.",
            _FIRST,
        )
        self.between_tokens = self._histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens of a generation.", _BETWEEN
        )
        self.whole = self._histogram(
            "vllm:e2e_request_latency_seconds", "From a request's beginning to its end.", _WHOLE
        )
        self._success = self._labelled(
            "vllm:request_success",
            "Generations that ended well, by why they ended.",
            "model_name",
            "finished_reason",
        )
        self._requests = Counter(
            "fst:requests_started", "Requests to generate.", registry=self._registry
        )
        self._outcomes = self._labelled(
            "fst:requests", f"Requests to generate that ended: {', '.join(_OUTCOMES)}.", "outcome"
        )
        for outcome in _OUTCOMES:  # they are there from the beginning, as zeros
            self._outcomes.labels(outcome)
        self._plugin_errors = self._labelled(
            "fst:plugin_errors", "Generations that failed in the code of a plugin.", "plugin"
        )
        self._responses = self._labelled("fst:http_responses", "Answers, by status.", "status")

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self._registry)

    def started(self) -> None:
        """Count a request to generate."""
        self._requests.inc()

    def ended(self, outcome: str) -> None:
        """Count how a request to generate ended."""
        self._outcomes.labels(outcome).inc()

    def finished(self, reason: str) -> None:
        """Count a generation that ended well."""
        self._success.labels(self._model, reason).inc()

    def plugin_error(self, plugin: str) -> None:
        """Count a failure in the code of a plugin."""
        self._plugin_errors.labels(plugin).inc()

    def responded(self, status: int) -> None:
        """Count an answer."""
        self._responses.labels(str(status)).inc()

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, ("model_name",), registry=self._registry).labels(self._model)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(name, what, ("model_name",), registry=self._registry).labels(self._model)

    def _histogram(self, name: str, what: str, buckets: Sequence[float]) -> Histogram:
        labels = ("model_name",)
        made = Histogram(name, what, labels, registry=self._registry, buckets=buckets)
        return made.labels(self._model)

    def _labelled(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)
