"""Every order of an operator is a line of the log, with who gave it and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from served import Model, Served

from gateway import keys
from gateway.audit import user
from gateway.logs import TextLines

Serve = Callable[..., Served]


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
    assert [(one["action"], one["model"]) for one in found] == [("unload", "m"), ("load", "m"), ("reload", "m")]
    assert all(one["actor"] == f"key 'ops' ({key.id}) at 127.0.0.1" for one in found)
    assert [one["outcome"] for one in found[:2]] == ["done", "done"] and found[2]["outcome"].startswith("failed: ")


def test_an_order_that_needs_no_key_says_where_it_came_from(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serve({"m": model()}).post("/v2/repository/models/m/load")
    (found,) = audits(caplog)
    assert (found["actor"], found["action"]) == ("somebody without a key at 127.0.0.1", "load")


def test_changes_of_keys_are_told_by_name_and_never_with_a_hash(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    (alice, _), (bob, _), (carol, text) = (keys.create(name) for name in ("alice", "bob", "carol"))
    keys.write(file, [alice, bob])
    served = serve({"m": model()}, keys_file=file)
    faster = keys.Key(id=alice.id, name="alice", digest=alice.digest, rpm=5)
    keys.write(file, [faster, carol])
    served.do(served.hub.keys.reload())
    (found,) = audits(caplog)
    told = (
        f"added 'carol' ({carol.id}): scopes infer, models *; revoked 'bob' ({bob.id}); "
        f"changed 'alice' ({alice.id}): rpm from none to 5"
    )
    assert found["outcome"] == told and user(os.geteuid()) in found["actor"]
    assert text not in caplog.text and alice.digest not in caplog.text
    served.do(served.hub.keys.reload())
    assert len(audits(caplog)) == 1


def test_a_file_of_keys_that_cannot_be_used_is_told_once_and_at_each_signal(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    keys.write(file, [keys.create("alice")[0]])
    served = serve({"m": model()}, keys_file=file)
    file.write_text("[alice\n")
    for _ in range(3):
        served.do(served.hub.keys.reload_if_changed())
    (found,) = audits(caplog)
    assert (found["action"], found["levelname"]) == ("change of keys", "WARNING")
    assert found["outcome"].startswith(f"failed: they stay as they were: {file}")
    served.do(served.hub.keys.reload())
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
