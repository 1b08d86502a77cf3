"""The calls and questions that one worker is running, by id, and the handling of its frames.

The worker is not trusted: a frame that breaks the rules raises `WireError`, which ends the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import Crashed, Overloaded
from ..wire import frames
from ..wire.checks import USUAL_TYPES, check_failure, check_form, check_resp, decode_message
from ..wire.frames import DATA, ITEMS, RESP, SOCKET, Failure, Resp, size_of_items, split, split_items
from ..wire.values import WireError, check_weight, decode
from ..wire.weighing import SMALL
from ..wording import counted
from .batches import Batches
from .call import Call
from .failures import RETRY_AFTER, to_error
from .pending import NEVER, Pending
from .question import Question

LAST_ID = 0xFFFFFFFF
NO_ROOM = (
    "the gateway is overloaded: more than "
    f"{counted(frames.MAX_PENDING, 'byte')} of large answers are on their way to it"
)
OF_CALLS = frozenset(
    (
        *(frames.RESP, frames.ITEMS, frames.END, frames.ERROR, frames.SLOT, frames.WAITS, frames.MESSAGE),
        *(frames.CREDIT, frames.RECALL),
    )
)


class InFlight:
    """`on_own_frame` gets the frames with id 0, which are about the worker as a whole; `on_batch` those about batches.

    `shown` returns what may be shown of a text of the model. It is for texts of exceptions: those of questions, and
    with `debug` those of calls. What code says to its clients on purpose stays, or a client could find out a secret by
    having guesses at it repeated.
    """

    def __init__(
        self,
        on_own_frame: Callable[[int, memoryview], None],
        shown: Callable[[str], str] = str,
        debug: bool = False,
        on_batch: Callable[[frames.Batch], None] = lambda batch: None,
    ) -> None:
        self.calls: dict[int, tuple[Call, Callable[[Call], None]]] = {}  # with a callback for the end of each
        self._batches = Batches(self.calls)
        self.questions: dict[int, Question[Any]] = {}
        self._on_own_frame = on_own_frame
        self._shown, self._debug, self._on_batch = shown, debug, on_batch
        self.last_id = 0
        self._has_gone_round = False  # ids have wrapped around
        self.most_in_batch = 0  # calls; none before the worker is ready, and without batches

    def new_id(self) -> int:
        """Return an id that is not in use."""
        new = self.last_id
        while True:
            if new == LAST_ID:
                new, self._has_gone_round = 0, True
            new += 1
            if new not in self.calls and new not in self.questions:
                self.last_id = new
                return new

    def each_call(self) -> Iterator[Call]:
        """Iterate over a copy: the table may change meanwhile."""
        return (call for call, _ in tuple(self.calls.values()))

    def pending(self) -> Iterator[Pending]:
        """Iterate over a copy of all calls and questions: the tables may change meanwhile."""
        return iter((*self.each_call(), *self.questions.values()))

    def lose(self, crashed: Callable[[], Crashed], begun: int) -> list[str]:
        """End everything, each with its own error, and give back the calls that were sent ahead and have not begun.

        `begun` is the call that has begun last. Returns what was running, as named in the log.
        """
        calls, questions = dict(self.calls), self.questions
        self.calls.clear()  # the table that batches know: it must not keep what has ended
        self.questions = {}
        ahead = [id for id, (call, _) in calls.items() if call.is_ahead]
        waited = {*ahead[ahead.index(begun) + 1 :]} if begun in ahead else {*ahead}  # they begin as they were sent
        ran = [call.req.request_id for id, (call, _) in calls.items() if id not in waited]
        ran += [each.ask.what for each in questions.values()]
        for id in waited:  # first, or they would begin when the others end
            call, ended = calls[id]
            if call.is_wanted:
                call.is_recalled = True
            else:
                call.on_error(crashed())
            ended(call)
        for id, (call, ended) in calls.items():
            if id not in waited:
                call.on_error(crashed())
                ended(call)
        for question in questions.values():
            question.on_error(crashed())
        return ran

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame(self, kind: int, id: int, payload: memoryview) -> None:
        """Handle a complete payload from the worker.

        Raises:
            WireError: an honest worker never sends it.
        """
        entry = self.calls.get(id)
        if entry is not None:
            call, ended = entry
            if kind == ITEMS:  # the most frequent frame: saves a function call
                if call.error is None and call.cancelled_at == NEVER:
                    items, size = split_items(payload, call.kind)
                    call.on_items(items, size)
                else:
                    call.on_unread(size_of_items(payload))
            else:
                self._on_call_frame(kind, id, call, ended, payload)
        elif kind == frames.BATCH and not id:
            self._begin_batch(frames.decode_head(frames.Batch, payload))
        elif not id:
            self._on_own_frame(kind, payload)
        elif (question := self.questions.get(id)) is not None:
            self._on_question_frame(kind, id, question, payload)
        else:
            self._check_late(kind, id)

    def _begin_batch(self, batch: frames.Batch) -> None:
        """Note which calls begin to run together; some may have ended since, because their client has left."""
        if not 0 < len(batch.calls) <= self.most_in_batch:
            raise WireError(f"a batch of {counted(len(batch.calls), 'call')}, at most {self.most_in_batch} allowed")
        for id in batch.calls:
            if id not in self.calls:
                self._check_late(frames.RESP, id)
            elif self.calls[id][0].req.method == SOCKET:
                raise WireError("a batch with a websocket")
        if len(set(batch.calls)) < len(batch.calls):
            raise WireError("a batch that has a call twice")
        self._batches.begin(batch.calls)
        self._on_batch(batch)

    def is_wanted(self, kind: int, id: int) -> bool:
        """Return whether to keep the parts of a split payload until it is complete."""
        if not id and kind in OF_CALLS:
            raise WireError(f"{frames.name_of(kind)} frame for no call")
        if id in self.questions:
            raise WireError(f"{frames.name_of(kind)} frame in parts for a question")
        if id and id not in self.calls:
            self._check_late(kind, id)
            return False
        return True

    def on_dropped(self, id: int) -> None:
        """Give up a call whose answer was dropped for lack of room, here or for another model's.

        Its code is stopped.
        """
        entry = self.calls.get(id)
        if entry is not None:
            entry[0].abandon(Overloaded(NO_ROOM, retry_after=RETRY_AFTER, cause="max_pending"))

    def _check_late(self, kind: int, id: int) -> None:
        """Allow late frames of an ended call, such as items after a cancel, but not of a call that never existed."""
        if kind not in OF_CALLS:
            raise WireError(f"{frames.name_of(kind)} frame for a call")
        if id > self.last_id and not self._has_gone_round:
            raise WireError(f"{frames.name_of(kind)} frame for call {id}, which never existed")

    def _on_call_frame(
        self, kind: int, id: int, call: Call, ended: Callable[[Call], None], payload: memoryview
    ) -> None:
        if kind == RESP:
            if call.is_ahead:
                call.seat.limiter.begin(call)
            head, body = split(Resp, payload)
            req = call.req
            if (
                head.status != 200
                or head.raw
                or head.headers
                or head.content_type not in USUAL_TYPES
                or head.kind != req.mode
                or head.stream == head.final
                or req.method == SOCKET
            ):
                check_resp(head)
                check_form(head, req)
            if head.kind != DATA or not head.final:
                call.on_resp(head, body if len(payload) > frames.MAX_FRAME else bytes(body))
            else:
                if len(body) > SMALL:
                    check_weight(body)
                call.on_resp(head, decode(body), len(body))
            if not head.final:
                return
        elif kind == frames.MESSAGE:
            _on_message(call, payload)
            return
        elif kind == frames.CREDIT:
            credit = frames.decode_head(frames.Credit, payload)
            call.on_taken(credit.items, credit.size)
            return
        elif kind == frames.END:
            call.on_end()
        elif kind == frames.ERROR:
            failure = _failure(payload)
            if self._debug and failure.detail is None:  # the text of an exception
                failure.message = self._shown(failure.message)
            call.on_error(to_error(failure))
        elif kind == frames.RECALL:
            if not (call.is_recalled and call.is_ahead):
                raise WireError("a call that was not recalled is given back")
            if not call.is_wanted:
                call.on_end()
        elif kind == frames.SLOT:
            call.on_slot()
            return
        elif kind == frames.WAITS:
            call.on_waits()
            return
        else:
            raise WireError(f"{frames.name_of(kind)} frame for a call")
        del self.calls[id]
        ended(call)

    def _on_question_frame(self, kind: int, id: int, question: Question[Any], payload: memoryview) -> None:
        if kind == frames.ANSWER:
            question.on_answer(payload)
        elif kind == frames.END:
            question.on_end()
        elif kind == frames.ERROR:
            failure = _failure(payload)
            failure.message, failure.detail = self._shown(failure.message), None
            question.on_error(to_error(failure))
        else:
            raise WireError(f"{frames.name_of(kind)} frame for a question")
        del self.questions[id]


def _on_message(call: Call, payload: memoryview) -> None:
    if call.kind != frames.MESSAGES:
        raise WireError("a message for a call that is not a websocket")
    if call.error is None and call.cancelled_at == NEVER:
        call.on_items([decode_message(payload)], len(payload))
    else:
        call.on_unread(len(payload))


def _failure(payload: memoryview) -> Failure:
    failure = frames.decode_head(frames.Failure, payload)
    check_failure(failure)
    return failure
