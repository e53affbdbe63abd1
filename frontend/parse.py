"""Text to syntax trees: the Lark parser, and errors that name what was written and what to write instead."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvgpu.errors import Loc, RvgpuError

if TYPE_CHECKING:
    from lark import Lark, Tree

INSTEAD = [  # what the rest of the line starts with, its name, what to write
    (r"for\b", "a `for` loop", "write whole-tensor math: reductions name their dim (sum(x, over=K))"),
    (r"while\b", "a `while` loop", "write whole-tensor math: reductions name their dim (sum(x, over=K))"),
    (r"if\b|else\b", "`if`", "use where(condition, a, b)"),
    (r"lambda\b", "a lambda", "write a kernel and call it"),
    (r"and\b", "`and`", "use & on conditions"),
    (r"or\b", "`or`", "use | on conditions"),
    (r"not\b", "`not`", "use ~ on conditions"),
    (r"(\+|-|\*|/|//|%|@|\||&)=", "augmented assignment", "write x = x + ..."),
    (r"[fF]['\"]", "an f-string", "kernels have no strings"),
    (r"\[", "indexing by number", "name dims: slice(x, D, start, P), split(x, F) or take(table, ids, along=V)"),
    (r"import\b|from\b", "an import", "a .rvg file needs none"),
    (r"class\b|with\b", "a Python statement that kernels do not have", "kernels hold assignments and one return"),
    (r"(<=|>=|==|!=|<|>)", "a chained comparison", "use (a < b) & (b < c)"),
]


@lru_cache(maxsize=1)
def _parser() -> Lark:
    from lark import Lark
    from lark.indenter import Indenter

    class Lines(Indenter):
        NL_type = "_NL"
        OPEN_PAREN_types = ["LPAR", "LSQB"]
        CLOSE_PAREN_types = ["RPAR", "RSQB"]
        INDENT_type = "_INDENT"
        DEDENT_type = "_DEDENT"
        tab_len = 8

    grammar = (Path(__file__).parent / "rvg.lark").read_text()
    return Lark(grammar, parser="lalr", postlex=Lines(), propagate_positions=True, maybe_placeholders=True)


class Source:
    """A text with the name and first line by which its user knows it."""

    def __init__(self, text: str, file: str, first_line: int = 1, indent: int = 0) -> None:
        self.text, self.file, self.first_line, self.indent = text, file, first_line, indent
        self.lines = text.splitlines()

    def loc(self, line: int, column: int, end_line: int | None = None, end_column: int | None = None) -> Loc:
        raw = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        width = (end_column - column) if end_column and end_line == line else max(1, len(raw) - column + 1)
        return Loc(self.file, line + self.first_line - 1, column + self.indent, max(1, width), " " * self.indent + raw)

    def of(self, node: Any) -> Loc:
        """The location of a tree or token."""
        m = getattr(node, "meta", node)
        if getattr(m, "line", None) is None:
            return self.loc(1, 1)
        return self.loc(m.line, m.column, m.end_line, m.end_column)


def parse(source: Source) -> Tree[Any]:
    """The syntax tree of a file's text; E101 with what to write instead."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    text = source.text.replace("\r\n", "\n")
    try:
        return _parser().parse(text if text.endswith("\n") else text + "\n")
    except UnexpectedInput as e:
        line, column = max(1, e.line), max(1, e.column)
        raw = source.lines[line - 1] if line <= len(source.lines) else ""
        rest = raw[column - 1:]
        for pattern, what, instead in INSTEAD:
            found = re.match(pattern, rest)
            if found:
                loc = source.loc(line, column, line, column + len(found.group(0)))
                raise RvgpuError("E101", f"{what} is not part of the language", loc).hint(instead) from None
        shown = rest.split()[0] if rest.split() else "the end of the line"
        if isinstance(e, (UnexpectedToken, UnexpectedCharacters)):
            raise RvgpuError("E101", f"unexpected {shown!r}" if rest.split() else f"unexpected {shown}",
                             source.loc(line, column, line, column + max(1, len(shown) if rest.split() else 1))) from None
        raise RvgpuError("E101", "the text ends in the middle of a kernel", source.loc(line, column)) from None
