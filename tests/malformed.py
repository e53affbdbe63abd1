"""One process that runs cases of `rvgpu sim` one after the other, so that a crash, a hang or a huge allocation is seen by who sends them.

A case is a line of JSON, the arguments of `main`; the answer is a line of JSON: status, the head of stderr, MiB that the process has used at most.
"""

from __future__ import annotations

import io
import json
import os
import resource
import select
import subprocess
import sys

SECONDS = 60  # for one case, engine included: the machine may be busy
MIB = 1200  # resident, of which the engine takes some 250


class Worker:
    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, args: list[str]) -> tuple[int, str]:
        """(status, head of stderr) of one case; AssertionError when the process crashed, hung or grew beyond all measure."""
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, "-m", "tests.malformed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL)
        p = self.process
        assert p.stdin and p.stdout
        p.stdin.write(json.dumps(args).encode() + b"\n")
        p.stdin.flush()
        line = p.stdout.readline() if select.select([p.stdout], [], [], SECONDS)[0] else None
        if not line:
            p.kill()
            self.process = None
            raise AssertionError(f"no answer in {SECONDS} s" if line is None else f"the process died: {p.wait()}")
        status, said, mib = json.loads(line)
        if mib > MIB:
            p.kill()
            self.process = None
            raise AssertionError(f"{mib} MiB")
        return status, said

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def documented(status: int, said: str) -> bool:
    """A program's end, or an error with one of our codes and its exit status, but never the internal one."""
    head = said.partition("\n")[0]
    if head.startswith("error[") or ": error[" in head:
        return status in (1, 2, 4) and "E900" not in said
    return 0 <= status <= 255 and not said


def main() -> None:
    from rvgpu.cli import main as rvgpu

    out = os.fdopen(os.dup(1), "w")
    sys.stdout = open(os.devnull, "w")
    for line in sys.stdin:
        sys.stderr = io.StringIO()
        try:
            status = rvgpu(json.loads(line))
            said = sys.stderr.getvalue()
            if "\n  exit code    " in said:
                said = ""  # the report
        except SystemExit as e:
            status, said = int(e.code or 0), "error[E002] " + sys.stderr.getvalue()
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps([status, said[:400], mib]), file=out, flush=True)


if __name__ == "__main__":
    main()
