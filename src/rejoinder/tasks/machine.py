"""What this machine is good at."""

from __future__ import annotations

from pathlib import Path

from rejoinder.ranker import Precision


def fast_precision() -> Precision:
    """bf16 where the processor multiplies it in hardware, else fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "fp32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"
