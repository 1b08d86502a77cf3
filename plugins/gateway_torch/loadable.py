"""Say why a program of PyTorch will not load, before it is loaded, and without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

from gateway import ConfigError, check_ordinary

from .archives import Archive, ZipArchive
from .detection import EXPORTED, Options
from .exported import MODEL, Program, read_program
from .script import check_script
from .signature import declared_inputs, output_names

PEEKED = 16 << 20  # bytes of a program's JSON that are read outside of a worker, which takes about a second


def check_file(file: Path, options: Options) -> None:
    """Check a program as far as that is quick.

    Raises:
        ConfigError: it will not load, and why.
    """
    check_ordinary(file)
    try:
        archive = ZipArchive(file)
    except (OSError, ValueError) as error:
        raise broken(file, error) from error
    if file.suffix != EXPORTED:
        script_of(file, archive, options)
    elif archive.sizes.get(MODEL, 0) <= PEEKED:
        program_of(file, archive, options)


def program_of(file: Path, archive: Archive, options: Options) -> Program:
    """Return what a program of torch.export takes and answers.

    Raises:
        ConfigError: it is damaged, or more than a computation.
    """
    if "inputs" in options:
        raise ConfigError("config.yaml: options: inputs is for TorchScript; a *.pt2 says what it takes: leave it out")
    output_names(options)
    try:
        return read_program(archive)
    except (OSError, ValueError) as error:
        raise broken(file, error) from error


def script_of(file: Path, archive: Archive, options: Options) -> bool:
    """Return whether a program of TorchScript divides whole numbers.

    Raises:
        ConfigError: it is damaged, or more than a computation; or the options are wrong.
    """
    declared_inputs(options)
    output_names(options)
    try:
        return check_script(archive)
    except (OSError, ValueError) as error:
        raise broken(file, error) from error


def broken(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{file} cannot be served: {error}")
