"""What a model was not given of a request is said in a header and in the log, also where the answer is a stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from served import Model, Served

from gateway.dialects.responses import route
from gateway.http.routes.dialects import MOST_TOLD

TOOLS = [{"type": "web_search"}, {"type": "function", "name": "time"}, {"type": "local_shell"}]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_nobody_here_can_run_are_named(
    serve: Callable[..., Served], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve({"m": Model({"chat_completions": lambda inputs: "fine"})}, plugins=[route])
    with caplog.at_level("INFO", "gateway.http"):
        answer = served.post("/v1/responses", {"input": "hi", "tools": TOOLS, "stream": stream})
    assert answer.status == 200 and answer.headers["x-gateway-left-out"] == "web_search, local_shell"
    request = answer.headers["x-request-id"]
    assert f"request {request}: model 'm' did not get web_search, local_shell" in caplog.text
    plain = served.post("/v1/responses", {"input": "hi", "tools": TOOLS[1:2], "stream": stream})
    assert "x-gateway-left-out" not in plain.headers


def test_of_very_many_words_that_a_model_does_not_get_the_first_are_told(serve: Callable[..., Served]) -> None:
    served = serve({"m": Model({"chat_completions": lambda inputs: "fine"})}, plugins=[route])
    tools = [{"type": f"tool-{number}"} for number in range(5000)]
    told = served.post("/v1/responses", {"input": "hi", "tools": tools}).headers["x-gateway-left-out"]
    assert told.split(", ") == [*(f"tool-{number}" for number in range(MOST_TOLD)), f"and {5000 - MOST_TOLD} more"]
