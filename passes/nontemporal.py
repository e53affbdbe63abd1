"""P15: what a kernel stores for good does not stay in L2: stores of whole lines that no later kernel reads get the hint that takes them past it."""

from __future__ import annotations

from dataclasses import dataclass

from rvgpu.ir.core import Op, Value
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import VecType
from rvgpu.passes.context import Context

LINE_BITS = 512
READS = ("vt.load", "vt.load.masked", "vt.gather", "s.load", "opnd.load", "dma.load", "dma.gather")


@dataclass(frozen=True)
class Nontemporal:
    """Marks vt.store ops into results that are neither read back here nor workspace between functions. Dirty lines would otherwise push what is
    read again out of L2, and the run would end with writing them back. Fewer lanes than a line are not worth the hint's issue slot."""

    name = "nontemporal"
    level = "tile"

    def run(self, func: KFunc, context: Context) -> list[KFunc]:
        stores = [(op, arg) for op in func.body.walk() if op.name == "vt.store" and (arg := _root(op.operands[0])) is not None]
        read = {arg.attrs["name"] for op in func.body.walk() if op.name in READS for x in op.operands if (arg := _root(x)) is not None}
        lasting = {t.name for t in func.tensors if t.output} - read - context.workspace
        for op, arg in stores:
            if arg.attrs["name"] in lasting and _fills_lines(op):
                op.attrs["nontemporal"] = True
        return [func]


def _root(x: Value) -> Op | None:
    """The mem.arg that a view of a tensor was made from."""
    while x.op is not None and x.op.name == "mem.at":
        x = x.op.operands[0]
    return x.op if x.op is not None and x.op.name == "mem.arg" else None


def _fills_lines(store: Op) -> bool:
    """Lanes one beside the other, at least a line of them."""
    arg, axis, t = _root(store.operands[0]), store.attrs["axis"], store.operands[1].type
    assert arg is not None and isinstance(axis, int) and isinstance(t, VecType)
    stride = arg.operands[len(arg.operands) // 2 + axis].op
    return stride is not None and stride.attrs.get("value") == 1 and t.lanes * t.dtype.bits >= LINE_BITS
