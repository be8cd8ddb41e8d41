"""In which precision a network is trained and judged."""

from __future__ import annotations

from pathlib import Path

import torch

# Below this, the conversions cost more than bfloat16 saves.
BF16_MACS = 50_000_000


def precision_for(wanted: str, device: str, macs: int) -> str:
    """``bf16`` or ``fp32``: what ``auto`` comes to on this device for a network of so many multiply-accumulates."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if macs >= BF16_MACS and _has_bf16_arithmetic() else "fp32"


def _has_bf16_arithmetic() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in this precision, ``fp32`` or ``bf16``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
