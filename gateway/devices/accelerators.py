"""Match the name of an accelerator with a card.

Manifests use a platform's name for a card, NVML the product name:

    T4            Tesla T4                      H100, H100_80GB   NVIDIA H100 80GB HBM3 · NVIDIA H100 PCIe
    L4            NVIDIA L4                     H100_40GB         NVIDIA H100 80GB HBM3 MIG 3g.40gb
    A10G          NVIDIA A10G                   H200              NVIDIA H200
    V100          Tesla V100-SXM2-16GB          B200 · B300       NVIDIA B200 · NVIDIA B300 SXM6 AC
    A100          any A100                      GB300             NVIDIA GB300
    A100_40GB     NVIDIA A100-SXM4-40GB         RTX_PRO_6000      NVIDIA RTX PRO 6000 Blackwell Server Edition
    L40S          NVIDIA L40S

One rule produces this table, so unlisted cards work too. Both names are split at characters other than letters and
digits. The accelerator's tokens must occur in the product name as consecutive whole tokens (A10 is not A100, L4 is not
L40S). A last token such as `40GB` is compared with the total memory instead. A MIG slice only matches a name with such
a size: a request for an H100 does not mean a seventh of one.
"""

from __future__ import annotations

import re

from ..errors import ConfigError
from .device import GIB, Device

_MEMORY = re.compile(r"([0-9]+)gi?b")
TOLERANCE = 0.10  # a "40GB" card has 39.4 to 40 GiB, and a slice of it less


def parse_accelerator(text: str) -> tuple[str, int]:
    """Return name and number of GPUs per replica: "H100:2" is ("H100", 2), "L4" is ("L4", 1). Raises ConfigError."""
    name, colon, count = (part.strip() for part in text.partition(":"))
    if not _tokens(name) or (colon and not (count.isdecimal() and int(count) > 0)):
        raise ConfigError(f"accelerator {text!r} is not a name; write for example L4, or H100:2 for two per replica")
    return name, int(count or 1)


def matches(accelerator: str, device: Device) -> bool:
    """Return whether the accelerator's name matches `device`."""
    wanted, card = _tokens(accelerator), _tokens(device.model)
    memory = _MEMORY.fullmatch(wanted[-1]) if len(wanted) > 1 else None
    if memory is not None:
        wanted = wanted[:-1]
        size = int(memory[1]) * GIB
        if abs(device.total - size) > TOLERANCE * size:
            return False
    elif device.is_slice:
        return False
    return any(card[at : at + len(wanted)] == wanted for at in range(len(card) - len(wanted) + 1))


def _tokens(name: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", name.lower()) if token]
