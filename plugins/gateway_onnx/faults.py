"""Say why an ONNX file will not load, before it is loaded, and without importing the runtime."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway_tensors.types import Type, Value

from gateway import ConfigError, check_ordinary, named_file, placeholder

from .header import External, Header, read_header

LARGEST = (1 << 31) - 1  # bytes of a protobuf
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
# What each version supports: the version of files, and operator sets by domain. It says so when a file has newer ones.
SUPPORTED: dict[str, tuple[int, dict[str, int]]] = {
    "1.31": (13, {"": 26, "ai.onnx.ml": 5}),
    "1.32": (14, {"": 28, "ai.onnx.ml": 5}),
}
# Domains whose operators are in the runtime.
DOMAINS = frozenset(
    {"", "org.pytorch.aten"}
    | {f"ai.onnx.{name}" for name in ("ml", "training", "preview.training")}
    | {"com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"}
)
EXTENSIONS = "onnxruntime_extensions"  # a package of operators
MOST_NAMED = 5
# NumPy's types, without those that it lacks.
ELEMENTS = frozenset("float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string".split())


def check_file(file: Path, *, custom: bool = False) -> Header:
    """Return the header of a file that can be loaded. `custom`: the operator allows operators from a library.

    Raises:
        ConfigError: it cannot, and why.
    """
    check_ordinary(file)
    try:
        header = read_header(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not an ONNX model, or damaged ({error}); get or export it again") from error
    if (size := file.stat().st_size) > LARGEST:
        raise ConfigError(f"{file} has {size} bytes, and the format allows 2 GiB: export it with external data")
    _check_versions(file, header)
    if not custom:
        _check_domains(file, header)
    _check_types(file, header)
    _check_external(file, header)
    return header


def installed() -> str | None:
    """Return the version of the runtime, or None."""
    for name in PACKAGES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _check_versions(file: Path, header: Header) -> None:
    found = installed() or ""
    newest = SUPPORTED.get(".".join(found.split(".")[:2]))
    if newest is None:
        return
    by = f"which the installed onnxruntime {found} does not support"
    fix = "export it for an older one, or install a newer runtime"
    if header.ir > newest[0]:
        raise ConfigError(f"{file} has version {header.ir} of the format, {by} (up to {newest[0]}): {fix}")
    for domain, wanted in header.opsets.items():
        if wanted > (most := newest[1].get(domain, wanted)):
            what = f"operator set {wanted}" + (f" of {domain}" if domain else "")
            raise ConfigError(f"{file} has {what}, {by} (up to {most}): {fix}")


def _check_domains(file: Path, header: Header) -> None:
    strange = sorted(each for each in header.operators - header.functions if each[0] not in DOMAINS)
    if not strange:
        return
    names = _few([f"{domain}.{name}" for domain, name in strange])
    what = f"{file} has operators that the runtime lacks ({names}), which come as a library, and that is code"
    raise ConfigError(
        f'{what}; if you trust one: [models.NAME.options] custom_ops = ["/path/to/library.so"], or '
        f'["{EXTENSIONS}"], in gateway.toml'
    )


def _check_types(file: Path, header: Header) -> None:
    for what, values in (("input", header.inputs), ("output", header.outputs)):
        for value in values:
            if not is_plain(value.type) and not (what == "output" and is_map(value.type)):
                raise ConfigError(
                    f"{file}: its {what} {value.name} is a {value.type}, which JSON cannot have: "
                    f"export it with tensors of float32, for example"
                )


def is_plain(kind: Type) -> bool:
    """Return whether values of a type are tensors of NumPy, or lists of them."""
    if kind.kind == "tensor":
        return kind.element in ELEMENTS
    return kind.kind in ("sequence", "optional") and kind.inner is not None and is_plain(kind.inner)


def is_map(kind: Type) -> bool:
    """Return whether it is a list of objects, as classifiers of scikit-learn have their probabilities."""
    while kind.kind in ("sequence", "optional") and kind.inner is not None:
        kind = kind.inner
    return kind.kind == "map"


def _check_external(file: Path, header: Header) -> None:
    """Check the files with weights: each is in the folder of the model, and has all that the tensors say."""

    @cache
    def sized(location: str) -> int:
        other = named_file(file.parent, location, file.name)
        if not other.is_file():
            raise ConfigError(f"{file}: its weights are in {location!a}, which is missing: get that file too")
        if there := placeholder(other):
            raise ConfigError(f"{file}: its weights are in {location}, which {there.what}: {there.fix}")
        check_ordinary(other)
        return other.stat().st_size

    for each in header.external:
        if not each.location:
            raise ConfigError(f"{file} is damaged: the tensor {each.tensor} is in a file without a name")
        start, length = _numbers(file, each)
        if start + length > (size := sized(each.location)):
            what = f"{each.location} has {size} bytes, but the tensor {each.tensor} ends at {start + length}"
            raise ConfigError(f"{file}: {what}: get that file again, it is not whole, or of another model")


def _numbers(file: Path, part: External) -> tuple[int, int]:
    """Return where a tensor begins, and its size."""
    told = part.offset, part.length or "0"
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in told):
        raise ConfigError(f"{file} is damaged: the tensor {part.tensor} has no place in {part.location!a}")
    start, length = map(int, told)
    if part.need is not None and part.length is not None and length != part.need:
        what = f"the tensor {part.tensor} has {length} bytes in {part.location!a}, but needs {part.need}"
        raise ConfigError(f"{file} is damaged: {what}")
    return start, part.need if part.need is not None else length


def named(values: list[Value]) -> str:
    return _few([value.name for value in values]) or "none"


def _few(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (" …" if len(names) > MOST_NAMED else "")
