"""Create the replicas of a model: choose the files, launch data, interpreter and runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runners.replica import Launch, Replica, Runner
from ..spec import ModelSpec

if TYPE_CHECKING:
    from .loaded_files import Files, LoadedFiles


class Maker:
    """`prepare` may give the spec its own interpreter before each load; `files` tracks what it was loaded from."""

    def __init__(
        self,
        runner: Runner,
        launch: Callable[[ModelSpec, int], Launch],
        *,
        prepare: Callable[[ModelSpec], Awaitable[ModelSpec]] | None = None,
        files: LoadedFiles | None = None,
    ) -> None:
        self._runner, self._launch, self._prepare, self._files = runner, launch, prepare, files

    async def look(self, spec: ModelSpec) -> Files:
        """Return the files that a load which starts now would use."""
        return {} if self._files is None else await self._files.look(spec)

    async def make(self, spec: ModelSpec, index: int, taken_ports: Sequence[int]) -> Replica:
        """Return a replica that is not loaded yet. `taken_ports` are ports of replicas that are serving meanwhile.

        Raises:
            ConfigError: it cannot be created.
        """
        if self._prepare is not None:
            spec = await self._prepare(spec)
        return self._runner(replace(self._launch(spec, index), taken_ports=tuple(taken_ports)))

    def ordered(self) -> None:
        """The next load was requested by a command."""
        if self._files is not None:
            self._files.ordered()

    def serves(self, spec: ModelSpec, files: Files, actor: str) -> None:
        """Note that a replica loaded from these files takes calls; `actor` is the reason for the load."""
        if self._files is not None:
            self._files.serves(spec, files, actor)
