"""rvgpu: whole-tensor math to RISC-V GPU machine code, checked and timed on a simulator.

    import rvgpu as rv
    @rv.kernel
    def f(...): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RvgpuError", "dims", "interpret", "kernel", "load_machine", "machine_names"]

if TYPE_CHECKING:
    from rvgpu.errors import RvgpuError
    from rvgpu.isa.machine import load_machine, machine_names
    from rvgpu.runtime.kernel import interpret, kernel

_WHERE = {"interpret": "rvgpu.runtime.kernel", "kernel": "rvgpu.runtime.kernel", "load_machine": "rvgpu.isa.machine",
          "machine_names": "rvgpu.isa.machine", "RvgpuError": "rvgpu.errors"}


def dims(names: str) -> Any:
    """Placeholders for dim names, so that annotations such as `bf16[M, K]` evaluate: M, K = rv.dims("M K")."""
    from rvgpu.lang import DimName

    out = tuple(DimName(n) for n in names.split())
    return out if len(out) > 1 else out[0]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'rvgpu' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
