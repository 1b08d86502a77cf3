"""Every order of an operator is a line of the log, with who gave it and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lines import Lines
from served import PATIENCE, Model, Served

from gateway.access import keys
from gateway.hosting import reload
from gateway.http.routes import admin
from gateway.http.routes.audit_orders import IS_READY, NOT_LOADED
from gateway.runners.replica import LoadError
from gateway.settings.schema import ModelSettings
from gateway.telemetry.audit import user
from gateway.telemetry.logs import TextLines

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def model() -> Model:
    return Model({"predict": lambda body: b"{}"})


def audits(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "gateway.audit"]


def test_orders_over_http_are_told_with_their_key_and_outcome(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = keys.create("ops", scopes=("admin",))
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": model()}, keys_file=tmp_path / "keys.toml", admin_http=True)
    auth = {"Authorization": f"Bearer {text}"}
    assert served.post("/admin/models/m/unload", **auth).status == 200
    assert served.post("/v2/repository/models/m/load", **auth).status == 200
    assert served.post("/admin/models/m/reload", **auth).status == 422
    served.post("/admin/models/made-up/unload", **auth)
    served.post("/admin/models/m/unload")
    found = audits(caplog)
    assert [(one["action"], one["model"]) for one in found] == [
        ("unload", "m"),
        ("load", "m"),
        ("reload", "m"),
        ("unload", "made-up"),
    ]
    assert all(one["actor"] == f"key 'ops' ({key.id}) at 127.0.0.1" for one in found)
    assert [one["outcome"] for one in found[:2]] == ["done", "done"]
    assert all(one["outcome"].startswith("failed: ") for one in found[2:])


def test_an_order_that_needs_no_key_says_where_it_came_from(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serve({"m": model()}).post("/v2/repository/models/m/load")
    (found,) = audits(caplog)
    assert (found["actor"], found["action"]) == ("a caller without a key at 127.0.0.1", "load")


def test_an_order_that_had_nothing_to_do_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve({"m": model(), "n": model()}, api_key="k" * 20, admin_http=True)
    monkeypatch.setattr(reload, "read_again", lambda hub, model: model.spec)
    monkeypatch.setattr(admin, "look_again", look_at_nothing)

    def order(path: str) -> Any:
        answer = served.post(path, x_api_key="k" * 20)
        assert answer.status == 200
        return answer.json.get("outcome")

    outcomes = [order(f"/admin/models/m/{what}") for what in ("load", "unload", "unload", "reload", "load", "reload")]
    ready, unloaded, read = IS_READY, NOT_LOADED, reload.ONLY_READ
    assert outcomes == [ready, "done", unloaded, read, "done", "done"]
    assert all(one.startswith("nothing to do: ") for one in (ready, unloaded, read))
    order("/v2/repository/models/n/load")
    assert [one["outcome"] for one in audits(caplog)] == [*outcomes, ready]


def test_settings_of_a_model_that_is_not_loaded_are_read_for_its_next_load(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve({"m": model()}, tables={"m": ModelSettings(load="lazy")})
    monkeypatch.setattr(reload, "read_again", lambda hub, model: model.spec)
    for action, outcome in (("reload", reload.ONLY_READ), ("read", "done")):
        assert served.do(reload.reload_told(served.hub, served.hub.catalog.models["m"], "SIGHUP", action))
        assert (audits(caplog)[-1]["action"], audits(caplog)[-1]["outcome"]) == (action, outcome)


async def look_at_nothing(*given: Any, **more: Any) -> None:
    """There are no roots."""


def test_changes_of_keys_are_told_by_name_and_never_with_a_hash(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    (alice, _), (bob, _), (carol, text) = (keys.create(name) for name in ("alice", "bob", "carol"))
    keys.write(file, [alice, bob])
    served = serve({"m": model()}, keys_file=file)
    faster = keys.Key(id=alice.id, name="alice", digest=alice.digest, rpm=5)
    keys.write(file, [faster, carol])
    served.do(served.keys.reload())
    (found,) = audits(caplog)
    told = (
        f"added 'carol' ({carol.id}): scopes infer, models *; revoked 'bob' ({bob.id}); "
        f"changed 'alice' ({alice.id}): rpm from none to 5"
    )
    assert found["outcome"] == told and user(os.geteuid()) in found["actor"]
    assert text not in caplog.text and alice.digest not in caplog.text
    served.do(served.keys.reload())
    assert len(audits(caplog)) == 1


def test_a_file_of_keys_that_cannot_be_used_is_told_once_and_at_each_signal(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    keys.write(file, [keys.create("alice")[0]])
    served = serve({"m": model()}, keys_file=file)
    file.write_text("[alice\n")
    for _ in range(3):
        served.do(served.keys.reload_if_changed())
    (found,) = audits(caplog)
    assert (found["action"], found["levelname"]) == ("change of keys", "WARNING")
    assert found["outcome"].startswith(f"failed: they stay as they were: {file}")
    served.do(served.keys.reload())
    assert len(audits(caplog)) == 2


def test_no_name_of_a_key_and_no_id_of_a_model_makes_a_line_or_a_word_of_an_audit(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = keys.create("ops", scopes=("admin",))
    keys.write(tmp_path / "keys.toml", [replace(key, name="x' (id) at 10.0.0.1: done\naudit")])
    served = serve({"m": model()}, keys_file=tmp_path / "keys.toml", admin_http=True)
    served.post("/admin/models/m'%0aaudit:%20y/load", Authorization=f"Bearer {text}")
    (found,) = (record for record in caplog.records if getattr(record, "action", "") == "load")
    line = TextLines().format(found)
    assert "\n" not in line
    told = r"audit: load of model 'm\x27\naudit: y' by key 'x\x27 (id) at 10.0.0.1: done\naudit' (KEY) at 127.0.0.1: "
    assert told.replace("KEY", key.id) in line
    fields = vars(found)
    assert (fields["key_id"], fields["address"]) == (key.id, "127.0.0.1") and fields["request_id"]


@pytest.mark.parametrize(
    ("path", "action", "name"),
    [
        ("/v2/repository/models/m/unload", "unload", "m"),
        ("/v2/repository/models/m/load", "load", "m"),
        ("/admin/models/m/reload", "reload", "m"),
        ("/admin/models/made/up/load", "load", "made/up"),
        ("/models/m/hot-reload", "hot reload", "m"),
        ("/hot-reload", "hot reload", None),
        ("/admin/reload", "find", None),
    ],
)
def test_an_order_of_a_key_that_may_not_give_it_is_told(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, action: str, name: str | None
) -> None:
    key, text = keys.create("bob")
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": model()}, keys_file=tmp_path / "keys.toml", admin_http=True)
    assert served.post(path, x_api_key=text).status == 403
    assert served.get(path, x_api_key=text).status == 403  # which orders nothing
    (found,) = audits(caplog)
    assert (found["action"], found.get("model"), found["key"], found["levelname"]) == (action, name, "bob", "WARNING")
    assert found["outcome"].startswith("failed: this key lacks the scope 'admin'")


def test_an_order_that_a_model_is_not_for_is_told_and_its_line_in_the_log_names_it(
    serve: Serve, caplog: pytest.LogCaptureFixture, lines: Lines
) -> None:
    served = serve({"m": model()}, access_log=True)
    assert served.post("/v2/repository/models/m/unload").status == 400
    (found,) = audits(caplog)
    assert (found["action"], found["model"], found["levelname"]) == ("unload", "m", "WARNING")
    assert found["outcome"].startswith("failed: model 'm' is loaded at the start and stays")
    (event,) = lines.events(1)
    assert (event["model"], event["asked"]) == (None, "m")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("waits", [PATIENCE, 0.0])
@pytest.mark.parametrize(("path", "body"), [("/models/m/predict", {}), ("/v1/chat/completions", CHAT)])
def test_a_load_that_a_request_began_is_told_once_with_whose_it_was(
    serve: Serve, caplog: pytest.LogCaptureFixture, path: str, body: Any, waits: float, fails: bool
) -> None:
    methods = {"predict": lambda body: b"{}", "chat_completions": lambda inputs: "fine"}
    loads = [LoadError("no weights", fatal=True)] if fails else []
    lazy = Model(methods, limits={"wait_for_ready": waits}, loads=loads)
    served = serve({"m": lazy}, tables={"m": ModelSettings(load="lazy")})
    for _ in range(2):
        served.post(path, body)
        served.do(served.hub.catalog.models["m"].settled())
    served.wait_until(lambda: len(audits(caplog)) > 0)
    (found,) = audits(caplog)
    assert (found["action"], found["model"], found["address"]) == ("load", "m", "127.0.0.1")
    assert found["actor"] == "a request of a caller without a key at 127.0.0.1"
    assert found["outcome"] == ("failed: no weights" if fails else "done")


def test_a_model_whose_directory_is_gone_is_unloaded_and_then_forgotten(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve({"m": model()}, api_key="k" * 20, admin_http=True)
    served.hub.catalog.models["m"].is_gone = True
    caplog.set_level("INFO", "gateway.models")
    assert served.post("/admin/models/m/unload", x_api_key="k" * 20).status == 200
    assert [(one["action"], one["outcome"]) for one in audits(caplog)] == [("unload", "done"), ("forget", "done")]
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.models"]
    assert "model 'm' is unloaded: stopped; its directory is gone" in told
    assert not any("gateway load" in line for line in told)
