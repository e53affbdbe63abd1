"""LLVM in a process of its own: an abort there is an internal error here, with a reproducer, and the next request starts a new worker.

Messages are length-prefixed: request vlen and IR text, answer status, object, assembly. No multiprocessing, so a user's script needs no guard.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import threading
from typing import IO

from rvgpu.codegen_rvgpu.riscv import Code, compile_llvm
from rvgpu.errors import EXIT_INTERNAL, RvgpuError

TIMEOUT_S = 120


def send(stream: IO[bytes], *parts: bytes) -> None:
    """One message."""
    stream.write(struct.pack("<I", len(parts)) + b"".join(struct.pack("<Q", len(p)) + p for p in parts))
    stream.flush()


def receive(stream: IO[bytes]) -> list[bytes] | None:
    """The next message; None at the end of the stream."""
    def exactly(n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = stream.read(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    try:
        (count,) = struct.unpack("<I", exactly(4))
        return [exactly(struct.unpack("<Q", exactly(8))[0]) for _ in range(count)]
    except EOFError:
        return None


class Worker:
    """One compiler process, started on first use."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.said: IO[bytes] | None = None  # its stderr: a file, which cannot fill up as a pipe would

    def start(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.said = tempfile.TemporaryFile()
            self.process = subprocess.Popen([sys.executable, "-m", "rvgpu.codegen_rvgpu.worker"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=self.said, env=dict(os.environ))

    def compile(self, text: str, vlen: int) -> Code:
        """Object and assembly of a module; InternalError (exit 70) with a reproducer when LLVM fails or dies."""
        self.start()
        p = self.process
        assert p is not None and p.stdin is not None and p.stdout is not None
        answer: list[bytes] | None = None
        late = threading.Event()

        def expire() -> None:
            late.set()
            p.kill()

        timer = threading.Timer(TIMEOUT_S, expire)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                send(p.stdin, str(vlen).encode(), text.encode())
                answer = receive(p.stdout)
        except BaseException:  # interrupted: the answer on its way must not be the next request's
            self.stop()
            raise
        finally:
            timer.cancel()
        if answer is None:
            p.wait()
            said = self._stderr()
            self.stop()
            raise _internal(text, vlen, f"no answer in {TIMEOUT_S} s" if late.is_set() else said or "the compiler process died")
        if answer[0] != b"ok":
            raise _internal(text, vlen, answer[1].decode())
        return Code(answer[1], answer[2].decode())

    def _stderr(self) -> str:
        """Its first line."""
        assert self.said is not None
        self.said.seek(0)
        return self.said.readline().decode("utf-8", "replace").strip()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for s in (self.process.stdin, self.process.stdout, self.said):
                if s:
                    with contextlib.suppress(BrokenPipeError):  # of what the process never read
                        s.close()
            self.process = self.said = None


def _internal(text: str, vlen: int, why: str) -> RvgpuError:
    with tempfile.NamedTemporaryFile("w", prefix="rvgpu-", suffix=".ll", delete=False) as f:
        f.write(f"; vlen {vlen}: {why}\n{text}")
    return RvgpuError("E900", f"internal error in code generation: {why}", exit_code=EXIT_INTERNAL).note(f"reproducer: {f.name}")


WORKER = Worker()


def serve() -> None:
    while True:
        request = receive(sys.stdin.buffer)
        if request is None:
            return
        try:
            code = compile_llvm(request[1].decode(), int(request[0]))
            send(sys.stdout.buffer, b"ok", code.object, code.asm.encode())
        except (RuntimeError, ValueError) as e:
            send(sys.stdout.buffer, b"error", str(e).encode())


if __name__ == "__main__":
    serve()
