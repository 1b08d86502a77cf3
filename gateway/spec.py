"""The frozen values that pass from discovery to the hub and to the workers.

All of them can be printed, compared and sent to a worker. They contain no logic.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIB = 1024 * 1024

# Methods whose routes other methods can answer. The ones in DERIVED need no setting. The others do: `completions`
# cannot bypass the chat template, and `rerank` is only as good as the embeddings.
DERIVED = ("chat_completions", "messages", "responses")
DERIVABLE = (*DERIVED, "completions", "rerank")

ON_DEMAND_WAIT = 60.0  # default seconds that a request waits for a model that loads on demand; other models: 0

Level = Literal["error", "warning", "note"]  # an error keeps a model from being served; a note is information only
State = Literal["unloaded", "loading", "ready", "restarting", "draining", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one model. Times are in seconds, sizes in bytes."""

    slots: int = 1  # calls that run at once in one replica: Truss's `runtime.predict_concurrency`
    max_queue: int = 64  # calls that wait for a slot; further calls are refused with 429
    queue_timeout: float = 30.0
    wait_for_ready: float | None = None  # wait of a request while the model loads or restarts; see `ON_DEMAND_WAIT`
    request_timeout: float = 600.0  # whole answers only; streams have `gap_timeout`
    first_item_timeout: float = 120.0
    gap_timeout: float = 60.0  # between two items of a stream: Truss's `runtime.streaming_read_timeout`
    load_timeout: float = 1800.0
    cancel_grace: float = 5.0  # how long cancelled code may keep running before its worker is killed
    worker_silence: float = 120.0  # how long the worker's event loop may be blocked while it uses no CPU
    max_body: int = 32 * MIB
    max_message: int = MIB  # a websocket message from the client
    max_crashes: int = 5  # within two minutes; later restarts are 1, 2, 4 … 60 s apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How calls of one model share batches. Methods whose names end in `_batch` get a list of inputs."""

    size: int | None = None  # most items of a batch; None: such methods get one item at a time
    delay: float = 0.0  # seconds that the oldest item of a batch may wait for others
    concurrency: int = 1  # batches that run at once in one replica
    cost: str | None = None  # a method of the class: an item → a number, such as its tokens
    budget: float | None = None  # most of these in one batch
    key: str | None = None  # a method of the class: an item → a value; only items with equal ones share a batch
    sort: bool = False  # the items of a batch are sorted by cost, the largest first
    on_error: Literal["isolate", "fail"] = "isolate"  # what becomes of a batch whose method raises
    has_own_slots: bool = False  # the number of slots is set for the model, and not derived from the size

    @property
    def slots(self) -> int:
        """Slots with which the next batch is complete when one ends."""
        return (self.size or 1) * (self.concurrency + 1)

    @property
    def in_vain(self) -> tuple[str, ...]:
        """The settings that have no effect because there is no batch size."""
        given = (("delay", self.delay), ("concurrency", self.concurrency - 1), ("cost", self.cost))
        rest = (("budget", self.budget), ("key", self.key), ("sort", self.sort), ("on_error", self.on_error == "fail"))
        return () if self.size is not None else tuple(f"batch_{name}" for name, value in (*given, *rest) if value)


class End(enum.Enum):
    """The type of `END`, which a batch method yields in place of an item whose stream has ended."""

    END = "END"

    def __repr__(self) -> str:
        return self.name


END = End.END


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica needs from the machine."""

    gpus: int = 0  # devices per replica; 0 means a CPU model
    accelerator: str | None = None  # a name such as "H100", as in config.yaml; None accepts any
    gpu_memory: str | None = None  # a share of each device, "20GiB" or "50%"; None takes whole devices
    pin: tuple[tuple[str, ...], ...] = ()  # device ids or indices: one tuple for all replicas, or one for each
    cpu: float | None = None  # cores, for thread counts; None divides the machine's cores evenly


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of model directory that a plugin serves, for `gateway formats` and `gateway new --from`."""

    files: str  # what such a directory has, in a few words: "*.ubj, *.json"
    routes: tuple[str, ...] = ()  # what it answers, in short: "/v1/embeddings", "predict"
    needs: tuple[str, ...] = ()  # third-party modules; the framework's own comes first
    install: str = ""  # the command that installs them


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route and the Model method that answers it.

    `dialect` names the encoder that turns the method's events into bytes, see `gateway.dialects`. If a model lacks the
    method, the method `derived_from` may answer instead, when the model's `derive` lists the route's method. If a model
    has neither but serves the path `beside`, the dialect makes the answer itself.
    """

    path: str = field(kw_only=False)  # "/v1/chat/completions"; also served under /models/{id}
    method: str = field(kw_only=False)  # "chat_completions"
    dialect: str = field(kw_only=False)
    summary: str = ""
    derived_from: str | None = None
    beside: str | None = None
    verb: Literal["POST", "GET"] = "POST"  # with GET, the method gets the query parameters
    input_schema: Mapping[str, Any] | type[Any] | None = None  # of the body: a JSON schema or a Pydantic class
    output_schema: Mapping[str, Any] | type[Any] | None = None  # of a whole answer, for the API document


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as discovery describes it: enough to start a worker. Nothing of it is imported.

    `target` is an import string: "gateway_sklearn.model:SklearnModel" for an installed plugin,
    "/path/to/my_plugin.py:MyModel" for a plugin given by its file, or, with `own_code`, "model.model:Model" relative to
    `root`.
    """

    name: str
    target: str
    root: Path
    format: str = "python"
    display_name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # passed to the class as `config`
    limits: Limits = Limits()
    batching: Batching = Batching()
    resources: Resources = Resources()
    replicas: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)  # variables to set before the model is imported
    secrets: tuple[str, ...] = ()  # names of the secrets that it may read
    own_code: bool = False  # the class is in `root`, which is put first on sys.path; if False, `root` has only data
    import_dirs: tuple[Path, ...] = ()  # with `own_code`: appended to sys.path
    data_dir: Path | None = None
    mount_roots: tuple[Path, ...] = ()  # its `mount_location`s must be at or below one of these
    python: str | None = None  # Python interpreter that runs it; None: the gateway's own
    needs: tuple[str, ...] = ()  # third-party modules that its class imports; its framework comes first
    install: str = ""  # the command that installs them, "pip install gateway-onnx"; shown when one is missing
    served_by: str = ""  # the plugin that described it, as named in `gateway plugins`
    parity: Literal["improved", "strict"] = "improved"
    derive: tuple[str, ...] = DERIVED  # methods whose routes another method of the class may answer
    enforce_stop: bool = False  # the gateway looks for stop strings itself, and stops the code at the first
    sandbox: Literal["basic", "strict"] = "basic"  # restrictions of workers, see `gateway/worker/sandbox/confine.py`
    memory_limit: int | None = None  # bytes that each worker may allocate
    nice: int = 0  # of its workers: 0 is the gateway's own priority, 19 the lowest
    yields: bool = True  # its workers wait for a pause of the gateway while that has none, see `runners/yielding.py`
    allow_links: bool = False  # symbolic links in its directory may point outside it
    forward_credentials: bool = False  # its Requests include the key, token or cookie that the client was admitted with
    notes: tuple[str, ...] = ()  # warnings that do not keep it from loading
    asides: tuple[str, ...] = ()  # files beside it that are ignored; not an error of the model

    @property
    def is_stand_in(self) -> bool:
        """Whether it is a placeholder for a directory that could not be read, with nothing to load."""
        return not self.target


INVALID = "invalid_model"  # the code of a problem that a format or a plugin reports about a directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem of a model directory: an error that keeps it from being served, a warning or a note. One line of text.

    `where` is a path, with ":line" if a line is known. `fix` says what to do next.
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
    """What a worker found out about one method at load."""

    name: str
    kind: Literal["sync", "async", "generator", "async_generator"]
    wants_request: bool = False  # the method takes the Request, so headers and query are sent with the call
    derived: bool = False  # the class lacks the method; it is derived from other methods or from the tokenizer
    needs_slot: bool = True  # False: it counts tokens, which is fast and may run beside other calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a loaded model can do. The worker sends it when the load has finished."""

    methods: tuple[MethodInfo, ...] = ()
    has_health_check: bool = False
    has_hooks: bool = False  # preprocess or postprocess exist: calls wait for the slot in the worker
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    supports_streaming: bool | None = None
    max_model_len: int | None = None  # in tokens, prompt and answer together
    supports_n: bool = False
    prefill: bool = False  # chat supports `continue_final_message`, which /v1/messages then sets
    ports: tuple[int, ...] = ()  # ports that its own servers listen on after the load
    asked: Mapping[str, str] = field(
        default_factory=dict
    )  # a method that it lacks → the method that was probably meant
    extra: Mapping[str, Any] = field(default_factory=dict)
