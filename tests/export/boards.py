"""Emulated boards: how to build for them, and how to run and measure what was built."""

import os
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from conftest import HERE, ROOT, WARNINGS, call

ARM = "arm-none-eabi-gcc"
RISCV = "riscv64-unknown-elf-gcc"


@dataclass
class Board:
    name: str
    compiler: str
    flags: list
    emulator: list
    flash: tuple  # address, bytes
    ram: tuple
    per_tick: float  # instructions per tick of the counter

    @property
    def riscv(self):
        return self.compiler == RISCV


def cortex(name, cpu, machine, flash, ram, per_tick, *flags):
    return Board(name, ARM, [f"-mcpu={cpu}", "-mthumb", "-DBOARD_CORTEX_M", *flags],
                 ["qemu-system-arm", "-M", machine, "-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-nographic",
                  "-monitor", "none", "-serial", "none"], flash, ram, per_tick)


def riscv(name, march, *machine):
    return Board(name, RISCV, [f"-march={march}", "-mabi=ilp32", "-mno-relax", "-mcmodel=medany", "-DBOARD_RISCV"],
                 ["qemu-system-riscv32", "-M", "virt", *machine, "-bios", "none", "-icount", "shift=0", "-display", "none", "-monitor", "none", "-serial",
                  "stdio"], (0x80000000, 4 * MB), (0x80400000, 4 * MB), 1)


MB = 1 << 20
BOARDS = {b.name: b for b in (
    cortex("M0", "cortex-m0", "microbit", (0, 256 << 10), (0x20000000, 16 << 10), 0),
    cortex("M3", "cortex-m3", "mps2-an385", (0, 4 * MB), (0x20000000, 4 * MB), 40),
    cortex("M4", "cortex-m4", "mps2-an386", (0, 4 * MB), (0x20000000, 4 * MB), 40),
    cortex("M7", "cortex-m7", "mps2-an500", (0, 4 * MB), (0x20000000, 4 * MB), 40),
    cortex("M33", "cortex-m33", "mps2-an505", (0x10000000, 4 * MB), (0x38000000, 4 * MB), 50),
    cortex("M55", "cortex-m55", "mps3-an547", (0, 512 << 10), (0x20000000, 512 << 10), 31.25, "-mfloat-abi=hard"),
    riscv("RV32", "rv32imac"),
    riscv("RV32V", "rv32imac_zve32x", "-cpu", "rv32,v=true,vext_spec=v1.0,vlen=128"),
)}
LONG_VECTORS = riscv("RV32V-512", "rv32imac_zve32x", "-cpu", "rv32,v=true,vext_spec=v1.0,vlen=512")  # RV32V with longer registers

SCRIPT = """MEMORY {{ FLASH (rx) : ORIGIN = {flash[0]:#x}, LENGTH = {flash[1]} RAM (rw) : ORIGIN = {ram[0]:#x}, LENGTH = {ram[1]} }}
SECTIONS {{
  .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.srodata*) }} > FLASH
  .data : {{ . = ALIGN(4); bare_data = .; *(.data*) *(.sdata*) . = ALIGN(4); bare_data_end = .; }} > RAM AT > FLASH
  bare_data_load = LOADADDR(.data);
  .bss (NOLOAD) : {{ . = ALIGN(4); bare_bss = .; *(.bss*) *(.sbss*) *(COMMON) . = ALIGN(8); bare_bss_end = .; }} > RAM
  bare_stack_low = bare_bss_end;
  bare_stack_top = {ram[0]:#x} + {stack_top};
  /DISCARD/ : {{ *(.ARM.exidx*) *(.eh_frame*) *(.comment*) }}
}}
"""


def write_feed(path, batches):
    """The steps as constants: each image once, and the order in which they come, so that long runs fit a small flash."""
    counts, labels, order, numbers = [], [], [], {}
    for images, classes in batches:
        counts.append(len(classes))
        labels += list(classes)
        order += [numbers.setdefault(image.tobytes(), len(numbers)) for image in images]
    with open(path, "w", encoding="ascii") as file:
        file.write(f"#define FEED_STEPS {len(counts)}\n")
        for kind, name, values in (("uint8_t", "feed_n", counts), ("uint8_t", "feed_labels", labels), ("uint16_t", "feed_order", order)):
            file.write(f"static const {kind} {name}[] = {{{','.join(map(str, values))}}};\n")
        file.write(f"static const uint8_t feed_pixels[] = {{{','.join(','.join(map(str, image)) for image in numbers)}}};\n")


def link(board, folder, program, *arguments):
    """A program from C and objects, at the board's addresses. Flash and RAM are all that is there."""
    if not shutil.which(board.compiler):
        pytest.fail(f"{board.compiler} is not there: run scripts/setup.sh test")
    script = os.path.join(folder, f"{board.name}.ld")
    with open(script, "w", encoding="ascii") as file:
        file.write(SCRIPT.format(flash=board.flash, ram=board.ram, stack_top=board.ram[1]))
    # gcc would look for a library of its own for rv32imac_zve32x, and take that of RV64.
    library = call(board.compiler, *([*board.flags, "-march=rv32imac"] if board.riscv else board.flags), "-print-libgcc-file-name").decode().strip()
    call(board.compiler, "-std=gnu99", "-ffreestanding", "-nostdlib", "-static", *board.flags, *arguments, library, "-I", HERE, "-Wl,--gc-sections",
         "-T", script, "-o", program)


def build(job, board, optimise="-O2", out="c"):
    """The program of a job for a board."""
    write_feed(job.path("feed.h"), job.batches())
    program, library = job.path(f"{board.name}.elf"), job.path(f"{board.name}.o")
    call(board.compiler, *WARNINGS, optimise, "-ffunction-sections", *board.flags, "-c", job.path(out, f"{job.name}.c"), "-o", library)
    link(board, job.path(), program, "-O1", *job.defines(out), "-I", job.path(), os.path.join(HERE, "bare.c"), library)
    return program


RUNTIME = os.path.join(ROOT, "src", "export", "runtime")


def build_kernels(folder, board, optimise, runtime=RUNTIME):
    """The program that compares kernels with portable C."""
    program, twin = os.path.join(folder, "kernels.elf"), os.path.join(folder, "portable.o")
    source, include = os.path.join(HERE, "kernels.c"), ["-I", runtime]
    call(board.compiler, *WARNINGS, "-O1", *board.flags, *include, "-DRT_PORTABLE", "-c", source, "-o", twin)
    link(board, folder, program, optimise, *include, source, twin)
    return program


def output(board, program):
    """The lines of two words that it printed: {first: second}."""
    if not shutil.which(board.emulator[0]):
        pytest.fail(f"{board.emulator[0]} is not there: run scripts/setup.sh test")
    result = subprocess.run([*board.emulator, "-kernel", program], capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL)
    lines = dict(line.rsplit(maxsplit=1) for line in (result.stdout + result.stderr).splitlines() if " " in line)
    assert lines, f"{result.stdout}{result.stderr}"
    return lines


def run(board, program):
    """What it printed: {"hash": ..., "stack": bytes, "predict": instructions, "train": instructions}."""
    lines = output(board, program)
    assert "hash" in lines, lines
    found = {"hash": lines["hash"], "stack": int(lines["stack"])}
    for key in ("predict", "train"):
        found[key] = int(int(lines[key]) * board.per_tick)
    return found
