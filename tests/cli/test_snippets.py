from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from gateway.cli.snippets import certified, snippets
from gateway.dialects.scoring.rerank import RerankDialect
from gateway.examples.values import example
from gateway.spec import Capabilities, Endpoint, MethodInfo


class Inner(BaseModel):
    kind: str = Field(examples=["cat"])


class Input(BaseModel):
    text: str
    count: int
    inner: Inner
    many: list[float]
    maybe: int | None
    top: int = 3


def test_an_example_satisfies_the_schema_it_is_made_from() -> None:
    value = example(Input.model_json_schema())
    assert value == {"text": "Hello.", "count": 1, "inner": {"kind": "cat"}, "many": [1.0], "maybe": 1}
    Input.model_validate(value)


@pytest.mark.parametrize("schema", [{}, None, True, {"$ref": "#/$defs/Missing"}, {"type": "strange"}])
def test_a_schema_that_says_little_gives_an_empty_object(schema: Any) -> None:
    assert example(schema) == {}


class Person(BaseModel):
    name: str
    parent: Person | None
    friends: list[Person]


def test_an_example_of_a_schema_that_recurses_ends_where_it_may() -> None:
    value = example(Person.model_json_schema())
    assert value == {"name": "Hello.", "parent": None, "friends": []}
    Person.model_validate(value)


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "required": ["a"], "properties": {"a": schema}}
    return schema


WIDE = {
    f"D{i}": {"required": ["a", "b"], "properties": {key: {"$ref": f"#/$defs/D{i + 1}"} for key in "ab"}}
    for i in range(60)
}


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"},
        {"$defs": WIDE, "$ref": "#/$defs/D0"},
        nested(5000),
        {"default": "x" * 1_000_000},
        {"enum": {"a": 1}},
        {"anyOf": {"a": 1}},
        {"required": 5, "properties": {"a": {}}},
        {"type": [["object"]]},
        {"$ref": 5, "$defs": []},
        {"default": b"no JSON"},
    ],
    ids=range(10),
)
def test_a_schema_without_an_example_that_anybody_would_paste_gives_an_empty_object(schema: Any) -> None:
    assert example(schema) == {}


words = st.sampled_from(["$ref", "$defs", "type", "anyOf", "items", "required", "properties", "enum", "A", "array"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | words | st.just("#/$defs/A"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
)


@given(st.dictionaries(words, anything))
def test_no_schema_breaks_an_example(schema: Any) -> None:
    example(schema)


def shown(*models: Any, url: str = "http://x", key: str | None = None, cert: Path | None = None) -> str | None:
    catalog = SimpleNamespace(
        models={model.name: model for model in models},
        endpoints=[Endpoint(path="/v1/rerank", method="rerank", dialect="rerank")],
        serves=lambda model, endpoint: model.capabilities.methods[0].name == endpoint.method,
    )
    hub: Any = SimpleNamespace(
        catalog=catalog,
        settings=SimpleNamespace(gateway=SimpleNamespace(api_key=key, tls_cert=cert, tls_key=None)),
        plugins=SimpleNamespace(dialects=lambda: {"rerank": RerankDialect()}),
    )
    keys: Any = SimpleNamespace(is_required=key is not None)
    return snippets(hub, keys, url)


class Hosted(SimpleNamespace):
    """Of a hosted model what is shown; it is itself and no other, as that is."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def model(name: str, method: str, *, state: str = "ready", length: int | None = None) -> Any:
    capabilities = Capabilities(methods=(MethodInfo(name=method, kind="sync"),), max_model_len=length)
    return Hosted(name=name, state=state, capabilities=capabilities, spec=SimpleNamespace(config={}))


def test_the_chat_model_that_reads_most_is_shown() -> None:
    toy, small = model("a-toy", "chat_completions"), model("small", "chat_completions", length=128)
    large = model("z-large", "chat_completions", length=2048)
    others = [model("b", "predict"), model("c", "embeddings")]
    assert 'model="z-large"' in (shown(*others, toy, small, large) or "")
    assert 'model="a-toy"' in (shown(*others, toy) or "")


def test_embeddings_come_before_predict_and_what_is_not_ready_is_not_shown() -> None:
    found = [model("a", "predict"), model("b", "embeddings"), model("c", "chat_completions", state="loading")]
    assert "/v1/embeddings" in (shown(*found) or "")
    assert "/v1/models/a:predict" in (shown(found[0]) or "")
    assert shown(found[2]) is None


def test_a_model_of_another_kind_is_shown_on_its_route() -> None:
    text = shown(model("a", "rerank")) or ""
    assert "curl http://x/v1/rerank -H" in text and '"model": "a"' in text and '"documents"' in text
    assert shown(model("a", "transcriptions")) is None  # a form is nothing to paste


@pytest.mark.parametrize(
    ("variable", "shell", "python"),
    [
        ("GATEWAY_API_KEY", '"Authorization: Bearer $GATEWAY_API_KEY"', 'os.environ["GATEWAY_API_KEY"]'),
        ("GATEWAY_API_KEY_FILE", '$(cat "$GATEWAY_API_KEY_FILE")', 'open(os.environ["GATEWAY_API_KEY_FILE"])'),
    ],
)
def test_a_key_is_never_written_out(monkeypatch: pytest.MonkeyPatch, variable: str, shell: str, python: str) -> None:
    monkeypatch.delenv("GATEWAY_API_KEY_FILE", raising=False)
    monkeypatch.setenv(variable, "the-key")
    text = shown(model("a", "chat_completions"), key="the-key") or ""
    assert "the-key" not in text
    assert shell in text
    assert python in text
    compile(text.partition("\n\n")[2], "snippet", "exec")


def test_with_a_certificate_curl_and_the_sdk_are_told_to_trust_it() -> None:
    text = shown(model("a", "chat_completions"), cert=Path("/a place/cert.pem"), url="https://x") or ""
    assert "--cacert '/a place/cert.pem' " in text and 'cafile="/a place/cert.pem"' in text
    compile(text.partition("\n\n")[2], "snippet", "exec")


def test_with_a_certificate_the_gateway_is_asked_by_a_name_that_it_is_for(tmp_path: Path) -> None:
    issued, cert = trustme.CA().issue_cert("gw.example", "localhost"), tmp_path / "cert.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(cert))
    chat = model("a", "chat_completions")
    text = shown(chat, cert=cert, url="https://127.0.0.1:8000") or ""
    assert text.startswith("curl -N https://localhost:8000/v1/chat") and 'base_url="https://localhost:8000/v1"' in text


@pytest.mark.parametrize(
    ("host", "names", "asked"),
    [
        ("127.0.0.1", ["gw.example", "127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["gw.example", "localhost"], "localhost"),
        ("::1", ["::1"], "::1"),
        ("10.0.0.7", ["localhost", "gw.example"], "gw.example"),
        ("127.0.0.1", ["*.example"], "www.example"),
        ("127.0.0.1", [], "127.0.0.1"),
    ],
)
def test_a_name_that_need_not_lead_here_has_a_line_that_says_so(host: str, names: list[str], asked: str) -> None:
    found, remark = certified(host, names)
    assert found == asked
    leads_here = host in names or not names or (host.startswith("127.") and "localhost" in names)
    assert remark.startswith(f"# {asked}, the name in the certificate, must resolve") is not leads_here


def test_keys_of_a_file_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_API_KEY", raising=False)
    monkeypatch.delenv("GATEWAY_API_KEY_FILE", raising=False)
    text = shown(model("a", "predict"), key="in the file") or ""
    assert text.startswith("# set GATEWAY_API_KEY to your key") and '"Authorization: Bearer $GATEWAY' in text
