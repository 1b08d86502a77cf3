"""Load a plugin from a file named in the settings, and make its targets importable in workers.

A plugin file writes its targets with its own name, "my_plugin:MyModel". Only the gateway that loaded the file can
import that name, so a worker gets the path of the file instead.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .errors import ConfigError
from .wording import instead_of


@dataclass(frozen=True, slots=True)
class FilePlugin:
    path: Path
    module: ModuleType

    def rewrite(self, target: str) -> str:
        """Return "/path/my_plugin.py:Class" for a target of this file, other targets as they are."""
        module, _, name = target.partition(":")
        return f"{self.path}:{name}" if module in (self.path.stem, self.module.__name__) else target


def load_file(path: Path) -> FilePlugin:
    """Import the file under a private module name, so that it does not shadow a package with the same name."""
    path = path.expanduser().absolute()
    if not path.is_file():
        near = instead_of(path.name, [each.name for each in path.parent.glob("*.py")])
        raise ConfigError(f"{path} does not exist{near}; it is named in `plugins`")
    name = f"gateway_plugin_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, because dataclasses look up their own module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return FilePlugin(path, module)
