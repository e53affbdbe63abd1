"""The command line. Thin: arguments in, `runtime/commands.py` does the work, errors and exit codes out."""

from __future__ import annotations

import argparse
import errno
import os
import sys

from rvgpu.errors import EXIT_INTERNAL, EXIT_OK, EXIT_SIM_FAULT, EXIT_USAGE, RvgpuError

FILES = {"compile": ".rvg or .py file, - for stdin", "run": ".rvg, .py or .tile file", "opt": "IR text (.tensor or .tile), - for stdin",
         "tune": ".rvg or .py file, - for stdin", "sweep": ".rvg or .py file, - for stdin; or a static executable",
         "sim": "static executable; with a .rvgpu.launch note its kernels are launched", "disasm": "object or ELF"}


def _natural(text: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text} is not an integer of at least 0")
    return int(text)


def _size(text: str) -> int:
    """Bytes: a number, with K, M or G (times 1024) behind it or not."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in ("K", "M", "G") else (text, "")
    if not (number.isascii() and number.isdigit()) or not 0 < (n := int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]) <= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text} is no number of bytes in 1..4G")
    return n


def _machine(q: argparse.ArgumentParser) -> None:
    q.add_argument("--machine", default=os.environ.get("RVGPU_MACHINE", "base"), help="shipped machine or .toml file")
    q.add_argument("--set", action="append", default=[], metavar="section.field=value", help="override a machine field")


def _passes(q: argparse.ArgumentParser) -> None:
    q.add_argument("--passes", metavar="'a,b{x=1}'", help="the passes to run; '+tile{bk=64}' is the whole pipeline with these options")
    q.add_argument("--stop-after", metavar="PASS")
    q.add_argument("--print-after", metavar="PASS|all", help="print the functions after a pass to stderr")
    q.add_argument("--remarks", action="store_true", help="say what was fused, what was not and why, and which tile was chosen")
    q.add_argument("--time-passes", action="store_true")


def _tuning(q: argparse.ArgumentParser) -> None:
    q.add_argument("--tune", choices=["shipped", "model", "search"], help="where tilings come from: the shipped table (then the model), the model "
                   "alone, or measuring them (cached); default: what the kernel says, else shipped")


def _source(q: argparse.ArgumentParser) -> None:
    q.add_argument("--kernel", help="name of the kernel, when the file has several")
    q.add_argument("--dtype", action="append", default=[], metavar="bf16=f16", help="replace a dtype throughout")


def _inputs(q: argparse.ArgumentParser) -> None:
    q.add_argument("--arg", action="append", default=[], metavar="scale=0.09", help="scalar argument (scale defaults to D**-0.5)")
    q.add_argument("--seed", type=_natural, default=0)
    q.add_argument("--max-cycles", type=_natural)


def _launch(q: argparse.ArgumentParser) -> None:
    _inputs(q)
    q.add_argument("--in", dest="input", nargs="+", default=[], metavar="a.npy", help="tensors in order; random from --seed when not given")
    q.add_argument("--out", metavar="PREFIX", help="write each result to PREFIXname.npy")
    q.add_argument("--sanitize", action="store_true", help="checked mode: undefined values, bounds, races, deadlock (docs/checked.md)")
    q.add_argument("--latency-seed", type=_natural, metavar="N", help="vary every latency by this seed: results without races stay")
    q.add_argument("--trace", metavar="FILE.pftrace", help="write a Perfetto trace")
    q.add_argument("--report", metavar="FILE.html", help="write one page: roofline, stalls, timeline, hottest lines and instructions")
    q.add_argument("--hot", type=_natural, nargs="?", const=20, default=0, metavar="N",
                   help="the N instructions (20) that took most of the warps' time, and what they waited for")
    q.add_argument("--json", action="store_true", help="one JSON object (docs/json.md) instead of the report")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="rvgpu", description="Whole-tensor math to RISC-V GPU machine code, run on a cycle-approximate simulator.")
    sub = p.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, text: str, *parts: object) -> argparse.ArgumentParser:
        q = sub.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in FILES:
            q.add_argument("file", help=FILES[name])
        if name in ("compile", "run", "opt", "sim", "tune", "sweep"):
            q.add_argument("-D", dest="dims", action="append", default=[], metavar="DIM=N", help="value of a dim")
        for part in parts:
            part(q)  # type: ignore[operator]
        return q

    q = command("run", "compile, run on the simulator, report", _source, _machine, _launch, _passes, _tuning)
    q.add_argument("--check", action="store_true", help="compare with float64 within the propagated error bound")
    q = command("compile", "print a stage as text, or write machine code", _source, _machine, _passes, _tuning)
    q.add_argument("--emit", choices=["tensor", "tile", "llvm", "asm", "obj", "elf"], help="default: asm, or what --stop-after leaves")
    q.add_argument("--explain", action="store_true", help="pass by pass the change and the predicted cycles, and how a cascade was derived")
    q.add_argument("--open", action="store_true", help="leave dims without -D open (buckets of 4096)")
    q.add_argument("-o", dest="output", metavar="FILE", help="- is stdout")
    q = command("opt", "run passes over IR text", _machine, _passes)
    q.add_argument("-o", dest="output", metavar="FILE", help="- is stdout")
    q = command("sim", "run an ELF on the simulator", _machine, _launch)
    q.add_argument("--harts", type=_natural, help="that start at the program's entry (default 1)")
    q.add_argument("--memory", type=_size, metavar="BYTES", help="of RAM from the lowest segment up, such as 256M (default: image + 64M)")
    q.add_argument("--timing", choices=["full", "none"], default="full", help="none: results only, faster")
    q = command("tune", "measure a kernel's tilings and keep the fastest in the cache", _source, _machine)
    q.add_argument("what", nargs="*", metavar="KERNEL|DIM=N", help="the kernel, when the file has several, and the dims' values")
    q.add_argument("--passes", metavar="'+split{x=1}'", help="as for run; tile stays the tuner's")
    q.add_argument("--json", action="store_true", help="one JSON object instead of the report")
    q = command("sweep", "run a kernel on every combination of listed machine fields and dims: --set core.warps=2,4 -D S=512,1024",
                _source, _machine, _inputs, _tuning)
    q.add_argument("--passes", metavar="'a,b{x=1}'", help="as for run")
    q.add_argument("--check", action="store_true", help="compare with float64 within the propagated error bound")
    q.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    q.set_defaults(input=[], sanitize=False, latency_seed=None, trace=None, report=None, hot=0, harts=None, memory=None, timing="full")
    q = command("machines", "list machines or print one", _machine)
    q.add_argument("name", nargs="?")
    q = command("disasm", "disassemble an object or ELF")
    q.add_argument("--lines", action="store_true", help="with the source lines")
    q = command("calibrate", "fit a machine's timing classes to measured throughputs, by running the measured loops")
    q.add_argument("machine", nargs="+", help="shipped machine or .toml file; several for --docs")
    q.add_argument("--data", required=True, metavar="FILE.csv", help="machine,instruction,vtype,vl,cycles_per_instruction")
    q.add_argument("--write", metavar="OUT.toml", help="write the machine with its fitted classes")
    q.add_argument("--docs", metavar="FILE.md", help="write the accuracy of the machines as they are, without fitting")
    q.add_argument("--seed", type=_natural, default=1, help="of the halves of cross-validation (default 1)")
    q.add_argument("--json", action="store_true", help="one JSON object instead of the report")
    q = command("isa", "list the instructions, or print one row")
    q.add_argument("name", nargs="?")
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 rejected, 2 usage, 3 check failed, 4 simulator fault, deadlock or limit, 70 internal. `sim` of a bare-metal program:
    the program's own, and these with an error message when it did not come to its end."""
    args = parser().parse_args(argv)
    try:
        from rvgpu.runtime import commands

        code: int = getattr(commands, "compile_" if args.command == "compile" else args.command)(args)
        sys.stdout.flush()  # here a full disk can still be told
        return code
    except RvgpuError as e:
        print(e.render(), file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the interpreter flushes it at exit)
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        print(RvgpuError("E006", "this computer has too little memory for it").render(), file=sys.stderr)
        return EXIT_SIM_FAULT
    except Exception as e:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            print(RvgpuError("E001", f"cannot write: {e.strerror}").render(), file=sys.stderr)
            return EXIT_USAGE
        if os.environ.get("RVGPU_DEBUG"):
            raise
        print(_internal(e, argv).render(), file=sys.stderr)
        return EXIT_INTERNAL


def _internal(e: Exception, argv: list[str] | None) -> RvgpuError:
    """Our fault: the traceback and the command go into a file that can be sent."""
    import tempfile
    import traceback

    said = f"{type(e).__name__}: {e}".splitlines()[0]
    error = RvgpuError("E900", f"internal error: {said}", exit_code=EXIT_INTERNAL)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="rvgpu-", suffix=".txt", delete=False, errors="backslashreplace") as f:
            f.write(f"rvgpu {' '.join(argv if argv is not None else sys.argv[1:])}\n\n{''.join(traceback.format_exception(e))}")
    except OSError:
        return error.hint("RVGPU_DEBUG=1 shows where (no folder for a reproducer can be written)")
    return error.note(f"reproducer: {f.name}")
