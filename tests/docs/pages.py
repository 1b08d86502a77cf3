"""The pages of the documentation, as values: their fenced blocks, links and tables.

The first word behind the fence is the language, the second says what the tests do with the block:

    python run          executed; what it prints is compared with the `output` block behind it, if there is one
    python demo         executed over all of models/, which takes torch, by the slow tests
    console             each line behind "$ " is run by a shell, the lines below are what it prints; "..." is anything
    LANGUAGE path/name  a file: model directories of all pages are served together while their pages run
    toml gateway.toml   also read as settings; yaml config.yaml also as a model's config
    text help COMMAND   what `gateway COMMAND --help` prints
    python hooks        the signatures of all hooks
    python replica      the names and signatures of a replica
    sh                  shown only; the options in its `gateway` lines exist
    json, toml, text    shown only; so is a block without a word

In all of them http://127.0.0.1:8000 stands for the gateway that the tests start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
)
SHOWN = ("sh", "json", "toml", "text", "")  # nothing is run or written
URL = "http://127.0.0.1:8000"

_FENCE = re.compile(r"^```(.*)$")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    what: str
    text: str

    @property
    def file(self) -> str | None:
        """The path that the block is the content of."""
        return self.what if re.fullmatch(r"[\w./-]+\.\w+", self.what) else None

    @property
    def is_known(self) -> bool:
        if self.file or (not self.what and self.language in SHOWN):
            return True
        kinds = (
            ("python", "run"),
            ("python", "demo"),
            ("python", "hooks"),
            ("python", "replica"),
            ("console", ""),
            ("output", ""),
        )
        return (self.language, self.what) in kinds or (self.language == "text" and self.what.startswith("help "))

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    found: list[Block] = []
    start, info, lines = 0, "", list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and not start:
            start, info, lines = number, fence[1].strip(), []
        elif fence:
            language, _, what = info.partition(" ")
            found.append(Block(page, start, language, what.strip(), "\n".join(lines) + "\n"))
            start = 0
        elif start:
            lines.append(line)
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def table(page: Path, section: str) -> list[list[str]]:
    """The rows, without their head, of the tables below a heading of this name."""
    _, _, rest = prose(page).partition(f"\n## {section}\n")
    body = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    assert body, f"{page.name} has no section {section!r}"
    rows: list[list[str]] = []
    for line in body.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
    return [row for row in rows[2:] if row]


def codes(cell: str) -> list[str]:
    """The texts between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it is to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command[:-1]}{more}"
        yield command, output


def matches(expected: str, printed: str) -> bool:
    """Whether it was printed; "..." stands for anything."""
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
