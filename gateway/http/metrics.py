"""Counters of the hot path, and their exposition through prometheus_client at a scrape.

Counting is a dict look-up and an addition; the library's own metric objects would cost a lock each. Names and buckets:
our own family (seconds, bytes, `_total`), and vLLM's for routes that produce tokens, which stock dashboards read.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import CAUSES, GIVEN_CODES, GatewayError, QueueTimeout, RouteNotSupported, codes_of
from ..histogram import Histogram
from . import model_metrics
from .exchange import CLIENT_LEFT
from .refused import Refused
from .stall import SEND_TIMEOUT
from .websocket_protocol import BAD_FRAME, PING_TIMEOUT, TOO_MANY_PINGS

if TYPE_CHECKING:
    from ..dialects.base import Used
    from ..hosted import HostedModel
    from ..hub import Hub, Sees
    from .exchange import Exchange

LATE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
REASONS = {
    "timeout": "timeout",
    "shutting_down": "drain",
    SEND_TIMEOUT: SEND_TIMEOUT,
}  # why code was stopped, by the error of its client
KNOWN_CODES = codes_of(GatewayError) | GIVEN_CODES | {SEND_TIMEOUT, TOO_MANY_PINGS, PING_TIMEOUT, BAD_FRAME}
OTHER = "other"  # stands for the codes that models make up, and for the names of callers beyond so many
MAX_CALLERS = 1000  # names; those of keys are few, a plugin may know any number
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
    """What is counted for one model on one route."""

    __slots__ = ("broken", "duration", "queue", "reading", "run", "sending", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.broken: dict[str, int] = {}  # streams whose status had said 200, by what ended them
        self.duration, self.queue, self.run = Histogram(DURATIONS), Histogram(DURATIONS), Histogram(DURATIONS)
        self.reading = self.sending = 0.0  # seconds of clients


class Spent:
    """The tokens of one caller or model: of prompts, and generated."""

    __slots__ = ("estimated", "sums")

    def __init__(self) -> None:
        self.sums = [0.0, 0.0]  # an int could grow larger than a scrape can write
        self.estimated = [0.0, 0.0]  # those among them of requests where nobody counted all

    def add(self, used: Used) -> None:
        for sums in (self.sums, self.estimated) if used.is_estimated else (self.sums,):
            sums[0] += used.prompt
            sums[1] += used.completion


class Tokens(Spent):
    """vLLM's family for one model, and who counted."""

    __slots__ = ("between", "counting", "e2e", "finished", "first", "generation", "per_token", "prompt", "queue", "run")

    def __init__(self) -> None:
        super().__init__()
        self.e2e, self.queue, self.run = Histogram(LATENCY), Histogram(LATENCY), Histogram(LATENCY)
        self.first, self.between, self.per_token = Histogram(FIRST_TOKEN), Histogram(BETWEEN), Histogram(BETWEEN)
        self.prompt, self.generation = Histogram(TOKENS), Histogram(TOKENS)
        self.counting = 0.0  # seconds that answers waited for counts
        self.finished: dict[str, int] = {}


class Metrics:
    """The counters of one gateway."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._series: dict[tuple[str, str], Series] = {}
        self._tokens: dict[str, Tokens] = {}
        self._rejections: dict[tuple[str, str, str], int] = {}
        self._cancelled: dict[tuple[str, str], int] = {}
        self._callers: dict[str, dict[int, int]] = {}  # requests by name and status
        self._spent: dict[str, Spent] = {}  # tokens by name
        self.refused = Refused()
        self.lag = Histogram(LATE)  # of the gateway's own loop
        hub.on_forget.append(self._forget)

    def observe(self, exchange: Exchange) -> bool:
        """Count a finished request; whether it was one of a model.

        Names that no model has, or none that the caller sees, never make a series: what is refused with them counts
        for none.
        """
        caller = exchange.caller
        if caller is not None and caller.name:
            statuses = self._callers.get(caller.name) or self._statuses(caller.name)
            statuses[exchange.status] = statuses.get(exchange.status, 0) + 1
        if exchange.error and not exchange.sees(exchange.model):
            exchange.model = ""
        series = self._series.get((exchange.model, exchange.route)) or self._series_of(exchange)
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
        return exchange.model != ""

    def _series_of(self, exchange: Exchange) -> Series:
        """The series of a request that may be the first of its kind; a model that is gone has none."""
        if exchange.model not in self._hub.models:
            exchange.model = ""
        return self._series.setdefault((exchange.model, exchange.route), Series())

    def _statuses(self, name: str) -> dict[int, int]:
        if len(self._callers) >= MAX_CALLERS:
            name = OTHER
        return self._callers.setdefault(name, {})

    def spent(self, exchange: Exchange, used: Used) -> None:
        """Count the tokens of a request."""
        exchange.tokens = (used.prompt, used.completion, used.is_estimated)
        self.tokens(exchange.model).add(used)
        if exchange.caller is None or not (name := exchange.caller.name):
            return
        if name not in self._spent and len(self._spent) >= MAX_CALLERS:
            name = OTHER
        self._spent.setdefault(name, Spent()).add(used)

    def _count_failure(self, exchange: Exchange, series: Series) -> None:
        if exchange.error and exchange.status < 400:
            code = exchange.error if exchange.error in KNOWN_CODES else OTHER  # a model may make up its own
            series.broken[code] = series.broken.get(code, 0) + 1
        reason = REASONS.get(exchange.error)
        if (exchange.status == CLIENT_LEFT or exchange.was_lost) and reason != SEND_TIMEOUT:
            reason = "client_left"
        if reason is not None and exchange.sent:
            key = (exchange.model, reason)
            self._cancelled[key] = self._cancelled.get(key, 0) + 1

    def rejected(self, exchange: Exchange, error: GatewayError) -> None:
        """Note why a request failed, and count it if that was before a call of it had a slot: by the code that its
        client got, and the cause that it did not get."""
        exchange.error, exchange.cause, exchange.asked = error.code, error.cause, error.asked or exchange.asked
        if not exchange.has_run:
            exchange.measure()
        in_hooks = exchange.has_run and not exchange.had_slot and not isinstance(error, QueueTimeout)
        is_models = error.by_model or exchange.had_slot or in_hooks
        if is_models and error.code != RouteNotSupported.code:  # of a predict, the worker's
            return
        model = exchange.model
        if model not in self._hub.models or not exchange.sees(model):
            model = ""
        code = error.code if error.code in KNOWN_CODES else OTHER
        key = (model, code, error.cause if error.cause in CAUSES else "")
        self._rejections[key] = self._rejections.get(key, 0) + 1

    def tokens(self, model: str) -> Tokens:
        found = self._tokens.get(model)
        if found is None:
            found = Tokens()
            if model in self._hub.models:  # else it was forgotten while its last answer went out
                self._tokens[model] = found
        return found

    def _forget(self, model: str) -> None:
        """Drop what was counted of a model that is gone: its series end, and one of its name begins at nothing."""
        self._tokens.pop(model, None)
        by_model: tuple[dict[Any, Any], ...] = (self._series, self._rejections, self._cancelled)
        for counted in by_model:
            for key in [key for key in counted if key[0] == model]:
                del counted[key]

    # ── exposition ───────────────────────────────────────────────────────────────────────────────────────────────

    async def exposition(self, accept: str, sees: Sees) -> tuple[bytes, str]:
        """The text of a scrape and its content type, by content negotiation: of the models that its caller sees."""
        of_models = await model_metrics.scrape(self._hub, sees)
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Collected(list(self._collect(sees, of_models))))
        encoder, content_type = choose_encoder(accept)
        if "openmetrics-text" in content_type and not content_type.endswith(("dots", "values")):
            # The library (0.26) writes the colon of `vllm:` as an underscore there, though it needs no escape; nor
            # does any name of ours, or of a model, whose others are left out.
            encoder = partial(encoder, escaping="allow-utf-8")  # type: ignore[call-arg]
        return await asyncio.to_thread(encoder, registry), content_type  # many series take many turns of the loop

    def _collect(self, sees: Sees, of_models: Iterable[Any]) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        yield from self._own(sees)
        if sees(""):  # who sees some models only is told nothing of other callers
            yield self._refused()
            yield from self._of_callers()
        yield from model_metrics.families(self._hub, sees)
        yield from of_models
        tokens = {model.name: Tokens() for model in self._hub.seen(sees) if _generates(model)}
        if tokens := tokens | {model: counted for model, counted in self._tokens.items() if sees(model)}:
            yield from self._vllm(tokens)
            yield _by_kind(
                "gateway_estimated_tokens", "model", {model: found.estimated for model, found in tokens.items()}
            )
            counting = CounterMetricFamily("gateway_count_seconds", "Answers waiting for counts.", labels=["model"])
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
        cancelled = CounterMetricFamily("gateway_cancellations", "Calls given up.", labels=["model", "reason"])
        for (model, reason), count in self._cancelled.items():
            if sees(model):
                cancelled.add_metric([model, reason], count)
        lag = HistogramMetricFamily("gateway_event_loop_lag_seconds", "How late the gateway's own loop was.")
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
            "vllm:num_requests_waiting": ("Requests waiting for one.", lambda model: model.queued),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for model in counted:
                gauge.add_metric([model, "0"], value(self._hub.models[model]))
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
    """A family of tokens, by whose they are."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, f"{name.removeprefix('gateway_').replace('_', ' ')}.", labels=[label, "kind"])
    for owner, sums in counted.items():
        for kind, total in zip(("prompt", "generation"), sums, strict=True):
            family.add_metric([owner, kind], total)
    return family


def _generates(model: HostedModel) -> bool:
    """Whether it has tokens to count from its start on, so that what is made of them shows 0 and not nothing."""
    return any(method.name in GENERATING for method in model.capabilities.methods)


class _Collected:
    """The families of one scrape, as the library wants to have them."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def describe(self) -> list[Any]:
        """Keep the registry from collecting at registration."""
        return []

    def collect(self) -> list[Any]:
        return self._families
