"""Find the ports on which a model's own servers would listen, as far as its files contain them.

They are read from the syntax trees of its sources, from code in strings, from shell scripts and from config.yaml. A
model that starts no process and no server is not checked.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...files import ordinary
from ...spec import ModelSpec
from .syntax import LARGEST, Parser

STARTS = re.compile(
    r"\b(subprocess|Popen|multiprocessing|create_subprocess_\w+|os\.(system|spawn\w*|exec\w*|popen)|uvicorn|hypercorn"
    r"|HTTPServer|TCPServer|serve_forever|start_server|make_server|grpc\.(aio\.)?server|app\.run|pexpect|sh\.Command)\b"
)
APP = r"[\w.]+:[\w.]+(\(.*)?"  # module:application
# Default ports of servers: consecutive words in a command line, a pattern that another word must match, so that the
# name of a program alone is not taken as a command, and the port.
UNASKED: tuple[tuple[tuple[str, ...], str, int], ...] = (
    (("vllm", "serve"), "", 8000),
    (("-m", "vllm.entrypoints.openai.api_server"), "", 8000),
    (("-m", "sglang.launch_server"), "", 30000),
    (("-m", "http.server"), "", 8000),
    (("uvicorn",), APP, 8000),
    (("hypercorn",), APP, 8000),
    (("gunicorn",), APP, 8000),
    (("fastapi", "run"), "", 8000),
    (("fastapi", "dev"), "", 8000),
    (("tritonserver",), r"--.+", 8000),
    (("trtllm-serve",), r".+", 8000),
    (("llama-server",), r"-.+", 8080),
    (("text-generation-launcher",), r"--.+", 3000),
    (("ollama", "serve"), "", 11434),
)
# If a port is mentioned anywhere in a file, it is assumed to be for the command.
NAMES_PORT = re.compile(r"--?(?:[a-z]+[-_])*port\b|\b[a-z_]*port\s*=|[\"']port[\"']|OLLAMA_HOST")
# For these programs, -p has another meaning.
NO_SERVERS = frozenset("cp docker ffmpeg git mkdir mysql pip ps psql redis-cli rsync scp ssh tar touch unzip".split())
LITERALS = (ast.List, ast.Tuple, ast.Set, ast.Constant, ast.JoinedStr)
SAYS = frozenset(("print", "debug", "info", "warning", "error", "exception", "critical", "log", "which"))
LOCAL = re.compile(r"localhost|127\.\d+\.\d+\.\d+|0\.0\.0\.0|\[?::1?\]?|")
BINDERS = frozenset(("bind", "create_server", "make_server", "start_server", "add_insecure_port", "run_simple"))
OPTIONS = re.compile(r"--?(?:[a-z]+[-_])*port|-p")
BINDS = re.compile(r"--?(?:bind|b|address|addr|listen)")
URL = re.compile(r"https?://(?:localhost|127\.\d+\.\d+\.\d+|0\.0\.0\.0|\[::1?\]):(\d{2,5})\b")
WRITTEN = re.compile(r"(?:--?(?:[a-z]+[-_])*port[= ]+|\bPORT=)[\"']?(\d{2,5})\b")
# Not the port of a server on another machine.
PORT_NAME = re.compile(
    r"(?i)(?!.*(?:db|database|redis|postgres|pg|mysql|mongo|kafka|amqp|smtp|remote)[_.-])(.*[_.-])?port"
)
MAX_FILES = 200
MAX_LOOKED = 20_000  # files and directories that are searched for them
MAX_CHARACTERS = 16 * LARGEST  # in all files together


@dataclass(frozen=True, slots=True)
class ServerPort:
    port: int
    where: str  # file:line, relative to the model
    listens: bool = True  # False: an address on this machine that is connected to; it may be a server of the model


def server_ports(spec: ModelSpec, config: Mapping[str, Any]) -> list[ServerPort]:
    """Return the first place of each port, in the order of the files. `config` is the content of config.yaml."""
    sources = dict(_sources(spec))
    if not any(STARTS.search(text) for text in sources.values()):
        return []
    variables = {**(config.get("environment_variables") or {}), **spec.environment}
    found, parser = [*_of_config(config)], Parser()
    for path, text in sources.items():
        where = str(path.relative_to(spec.root)) if path.is_relative_to(spec.root) else str(path)
        found += _of_script(text, where) if path.suffix == ".sh" else _of_source(text, where, variables, parser)
    first: dict[int, ServerPort] = {}
    for item in sorted(found, key=lambda item: not item.listens):
        first.setdefault(item.port, item)
    return list(first.values())


def is_searched_whole(spec: ModelSpec) -> bool:
    """Return whether all files of the model, and of its shared directories, are searched for ports."""
    return sum(1 for _ in islice(_files(spec), MAX_LOOKED)) < MAX_LOOKED


def _files(spec: ModelSpec) -> Iterator[Path]:
    """Yield the model's own files first: external_package_dirs may point anywhere."""
    for top in (spec.root, *spec.import_dirs):
        for place, directories, files in os.walk(top):
            directories.sort()
            yield from (Path(place, name) for name in sorted((*directories, *files)))


def _sources(spec: ModelSpec) -> Iterator[tuple[Path, str]]:
    count, left = 0, MAX_CHARACTERS
    for path in islice(_files(spec), MAX_LOOKED):
        if path.suffix not in (".py", ".sh") or not path.is_file():
            continue
        count += 1
        if count > MAX_FILES or left <= 0:
            return
        try:
            text = ordinary.content(path, LARGEST).decode("utf-8", "replace")
        except OSError:
            continue
        left -= len(text)
        yield path, text


def _of_config(config: Mapping[str, Any], at: str = "config.yaml") -> Iterator[ServerPort]:
    """Yield ports from variables and keys named PORT and from command lines, at any level."""
    for key, value in config.items():
        here = f"{at}: {key}" if at == "config.yaml" else f"{at}.{key}"
        if isinstance(value, Mapping):
            yield from _of_config({str(name): item for name, item in value.items()}, here)
            continue
        if PORT_NAME.fullmatch(str(key)) and (port := _number(value)):
            yield ServerPort(port, here)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield from (ServerPort(int(match[1]), here) for match in WRITTEN.finditer(text))


def _of_script(text: str, where: str) -> Iterator[ServerPort]:
    is_named = NAMES_PORT.search(text) is not None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        yield from (ServerPort(port, f"{where}:{number}") for port in _of_words(words))
        unasked = None if is_named else _unasked(words)
        yield from [ServerPort(unasked, f"{where}:{number}")] if unasked else []
        yield from (ServerPort(int(match[1]), f"{where}:{number}") for match in WRITTEN.finditer(line))


def _of_source(
    text: str, where: str, variables: Mapping[str, str], parser: Parser, line: int = 0
) -> Iterator[ServerPort]:
    try:
        tree = parser.parse(text)
    except (SyntaxError, ValueError):
        return
    if tree is None:
        return
    reader, said, is_named = _Reader(tree, variables), _said(tree), NAMES_PORT.search(text) is not None
    for node in ast.walk(tree):
        if node in said:
            continue
        at = line or getattr(node, "lineno", 0)
        yield from (ServerPort(port, f"{where}:{at}") for port in reader.ports(node))
        unasked = None if is_named else reader.unasked(node)
        yield from [ServerPort(unasked, f"{where}:{at}")] if unasked else []
        yield from (ServerPort(port, f"{where}:{at}", listens=False) for port in reader.asked(node))
        inner = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if "import" in inner and STARTS.search(inner):  # code for `python -c`, or for a file that the model writes
            yield from _of_source(inner, where, variables, parser, at)


def _said(tree: ast.Module) -> set[ast.AST]:
    """Return nodes that are only printed or compared: messages, docstrings, the right side of `in`, items of a loop."""
    parts: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        elif isinstance(node, ast.Raise):
            parts.append(node.exc)
        elif isinstance(node, ast.Assert):
            parts.append(node.msg)
        elif isinstance(node, ast.Compare):
            parts += [item for item in (node.left, *node.comparators) if isinstance(item, LITERALS)]
        elif isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.iter, LITERALS):
            parts.append(node.iter)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SAYS:
            parts += node.args
    return {inner for part in parts if part is not None for inner in ast.walk(part)}


class _Reader:
    """The values of a module's names, where a literal is assigned to them."""

    def __init__(self, tree: ast.Module, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._values: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._name(target, node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._name(node.target, node.value)

    def _name(self, target: ast.expr, value: ast.expr) -> None:
        name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
        if name and (found := self.value(value)) is not None:
            self._values.setdefault(name, found)

    def value(self, node: ast.expr) -> Any:
        """Return a number or a string; None if it is not in the source."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, (int, str)) and not isinstance(node.value, bool) else None
        if isinstance(node, ast.Name):
            return self._values.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._values.get(node.attr)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.value(node.left), self.value(node.right)
            return left + right if left is not None and type(left) is type(right) else None
        if isinstance(node, ast.JoinedStr):
            parts = [self.value(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
            return None if None in parts else "".join(map(str, parts))
        if isinstance(node, ast.BoolOp):
            return next((found for part in node.values if (found := self.value(part)) is not None), None)
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.Subscript) and _is_environ(node.value) and isinstance(node.slice, ast.Constant):
            return self._variables.get(str(node.slice.value))
        return None

    def _called(self, node: ast.Call) -> Any:
        """Evaluate str(PORT), int("8000"), os.environ.get("PORT", 8000), config.get("port", 8000)."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("str", "int") and len(node.args) == 1:
            return self.value(node.args[0])
        if name in ("get", "getenv") and node.args and isinstance(node.args[0], ast.Constant):
            given = self._variables.get(str(node.args[0].value))
            return given if given is not None else self.value(node.args[1]) if len(node.args) > 1 else None
        return None

    def ports(self, node: ast.AST) -> Iterator[int]:
        if isinstance(node, ast.Call):
            yield from self._of_call(node)
        elif isinstance(node, (ast.List, ast.Tuple)):
            yield from _of_words([self.value(item) for item in node.elts])
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and PORT_NAME.fullmatch(str(key.value)):
                    yield from _numbers([self.value(value)])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from self._of_assignment(node)
        elif isinstance(node, (ast.Constant, ast.JoinedStr)):
            text = self.value(node)
            if isinstance(text, str) and "\n" not in text:
                yield from _of_words(text.split())

    def unasked(self, node: ast.AST) -> int | None:
        if isinstance(node, (ast.List, ast.Tuple)):
            return _unasked([self.value(item) for item in node.elts])
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            text = self.value(node)
            return _unasked(text.split()) if isinstance(text, str) and "\n" not in text else None
        if isinstance(node, ast.Attribute) and node.attr in ("run", "Config"):
            return 8000 if getattr(node.value, "id", "") == "uvicorn" else None
        return None

    def asked(self, node: ast.AST) -> Iterator[int]:
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and isinstance(text := self.value(node), str):
            yield from (int(match[1]) for match in URL.finditer(text) if "\n" not in text)

    def _of_call(self, node: ast.Call) -> Iterator[int]:
        """Yield ports of Server(("127.0.0.1", 80)), sock.bind(("", 80)), start_server(handler, "127.0.0.1", 80)."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name.endswith("Server") or name in BINDERS:
            given = [part for item in node.args for part in (item.elts if isinstance(item, ast.Tuple) else [item])]
            values = [self.value(item) for item in given]
            yield from _numbers(values)
            yield from _numbers([str(value).rpartition(":")[2] for value in values if isinstance(value, str)])
        host = next((self.value(item.value) for item in node.keywords if item.arg == "host"), None)
        if isinstance(host, str) and not LOCAL.fullmatch(host):
            return  # a server on another machine
        ports = (item.value for item in node.keywords if item.arg and PORT_NAME.fullmatch(item.arg))
        yield from _numbers(map(self.value, ports))

    def _of_assignment(self, node: ast.Assign | ast.AnnAssign) -> Iterator[int]:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = getattr(target, "id", getattr(target, "attr", ""))
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                name = str(target.slice.value)
            if node.value is not None and PORT_NAME.fullmatch(name):
                yield from _numbers([self.value(node.value)])


def _is_environ(node: ast.expr) -> bool:
    return getattr(node, "attr", getattr(node, "id", "")) == "environ"


def _of_words(words: Iterable[Any]) -> Iterator[int]:
    """Yield the port in a command line."""
    before, is_server = "", True
    for word in (str(word) for word in words if word is not None):
        option, equals, value = word.partition("=")
        is_server = is_server and word.rpartition("/")[2] not in NO_SERVERS
        if (OPTIONS.fullmatch(before) and (is_server or before != "-p")) or (equals and OPTIONS.fullmatch(option)):
            yield from _numbers([value if equals and OPTIONS.fullmatch(option) else word])
        elif BINDS.fullmatch(before) or (equals and BINDS.fullmatch(option)):
            yield from _numbers([(value or word).rpartition(":")[2]] if ":" in word else [])
        before = word


def _unasked(words: Iterable[Any]) -> int | None:
    """Return the default port of a command line that sets none."""
    said = [str(word) for word in words if word is not None]
    if any(
        OPTIONS.fullmatch(part) or BINDS.fullmatch(part) for word in said for part in (word, word.partition("=")[0])
    ):
        return None
    tail = [word.rpartition("/")[2] if word.startswith(("/", "./", "../")) else word for word in said]
    return next((port for words, argument, port in UNASKED if _begins(tail, words, argument)), None)


def _begins(said: list[str], words: tuple[str, ...], argument: str) -> bool:
    """Return whether these words are consecutive in a command line, and a later word matches `argument`."""
    ends = [at + len(words) for at in range(len(said)) if tuple(said[at : at + len(words)]) == words]
    return any(not argument or any(re.fullmatch(argument, word) for word in said[end:]) for end in ends)


def _numbers(values: Iterable[Any]) -> Iterator[int]:
    yield from (port for value in values if (port := _number(value)))


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 1 < value <= 65535 else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{2,5}", value.strip()) else None
