"""Counters of the hot path, and their output through prometheus_client at a scrape.

Counting is a dict lookup and an addition; the library's own metric objects would need a lock for each. There are two
groups of names and buckets: the gateway's own (seconds, bytes, `_total`), and vLLM's for routes that generate tokens,
which existing dashboards use.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import CAUSES, GIVEN_CODES, GatewayError, QueueTimeout, RouteNotSupported, codes_of
from ...telemetry.histogram import Histogram
from ..exchange import CLIENT_LEFT
from ..refused_connections import Refused
from ..slow_clients import SEND_TIMEOUT
from ..websocket_protocol import BAD_FRAME, PING_TIMEOUT, TOO_MANY_PINGS
from . import models

if TYPE_CHECKING:
    from ...dialects.base import Used
    from ...hosting.catalog import Catalog, Sees
    from ...hosting.model import HostedModel
    from ...runners.replica import Replica
    from ..exchange import Exchange

LATE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
REASONS = {
    "timeout": "timeout",
    "shutting_down": "drain",
    SEND_TIMEOUT: SEND_TIMEOUT,
}  # why code was stopped, by error code
KNOWN_CODES = codes_of(GatewayError) | GIVEN_CODES | {SEND_TIMEOUT, TOO_MANY_PINGS, PING_TIMEOUT, BAD_FRAME}
OTHER = "other"  # for codes that models define, and for callers beyond MAX_CALLERS
MAX_CALLERS = 1000  # caller names; keys are few, but a plugin may use any number of names
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1),
    *(2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000)


GENERATING = frozenset({"chat_completions", "completions", "messages", "responses"})  # methods
NONE_FINISHED = {"stop": 0, "length": 0, "abort": 0, "error": 0}


class Series:
    """The counters of one model on one route."""

    __slots__ = ("broken", "duration", "queue", "reading", "run", "sending", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.broken: dict[str, int] = {}  # streams that failed after status 200, by error code
        self.duration, self.queue, self.run = Histogram(DURATIONS), Histogram(DURATIONS), Histogram(DURATIONS)
        self.reading = self.sending = 0.0  # seconds spent on clients


class Spent:
    """The tokens of one caller or model: prompt tokens and generated ones."""

    __slots__ = ("estimated", "sums")

    def __init__(self) -> None:
        self.sums = [0.0, 0.0]  # floats: an int could become too large for a scrape to write
        self.estimated = [0.0, 0.0]  # the part from requests with estimated counts

    def add(self, used: Used) -> None:
        for sums in (self.sums, self.estimated) if used.is_estimated else (self.sums,):
            sums[0] += used.prompt
            sums[1] += used.completion


class Tokens(Spent):
    """vLLM's metrics for one model, and time spent counting."""

    __slots__ = ("between", "counting", "e2e", "finished", "first", "generation", "per_token", "prompt", "queue", "run")

    def __init__(self) -> None:
        super().__init__()
        self.e2e, self.queue, self.run = Histogram(LATENCY), Histogram(LATENCY), Histogram(LATENCY)
        self.first, self.between, self.per_token = Histogram(FIRST_TOKEN), Histogram(BETWEEN), Histogram(BETWEEN)
        self.prompt, self.generation = Histogram(TOKENS), Histogram(TOKENS)
        self.counting = 0.0  # seconds that answers waited for token counts
        self.finished: dict[str, int] = {}


class Metrics:
    """The counters of one gateway."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._series: dict[tuple[str, str], Series] = {}
        self._tokens: dict[str, Tokens] = {}
        self._rejections: dict[tuple[str, str, str], int] = {}
        self._cancelled: dict[tuple[str, str], int] = {}
        self._callers: dict[str, dict[int, int]] = {}  # requests by caller name and status
        self._spent: dict[str, Spent] = {}  # tokens by caller name
        self._told: dict[tuple[str, int], Replica] = {}  # replicas of which metrics are left out
        self.refused = Refused()
        self.lag = Histogram(LATE)  # lag of the gateway's event loop
        catalog.on_forget.append(self._forget)

    def observe(self, exchange: Exchange) -> bool:
        """Count a finished request. Return whether it counts for a model.

        Unknown model names, and names that the caller may not see, never create a series: their requests count for no
        model.
        """
        caller = exchange.caller
        if caller is not None and caller.name:
            statuses = self._callers.get(caller.name) or self._statuses(caller.name)
            statuses[exchange.status] = statuses.get(exchange.status, 0) + 1
        if exchange.error and not exchange.sees(exchange.counted_for):
            exchange.counted_for = ""
        series = self._series.get((exchange.counted_for, exchange.route)) or self._series_of(exchange)
        status = exchange.status
        series.statuses[status] = series.statuses.get(status, 0) + 1
        now = time.monotonic()
        series.duration.add(now - exchange.started)
        if exchange.queued:
            series.queue.add(exchange.queued)
        elif exchange.has_run:
            series.queue.counts[0] += 1
        if exchange.has_run:
            series.run.add(exchange.ran)
        if exchange.reading or exchange.sending:
            series.reading += exchange.reading
            series.sending += exchange.sending
        if exchange.error or status == CLIENT_LEFT or exchange.was_lost:
            self._count_failure(exchange, series)
        return exchange.counted_for != ""

    def _series_of(self, exchange: Exchange) -> Series:
        """Return the series of a request, which may be the first of its kind. A removed model has none."""
        if exchange.counted_for not in self._catalog.models:
            exchange.counted_for = ""
        return self._series.setdefault((exchange.counted_for, exchange.route), Series())

    def _statuses(self, name: str) -> dict[int, int]:
        if len(self._callers) >= MAX_CALLERS:
            name = OTHER
        return self._callers.setdefault(name, {})

    def spent(self, exchange: Exchange, used: Used) -> None:
        """Count the tokens of a request."""
        exchange.tokens = (used.prompt, used.completion, used.is_estimated)
        self.tokens(exchange.counted_for).add(used)
        if exchange.caller is None or not (name := exchange.caller.name):
            return
        if name not in self._spent and len(self._spent) >= MAX_CALLERS:
            name = OTHER
        self._spent.setdefault(name, Spent()).add(used)

    def _count_failure(self, exchange: Exchange, series: Series) -> None:
        if exchange.error and exchange.status < 400:
            code = exchange.error if exchange.error in KNOWN_CODES else OTHER  # a model may define its own codes
            series.broken[code] = series.broken.get(code, 0) + 1
        reason = REASONS.get(exchange.error)
        if (exchange.status == CLIENT_LEFT or exchange.was_lost) and reason != SEND_TIMEOUT:
            reason = "client_left"
        if reason is not None and exchange.sent:
            key = (exchange.counted_for, reason)
            self._cancelled[key] = self._cancelled.get(key, 0) + 1

    def rejected(self, exchange: Exchange, error: GatewayError) -> None:
        """Record why a request failed. Count it as a rejection if it failed before a call of it had a slot.

        Rejections are counted by the code that the client gets and the cause that only operators see.
        """
        exchange.error, exchange.cause, exchange.asked = error.code, error.cause, error.asked or exchange.asked
        if not exchange.has_run:
            exchange.measure()
        in_hooks = exchange.has_run and not exchange.had_slot and not isinstance(error, QueueTimeout)
        is_models = error.by_model or exchange.had_slot or in_hooks
        if is_models and error.code != RouteNotSupported.code:  # for predict, the worker reports it
            return
        model = exchange.counted_for
        if model not in self._catalog.models or not exchange.sees(model):
            model = ""
        code = error.code if error.code in KNOWN_CODES else OTHER
        key = (model, code, error.cause if error.cause in CAUSES else "")
        self._rejections[key] = self._rejections.get(key, 0) + 1

    def tokens(self, model: str) -> Tokens:
        found = self._tokens.get(model)
        if found is None:
            found = Tokens()
            if model in self._catalog.models:  # otherwise the model was removed while its last answer was sent
                self._tokens[model] = found
        return found

    def _forget(self, model: str) -> None:
        """Drop the counters of a removed model. A later model of that name starts at zero."""
        self._tokens.pop(model, None)
        by_model: tuple[dict[Any, Any], ...] = (self._series, self._rejections, self._cancelled, self._told)
        for counted in by_model:
            for key in [key for key in counted if key[0] == model]:
                del counted[key]

    # ── exposition ───────────────────────────────────────────────────────────────────────────────────────────────

    async def exposition(self, accept: str, sees: Sees) -> tuple[bytes, str]:
        """Return the text of a scrape of the models that the caller sees, and its content type, chosen by `accept`."""
        of_models = await models.scrape(self._catalog, sees, self._told)
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Collected(list(self._collect(sees, of_models))))
        encoder, content_type = choose_encoder(accept)
        if "openmetrics-text" in content_type and not content_type.endswith(("dots", "values")):
            # The library (0.26) would escape the colon of `vllm:` to an underscore here, although it needs no escape.
            # None of our names or of a model's does; others are left out.
            encoder = partial(encoder, escaping="allow-utf-8")  # type: ignore[call-arg]
        return await asyncio.to_thread(encoder, registry), content_type  # many series would block the loop

    def _collect(self, sees: Sees, of_models: Iterable[Any]) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        yield from self._own(sees)
        if sees(""):  # callers that see only some models get no metrics of other callers
            yield self._refused()
            yield from self._of_callers()
        yield from models.families(self._catalog, sees)
        yield from of_models
        tokens = {model.name: Tokens() for model in self._catalog.seen(sees) if _generates(model)}
        if tokens := tokens | {model: counted for model, counted in self._tokens.items() if sees(model)}:
            yield from self._vllm(tokens)
            yield _by_kind(
                "gateway_estimated_tokens", "model", {model: found.estimated for model, found in tokens.items()}
            )
            counting = CounterMetricFamily("gateway_count_seconds", "Waiting for token counts.", labels=["model"])
            for model, found in tokens.items():
                counting.add_metric([model], found.counting)
            yield counting

    def _own(self, sees: Sees) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        info = GaugeMetricFamily("gateway_build_info", "Always 1.", labels=["version", "python"])
        info.add_metric([__version__, platform.python_version()], 1)
        requests = CounterMetricFamily("gateway_requests", "Requests answered.", labels=["model", "route", "status"])
        durations = HistogramMetricFamily(
            "gateway_request_duration_seconds", "From head to last byte.", labels=["model", "route"]
        )
        queues = HistogramMetricFamily(
            "gateway_queue_duration_seconds", "Waiting for a slot.", labels=["model", "route"]
        )
        runs = HistogramMetricFamily(
            "gateway_model_duration_seconds", "From the slot to the end of the call.", labels=["model", "route"]
        )
        clients = CounterMetricFamily(
            "gateway_client_seconds", "Waiting for clients.", labels=["model", "route", "part"]
        )
        broken = CounterMetricFamily(
            "gateway_streams_broken", "Answers of status 200 that broke off.", labels=["model", "route", "reason"]
        )
        for (model, route), series in self._series.items():
            if not sees(model):
                continue
            clients.add_metric([model, route, "body"], series.reading)
            clients.add_metric([model, route, "send"], series.sending)
            for reason, count in series.broken.items():
                broken.add_metric([model, route, reason], count)
            for status, count in series.statuses.items():
                requests.add_metric([model, route, str(status)], count)
            durations.add_metric([model, route], series.duration.buckets(), series.duration.total)
            if model:
                queues.add_metric([model, route], series.queue.buckets(), series.queue.total)
                runs.add_metric([model, route], series.run.buckets(), series.run.total)
        rejections = CounterMetricFamily(
            "gateway_rejections", "Requests refused before a slot.", labels=["model", "reason", "cause"]
        )
        for (model, reason, cause), count in self._rejections.items():
            if sees(model):
                rejections.add_metric([model, reason, cause], count)
        cancelled = CounterMetricFamily("gateway_cancellations", "Cancelled calls.", labels=["model", "reason"])
        for (model, reason), count in self._cancelled.items():
            if sees(model):
                cancelled.add_metric([model, reason], count)
        lag = HistogramMetricFamily("gateway_event_loop_lag_seconds", "Delay of the gateway's event loop.")
        lag.add_metric([], self.lag.buckets(), self.lag.total)
        return info, requests, durations, queues, runs, clients, broken, rejections, cancelled, lag

    def _refused(self) -> Any:
        from prometheus_client.core import CounterMetricFamily

        refused = CounterMetricFamily(
            "gateway_refused_connections", "Refused or closed before there was a request.", labels=["reason"]
        )
        for reason, count in self.refused.counts.items():
            refused.add_metric([reason], count)
        return refused

    def _of_callers(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        requests = CounterMetricFamily("gateway_key_requests", "Requests by key.", labels=["key", "status"])
        for name, statuses in self._callers.items():
            for status, count in statuses.items():
                requests.add_metric([name, str(status)], count)
        yield requests
        yield _by_kind("gateway_key_tokens", "key", {name: spent.sums for name, spent in self._spent.items()})
        estimated = {name: spent.estimated for name, spent in self._spent.items()}
        yield _by_kind("gateway_key_estimated_tokens", "key", estimated)

    def _vllm(self, counted: Mapping[str, Tokens]) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        labels = ["model_name", "engine"]
        gauges: dict[str, tuple[str, Callable[[HostedModel], int]]] = {
            "vllm:num_requests_running": ("Requests in a slot.", lambda model: model.limiter.running),
            "vllm:num_requests_waiting": ("Requests waiting for a slot.", lambda model: model.queued),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for model in counted:
                gauge.add_metric([model, "0"], value(self._catalog.models[model]))
            yield gauge
        histograms = {
            "vllm:e2e_request_latency_seconds": "e2e",
            "vllm:request_queue_time_seconds": "queue",
            "vllm:request_inference_time_seconds": "run",
            "vllm:time_to_first_token_seconds": "first",
            "vllm:inter_token_latency_seconds": "between",
            "vllm:request_time_per_output_token_seconds": "per_token",
            "vllm:request_prompt_tokens": "prompt",
            "vllm:request_generation_tokens": "generation",
        }
        for name, attribute in histograms.items():
            family = HistogramMetricFamily(name, name.removeprefix("vllm:").replace("_", " "), labels=labels)
            for model, tokens in counted.items():
                histogram: Histogram = getattr(tokens, attribute)
                family.add_metric([model, "0"], histogram.buckets(), histogram.total)
            yield family
        for index, kind in enumerate(("prompt", "generation")):
            counter = CounterMetricFamily(f"vllm:{kind}_tokens", f"{kind} tokens", labels=labels)
            for model, tokens in counted.items():
                counter.add_metric([model, "0"], tokens.sums[index])
            yield counter
        success = CounterMetricFamily("vllm:request_success", "Finished requests.", labels=[*labels, "finished_reason"])
        for model, tokens in counted.items():
            for reason, count in {**NONE_FINISHED, **tokens.finished}.items():
                success.add_metric([model, "0", reason], count)
        yield success


def _by_kind(name: str, label: str, counted: Mapping[str, list[float]]) -> Any:
    """Return a metric of tokens by owner and kind."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, f"{name.removeprefix('gateway_').replace('_', ' ')}.", labels=[label, "kind"])
    for owner, sums in counted.items():
        for kind, total in zip(("prompt", "generation"), sums, strict=True):
            family.add_metric([owner, kind], total)
    return family


def _generates(model: HostedModel) -> bool:
    """Whether the model's token metrics exist from its start, so that they show 0 instead of being absent."""
    return any(method.name in GENERATING for method in model.capabilities.methods)


class _Collected:
    """The metrics of one scrape, as the collector that the library expects."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def describe(self) -> list[Any]:
        """Return [], so the registry does not collect at registration."""
        return []

    def collect(self) -> list[Any]:
        return self._families
