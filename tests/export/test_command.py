"""The command: what it writes, what it reports, and what it refuses before a file is written."""

import hashlib
import os
import re
import resource
import subprocess
from xml.etree import ElementTree

import formulas
import networks as nets
import pytest
from conftest import NITI, ROOT, WARNINGS, Job, call, files_opened, niti_json
from hardware import load


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("command"), nets.RESIDUAL)


def refused(job, *options, model=None):
    """The message with which the export fails; nothing is written."""
    out = job.path("refused")
    result = subprocess.run([NITI, "export", "c", model or job.path("recipe.yaml"), "--out", out, *map(str, options)], capture_output=True, text=True,
                            check=False)
    assert result.returncode in (1, 2) and result.stdout == "" and result.stderr.count("\n") <= 2, result
    assert not os.path.exists(out)
    return result.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("optimise", ["-O0", "-O2", "-Os"])
@pytest.mark.parametrize("model", [nets.RESIDUAL, nets.POOLS], ids=["residual", "pools"])
def test_no_warning_and_the_same_bits(compiler, optimise, model, tmp_path):
    job = Job(tmp_path, model, max_steps=6, batch=3)
    job.export()
    assert job.c_hash(compiler, "c", optimise, "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes") == job.host_hash()


def identity(folder, model=nets.RESIDUAL, options=(), **recipe):
    job = Job(folder, model, **recipe)
    job.export("c", *options)
    with open(job.path("c", f"{model['name']}.h"), encoding="utf-8") as file:
        return next(line.split("0x")[1][:8] for line in file if f"{model['name'].upper()}_NETWORK" in line)


def test_a_state_is_of_one_network(tmp_path):
    """Batches and memory may change under a saved state; what gives its weights another meaning may not."""
    own = identity(tmp_path / "own")
    same = [{"batch": 3}, {"epochs": 7}, {"options": ("--memory", "fast")}]
    assert {identity(tmp_path / f"same{i}", **change) for i, change in enumerate(same)} == {own}
    average = {**nets.RESIDUAL, "layers": [{"avgpool": {"kernel": 1}}, *nets.RESIDUAL["layers"]]}
    others = [{"model": average}, {"seed": 4}, {"loss": "softmax"}, {"rounding": {"activation": "stochastic"}},
              {"data": {"mean": [0.5, 0.4], "std": [0.25, 0.25]}}, {"data": {"mean": [0.5, 0.5], "std": [0.25, 0.3]}}]
    found = [identity(tmp_path / f"other{i}", **change) for i, change in enumerate(others)]
    assert len({own, *found}) == 1 + len(others)


@pytest.mark.parametrize("model", [nets.POOLS, nets.BORDER, nets.BEYOND], ids=lambda model: model["name"])
def test_sanitizers_find_nothing(model, tmp_path):
    job = Job(tmp_path, model, max_steps=6, batch=3, rounding={"activation": "stochastic", "error": "truncate"})
    job.export()
    assert job.c_hash("gcc", "c", "-fsanitize=address,undefined", "-fno-sanitize-recover=all") == job.host_hash()


RATES = """
#include "residual.h"
#include <stdio.h>
#include <string.h>
static residual network;
static int32_t arena[RESIDUAL_ARENA_BYTES / 4];
static uint8_t pixels[RESIDUAL_HEIGHT * RESIDUAL_WIDTH * RESIDUAL_CHANNELS];
static int asked;
static void row(void *user, int32_t image, int32_t y, uint8_t *to) {
  (void)user, (void)image, (void)y;
  ++asked;
  memset(to, 77, RESIDUAL_WIDTH * RESIDUAL_CHANNELS);
}
int main(void) {
  static const int32_t wrong[] = {31, -1, 100000, -100000, INT32_MAX, INT32_MIN};
  const uint16_t label = 1;
  char before[65], after[65];
  residual_init(&network, arena);
  residual_hash(&network, before);
  for (int i = 0; i < 6; ++i) {
    network.mu = wrong[i];
    if (residual_train(&network, pixels, &label, 1) != -1 || residual_train_rows(&network, row, NULL, &label, 1) != -1) return 1;
    if (residual_predict(&network, pixels, NULL) < 0) return 2;
  }
  residual_hash(&network, after);
  if (asked || network.step != 0 || strcmp(before, after) != 0) return 3;
  for (network.mu = 0; network.mu <= 30; network.mu += 30)
    if (residual_train(&network, pixels, &label, 1) < 0) return 4;
  return network.step != 2;
}
"""


def test_a_rate_out_of_range_trains_nothing(tmp_path):
    """-1, no step and no row asked for; the ends of the range do train, and nothing overflows there."""
    job = Job(tmp_path, nets.RESIDUAL)
    job.export()
    with open(job.path("rates.c"), "w", encoding="ascii") as file:
        file.write(RATES)
    call("gcc", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-I", job.path("c"), job.path("rates.c"), job.path("c", "residual.c"), "-o", job.path("rates"))
    call(job.path("rates"))


@pytest.mark.parametrize("train, trained", [("all", 7), ("last:1", 1), ("last:3", 3), ("conv2,linear1", 2), ("none", 0)])
def test_what_is_trained(train, trained, tmp_path):
    freeze = {"last:1": 6, "last:3": 4}.get(train)
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "linear1"]
    frozen = names[:freeze] if freeze else [n for n in names if n not in train] if "," in train else []
    job = Job(tmp_path, nets.RESIDUAL, max_steps=8, freeze=frozen)
    report = niti_json("export", "c", job.path("recipe.yaml"), "--out", job.path("c"), "--train", train)
    assert report["trained"] == trained and report["layers"] == 7
    if train == "none":
        call("gcc", *WARNINGS, "-c", job.path("c", "residual.c"), "-o", job.path("x.o"))
        assert "train" not in call("nm", job.path("x.o")).decode()
    else:
        assert job.c_hash() == job.host_hash()


def test_fast_has_the_same_bits_and_keeps_to_its_budget(tmp_path):
    job = Job(tmp_path, nets.A, max_steps=10, batch=2)
    least, fast = job.export("c"), job.export("fast", "--memory", "fast")
    between = job.export("between", "--memory", "fast", "--budget", fast["ram"] - 4)
    assert least["ram"] <= between["ram"] < fast["ram"] and len({job.c_hash("gcc", out) for out in ("c", "fast", "between")} | {job.host_hash()}) == 1
    assert job.export("c", "--budget", least["ram"])["ram"] == least["ram"]
    small = job.export("small", "--budget", least["ram"] - 1)  # time for memory
    assert small["ram"] < least["ram"] and job.c_hash("gcc", "small") == job.host_hash()
    smallest = job.export("smallest", "--budget", small["ram"])["ram"]
    while True:
        result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--batch", "2", "--out", job.path("smallest"), "--budget", str(smallest - 1)],
                                capture_output=True, text=True, check=False)
        if result.returncode != 0:
            break
        smallest = int(result.stdout.split("RAM")[1].split()[0])
    assert "more than the budget of" in result.stderr and "a needs" in result.stderr and job.c_hash("gcc", "smallest") == job.host_hash()
    assert "backward of conv2" in refused(job, "--budget", 9000)


def test_no_budget_above_the_smallest_plan_is_refused(tmp_path):
    """Every budget from the smallest plan on has a plan that fits, and what is reported as needed is the smallest."""
    job = Job(tmp_path, nets.B)

    def ram(budget):
        """Of the export within the budget; or (None, what it says is needed)."""
        result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("c"), "--budget", str(budget)], capture_output=True, text=True, check=False)
        found = re.search(r"RAM +(\d+) bytes|b needs (\d+) bytes", result.stdout + result.stderr).groups()
        assert (result.returncode == 0) == (found[0] is not None)
        return found[0] and int(found[0]), found[1] and int(found[1])

    most = job.export()["ram"]
    _, least = ram(1)
    assert least < most - 3000 and ram(least) == (least, None) and ram(least - 1) == (None, least)
    for budget in range(least, most + 200, 97):
        assert ram(budget)[0] is not None and least <= ram(budget)[0] <= budget
    job.export("least", "--budget", least)
    assert job.c_hash("gcc", "least") == job.host_hash()


@pytest.mark.parametrize("layout, files", [
    ("cmake", ["residual.c", "CMakeLists.txt", "examples/train/CMakeLists.txt"]),
    ("platformio", ["library.json", "src/residual.c", "examples/train/platformio.ini"]), ("arduino", ["library.properties", "src/residual.h"]),
    ("zephyr", ["zephyr/module.yml", "Kconfig", "CMakeLists.txt", "src/residual.c", "samples/train/CMakeLists.txt", "samples/train/prj.conf"]),
    ("cmsis-pack", ["niti.residual.pdsc", "src/residual.c"])])
def test_layouts(layout, files, job):
    """Each has its build files and a program that trains, which links and runs with the folder's own headers."""
    out = f"layout-{layout}"
    niti_json("export", "c", job.path("recipe.yaml"), "--out", job.path(out), "--layout", layout)
    for name in [*files, "residual.safetensors"]:
        assert os.path.getsize(job.path(out, name)) > 0
    program = {"platformio": "examples/train/src/main.cpp", "arduino": "examples/train/train.ino", "zephyr": "samples/train/src/main.c"}.get(
        layout, "examples/train/main.c")
    source, built = job.path(out, "residual.c" if layout == "cmake" else "src/residual.c"), job.path(f"built-{layout}")
    if layout == "cmake":
        call("cmake", "-S", job.path(out, "examples", "train"), "-B", job.path("built"))
        call("cmake", "--build", job.path("built"))
        built = job.path("built", "train")
    elif program.endswith(".c"):
        call("gcc", "-std=c99", job.path(out, program), source, "-I", job.path(out, "src"), "-o", built)
    else:  # of Arduino's library, what the sketch uses
        os.makedirs(job.path("headers"), exist_ok=True)
        with open(job.path("headers", "Arduino.h"), "w", encoding="ascii") as file:
            file.write("#include <cstdio>\n#include <cstdlib>\nstatic struct { void begin(long) {} void println(const char *s) { std::puts(s); std::exit(0); } } Serial;\n"
                       "static void delay(int) {}\nvoid setup();\nvoid loop();\nint main() { setup(); loop(); }\n")
        call("gcc", "-std=c99", "-c", source, "-o", job.path("net.o"))
        call("g++", "-x", "c++", "-Wno-unused-function", job.path(out, program), "-x", "none", job.path("net.o"), "-I", job.path("headers"), "-I", job.path(out, "src"),
             "-o", built)
    assert len(call(built).decode().strip()) == 64
    if layout == "cmsis-pack":  # every file that it names is there
        named = [file.get("name") for file in ElementTree.parse(job.path(out, "niti.residual.pdsc")).iter("file")]
        assert len(named) == 3 and all(os.path.exists(job.path(out, name)) for name in named)


def tree(folder):
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


def test_an_export_over_another_leaves_nothing_of_it(tmp_path):
    """Of the earlier layout's files only those that were changed, and what the user put there, stay; the list names the others."""
    job = Job(tmp_path, nets.RESIDUAL)
    out = lambda *parts: job.path("c", *parts)  # noqa: E731
    job.export("c", "--layout", "zephyr")
    earlier = tree(out())
    job.export("new", "--layout", "cmake")
    assert "samples/train/src/main.c" in earlier and "zephyr/module.yml" in earlier
    for name, text in (("samples/train/prj.conf", "CONFIG_FPU=y\n"), ("src/mine.c", "int mine;\n"), ("notes.txt", "mine\n")):
        with open(out(name), "w", encoding="ascii") as file:
            file.write(text)
    outside = job.path("outside.txt")
    with open(outside, "w", encoding="ascii") as file:
        file.write("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the SHA-256 of nothing
    with open(out("residual.sha256"), "a", encoding="ascii") as file:  # a list that was tampered with reaches nothing outside
        file.write(f"{empty}  ../outside.txt\n{empty}  {outside}\n{empty}  src/../../outside.txt\nshort\n")
    job.export("c", "--layout", "cmake")
    assert tree(out()) == tree(job.path("new")) | {"samples/train/prj.conf", "src/mine.c", "notes.txt"} and os.path.exists(outside)
    assert not os.path.exists(out("zephyr"))
    call("sha256sum", "--strict", "-c", "residual.sha256", cwd=out())


def test_a_list_of_files_is_short_and_each_is_read_once(tmp_path):
    """A stranger's list may name one large file a thousand times."""
    job = Job(tmp_path, nets.RESIDUAL)
    job.export("c")
    listed, command = job.path("c", "residual.sha256"), [NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("c")]
    with open(listed, encoding="ascii") as file:
        own = file.read()
    for name in ("one", "two"):
        with open(job.path("c", name), "w", encoding="ascii") as file:
            file.write(name)
    with open(listed, "w", encoding="ascii") as file:
        file.write(own + f"{'0' * 64}  one\n{'1' * 64}  two\n" * 300)
    opened = files_opened(job.path("log"), *command)
    assert [opened.count(f'/{name}"') for name in ("one", "two")] == [1, 1]
    assert {"one", "two"} <= tree(job.path("c"))
    with open(listed, encoding="ascii") as file:
        assert file.read() == own
    with open(listed, "w", encoding="ascii") as file:
        file.write(f"{'0' * 64}  one\n" * 1000)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and listed in done.stderr and "65536" in done.stderr, done


def test_a_strangers_list_removes_nothing_but_what_it_spells_as_exports_do(tmp_path):
    """Through a link, or by another spelling of what the new export has: each digest is right."""
    job = Job(tmp_path, nets.RESIDUAL)
    job.export("c")
    new, victim = tree(job.path("c")), tmp_path / "victim"
    victim.mkdir()
    (victim / "known").write_text("known\n")
    os.symlink(victim, job.path("c", "sub"))
    os.symlink(victim / "known", job.path("c", "alias"))

    def digest(*parts):
        with open(job.path("c", *parts), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    lines = [f"{digest(name)}  {other}" for name, other in (
        ("sub/known", "sub/known"), ("alias", "alias"), ("residual.c", "./residual.c"), ("residual.c", "include/../residual.c"), ("residual.c", "/residual.c"),
        ("residual.safetensors", "residual.safetensors"), ("niti_rt.h", ".//niti_rt.h"))]
    with open(job.path("c", "residual.sha256"), "a", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    job.export("c")
    assert new <= tree(job.path("c")) and (victim / "known").exists() and os.path.islink(job.path("c", "alias"))
    call("sha256sum", "--strict", "-c", "residual.sha256", cwd=job.path("c"))


def test_no_export_through_a_link(tmp_path):
    job, elsewhere = Job(tmp_path, nets.RESIDUAL), tmp_path / "elsewhere"
    job.export("c")
    elsewhere.mkdir()
    os.symlink(elsewhere, job.path("c", "samples"))
    done = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("c"), "--layout", "zephyr"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1 and "samples: a link" in done.stderr and not os.listdir(elsewhere), done


def test_a_failed_export_leaves_the_earlier_one(tmp_path):
    """A file that cannot be written: no other has been replaced, and nothing is left half written."""
    job = Job(tmp_path, nets.RESIDUAL)
    job.export("c")
    before = {name: open(job.path("c", name), "rb").read() for name in tree(job.path("c"))}
    os.makedirs(job.path("c", "src", "niti_rt_hash.h.tmp"))  # in the way of a file
    result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--train", "none", "--layout", "zephyr", "--out", job.path("c")], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 1 and "niti_rt_hash.h" in result.stderr
    assert {name: open(job.path("c", name), "rb").read() for name in tree(job.path("c"))} == before


def plans(path):
    """Of arena.txt: {title: (bytes, {step: (alive, what)}, [(offset, bytes, first, last, what)])}."""
    with open(path, encoding="ascii") as file:
        text = file.read()
    found = {}
    for title, size, steps, spaces in re.findall(r"^(A .*): (\d+) bytes\n\n *step.*\n((?:.+\n)+)\noffset.*\n((?:.+\n)+)", text, re.MULTILINE):
        rows = [re.fullmatch(r" *(\d+) +(\d+) +(\d+)\.\.(\d+) +(\S.*)", line).groups() for line in spaces.splitlines()]
        alive = {int(line.split()[0]): int(line.split()[1]) for line in steps.splitlines()}
        found[title] = int(size), alive, [(*map(int, row[:4]), row[4]) for row in rows]
    return found


@pytest.mark.parametrize("model", [nets.RESIDUAL, nets.POOLS, nets.B], ids=lambda model: model["name"])
def test_the_plan_of_the_arena(model, tmp_path):
    """Nothing lies where something else is alive, all of it is in the arena, and what is alive adds up."""
    job = Job(tmp_path, model, batch=2)
    report = job.export()
    found = plans(job.path("c", "arena.txt"))
    assert list(found) == ["A training step", "A prediction"] and max(size for size, _, _ in found.values()) == report["arena"]
    for size, alive, spaces in found.values():
        assert all(offset + count <= size for offset, count, _, _, _ in spaces)
        for i, (a, n, first, last, _) in enumerate(spaces):
            assert not [other for b, m, begin, end, other in spaces[:i] if a < b + m and b < a + n and first <= end and begin <= last]
        assert alive == {step: sum((n + 3) // 4 * 4 for _, n, first, last, _ in spaces if first <= step <= last) for step in alive}
    names = " ".join(space[4] for space in found["A training step"][2])
    assert "input" in names and "linear1" in names


def test_pixels_are_reported(tmp_path):
    """What a caller keeps besides: of a batch, or of one image where nothing is trained."""
    job = Job(tmp_path, nets.A, batch=8)
    command = [NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("c"), "--batch", "8"]
    assert "\npixels          6272 bytes besides, where a batch is in memory; none where a callback gives rows\n" in call(*command).decode()
    assert "\npixels          784 bytes besides, where an image is in memory" in call(*command, "--train", "none").decode()
    assert job.export()["image"] == 784


def test_split_memories(job):
    """Constants go to the section that NAME_CONST names."""
    job.export("sections", "--train", "last:1")
    for flags, there in (([], False), (['-DRESIDUAL_CONST=__attribute__((section(".slow")))'], True)):
        call("gcc", *WARNINGS, *flags, "-c", job.path("sections", "residual.c"), "-o", job.path("sections.o"))
        rows = [line.split() for line in call("objdump", "-h", job.path("sections.o")).decode().splitlines()]
        sections = {row[1]: int(row[2], 16) for row in rows if row and row[0].isdigit()}
        assert (sections.get(".slow", 0) > 500) == there  # all weights but those of linear1, and more


def test_the_helps_example_works(tmp_path):
    """Of the run that docs/microcontrollers.md begins with, by its recipe, which needs as much."""
    example = call(NITI, "export", "--help").decode().split("example:\n")[1].split()
    with open(os.path.join(ROOT, "docs", "microcontrollers.md"), encoding="utf-8") as file:
        assert "niti train lenet5-fashion-mnist --run runs/first\n" in file.read()
    assert example[:4] == ["niti", "export", "c", "runs/first"]
    call(NITI, "export", "c", "lenet5-fashion-mnist", *example[4:], cwd=tmp_path)
    made = os.path.join("firmware", "network", "lenet5_wide.safetensors")
    assert os.path.exists(tmp_path / made) and all(f" {made}" in call(NITI, command, "--help").decode() for command in ("import", "replay"))


def documented(row):
    """The numbers in each cell of a row of docs/microcontrollers.md, but for its first."""
    with open(os.path.join(ROOT, "docs", "microcontrollers.md"), encoding="utf-8") as file:
        line = next(line for line in file if line.startswith(f"| {row}"))
    return [[int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\d", cell)] for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("row, model", [("(a) ", nets.A), ("(b) ", nets.B), ("conv 3, conv 3 ", nets.NARROW)], ids=["a", "b", "narrow"])
def test_the_documented_memory_is_what_an_export_prints(row, model, tmp_path):
    """Of both batches, without a budget, and with the smallest, below which it is refused, and within which the bits are the same."""
    (one,), (eight,), smallest = documented(row)
    for batch, plain, least in ((1, one, smallest[0]), (8, eight, smallest[1])):
        job = Job(tmp_path / str(batch), model, batch=batch, max_steps=3)
        assert job.export("plain")["ram"] == plain
        assert job.export("least", "--budget", least)["ram"] == least
        assert f"{job.name} needs {least} bytes of RAM, 1 more than the budget" in refused(job, "--batch", batch, "--budget", least - 1)
        assert job.c_hash("gcc", "least") == job.host_hash()


def test_the_documented_memory_of_lenet5(tmp_path):
    two, one = (niti_json("export", "c", "lenet5", "--train", train, "--out", tmp_path / train[-1]) for train in ("last:2", "last:1"))
    assert documented("`lenet5`, last two layers")[0] == [two["ram"], two["trained_weights"]]
    assert documented("`lenet5`, last layer")[0] == [one["ram"], one["trained_weights"], one["arena"]]


def test_a_delta_passes_no_groups(tmp_path):
    """Neither of a trained convolution nor of a frozen one behind a trained layer; before the first trained layer there may be some."""
    job = Job(tmp_path, nets.DEPTHWISE)
    assert "conv2: conv_gradient: cannot be exported to C: it has groups\n" in refused(job, "--train", "conv2")
    says = "conv2: conv_backward: cannot be exported to C: it has groups, and a layer before it is trained (expected --train of layers behind it)"
    assert says in refused(job, "--train", "conv1,linear1")
    job.export("c", "--train", "conv3,linear1")


def test_a_deep_network(tmp_path):
    """Of so many tensors that the plan is not searched anew for each layer's sums: the same bits, and sums are kept where there is room."""
    job = Job(tmp_path, nets.network("deep", (4, 4, 1), [*[nets.conv(4, 3, 1), "relu"] * 70, "flatten", nets.LINEAR], 2), max_steps=3, batch=2, update={"mu": 3})
    report = job.export()
    with open(job.path("c", "deep.c"), encoding="ascii") as file:
        kept = [int(n) for n in re.findall(r"\.kept = (\d+)", file.read())]
    assert len(kept) == report["layers"] and max(kept) == 4
    assert job.c_hash("gcc", "c", "-fsanitize=address,undefined", "-fno-sanitize-recover=all") == job.host_hash()


def test_parents_are_made_and_unmade(job):
    """Folders above --out, by export and by vectors; of a failed export nothing remains. An empty name is named."""
    niti_json("export", "c", job.path("recipe.yaml"), "--out", job.path("new", "firmware", "network"))
    assert os.path.exists(job.path("new", "firmware", "network", "residual.c"))
    niti_json("vectors", job.path("recipe.yaml"), "--operations", "input", "--out", job.path("vectors", "of", "one") + "/")
    niti_json("vectors", "--corners", "--operations", "requantise", "--out", job.path("vectors", "of", "corners"))
    assert sorted(os.listdir(job.path("vectors", "of"))) == ["corners", "one"]
    for command in (["export", "c", job.path("recipe.yaml")], ["vectors", job.path("recipe.yaml")], ["vectors", "--corners"]):
        result = subprocess.run([NITI, *command, "--out", ""], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "folder: the name is empty (expected a folder)" in result.stderr
        result = subprocess.run([NITI, *command, "--out", job.path("recipe.yaml", "below")], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "recipe.yaml/below: cannot " in result.stderr and "Not a directory" in result.stderr


def test_a_limit_on_the_size_of_files_leaves_nothing(job):
    """The export says so, instead of being killed by SIGXFSZ between its files."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # noqa: E731
    result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("limited", "c")], capture_output=True, text=True, check=False, preexec_fn=limit)
    assert result.returncode == 1 and "File too large (raise the limit on the size of files: ulimit -f)" in result.stderr
    assert not os.path.exists(job.path("limited"))


def test_what_a_killed_export_left_is_taken_over(job):
    """Its temporary files, in its folders, do not make a folder full; anything else does."""
    out = job.path("killed")
    os.makedirs(os.path.join(out, "examples", "train"))
    for name in ("residual.c.tmp", "residual.h.tmp", os.path.join("examples", "train", "main.c.tmp")):
        with open(os.path.join(out, name), "w", encoding="ascii") as file:
            file.write("half of")
    other = os.path.join(out, "examples", "mine.txt")
    with open(other, "w", encoding="ascii"):
        pass
    command = [NITI, "export", "c", job.path("recipe.yaml"), "--out", out]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and f"{out}: the folder is not empty: 'mine.txt' (expected a new one" in result.stderr
    os.remove(other)
    call(*command)
    job.export("whole", "--batch", 1)
    assert tree(out) == tree(job.path("whole"))


def test_two_networks_in_one_program(tmp_path):
    first, second = Job(tmp_path / "1", nets.RESIDUAL), Job(tmp_path / "2", nets.NARROW)
    first.export(), second.export()
    call("gcc", "-std=c99", "-shared", "-fPIC", first.path("c", "residual.c"), second.path("c", "narrow.c"), "-o", str(tmp_path / "both.so"))


def test_refusals(job):
    assert "no layer with weights of model 'residual', did you mean 'conv1'" in refused(job, "--train", "conv9")
    assert "--train: '' is no layer with weights of model 'residual'" in refused(job, "--train", "conv1,")
    for last in ("0", "8", "99", "2x"):
        assert f"--train last:{last}: expected last:N, N from 1 to 7, which are all layers with weights of 'residual'" in refused(job, "--train", f"last:{last}")
    assert "neither least nor fast" in refused(job, "--memory", "most")
    assert "none of cmake" in refused(job, "--layout", "make")
    assert "--name 1x: expected" in refused(job, "--name", "1x")
    assert "--name : expected" in refused(job, "--name", "")
    for word in ("int", "memcpy", "rt_loss", "install", "predict", "uint8_t", "int_fast16_t", "uintptr_t", "size_t", "NULL", "_Bool", "__arm__", "_x", "linux", "unix", "RT_DSP", "RT",
                 "niti_rt", "niti_rt_conv", "INT32_MAX", "UINT64_C", "namespace", "and", "nullptr", "network", "arena", "printf", "open", "t07_conv1_backward"):
        assert f"would be called {word}, which means something else" in refused(job, "--name", word)
    os.makedirs(job.path("full"), exist_ok=True)
    with open(job.path("full", "mine.txt"), "w", encoding="ascii") as file:
        file.write("mine")
    result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("full")], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "the folder is not empty" in result.stderr and os.listdir(job.path("full")) == ["mine.txt"]


def test_names_that_are_taken_are_all_refused(tmp_path):
    """Whatever else a name is, the export compiles: in C, also with GNU's words, and its header in C++, beside the common headers."""
    job = Job(tmp_path, nets.network("m", (4, 4, 1), ["flatten", nets.LINEAR], 2))
    names = ["integer", "linux_net", "runtime", "n", "rows", "state", "INT"]
    for name in names:
        out = job.path(name)
        niti_json("export", "c", job.path("recipe.yaml"), "--name", name, "--out", out)
        call("gcc", "-std=gnu99", "-fsyntax-only", f"{out}/{name}.c", f"{out}/examples/train/main.c", "-I", out)
        call("g++", "-std=c++20", "-fsyntax-only", "-include", "cstdio", "-include", "cstdlib", "-x", "c++", f"{out}/{name}.h")


def test_what_was_edited_is_not_overwritten(tmp_path):
    """A file that is not as the earlier export wrote it, or that none wrote: nothing changes, and the message names it."""
    job = Job(tmp_path, nets.RESIDUAL)
    for name, text in (("residual.c", None), ("examples/train/main.c", "int main(void) { return 1; }\n"), ("niti_rt.h", "")):
        out = job.path(name.replace("/", "-"))
        niti_json("export", "c", job.path("recipe.yaml"), "--out", out)
        path = os.path.join(out, name)
        with open(path, "a" if text is None else "w", encoding="ascii") as file:
            file.write(text or "/* mine */\n")
        before = {name: open(os.path.join(out, name), "rb").read() for name in tree(out)}
        command = [NITI, "export", "c", job.path("recipe.yaml"), "--batch", "2", "--out", out]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1 and f"{path}: the export would overwrite it" in result.stderr
        assert {name: open(os.path.join(out, name), "rb").read() for name in tree(out)} == before
        os.remove(path)
        call(*command)


def test_an_optimiser_with_state_is_refused_and_a_new_layer_is_not(tmp_path):
    """By the tool with a layer type and an optimiser more (tests/example)."""
    example = os.path.join(os.path.dirname(NITI), "tests", "niti_with_example")
    layers = [{"conv-relu": {"out": 4, "kernel": 3, "padding": 1}}, "relu", nets.POOL, "flatten", nets.LINEAR]
    job = Job(tmp_path, nets.network("example", (8, 8, 1), layers, 3), max_steps=9, batch=2)
    result = subprocess.run([example, "train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--quiet", "--json"],
                            capture_output=True, text=True, check=True)
    call(example, "export", "c", job.path("recipe.yaml"), "--batch", 2, "--out", job.path("c"))
    assert job.c_hash() in result.stdout
    with open(job.path("recipe.yaml"), encoding="ascii") as file:
        text = file.read().replace("update:", "update:\n  kind: again")
    with open(job.path("again.yaml"), "w", encoding="ascii") as file:
        file.write(text)
    result = subprocess.run([example, "export", "c", job.path("again.yaml"), "--out", job.path("no")], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "an optimiser's state cannot be exported to C" in result.stderr and not os.path.exists(job.path("no"))


PLAIN = [nets.conv(4, 3, 1), "relu", nets.POOL, "flatten", nets.LINEAR]


@pytest.mark.parametrize("layers, recipe, says", [
    ([nets.conv(4, 3, 1), "norm", *PLAIN], {}, "norm1: norm_fit: cannot be exported to C: once it is trained, niti fold makes weights and a bias of it"),
    ([nets.conv(4, 3, 1), {"relu": {"max": 6}}, *PLAIN], {}, "relu1: relu_forward: cannot be exported to C: it has a maximum"),
    ([{"avgpool": {"kernel": 2, "padding": 1}}, *PLAIN], {}, "avgpool1: avgpool_forward: cannot be exported to C: it has padding"),
    ([nets.conv(4, 3, 1), {"dropout": {"rate": 0.25}}, *PLAIN], {}, "dropout1: dropout: cannot be exported to C: its rate is not 0.5"),
    (PLAIN, {"rounding": {"activation": "stochastic-byte"}}, "conv1: conv_forward: cannot be exported to C: its rounding is stochastic-byte"),
    (PLAIN, {"rounding": {"error": "stochastic-byte"}}, "linear1: conv_backward: cannot be exported to C: its rounding is stochastic-byte"),
    (PLAIN, {"loss": "softmax", "label_smoothing": 0.1}, "loss: cannot be exported to C: it has label smoothing"),
    (PLAIN, {"loss": "softmax", "rounding": {"error": "nearest"}, "update": {"kind": "sgd"}}, "update_sgd: cannot be exported to C: expected update niti"),
    (PLAIN, {"loss": "softmax", "update": {"kind": "sgd"}}, "conv1: update_sgd: cannot be exported to C: expected update niti"),
    (PLAIN, {"loss": "softmax", "update": {"kind": "niti16"}}, "conv1: update_niti16: cannot be exported to C: expected update niti"),
    (PLAIN, {"rounding": {"error": "nearest"}, "update": {"mu": 3.5}}, "update.mu, which is 3.5: cannot be"),
    (PLAIN, {"rounding": {"error": "nearest"}, "update": {"kind": "niti16"}}, "update_niti16: cannot be exported to C: expected update niti"),
    (PLAIN, {"loss": "softmax", "rounding": {"error": "nearest"}, "update": {"kind": "sgd", "clip_norm": 1}},
     "gradient_squares: cannot be exported to C: expected update niti, whose gradients are not clipped")])
def test_what_the_runtime_lacks_is_refused_by_name(layers, recipe, says, tmp_path):
    more = {"loss": "softmax", "update": {"kind": "sgd"}} if "norm" in says else {}
    job = Job(tmp_path, nets.network("lacking", (8, 8, 1), layers, 3), max_steps=1, batch=2, **{**more, **recipe})
    for options in [(), ("--train", "all"), ("--train", "last:2", "--batch", 2)]:
        assert says.split(": cannot")[-1] in refused(job, *options)
    assert says in refused(job)
    # Vectors have all of it, but steps of mu between whole ones.
    result = subprocess.run([NITI, "vectors", job.path("recipe.yaml"), "--out", job.path("vectors")], capture_output=True, text=True, check=False)
    if "update.mu" in says:
        assert result.returncode == 1 and says in result.stderr and not os.path.exists(job.path("vectors"))
    else:
        assert result.returncode == 0, result.stderr
        assert [o["opcode"] for o in load(job.path("vectors"))["operations"] if formulas.difference(o)] == []


def test_only_trained_layers_need_the_update(tmp_path):
    """What update sgd has trained predicts in C, with what only training lacks."""
    recipe = {"loss": "softmax", "label_smoothing": 0.1, "clip": {"error": 1}, "update": {"kind": "sgd"}}
    job = Job(tmp_path, nets.network("sgd", (8, 8, 1), PLAIN, 3), max_steps=9, batch=2, **recipe)
    job.host_hash()
    report = niti_json("export", "c", job.path("run"), "--train", "none", "--out", job.path("c"))
    assert report["trained"] == 0
    call("gcc", *WARNINGS, "-c", job.path("c", "sgd.c"), "-o", job.path("x.o"))


def test_gradients_of_64_bits_are_refused_by_name(tmp_path):
    model = nets.network("wide", (64, 64, 1), [nets.conv(2, 3, 1), "relu", "global-avgpool", nets.LINEAR], 2)
    job = Job(tmp_path, model, batch=1, max_steps=1)
    assert "conv1: conv_gradient: cannot be exported to C: its sums need 64 bits" in refused(job, "--batch", 64)
