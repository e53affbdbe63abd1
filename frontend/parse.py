"""Text to syntax trees: the Lark parser, and errors that name what was written and what to write instead."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvgpu.cache import cache_folder
from rvgpu.errors import Loc, RvgpuError

if TYPE_CHECKING:
    import lark
    from lark import Tree

LOOP = "write whole-tensor math: reductions name their dim (sum(x, over=K))"
INSTEAD = [  # what stands before on the line, what the rest of it starts with, its name, what to write
    ("", r"for\b", "a `for` loop", LOOP),
    ("", r"while\b", "a `while` loop", LOOP),
    ("", r"if\b|elif\b|else\b", "`if`", "use where(condition, a, b)"),
    ("", r"lambda\b", "a lambda", "write a kernel and call it"),
    ("", r"and\b", "`and`", "use & on conditions"),
    ("", r"or\b", "`or`", "use | on conditions"),
    ("", r"not\b", "`not`", "use ~ on conditions"),
    ("", r"None\b", "None", "leave it out"),
    ("", r"(\+|-|\*\*?|//?|%|@|\||&)=", "augmented assignment", "write x = x + ..."),
    (r"\b[fF]$", r"['\"]", "an f-string", "kernels have no strings"),
    ("", r"['\"]", "a string", "kernels have no strings, apart from docstrings"),
    (r"[\w)\]]\s*$", r"\[", "indexing by number", "name dims: slice(x, D, start, P) or split(x, F)"),
    ("", r"\[|\{", "a list, set, dict or comprehension", "write whole-tensor math on dims"),
    (r"[\w)]$", r"\.[A-Za-z_]\w*", "an attribute or method", "call functions: sum(x, over=K), rename(x, S=T)"),
    ("", r"import\b|from\b", "an import", "a .rvg file needs none"),
    ("", r"(class|with|try|assert|raise|global|nonlocal|del|yield|async|await|break|continue)\b", "this statement of Python",
     "kernels hold assignments and one return"),
    ("", r"(<=|>=|==|!=|<|>)", "a chained comparison", "use (a < b) & (b < c)"),
]
NEEDED = [  # the same, then what was needed there
    (r"^\s*def\b.*\)\s*$", r":", "a kernel declares its result", "def f(...) -> f32[M]:"),
    (r"^\s*def\b.*\(([^()]*,)?\s*\w+\s*$", r"[,)=]", "a parameter needs its type", "x: f32[M, N], and scalars behind *: (x: f32[M], *, eps: f32)"),
    (r"=[^()]*$", r"[,)]", "positional arguments stand before those with a name", "sum(x, over=K)"),
    ("", r"\s*$", "the line ends where an expression or `)` is needed", ""),
]


class Misindented(Exception):
    """A line whose indentation is that of no block above: its line and column."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__(line, column)
        self.line, self.column = line, column


@lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    """The LALR parser; its table is cached under the grammar's hash."""
    import lark
    from lark.indenter import DedentError, Indenter

    class Lines(Indenter):
        NL_type = "_NL"
        OPEN_PAREN_types = ["LPAR", "LSQB"]
        CLOSE_PAREN_types = ["RPAR", "RSQB"]
        INDENT_type = "_INDENT"
        DEDENT_type = "_DEDENT"
        tab_len = 8

        def handle_NL(self, token: lark.Token) -> Iterator[lark.Token]:
            try:
                yield from super().handle_NL(token)
            except DedentError:
                raise Misindented(token.end_line or 1, token.end_column or 1) from None

    grammar = (Path(__file__).parent / "rvg.lark").read_text()
    table = cache_folder() / f"grammar-{hashlib.sha256(grammar.encode()).hexdigest()[:16]}-{lark.__version__}-{sys.version_info[1]}"

    def build(cache: Path) -> lark.Lark:
        return lark.Lark(grammar, parser="lalr", postlex=Lines(), propagate_positions=True, maybe_placeholders=True, cache=str(cache))

    if table.exists():
        return build(table)
    own = table.with_name(f"{table.name}.{os.getpid()}")
    made = build(own)
    own.replace(table)
    return made


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
    from lark.exceptions import UnexpectedInput

    text = source.text.replace("\r\n", "\n")
    indented = re.match(r"[ \t]+(?=[^\s#])", text)
    try:
        if indented:
            raise Misindented(1, indented.end() + 1)
        return _parser().parse(text if text.endswith("\n") else text + "\n")
    except Misindented as e:
        raise RvgpuError("E101", "this line is indented as no block above is", source.loc(e.line, e.column)) from None
    except UnexpectedInput as e:
        raise _refused(source, max(1, e.line), max(1, e.column)) from None


def _refused(source: Source, line: int, column: int) -> RvgpuError:
    """E101 for the text at this place."""
    if line > len(source.lines):
        return RvgpuError("E101", "the text ends in the middle of a kernel", source.loc(line, column))
    raw = source.lines[line - 1]
    before, rest = raw[:column - 1], raw[column - 1:]

    def at(width: int) -> Loc:
        return source.loc(line, column, line, column + max(1, width))

    for left, right, what, instead in INSTEAD:
        found = re.match(right, rest)
        if found and re.search(left, before):
            return RvgpuError("E101", f"{what} is not part of the language", at(found.end())).hint(instead)
    for left, right, needed, hint in NEEDED:
        if re.match(right, rest) and re.search(left, before):
            e = RvgpuError("E101", needed, at(1))
            return e.hint(hint) if hint else e
    shown = rest.split()[0]
    return RvgpuError("E101", f"unexpected {shown!r}", at(len(shown)))
