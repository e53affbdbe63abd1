"""The vector operands of each row: how wide their elements are, how many registers they take, and what they may overlap (RVV 1.0, 3.4.2, 5.2, 5.3).

The one description: predecoding (sim/program.py), the check of reserved encodings (sim/operands.py), the generator of random programs
(tests/qemu_judge.py) and docs/isa.md derive from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rvgpu.isa.rows import FORMATS, Row

# kinds of operands. ONE: an x or f register or a tile. A group of elements of SEW, 2 SEW, SEW / arg or arg bits, which takes LMUL registers times
# the ratio of its element width to SEW; arg whole registers; one register with a mask, or with a scalar of SEW or 2 SEW bits; a segment's `fields`
# groups one after the other, of SEW or of arg bits; the rows of a multiply's operand;
# its tile, which for 64-bit elements may have any even number, else a multiple of four.
ONE, GROUP, WIDE, PART, EEW_GROUP, FIXED, MASK, SCALAR, SCALAR_WIDE, FIELDS, FIELDS_EEW, ROWS_OF_MM, TILE_OF_MM = range(13)
KINDS = {ONE: "", GROUP: "SEW", WIDE: "2*SEW", PART: "SEW/{}", EEW_GROUP: "{}", FIXED: "{} registers", MASK: "mask", SCALAR: "SEW scalar",
         SCALAR_WIDE: "2*SEW scalar", FIELDS: "{f} x SEW", FIELDS_EEW: "{f} x {}", ROWS_OF_MM: "rows", TILE_OF_MM: ""}
# what a destination may overlap: a source as 5.2 says (of equal width; lowest part of a wider; highest part of a narrower); no source; anything
BY_WIDTH, APART, ANYTHING = range(3)
OVERLAPS = {BY_WIDTH: "", APART: "overlaps no source", ANYTHING: "may overlap any source"}

# the beginning of a kind -> what differs from "all groups are of SEW, overlap by width"; the longest that fits counts
_D: dict[str, dict[str, int]] = {
    "v": {}, "vred": {"vd": SCALAR, "v1": SCALAR, "overlap": ANYTHING}, "vwred": {"vd": SCALAR_WIDE, "v1": SCALAR_WIDE, "overlap": ANYTHING},
    "vmask": {"vd": MASK, "v2": MASK, "v1": MASK}, "vcompress": {"v1": MASK, "overlap": APART}, "vcpop": {"v2": MASK}, "vfirst": {"v2": MASK},
    "viota": {"v2": MASK, "overlap": APART}, "vmset": {"vd": MASK, "v2": MASK, "overlap": APART}, "vmv_xs": {"v2": SCALAR}, "vmv_sx": {"vd": SCALAR},
    "vcmp": {"vd": MASK}, "vmadc": {"vd": MASK}, "vnarrow": {"v2": WIDE}, "vclip": {"v2": WIDE}, "vncvt": {"v2": WIDE}, "vwiden": {"vd": WIDE},
    "vwcvt": {"vd": WIDE}, "vwmac": {"vd": WIDE}, "vwide2": {"vd": WIDE, "v2": WIDE}, "vmvr": {"vd": FIXED, "v2": FIXED}, "vext": {"v2": PART},
    "vload": {"vd": EEW_GROUP}, "vstore": {"vd": EEW_GROUP}, "vrgather": {"overlap": APART}, "vrgatherei16": {"v1": EEW_GROUP, "overlap": APART},
}
_D |= {f"v{way}_{shape}": what for way in ("load", "store") for shape, what in (
    ("indexed", {"v2": EEW_GROUP}), ("whole", {"vd": FIXED}), ("mask", {"vd": MASK}), ("segment", {"vd": FIELDS_EEW}),
    ("segment_indexed", {"vd": FIELDS, "v2": EEW_GROUP, "overlap": APART}))}
_D |= {f"vf{k[1:]}": v for k, v in _D.items() if k in ("vwred", "vwiden", "vwide2", "vwmac")} | {"vfmv_fs": _D["vmv_xs"], "vfmv_sf": _D["vmv_sx"]}
_D |= {"mm": {"v1": ROWS_OF_MM, "v2": ROWS_OF_MM}, "vtmv": {}}
ACCUMULATES = ("vmac", "vwmac", "vfwmac")  # kinds whose destination is a source too


@dataclass(frozen=True)
class Operands:
    """Vector operands by field: `sources` (a store's data and an accumulator among them; "vm" is the mask v0) and the destination, as
    (field, kind); what `arg` and `fields` of the kinds are; what the destination may overlap."""

    sources: tuple[tuple[str, int], ...]
    dest: tuple[str, int] | None
    arg: int
    fields: int
    overlap: int

    def text(self, kind: int) -> str:
        return KINDS[kind].format(self.arg, f=self.fields)


@cache
def operands(row: Row) -> Operands:
    own = _D.get(max((k for k in _D if row.kind.startswith(k)), key=len, default=""), {})
    sources: list[tuple[str, int]] = []
    dest: tuple[str, int] | None = None
    for f in FORMATS[row.fmt]:
        if f in ("v1", "v2"):
            sources.append((f, own.get(f, GROUP)))
        elif f in ("vm", "v0"):
            sources.append((f, MASK))
        elif f == "vd":
            kind = own.get(f, GROUP)
            if row.kind.startswith("vstore"):
                sources.append((f, kind))
            else:
                dest = f, kind
                sources += [dest] if row.kind.startswith(ACCUMULATES) else []
    arg = next((row.args[n] for n in ("N", "DIV", "EEW") if n in row.args), 16 if row.kind.startswith("vrgatherei16") else 0)
    apart = row.kind.startswith("vslide") and row.args["UP"]
    return Operands(tuple(sources), dest, arg, row.args.get("NF", 1), APART if apart else own.get("overlap", BY_WIDTH))
