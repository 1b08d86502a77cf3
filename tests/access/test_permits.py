"""The keys in force and their limits: what one key does costs no other anything."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import keys
from gateway.access.callers import SCOPES, Caller, Scope
from gateway.access.permits import FEW_GUESTS, Guests, KeyRing, Permits
from gateway.errors import ConfigError, GatewayError, RateLimited

NOW = datetime.datetime(2027, 1, 31, tzinfo=datetime.UTC)


def permits(**limits: int) -> Permits:
    return Permits(keys.create("alice", **limits)[0])


def test_calls_at_once_are_counted_until_they_end() -> None:
    mine = permits(max_inflight=2)
    mine.take(0)
    mine.take(0)
    with pytest.raises(RateLimited, match="2 calls at once") as refused:
        mine.take(0)
    assert refused.value.retry_after == 1
    mine.give_back()
    mine.take(0)


def test_a_minute_has_as_many_calls_as_the_key_says_and_says_when_the_next_is() -> None:
    mine = permits(rpm=60)
    for _ in range(60):
        mine.take(1000.0)
    with pytest.raises(RateLimited) as refused:
        mine.take(1000.25)
    assert refused.value.retry_after == pytest.approx(0.75)
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"
    mine.take(1001.0)


def test_an_answer_says_what_is_left() -> None:
    mine = permits(rpm=60)
    mine.take(0)
    assert dict(mine.take(0)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"58",
        b"x-ratelimit-reset-requests": b"2.000s",
    }


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=200))
def test_no_span_of_time_has_more_calls_than_a_full_bucket_and_what_it_refills(rpm: int, gaps: list[float]) -> None:
    mine, now, taken = permits(rpm=rpm), 0.0, 0
    for gap in gaps:
        now += gap
        try:
            mine.take(now)
        except RateLimited as error:
            assert error.retry_after is not None and error.retry_after > 0
        else:
            taken += 1
    assert taken <= rpm + now * rpm / 60 + 1e-6


def test_a_refused_call_holds_no_place() -> None:
    mine = permits(rpm=1, max_inflight=5)
    mine.take(0)
    for _ in range(3):
        with pytest.raises(RateLimited):
            mine.take(0)
    assert mine.running == 1


@dataclass(eq=False)
class Held:
    """Something under way."""

    caller: Caller | None
    needs: Scope
    about: str
    ended: GatewayError | None = None

    def end(self, error: GatewayError) -> None:
        self.ended = error


@pytest.mark.parametrize("needs", SCOPES)
@pytest.mark.parametrize("about", ["", "m"])
def test_what_is_under_way_ends_when_its_key_loses_the_scope_or_the_model_that_it_needs(
    needs: Scope, about: str
) -> None:
    key, _ = keys.create("alice", scopes=SCOPES, models=("m", "n"))
    others = tuple(scope for scope in SCOPES if scope != needs)
    for changed, lost in (
        (replace(key, rpm=5), ""),
        (replace(key, scopes=(needs,)), ""),
        (replace(key, models=("m*",)), ""),
        (replace(key, scopes=others), f"does not have the scope '{needs}' any more"),
        (replace(key, models=("n",)), about and "may not use model 'm' any more"),
    ):
        mine, held = Permits(key), Held(key, needs, about)
        mine.hold(held)
        mine.rekey(changed)
        assert (held.ended is not None, held.caller is changed) == (bool(lost), not lost)
        assert held.ended is None or (lost in held.ended.message and held.ended.cause == "key_changed")


# ── the ring ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_keys_none_is_needed(tmp_path: Path) -> None:
    assert not KeyRing(None, tmp_path / "keys.toml").is_required


def test_the_key_of_the_environment_may_do_everything(tmp_path: Path) -> None:
    ring = KeyRing("sesame", tmp_path / "keys.toml")
    found = ring.find(b"sesame", NOW)
    assert ring.is_required and found is not None
    assert all(found.caller.may(scope) for scope in SCOPES) and found.caller.sees("any/model")
    assert ring.find(b"sesam", NOW) is None


def test_a_file_whose_keys_are_all_revoked_still_lets_nobody_in(tmp_path: Path) -> None:
    keys.write(tmp_path / "keys.toml", [])
    assert KeyRing(None, tmp_path / "keys.toml").is_required


def test_an_expired_key_is_no_key(tmp_path: Path) -> None:
    key, text = keys.create("alice", expires=NOW)
    keys.write(tmp_path / "keys.toml", [key])
    assert KeyRing(None, tmp_path / "keys.toml").find(text.encode(), NOW) is None


def test_the_log_counts_the_keys_of_a_new_file_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "keys.toml"
    made = [keys.create(name)[0] for name in ("alice", "bob")]
    keys.write(file, made)
    ring = KeyRing(None, file)
    for count in (1, 2):
        keys.write(file, made[:count])
        asyncio.run(ring.reload())
    assert [record.message for record in caplog.records if "in force" in record.message] == [
        "1 key in force",
        "2 keys in force",
    ]


def test_a_changed_file_is_taken_up_and_calls_under_way_stay_counted(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    alice, text = keys.create("alice", max_inflight=1)
    bob, other = keys.create("bob")
    keys.write(file, [alice])
    ring = KeyRing(None, file)
    mine = ring.find(text.encode(), NOW)
    assert mine is not None
    mine.take(0)
    keys.write(file, [alice, bob])
    asyncio.run(ring.reload_if_changed())
    assert ring.find(other.encode(), NOW) is not None
    again = ring.find(text.encode(), NOW)
    assert again is not None and again.running == 1
    keys.write(file, [bob])
    asyncio.run(ring.reload_if_changed())
    assert ring.find(text.encode(), NOW) is None


def test_a_file_that_is_gone_is_told_once_with_what_becomes_of_its_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    key, text = keys.create("alice")
    keys.write(file, [key])
    ring = KeyRing(None, file)
    file.unlink()
    for _ in range(2):
        asyncio.run(ring.reload_if_changed())
    (line,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "keys.toml is gone: the keys that it last had stay in force" in line.getMessage()
    assert "SIGHUP" in line.getMessage() and ring.find(text.encode(), NOW) is not None
    asyncio.run(ring.reload())  # as at SIGHUP
    assert ring.is_required and ring.find(text.encode(), NOW) is None
    keys.write(file, [key])
    asyncio.run(ring.reload_if_changed())
    file.unlink()
    asyncio.run(ring.reload_if_changed())
    assert [record.levelname for record in caplog.records].count("WARNING") == 2


def test_keys_of_several_callers_that_have_one_name_are_told_at_the_start_and_when_they_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key and the one that came in its place are one caller's."""
    file = tmp_path / "keys.toml"
    (alice, _), (bob, _), (other, _) = keys.create("alice"), keys.create("bob"), keys.create("alice")
    keys.write(file, [alice, bob, keys.successor(bob)[0]])
    ring = KeyRing(None, file)
    assert caplog.records == []
    keys.write(file, [alice, other])
    asyncio.run(ring.reload())
    KeyRing(None, file)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2 and all(line.endswith(f"mix them up: 'alice' ({alice.id}, {other.id})") for line in told)


def test_the_first_key_closes_a_gateway_that_was_open(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    ring = KeyRing(None, file)
    key, text = keys.create("alice")
    keys.write(file, [key])
    asyncio.run(ring.reload_if_changed())
    assert ring.is_required and ring.find(text.encode(), NOW) is not None


def test_a_broken_file_changes_nothing_while_the_gateway_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, text = keys.create("alice")
    keys.write(file, [key])
    ring = KeyRing(None, file)
    file.write_text("[keys.")
    asyncio.run(ring.reload())
    assert ring.find(text.encode(), NOW) is not None


def test_what_is_written_while_the_file_is_read_is_seen_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.toml"
    key, text = keys.create("alice")
    keys.write(file, [key])
    ring = KeyRing(None, file)

    def read(path: Path) -> tuple[keys.Key, ...]:
        found = original(path)
        monkeypatch.setattr(keys, "read", original)
        keys.write(file, [])
        return found

    original = keys.read
    monkeypatch.setattr(keys, "read", read)
    asyncio.run(ring.reload())
    asyncio.run(ring.reload_if_changed())
    assert ring.find(text.encode(), NOW) is None


def test_a_broken_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[keys.")
    with pytest.raises(ConfigError):
        KeyRing(None, tmp_path / "keys.toml")


# ── callers of plugins ───────────────────────────────────────────────────────────────────────────────────────────────


def test_callers_of_plugins_are_forgotten_when_that_makes_no_difference() -> None:
    guests = Guests()
    busy = guests.permits(Caller("busy", rpm=1, max_inflight=1), 0.0)
    busy.take(0.0)
    spent = guests.permits(Caller("spent", rpm=1), 0.0)
    spent.take(0.0)
    spent.give_back()
    for number in range(5 * FEW_GUESTS):
        guests.permits(Caller(f"guest {number}", rpm=60), 30.0)
    assert len(guests._permits) <= FEW_GUESTS
    assert guests.permits(Caller("busy", rpm=1, max_inflight=1), 30.0) is busy
    assert guests.permits(Caller("spent", rpm=1), 30.0) is spent
    for number in range(5 * FEW_GUESTS):
        guests.permits(Caller(f"other {number}"), 90.0)
    assert "spent" not in guests._permits and "busy" in guests._permits


def test_a_caller_of_a_plugin_has_the_limits_that_were_named_last() -> None:
    guests = Guests()
    mine = guests.permits(Caller("ada"), 0.0)
    assert mine.take(0.0) == ()
    assert guests.permits(Caller("ada", rpm=2), 0.0) is mine
    mine.take(0.0)
    mine.take(0.0)
    with pytest.raises(RateLimited):
        mine.take(0.0)
