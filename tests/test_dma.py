"""Transposing DMA transfers against NumPy: all element sizes, more rows than the host transposes together, by an index, up to a row that faults."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable

# args: source, destination, rows, bytes of a row, stride of both, rows and bytes with fill, index (or 0), configuration
NAMES = ("source", "destination", "rows", "bytes", "source stride", "destination stride", "fill rows", "fill bytes", "index")
REGISTERS = "".join(f"ld t0, {8 * n}(a0)\nsd t0, {64 + 8 * n}(a3)\n" for n in range(len(NAMES)))
TEXT = f"""bnez a2, out
bnez a1, out
{REGISTERS}ld t1, {8 * len(NAMES)}(a0)
addi t2, a3, 136
amoswap.d t3, t1, (t2)
addi t2, a3, 144
amoswap.d t3, t3, (t2)
out: jalr zero, ra, 0
"""


def transfer(source: np.ndarray, index: np.ndarray | None, size: int, rows: int, nbytes: int, fill_rows: int, fill_bytes: int) -> np.ndarray:
    """The destination afterwards: a matrix of elements, rows of fill_rows of them and two more."""
    code = assemble(TEXT)
    d = Device(load_machine("base", {"gpu.cores": 1, "core.warps": 1}), memory_bytes=1 << 22)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    stride, columns = (fill_rows + 2) * size, fill_bytes // size
    out = np.full((columns, fill_rows + 2), 0xAA, np.dtype(f"u{size}"))
    places = [d.alloc(x.nbytes) for x in (source, out)]
    d.write(places[0], source)
    d.write(places[1], out)
    at = 0
    if index is not None:
        at = d.alloc(index.nbytes)
        d.write(at, index)
    try:
        d.launch(program, "k", [*places, rows, nbytes, source.shape[1], stride, fill_rows, fill_bytes, at, 4 + size.bit_length() - 1], ctas=1)
    except RvgpuError as e:
        assert e.code == "E701"
    return np.frombuffer(d.read(places[1], out.nbytes), out.dtype).reshape(out.shape)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), size=st.sampled_from([1, 2, 4, 8]), rows=st.integers(1, 80), by_index=st.booleans())
def test_transposed(data, size, rows, by_index):
    columns = data.draw(st.integers(1, 150 // size), label="columns")
    fill_rows, fill_columns = rows + data.draw(st.integers(0, 3), label="fill"), columns + data.draw(st.integers(0, 3), label="fill columns")
    rng = np.random.default_rng(rows * 1000 + columns)
    source = rng.integers(0, 256, (rows, columns * size + data.draw(st.integers(0, 70), label="gap")), np.uint8)
    index = rng.integers(0, rows, rows).astype(np.int32) if by_index else None
    got = transfer(source, index, size, rows, columns * size, fill_rows, fill_columns * size)
    want = np.full(got.shape, 0xAA, got.dtype)
    want[:, :fill_rows] = 0
    taken = source if index is None else source[index]
    want[:columns, :rows] = np.ascontiguousarray(taken[:, :columns * size]).view(got.dtype).T
    assert (got == want).all()


@pytest.mark.parametrize("last", [0, 5, 32, 45])
def test_rows_before_one_that_faults_are_there(last):
    source = np.random.default_rng(last).integers(0, 256, (64, 20), np.uint8)
    index = np.arange(64, dtype=np.int32)
    index[last] = 1 << 28
    got = transfer(source, index, 2, 64, 20, 64, 20)
    want = np.zeros((10, 64), np.uint16)
    want[:, :last] = source[:last].view(np.uint16).T
    assert (got[:, :64] == want).all()
