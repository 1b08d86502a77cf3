"""Open a saved estimator, as far as the operator trusts the types in its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError

from .model_file import PICKLES, SAVE
from .skops_objects import useless
from .skops_types import untrusted_types

NOT_THE_FILE = (MemoryError, ImportError, OSError, ConfigError)


def open_file(file: Path, trust: Mapping[str, Any]) -> Any:
    """Return the estimator in the file.

    Raises:
        ConfigError: it is broken, or needs code that no longer exists where it was when the file was saved.
    """
    import joblib
    import skops.io

    is_pickle = file.suffix in PICKLES
    if not is_pickle and (reason := useless(file)):  # otherwise, trusting its types would be pointless
        raise ConfigError(reason)
    trusted = [] if is_pickle else check_types(file, trust)
    try:
        return joblib.load(file) if is_pickle else skops.io.load(file, trusted=trusted)
    except NOT_THE_FILE:
        raise
    except Exception as error:
        if "__main__" in str(error):
            raise ConfigError(
                f"{file.name} needs code of the script or notebook that saved it ({error}): put that into a module "
                f"next to {file.name}, import it from there, and save the model again"
            ) from error
        what = f"{file.name} cannot be read ({type(error).__name__}: {error})"
        raise ConfigError(f"{what}: it is broken, or was saved with other versions of what it is made of") from error


def check_types(file: Path, trust: Mapping[str, Any]) -> list[str]:
    """Return the types that the operator trusts, if that is sufficient to open the file."""
    trusted = list(trust.get("trusted_types") or ())
    try:
        unknown = [each for each in untrusted_types(file) if each not in trusted]
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist, or is a dangling link: get it again") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not a skops file, or is broken ({error}); save the model with {SAVE}") from error
    if unknown:
        raise ConfigError(
            f"{file.name} contains types that skops does not know to be safe: {', '.join(unknown)}; if you trust "
            f"them: [models.NAME.options] trusted_types = {[*trusted, *unknown]} in gateway.toml"
        )
    return trusted
