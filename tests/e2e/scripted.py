"""Model files for the end-to-end tests: what they do is written in the request.

A message, an input text or a predict body holds a JSON list of steps. A step is a value that is yielded or returned, or

    ["raise", kind, …]      an exception; ["raise", "HTTPError", status, message, headers]
    ["touch", path]         makes a file, so that a test can see how far the code has come
    ["wait", path]          goes on when there is such a file
    ["finally", path]       makes a file when the code is left, however that happens
    ["count", path]         appends a line
    ["numpy", rows]         a float32 array
"""

COMMON = '''
import asyncio, json, pathlib, time
from gateway import HTTPError

class Boom(Exception):
    pass

def act(step, cleanup):
    """A value to give; None when the step only does something; "wait" when it wants to wait."""
    if not (isinstance(step, list) and step and isinstance(step[0], str)):
        return step
    kind, *rest = step
    if kind == "raise":
        if rest[0] == "HTTPError":
            raise HTTPError(rest[1], rest[2], headers=rest[3] if len(rest) > 3 else {}, code="scripted", param="p")
        raise {"ValueError": ValueError, "Boom": Boom}[rest[0]]("secret details")
    if kind == "touch":
        pathlib.Path(rest[0]).touch()
    elif kind == "count":
        with open(rest[0], "a") as file:
            file.write("once\\n")
    elif kind == "finally":
        cleanup.append(rest[0])
    elif kind == "wait":
        return Wait(rest[0])
    elif kind == "numpy":
        import numpy
        return numpy.array(rest[0], dtype="float32")
    else:
        return step
    return None

class Wait:
    def __init__(self, path):
        self.path = pathlib.Path(path)
    def sync(self):
        while not self.path.exists():
            time.sleep(0.005)
    async def later(self):
        while not self.path.exists():
            await asyncio.sleep(0.005)

def steps_of(inputs):
    if "messages" in inputs:
        return json.loads(inputs["messages"][-1]["content"])
    if "input" in inputs:
        return json.loads(inputs["input"][0])
    return inputs["steps"]

def play(inputs):
    cleanup = []
    try:
        for step in steps_of(inputs):
            value = act(step, cleanup)
            if isinstance(value, Wait):
                value.sync()
            elif value is not None:
                yield value
    finally:
        for path in cleanup:
            pathlib.Path(path).touch()

async def aplay(inputs):
    cleanup = []
    try:
        for step in steps_of(inputs):
            value = act(step, cleanup)
            if isinstance(value, Wait):
                await value.later()
            elif value is not None:
                yield value
    finally:
        for path in cleanup:
            pathlib.Path(path).touch()
'''

GENERATOR = (
    COMMON
    + """
class Model:
    def predict(self, inputs):
        yield from play(inputs)
    def chat_completions(self, inputs):
        yield from play(inputs)
"""
)

ASYNC = (
    COMMON
    + """
class Model:
    async def predict(self, inputs):
        return [value async for value in aplay(inputs)][-1]
    async def chat_completions(self, inputs):
        if inputs.get("stream"):
            return aplay(inputs)
        return [value async for value in aplay(inputs)][-1]
"""
)

PLAIN = (
    COMMON
    + """
class Model:
    def predict(self, inputs):
        return list(play(inputs))[-1]
    def chat_completions(self, inputs):
        return list(play(inputs))[-1]
    def embeddings(self, inputs):
        return list(play(inputs))[-1]
"""
)

ECHO = '''
import starlette.responses
class Model:
    """Answers with what it was given."""
    def chat_completions(self, inputs):
        said = inputs["messages"][-1]["content"]
        return said + "".join(f" {name}={inputs.get(name)}" for name in ("n", "seed", "top_k"))
    def predict(self, inputs):
        return starlette.responses.PlainTextResponse("made by hand", 207, headers={"x-mine": "yes"})
'''
