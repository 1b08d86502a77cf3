"""The `secrets` of a model: a mapping of the names that it declared.

The values come over the channel: in hello, and in update when a source changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class SecretNotFound(KeyError):
    """`name` is the requested name."""

    def __init__(self, text: str, name: str = "", is_declared: bool = False) -> None:
        super().__init__(text)
        self.name, self.is_declared = name, is_declared

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Secrets(Mapping[str, str]):
    def __init__(
        self, declared: tuple[str, ...], values: Mapping[str, str], base: Mapping[str, str | None] | None = None
    ) -> None:
        self._declared = declared
        # Truss's attribute for `secrets` of config.yaml. Models use it to see what is declared, because `in` raises in
        # Truss.
        self._base_secrets = dict(base or {})
        self._values = dict(values)

    def replace(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        if name not in self._declared:
            raise SecretNotFound(
                f"Secret '{name}' is not declared. Add it to `secrets` in config.yaml "
                "and define it in the secret manager.",
                name,
            )
        value = self._values.get(name)
        if not value:
            raise SecretNotFound(
                f"Secret '{name}' has no value. It is declared in `secrets` in config.yaml, "
                "but not defined in the secret manager.",
                name,
                is_declared=True,
            )
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def __contains__(self, name: object) -> bool:
        return name in self._declared and bool(self._values.get(str(name)))
