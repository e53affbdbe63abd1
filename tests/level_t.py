"""Level T functions written by hand for tests: the builder infers every result type."""

from __future__ import annotations

from rvgpu.ir.core import Block, Builder, Func, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tensor_ops import infer
from rvgpu.ir.types import DType, TensorType


def dims(text: str) -> tuple[Dim, ...]:
    return tuple(Dim.of(n) for n in text.split())


class T:
    """`t.softmax(x, dims=dims("N"))`, `t.reduce(x, op="sum", ...)`; `and_`/`not_` for the names Python keeps."""

    def __init__(self) -> None:
        self.b = Builder(Block())
        self.params: list[Param] = []

    def arg(self, name: str, text: str, dtype: DType = DType.f32, keyword: bool = False, default: float | None = None) -> Value:
        v = Value(TensorType(dims(text), dtype), hint=name)
        self.params.append(Param(name, v, keyword, default))
        return v

    def const(self, value: float, dtype: DType = DType.f32) -> Value:
        return self.b.one("const", [], TensorType((), dtype), value=value)

    def size(self, name: str) -> Value:
        return self.b.one("size", [], TensorType((), DType.i32), dim=Dim.of(name))

    def iota(self, name: str) -> Value:
        return self.b.one("iota", [], TensorType(dims(name), DType.i32), dim=Dim.of(name))

    def __getattr__(self, name: str):
        op = name.rstrip("_")

        def build(*xs: Value, **attrs: object) -> Value:
            return self.b.op(op, xs, infer(op, [x.tensor for x in xs], attrs), **attrs)[0]

        return build

    def func(self, *results: Value, name: str = "f") -> Func:
        return Func(name, self.params, self.b.block, list(results), [r.tensor for r in results])


def gemm(out: DType = DType.bf16) -> Func:
    t = T()
    a, b = t.arg("a", "M K", DType.bf16), t.arg("b", "K N", DType.bf16)
    c = t.contract(a, b, dims=dims("K"), order="any")
    return t.func(c if out is DType.f32 else t.cast(c, dtype=out))


def softmax() -> Func:
    t = T()
    return t.func(t.softmax(t.arg("x", "M N"), dims=dims("N")))


def attention(out: DType = DType.bf16, causal: bool = True) -> Func:
    t = T()
    q, k = t.arg("q", "B G R S D", DType.bf16), t.arg("k", "B G T D", DType.bf16)
    v, scale = t.arg("v", "B G T D", DType.bf16), t.arg("scale", "", keyword=True)
    s = t.mul(t.contract(q, k, dims=dims("D"), order="any"), scale)
    if causal:
        past = t.sub(t.size("T"), t.size("S"))
        s = t.select(t.le(t.iota("T"), t.add(t.iota("S"), past)), s, t.const(float("-inf")))
    p = t.cast(t.softmax(s, dims=dims("T")), dtype=DType.bf16)
    o = t.contract(p, v, dims=dims("T"), order="any")
    return t.func(o if out is DType.f32 else t.cast(o, dtype=out))
