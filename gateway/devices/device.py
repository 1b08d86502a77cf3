"""List the accelerators of the machine, as values.

Reads the static list in gateway.toml or `--devices`, or queries NVML. It reserves and chooses nothing: see
`placement.py`.
"""

from __future__ import annotations

import ctypes
import difflib
import importlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import ConfigError

log = logging.getLogger(__name__)

GIB = 1024**3

_UNITS = {"b": 1, "ki": 1024, "mi": 1024**2, "gi": GIB, "ti": 1024**4, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?b?|b)", re.IGNORECASE)
_ITEM = re.compile(r"([0-9]{1,6})[xX](?:([^:]+):)?([^:]+)")
_TABLE_KEYS = ("id", "model", "memory", "index", "kind", "numa")
_SMALLEST = 1024**2  # bytes; a smaller value is probably `memory = 80` with GiB meant
_MOST = 1024  # devices in one list; guards against typing errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or one MIG slice of it. Outside the settings file it is always identified by `id`."""

    id: str  # "GPU-<uuid>", "MIG-<uuid>", "mps:0"; any string in a static list
    total: int  # bytes
    index: int = 0  # for display and ties; slices of one GPU share an index
    kind: str = "cuda"  # cuda, rocm, mps; a replica never spans two
    model: str = ""  # the product name, "NVIDIA H100 80GB HBM3"
    free: int | None = None  # bytes, as observed; None if unknown
    numa: int | None = None

    @property
    def is_slice(self) -> bool:
        """Return whether it is a MIG slice: a process sees only one of them, so they cannot be combined."""
        return self.id.startswith("MIG-")

    def __str__(self) -> str:
        name = self.id if self.is_slice or self.kind == "mps" else f"GPU {self.index}"
        return f"{name} ({self.model or self.kind}, {format_size(self.total)})"


def parse_size(value: str | int, where: str = "size") -> int:
    """Return the bytes of "20GiB", "8Gi", "80GB" or "512 MiB"; an integer is bytes.

    Raises ConfigError, whose message begins with `where`.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        hint = f"did you mean {text + 'GiB'!r}?" if text.isdecimal() else "write for example 20GiB or 512MiB"
        raise ConfigError(f"{where}: {value!r} is not a size; {hint}")
    unit = match[2].lower()
    return int(Decimal(match[1]) * _UNITS[unit if unit == "b" else unit.removesuffix("b")])


def format_size(size: int) -> str:
    """Format a size for users, rounded down: "80GiB", "79.64GiB", "512MiB"."""
    sign, size = ("-", -size) if size < 0 else ("", size)
    for unit, name in ((GIB, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= unit:
            hundredths = size * 100 // unit
            return sign + f"{hundredths // 100}.{hundredths % 100:02}".rstrip("0").rstrip(".") + name
    return f"{sign}{size}B"


def parse_devices(text: str, source: str = "devices") -> list[Device]:
    """Return made-up devices for "2xH100:80GiB,1xL4:24GiB" (COUNTx[MODEL:]MEMORY), with the same ids at every start.

    An empty text means no accelerators. Raises ConfigError with the position of the error.
    """
    devices: list[Device] = []
    position = 1
    for item in text.split(",") if text.strip() else ():
        entry = item.strip()
        where = f"{source}: character {position + len(item) - len(item.lstrip())}"
        position += len(item) + 1
        match = _ITEM.fullmatch(entry)
        if match is None:
            raise ConfigError(f"{where}: cannot read {entry!r}; write COUNTx[MODEL:]MEMORY, such as 2xH100:80GiB")
        if match[2] is None and not _SIZE.fullmatch(match[3].strip()) and not match[3].strip().isdecimal():
            raise ConfigError(f"{where}: the memory is missing in {entry!r}; write for example {entry}:24GiB")
        count, model, memory = int(match[1]), (match[2] or "").strip(), _device_memory(match[3], where)
        if not 1 <= count <= _MOST - len(devices):
            raise ConfigError(f"{where}: {match[1]} devices in {entry!r}; from 1 to {_MOST} in the whole list")
        first = len(devices)
        devices += [Device(id=f"GPU-fake-{n}", index=n, model=model, total=memory) for n in range(first, first + count)]
    return devices


def static_devices(tables: Sequence[Mapping[str, Any]]) -> list[Device]:
    """Return the devices of the tables `[[gateway.placement.devices]]`, in order.

    Raises ConfigError for an unknown key, a missing or duplicate id, or an invalid value.
    """
    devices: list[Device] = []
    for number, table in enumerate(tables):
        where = f"[[gateway.placement.devices]] number {number + 1}"
        for key in table:
            if key not in _TABLE_KEYS:
                close = difflib.get_close_matches(key, _TABLE_KEYS, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"have: {', '.join(_TABLE_KEYS)}"
                raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
        for key in ("id", "memory"):
            if key not in table:
                raise ConfigError(f"{where}: {key!r} is missing; write for example {_EXAMPLE[key]}")
        texts = {key: table.get(key, default) for key, default in (("id", ""), ("model", ""), ("kind", "cuda"))}
        numbers = {key: table.get(key, default) for key, default in (("index", number), ("numa", None))}
        for key, text in texts.items():
            if not isinstance(text, str) or (not text and key != "model"):
                raise ConfigError(f"{where}: {key} = {text!r} is not a name")
        for key, value in numbers.items():
            if key in table and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ConfigError(f"{where}: {key} = {value!r} is not a whole number")
        if any(device.id == texts["id"] for device in devices):
            raise ConfigError(f"{where}: id {texts['id']!r} is used twice; every device needs its own")
        devices.append(Device(**texts, **numbers, total=_device_memory(table["memory"], where)))
    return devices


_EXAMPLE = {"id": 'id = "GPU-0a"', "memory": 'memory = "80GiB"'}


def _device_memory(value: str | int, where: str) -> int:
    memory = parse_size(value, where)
    if memory < _SMALLEST:
        raise ConfigError(f"{where}: memory {value!r} is {memory} bytes; did you mean '{value}GiB'?")
    return memory


# ---- NVIDIA ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Card:
    """One physical GPU: itself, or its MIG slices if it is partitioned."""

    index: int
    uuid: str
    model: str
    devices: tuple[Device, ...]


def nvml_devices(
    nvml: Any = None, *, environ: Mapping[str, str] | None = None, sysfs: Path = Path("/sys")
) -> list[Device]:
    """Return the CUDA devices that this process may use; none without a driver.

    NVML ignores CUDA_VISIBLE_DEVICES, so its list is filtered by the inherited value. `nvml` is the module `pynvml`, or
    a test double.
    """
    nvml = _started(nvml)
    if nvml is None:
        return []
    environ = os.environ if environ is None else environ
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        log.warning("NVML cannot count the GPUs (%s): continuing without CUDA devices", error)
        return []
    cards = [card for index in range(count) if (card := _card(nvml, index, sysfs)) is not None]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _visible(cards, visible, by_bus=environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
    return [device for card in cards for device in card.devices]


def observe_free(devices: Sequence[Device], nvml: Any = None) -> list[Device]:
    """Return the devices with the free memory that NVML reports now; None for devices unknown to NVML."""
    nvml = _started(nvml)
    if nvml is None:
        return list(devices)
    return [replace(device, free=_free(nvml, device)) if device.kind == "cuda" else device for device in devices]


def _started(nvml: Any) -> Any:
    """Return the initialised NVML, or None.

    It is never shut down: another initialisation only counts, while the last shutdown may unload the driver's state,
    and waiting for memory after an eviction queries it four times a second.
    """
    try:
        if nvml is None:
            if not _has_driver():
                return None
            nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        return None
    except nvml.NVMLError as error:
        if not isinstance(error, (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded)):
            log.warning("NVML does not start (%s): continuing without CUDA devices", error)
        return None
    return nvml


def _has_driver() -> bool:
    """Return whether the library of NVIDIA's driver loads. This takes a fraction of the import of pynvml."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _card(nvml: Any, index: int, sysfs: Path) -> _Card | None:
    """Return the GPU at this index, or None if it does not respond: one broken card must not hide the others."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, model = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        handles = _slices(nvml, handle) if _is_partitioned(nvml, handle) else [handle]
        numa = _numa_node(nvml, handle, sysfs)
        devices = tuple(_device(nvml, part, index, numa) for part in handles)
    except nvml.NVMLError as error:
        log.warning("GPU %d does not respond to NVML (%s): it is ignored", index, error)
        return None
    return _Card(index, uuid, model, devices)


def _device(nvml: Any, handle: Any, index: int, numa: int | None) -> Device:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    return Device(id=uuid, index=index, model=name, total=memory.total, free=memory.free, numa=numa)


def _is_partitioned(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])  # [now, after the next reset]
    except nvml.NVMLError:
        return False  # MIG is not supported by most cards


def _slices(nvml: Any, handle: Any) -> list[Any]:
    """Return handles of the MIG slices. Slots may be empty: an empty slot raises NotFound, and others may follow."""
    slices = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            slices.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except nvml.NVMLError:
            continue
    return slices


def _numa_node(nvml: Any, handle: Any, sysfs: Path) -> int | None:
    """Return the NUMA node of the card's PCI device; None if sysfs has -1 (one node) or nothing (macOS, containers)."""
    try:
        domain, rest = nvml.nvmlDeviceGetPciInfo(handle).busId.lower().split(":", 1)
        # NVML writes the domain with 8 digits, sysfs with 4
        node = int((sysfs / f"bus/pci/devices/{int(domain, 16):04x}:{rest}/numa_node").read_text())
    except (nvml.NVMLError, OSError, ValueError):
        return None
    return node if node >= 0 else None


def _free(nvml: Any, device: Device) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(device.id)).free)
    except nvml.NVMLError:
        return None  # a made-up id, or a card that fell off the bus


def _visible(cards: Sequence[_Card], value: str, *, by_bus: bool) -> list[Device]:
    """Return the devices of `cards` that CUDA shows with this CUDA_VISIBLE_DEVICES.

    CUDA's special cases apply: an invalid entry hides itself and all that follow; a duplicate hides all devices.
    """
    shown: dict[str, Device] = {}
    for entry in (part.strip() for part in value.split(",")):
        found = _named(cards, entry)
        if found is None:
            if entry not in ("", "-1"):  # the two usual ways to hide what follows
                log.warning("CUDA_VISIBLE_DEVICES=%s: %r matches no GPU; it and all after it are hidden", value, entry)
            break
        if any(device.id in shown for device in found):
            log.warning("CUDA_VISIBLE_DEVICES=%s: %r occurs twice, so CUDA shows no GPU at all", value, entry)
            return []
        shown.update((device.id, device) for device in found)
        if entry.isdecimal() and not by_bus and len({card.model for card in cards}) > 1:
            log.warning("CUDA_VISIBLE_DEVICES=%s: indices are interpreted in nvidia-smi's order; use UUIDs", value)
    return sorted(shown.values(), key=lambda device: (device.index, device.id))


def _named(cards: Sequence[_Card], entry: str) -> tuple[Device, ...] | None:
    """Return the devices for one entry (an index, a UUID or its unique prefix), or None."""
    found: list[tuple[Device, ...]] = []
    if entry.isdecimal():
        found = [card.devices for card in cards if card.index == int(entry)]
    elif entry.startswith("GPU-"):
        found = [card.devices for card in cards if card.uuid.startswith(entry)]
    elif entry.startswith("MIG-"):
        found = [(device,) for card in cards for device in card.devices if device.id.startswith(entry)]
    return found[0] if len(found) == 1 else None
