"""All websocket messages that no model has taken share one room, finished or not."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest
from fakes import VirtualLoop

from gateway.admission.messages import NOT_TAKEN, READ, SILENT, SLOW, UNFINISHED, Arriving, Messages
from gateway.admission.shares import Shares

MIB = 1 << 20
BODIES = 24 * MIB
LIMIT = BODIES // 3


class Client:
    """A connection whose client sends a message of `size` bytes, and whose model takes it when told."""

    def __init__(self, messages: Messages, patience: float = 1000.0) -> None:
        self.arriving = Arriving(messages, patience, self.wake, self.end)
        self.messages, self.size, self.sent = messages, 0, 0
        self.waiting = self.finished = 0  # bytes in messages that its model has not taken, and messages
        self.woken, self.told = 0, ""

    def wake(self) -> None:
        self.woken += 1

    def end(self, reason: str) -> None:
        """It counts again at once what it still holds, as the protocol does, and more of its bytes may be released."""
        self.told, self.sent = reason, 0
        self.arriving.parsed(0)
        self.messages.let_go(0)

    @property
    def may_send(self) -> bool:
        return not self.arriving.waits and not self.told

    def send(self, size: int) -> None:
        """Some of a message is read, or all that is left of it."""
        assert self.may_send
        self.sent += size
        self.arriving.read(self.sent)

    def finish(self) -> None:
        self.arriving.completed(self.sent)
        self.messages.add(self.sent)
        self.arriving.taken()
        self.waiting, self.sent = self.waiting + self.sent, 0
        self.finished += 1
        self.arriving.parsed(0)

    def take(self) -> None:
        size, self.waiting = self.waiting, 0
        self.messages.let_go(size)


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    found = VirtualLoop()
    yield found
    found.close()


@pytest.fixture
def messages(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> Messages:
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    return Shares(max_bytes=BODIES).messages


def pass_time(loop: VirtualLoop, seconds: float) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def test_clients_wait_for_models_first_in_first_out_and_are_read_one_after_the_other(messages: Messages) -> None:
    busy, *clients = (Client(messages) for _ in range(4))
    busy.send(LIMIT)
    busy.finish()
    for client in clients:
        client.send(1000)
        assert client.arriving.waits and not client.told
    clients[1].arriving.close()  # it has left
    busy.take()
    assert [client.woken for client in clients] == [1, 0, 1]
    assert messages.size == 2000 + 2 * READ, "each of them may be read next"
    for client in (clients[0], clients[2]):
        client.send(1000)
        client.finish()
        client.take()
    assert messages.size == messages.unfinished == 0


def test_of_those_that_wait_no_more_are_woken_than_have_room(messages: Messages) -> None:
    busy, *clients = (Client(messages) for _ in range(100))
    busy.send(LIMIT)
    busy.finish()
    for client in clients:
        client.send(1)
    busy.take()
    assert sum(client.woken for client in clients) == LIMIT // READ


def test_unfinished_messages_that_hardly_arrive_make_room_the_most_silent_first(
    messages: Messages, loop: VirtualLoop
) -> None:
    silent, slow, *others = (Client(messages) for _ in range(6))
    slow.send(MIB - 1)
    silent.send(3 * MIB)
    pass_time(loop, SLOW)
    slow.send(1)  # it begins no other message by that
    for client in others[:2]:
        client.send(2 * MIB)
    assert not silent.told and not slow.told
    others[2].send(2 * MIB)
    assert silent.told == UNFINISHED and not slow.told and others[2].may_send
    pass_time(loop, SILENT / 2)
    for client in others[:3]:
        client.send(1)
    others[3].send(2 * MIB)
    assert slow.told == UNFINISHED and all(not client.told for client in others)


def test_of_many_that_arrive_together_one_is_read_on_and_the_newest_is_refused(messages: Messages) -> None:
    clients = [Client(messages) for _ in range(120)]
    for client in clients:
        client.send(READ // 2)
    assert sum(bool(client.told) for client in clients) > 0 and not clients[0].told
    told = [client.told for client in clients]
    assert told == sorted(told), "those that came first stay"
    [favoured] = [client for client in clients if client.woken]
    while favoured.sent < MIB:
        favoured.send(READ)
        assert favoured.may_send
    favoured.finish()
    favoured.take()
    assert sum(client.woken for client in clients) == 2, "the next one"


def test_who_is_read_on_and_sends_nothing_leaves_that_to_the_next(messages: Messages, loop: VirtualLoop) -> None:
    clients = [Client(messages) for _ in range(40)]
    for client in clients:
        client.send(READ)
    [favoured] = [client for client in clients if client.woken]
    pass_time(loop, SILENT * 0.9)
    favoured.send(1)
    pass_time(loop, SILENT * 0.9)
    assert not favoured.told
    pass_time(loop, SILENT)
    assert favoured.told == UNFINISHED and sum(client.woken for client in clients) > 1


def test_what_comes_behind_a_message_that_is_not_taken_is_not_late(messages: Messages, loop: VirtualLoop) -> None:
    full, other = Client(messages), Client(messages)
    full.send(READ)
    full.arriving.completed(READ // 2)
    pass_time(loop, SLOW + 1)
    other.send(LIMIT)
    assert not full.told and other.arriving.waits is False, "one of those is read on"
    full.arriving.taken()
    pass_time(loop, SILENT / 2)
    other.send(1)
    assert not full.told


def test_one_message_may_be_larger_than_all_may_be_if_nothing_else_is_held(messages: Messages) -> None:
    first, second = Client(messages), Client(messages)
    first.send(2 * BODIES)
    first.send(1)
    assert first.may_send
    second.send(1)
    assert second.told == UNFINISHED and first.may_send


def test_who_waits_for_longer_than_a_call_may_is_ended_and_others_have_its_room(
    messages: Messages, loop: VirtualLoop
) -> None:
    busy, short, long = Client(messages), Client(messages, 1.0), Client(messages, 10.0)
    busy.send(LIMIT - 500)
    busy.finish()
    for client in (short, long):
        client.send(600 if client is short else 400)
    assert short.arriving.waits and long.arriving.waits
    pass_time(loop, 5.0)
    assert short.told == NOT_TAKEN and long.woken == 1 and not long.told


@pytest.mark.parametrize("seed", range(20))
def test_together_they_have_half_of_what_bodies_may_have_whatever_clients_and_models_do(
    messages: Messages, loop: VirtualLoop, seed: int
) -> None:
    """Some clients stop in the middle of a message for ever. The others get theirs through."""
    chance = random.Random(seed)
    clients = [Client(messages) for _ in range(200)]
    stalled = set(clients[: 5 * seed])
    untaken: deque[Client] = deque()
    for _ in range(5000):
        pass_time(loop, 0.003)
        goes_on = [each for each in clients if each.may_send and each.woken]
        client = chance.choice(goes_on if goes_on and chance.random() < 0.5 else clients)
        if client.told:
            client.arriving.close()
            client.told, client.woken = "", 0  # it connects again
        if client.arriving.waits:
            continue
        if client not in stalled or client.sent < MIB - READ:
            client.send(chance.randrange(1, READ))
            if client.may_send and client.sent >= MIB and client not in stalled:
                client.finish()
                untaken.append(client)
        if untaken and chance.random() < 0.3:
            untaken.popleft().take()
        assert messages.unfinished == sum(each.sent for each in clients)
        assert messages.size <= BODIES // 2 + READ
    assert sum(client.finished for client in clients) >= 5, "they do not wait for each other"
    for client in clients:
        client.take()
        client.arriving.close()
    assert messages.size == messages.unfinished == 0


# ── while connections are given up, which release and count again what they hold ─────────────────────────────────────


def read_on_with_little(messages: Messages, number: int) -> list[Client]:
    """Clients that have sent a byte of a message and may send more at once: a promise is counted for each."""
    busy, *clients = (Client(messages) for _ in range(number + 1))
    busy.send(messages._most)
    busy.finish()
    for client in clients:
        client.send(1)
    busy.take()
    assert all(client.woken == 1 for client in clients)
    return clients


def test_who_waits_last_is_read_on_by_those_that_are_given_up_before_it(messages: Messages, loop: VirtualLoop) -> None:
    """Each that is given up releases what it might have sent; with the room of the second nobody waits any more."""
    silent = read_on_with_little(messages, 3)
    sends, favoured, waits = Client(messages), Client(messages), Client(messages)
    pass_time(loop, SILENT * 0.6)
    sends.send(LIMIT - messages.size - READ // 4)
    favoured.send(READ // 2)
    waits.send(1)
    assert favoured.woken == 1 and waits.arriving.waits
    pass_time(loop, SILENT * 0.6)
    messages.let_go(0)  # any model has taken a message
    assert [bool(client.told) for client in silent] == [True, True, False]
    assert waits.woken == 1 and not waits.told
    for client in (*silent, sends, favoured, waits):
        client.arriving.close()
    assert messages.size == messages.unfinished == 0


def test_who_waits_may_leave_while_others_are_given_up(messages: Messages, loop: VirtualLoop) -> None:
    silent = read_on_with_little(messages, 3)
    sends, favoured, waits = Client(messages), Client(messages), Client(messages)
    silent[0].arriving._end = lambda reason: waits.arriving.close()
    pass_time(loop, SILENT * 0.6)
    sends.send(LIMIT - messages.size - READ // 4)
    favoured.send(READ // 2)
    waits.send(1)
    pass_time(loop, SILENT * 0.6)
    messages.let_go(0)
    assert not waits.woken and not waits.told and favoured.may_send


def test_however_many_are_given_up_at_once_each_is_told_once(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    messages = Shares(max_bytes=3 * 550 * READ).messages
    silent = read_on_with_little(messages, 250)
    loud, other = Client(messages), Client(messages)
    pass_time(loop, SILENT * 0.6)
    loud.send(550 * READ - messages.size - 100)
    pass_time(loop, SILENT * 0.6)
    other.send(255 * READ)
    assert not caplog.records and all(client.told for client in silent) and not loud.told and not other.told
    for client in (*silent, loud, other):
        client.arriving.close()
    assert messages.size == messages.unfinished == 0


@pytest.mark.parametrize("callback", ["wake", "end"])
def test_a_connection_that_cannot_be_told_harms_nobody_who_makes_room(
    messages: Messages, loop: VirtualLoop, caplog: pytest.LogCaptureFixture, callback: str
) -> None:
    def broken(*args: str) -> None:
        raise StopIteration

    busy, bad, good = Client(messages), Client(messages, 5.0), Client(messages)
    bad.arriving = Arriving(messages, 5.0, *((broken, bad.end) if callback == "wake" else (bad.wake, broken)))
    busy.send(LIMIT)
    busy.finish()
    for client in (bad, good):
        client.send(1000)
    if callback == "end":
        pass_time(loop, 6.0)
    busy.take()
    assert good.woken == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "could not be read on or ended" in record.getMessage()
    for client in (bad, good):
        client.arriving.close()
    assert messages.size == messages.unfinished == 0


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_raised_and_nothing_stays_counted_in_whatever_order_clients_send_stop_and_leave(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    failed: list[object] = []
    loop.set_exception_handler(lambda loop, context: failed.append(context))
    chance = random.Random(seed)
    for _ in range(30):
        messages = Shares(max_bytes=chance.choice([1, 4, 8]) * MIB).messages
        clients = [Client(messages, 30.0) for _ in range(chance.choice([3, 8, 20, 60]))]
        for _ in range(100):
            number = chance.randrange(len(clients))
            client, what = clients[number], chance.random()
            if what < 0.55 and client.may_send:
                client.send(chance.choice([1, 100, 5000, READ // 2, READ]))
            elif what < 0.65 and client.may_send and client.sent:
                client.finish()
            elif what < 0.75:
                client.take()
            elif what < 0.85:
                client.take()
                client.arriving.close()
                clients[number] = Client(messages, 30.0)
            else:
                pass_time(loop, chance.choice([0.1, 0.5, 1.1, 3, 11]))
            assert messages.unfinished == sum(each.sent for each in clients)
        for client in clients:
            client.take()
            client.arriving.close()
        assert messages.size == messages.unfinished == 0 and not failed
