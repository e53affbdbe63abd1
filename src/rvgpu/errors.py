"""Locations, the user's errors and did-you-mean. Imports nothing of ours; every part may import it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

EXIT_OK = 0
EXIT_REJECTED = 1
EXIT_USAGE = 2
EXIT_CHECK_FAILED = 3
EXIT_SIM_FAULT = 4
EXIT_INTERNAL = 70


@dataclass(frozen=True)
class Loc:
    """A span in the user's own file: 1-based line and column, `width` columns wide, with the line's text for the caret."""

    file: str
    line: int
    col: int = 1
    width: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


@dataclass(frozen=True)
class Note:
    text: str
    kind: str = "note"  # note | hint


@dataclass
class RvgpuError(Exception):
    """The user's fault: printed as `file:line:col: error[CODE]: message`, source line, caret, notes and hints."""

    code: str
    message: str
    loc: Loc | None = None
    notes: list[Note] = field(default_factory=list)
    exit_code: int = EXIT_REJECTED

    def note(self, text: str) -> RvgpuError:
        self.notes.append(Note(text))
        return self

    def hint(self, text: str) -> RvgpuError:
        self.notes.append(Note(text, "hint"))
        return self

    def render(self) -> str:
        head = f"{self.loc}: " if self.loc else ""
        lines = [f"{head}error[{self.code}]: {self.message}"]
        if self.loc and self.loc.text:
            number = f"{self.loc.line:6d}"
            lines.append(f"{number} | {self.loc.text.rstrip()}")
            lines.append(f"{' ' * len(number)} | {' ' * (self.loc.col - 1)}{'^' * max(1, self.loc.width)}")
        lines += [f"{n.kind}: {n.text}" for n in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The closest known name, or None when nothing is near."""
    best = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return best[0] if best else None
