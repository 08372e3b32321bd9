"""examples/: a program to flash for each layout. Each is made as its Makefile says, built, and learns the bits that the host does."""

import os
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import NITI, ROOT, call, niti, niti_json, write_npy

LAYOUTS = ["arduino", "cmake", "cmsis-pack", "platformio", "zephyr"]
STEPS = 400
ARM = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding"]

# Of the frameworks, what the programs use: on this machine it runs, for a board it is compiled.
ARDUINO = """#include <stdint.h>
#ifdef __arm__
struct Port { void begin(long); void print(const char *); void print(int); void println(const char *); };
extern Port Serial;
#else
#include <cstdio>
static struct Port { void begin(long) {} void print(const char *s) { std::fputs(s, stdout); } void print(int v) { std::printf("%d", v); }
  void println(const char *s) { std::puts(s); } } Serial;
void setup();
void loop();
int main() { setup(); loop(); }
#endif
"""
PRINTK = "#ifdef __arm__\nvoid printk(const char *format, ...);\n#else\n#include <stdio.h>\n#define printk printf\n#endif\n#include <stdint.h>\n"
STDIO = "int printf(const char *format, ...);\n"


def image(n):
    """What lesson.h draws, by its comment and its numbers: [12, 12] and a label."""
    state, label, pixels = (n * 2654435761 + 1) % 2**32, n % 4, np.zeros((12, 12), np.uint8)
    start = state >> 16
    for y in range(12):
        for x in range(12):
            at = [y, x, x + y, x + 12 - y][label] + start
            state = (state * 1664525 + 1013904223) % 2**32
            pixels[y, x] = (150 if at // 2 % 2 else 40) + (state >> 26)
    return pixels, label


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """(accuracy before, after, hash): of the same training on the host, by replay and eval."""
    folder = tmp_path_factory.mktemp("expected")
    niti("export", "c", os.path.join(ROOT, "examples", "lesson", "recipe.yaml"), "--out", folder / "c")
    train, test = [image(n) for n in range(STEPS)], [image(n) for n in range(1000000, 1000100)]
    for name, images in (("train", train), ("test", test)):
        write_npy(folder / name, np.stack([pixels for pixels, _ in images])[..., None], np.array([label for _, label in images]), test=100)
    (folder / "log").write_text("".join(f"{n}:{n % 4}\n" for n in range(STEPS)))
    start, end = folder / "c" / "stripes.safetensors", folder / "end.safetensors"
    report = niti_json("replay", folder / "log", start, "--data", folder / "train", "--out", end)
    score = lambda network: round(niti_json("eval", network, "--data", folder / "test")["test_accuracy"])  # noqa: E731
    return score(start), score(end), report["hash"]


@pytest.fixture
def example(tmp_path):
    """A copy of the examples, in which a layout's Makefile is run."""
    for name in ("lesson", *LAYOUTS):
        shutil.copytree(os.path.join(ROOT, "examples", name), tmp_path / name, ignore=shutil.ignore_patterns("network", "build"))

    def made(layout, *targets):
        call("make", *targets, f"NITI={NITI}", cwd=tmp_path / layout)
        return tmp_path / layout

    return made


def said(text):
    return re.fullmatch(r"before: (\d+) of 100 right\s+after: (\d+) of 100 right\s+([0-9a-f]{64})\s*", text).groups()


def check(text, expected):
    before, after, hash_ = said(text)
    assert (int(before), int(after), hash_) == expected
    assert int(after) >= 90 > int(before) + 40


def test_every_layout_has_its_folder():
    found = sorted(name for name in os.listdir(os.path.join(ROOT, "examples")) if os.path.exists(os.path.join(ROOT, "examples", name, "Makefile")))
    assert found == LAYOUTS
    listed = call("git", "-C", ROOT, "ls-files", "examples").decode().split() if os.path.exists(os.path.join(ROOT, ".git")) else []
    assert not [name for name in listed if "/network/" in name or "/build/" in name]


def test_cmake_learns_on_an_emulated_board(example, expected):
    """The very program that is flashed, on QEMU's micro:bit with its 16 KB of RAM."""
    folder = example("cmake")
    assert (folder / "build" / "train.hex").read_text().startswith(":")
    command = re.search(r"\tqemu-system-arm (.*)", (folder / "Makefile").read_text()).group(1)
    with open(folder / "output", "wb") as output, subprocess.Popen(["qemu-system-arm", *command.split()], cwd=folder, stdout=output, stdin=subprocess.DEVNULL) as board:
        for _ in range(600):
            if (folder / "output").read_bytes().count(b"\n") >= 3 or board.poll() is not None:
                break
            time.sleep(0.1)
        board.kill()
    check((folder / "output").read_text(), expected)


@pytest.mark.parametrize("layout", ["arduino", "cmsis-pack", "platformio", "zephyr"])
def test_others_learn_here_and_compile_for_a_board(layout, example, expected):
    """With the folders that the layout's build system adds to the search, and nothing else."""
    folder = example(layout)
    example(layout)  # a second time changes nothing
    program, language, include = {
        "arduino": ("train/train.ino", "c++", []), "cmsis-pack": ("main.c", "c", ["."]), "platformio": ("src/main.cpp", "c++", ["include", "src"]),
        "zephyr": ("src/main.c", "c", [])}[layout]
    (folder / "headers" / "zephyr").mkdir(parents=True)
    (folder / "board").mkdir()
    (folder / "headers" / "Arduino.h").write_text(ARDUINO)
    (folder / "headers" / "zephyr" / "kernel.h").write_text(PRINTK)
    (folder / "board" / "stdio.h").write_text(STDIO)
    source = ["-x", language, *(["-include", "Arduino.h"] if layout == "arduino" else []), folder / program]
    search = [f"-I{folder / name}" for name in ("headers", "network/src", *include)]
    compilers = {"c": ("gcc", "arm-none-eabi-gcc", "-std=c99"), "c++": ("g++", "arm-none-eabi-g++", "-std=c++11")}[language]
    call("gcc", "-std=c99", "-O2", "-c", folder / "network" / "src" / "stripes.c", "-o", folder / "stripes.o")
    call(compilers[0], compilers[2], "-Wall", "-Werror", *search, *source, "-x", "none", folder / "stripes.o", "-o", folder / "here")
    check(call(folder / "here").decode(), expected)
    call("arm-none-eabi-gcc", *ARM, "-std=c99", "-Os", "-c", folder / "network" / "src" / "stripes.c", "-o", folder / "stripes-arm.o")
    call(compilers[1], *ARM, compilers[2], "-Os", f"-I{folder / 'board'}", *search, "-c", *source, "-o", folder / "program-arm.o")
    undefined = {line.split()[-1] for line in call("arm-none-eabi-nm", "-u", folder / "program-arm.o").decode().splitlines()}
    assert {"stripes_init", "stripes_train", "stripes_hash"} <= undefined


def test_cmsis_pack_names_what_is_there(example):
    """The solution takes the exported pack by its name, and the component by the names of its description."""
    folder = example("cmsis-pack")
    solution, project = (folder / "train.csolution.yml").read_text(), (folder / "train.cproject.yml").read_text()
    pack = (folder / "network" / "niti.stripes.pdsc").read_text()
    vendor, name = re.search(r"<vendor>(.*)</vendor>\s*<name>(.*)</name>", pack).groups()
    assert f"pack: {vendor}::{name}\n      path: ./network" in solution
    parts = re.search(r'Cclass="(.*?)" Cgroup="(.*?)" Csub="(.*?)"', pack).groups()
    assert f"component: {vendor}::{':'.join(parts)}" in project


def test_zephyr_finds_the_module(example):
    folder = example("zephyr")
    module = (folder / "network" / "zephyr" / "module.yml").read_text()
    assert "name: stripes" in module and "${CMAKE_CURRENT_SOURCE_DIR}/network" in (folder / "CMakeLists.txt").read_text()
    assert "default y" in (folder / "network" / "Kconfig").read_text()


def test_platformio_and_arduino_find_the_library(example):
    assert "lib_deps = symlink://network\n" in (example("platformio") / "platformio.ini").read_text()
    assert (example("platformio") / "network" / "library.json").exists()
    assert "includes=stripes.h" in (example("arduino") / "network" / "library.properties").read_text()
