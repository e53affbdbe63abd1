"""P9: every scratchpad buffer gets its place; a kernel that does not fit lists its buffers and their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from rvgpu.errors import RvgpuError
from rvgpu.ir.tile_build import KFunc
from rvgpu.passes.context import Context

ALIGN = 128


@dataclass(frozen=True)
class Stage:
    """All buffers of a kernel live as long as the kernel (stages rotate inside them), so they stand side by side."""

    name = "stage"
    level = "tile"

    def run(self, func: KFunc, context: Context) -> list[KFunc]:
        offset = 0
        table = []
        for op in func.body.walk():
            if op.name != "spm.alloc":
                continue
            size = op.attrs["size_bytes"]
            assert isinstance(size, int)
            size = -(-size // ALIGN) * ALIGN
            copies = func.warps if op.attrs["per_warp"] else 1
            op.attrs["offset_bytes"] = offset
            op.attrs["size_bytes"] = size
            table.append((str(op.attrs["name"]), size * copies))
            offset += size * copies
        if offset > context.facts.spm_bytes:
            error = RvgpuError("E310", f"kernel {func.name} needs {offset} bytes of scratchpad, the machine has "
                               f"{context.facts.spm_bytes}", func.loc)
            for name, size in table:
                error.note(f"{name}: {size} bytes")
            raise error.hint("use smaller tiles (tile{bk=...}), fewer warps, or a machine with a larger scratchpad.size_bytes")
        func.spm_bytes = offset
        return [func]
