"""Exported networks on emulated boards: the same bits, in the memory that was announced, and no more instructions than before."""

import dataclasses
import os
import re
import shutil
import subprocess

import boards
import networks as nets
import pytest
from conftest import WARNINGS, Job, call

STEPS = 2000 if os.environ.get("NITI_TEST_SLOW") else 50
IMAGES = 60 if os.environ.get("NITI_TEST_SLOW") else None  # as many as a small flash holds; None: enough for the steps
JOBS = {
    "a": (nets.A, {}),
    "a-long": (nets.A, {"max_steps": STEPS, "images": IMAGES}),
    "a-8": (nets.A, {"batch": 8, "max_steps": 10}),
    "b": (nets.B, {"max_steps": 8}),
    "b-8": (nets.B, {"batch": 8, "max_steps": 3}),
    "residual": (nets.RESIDUAL, {"batch": 2, "max_steps": STEPS, "images": IMAGES}),
    "depthwise": (nets.DEPTHWISE, {"batch": 2, "max_steps": STEPS, "images": IMAGES, "freeze": ["conv1", "conv2"]}),
    "border": (nets.BORDER, {"batch": 2, "max_steps": 10}),
    "beyond": (nets.BEYOND, {"batch": 2, "max_steps": 10}),
    "lenet": (nets.LENET, {"batch": 2, "max_steps": 10}),
    "pools": (nets.POOLS, {"batch": 2, "rounding": {"activation": "stochastic", "error": "pseudo-stochastic"}, "loss": "softmax", "max_steps": 20}),
}

# Instructions of the last prediction and training step, as counted when this was written.
COUNTS = {
    ("a", "M3"): (921120, 1829720), ("a", "RV32"): (1434390, 2410718), ("a-8", "M4"): (511280, 9013120), ("b", "M3"): (5798920, 12119080),
    ("b", "M4"): (3091320, 7917080), ("b", "M7"): (3082760, 7870200), ("b", "M55"): (1086531, 3974375), ("b", "RV32"): (9518480, 16444500),
    ("b-8", "M55"): (1086531, 3726468), ("pools", "M33"): (903750, 8047100), ("lenet", "M4"): (753400, 4210840),
    ("lenet", "M33"): (753300, 4209300), ("lenet", "M55"): (329750, 2447468), ("residual", "M3"): (485280, 2690160),
    ("residual", "M4"): (330680, 2160440), ("residual", "M7"): (330360, 2149800), ("residual", "M33"): (331100, 2163300),
    ("residual", "M55"): (218093, 1563718), ("residual", "RV32"): (645568, 3144870), ("depthwise", "M3"): (360720, 751160),
    ("depthwise", "M4"): (352680, 737120), ("depthwise", "M7"): (353520, 736720), ("depthwise", "M33"): (355300, 742550),
    ("depthwise", "M55"): (282687, 594687), ("depthwise", "RV32"): (371386, 766338), ("a", "RV32V"): (194475, 532141), ("b", "RV32V"): (790401, 2504254),
    ("lenet", "RV32V"): (279602, 1718861), ("residual", "RV32V"): (172075, 1216752), ("depthwise", "RV32V"): (266458, 556611),
}

RUNS = [("a", "M0"), ("a", "M3"), ("a", "RV32"), ("a-8", "M4"), ("b", "M3"), ("b", "M4"), ("b", "M7"), ("b", "M55"), ("b", "RV32"), ("b-8", "M55"),
        ("pools", "M33"), ("lenet", "M4"), ("lenet", "M33"), ("lenet", "M55")]
RUNS += [(name, "RV32V") for name in ("a", "a-8", "b", "pools", "lenet")]
RUNS += [(name, board) for name in ("border", "beyond") for board in ("M3", "M4", "M55", "RV32V")]
RUNS += [(name, board) for name in ("residual", "depthwise") for board in boards.BOARDS]
if os.environ.get("NITI_TEST_SLOW"):
    RUNS += [("a-long", board) for board in boards.BOARDS]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def job(name):
        if name not in made:
            model, recipe = JOBS[name]
            made[name] = Job(tmp_path_factory.mktemp(name), model, **recipe)
            made[name].report, made[name].hash = made[name].export(), made[name].host_hash()
        return made[name]

    return job


@pytest.mark.parametrize("name, board", RUNS, ids=["-".join(r) for r in RUNS])
def test_board(name, board, jobs):
    job, board = jobs(name), boards.BOARDS[board]
    found = boards.run(board, boards.build(job, board))
    assert found["hash"] == job.hash
    assert found["stack"] <= job.report["stack"]
    if (name, board.name) in COUNTS:
        for key, expected in zip(("predict", "train"), COUNTS[name, board.name]):
            assert found[key] <= 1.03 * expected, f"{key}: {found[key]} instructions, {expected} when this was written"


@pytest.mark.parametrize("name", ["a", "residual"])
def test_bits_do_not_depend_on_the_length_of_vectors(name, jobs):
    job, board = jobs(name), boards.LONG_VECTORS
    assert boards.run(board, boards.build(job, board))["hash"] == job.hash


TWINS = [("RV32V", "-O2"), ("RV32V", "-Os"), ("M3", "-O2"), ("M4", "-O2"), ("M55", "-O2")]


@pytest.mark.parametrize("board, level", [(boards.BOARDS[name], level) for name, level in TWINS] + [(boards.LONG_VECTORS, "-O2")],
                         ids=["-".join(t) for t in TWINS] + ["long vectors"])
def test_kernels_beside_portable_c(board, level, tmp_path):
    """Every kernel at every length up to 70 and some larger ones, at all alignments, on random mantissas, on +-127 and on 127 alone."""
    assert int(boards.output(board, boards.build_kernels(str(tmp_path), board, level))["same"]) == 240 * 12


def test_kernels_on_short_vectors(tmp_path):
    """QEMU has no vectors of 32 bits: groups of a quarter of the registers, of 128 bits each, hold as many elements."""
    runtime, board = str(tmp_path / "runtime"), boards.BOARDS["RV32V"]
    shutil.copytree(boards.RUNTIME, runtime)
    header = os.path.join(runtime, "niti_rt_rvv.h")
    quarter = {"m8": "m2", "m4": "m1", "m2": "mf2", "m1": "mf4", "mf2": "mf8"}
    with open(header, encoding="utf-8") as file:
        text, changed = re.subn(r"(vsetvli .*, )(m\d|mf2)(, ta)", lambda m: m[1] + quarter[m[2]] + m[3], file.read())
    assert changed > 20
    with open(header, "w", encoding="utf-8") as file:
        file.write(text)
    assert int(boards.output(board, boards.build_kernels(str(tmp_path), board, "-O2", runtime))["same"]) == 240 * 12


UNOPTIMISED_STACK = 1280  # as docs/microcontrollers.md has it
LEVELS = [(name, board, "-O0") for name, board in (("a", "M0"), ("pools", "M3"), ("pools", "M4"), ("pools", "M7"), ("pools", "M33"), ("pools", "M55"), ("pools", "RV32"),
                                                   ("residual", "RV32"), ("residual", "M4"))]
LEVELS += [("pools", board, level) for board, level in (("M3", "-Og"), ("M4", "-O1"), ("M4", "-Og"), ("M33", "-O3"), ("RV32", "-Og"), ("RV32", "-Os"), ("RV32V", "-O0"),
                                                 ("RV32V", "-Os"))]


@pytest.mark.parametrize("name, board, level", LEVELS, ids=["-".join(r) for r in LEVELS])
def test_levels_of_optimisation(name, board, level, jobs):
    """Without any, the kernels are portable, and calls take more of the stack."""
    job, board = jobs(name), boards.BOARDS[board]
    found = boards.run(board, boards.build(job, board, level))
    assert found["hash"] == job.hash
    assert found["stack"] <= (UNOPTIMISED_STACK if level == "-O0" else job.report["stack"])


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m3", "cortex-m4"])
@pytest.mark.parametrize("optimise", ["-O0", "-O2", "-Os"])
def test_clang_takes_it_too(cpu, optimise, jobs):
    job = jobs("a")
    call("clang", "--target=arm-none-eabi", f"-mcpu={cpu}", "-mthumb", *WARNINGS, optimise, "-c", job.path("c", "a.c"), "-o", job.path("clang.o"))


@pytest.mark.parametrize("compiler", [[boards.RISCV], ["clang", "--target=riscv32-unknown-elf"]], ids=["gcc", "clang"])
def test_vectors_without_floating_point(compiler, jobs):
    """Whatever else the whole extension brings, the kernels are of integers."""
    job = jobs("residual")
    call(*compiler, "-march=rv32imacv", "-mabi=ilp32", *WARNINGS, "-O2", "-c", job.path("c", "residual.c"), "-o", job.path("march.o"))
    used = operations(boards.RISCV[:-3], job.path("march.o"))
    assert {"vwmul.vv", "vwredsum.vs", "vwmacc.vx"} <= used
    assert not [o for o in used if o.startswith(("f", "vf")) and not o.startswith("fence")]


KEPT = ["-ffixed-r9", "-fno-omit-frame-pointer"]


@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4", "cortex-m33"])
@pytest.mark.parametrize("optimise", ["-O2", "-Os"])
def test_registers_that_are_kept(cpu, optimise, jobs):
    """A base register or a frame pointer leaves the kernels enough; for both at once there is RT_PORTABLE."""
    job, arm = jobs("b"), [f"-mcpu={cpu}", "-mthumb", *WARNINGS, optimise]
    for kept in KEPT:
        call(boards.ARM, *arm, kept, "-c", job.path("c", "b.c"), "-o", job.path("kept.o"))
    for compiler in ([boards.ARM], ["clang", "--target=arm-none-eabi"]):
        call(*compiler, *arm, *KEPT, "-DRT_PORTABLE", "-c", job.path("c", "b.c"), "-o", job.path("kept.o"))


@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"])
@pytest.mark.parametrize("flags", [["-O0"], ["-O0", "-ffixed-r9"], ["-O0", "-mfloat-abi=hard"], ["-Og", "-mfloat-abi=hard"], ["-O2", "-mfloat-abi=hard"], ["-O0", *KEPT]], ids="".join)
def test_every_level_compiles(cpu, flags, jobs):
    """As a debugger or a build system may have it."""
    if cpu == "cortex-m3":
        flags = [flag for flag in flags if "float" not in flag]
    job = jobs("b")
    call(boards.ARM, f"-mcpu={cpu}", "-mthumb", *WARNINGS, *flags, "-c", job.path("c", "b.c"), "-o", job.path("level.o"))


@pytest.mark.parametrize("kept", KEPT)
def test_bits_with_registers_that_are_kept(kept, jobs):
    job, board = jobs("a"), boards.BOARDS["M4"]
    assert boards.run(board, boards.build(job, dataclasses.replace(board, flags=[*board.flags, kept])))["hash"] == job.hash


def test_context_is_as_large_as_announced(jobs):
    job, board = jobs("a"), boards.BOARDS["M3"]
    source = job.path("size.c")
    with open(source, "w", encoding="ascii") as file:
        file.write(f'#include "a.h"\nchar context[sizeof(a) == {job.report["context"]} ? 1 : -1];\nchar arena[A_ARENA_BYTES == {job.report["arena"]} ? 1 : -1];\n')
    call(board.compiler, *board.flags, "-I", job.path("c"), "-c", source, "-o", job.path("size.o"))


def operations(tool, path):
    """The names of an object file's instructions."""
    code = call(tool + "objdump", "-d", "--no-show-raw-insn", path).decode()
    return {line.split("\t")[1].strip() for line in code.splitlines() if line.count("\t") >= 1}


@pytest.mark.parametrize("board", ["M0", "M3", "M4", "RV32", "RV32V"])
def test_no_library_and_no_floating_point(board, jobs):
    """Only memcpy is undefined, besides the compiler's own 64-bit arithmetic, and no instruction is of floating point."""
    job, board = jobs("residual"), boards.BOARDS[board]
    boards.build(job, board, "-Os")
    tool = board.compiler[:-3]
    undefined = {line.split()[-1] for line in call(tool + "nm", "-u", job.path(f"{board.name}.o")).decode().splitlines()}
    allowed = {"memcpy", "__aeabi_lmul", "__aeabi_llsl", "__aeabi_lasr", "__aeabi_llsr", "__aeabi_idiv", "__aeabi_idivmod", "__aeabi_uidiv",
               "__aeabi_uidivmod", "__gnu_thumb1_case_uqi", "__gnu_thumb1_case_sqi", "__muldi3", "__ashldi3", "__ashrdi3", "__lshrdi3"}
    assert undefined <= allowed, undefined - allowed
    used = operations(tool, job.path(f"{board.name}.o"))
    assert not [o for o in used if o.startswith(("vf", "f") if board.name == "RV32V" else ("v", "f")) and not o.startswith("fence")]


def test_no_state_outside_the_context(jobs):
    """Nothing writable: no data and no bss."""
    job, board = jobs("residual"), boards.BOARDS["M3"]
    boards.build(job, board)
    sizes = subprocess.run(["arm-none-eabi-size", job.path("M3.o")], capture_output=True, text=True, check=True).stdout.splitlines()[1].split()
    assert sizes[1:3] == ["0", "0"]


@pytest.mark.parametrize("board", ["M4", "M55", "RV32", "RV32V"])
@pytest.mark.parametrize("name", ["lenet", "pools", "depthwise"])
def test_all_constants_go_where_they_are_sent(name, board, jobs):
    """NAME_CONST reaches weights, plans, names and the runtime's tables: what is left is code."""
    job, board = jobs(name), boards.BOARDS[board]
    section = f'-D{job.name.upper()}_CONST=__attribute__((section(".elsewhere")))'
    for level in ("-O0", "-O2"):
        call(board.compiler, *board.flags, *WARNINGS, level, section, "-c", job.path("c", f"{job.name}.c"), "-o", job.path("sections.o"))
        rows = [line.split() for line in call(board.compiler[:-3] + "objdump", "-h", job.path("sections.o")).decode().splitlines()]
        kept = {row[1]: int(row[2], 16) for row in rows if row and row[0].isdigit() and int(row[2], 16) > 0}
        assert kept[".elsewhere"] > 1000 and not [name for name in kept if "data" in name or "bss" in name], kept
