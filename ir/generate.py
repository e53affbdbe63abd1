"""Random level T functions and inputs for property tests and fuzzing: legal by construction, ragged, with masks."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np

from rvgpu.ir.core import Block, Builder, Func, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import Array, round_to
from rvgpu.ir.tensor_ops import infer
from rvgpu.ir.types import DType, TensorType

NAMES = ("M", "N", "K")
STORED = (DType.f32, DType.bf16, DType.f16)


class Generator:
    """Grows a function op by op; `pool` holds the f32 values so far."""

    def __init__(self, r: random.Random) -> None:
        self.r = r
        self.b = Builder(Block())
        self.params: list[Param] = []
        self.pool: list[Value] = []

    def apply(self, name: str, *xs: Value, **attrs: object) -> Value:
        types = infer(name, [x.tensor for x in xs], attrs)  # type: ignore[arg-type]
        assert types is not None
        return self.b.op(name, xs, types, **attrs)[0]  # type: ignore[arg-type]

    def const(self, value: float, dtype: DType = DType.f32) -> Value:
        return self.b.one("const", [], TensorType((), dtype), value=value)

    def param(self) -> Value:
        dims = tuple(Dim.of(n) for n in self.r.sample(NAMES, self.r.randint(1, 3)))
        dtype = self.r.choice(STORED)
        p = Param(f"x{len(self.params)}", Value(TensorType(dims, dtype), hint=f"x{len(self.params)}"))
        self.params.append(p)
        return p.value if dtype is DType.f32 else self.apply("cast", p.value, dtype=DType.f32)

    def pick(self, has: int = 0) -> Value:
        """A value with at least `has` dims."""
        found = [v for v in self.pool if len(v.tensor.dims) >= has]
        return self.r.choice(found) if found else self.param()

    def step(self) -> Value:
        kinds = ("unary", "unary", "binary", "binary", "mask", "round", "reduce", "norm", "contract", "structure")
        made: Value = getattr(self, self.r.choice(kinds))()
        return made

    def unary(self) -> Value:
        name = self.r.choice(("neg", "abs", "exp", "tanh", "erf", "sigmoid", "silu", "gelu", "relu", "sqrt", "log",
                              "rsqrt", "exp2", "floor"))
        x = self.pick()
        if name in ("exp", "exp2"):  # keeps values in a range where bounds mean something
            x = self.apply("min", x, self.const(4.0))
        if name in ("sqrt", "log", "rsqrt"):
            x = self.apply("add", self.apply("abs", x), self.const(0.5))
        return self.apply(name, x)

    def binary(self) -> Value:
        name = self.r.choice(("add", "sub", "mul", "max", "min", "div"))
        x, y = self.pick(), self.pick()
        if name == "div":
            y = self.apply("add", self.apply("abs", y), self.const(1.0))
        return self.apply(name, x, y)

    def mask(self) -> Value:
        """where(iota(A) <= iota(B) + c, x, y)."""
        x = self.pick(1)
        d = self.r.choice(x.tensor.dims)
        row = self.apply("iota", dim=Dim.of(self.r.choice(NAMES)))
        limit = self.apply("add", row, self.const(self.r.randint(-2, 2), DType.i32))
        cond = self.apply(self.r.choice(("le", "gt", "ne")), self.apply("iota", dim=d), limit)
        return self.apply("select", cond, x, self.const(self.r.choice((0.0, 1.0, -2.5))))

    def round(self) -> Value:
        narrow = self.apply("cast", self.pick(), dtype=self.r.choice((DType.bf16, DType.f16)))
        return self.apply("cast", narrow, dtype=DType.f32)

    def reduce(self) -> Value:
        x = self.pick(1)
        dims = tuple(self.r.sample(x.tensor.dims, self.r.randint(1, len(x.tensor.dims))))
        name = self.r.choice(("sum", "max", "min", "logsumexp", "mean", "var"))
        if name in ("sum", "max", "min"):
            return self.apply("reduce", x, op=name, dims=dims, order="any")
        return self.apply(name, x, dims=dims)

    def norm(self) -> Value:
        """softmax, sometimes with a mask of -inf in front."""
        x = self.pick(1)
        d = self.r.choice(x.tensor.dims)
        if self.r.random() < 0.5:
            keep = self.apply("lt", self.apply("iota", dim=d), self.const(self.r.randint(0, 4), DType.i32))
            x = self.apply("select", keep, x, self.const(-math.inf))
        return self.apply("softmax", x, dims=(d,))

    def contract(self) -> Value:
        x, y = self.pick(1), self.pick(1)
        shared = [d for d in x.tensor.dims if d in y.tensor.dims]
        if not shared:
            return self.apply("mul", x, y)
        dtype = self.r.choice((DType.f32, DType.bf16))
        if dtype is not DType.f32:
            x, y = self.apply("cast", x, dtype=dtype), self.apply("cast", y, dtype=dtype)
        return self.apply("contract", x, y, dims=(self.r.choice(shared),), order="any")

    def structure(self) -> Value:
        """Shapes change and come back: concat then slice, or pad then slice."""
        x = self.pick(1)
        d = self.r.choice(x.tensor.dims)
        if self.r.random() < 0.5:
            y = self.apply("concat", x, self.apply("neg", x), dim=d, new=d * 2)
            return self.apply("slice", y, dim=d * 2, start=self.r.choice((0, d)), new=d)
        y = self.apply("pad", x, self.const(1.5), dim=d, before=self.r.randint(0, 2), new=d + 2)
        return self.apply("slice", y, dim=d + 2, start=self.r.randint(0, 2), new=d)


def random_func(r: random.Random, ops: int = 8) -> Func:
    """A function of `ops` steps with one or two results."""
    g = Generator(r)
    for _ in range(r.randint(1, 3)):
        g.pool.append(g.param())
    for _ in range(ops):
        g.pool.append(g.step())
    results = []
    for v in dict.fromkeys([g.pool[-1], r.choice(g.pool)]):
        narrow = v if r.random() < 0.5 else g.apply("cast", v, dtype=r.choice((DType.bf16, DType.f16)))
        if narrow.op is not None:
            results.append(narrow)
    results = results or [g.apply("neg", g.pool[-1])]
    types = [TensorType(tuple(r.sample(v.tensor.dims, len(v.tensor.dims))), v.tensor.dtype) for v in results]
    names = [f"out{n}" for n in range(len(results))]
    return Func("f", g.params, g.b.block, results, types, result_names=names)


def random_inputs(r: random.Random, func: Func, dims: Mapping[str, int],
                  scale: Sequence[float] = (0.1, 1.0, 4.0), odd: float = 0.0) -> list[Array]:
    """Normal numbers of one of the scales, in the parameters' dtypes; a share `odd` of them is NaN, infinite or
    zero."""
    rng = np.random.default_rng(r.getrandbits(32))
    out = []
    for p in func.params:
        t = p.value.tensor
        if not p.keyword:
            x = rng.standard_normal([d.value(dims) for d in t.dims]) * (r.choice(scale) if t.dtype.is_float else 50)
            special = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], x.shape)
            out.append(round_to(np.where(rng.random(x.shape) < odd, special, x) if t.dtype.is_float else x, t.dtype))
    return out
