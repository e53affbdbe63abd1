"""One row per instruction: bits, operand format, timing class and the name of its meaning. Everything else derives from here.

`fmt` names the operand fields (see FORMATS); `kind` names the handler template, `op` the element meaning it is specialised with;
`cls` is the timing class. Regular families (integer register pairs, the vector categories) are generated from compact tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from rvgpu.isa.classes import timing_class

# operand fields of each format, in assembly order: every bit that a row's mask leaves free is a bit of one of them
# (but fm, rd and rs1 of `fence`, and all of `fence.i`: whatever they hold, the specification wants a plain fence)
FORMATS: dict[str, tuple[str, ...]] = {
    "r": ("xd", "x1", "x2"), "i": ("xd", "x1", "imm_i"), "sh6": ("xd", "x1", "shamt6"), "sh5": ("xd", "x1", "shamt5"), "u1": ("xd", "x1"),
    "u": ("xd", "imm_u"), "j": ("xd", "imm_j"), "b": ("x1", "x2", "imm_b"), "load": ("xd", "imm_i", "x1"), "store": ("x2", "imm_s", "x1"),
    "fload": ("fd", "imm_i", "x1"), "fstore": ("f2", "imm_s", "x1"), "amo": ("aqrl", "xd", "x2", "x1"), "lr": ("aqrl", "xd", "x1"), "none": (),
    "fence": ("pred", "succ"), "csr": ("xd", "csr", "x1"), "csri": ("xd", "csr", "uimm"), "fr": ("fd", "f1", "f2", "rm"), "fr0": ("fd", "f1", "f2"),
    "fr4": ("fd", "f1", "f2", "f3", "rm"), "fr1": ("fd", "f1", "rm"), "fcmp": ("xd", "f1", "f2"), "xf": ("xd", "f1", "rm"), "xf0": ("xd", "f1"),
    "fx": ("fd", "x1", "rm"), "fx0": ("fd", "x1"),
    "vsetvli": ("xd", "x1", "zimm11"), "vsetivli": ("xd", "uimm", "zimm10"), "vsetvl": ("xd", "x1", "x2"),
    "vv": ("vd", "v2", "v1", "vm"), "vx": ("vd", "v2", "x1", "vm"), "vi": ("vd", "v2", "simm5", "vm"), "vu": ("vd", "v2", "uimm5", "vm"),
    "vf": ("vd", "v2", "f1", "vm"), "mm": ("vd", "v2", "v1"), "v2": ("vd", "v2", "vm"), "vd": ("vd", "vm"),
    "vvm": ("vd", "v2", "v1", "v0"), "vxm": ("vd", "v2", "x1", "v0"), "vim": ("vd", "v2", "simm5", "v0"), "vfm": ("vd", "v2", "f1", "v0"),
    "mx": ("vd", "v2", "x1"), "mi": ("vd", "v2", "simm5"),
    "vmac_v": ("vd", "v1", "v2", "vm"), "vmac_x": ("vd", "x1", "v2", "vm"), "vmac_f": ("vd", "f1", "v2", "vm"),
    "v1d": ("vd", "v1"), "x1d": ("vd", "x1"), "i1d": ("vd", "simm5"), "f1d": ("vd", "f1"), "xv": ("xd", "v2"), "xvm": ("xd", "v2", "vm"),
    "fv": ("fd", "v2"), "vload": ("vd", "x1", "vm"), "vwhole": ("vd", "x1"),
    "vloads": ("vd", "x1", "x2", "vm"), "vloadx": ("vd", "x1", "v2", "vm"), "vr": ("vd", "v2"),
    "tload": ("x2", "x1"), "xx": ("xd", "x1"), "tmv_vt": ("vd", "x1"), "tmv_tv": ("x1", "v2"), "mtd": ("mtd",), "mma": ("mt", "v2", "v1"),
    "mma2": ("mt2", "v2", "v1"),
    "prefetch": ("imm_p", "x1"),
}


@dataclass(frozen=True)
class Row:
    name: str
    match: int
    mask: int
    fmt: str
    kind: str
    op: str = ""
    cls: str = "alu"
    args: dict[str, int] = field(default_factory=dict, hash=False)  # constants of the template (sizes, flags)


ROWS: list[Row] = []


def row(name: str, match: int, mask: int, fmt: str, kind: str, op: str = "", cls: str = "", **args: int) -> None:
    """The timing class of a vector instruction follows from its name (isa/classes.py); of others without one: the integer unit."""
    ROWS.append(Row(name, match, mask, fmt, kind, op, timing_class(name) or cls or ("vint" if match & 0x7F == 0x57 else "alu"), args))


R, F3 = 0xFE00707F, 0x707F


def _scalar() -> None:
    muls, divs = {"mul", "mulh", "mulhsu", "mulhu", "mulw"}, {"div", "divu", "rem", "remu", "divw", "divuw", "remw", "remuw"}
    table = {
        0x33: "add 0 0,sub 20 0,sll 0 1,slt 0 2,sltu 0 3,xor 0 4,srl 0 5,sra 20 5,or 0 6,and 0 7,mul 1 0,mulh 1 1,mulhsu 1 2,mulhu 1 3,"
              "div 1 4,divu 1 5,rem 1 6,remu 1 7,sh1add 10 2,sh2add 10 4,sh3add 10 6,andn 20 7,orn 20 6,xnor 20 4,min 5 4,minu 5 5,max 5 6,"
              "maxu 5 7,rol 30 1,ror 30 5,bclr 24 1,bext 24 5,binv 34 1,bset 14 1",
        0x3B: "addw 0 0,subw 20 0,sllw 0 1,srlw 0 5,sraw 20 5,mulw 1 0,divw 1 4,divuw 1 5,remw 1 6,remuw 1 7,add.uw 4 0,sh1add.uw 10 2,"
              "sh2add.uw 10 4,sh3add.uw 10 6,rolw 30 1,rorw 30 5"}
    for opcode, text in table.items():
        for entry in text.split(","):
            name, f7_text, f3_text = entry.split()
            cls = "mul" if name in muls else "div" if name in divs else "alu"
            row(name, opcode | int(f3_text) << 12 | int(f7_text, 16) << 25, R, "r", "alu_rr", name.replace(".", "_"), cls)
    for name, f3 in (("addi", 0), ("slti", 2), ("sltiu", 3), ("xori", 4), ("ori", 6), ("andi", 7)):
        row(name, 0x13 | f3 << 12, F3, "i", "alu_ri", name[:-1] if name != "sltiu" else "sltu")
    row("addiw", 0x1B, F3, "i", "alu_ri", "addw")
    for name, f6, f3 in (("slli", 0, 1), ("srli", 0, 5), ("srai", 0x10, 5), ("bclri", 0x12, 1), ("bexti", 0x12, 5), ("binvi", 0x1A, 1),
                         ("bseti", 0x0A, 1), ("rori", 0x18, 5)):
        row(name, 0x13 | f3 << 12 | f6 << 26, 0xFC00707F, "sh6", "alu_ri", name[:-1])
    row("slli.uw", 0x1B | 1 << 12 | 0x02 << 26, 0xFC00707F, "sh6", "alu_ri", "slli_uw")
    for name, f7, f3 in (("slliw", 0, 1), ("srliw", 0, 5), ("sraiw", 0x20, 5), ("roriw", 0x30, 5)):
        row(name, 0x1B | f3 << 12 | f7 << 25, R, "sh5", "alu_ri", name.replace("i", "", 1))
    for name, opcode, f3, imm in (("clz", 0x13, 1, 0x600), ("ctz", 0x13, 1, 0x601), ("cpop", 0x13, 1, 0x602), ("sext.b", 0x13, 1, 0x604),
                                  ("sext.h", 0x13, 1, 0x605), ("rev8", 0x13, 5, 0x6B8), ("orc.b", 0x13, 5, 0x287), ("clzw", 0x1B, 1, 0x600),
                                  ("ctzw", 0x1B, 1, 0x601), ("cpopw", 0x1B, 1, 0x602), ("zext.h", 0x3B, 4, 0x080)):
        row(name, opcode | f3 << 12 | imm << 20, 0xFFF0707F, "u1", "alu_r", name.replace(".", "_"))
    row("lui", 0x37, 0x7F, "u", "lui")
    row("auipc", 0x17, 0x7F, "u", "auipc")
    row("jal", 0x6F, 0x7F, "j", "jal", cls="jump")
    row("jalr", 0x67, F3, "i", "jalr", cls="jump")
    for n, name in enumerate(("beq", "bne", "", "", "blt", "bge", "bltu", "bgeu")):
        if name:
            row(name, 0x63 | n << 12, F3, "b", "branch", name, "branch")
    for n, name in enumerate(("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu")):
        row(name, 0x03 | n << 12, F3, "load", "load", cls="load", SIZE=1 << (n & 3), SIGNED=int(n < 4))
    for n, name in enumerate(("sb", "sh", "sw", "sd")):
        row(name, 0x23 | n << 12, F3, "store", "store", cls="store", SIZE=1 << n)
    row("fence", 0x0F, F3, "fence", "fence")
    row("fence.tso", 0x8330000F, 0xFFFFFFFF, "none", "fence")
    row("pause", 0x0100000F, 0xFFFFFFFF, "none", "nop")
    row("ecall", 0x73, 0xFFFFFFFF, "none", "exception", BREAK=0)
    row("ebreak", 0x00100073, 0xFFFFFFFF, "none", "exception", BREAK=1)
    row("mret", 0x30200073, 0xFFFFFFFF, "none", "mret", cls="jump")
    row("wfi", 0x10500073, 0xFFFFFFFF, "none", "wfi")
    row("fence.i", 0x100F, F3, "none", "fence_i")
    for n, name in ((1, "csrrw"), (2, "csrrs"), (3, "csrrc")):
        row(name, 0x73 | n << 12, F3, "csr", "csr", cls="csr", MODE=n, IMM=0)
        row(name + "i", 0x73 | (n + 4) << 12, F3, "csri", "csr", cls="csr", MODE=n, IMM=1)
    for name, f5 in (("amoadd", 0), ("amoswap", 1), ("amoxor", 4), ("amoor", 8), ("amoand", 12), ("amomin", 16), ("amomax", 20),
                     ("amominu", 24), ("amomaxu", 28)):
        for f3, suffix in ((2, "w"), (3, "d")):
            row(f"{name}.{suffix}", 0x2F | f3 << 12 | f5 << 27, 0xF800707F, "amo", "amo", name, "amo", SIZE=1 << f3)
    for f3, suffix in ((2, "w"), (3, "d")):
        row(f"lr.{suffix}", 0x1000002F | f3 << 12, 0xF9F0707F, "lr", "lr", cls="amo", SIZE=1 << f3)
        row(f"sc.{suffix}", 0x1800002F | f3 << 12, 0xF800707F, "amo", "sc", cls="amo", SIZE=1 << f3)
    for name, imm in (("prefetch.i", 0), ("prefetch.r", 1), ("prefetch.w", 3)):
        row(name, 0x6013 | imm << 20, 0x01F07FFF, "prefetch", "nop")


def _float() -> None:
    for f3, s, w in ((1, "h", 16), (2, "w", 32), (3, "d", 64)):
        row(f"fl{s}", 0x07 | f3 << 12, F3, "fload", "fload", cls="load", SIZE=w // 8)
        row(f"fs{s}", 0x27 | f3 << 12, F3, "fstore", "fstore", cls="store", SIZE=w // 8)
    for f, s, w in ((0, "s", 32), (1, "d", 64), (2, "h", 16)):
        top = f << 25
        for n, name in enumerate(("fmadd", "fmsub", "fnmsub", "fnmadd")):
            row(f"{name}.{s}", 0x43 | n << 2 | top, 0x0600007F, "fr4", "fma", name, "fp", W=w)
        for name, f5 in (("fadd", 0), ("fsub", 1), ("fmul", 2), ("fdiv", 3)):
            row(f"{name}.{s}", 0x53 | f5 << 27 | top, 0xFE00007F, "fr", "fp2", name, "fdiv" if name == "fdiv" else "fp", W=w)
        row(f"fsqrt.{s}", 0x53 | 0x0B << 27 | top, 0xFFF0007F, "fr1", "fsqrt", cls="fdiv", W=w)
        for n, name in enumerate(("fsgnj", "fsgnjn", "fsgnjx")):
            row(f"{name}.{s}", 0x53 | 4 << 27 | top | n << 12, R, "fr0", "fp2", name, "fp", W=w)
        for n, name in enumerate(("fmin", "fmax")):
            row(f"{name}.{s}", 0x53 | 5 << 27 | top | n << 12, R, "fr0", "fp2", name, "fp", W=w)
        for n, name in enumerate(("fle", "flt", "feq")):
            row(f"{name}.{s}", 0x53 | 0x14 << 27 | top | n << 12, R, "fcmp", "fcmp", name, "fp", W=w)
        row(f"fclass.{s}", 0x53 | 0x1C << 27 | top | 1 << 12, 0xFFF0707F, "xf0", "fclass", cls="fp", W=w)
        for n, (i, iw, sg) in enumerate((("w", 32, 1), ("wu", 32, 0), ("l", 64, 1), ("lu", 64, 0))):
            row(f"fcvt.{i}.{s}", 0x53 | 0x18 << 27 | top | n << 20, 0xFFF0007F, "xf", "fcvt_xf", cls="fp", W=w, IW=iw, SIGNED=sg)
            row(f"fcvt.{s}.{i}", 0x53 | 0x1A << 27 | top | n << 20, 0xFFF0007F, "fx", "fcvt_fx", cls="fp", W=w, IW=iw, SIGNED=sg)
        row(f"fmv.x.{ {'s': 'w'}.get(s, s)}", 0x53 | 0x1C << 27 | top, 0xFFF0707F, "xf0", "fmv_xf", cls="fp", W=w)
        row(f"fmv.{ {'s': 'w'}.get(s, s)}.x", 0x53 | 0x1E << 27 | top, 0xFFF0707F, "fx0", "fmv_fx", cls="fp", W=w)
    for name, f, rs2, src, dst in (("fcvt.s.d", 0, 1, 64, 32), ("fcvt.d.s", 1, 0, 32, 64), ("fcvt.s.h", 0, 2, 16, 32), ("fcvt.h.s", 2, 0, 32, 16),
                                   ("fcvt.d.h", 1, 2, 16, 64), ("fcvt.h.d", 2, 1, 64, 16), ("fcvt.s.bf16", 0, 6, -16, 32),
                                   ("fcvt.bf16.s", 2, 8, 32, -16)):
        row(name, 0x53 | 8 << 27 | f << 25 | rs2 << 20, 0xFFF0007F, "fr1", "fcvt_ff", cls="fp", SRC=src, W=dst)


VV, VX, VI = 0, 4, 3  # OPIVV, OPIVX, OPIVI
FVV, MVV, FVF, MVX = 1, 2, 5, 6
V = 0xFC00707F


def _v(name: str, f6: int, cat: int, fmt: str, kind: str, op: str = "", cls: str = "vint", **args: int) -> None:
    row(name, 0x57 | cat << 12 | f6 << 26, V, fmt, kind, op, cls, **args)


def _vector_int() -> None:
    # name, funct6, which of vv vx vi, unsigned immediate
    for name, f6, cats, uns in (("vadd", 0, "vxi", 0), ("vsub", 2, "vx", 0), ("vrsub", 3, "xi", 0), ("vminu", 4, "vx", 0), ("vmin", 5, "vx", 0),
                                ("vmaxu", 6, "vx", 0), ("vmax", 7, "vx", 0), ("vand", 9, "vxi", 0), ("vor", 10, "vxi", 0),
                                ("vxor", 11, "vxi", 0), ("vsll", 0x25, "vxi", 1), ("vsrl", 0x28, "vxi", 1), ("vsra", 0x29, "vxi", 1)):
        for c in cats:
            _v(f"{name}.v{c}", f6, {"v": VV, "x": VX, "i": VI}[c], {"v": "vv", "x": "vx", "i": "vu" if uns else "vi"}[c], f"v_v{c}", name)
    for name, f6, cats in (("vmseq", 0x18, "vxi"), ("vmsne", 0x19, "vxi"), ("vmsltu", 0x1A, "vx"), ("vmslt", 0x1B, "vx"), ("vmsleu", 0x1C, "vxi"),
                           ("vmsle", 0x1D, "vxi"), ("vmsgtu", 0x1E, "xi"), ("vmsgt", 0x1F, "xi")):
        for c in cats:
            _v(f"{name}.v{c}", f6, {"v": VV, "x": VX, "i": VI}[c], f"v{c}", f"vcmp_v{c}", name)
    for c, cat in (("v", VV), ("x", VX), ("i", VI)):
        row(f"vmerge.v{c}m", 0x57 | cat << 12 | 0x17 << 26, V | 1 << 25, f"v{c}m", f"vmerge_v{c}")
        row(f"vmv.v.{c}", 0x57 | cat << 12 | 0x17 << 26 | 1 << 25, V | 1 << 25 | 0x1F << 20, f"{c}1d", f"vmv_v{c}")
    for name, f6, op in (("vmul", 0x25, "vmul"), ("vmulh", 0x27, "vmulh"), ("vmulhu", 0x24, "vmulhu"), ("vmulhsu", 0x26, "vmulhsu"),
                         ("vdivu", 0x20, "vdivu"), ("vdiv", 0x21, "vdiv"), ("vremu", 0x22, "vremu"), ("vrem", 0x23, "vrem")):
        for c, cat in (("v", MVV), ("x", MVX)):
            _v(f"{name}.v{c}", f6, cat, f"v{c}", f"v_v{c}", op, "vmul" if "mul" in name else "vdiv")
    for name, f6 in (("vmacc", 0x2D), ("vnmsac", 0x2F), ("vmadd", 0x29), ("vnmsub", 0x2B)):
        _v(f"{name}.vv", f6, MVV, "vmac_v", "vmac_vv", name, "vmul")
        _v(f"{name}.vx", f6, MVX, "vmac_x", "vmac_vx", name, "vmul")
    for name, f6, kind in (("vnsrl", 0x2C, "vnarrow"), ("vnsra", 0x2D, "vnarrow"), ("vnclipu", 0x2E, "vclip"), ("vnclip", 0x2F, "vclip")):
        for c, cat, fmt in (("v", VV, "vv"), ("x", VX, "vx"), ("i", VI, "vu")):
            _v(f"{name}.w{c}", f6, cat, fmt, f"{kind}_w{c}", name)
    for name, f6 in (("vwaddu", 0x30), ("vwadd", 0x31), ("vwsubu", 0x32), ("vwsub", 0x33), ("vwmulu", 0x38), ("vwmulsu", 0x3A), ("vwmul", 0x3B)):
        for c, cat in (("v", MVV), ("x", MVX)):
            op, cls = f"v{name[2:5]}", "vmul" if "mul" in name else "vint"
            signs = {"SIGNED": int(name == "vwmulsu" or not name.endswith("u")), "BSIGNED": int(not name.endswith("u"))}
            _v(f"{name}.v{c}", f6, cat, f"v{c}", f"vwiden_v{c}", op, cls, **signs)
            if "mul" not in name:
                _v(f"{name}.w{c}", f6 + 4, cat, f"v{c}", f"vwide2_w{c}", op, cls, **signs)
    for name, f6, cats, signed, other in (("vwmaccu", 0x3C, "vx", 0, 0), ("vwmacc", 0x3D, "vx", 1, 1), ("vwmaccus", 0x3E, "x", 1, 0),
                                          ("vwmaccsu", 0x3F, "vx", 0, 1)):
        for c in cats:
            _v(f"{name}.v{c}", f6, MVV if c == "v" else MVX, f"vmac_{c}", f"vwmac_v{c}", "vmacc", "vmul", SIGNED=signed, BSIGNED=other)
    for name, f6, cats in (("vqdotu", 0x28, "vx"), ("vqdotsu", 0x2A, "vx"), ("vqdot", 0x2C, "vx"), ("vqdotus", 0x2E, "x")):
        for c in cats:
            _v(f"{name}.v{c}", f6, MVV if c == "v" else MVX, f"v{c}", f"vmac_v{c}", name, "vmul")
    for n, (name, div) in enumerate((("vzext.vf8", 8), ("vsext.vf8", 8), ("vzext.vf4", 4), ("vsext.vf4", 4), ("vzext.vf2", 2), ("vsext.vf2", 2))):
        row(name, 0x57 | MVV << 12 | 0x12 << 26 | (n + 2) << 15, V | 0x1F << 15, "v2", "vext", DIV=div, SIGNED=n & 1)
    for n, name in enumerate(("vredsum", "vredand", "vredor", "vredxor", "vredminu", "vredmin", "vredmaxu", "vredmax")):
        _v(f"{name}.vs", n, MVV, "vv", "vred", name, "vred")
    for n, name in enumerate(("vwredsumu", "vwredsum")):
        _v(f"{name}.vs", 0x30 + n, VV, "vv", "vwred", "vredsum", "vred", SIGNED=n)
    for n, name in enumerate(("vmandn", "vmand", "vmor", "vmxor", "vmorn", "vmnand", "vmnor", "vmxnor")):
        row(f"{name}.mm", 0x57 | MVV << 12 | (0x18 + n) << 26 | 1 << 25, V | 1 << 25, "mm", "vmask", name, "vmask")
    row("vmv.x.s", 0x57 | MVV << 12 | 0x10 << 26 | 1 << 25, V | 0x3F << 15 & ~(0x1F << 20) | 1 << 25 | 0x1F << 15, "xv", "vmv_xs", cls="vmove_x")
    row("vcpop.m", 0x57 | MVV << 12 | 0x10 << 26 | 0x10 << 15, V | 0x1F << 15, "xvm", "vcpop", cls="vmove_x")
    row("vfirst.m", 0x57 | MVV << 12 | 0x10 << 26 | 0x11 << 15, V | 0x1F << 15, "xvm", "vfirst", cls="vmove_x")
    row("vmv.s.x", 0x57 | MVX << 12 | 0x10 << 26 | 1 << 25, V | 1 << 25 | 0x1F << 20, "x1d", "vmv_sx")
    row("vid.v", 0x57 | MVV << 12 | 0x14 << 26 | 0x11 << 15, V | 0x1F << 15 | 0x1F << 20, "vd", "vid")
    row("viota.m", 0x57 | MVV << 12 | 0x14 << 26 | 0x10 << 15, V | 0x1F << 15, "v2", "viota", cls="vred")
    for name, f6, up in (("vslideup", 0x0E, 1), ("vslidedown", 0x0F, 0)):
        for c, cat, fmt in (("x", VX, "vx"), ("i", VI, "vu")):
            _v(f"{name}.v{c}", f6, cat, fmt, f"vslide_v{c}", cls="vslide", UP=up)
    for name, f6, up in (("vslide1up", 0x0E, 1), ("vslide1down", 0x0F, 0)):
        _v(f"{name}.vx", f6, MVX, "vx", "vslide1_vx", cls="vslide", UP=up)
    for n, name in ((1, "vmsbf.m"), (2, "vmsof.m"), (3, "vmsif.m")):
        row(name, 0x57 | MVV << 12 | 0x14 << 26 | n << 15, V | 0x1F << 15, "v2", "vmset", cls="vred", BEFORE=int(n != 2), AT=int(n != 1))
    _v("vrgather.vv", 0x0C, VV, "vv", "vrgather_vv", cls="vgather")
    _v("vrgather.vx", 0x0C, VX, "vx", "vrgather_vx", cls="vgather")
    _v("vrgather.vi", 0x0C, VI, "vu", "vrgather_vi", cls="vgather")
    _v("vrgatherei16.vv", 0x0E, VV, "vv", "vrgatherei16_vv", cls="vgather")
    row("vcompress.vm", 0x57 | MVV << 12 | 0x17 << 26 | 1 << 25, V | 1 << 25, "mm", "vcompress", cls="vgather")
    for n in (1, 2, 4, 8):
        row(f"vmv{n}r.v", 0x57 | VI << 12 | 0x27 << 26 | 1 << 25 | (n - 1) << 15, V | 1 << 25 | 0x1F << 15, "vr", "vmvr", N=n)


def _vector_fixed() -> None:
    for name, f6, cats, uns in (("vsaddu", 0x20, "vxi", 0), ("vsadd", 0x21, "vxi", 0), ("vssubu", 0x22, "vx", 0), ("vssub", 0x23, "vx", 0),
                                ("vsmul", 0x27, "vx", 0), ("vssrl", 0x2A, "vxi", 1), ("vssra", 0x2B, "vxi", 1)):
        for c in cats:
            _v(f"{name}.v{c}", f6, {"v": VV, "x": VX, "i": VI}[c], "vu" if c == "i" and uns else f"v{c}", f"vfix_v{c}", name,
               "vmul" if name == "vsmul" else "vint")
    for n, name in enumerate(("vaaddu", "vaadd", "vasubu", "vasub")):
        for c, cat in (("v", MVV), ("x", MVX)):
            _v(f"{name}.v{c}", 8 + n, cat, f"v{c}", f"vfix_v{c}", name)
    for name, f6, cats in (("vadc", 0x10, "vxi"), ("vmadc", 0x11, "vxi"), ("vsbc", 0x12, "vx"), ("vmsbc", 0x13, "vx")):
        for c in cats:
            match = 0x57 | {"v": VV, "x": VX, "i": VI}[c] << 12 | f6 << 26
            row(f"{name}.v{c}m", match, V | 1 << 25, f"v{c}m", f"{'vmadc' if 'm' in name else 'vadc'}_v{c}", name)
            if "m" in name:
                row(f"{name}.v{c}", match | 1 << 25, V | 1 << 25, "mm" if c == "v" else f"m{c}", f"vmadc_v{c}", name)


def _vector_float() -> None:
    for name, f6, cats in (("vfadd", 0, "vf"), ("vfsub", 2, "vf"), ("vfrsub", 0x27, "f"), ("vfmin", 4, "vf"), ("vfmax", 6, "vf"), ("vfsgnj", 8, "vf"),
                           ("vfsgnjn", 9, "vf"), ("vfsgnjx", 10, "vf"), ("vfmul", 0x24, "vf"), ("vfdiv", 0x20, "vf"), ("vfrdiv", 0x21, "f")):
        for c in cats:
            _v(f"{name}.v{c}", f6, FVV if c == "v" else FVF, f"v{c}", f"v_v{'v' if c == 'v' else 'f'}", name,
               "vfdiv" if "div" in name else "vfp", FP=1)
    for name, f6 in (("vfmadd", 0x28), ("vfnmadd", 0x29), ("vfmsub", 0x2A), ("vfnmsub", 0x2B), ("vfmacc", 0x2C), ("vfnmacc", 0x2D), ("vfmsac", 0x2E),
                     ("vfnmsac", 0x2F)):
        _v(f"{name}.vv", f6, FVV, "vmac_v", "vmac_vv", name, "vfp", FP=1)
        _v(f"{name}.vf", f6, FVF, "vmac_f", "vmac_vf", name, "vfp", FP=1)
    for name, f6, cats in (("vmfeq", 0x18, "vf"), ("vmfle", 0x19, "vf"), ("vmflt", 0x1B, "vf"), ("vmfne", 0x1C, "vf"), ("vmfgt", 0x1D, "f"),
                           ("vmfge", 0x1F, "f")):
        for c in cats:
            _v(f"{name}.v{c}", f6, FVV if c == "v" else FVF, f"v{c}", f"vcmp_v{'v' if c == 'v' else 'f'}", name, FP=1)
    row("vfmerge.vfm", 0x57 | FVF << 12 | 0x17 << 26, V | 1 << 25, "vfm", "vmerge_vf", FP=1)
    row("vfmv.v.f", 0x57 | FVF << 12 | 0x17 << 26 | 1 << 25, V | 1 << 25 | 0x1F << 20, "f1d", "vmv_vf", FP=1)
    row("vfmv.f.s", 0x57 | FVV << 12 | 0x10 << 26 | 1 << 25, V | 1 << 25 | 0x1F << 15, "fv", "vfmv_fs", cls="vmove_x", FP=1)
    row("vfmv.s.f", 0x57 | FVF << 12 | 0x10 << 26 | 1 << 25, V | 1 << 25 | 0x1F << 20, "f1d", "vfmv_sf", FP=1)
    for n, name, kind, cls in ((0, "vfsqrt", "vunary", "vfdiv"), (4, "vfrsqrt7", "vunary", "vfp"), (5, "vfrec7", "vunary_rm", "vfp"),
                               (16, "vfclass", "vunary", "vfp")):
        row(f"{name}.v", 0x57 | FVV << 12 | 0x13 << 26 | n << 15, V | 0x1F << 15, "v2", kind, name, cls, FP=1)
    for name, f6 in (("vfwadd", 0x30), ("vfwsub", 0x32), ("vfwmul", 0x38)):
        for c, cat in (("v", FVV), ("f", FVF)):
            _v(f"{name}.v{c}", f6, cat, f"v{c}", f"vfwiden_v{c}", f"vf{name[3:]}", "vfp", FP=1)
            if name != "vfwmul":
                _v(f"{name}.w{c}", f6 + 4, cat, f"v{c}", f"vfwide2_w{c}", f"vf{name[3:]}", "vfp", FP=1)
    for name, f6 in (("vfwmacc", 0x3C), ("vfwnmacc", 0x3D), ("vfwmsac", 0x3E), ("vfwnmsac", 0x3F)):
        for c, cat in (("v", FVV), ("f", FVF)):
            _v(f"{name}.v{c}", f6, cat, f"vmac_{c}", f"vfwmac_v{c}", f"vf{name[3:]}", "vfp", FP=1)
    for name, f6 in (("vfwredusum", 0x31), ("vfwredosum", 0x33)):
        _v(f"{name}.vs", f6, FVV, "vv", "vfwred", name.replace("w", ""), "vfred", FP=1, ORDERED=int(name == "vfwredosum"))
    for name, n, kind, args in (
            ("vfcvt.xu.f.v", 0, "vcvt_fi", {"SIGNED": 0, "RM": 0}), ("vfcvt.x.f.v", 1, "vcvt_fi", {"SIGNED": 1, "RM": 0}),
            ("vfcvt.f.xu.v", 2, "vcvt_if", {"SIGNED": 0}), ("vfcvt.f.x.v", 3, "vcvt_if", {"SIGNED": 1}),
            ("vfcvt.rtz.xu.f.v", 6, "vcvt_fi", {"SIGNED": 0, "RM": 1}), ("vfcvt.rtz.x.f.v", 7, "vcvt_fi", {"SIGNED": 1, "RM": 1}),
            ("vfwcvt.f.f.v", 12, "vwcvt_ff", {"BF": 0}), ("vfwcvtbf16.f.f.v", 13, "vwcvt_ff", {"BF": 1}),
            ("vfncvt.f.f.w", 20, "vncvt_ff", {"BF": 0}), ("vfncvtbf16.f.f.w", 29, "vncvt_ff", {"BF": 1}),
            ("vfwcvt.xu.f.v", 8, "vwcvt_fi", {"SIGNED": 0, "RM": 0}), ("vfwcvt.x.f.v", 9, "vwcvt_fi", {"SIGNED": 1, "RM": 0}),
            ("vfwcvt.f.xu.v", 10, "vwcvt_if", {"SIGNED": 0}), ("vfwcvt.f.x.v", 11, "vwcvt_if", {"SIGNED": 1}),
            ("vfwcvt.rtz.xu.f.v", 14, "vwcvt_fi", {"SIGNED": 0, "RM": 1}), ("vfwcvt.rtz.x.f.v", 15, "vwcvt_fi", {"SIGNED": 1, "RM": 1}),
            ("vfncvt.xu.f.w", 16, "vncvt_fi", {"SIGNED": 0, "RM": 0}), ("vfncvt.x.f.w", 17, "vncvt_fi", {"SIGNED": 1, "RM": 0}),
            ("vfncvt.f.xu.w", 18, "vncvt_if", {"SIGNED": 0}), ("vfncvt.f.x.w", 19, "vncvt_if", {"SIGNED": 1}),
            ("vfncvt.rod.f.f.w", 21, "vncvt_odd", {}), ("vfncvt.rtz.xu.f.w", 22, "vncvt_fi", {"SIGNED": 0, "RM": 1}),
            ("vfncvt.rtz.x.f.w", 23, "vncvt_fi", {"SIGNED": 1, "RM": 1})):
        row(name, 0x57 | FVV << 12 | 0x12 << 26 | n << 15, V | 0x1F << 15, "v2", kind, "vfncvt_odd" if n == 21 else "", "vcvt", FP=1, **args)
    for name, f6 in (("vfredusum", 1), ("vfredosum", 3), ("vfredmin", 5), ("vfredmax", 7)):
        _v(f"{name}.vs", f6, FVV, "vv", "vred", name, "vfred", FP=1, ORDERED=int(name == "vfredosum"))
    row("vfslide1down.vf", 0x57 | FVF << 12 | 0x0F << 26, V, "vf", "vslide1_vf", cls="vslide", UP=0, FP=1)
    row("vfslide1up.vf", 0x57 | FVF << 12 | 0x0E << 26, V, "vf", "vslide1_vf", cls="vslide", UP=1, FP=1)
    _v("vfwmaccbf16.vv", 0x3B, FVV, "vmac_v", "vwmaccbf_vv", cls="vfp", FP=1)
    _v("vfwmaccbf16.vf", 0x3B, FVF, "vmac_f", "vwmaccbf_vf", cls="vfp", FP=1)
    row("sf.vfexp.v", 0x57 | FVV << 12 | 0x13 << 26 | 7 << 15, V | 0x1F << 15, "v2", "vunary", "vfexp", "vexp", FP=1)


def _vector_memory() -> None:
    for f3, w in ((0, 8), (5, 16), (6, 32), (7, 64)):
        for op, s, cls in ((0x07, "l", "vload"), (0x27, "s", "vstore")):
            kind = "vload" if s == "l" else "vstore"
            row(f"v{s}e{w}.v", op | f3 << 12, 0xFDF0707F, "vload", f"{kind}_unit", cls=cls, EEW=w)
            row(f"v{s}se{w}.v", op | f3 << 12 | 2 << 26, 0xFC00707F, "vloads", f"{kind}_strided", cls=cls, EEW=w)
            row(f"v{s}uxei{w}.v", op | f3 << 12 | 1 << 26, 0xFC00707F, "vloadx", f"{kind}_indexed", cls=cls, EEW=w)
            row(f"v{s}oxei{w}.v", op | f3 << 12 | 3 << 26, 0xFC00707F, "vloadx", f"{kind}_indexed", cls=cls, EEW=w)
        row(f"vle{w}ff.v", 0x07 | f3 << 12 | 16 << 20, 0xFDF0707F, "vload", "vload_ff", cls="vload", EEW=w)
        for n in (1, 2, 4, 8):
            row(f"vl{n}re{w}.v", 0x07 | f3 << 12 | 1 << 25 | 8 << 20 | (n - 1) << 29, 0xFFF0707F, "vwhole", "vload_whole", cls="vload", N=n, EEW=w)
    for n in (1, 2, 4, 8):
        row(f"vs{n}r.v", 0x27 | 1 << 25 | 8 << 20 | (n - 1) << 29, 0xFFF0707F, "vwhole", "vstore_whole", cls="vstore", N=n, EEW=8)
    row("vlm.v", 0x07 | 1 << 25 | 11 << 20, 0xFFF0707F, "vwhole", "vload_mask", cls="vload", EEW=8)
    row("vsm.v", 0x27 | 1 << 25 | 11 << 20, 0xFFF0707F, "vwhole", "vstore_mask", cls="vstore", EEW=8)


def _segments() -> None:
    for nf, (f3, w), (op, s) in product(range(2, 9), ((0, 8), (5, 16), (6, 32), (7, 64)), ((0x07, "l"), (0x27, "s"))):
        match, way = op | f3 << 12 | (nf - 1) << 29, "load" if s == "l" else "store"
        for name, more, mask, fmt, shape in ((f"v{s}seg{nf}e{w}.v", 0, 0xFDF0707F, "vload", ""), (f"vlseg{nf}e{w}ff.v", 16 << 20, 0xFDF0707F,
                                                                                                  "vload", "_ff"),
                                             (f"v{s}sseg{nf}e{w}.v", 2 << 26, 0xFC00707F, "vloads", "_strided"),
                                             (f"v{s}uxseg{nf}ei{w}.v", 1 << 26, 0xFC00707F, "vloadx", "_indexed"),
                                             (f"v{s}oxseg{nf}ei{w}.v", 3 << 26, 0xFC00707F, "vloadx", "_indexed")):
            if s == "l" or shape != "_ff":
                row(name, match | more, mask, fmt, f"v{way}_segment{shape}", cls=f"v{way}", EEW=w, NF=nf)


def _config_and_matrix() -> None:
    row("vsetvli", 0x7057, 0x8000707F, "vsetvli", "vsetvli", cls="config")
    row("vsetivli", 0xC0007057, 0xC000707F, "vsetivli", "vsetivli", cls="config")
    row("vsetvl", 0x80007057, 0xFE00707F, "vsetvl", "vsetvl", cls="config")
    for n, name in enumerate(("sf.vsettn", "sf.vsettm", "sf.vsettk")):
        row(name, 0x84007057 | n << 20, 0xFFF0707F, "xx", name.replace(".", "_"), cls="config")
    for n, w in enumerate((8, 16, 32, 64)):
        row(f"sf.vlte{w}", 0x12007007 | n << 29, 0xFE007FFF, "tload", "vlte" if w == 32 else "vlte_of", cls="tload", EEW=w)
        row(f"sf.vste{w}", 0x12007027 | n << 29, 0xFE007FFF, "tload", "vste" if w == 32 else "vste_of", cls="tstore", EEW=w)
    row("sf.vtmv.v.t", 0x43F06057, 0xFFF0707F, "tmv_vt", "vtmv_vt", cls="tmove")
    row("sf.vtmv.t.v", 0x5E006057, 0xFE007FFF, "tmv_tv", "vtmv_tv", cls="tmove")
    row("sf.vtzero.t", 0x43E06057, 0xFFFFF0FF, "mtd", "vtzero", cls="tmove")
    row("sf.vtdiscard", 0x43C06057, 0xFFFFFFFF, "none", "nop")
    row("sf.mm.f.f", 0xF2001077, 0xFE0071FF, "mma2", "mm_ff", cls="mm")
    for a, x in ((0, "u"), (1, "s")):
        for b, y in ((0, "u"), (1, "s")):
            row(f"sf.mm.{'e4m3' if a else 'e5m2'}.{'e4m3' if b else 'e5m2'}", 0xFA001077 | a << 26 | b << 7, 0xFE0073FF, "mma", "mm_f8", cls="mm",
                A_E4M3=a, B_E4M3=b)
            row(f"sf.mm.{x}.{y}", 0xF2000077 | a << 26 | b << 7, 0xFE0073FF, "mma", "mm_ii", cls="mm", AS=a, BS=b)


for _make in (_scalar, _float, _vector_int, _vector_fixed, _vector_float, _vector_memory, _segments, _config_and_matrix):
    _make()
BY_NAME = {r.name: r for r in ROWS}
