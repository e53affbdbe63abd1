"""Checked mode: one rule for each kind of instruction, and what happens to shadow state when a CTA starts.

A kind that has no rule cannot run checked (and fails tests/test_check.py): nothing is silently unchecked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvgpu.isa.prims import imin, st64, zero
from rvgpu.isa.rows import Row
from rvgpu.sim import check_scalar as sc
from rvgpu.sim import check_vector as ve
from rvgpu.sim import check_vmemory as me
from rvgpu.sim.check_state import CTL_WORDS, O_NEVER, Check, Shadow, of
from rvgpu.sim.state import WARP_BYTES, Core, Gpu, Warp
from rvgpu.sim.translate import address, apart, ptr

Rule = tuple[Callable[..., int], dict[str, int]]
V, VV, VX, VF = {"A": 1}, {"A": 1, "B": 1}, {"A": 1, "X": 1}, {"A": 1, "F": 1}

RULES: dict[str, Rule] = {  # by kind: the rule and what it is bound to beside what its row binds
    "nop": (sc.nothing, {}), "trap": (sc.nothing, {}), "fence": (sc.nothing, {}), "fence_i": (sc.nothing, {}), "exception": (sc.nothing, {}),
    "mret": (sc.nothing, {}), "wfi": (sc.nothing, {}), "lr": (sc.reserve, {}), "sc": (sc.conditional, {}),
    "alu_rr": (sc.alu_rr, {}), "alu_ri": (sc.alu_ri, {}), "alu_r": (sc.alu_r, {}),
    "lui": (sc.defines, {}), "auipc": (sc.defines, {}), "jal": (sc.defines, {}), "jalr": (sc.jalr, {}), "branch": (sc.branch, {}),
    "load": (sc.load, {}), "store": (sc.store, {}), "amo": (sc.amo, {}), "csr": (sc.csr, {}), "fload": (sc.fload, {}), "fstore": (sc.fstore, {}),
    "fp2": (sc.fp, {"INPUTS": 2}), "fma": (sc.fp, {"INPUTS": 3}), "fsqrt": (sc.fp, {}), "fcmp": (sc.fp, {"INPUTS": 2, "TO_X": 1}),
    "fclass": (sc.fp, {"TO_X": 1}), "fcvt_xf": (sc.fp, {"TO_X": 1}), "fcvt_fx": (sc.fcvt_fx, {}), "fcvt_ff": (sc.fp, {}),
    "fmv_xf": (sc.fmv_xf, {}), "fmv_fx": (sc.fmv_fx, {}),
    "vsetvli": (sc.vset, {}), "vsetivli": (sc.vset, {"IMM": 1}), "vsetvl": (sc.vset, {"VTYPE": 1}),
    "sf_vsettn": (sc.vset, {}), "sf_vsettm": (sc.vset, {}), "sf_vsettk": (sc.vset, {}),
    "v_vv": (ve.lanes, VV), "v_vx": (ve.lanes, VX), "v_vi": (ve.lanes, V), "v_vf": (ve.lanes, VF), "vunary": (ve.lanes, V),
    "vmac_vv": (ve.lanes, {**VV, "D": 1}), "vmac_vx": (ve.lanes, {**VX, "D": 1}), "vmac_vf": (ve.lanes, {**VF, "D": 1}),
    "vmv_vv": (ve.copied, {"A": 0, "B": 1}), "vmv_vx": (ve.lanes, {"A": 0, "X": 1}), "vmv_vi": (ve.lanes, {"A": 0}),
    "vmv_vf": (ve.lanes, {"A": 0, "F": 1}), "vid": (ve.lanes, {"A": 0}), "vcvt_fi": (ve.lanes, V), "vcvt_if": (ve.lanes, V),
    "vmerge_vv": (ve.merge, VV), "vmerge_vx": (ve.merge, VX), "vmerge_vi": (ve.merge, V), "vmerge_vf": (ve.merge, VF),
    "vcmp_vv": (ve.compare, VV), "vcmp_vx": (ve.compare, VX), "vcmp_vi": (ve.compare, V), "vcmp_vf": (ve.compare, VF),
    "vmask": (ve.mask_logic, {}), "vcpop": (ve.mask_to_x, {}), "vfirst": (ve.mask_to_x, {}), "viota": (ve.iota, {}),
    "vext": (ve.converted, V), "vnarrow_wv": (ve.converted, {**VV, "AW": 2}), "vnarrow_wx": (ve.converted, {**VX, "AW": 2}),
    "vnarrow_wi": (ve.converted, {**V, "AW": 2}), "vwiden_vv": (ve.converted, {**VV, "DW": 2}), "vwiden_vx": (ve.converted, {**VX, "DW": 2}),
    "vwcvt_ff": (ve.converted, {**V, "DW": 2}), "vncvt_ff": (ve.converted, {**V, "AW": 2}),
    "vwmaccbf_vv": (ve.converted, {**VV, "D": 1, "DW": 2}), "vwmaccbf_vf": (ve.converted, {**VF, "D": 1, "DW": 2}),
    "vadc_vv": (ve.lanes, {**VV, "C": 1}), "vadc_vx": (ve.lanes, {**VX, "C": 1}), "vadc_vi": (ve.lanes, {**V, "C": 1}),
    "vmadc_vv": (ve.carry_out, VV), "vmadc_vx": (ve.carry_out, VX), "vmadc_vi": (ve.carry_out, V), "vmset": (ve.before_first, {}),
    "vfix_vv": (ve.lanes, VV), "vfix_vx": (ve.lanes, VX), "vfix_vi": (ve.lanes, V), "vunary_rm": (ve.lanes, V),
    "vclip_wv": (ve.converted, {**VV, "AW": 2}), "vclip_wx": (ve.converted, {**VX, "AW": 2}), "vclip_wi": (ve.converted, {**V, "AW": 2}),
    "vfwiden_vv": (ve.converted, {**VV, "DW": 2}), "vfwiden_vf": (ve.converted, {**VF, "DW": 2}),
    "vwide2_wv": (ve.converted, {**VV, "AW": 2, "DW": 2}), "vwide2_wx": (ve.converted, {**VX, "AW": 2, "DW": 2}),
    "vfwide2_wv": (ve.converted, {**VV, "AW": 2, "DW": 2}), "vfwide2_wf": (ve.converted, {**VF, "AW": 2, "DW": 2}),
    "vwmac_vv": (ve.converted, {**VV, "D": 1, "DW": 2}), "vwmac_vx": (ve.converted, {**VX, "D": 1, "DW": 2}),
    "vfwmac_vv": (ve.converted, {**VV, "D": 1, "DW": 2}), "vfwmac_vf": (ve.converted, {**VF, "D": 1, "DW": 2}),
    "vwcvt_fi": (ve.converted, {**V, "DW": 2}), "vwcvt_if": (ve.converted, {**V, "DW": 2}), "vncvt_fi": (ve.converted, {**V, "AW": 2}),
    "vncvt_if": (ve.converted, {**V, "AW": 2}), "vncvt_odd": (ve.converted, {**V, "AW": 2}),
    "vwred": (ve.reduce, {"DW": 2}), "vfwred": (ve.reduce, {"DW": 2}), "vrgatherei16_vv": (ve.gather_v, {**VV, "BW": 0}),
    "vred": (ve.reduce, {}), "vmv_xs": (ve.to_x, {}), "vfmv_fs": (ve.to_f, {}), "vmv_sx": (ve.from_scalar, {"X": 1}),
    "vfmv_sf": (ve.from_scalar, {"F": 1}), "vmvr": (ve.registers, {}),
    "vslide_vx": (ve.slide_x, {}), "vslide_vi": (ve.slide_i, {}), "vslide1_vx": (ve.slide_one, {"X": 1}), "vslide1_vf": (ve.slide_one, {"F": 1}),
    "vrgather_vv": (ve.gather_v, VV), "vrgather_vx": (ve.gather_x, {}), "vrgather_vi": (ve.gather_i, {}), "vcompress": (ve.compress, {}),
    "vload_unit": (me.unit, {"UNIT": 1}), "vstore_unit": (me.unit, {"UNIT": 1, "STORE": 1}), "vload_strided": (me.scattered, {}),
    "vstore_strided": (me.scattered, {"STORE": 1}), "vload_indexed": (me.scattered, {"INDEXED": 1}),
    "vstore_indexed": (me.scattered, {"INDEXED": 1, "STORE": 1}), "vload_whole": (me.whole, {}), "vstore_whole": (me.whole, {"STORE": 1}),
    "vload_ff": (me.scattered, {"UNIT": 1, "FIRST": 1}), "vload_segment": (me.scattered, {"UNIT": 1}),
    "vload_segment_ff": (me.scattered, {"UNIT": 1, "FIRST": 1}), "vload_segment_strided": (me.scattered, {}),
    "vload_segment_indexed": (me.scattered, {"INDEXED": 1}), "vstore_segment": (me.scattered, {"UNIT": 1, "STORE": 1}),
    "vstore_segment_strided": (me.scattered, {"STORE": 1}), "vstore_segment_indexed": (me.scattered, {"INDEXED": 1, "STORE": 1}),
    "vload_mask": (me.mask, {}), "vstore_mask": (me.mask, {"STORE": 1}),
    "vlte": (me.tile_memory, {}), "vste": (me.tile_memory, {"STORE": 1}), "vtmv_vt": (me.tile_to_v, {}), "vtmv_tv": (me.v_to_tile, {}),
    "vlte_of": (me.of_other_width, {}), "vste_of": (me.of_other_width, {"STORE": 1}), "mm_f8": (me.multiply, {}),
    "vtzero": (me.tile_zero, {}), "mm_ff": (me.multiply, {}), "mm_ii": (me.multiply, {}),
}
BY_NAME: dict[str, Rule] = {"sf.vtdiscard": (me.discard, {})}  # instructions that are not as their kind

MOVES = {"sll", "srl", "sra", "sllw", "srlw", "sraw", "rol", "ror", "rolw", "rorw", "slli_uw", "sext_b", "sext_h", "zext_h", "rev8"}
BITWISE = {"and", "or", "xor", "andn", "orn", "xnor"}
SELF = {"sub", "subw", "xor", "slt", "sltu", "andn", "vsub", "vxor"}  # 0 of a value and itself
CARRY = {"add", "sub", "mul", "sh1add", "sh2add", "sh3add"}


def rule(row: Row) -> Rule | None:
    return BY_NAME.get(row.name) or RULES.get(row.kind)


def rule_binds(row: Row, bound: dict[str, Any]) -> dict[str, Any]:
    """`bound`, what the row's handler is specialised with, and what its rule wants beside."""
    found = rule(row)
    assert found is not None, f"checked mode has no rule for {row.kind}"
    out = {**bound, **found[1]}
    if row.kind.startswith("alu"):
        out |= {"MOVES": int(row.op in MOVES), "BITWISE": int(row.op in BITWISE), "CARRY": int(row.op in CARRY), "LOW": int(row.op.endswith("w"))}
    out["SELF"] = int(row.op in SELF and row.kind in ("alu_rr", "v_vv"))
    return out


@apart
def start_shadow(c: Core, g: Gpu) -> int:
    """A CTA starts: nothing in its scratchpad, registers and tiles is defined but what the ABI gives."""
    k = ptr(Check, g.check)
    serial = k.next
    k.next += 1
    used = imin(k.spm_lines, (k.spm_used + 63) >> 6)
    fill(k.spm_undefined + c.core * (k.spm_lines + 1) * 8, used * 8)
    zero(k.spm_cells + c.core * k.spm_lines * k.room, used * k.room)
    for n in range(c.nwarps):
        w = ptr(Warp, c.warps + n * WARP_BYTES)
        s = ptr(Shadow, of(w, g))
        for i in range(32):
            s.x[i] = 0 if i < 5 or (i >= 10 and i < 15) else 255
            s.f[i] = 255
            s.x_from[i] = O_NEVER
            s.f_from[i] = O_NEVER
            s.v_from[i] = O_NEVER
        for i in range(CTL_WORDS):
            s.ctl[i] = 255
            s.ctl_from[i] = O_NEVER
        fill(address(s.v), 1024)
        fill(s.tiles, g.te * g.te // 2)
        for i in range(4):
            s.rows[i] = 0
            s.columns[i] = 0
            s.out_rows[i] = 0
            s.out_columns[i] = 0
            s.tile_from[i] = O_NEVER
        for i in range(16):
            s.tew[i] = 0
        for i in range(64):
            s.clock[i] = 0
        s.clock[n] = 1
        s.synced = 0
        s.masks = 0
        s.serial = serial
    return 0


def fill(at: int, n: int) -> int:
    """All bits of n bytes, a multiple of 8."""
    for i in range(0, n, 8):
        st64(at + i, -1)
    return 0
