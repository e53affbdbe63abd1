"""Dims get their values from the arguments' shapes: plain names first, then forms with one unknown; a contradiction names both arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rvgpu.errors import EXIT_REJECTED, RvgpuError
from rvgpu.ir.core import Func
from rvgpu.ir.dims import is_bound
from rvgpu.ir.shapes import dim_attr


def bind(func: Func, shapes: Mapping[str, Sequence[int]], given: Mapping[str, int]) -> dict[str, int]:
    """Every dim's value; E201 rank, E202 contradiction, E203 a dim that nothing binds."""
    out = dict(given)
    origin = {n: "-D or compile()" for n in given}
    pending = []
    for p in func.params:
        if p.keyword or p.name not in shapes:
            continue
        dims, shape = p.value.tensor.dims, shapes[p.name]
        if len(dims) != len(shape):
            raise RvgpuError("E201", f"{p.name} is [{', '.join(map(str, dims))}], its argument has {len(shape)} dims {tuple(shape)}", p.loc,
                             exit_code=EXIT_REJECTED)
        for d, n in zip(dims, shape, strict=True):
            if d.name is not None:
                if out.setdefault(d.name, int(n)) != n:
                    raise RvgpuError("E202", f"{d} is {out[d.name]} here, bound by {_by(origin, d.name)}; {p.name} has {d} = {n}", p.loc)
                origin.setdefault(d.name, f"argument {p.name}")
            else:
                pending.append((p, d, int(n)))
    for p, d, n in pending:
        unknown = [name for name in d.names if name not in out]
        if len(unknown) == 1:
            coefficient = dict(d.terms)[unknown[0]]
            rest = n - d.const - sum(c * out[m] for m, c in d.terms if m != unknown[0])
            if rest % coefficient or rest // coefficient < 0:
                raise RvgpuError("E202", f"{p.name} has {d} = {n}, which no {unknown[0]} gives", p.loc)
            out[unknown[0]] = rest // coefficient
            origin[unknown[0]] = f"argument {p.name}"
        if all(name in out for name in d.names) and d.value(out) != n:
            raise RvgpuError("E202", f"{d} is {d.value(out)} here; {p.name} has {d} = {n}", p.loc)
    for op in func.body.ops:  # a new name for a known dim
        if op.name == "rename":
            old, new = dim_attr(op.attrs, "from"), dim_attr(op.attrs, "to")
            if new.name is not None and new.name not in out and all(n in out for n in old.names):
                out[new.name] = old.value(out)
    missing = [n for n in func.dim_names() if not is_bound(n, out)]
    if missing:
        raise RvgpuError("E203", f"no argument binds dim {missing[0]}", func.loc).hint(f"give it: -D {missing[0]}=... or compile({missing[0]}=...)")
    for t in [*(p.value.tensor for p in func.params), *func.result_types]:
        for d in t.dims:
            if d.value(out) < 0:
                raise RvgpuError("E204", f"dim {d} would be {d.value(out)}", func.loc)
    return out


def _by(origin: Mapping[str, str], name: str) -> str:
    return origin.get(name, "an argument")
