"""rvgpu: whole-tensor math to RISC-V GPU machine code, checked and timed on a simulator."""

__version__ = "0.1.0"
