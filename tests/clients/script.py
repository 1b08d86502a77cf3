"""A model that does what the last message says: a JSON list of steps. A step is a value to yield, or

["raise", status, message, headers]    an error that the model means
["boom"]                               one that it does not
["fail", path, times]                  adds a line to a file; 503 with Retry-After the first so many times
["touch", path]                        makes a file
["wait", path]                         goes on when there is such a file
["finally", path]                      makes a file when the code is left, however that happens
["show", field, …]                     says what these fields of the request are, as JSON

Other words are said back. After a tool has answered it says what the tool said. Agents put words of their own around
those of their user, as parts of the same message or as messages of the system; the steps are found among them.
"""

import asyncio
import json
import math
import pathlib

from gateway import HTTPError


class Model:
    async def chat_completions(self, body):
        turn = last_turn(body["messages"])
        steps = [text for message in turn for text in texts_of(message) if text.startswith("[")]
        told = [text_of(message) for message in turn if message["role"] == "tool"]
        if steps:
            async for value in play(json.JSONDecoder().raw_decode(steps[-1])[0], body):  # some add words behind it
                yield value
        elif told:
            yield f"The tool said: {told[-1]}"
        else:
            yield text_of(turn[-1])

    def embeddings(self, body):
        return [vector(text) for text in body["input"]]

    def rerank(self, body):
        query = set(text_of(body["query"]).split())
        return [len(query & set(text_of(document).split())) / len(query) for document in body["documents"]]

    def count_tokens(self, value):
        return len(value.split()) if isinstance(value, str) else sum(self.count_tokens(text_of(one)) for one in value)


async def play(steps, body):
    cleanup = []
    try:
        for step in steps:
            if not isinstance(step, list):
                yield step
            elif step[0] == "wait":
                while not pathlib.Path(step[1]).exists():  # noqa: ASYNC110, ASYNC240 - a test in another process makes it
                    await asyncio.sleep(0.005)
            elif step[0] == "finally":
                cleanup.append(step[1])
            else:
                yield act(*step, body=body)
    finally:
        for path in cleanup:
            act("touch", path, body=body)


def act(kind, *rest, body):
    if kind == "raise":
        raise HTTPError(rest[0], rest[1], headers=rest[2] if len(rest) > 2 else {})
    if kind == "boom":
        raise ValueError("secret details")
    if kind == "fail":
        path, times = rest
        with open(path, "a+") as file:
            file.write("called\n")
            file.seek(0)
            if len(file.readlines()) <= times:
                raise HTTPError(503, "try again", headers={"Retry-After": "0.01"})
    if kind == "touch":
        pathlib.Path(rest[0]).touch()
    return json.dumps({field: body.get(field) for field in rest}) if kind == "show" else None


def last_turn(messages):
    """What has come since the model last spoke, without what the system said; else the last message."""
    turn = []
    for message in reversed(messages):
        if message["role"] == "assistant":
            break
        if message["role"] not in ("system", "developer"):
            turn.insert(0, message)
    return turn or messages[-1:]


def texts_of(message):
    """The texts of a user's message, part by part."""
    content = message.get("content") if message["role"] == "user" else None
    return [text_of([part]) for part in content] if isinstance(content, list) else [text_of(content)]


def text_of(content):
    """The words of a message's content, of a document, or of a message."""
    if isinstance(content, dict):
        return text_of(content.get("text", content.get("content")))
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def vector(text):
    """How often each of some letters occurs, at length 1."""
    counts = [1.0 + text.lower().count(letter) for letter in "aeiourst"]
    return [count / math.hypot(*counts) for count in counts]
