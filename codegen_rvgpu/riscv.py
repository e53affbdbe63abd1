"""The RISC-V target through llvmlite: LLVM IR text to an object file and its assembly. Abort-prone: run it in the worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from rvgpu.codegen_rvgpu.llvm_text import TRIPLE

FEATURES = ("m a f d c v zicsr zifencei zba zbb zbs zfh zfbfmin zicntr zihintpause zihintntl zicbop zvfh zvfbfmin zvfbfwma "
            "xsfmmbase xsfmm32a16f xsfmm32a32f xsfmm32a8i xsfmm32a8f xsfvfexp32e").split()


@dataclass(frozen=True)
class Code:
    object: bytes
    asm: str


@cache
def _llvm() -> Any:
    """The passes order instructions for an in-order core; LLVM's scheduler before register allocation would undo that for a model of another."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.set_option("", "-enable-misched=false")
    return llvm


def compile_llvm(text: str, vlen: int) -> Code:
    """Optimises at O2 and emits; raises RuntimeError with LLVM's message where it reports one (it may also abort)."""
    llvm = _llvm()
    target = llvm.Target.from_triple(TRIPLE)
    features = ",".join(f"+{f}" for f in [*FEATURES, f"zvl{vlen}b"]) + ",-relax"
    module = llvm.parse_assembly(text)
    module.verify()
    machine = target.create_target_machine(cpu="generic-rv64", features=features, opt=2, reloc="static", codemodel="medium")
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    asm = machine.emit_assembly(module)
    return Code(machine.emit_object(module), asm)
