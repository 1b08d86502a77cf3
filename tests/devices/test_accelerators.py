"""Names of accelerators in manifests against what NVML calls the cards."""

from __future__ import annotations

import pytest

from gateway.devices.accelerators import matches, parse_accelerator
from gateway.devices.device import GIB, Device
from gateway.errors import ConfigError

CARDS = {
    "Tesla T4": 15,
    "NVIDIA L4": 22.5,
    "NVIDIA A10": 22.5,
    "NVIDIA A10G": 22.5,
    "Tesla V100-SXM2-16GB": 16,
    "NVIDIA A100-SXM4-40GB": 40,
    "NVIDIA A100-PCIE-40GB": 39.4,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA A100 80GB PCIe": 79.3,
    "NVIDIA H100 80GB HBM3": 79.6,
    "NVIDIA H100 PCIe": 79.6,
    "NVIDIA H200": 140.4,
    "NVIDIA L40": 45,
    "NVIDIA L40S": 45,
    "NVIDIA B200": 179,
    "NVIDIA B300 SXM6 AC": 268,
    "NVIDIA GB300": 277,
    "NVIDIA GH200 480GB": 95.6,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": 95.6,
    "NVIDIA GeForce RTX 4090": 24,
}


@pytest.mark.parametrize(
    ("name", "cards"),
    [
        ("T4", {"Tesla T4"}),
        ("L4", {"NVIDIA L4"}),
        ("A10", {"NVIDIA A10"}),
        ("A10G", {"NVIDIA A10G"}),
        ("V100", {"Tesla V100-SXM2-16GB"}),
        ("A100", {card for card in CARDS if "A100" in card}),
        ("A100_40GB", {"NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"}),
        ("A100-80GB", {"NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"}),
        ("H100", {"NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"}),
        ("H100_40GB", set()),
        ("H200", {"NVIDIA H200"}),
        ("L40S", {"NVIDIA L40S"}),
        ("B200", {"NVIDIA B200"}),
        ("B300", {"NVIDIA B300 SXM6 AC"}),
        ("GB300", {"NVIDIA GB300"}),
        ("RTX_PRO_6000", {"NVIDIA RTX PRO 6000 Blackwell Server Edition"}),
        ("rtx 4090", {"NVIDIA GeForce RTX 4090"}),
        ("6000", {"NVIDIA RTX PRO 6000 Blackwell Server Edition"}),
        ("RTX_6000", set()),
    ],
)
def test_a_name_means_exactly_these_cards(name: str, cards: set[str]) -> None:
    devices = [Device(id=f"GPU-{card}", model=card, total=int(size * GIB)) for card, size in CARDS.items()]
    assert {device.model for device in devices if matches(name, device)} == cards


def test_a_mig_slice_answers_only_to_a_name_with_its_size() -> None:
    part = Device(id="MIG-1", model="NVIDIA H100 80GB HBM3 MIG 3g.40gb", total=int(39.4 * GIB))
    assert matches("H100_40GB", part)
    assert not matches("H100", part)
    assert not matches("H100_80GB", part)


def test_a_device_without_a_name_is_no_accelerator_in_particular() -> None:
    assert not matches("H100", Device(id="GPU-0", total=80 * GIB))


@pytest.mark.parametrize(("text", "parsed"), [("H100", ("H100", 1)), ("H100:2", ("H100", 2)), (" L4 : 4 ", ("L4", 4))])
def test_a_number_after_the_colon_is_gpus_per_replica(text: str, parsed: tuple[str, int]) -> None:
    assert parse_accelerator(text) == parsed


@pytest.mark.parametrize("text", ["", ":2", "H100:", "H100:0", "H100:two", "--"])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        parse_accelerator(text)
