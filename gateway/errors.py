"""The errors that a request can end with, as one class tree.

    GatewayError                         status type                  code
    ├── BadRequest                       400    invalid_request_error invalid_value, or as given
    │   ├── InvalidJSON                  400                          invalid_json
    │   ├── TooLarge                     413                          request_too_large
    │   ├── SlowBody                     408                          request_timeout
    │   ├── UnsupportedMedia             415                          unsupported_media_type
    │   ├── Unauthorized                 401                          invalid_api_key
    │   ├── Forbidden                    403                          forbidden_origin
    │   ├── PermissionDenied             403                          permission_denied
    │   ├── Misdirected                  421                          unknown_host
    │   │   └── OwnGateway               421                          own_gateway
    │   ├── UnknownModel                 404                          model_not_found
    │   ├── RouteNotSupported            404                          route_not_supported
    │   ├── UnknownResponse              404                          response_not_found
    │   ├── UnknownItem                  400                          item_not_found
    │   ├── UnknownURL                   404                          unknown_url
    │   └── MethodNotAllowed             405                          method_not_allowed
    ├── Overloaded                       429    rate_limit_error      model_overloaded
    │   └── RateLimited                  429                          rate_limit_exceeded
    ├── Unavailable                      503    server_error          model_unavailable
    │   ├── QueueTimeout                 503                          queue_timeout
    │   ├── Loading                      503                          model_loading
    │   ├── Draining                     503                          shutting_down
    │   ├── LoadFailed                   503                          model_failed
    │   └── OutOfMemory                  503                          insufficient_memory
    ├── Crashed                          502    server_error          model_crashed
    ├── WaitsForItself                   508    server_error          waits_for_itself
    ├── Timeout                          504    server_error          timeout
    └── ModelError                       500    server_error          model_error
        ├── InvalidOutput                500                          invalid_model_output
        └── HTTPError                    as raised                    the one a Model raises itself

Each class carries the status, type and code that the client gets. `http/errors.py` writes them in the format of the
route. `hosting/refusals.py` chooses the 503 errors of a model and their `Retry-After`. `by_model` tells whether the
model failed or the gateway. `ConfigError` is for configuration errors; clients never get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

MODEL_RAISED = "Internal Server Error (in model/chainlet)."  # what a worker reports for an exception, in Truss's words


class GatewayError(Exception):
    """An error that ends a request with an error body.

    `retry_after` is in seconds. `should_retry` becomes the header `x-should-retry`, which the OpenAI SDK obeys.
    """

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    truss_code: int = 600  # X-BASETEN-ERROR-CODE on Truss-style routes; 0: no code, and plain text with strict parity
    truss_message: str | None = None  # Truss's own message, where it has one
    should_retry: bool | None = None
    cause: str = ""  # the exact reason, for operators: in the access log and the metrics, never in an answer
    asked: str = ""  # also for operators: the requested model, if the caller has no model of that name
    by_model: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.param = param
        if code is not None:
            self.code = code
        if should_retry is not None:
            self.should_retry = should_retry
        self.retry_after = retry_after
        self.headers = dict(headers or {})


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    truss_code = 700


class InvalidJSON(BadRequest):
    code = "invalid_json"


class TooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class SlowBody(BadRequest):
    status = 408
    code = "request_timeout"


class UnsupportedMedia(BadRequest):
    status = 415
    code = "unsupported_media_type"


class Unauthorized(BadRequest):
    status = 401
    code = "invalid_api_key"


class Forbidden(BadRequest):
    status = 403
    code = "forbidden_origin"


class PermissionDenied(BadRequest):
    status = 403
    code = "permission_denied"


class Misdirected(BadRequest):
    status = 421
    code = "unknown_host"


class OwnGateway(Misdirected):
    """A loading model sent a request to the gateway, which it takes for a server of its own."""

    code = "own_gateway"


class UnknownModel(BadRequest):
    status = 404
    code = "model_not_found"
    truss_code = 600


class RouteNotSupported(BadRequest):
    status = 404
    code = "route_not_supported"


class UnknownResponse(BadRequest):
    status = 404
    code = "response_not_found"


class UnknownItem(BadRequest):
    code = "item_not_found"


class UnknownURL(BadRequest):
    status = 404
    code = "unknown_url"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class Overloaded(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "model_overloaded"


class RateLimited(Overloaded):
    """A key has used up its limit. Other keys are still served."""

    code = "rate_limit_exceeded"


class Unavailable(GatewayError):
    status = 503
    code = "model_unavailable"


class QueueTimeout(Unavailable):
    code = "queue_timeout"


class Loading(Unavailable):
    code = "model_loading"


class Draining(Unavailable):
    code = "shutting_down"


class LoadFailed(Unavailable):
    code = "model_failed"
    should_retry = False


class OutOfMemory(Unavailable):
    code = "insufficient_memory"
    by_model = True


class Crashed(GatewayError):
    status = 502
    code = "model_crashed"
    by_model = True


class WaitsForItself(GatewayError):
    """A model calls itself while it holds the slot that the call waits for."""

    status = 508
    code = "waits_for_itself"
    should_retry = False


class Timeout(GatewayError):
    status = 504
    code = "timeout"


class ModelError(GatewayError):
    code = "model_error"
    should_retry: bool | None = False  # the same input would fail again and waste GPU time
    by_model = True


class InvalidOutput(ModelError):
    code = "invalid_model_output"


class HTTPError(ModelError):
    """Raise it in a Model to answer with a status and a message of your own.

    >>> raise HTTPError(400, "temperature must be at most 2", param="temperature")

    Any exception with an int `status_code` of 400-599 and a `detail` or `message`, such as FastAPI's and Starlette's,
    has the same effect. `detail` may be a dict; Truss-style routes show it as an object.
    """

    should_retry = None

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        detail: Any = None,
    ) -> None:
        default = "model_error" if status >= 500 else "rate_limit_exceeded" if status == 429 else "invalid_value"
        super().__init__(message, param=param, code=code or default, headers=headers)
        self.status = status
        self.detail = message if detail is None else detail
        if status < 500:
            self.type = "rate_limit_error" if status == 429 else "invalid_request_error"

    @property
    def status_code(self) -> int:
        return self.status


# Codes that the gateway's errors may have in place of the code of their class, and the code of admin.NotReloaded.
GIVEN_CODES = frozenset(
    {
        "content_policy_violation",
        "context_length_exceeded",
        "invalid_type",
        "missing_required_parameter",
        "previous_response_not_found",
        "reload_failed",
        "string_above_max_length",
        "thread_unsupported_request",
        "unsupported_value",
    }
)

# The causes that operators see beside a code. The access log and the metrics have no other causes.
CAUSES = frozenset(
    {
        *("key_missing", "key_unknown", "key_expired", "key_revoked", "key_changed", "model_hidden"),
        *("rpm", "max_inflight", "max_queue", "max_queued_bytes", "max_pending", "counting"),
        *("queue_timeout", "x_request_timeout", "request_timeout", "first_item_timeout", "gap_timeout", "frozen"),
        *("body_idle_timeout", "body_timeout"),
        *("unloaded", "unloading", "stopping", "restarting", "crashing", "no_room", "unhealthy"),
    }
)


def codes_of(cls: type[GatewayError]) -> frozenset[str]:
    """Return the codes of this error class and of all its subclasses."""
    return frozenset({cls.code}.union(*map(codes_of, cls.__subclasses__())))


class ConfigError(Exception):
    """Invalid settings or files. The text says where, what is wrong, and what to do."""


class PlacementError(ConfigError):
    """A replica fits on no device of this machine."""
