"""Builds tests/programs with zig's clang or Debian's GCC, and runs them under QEMU's user mode where that can judge what they say."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "programs"
FLAGS = ("-O2", "-g", "-static", "-nostdlib", "-ffreestanding", "-mno-relax", "-mcmodel=medany")
GCC = "riscv64-unknown-elf-gcc"
PICOLIBC = Path("/usr/lib/picolibc")
QEMU = "qemu-riscv64"


def need(there: object, what: str, how: str) -> None:
    """A missing tool skips its tests aloud, and fails them in CI."""
    if not there:
        message = f"NOT RUN: {what} is missing ({how})"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="rvgpu-programs-"))


@functools.cache
def zig(*sources: str, script: str | None = "link.ld", defines: tuple[str, ...] = (), march: str = "baseline_rv64+v") -> Path:
    """The executable of some files of tests/programs."""
    need(importlib.util.find_spec("ziglang"), "ziglang", "pip install ziglang")
    out = folder() / f"{abs(hash((sources, script, defines, march)))}.elf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "riscv64-freestanding-none", f"-mcpu={march}", "-fno-sanitize=undefined", *FLAGS]
    command += [f"-T{HERE / script}"] if script else []
    subprocess.run([*command, *(f"-D{d}" for d in defines), *(str(HERE / s) for s in sources), "-o", str(out)], check=True, cwd=HERE)
    return out


@functools.cache
def gcc(*sources: str, options: tuple[str, ...]) -> Path:
    """The same by Debian's GCC."""
    need(shutil.which(GCC), GCC, "apt-get install gcc-riscv64-unknown-elf")
    out = folder() / f"{abs(hash((sources, options)))}-gcc.elf"
    target = ("-march=rv64gc", "-mabi=lp64d", "-mcmodel=medany", "-O2", "-g")
    subprocess.run([GCC, *target, *(str(HERE / s) for s in sources), *options, "-o", str(out)], check=True)
    return out


@functools.cache
def picolibc(*sources: str) -> Path:
    """With picolibc's own start-up code, linker script and printf, over semihosting."""
    need(shutil.which(GCC), GCC, "apt-get install gcc-riscv64-unknown-elf")
    need(PICOLIBC.is_dir(), "picolibc", "apt-get install picolibc-riscv64-unknown-elf")
    places = {"__flash": 0x8000_0000, "__flash_size": 0x20_0000, "__ram": 0x8020_0000, "__ram_size": 0x20_0000, "__stack_size": 0x4000}
    return gcc(*sources, options=("--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-lm",
                                  *(f"-Wl,--defsym={name}={value:#x}" for name, value in places.items())))


def linux(source: str, vlen: int = 512) -> tuple[str, int]:
    """What the program says and returns under qemu-riscv64."""
    need(shutil.which(QEMU), QEMU, "apt-get install qemu-user")
    out = zig("linux.S", source, script=None, defines=("LINUX",))
    p = subprocess.run([QEMU, "-cpu", f"rv64,v=true,vlen={vlen},vext_spec=v1.0", str(out)], capture_output=True, text=True)
    return p.stdout, p.returncode
