"""One line for each row that says what the instruction does: from its element meaning's own code, or for whole-instruction templates from a table.

`a -> b[i]` texts use the names of assembly: rd, rs1, vs2, vd; `[i]` is element i < vl, `mask[i]` a bit of a mask register,
`m[..]` memory. Functions that
appear in them are those of isa/prims.py and isa/meaning_*.py.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from rvgpu.isa.meaning import meaning
from rvgpu.isa.rows import Row

# the beginning of a kind -> where the result goes, the operands of the meaning ({} the second one by the row's form)
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "alu_rr": ("rd = ", ("rs1", "rs2")), "alu_ri": ("rd = ", ("rs1", "imm")), "alu_r": ("rd = ", ("rs1",)), "branch": ("to pc + imm if ", ("rs1",
                                                                                                                                           "rs2")),
    "amo": ("rd = m[rs1] as it was; m[rs1] = ", ("m[rs1]", "rs2")), "fp2": ("fd = ", ("fs1", "fs2")), "fma": ("fd = ", ("fs1", "fs2", "fs3")),
    "fcmp": ("rd = ", ("fs1", "fs2")), "v": ("vd[i] = ", ("vs2[i]", "{}")), "vcmp": ("vd.mask[i] = ", ("vs2[i]", "{}")),
    "vmac": ("vd[i] = ", ("vs2[i]", "{}", "vd[i]")), "vwmac": ("vd[i] = ", ("vs2[i]", "{}", "vd[i]")), "vfwmac": ("vd[i] = ", ("vs2[i]", "{}",
                                                                                                                               "vd[i]")),
    "vadc": ("vd[i] = ", ("vs2[i]", "{}", "v0.mask[i]")), "vmadc": ("vd.mask[i] = ", ("vs2[i]", "{}", "carry")),
    "vfix": ("vd[i] = ", ("vs2[i]", "{}", "vxrm")), "vclip": ("vd[i] = ", ("vs2[i]", "{}", "vxrm")), "vunary": ("vd[i] = ", ("vs2[i]",)),
    "vunary_rm": ("vd[i] = ", ("vs2[i]", "frm")), "vncvt_odd": ("vd[i] = ", ("vs2[i]",)), "vmask": ("vd.mask = ", ("vs2.mask", "vs1.mask")),
    "vred": ("vd[0] = vs1[0] and the active vs2[i] joined by ", ("x", "y")), "vwred": ("vd[0] = vs1[0] and the active vs2[i] joined by ", ("x", "y")),
    "vfwred": ("vd[0] = vs1[0] and the active vs2[i] joined by ", ("x", "y")),
}
SECOND = {"v": "vs1[i]", "x": "rs1", "i": "imm", "f": "fs1"}

# kinds without an element meaning; {n} are the row's own constants
_MEMORY = {"unit": "m[rs1 + i*{BYTES}]", "strided": "m[rs1 + i*rs2]", "indexed": "m[rs1 + vs2[i]]",
           "segment": "field f of vd[i]: m[rs1 + ({NF}*i + f)*{BYTES}]",
           "segment_strided": "field f of vd[i]: m[rs1 + i*rs2 + f*{BYTES}], {NF} fields",
           "segment_indexed": "field f of vd[i]: m[rs1 + vs2[i] + f*SEW/8], {NF} fields"}
TEXTS = {
    "lui": "rd = imm", "auipc": "rd = pc + imm", "jal": "rd = pc + size; to pc + imm", "jalr": "rd = pc + size; to (rs1 + imm) & -2",
    "load": "rd = m[rs1 + imm], {SIZE} bytes, {sign}", "store": "m[rs1 + imm] = rs2, {SIZE} bytes", "nop": "orders or hints: nothing to do here",
    "exception": "a trap; without a trap vector it stops the program", "mret": "to mepc; mode and MIE as before the trap", "wfi": "waits a little",
    "fence": "orders: waits until no core is behind", "fence_i": "decodes text that was written anew",
    "lr": "rd = m[rs1], {SIZE} bytes; reserves their line", "sc": "rd = 0 and m[rs1] = rs2, {SIZE} bytes, if the reservation holds; else rd = 1",
    "csr": "rd = csr; csr = rs1 or uimm, or its bits set or cleared",
    "fload": "fd = m[rs1 + imm], {SIZE} bytes, NaN-boxed",
    "fstore": "m[rs1 + imm] = fs2, {SIZE} bytes", "fsqrt": "fd = square root of fs1", "fclass": "rd = one bit of ten for the class of fs1",
    "fcvt_xf": "rd = fs1 as an integer of {IW} bits, saturated; NaN is the greatest", "fcvt_fx": "fd = rs1, an integer of {IW} bits",
    "fmv_xf": "rd = the bits of fs1", "fmv_fx": "fd = the low bits of rs1", "fcvt_ff": "fd = fs1 in another format",
    "vmerge": "vd[i] = v0.mask[i] ? {b} : vs2[i]", "vmv_v": "vd[i] = {b}", "vext": "vd[i] = vs2[i] of SEW/{DIV} bits, {sign}",
    "vmv_xs": "rd = vs2[0], sign-extended",
    "vcpop": "rd = number of active set bits of vs2.mask", "vfirst": "rd = index of the first active set bit of vs2.mask, or -1",
    "vmv_sx": "vd[0] = rs1",
    "vid": "vd[i] = i", "viota": "vd[i] = number of active set bits of vs2.mask in front of i", "vslide_": "vd[i] = vs2[i {dir} {b}]",
    "vslide1": "vd[i] = vs2[i {dir} 1]; {b} at the end that is free",
    "vmset": "vd.mask[i] = {BEFORE} in front of the first active set bit of vs2.mask, {AT} there, 0 behind",
    "vrgather": "vd[i] = vs2[{b}], 0 beyond VLMAX", "vrgatherei16": "vd[i] = vs2[vs1[i] of 16 bits], 0 beyond VLMAX",
    "vcompress": "vd = the elements of vs2 whose bit of vs1.mask is set, side by side", "vmvr": "{N} registers from vd on = those from vs2 on",
    "vfmv_fs": "fd = vs2[0]", "vfmv_sf": "vd[0] = fs1", "vcvt_fi": "vd[i] = vs2[i] as an integer, saturated; NaN is the greatest",
    "vwcvt_fi": "vd[i] = vs2[i] as an integer of 2*SEW bits, saturated", "vncvt_fi": "vd[i] = vs2[i] of 2*SEW bits as an integer of SEW, saturated",
    "vcvt_if": "vd[i] = the integer vs2[i] as a float", "vwcvt_if": "vd[i] = the integer vs2[i] as a float of 2*SEW bits",
    "vncvt_if": "vd[i] = the integer vs2[i] of 2*SEW bits as a float of SEW", "vwcvt_ff": "vd[i] = vs2[i] as a float of 2*SEW bits",
    "vncvt_ff": "vd[i] = vs2[i] of 2*SEW bits as a float of SEW", "vwmaccbf": "vd[i] = fma(vs2[i], {b}, vd[i]) in f32, of bf16 operands",
    **{f"vload_{k}": f"{v}" if "field" in v else f"vd[i] = {v}" for k, v in _MEMORY.items()},
    **{f"vstore_{k}": v.replace(":", " goes to") if "field" in v else f"{v} = vd[i]" for k, v in _MEMORY.items()},
    "vload_ff": "vd[i] = m[rs1 + i*{BYTES}]; an element but the first that faults ends vl", "vload_whole": "{N} registers from vd on = m[rs1..]",
    "vload_segment_ff": _MEMORY["segment"] + "; a segment but the first that faults ends vl", "vstore_whole": "m[rs1..] = {N} registers from vd on",
    "vload_mask": "vd = m[rs1..], ceil(vl/8) bytes", "vstore_mask": "m[rs1..] = vd, ceil(vl/8) bytes",
    "vsetvli": "vtype = imm; rd = vl = min(rs1, VLMAX)",
    "vsetivli": "vtype = imm; rd = vl = min(uimm, VLMAX)", "vsetvl": "vtype = rs2; rd = vl = min(rs1, VLMAX)",
    "sf_vsettn": "rd = vl = min(rs1, LMUL*VLEN/SEW, ETE)",
    "sf_vsettm": "rd = tm = min(rs1, LMUL*VLEN/SEW, ETE)", "sf_vsettk": "rd = tk = min(rs1, KMAX)",
    "vlte": "row or column rs2 of a tile = m[rs1..], {EEW} bits each",
    "vste": "m[rs1..] = row or column rs2 of a tile, {EEW} bits each", "vtmv_vt": "vd = row or column rs1 of a tile",
    "vtmv_tv": "row or column rs1 of a tile = vs2",
    "vtzero": "the tile's tm x tn elements = 0", "mm_ff": "tile[m][n] += sum over k < tk of vs2[k][m] * vs1[k][n], floats",
    "mm_f8": "tile[m][n] += sum over k < tk of vs2[k][m] * vs1[k][n], 8-bit floats in pairs",
    "mm_ii": "tile[m][n] += sum over k < tk of vs2[k][m] * vs1[k][n], wrapping",
}


def _longest(table: dict[str, Any], kind: str) -> Any:
    return table[max((k for k in table if kind.startswith(k)), key=len)]


class _Names(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def _element(fn: Callable[..., Any], operands: tuple[str, ...]) -> str:
    """The expression of a function that is one, else the function and the first sentence about it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(fn))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    names = dict(zip((a.arg for a in tree.args.args), operands, strict=True))
    last = tree.body[-1]
    if len(tree.body) == 1 and isinstance(last, ast.Return) and last.value is not None:
        return ast.unparse(_Names(names).visit(last.value))
    about = " ".join((ast.get_docstring(tree) or "").split()).split(". ")[0].rstrip(".")
    about = " ".join(_word(w, names) for w in about.split(" "))
    return f"{fn.__name__}({', '.join(operands)})" + (f": {about}" if about else "")


def _word(word: str, names: dict[str, str]) -> str:
    bare = word.strip("(),;:")
    return word.replace(bare, names[bare]) if bare in names else word


def gloss(row: Row) -> str:
    second = SECOND.get(row.kind[-1], "")
    fn = meaning(row)
    if fn is None:
        more = {"sign": "sign-extended" if row.args.get("SIGNED") else "zero-extended", "b": second, "dir": "-" if row.args.get("UP") else "+",
                "BYTES": row.args.get("EEW", 8) // 8}
        text: str = _longest(TEXTS, row.kind)
        return text.format(**{**more, **row.args})
    into, operands = _longest(FORMS, row.kind)
    text = into + _element(fn, tuple(o.format(second) for o in operands))
    if "BSIGNED" in row.args:
        text += f"; vs2 is {'' if row.args['SIGNED'] else 'un'}signed, {second} {'' if row.args['BSIGNED'] else 'un'}signed"
    return text
