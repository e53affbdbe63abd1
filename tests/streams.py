"""Level T clusters built by hand, in the form the cascade leaves them (docs/ir.md)."""

from __future__ import annotations

from rvgpu.ir.core import Block, Builder, Func, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType

F32, BF16, I32, I1 = DType.f32, DType.bf16, DType.i32, DType.i1


def dims(text: str) -> tuple[Dim, ...]:
    return tuple(Dim.of(n) for n in text.split())


def t(text: str, dtype: DType = F32) -> TensorType:
    return TensorType(dims(text), dtype)


def param(name: str, type: TensorType, keyword: bool = False) -> Param:
    return Param(name, Value(type, hint=name), keyword)


def stream(b: Builder, dim: str, captures, atoms, states, anchors, anchor_needs, rebase, finish, result_types):
    """states: [(kind, type, anchor ids, body(builder, atoms, anchors))]; the rest are builders of regions."""
    ab = Builder(Block([Value(v.type) for v in captures]))
    ys = atoms(ab, ab.block.args)
    ab.op("yield", ys)
    regions = [ab.block]
    for _, _, ids, body in states:
        args = [Value(y.type) for y in ys] + [Value(anchors[i][0]) for i in ids]
        bb = Builder(Block(args))
        bb.op("yield", body(bb, args[:len(ys)], args[len(ys):]))
        regions.append(bb.block)
    types = [s[1] for s in states]
    for fn, extra in ((lambda b, s, _: [a[1](b, s) for a in anchors], []), (rebase, [a[0] for a in anchors]),
                      (finish, [a[0] for a in anchors])):
        block = Block([Value(x) for x in [*types, *extra]])
        rb = Builder(block)
        rb.op("yield", fn(rb, block.args[:len(types)], block.args[len(types):]))
        regions.append(block)
    return b.op("stream", captures, result_types, regions, dim=Dim.of(dim), kinds=tuple(s[0] for s in states),
                names=tuple(f"s{i}" for i in range(len(states))), anchor_of=tuple(tuple(s[2]) for s in states),
                anchor_needs=tuple(anchor_needs))


def gemm(dtype: DType = BF16, out: DType = BF16, bias: bool = False) -> Func:
    a, w, v = param("a", t("M K", dtype)), param("b", t("K N", dtype)), param("bias", t("N", dtype))
    b = Builder(Block())
    r, = stream(b, "K", [a.value, w.value], lambda b, xs: list(xs),
                [("sum", t("M N"), (), lambda b, xs, d: list(xs))], [], [], lambda b, s, d: list(s), lambda b, s, d: list(s), [t("M N")])
    if bias:
        r = b.one("add", [r, b.one("cast", [v.value], t("N"), dtype=F32)], t("M N"))
        r = b.one("mul", [r, b.one("erf", [r], t("M N"))], t("M N"))
    if out != F32:
        r = b.one("cast", [r], t("M N", out), dtype=out)
    return Func("gemm", [a, w, v] if bias else [a, w], b.block, [r], [t("M N", out)])


def softmax() -> Func:
    x = param("x", t("M N"))
    b = Builder(Block())

    def body(b, xs, d):
        u = b.one("sub", [xs[0], d[0]], t("M N"))
        return [b.op("exp", [u], [t("M N")], anchored=True)[0]]

    m, total = stream(b, "N", [x.value], lambda b, xs: list(xs),
                      [("max", t("M"), (), lambda b, xs, d: [xs[0]]), ("sum", t("M"), (0,), body)],
                      [(t("M"), lambda b, s: s[0])], [(0,)],
                      lambda b, s, d: [s[0], b.one("mul", [s[1], b.one("exp", [d[0]], t("M"))], t("M"))],
                      lambda b, s, d: [d[0], s[1]], [t("M"), t("M")])
    e = b.op("exp", [b.one("sub", [x.value, m], t("M N"))], [t("M N")], anchored=True)[0]
    return Func("row_softmax", [x], b.block, [b.one("div", [e, total], t("M N"))], [t("M N")])


def attention(dtype: DType = BF16, causal: bool = True, lse: bool = False) -> Func:
    q, kk, v = param("q", t("B G R S D", dtype)), param("k", t("B G T D", dtype)), param("v", t("B G T D", dtype))
    scale = param("scale", t(""), True)
    b = Builder(Block())
    score, row, full = t("B G R S T"), t("B G R S"), t("B G R S D")

    def atoms(b, xs):
        s = b.op("contract", [xs[0], xs[1]], [score], dims=(Dim.of("D"),), order="any")[0]
        s = b.one("mul", [s, xs[3]], score)
        if causal:
            past = b.one("sub", [b.op("size", [], [t("", I32)], dim=Dim.of("T"))[0], b.op("size", [], [t("", I32)], dim=Dim.of("S"))[0]], t("", I32))
            it, is_ = b.op("iota", [], [t("T", I32)], dim=Dim.of("T"))[0], b.op("iota", [], [t("S", I32)], dim=Dim.of("S"))[0]
            ok = b.one("le", [it, b.one("add", [is_, past], t("S", I32))], t("S T", I1))
            s = b.one("select", [ok, s, b.op("const", [], [t("")], value=float("-inf"))[0]], score)
        return [s, xs[2]]

    def p(b, xs, d):
        return b.op("exp", [b.one("sub", [xs[0], d[0]], score)], [score], anchored=True)[0]

    def scaled(b, s, d):
        return b.one("mul", [s, b.one("exp", [d], row)], s.tensor)

    def finish(b, s, d):
        zero, one = b.op("const", [], [t("")], value=0.0)[0], b.op("const", [], [t("")], value=1.0)[0]
        inv = b.one("div", [one, s[1]], row)
        inv = b.one("select", [b.one("eq", [s[1], zero], TensorType(row.dims, I1)), zero, inv], row)
        return [b.one("mul", [s[2], inv], full), b.one("add", [d[0], b.one("log", [s[1]], row)], row)]

    out, ls = stream(b, "T", [q.value, kk.value, v.value, scale.value], atoms,
                     [("max", row, (), lambda b, xs, d: [xs[0]]), ("sum", row, (0,), lambda b, xs, d: [p(b, xs, d)]),
                      ("sum", full, (0,), lambda b, xs, d: [b.one("cast", [p(b, xs, d)], TensorType(score.dims, dtype), dtype=dtype), xs[1]])],
                     [(row, lambda b, s: s[0])], [(0,)],
                     lambda b, s, d: [s[0], scaled(b, s[1], d[0]), scaled(b, s[2], d[0])], finish, [full, row])
    o = b.one("cast", [out], TensorType(full.dims, dtype), dtype=dtype) if dtype != F32 else out
    return Func("attention", [q, kk, v, scale], b.block, [o, ls] if lse else [o], [TensorType(full.dims, dtype)] + ([row] if lse else []))
