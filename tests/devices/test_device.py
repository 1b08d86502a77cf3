"""Sizes, static lists of devices, and what NVML says, by a double of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.devices.device import (
    GIB,
    Device,
    format_size,
    nvml_devices,
    observe_free,
    parse_devices,
    parse_size,
    static_devices,
)
from gateway.errors import ConfigError

# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GiB", 20 * GIB),
        ("8Gi", 8 * GIB),
        ("80GB", 80 * 10**9),
        ("80 gb", 80 * 10**9),
        ("1.5GiB", 3 * GIB // 2),
        ("512MiB", 512 * 1024**2),
        ("2T", 2 * 10**12),
        ("7B", 7),
        ("0", 0),
        (0, 0),
        (1024, 1024),
    ],
)
def test_a_size_is_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value", ["", "GiB", "20", "20 apples", "-1GiB", "1e3GiB", "1.GiB", "20GiB!", -1, True, 1.5, None]
)
def test_what_is_no_size_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^headroom: .* is not a size; "):
        parse_size(value, "headroom")


def test_a_bare_number_gets_the_likely_unit_as_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean '20GiB'"):
        parse_size("20")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (80 * GIB, "80GiB"),
        (int(79.649 * GIB), "79.64GiB"),
        (512 * 1024**2, "512MiB"),
        (1536, "1.5KiB"),
        (7, "7B"),
        (0, "0B"),
        (-GIB, "-1GiB"),
        (100 * GIB, "100GiB"),
    ],
)
def test_a_size_is_shown_as_people_write_it(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**50))
def test_a_shown_size_reads_back_as_no_more_and_hardly_less(size: int) -> None:
    back = parse_size(format_size(size))
    assert back <= size <= back * 1.011


# ---- the short list --------------------------------------------------------------------------------------------------


def test_a_short_list_makes_the_same_devices_on_every_start() -> None:
    devices = parse_devices("2xH100:80GiB, 1xL4:24GiB")
    assert devices == parse_devices("2xH100:80GiB, 1xL4:24GiB")
    assert devices == [
        Device(id="GPU-fake-0", index=0, model="H100", total=80 * GIB),
        Device(id="GPU-fake-1", index=1, model="H100", total=80 * GIB),
        Device(id="GPU-fake-2", index=2, model="L4", total=24 * GIB),
    ]


def test_the_model_may_be_left_out_or_have_spaces() -> None:
    assert [device.model for device in parse_devices("1x24GiB,1xRTX PRO 6000:96GiB")] == ["", "RTX PRO 6000"]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_list_is_a_machine_without_accelerators(text: str) -> None:
    assert parse_devices(text) == []


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("H100:80GiB", 1, "cannot read 'H100:80GiB'; write COUNTx[MODEL:]MEMORY"),
        ("1xL4:24GiB,H100", 12, "cannot read 'H100'"),
        ("1xL4:24GiB,  nope", 14, "cannot read 'nope'"),
        ("1xL4:24GiB,", 12, "cannot read ''"),
        ("-1xL4:24GiB", 1, "cannot read"),
        ("1xA:B:24GiB", 1, "cannot read"),
        ("2xH100", 1, "the memory is missing in '2xH100'; write for example 2xH100:24GiB"),
        ("1xL4:24GiB,1xH100:80", 12, "did you mean '80GiB'"),
        ("1xL4:1KiB", 1, "memory '1KiB' is 1024 bytes"),
        ("0xL4:24GiB", 1, "0 devices"),
        ("1000x24GiB,25x24GiB", 12, "25 devices in '25x24GiB'; from 1 to 1024"),
        ("99999999999x24GiB", 1, "cannot read"),
    ],
)
def test_a_list_that_makes_no_sense_says_where(text: str, position: int, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_devices(text, "--devices")
    assert str(error.value).startswith(f"--devices: character {position}: ")
    assert reason in str(error.value)


@given(st.text(alphabet="0123456789xXHL:,. GiBMb-", max_size=24))
def test_any_text_is_a_list_or_an_error_for_people(text: str) -> None:
    try:
        devices = parse_devices(text)
    except ConfigError:
        return
    assert [device.index for device in devices] == list(range(len(devices)))
    assert all(device.total >= 1024**2 for device in devices)


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_tables_are_devices_in_their_order() -> None:
    devices = static_devices(
        [
            {"id": "GPU-0a", "model": "H100", "memory": "80GiB", "numa": 0},
            {"id": "x", "memory": 24 * GIB, "index": 7, "kind": "rocm"},
        ]
    )
    assert devices == [
        Device(id="GPU-0a", index=0, model="H100", total=80 * GIB, numa=0),
        Device(id="x", index=7, kind="rocm", total=24 * GIB),
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"id": "b", "memory": "1GiB", "modle": "H100"}, "unknown key 'modle'; did you mean 'model'?"),
        ({"id": "b", "memory": "1GiB", "zzz": 1}, "unknown key 'zzz'; have: id, model, memory, index, kind, numa"),
        ({"memory": "1GiB"}, "'id' is missing"),
        ({"id": "b"}, "'memory' is missing"),
        ({"id": "a", "memory": "1GiB"}, "id 'a' is used twice"),
        ({"id": "", "memory": "1GiB"}, "id = '' is not a name"),
        ({"id": 3, "memory": "1GiB"}, "id = 3 is not a name"),
        ({"id": "b", "memory": "1GiB", "numa": "0"}, "numa = '0' is not a whole number"),
        ({"id": "b", "memory": "1GiB", "index": True}, "index = True is not a whole number"),
        ({"id": "b", "memory": 80}, "memory 80 is 80 bytes; did you mean '80GiB'?"),
        ({"id": "b", "memory": "much"}, "'much' is not a size"),
    ],
)
def test_a_table_that_makes_no_sense_is_named_by_number(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        static_devices([{"id": "a", "memory": "1GiB"}, table])
    assert str(error.value).startswith("[[gateway.placement.devices]] number 2: ")
    assert reason in str(error.value)


def test_a_device_is_shown_as_people_know_it() -> None:
    assert str(Device(id="GPU-1f", index=1, model="NVIDIA L4", total=24 * GIB)) == "GPU 1 (NVIDIA L4, 24GiB)"
    assert str(Device(id="MIG-7", model="NVIDIA H100 MIG 1g.10gb", total=10 * GIB)).startswith("MIG-7 (NVIDIA H100")
    assert str(Device(id="mps:0", kind="mps", total=48 * GIB)) == "mps:0 (mps, 48GiB)"


# ---- NVML ------------------------------------------------------------------------------------------------------------


@dataclass
class Card:
    uuid: str
    model: str = "NVIDIA L4"
    total: int = 24 * GIB
    free: int = 23 * GIB
    bus: str = "00000000:65:00.0"
    slices: list[Card | None] | None = None  # None: cannot be partitioned
    is_lost: bool = False


@dataclass
class FakeNvml:
    """NVML as pynvml shows it: handles, and exceptions of the real classes."""

    cards: list[Card] = field(default_factory=list)
    init_error: int | None = None
    count_error: int | None = None

    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = pynvml.NVMLError_DriverNotLoaded

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)

    def nvmlDeviceGetCount(self) -> int:
        if self.count_error is not None:
            raise pynvml.NVMLError(self.count_error)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        if self.cards[index].is_lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in self.cards:
            for each in (card, *(card.slices or ())):
                if each is not None and each.uuid == uuid:
                    return each
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> str:
        return card.model

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:
        return SimpleNamespace(total=card.total, free=card.free, used=card.total - card.free)

    def nvmlDeviceGetPciInfo(self, card: Card) -> Any:
        return SimpleNamespace(busId=card.bus)

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:
        if card.slices is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1 if card.slices else 0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:
        part = card.slices[index] if card.slices and index < len(card.slices) else None
        if part is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return part


def ids(devices: list[Device]) -> list[str]:
    return [device.id for device in devices]


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_machine_without_a_driver_has_no_cuda_devices_and_nothing_to_say(
    error: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert nvml_devices(FakeNvml(init_error=error), environ={}) == []
    assert caplog.text == ""


def test_a_driver_that_fails_is_no_error_but_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    mismatch = FakeNvml(init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert nvml_devices(mismatch, environ={}) == []
    assert "NVML does not start" in caplog.text
    assert nvml_devices(FakeNvml(count_error=pynvml.NVML_ERROR_UNKNOWN), environ={}) == []
    assert "cannot count the GPUs" in caplog.text


def test_the_real_library_is_asked_when_none_is_given() -> None:
    assert isinstance(nvml_devices(environ={}), list)
    assert nvml_devices(environ={"CUDA_VISIBLE_DEVICES": ""}) == []


def test_a_card_is_known_by_uuid_model_memory_and_numa_node(tmp_path: Path) -> None:
    node = tmp_path / "bus/pci/devices/0000:65:00.0/numa_node"
    node.parent.mkdir(parents=True)
    node.write_text("1\n")
    assert nvml_devices(FakeNvml([Card("GPU-aa")]), environ={}, sysfs=tmp_path) == [
        Device(id="GPU-aa", index=0, model="NVIDIA L4", total=24 * GIB, free=23 * GIB, numa=1)
    ]
    node.write_text("-1\n")
    assert nvml_devices(FakeNvml([Card("GPU-aa")]), environ={}, sysfs=tmp_path)[0].numa is None
    assert nvml_devices(FakeNvml([Card("GPU-aa", bus="?")]), environ={}, sysfs=tmp_path)[0].numa is None


def test_a_broken_card_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeNvml([Card("GPU-aa"), Card("GPU-bb", is_lost=True), Card("GPU-cc")])
    devices = nvml_devices(fake, environ={}, sysfs=tmp_path)
    assert [(device.id, device.index) for device in devices] == [("GPU-aa", 0), ("GPU-cc", 2)]
    assert "GPU 1 does not respond" in caplog.text


def partitioned() -> FakeNvml:
    parts = [Card("MIG-a1", "NVIDIA H100 MIG 1g.10gb", 10 * GIB), None, Card("MIG-a2", "NVIDIA H100 MIG 1g.10gb")]
    return FakeNvml([Card("GPU-aa", slices=parts), Card("GPU-bb", slices=[])])


def test_a_partitioned_card_is_its_slices(tmp_path: Path) -> None:
    devices = nvml_devices(partitioned(), environ={}, sysfs=tmp_path)
    assert [(device.id, device.index) for device in devices] == [("MIG-a1", 0), ("MIG-a2", 0), ("GPU-bb", 1)]
    assert [device.is_slice for device in devices] == [True, True, False]


@pytest.mark.parametrize(
    ("visible", "shown", "warning"),
    [
        ("", [], ""),
        ("-1", [], ""),
        ("0", ["GPU-aa1"], ""),
        ("2,0", ["GPU-aa1", "GPU-bb1"], ""),
        (" GPU-aa2 , GPU-b ", ["GPU-aa2", "GPU-bb1"], ""),
        ("GPU-aa", [], "'GPU-aa' matches no GPU"),  # two begin so
        ("0,9,1", ["GPU-aa1"], "'9' matches no GPU; it and all after it are hidden"),
        ("0,-1,1", ["GPU-aa1"], ""),
        ("1,one,0", ["GPU-aa2"], "'one' matches no GPU"),
        ("aa1", [], "'aa1' matches no GPU"),
        ("0,1,0", [], "'0' occurs twice"),
        ("0,GPU-aa1", [], "'GPU-aa1' occurs twice"),
    ],
)
def test_an_inherited_variable_hides_what_cuda_would_hide(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, visible: str, shown: list[str], warning: str
) -> None:
    fake = FakeNvml([Card("GPU-aa1"), Card("GPU-aa2"), Card("GPU-bb1")])
    with caplog.at_level(logging.WARNING):
        assert ids(nvml_devices(fake, environ={"CUDA_VISIBLE_DEVICES": visible}, sysfs=tmp_path)) == shown
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


def test_slices_are_shown_by_their_id_or_all_with_their_card(tmp_path: Path) -> None:
    def shown(visible: str) -> list[str]:
        return ids(nvml_devices(partitioned(), environ={"CUDA_VISIBLE_DEVICES": visible}, sysfs=tmp_path))

    assert shown("MIG-a2") == ["MIG-a2"]
    assert shown("GPU-aa") == ["MIG-a1", "MIG-a2"]
    assert shown("MIG-zz") == []


def test_indices_on_a_mixed_machine_are_warned_of_unless_the_order_is_fixed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeNvml([Card("GPU-aa"), Card("GPU-bb", "NVIDIA H100 PCIe")])
    fixed = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert ids(nvml_devices(fake, environ=fixed, sysfs=tmp_path)) == ["GPU-bb"]
    assert caplog.text == ""
    assert ids(nvml_devices(fake, environ={"CUDA_VISIBLE_DEVICES": "1"}, sysfs=tmp_path)) == ["GPU-bb"]
    assert "nvidia-smi's order" in caplog.text


def test_free_memory_is_observed_again_and_unknown_devices_have_none(tmp_path: Path) -> None:
    fake = partitioned()
    [first, *_], made_up = nvml_devices(fake, environ={}, sysfs=tmp_path), parse_devices("1x24GiB")[0]
    elsewhere = Device(id="mps:0", kind="mps", total=48 * GIB, free=GIB)
    part = fake.nvmlDeviceGetHandleByUUID("MIG-a1")
    part.free = 3 * GIB
    free = [device.free for device in observe_free([first, made_up, elsewhere], fake)]
    assert free == [3 * GIB, None, GIB]


def test_without_a_driver_nothing_is_observed_and_nothing_changes() -> None:
    devices = parse_devices("2x24GiB")
    assert observe_free(devices, FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)) == devices
