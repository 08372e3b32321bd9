#!/usr/bin/env python3
"""Checks that includes point only down: cli -> export -> train -> model -> optimizer -> layer -> program ->
platform -> base, with backend between model and program.

    check_includes.py [ROOT]        check ROOT/src and ROOT/cli (default: this checkout)
    check_includes.py --self-test   prove that each kind of mistake is found

Each room below names the rooms its files may include; niti.h is open to all. Of src/backend only backend.h is seen from outside,
so no layer can reach into one backend; the tool may, to say what a CPU can do. A device's headers belong in src/backend, and so
do conditions on one (#ifdef CUDA and the like), save in base and program, whose headers C and device code share.
"""
import os
import re
import sys
import tempfile

BELOW = {
    "base": set(),
    "platform": {"base"},
    "program": {"platform", "base"},
    "ranks": {"platform", "base"},
    "backend": {"ranks", "program", "platform", "base"},
    "layer": {"program", "platform", "base"},
    "optimizer": {"layer", "program", "platform", "base"},
    "config": {"platform", "base"},
    "data": {"program", "platform", "base"},  # program: shapes and samples
    "io": {"platform", "base"},
    "model": {"optimizer", "layer", "backend", "ranks", "program", "config", "platform", "base"},
    "train": {"model", "optimizer", "layer", "backend", "ranks", "program", "config", "data", "io", "platform", "base"},
    "export": {"train", "model", "optimizer", "layer", "backend", "ranks", "program", "config", "data", "io", "platform", "base"},
    "cli": {"export", "train", "model", "optimizer", "layer", "backend", "ranks", "program", "config", "data", "io", "platform", "base"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
CONDITION = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b.*(CUDA|NVCC|HIP|OPENCL|MPI|NCCL)", re.IGNORECASE)
DEVICE_HEADER = re.compile(r"^(cuda|cublas|cudnn|hip|nccl|mpi)", re.IGNORECASE)
GENERATED = re.compile(r"\.pb-c\.h$")


def files_of(root):
    for top in ("src", "cli"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu", ".cuh", ".inc")):
                    yield os.path.join(folder, name)


def room_of(root, path):
    parts = os.path.relpath(path, root).split(os.sep)
    return parts[0] if parts[0] == "cli" else parts[1]


def resolve(root, path, name):
    """The file that `#include "name"` in path means, or None."""
    for folder in (os.path.dirname(path), os.path.join(root, "src"), os.path.join(root, "include")):
        found = os.path.normpath(os.path.join(folder, name))
        if os.path.isfile(found):
            return found
    return None


def check_line(root, path, line):
    """What is wrong with one line, or None."""
    room = room_of(root, path)
    condition = CONDITION.match(line)
    if condition and room not in ("backend", "ranks", "program", "base"):
        return f"a condition on {condition.group(1)} belongs in src/backend"
    include = INCLUDE.match(line)
    if not include:
        return None
    quoted, system = include.groups()
    if system:
        return f"<{system}> belongs in src/backend" if DEVICE_HEADER.match(system) and room not in ("backend", "ranks") else None
    if GENERATED.search(quoted):
        return None if room == "io" else f'"{quoted}" is for io alone'
    found = resolve(root, path, quoted)
    if not found:
        return f'"{quoted}" is no file of this repository'
    inside = os.path.relpath(found, root).replace(os.sep, "/")
    if inside == "include/niti.h":
        return None
    target = room_of(root, found)
    if target == room:
        return None
    if target not in BELOW[room]:
        return f'{room} must not include "{quoted}": {target} is not below it'
    if target == "backend" and room != "cli" and inside != "src/backend/backend.h":
        return f'"{quoted}": of src/backend, {room} may include backend.h alone'
    return None


def check(root):
    problems, count = [], 0
    for path in files_of(root):
        count += 1
        place = os.path.relpath(path, root)
        if room_of(root, path) not in BELOW:
            problems.append(f"{place}:1: in no known room; add it to BELOW in scripts/check_includes.py")
            continue
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                problem = check_line(root, path, line)
                if problem:
                    problems.append(f"{place}:{number}: {problem}")
    return problems, count


def self_test():
    good = {
        "include/niti.h": "",
        "src/base/a.h": '#include "niti.h"\n#include <stdint.h>\n#ifdef __CUDACC__\n#endif\n',
        "src/platform/p.h": '#include "base/a.h"\n',
        "src/program/program.h": '#include "platform/p.h"\n',
        "src/backend/backend.h": '#include "program/program.h"\n',
        "src/backend/cpu/cpu.h": '#include "../backend.h"\n#ifdef NITI_CUDA\n#include <cuda.h>\n#endif\n',
        "src/layer/lowering.h": '#include "program/program.h"\n',
        "src/optimizer/o.c": '#include "layer/lowering.h"\n',
        "src/model/m.c": '#include "optimizer/o.c"\n#include "backend/backend.h"\n',
        "src/io/e.c": '#include "tensorboard.pb-c.h"\n',
        "cli/main.c": '#include "niti.h"\n#include "base/a.h"\n',
    }
    bad = {
        "upward": ("src/base/b.c", '#include "backend/backend.h"\n', 1),
        "from the floor to the system": ("src/base/b.c", '#include "../platform/p.h"\n', 1),
        "sideways": ("src/data/d.c", '\n#include "../io/e.c"\n', 2),
        "to the tool": ("src/train/t.c", '#include "../../cli/main.c"\n', 1),
        "from a program to its backend": ("src/program/k.c", '#include "backend/backend.h"\n', 1),
        "from a layer to a backend": ("src/layer/k.c", '#include "backend/backend.h"\n', 1),
        "from a backend to a layer": ("src/backend/k.c", '#include "layer/lowering.h"\n', 1),
        "from a layer to an optimiser": ("src/layer/k.c", '#include "optimizer/o.c"\n', 1),
        "from an optimiser to the model": ("src/optimizer/k.c", '#include "model/m.c"\n', 1),
        "into one backend": ("src/model/k.c", '#include "backend/cpu/cpu.h"\n', 1),
        "condition": ("src/layer/k.c", "int a;\n#if defined(NITI_CUDA)\n#endif\n", 2),
        "device header": ("src/layer/k.c", "#include <cuda_runtime.h>\n", 1),
        "missing": ("src/layer/k.c", '#include "base/nowhere.h"\n', 1),
        "unknown room": ("src/attic/k.c", "int a;\n", 1),
    }
    failures = []
    for name, extra in [("good", None), *bad.items()]:
        with tempfile.TemporaryDirectory() as root:
            for path, text in [*good.items(), *([extra[:2]] if extra else [])]:
                path = os.path.join(root, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            problems, _ = check(root)
            expected = [f"{extra[0]}:{extra[2]}: "] if extra else []
            if len(problems) != len(expected) or any(not p.startswith(e) for p, e in zip(problems, expected)):
                failures.append(f"self-test '{name}': found {problems}, expected {expected}")
    print("\n".join(failures) or f"check_includes: self-test passed: {len(bad)} kinds of mistake found")
    return bool(failures)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    problems, count = check(root)
    print("\n".join(problems) or f"check_includes: {count} files checked")
    return bool(problems) or count == 0


sys.exit(main())
