"""Bad input at the command line: the exact text on stderr and the exit code, each a golden of tests/golden/cli; the schema of `run --json`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rvgpu.cli import main
from rvgpu.isa.asm import assemble
from rvgpu.sim.elf import BASE, Image, write_executable

ROOT = Path(__file__).parents[1]
KERNELS = """def gemm(a: f32[M, K], b: f32[K, N]) -> f32[M, N]:
    return a @ b

def scaled(x: f32[M], *, by: f32) -> f32[M]:
    return x * by
"""
SIZES = "-D M=4 -D N=4 -D K=4"
CASES = {  # name: arguments (files as `setting` writes them), exit code
    "no_kernel_name": (f"run k.rvg {SIZES}", 2), "unknown_kernel": (f"run k.rvg --kernel gem {SIZES}", 2),
    "wrong_shape": ("run k.rvg --kernel gemm --in a.npy wide.npy", 1), "wrong_dtype": ("run k.rvg --kernel gemm --in a.npy half.npy", 1),
    "wrong_count": ("run k.rvg --kernel gemm --in a.npy", 2), "not_npy": ("run k.rvg --kernel gemm --in a.npy cut.npy", 2),
    "unknown_name": ("run name.rvg -D M=4", 1), "for_loop": ("run loop.rvg -D M=4", 1), "missing_dim": ("run k.rvg --kernel gemm -D M=4 -D N=4", 1),
    "contradiction": ("run k.rvg --kernel gemm --in a.npy a.npy -D K=9", 1), "no_file": (f"run none.rvg {SIZES}", 2),
    "folder": (f"run folder {SIZES}", 2), "not_utf8": (f"run latin.rvg {SIZES}", 2),
    "unknown_machine": (f"run k.rvg --kernel gemm {SIZES} --machine bse", 1),
    "unknown_field": (f"run k.rvg --kernel gemm {SIZES} --machine field.toml", 1),
    "wrong_type": (f"run k.rvg --kernel gemm {SIZES} --machine type.toml", 1),
    "not_toml": (f"run k.rvg --kernel gemm {SIZES} --machine k.rvg.toml", 1),
    "set_unknown": (f"run k.rvg --kernel gemm {SIZES} --set core.wraps=8", 1),
    "set_no_value": (f"run k.rvg --kernel gemm {SIZES} --set core.warps", 2),
    "set_text": (f"run k.rvg --kernel gemm {SIZES} --set core.warps=many", 1), "vlen": (f"run k.rvg --kernel gemm {SIZES} --set vector.vlen=100", 1),
    "te": (f"run k.rvg --kernel gemm {SIZES} --set matrix.te=512", 1),
    "bandwidth": (f"run k.rvg --kernel gemm {SIZES} --set dram.bytes_per_cycle=-1", 1),
    "dim_text": ("run k.rvg --kernel gemm -D M=four", 2), "dim_negative": ("run k.rvg --kernel gemm -D M=-4", 2),
    "unknown_dtype": (f"run k.rvg --kernel gemm {SIZES} --dtype f32=f17", 2), "arg_text": ("run k.rvg --kernel scaled -D M=4 --arg by=much", 2),
    "arg_unknown": ("run k.rvg --kernel scaled -D M=4 --arg bye=2", 1), "unknown_pass": (f"compile k.rvg --kernel gemm {SIZES} --passes tiel", 2),
    "pass_option": (f"compile k.rvg --kernel gemm {SIZES} --passes tile{{zz=3}}", 2),
    "stop_after": (f"compile k.rvg --kernel gemm {SIZES} --stop-after x", 2),
    "no_place": (f"compile k.rvg --kernel gemm {SIZES} -o none/x.s", 2), "broken_tile": ("run broken.tile -D M=4", 1),
    "tile_check": ("run broken.tile --check", 2), "not_elf": ("sim k.rvg", 1), "cut_elf": ("sim cut.elf", 1),
    "no_note": ("sim plain.elf --max-cycles 1000", 4),
    "bounds": ("sim bounds.elf", 4), "scratchpad_end": ("sim scratchpad.elf", 4), "page_zero": ("sim null.elf", 4),
    "store_to_text": ("sim text.elf", 4),
    "jump_away": ("sim jump.elf", 4), "illegal": ("sim illegal.elf", 4), "vill": ("sim vill.elf", 4), "control_page": ("sim control.elf", 4),
    "dma_bounds": ("sim dma.elf", 4), "deadlock": ("sim deadlock.elf", 4), "barrier_counts": ("sim counts.elf", 4),
    "set_section": (f"run k.rvg --kernel gemm {SIZES} --set core=8", 2), "set_name": (f"run k.rvg --kernel gemm {SIZES} --set name.x=8", 2),
    "set_inf": (f"run k.rvg --kernel gemm {SIZES} --set gpu.clock_ghz=inf", 1), "set_ways": (f"run k.rvg --kernel gemm {SIZES} --set l1.ways=0", 1),
    "set_huge": (f"run k.rvg --kernel gemm {SIZES} --set l2.misses=99999999999", 1),
    "te_file": (f"run k.rvg --kernel gemm {SIZES} --machine te.toml", 1), "lacks_field": (f"run k.rvg --kernel gemm {SIZES} --machine lacks.toml", 1),
    "section": (f"run k.rvg --kernel gemm {SIZES} --machine section.toml", 1), "machine_folder": ("machines folder.toml", 2),
    "machine_latin": ("machines latin.toml", 2), "machine_missing": ("machines none.toml", 1),
    "wrong_rank": ("run k.rvg --kernel gemm --in a.npy flat.npy", 1), "empty_npy": ("run k.rvg --kernel gemm --in a.npy empty.npy", 2),
    "archive": ("run k.rvg --kernel gemm --in a.npy two.npz", 2), "pickle": ("run k.rvg --kernel gemm --in a.npy object.npy", 2),
    "no_npy": ("run k.rvg --kernel gemm --in a.npy none.npy", 2),
    "unknown_dim": (f"run k.rvg --kernel gemm {SIZES} -D MM=4", 2), "dim_no_name": (f"run k.rvg --kernel gemm {SIZES} -D =4", 2),
    "dim_huge": (f"run k.rvg --kernel gemm {SIZES} -D M=99999999999", 2), "dim_superscript": (f"run k.rvg --kernel gemm {SIZES} -D M=\u00b2", 2),
    "device_full": (f"run k.rvg --kernel gemm {SIZES} -D M=1000000 -D K=1000000", 4),
    "dtype_no_value": (f"run k.rvg --kernel gemm {SIZES} --dtype f32", 2), "arg_missing": ("run k.rvg --kernel scaled -D M=4", 1),
    "print_after": (f"compile k.rvg --kernel gemm {SIZES} --print-after tiel", 2), "passes_text": ("compile k.rvg --kernel gemm --passes tile{", 2),
    "dtype_without_code": ("compile k.rvg --kernel scaled --dtype f32=f64 -D M=4", 1),
    "dtype_that_is_not_there": ("compile k.rvg --kernel scaled --dtype f16=f32 -D M=4", 2),
    "tile_that_is_not": (f"compile k.rvg --kernel gemm {SIZES} --passes +tile{{bk=7,im=3}}", 2),
    "tile_before_cascade": (f"compile k.rvg --kernel gemm {SIZES} --passes expand,tile", 2),
    "pass_value": ("compile k.rvg --kernel gemm --passes tile{bk=x}", 2),
    "not_lowered": (f"compile k.rvg --kernel gemm {SIZES} --passes expand", 1),
    "trace_place": (f"run k.rvg --kernel gemm {SIZES} --trace none/t.pftrace", 2),
    "trace_folder": (f"run k.rvg --kernel gemm {SIZES} --trace folder", 2),
    "out_place": (f"run k.rvg --kernel gemm {SIZES} --out none/x", 2), "emit_folder": (f"compile k.rvg --kernel gemm {SIZES} -o folder", 2),
    "empty_kernel": ("run empty.rvg", 2), "empty_tile": ("run empty.tile", 2), "compile_tile": ("compile broken.tile", 2),
    "tile_kernel": ("run broken.tile --kernel k", 2), "deep": ("compile deep.rvg -D M=4", 1), "opt_dim": ("opt empty.tile -D Q=4", 2),
    "python_import": ("run import.py", 1), "python_syntax": ("run syntax.py", 1), "python_exit": ("run exit.py", 1),
    "python_none": ("run none.py", 2),
    "isa_name": ("isa vad.vv", 2), "disasm_text": ("disasm k.rvg", 1), "sim_dim": ("sim bounds.elf -D Q=4", 2),
    "sim_arg": ("sim bounds.elf --arg q=4", 2),
    "sim_dtype": ("sim bounds.elf --in half64.npy", 1), "sim_shape": ("sim bounds.elf --in a.npy", 1),
    "sim_machine": ("sim bounds.elf --machine edge", 1),
    "stopped_before_code": (f"compile k.rvg --kernel gemm {SIZES} --stop-after tile --emit asm", 1),
    "no_room_yet": (f"run k.rvg --kernel gemm {SIZES} --passes expand,simplify,cluster,cascade,split,tile,grid,pipeline", 1),
    "cycle_limit": ("sim forever.elf --max-cycles 5000", 4),
}
RETURN = "jalr zero, ra, 0\n"
PROGRAMS = {  # `x` is a tensor of 64 floats at args[0]
    "bounds": "ld t0, 0(a0)\nli t1, 0x7fffffff\nslli t1, t1, 1\nadd t0, t0, t1\nflw ft0, 0(t0)\n", "null": "lw t0, 16(zero)\n",
    "scratchpad": "li t0, 0x10040000\nsd t0, 0(t0)\n", "text": "li t0, 0x40000000\nslli t0, t0, 1\nsd t0, 0(t0)\n",
    "jump": "ld t0, 0(a0)\njalr zero, t0, 0\n",
    "illegal": "ecall\n", "vill": "vadd.vv v0, v1, v2\n", "control": "ld t0, 24(a3)\nsd t0, 16(a3)\n",
    "dma": "ld t0, 0(a0)\nsd t0, 64(a3)\nsd zero, 72(a3)\nli t1, 1\nsd t1, 80(a3)\nli t1, 64\nsd t1, 88(a3)\nsd t1, 96(a3)\nsd t1, 104(a3)\n"
           "addi t2, a3, 136\namoswap.d t3, zero, (t2)\n",
    "deadlock": "bnez a2, out\naddi t1, a3, 256\nli t2, 4\namoswap.d t3, t2, (t1)\nout: ",
    "counts": "addi t1, a3, 256\naddi t2, a2, 2\namoswap.d t3, t2, (t1)\n", "forever": "again: j again\n"}
NOTE = {"version": 1, "vlen": 512, "te": 64, "temps": {}, "kernels": [{
    "name": "k", "tensors": [["x", "f32", [[[], 64]], False]], "scalars": [], "dims": [], "scratchpad_bytes": 1024}]}


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """A folder with the files that the cases name, as the current one."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"k.rvg": KERNELS, "name.rvg": "def f(x: f32[M]) -> f32[M]:\n    return exq(x) + y\n",
                       "loop.rvg": "def f(x: f32[M]) -> f32[M]:\n    for i in x:\n        x = x + 1\n    return x\n",
                       "k.rvg.toml": "def f\n", "broken.tile": "kernel @k(\n", "empty.rvg": "", "empty.tile": "",
                       "deep.rvg": f"def f(x: f32[M]) -> f32[M]:\n    return {'(' * 3000}x{')' * 3000}\n",
                       "import.py": "x = 1\nimport nothing_here\n",
                       "syntax.py": "x = 1\ndef f(:\n", "exit.py": "import sys\nsys.exit(5)\n"}.items():
        Path(name).write_text(text)
    base = (ROOT / "isa" / "machines" / "base.toml").read_text()
    Path("field.toml").write_text(re.sub(r"^warps", "wraps", base, flags=re.M))
    Path("type.toml").write_text(re.sub(r"^warps.*$", 'warps = "four"', base, flags=re.M))
    Path("te.toml").write_text(re.sub(r"^te .*$", "te = 0", base, flags=re.M))
    Path("lacks.toml").write_text(re.sub(r"^warps.*\n", "", base, flags=re.M))
    Path("section.toml").write_text(base.replace("[core]", "[cor]"))
    Path("latin.toml").write_bytes(b"# \xe9\n" + base.encode())
    for name in ("folder", "folder.toml"):
        Path(name).mkdir()
    Path("latin.rvg").write_bytes(b"def f(x: f32[M]) -> f32[M]: return x # \xe9\n")
    np.save("a.npy", np.ones((4, 5), np.float32))
    np.save("wide.npy", np.ones((6, 4), np.float32))
    np.save("half.npy", np.ones((5, 4), np.float16))
    np.save("flat.npy", np.ones(5, np.float32))
    np.save("half64.npy", np.ones(64, np.float16))
    np.save("object.npy", np.array([{}], dtype=object))
    np.savez("two.npz", np.ones(2), np.ones(2))
    Path("empty.npy").write_bytes(b"")
    Path("none.py").write_text("x = 1\n")
    Path("cut.npy").write_bytes(Path("a.npy").read_bytes()[:90])
    for name, text in PROGRAMS.items():
        code = assemble(text + RETURN)
        Path(f"{name}.elf").write_bytes(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}), json.dumps(NOTE).encode()))
    whole = Path("bounds.elf").read_bytes()
    Path("cut.elf").write_bytes(whole[:100])
    Path("plain.elf").write_bytes(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, setting, capsys, golden):
    command, code = CASES[name]
    got = main(command.split())
    said = capsys.readouterr()
    assert got == code and said.out == "", (got, said)
    assert re.search(r"\berror\[E\d{3}\]: ", said.err) and "Traceback" not in said.err
    golden(f"cli/{name}.txt", f"$ rvgpu {command}\n{said.err.replace(f'{setting}/', '').replace(f'{ROOT}/src/rvgpu/', '')}exit {got}\n")


def test_usage_of_the_parser(capsys):
    """argparse's own errors have its form and exit code 2."""
    for command in ("run", "frobnicate", f"compile k.rvg {SIZES} --emit pdf", "run k.rvg --seed -1", "run k.rvg --max-cycles many", "run k.rvg --in"):
        with pytest.raises(SystemExit) as e:
            main(command.split())
        assert e.value.code == 2 and "usage: rvgpu" in capsys.readouterr().err


def rvgpu(*args, **kw):
    """The real command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "rvgpu", *args], capture_output=True, **kw)


def test_a_process_says_the_same(setting):
    """Exit code and streams of the real command; a full disk and a closed pipe; stdin that is not UTF-8."""
    p = rvgpu(*f"run k.rvg --kernel gem {SIZES}".split(), text=True)
    assert (p.returncode, p.stdout) == (2, "") and p.stderr == "error[E003]: k.rvg has no kernel gem\nhint: did you mean gemm?\n"
    with open("/dev/full", "w") as full:
        p = subprocess.run([sys.executable, "-m", "rvgpu", "machines"], stdout=full, stderr=subprocess.PIPE)
    assert (p.returncode, p.stderr) == (2, b"error[E001]: cannot write: No space left on device\n")
    p = subprocess.Popen([sys.executable, "-m", "rvgpu", "isa"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()
    assert p.stderr.read() == b"" and p.wait() == 0
    p = rvgpu(*"compile - -D M=4".split(), input=b"\xe9")
    assert (p.returncode, p.stderr) == (2, b"error[E001]: cannot read stdin: it is not UTF-8 text\n")


def test_stdin_and_stdout(setting):
    """`-` on both sides gives what files give."""
    p = rvgpu(*f"compile - --kernel gemm {SIZES} --emit tile -o -".split(), input=Path("k.rvg").read_bytes(), check=True)
    assert b"kernel @gemm" in p.stdout and p.stderr == b""
    q = rvgpu("opt", "-", "--passes", "", input=p.stdout, check=True)
    assert q.stdout == p.stdout and q.stderr == b""
    Path("emitted.tile").write_bytes(p.stdout)
    assert rvgpu(*f"run emitted.tile {SIZES} --json".split(), check=True).stdout.startswith(b"{")


def test_an_internal_error_has_a_reproducer(setting, monkeypatch, capsys):
    """Exit 70, one line, the traceback in a file; RVGPU_DEBUG=1 shows it; where no file can be written it still ends well."""
    from rvgpu.runtime import commands

    monkeypatch.setattr(commands, "machines", lambda args: 1 // 0)
    monkeypatch.setattr("tempfile.tempdir", str(setting))
    monkeypatch.delenv("RVGPU_DEBUG", raising=False)
    assert main(["machines"]) == 70
    said = capsys.readouterr().err
    assert re.fullmatch(r"error\[E900\]: internal error: ZeroDivisionError: .*\nnote: reproducer: (.*)\n", said), said
    kept = Path(said.rpartition(" ")[2].strip()).read_text()
    assert kept.startswith("rvgpu machines\n") and "Traceback" in kept
    monkeypatch.setattr("tempfile.tempdir", str(setting / "nowhere"))
    assert main(["machines"]) == 70 and "hint: RVGPU_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("RVGPU_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["machines"])


def test_what_out_writes_in_reads(setting, capsys):
    """NumPy stores bf16 as raw bytes: --in takes them as what the kernel declares, for kernels and ELFs; the numbers are the same."""
    Path("b.rvg").write_text("def twice(x: bf16[M]) -> bf16[M]:\n    return x + x\n")
    assert main("run b.rvg -D M=8 --out 1 --check".split()) == main("run b.rvg --in 1out.npy --out 2 --check".split()) == 0
    assert main("compile b.rvg -D M=8 --emit elf -o b.elf".split()) == main("sim b.elf -D M=8 --in 1out.npy --out 3".split()) == 0
    one, two, three = (np.frombuffer(np.load(f"{n}out.npy").tobytes(), np.uint16) for n in (1, 2, 3))
    assert (two == three).all() and (two == one + 0x80).all()  # the exponent one higher


STALLS = {"issued", "data.vector", "data.matrix", "data.exp", "data.scratchpad", "data.l1", "data.l2", "data.dram", "data.dma", "unit", "barrier",
          "dispatch", "idle"}


def test_json_has_the_schema(setting, capsys):
    assert main(f"run k.rvg --kernel gemm {SIZES} --check --json".split()) == 0
    s = json.loads(capsys.readouterr().out)
    assert set(s) == {"kernel", "machine", "dims", "cycles", "seconds", "launches", "instructions", "macs", "macs_min", "flops", "dram_bytes",
                      "dram_bytes_min", "utilisation", "roofline", "stalls", "check", "host"}
    assert s["dims"] == {"M": 4, "N": 4, "K": 4} and s["macs_min"] == 64 and s["dram_bytes_min"] == 3 * 64
    assert set(s["stalls"]) == STALLS and abs(sum(s["stalls"].values()) - 1) < 1e-9
    assert set(s["utilisation"]) == {"matrix", "vector", "issue", "dram"}
    assert set(s["roofline"]) == {"ideal_cycles", "fraction", "bound", "of_matrix_peak", "of_vector_peak"}
    assert set(s["check"]) == {"passed", "max_abs_error", "max_rel_error", "bound_fraction"} and s["check"]["passed"]
    assert set(s["host"]) == {"compile_s", "engine_s", "simulate_s", "total_s", "mips"}
    assert sum(x["cycles"] for x in s["launches"]) <= s["cycles"] and s["seconds"] == pytest.approx(s["cycles"] * 1e-9)


def test_a_failed_check_is_exit_3(setting, capsys, monkeypatch):
    """A reference that is one part in a million off: the machine's results leave its bound, and the command says so."""
    from rvgpu.runtime import kernel

    true = kernel.reference
    monkeypatch.setattr(kernel, "reference", lambda *a, **k: ([v * (1 + 1e-6) for v in true(*a, **k)[0]], true(*a, **k)[1]))
    assert main(f"run k.rvg --kernel gemm {SIZES} --check".split()) == 3
    assert "check        FAILED" in capsys.readouterr().out


def test_every_stage_and_the_way_back(setting, capsysbinary):
    """compile --emit all; the text and the binary run again with the same cycles."""
    for what in ("tensor", "tile", "llvm", "asm", "obj", "elf"):
        assert main(f"compile k.rvg --kernel gemm {SIZES} --emit {what} -o out.{what}".split()) == 0
    assert Path("out.obj").read_bytes()[:4] == Path("out.elf").read_bytes()[:4] == b"\x7fELF"
    found = []
    for command in (f"run k.rvg --kernel gemm {SIZES}", f"run out.tile {SIZES}", f"sim out.elf {SIZES}"):
        assert main([*command.split(), "--json", "--trace", "t.pftrace"]) == 0
        s = json.loads(capsysbinary.readouterr().out)
        found.append((s["cycles"], s["instructions"], s["dram_bytes"]))
    assert len(set(found)) == 1 and Path("t.pftrace").stat().st_size > 1000
    for command in (f"compile k.rvg --kernel gemm {SIZES} --emit asm -o -", "disasm out.obj --lines", "disasm out.elf", "isa", "isa vadd.vv",
                    "machines",
                    "machines xl"):
        assert main(command.split()) == 0
        assert len(capsysbinary.readouterr().out) > 100, command


@pytest.mark.parametrize("spoil", ["no folder", "spoilt entries"])
def test_the_cache_is_only_a_cache(setting, spoil, capsys):
    """A cache that cannot be written, or whose entries are damaged, changes nothing."""
    env = {**os.environ, "RVGPU_CACHE_DIR": str(setting / "cache")}
    command = [sys.executable, "-m", "rvgpu", *f"run k.rvg --kernel gemm {SIZES} --check --json".split()]
    assert main(command[3:]) == 0
    first = json.loads(capsys.readouterr().out)
    if spoil == "no folder":
        env["RVGPU_CACHE_DIR"] = str(setting / "k.rvg" / "inside a file")
    else:
        subprocess.run(command, env=env, capture_output=True, check=True)
        entries = list((setting / "cache").iterdir())
        assert len(entries) > 1
        for p in entries:
            p.write_bytes(p.read_bytes()[:-7] + b"spoilt!")
    p = subprocess.run(command, env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    assert json.loads(p.stdout)["cycles"] == first["cycles"]


def test_interrupt_leaves_the_cache_whole(setting):
    """Ctrl-C while it compiles: exit 130, no half entry, the next run is right."""
    env = {**os.environ, "RVGPU_CACHE_DIR": str(setting / "cache")}
    command = [sys.executable, "-m", "rvgpu", *f"run k.rvg --kernel gemm {SIZES} --check".split()]
    p = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list((setting / "cache").glob("*")) and p.poll() is None:
        pass
    p.send_signal(signal.SIGINT)
    _, said = p.communicate()
    assert p.returncode in (130, -signal.SIGINT, 0) and b"Traceback" not in said, said
    assert subprocess.run(command, env=env, capture_output=True).returncode == 0


def test_importing_loads_nothing_heavy():
    code = "import sys, rvgpu; print([m for m in ('llvmlite', 'lark', 'msgspec', 'ml_dtypes') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
