"""The frozen values that cross borders: discovery → hub → worker.

Everything here can be printed, compared and sent over the channel. Nothing here does anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIB = 1024 * 1024

# Methods whose routes other methods answer without a setting. What needs one: completions, which cannot go around the
# chat template, and rerank, which is as good as the embeddings.
DERIVED = ("chat_completions", "messages", "responses")
DERIVABLE = (*DERIVED, "completions", "rerank")

ON_DEMAND_WAIT = 60.0  # seconds a request waits for a model that loads on demand, unless told; no time for others

Level = Literal["error", "warning", "note"]  # an error keeps a model from serving; a note is for information
State = Literal["unloaded", "loading", "ready", "restarting", "draining", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one model may use. Times are seconds, sizes bytes."""

    slots: int = 1  # calls that run at once in one replica: Truss's `runtime.predict_concurrency`
    max_queue: int = 64  # calls that wait for a slot; one more is refused with 429
    queue_timeout: float = 30.0
    wait_for_ready: float | None = None  # of a request, while the model loads or restarts; see `ON_DEMAND_WAIT`
    request_timeout: float = 600.0  # whole answers only; a stream is bounded by its gaps
    first_item_timeout: float = 120.0
    gap_timeout: float = 60.0  # between two items of a stream: Truss's `runtime.streaming_read_timeout`
    load_timeout: float = 1800.0
    cancel_grace: float = 5.0  # how long cancelled code may run on before its worker is killed
    worker_silence: float = 120.0  # how long its loop may stand still while it computes nothing
    max_body: int = 32 * MIB
    max_message: int = MIB  # of a websocket, from the client
    max_crashes: int = 5  # within two minutes; from then on tries after 1, 2, 4 … 60 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica needs of the machine."""

    gpus: int = 0  # devices per replica; 0 makes a CPU model
    accelerator: str | None = None  # a name such as "H100", as config.yaml spells it; None takes any
    gpu_memory: str | None = None  # a share per device, "20GiB" or "50%"; None owns its devices alone
    pin: tuple[tuple[str, ...], ...] = ()  # device ids or indices, one tuple for all replicas or one each
    cpu: float | None = None  # cores, for thread counts; None shares the machine's evenly


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route and the Model method that answers it.

    `dialect` names the encoder that turns the method's events into bytes, see `gateway.dialects`. A model without the
    method may answer by `derived_from` instead, when its `derive` has the route's method. For one that has neither but
    serves the path `beside`, the dialect makes the answer by itself.
    """

    path: str  # "/v1/chat/completions"; served under /models/{id} too
    method: str  # "chat_completions"
    dialect: str
    summary: str = ""
    derived_from: str | None = None
    beside: str | None = None
    verb: Literal["POST", "GET"] = "POST"  # with GET, the method gets the query


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as discovery found it: enough to start a worker, nothing imported.

    `target` is an import string: "gateway_sklearn:SklearnModel" of an installed plugin, "/path/to/my_plugin.py:MyModel"
    of a plugin given by its file, or, with `own_code`, "model.model:Model" relative to `root`.
    """

    name: str
    target: str
    root: Path
    format: str = "python"
    display_name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # what the class receives as `config`
    limits: Limits = Limits()
    resources: Resources = Resources()
    replicas: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)  # exported before the model is imported
    secrets: tuple[str, ...] = ()  # the names it may look up
    own_code: bool = False  # the class is in `root`, which is first on sys.path; else the directory is only data
    import_dirs: tuple[Path, ...] = ()  # with `own_code`, appended to sys.path
    data_dir: Path | None = None
    mount_roots: tuple[Path, ...] = ()  # below which, or at which, its `mount_location`s may be made
    python: str | None = None  # interpreter that runs it; None is the gateway's own
    extra: str | None = None  # pip extra that brings its framework, for the error when it is missing
    parity: Literal["improved", "strict"] = "improved"
    derive: tuple[str, ...] = DERIVED  # the methods whose routes may be answered by another one of the class
    enforce_stop: bool = False  # the gateway looks for stop strings itself, and ends the code at one
    sandbox: Literal["basic", "strict"] = "basic"  # what its workers give up, see `gateway/worker/sandbox.py`
    memory_limit: int | None = None  # bytes that each worker may allocate
    allow_links: bool = False  # symbolic links in its directory may lead out of it
    forward_credentials: bool = False  # its Requests have the key, token or cookie that let them into the gateway
    notes: tuple[str, ...] = ()  # what is odd about it though it loads: warnings
    asides: tuple[str, ...] = ()  # what lies beside it and is passed over, which is no fault of it

    @property
    def is_stand_in(self) -> bool:
        """Whether it stands for a directory that could not be read: there is nothing to load."""
        return not self.target


INVALID = "invalid_model"  # the code of what a format, or a plugin, says is wrong with a directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a directory is not served, or what is odd about it, or to be known of it; one line for people.

    `where` is a path, with ":line" when there is one. `fix` says what to do next.
    """

    where: str
    what: str
    fix: str = ""
    code: str = INVALID
    level: Level = "error"
    model: str | None = None

    @property
    def log_level(self) -> int:
        return {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}[self.level]

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.fix})" if self.fix else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo:
    """What a worker found out about one method, once, at load."""

    name: str
    kind: Literal["sync", "async", "generator", "async_generator"]
    wants_request: bool = False  # the method takes the Request, so headers and query travel with the call
    derived: bool = False  # the class has no such method; it is made of others, or of its tokenizer
    needs_slot: bool = True  # False: it counts tokens, which is short and may go on beside calls that run


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a loaded model can do; the worker's answer to a finished load."""

    methods: tuple[MethodInfo, ...] = ()
    has_health_check: bool = False
    has_hooks: bool = False  # preprocess or postprocess: calls wait for the slot in the worker
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    supports_streaming: bool | None = None
    max_model_len: int | None = None  # tokens, prompt and answer together
    supports_n: bool = False
    prefill: bool = False  # chat honours `continue_final_message`, which /v1/messages then asks for by itself
    ports: tuple[int, ...] = ()  # that its own servers listen on once it is loaded
    asked: Mapping[str, str] = field(
        default_factory=dict
    )  # method that it lacks → what it has that may be meant for it
    extra: Mapping[str, Any] = field(default_factory=dict)
