"""Every allocation and every call on files fails in turn, in every command: no crash, no leak, the documented exit code, a message, the
old checkpoint intact, and no result that lacks a part."""
import collections
import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

import data_sets
import faults
import tool
from recipes import TOY
from tool import content_of, hash_of

SAME_OUTPUT = {"summary", "program", "show", "hash", "fold", "data", "export", "vectors", "eval", "predict", "completion", "man", "help", "compare",
               "replay", "import", "import nothing"}
TRAINING = ("train", "resume", "average", "images", "arrays")
DEVICES = {"info"}  # where the system does not say, the tool does without

Case = collections.namedtuple("Case", "name arguments folder")


@pytest.fixture(scope="session")
def normed(work, toy):
    """(recipe, run of one epoch) with batch norm, 16-bit weights and their average."""
    path = work / "normed.yaml"
    text = TOY.replace("    - relu\n", "    - norm\n    - relu\n").replace("epochs: 3", "epochs: 2")
    path.write_text(text.replace("{kind: niti, mu: 3}", "{kind: sgd, lr: 0.05, momentum: 0.9}") + "average: {from: {step: 1}, every: {step: 1}}\n")
    tool.train(path, toy, work / "normed", "--epochs", 1)
    return path, work / "normed"


DEVICE = """\
#include "toy.h"
#include <stdio.h>
static toy network;
static int32_t arena[TOY_ARENA_BYTES / 4];
static int read_slot(void *user, int slot, uint32_t offset, void *data, uint32_t size) {
  return fseek(user, (long)slot * TOY_SLOT_BYTES + offset, SEEK_SET) != 0 || fread(data, 1, size, user) != size;
}
static int write_slot(void *user, int slot, uint32_t offset, const void *data, uint32_t size) {
  return fseek(user, (long)slot * TOY_SLOT_BYTES + offset, SEEK_SET) != 0 || fwrite(data, 1, size, user) != size;
}
int main(int count, char **arguments) {
  FILE *file = fopen(arguments[count - 1], "w+b");
  static const char zeros[2 * TOY_SLOT_BYTES];
  if (!file || fwrite(zeros, sizeof zeros, 1, file) != 1) return 1;
  toy_init(&network, arena);
  for (int k = 0; k < 2; ++k) {
    if (toy_save(&network, read_slot, write_slot, file) != 0) return 1;
  }
  return fclose(file) != 0;
}
"""


@pytest.fixture(scope="session")
def device(work, half):
    """(the two slots that a device saved, the checkpoint of its export)."""
    tool.output_of("export", "c", half, "--out", work / "device")
    (work / "device.c").write_text(DEVICE)
    subprocess.run(["gcc", "-std=gnu11", "-I", work / "device", work / "device.c", work / "device" / "toy.c", "-o", work / "save"], check=True)
    subprocess.run([work / "save", work / "slots"], check=True)
    return work / "slots", work / "device" / "toy.safetensors"


@pytest.fixture(scope="session")
def commands(work, toy, recipe, half, normed, device):
    """{name: a function that prepares a folder and returns the arguments}, of every command."""
    (work / "device.log").write_text("# seen\n0:0 1:1\n2:2\n")
    image, _ = data_sets.squares(1, 5)
    data_sets.write_png(work / "image.png", image[0])
    for name in ("a", "b"):
        tool.output_of("vectors", recipe, "--out", work / name, "--operations", "conv_forward,loss")

    colour = work / "colour.yaml"
    colour.write_text(recipe.read_text().replace("[8, 8, 1]", "[8, 8, 3]"))
    names, images = ["a", "b", "c", "d"], [data_sets.squares(count, seed, channels=3) for count, seed in ((32, 1), (8, 2))]
    pictures = data_sets.write_folder_set(work / "pictures", names, *images)
    (pictures / "train" / "a" / "more").symlink_to("../b")
    arrays = work / "arrays"
    arrays.mkdir()
    for split, (values, labels) in zip(("train", "test"), images):
        np.save(arrays / f"{split}_x.npy", values)
        np.save(arrays / f"{split}_y.npy", labels)

    def again(folder):
        """Over an earlier export, of which one file is no longer written."""
        tool.output_of("export", "c", half, "--out", folder / "out", "--layout", "arduino")
        return ["export", "c", half, "--out", folder / "out", "--json"]

    def copy(folder):
        """With a row that a crash has torn, so that the logs are written anew."""
        shutil.copytree(half, folder / "run")
        for name in ("metrics.csv", "metrics.jsonl"):
            with open(folder / "run" / name, "a", encoding="utf-8") as file:
                file.write("99")
        return ["train", "--resume", folder / "run", "--epochs", 2, "--threads", 1, "--json"]

    return {
        "train": lambda folder: ["train", recipe, "--data", toy, "--run", folder / "run", "--threads", 1, "--json"],
        "resume": copy,
        "average": lambda folder: ["train", normed[0], "--data", toy, "--run", folder / "run", "--threads", 1, "--json"],
        "dry run": lambda _: ["train", recipe, "--data", toy, "--dry-run", "--run", "never", "--threads", 1, "--json"],
        "find-lr": lambda _: ["find-lr", recipe, "--data", toy, "--threads", 1, "--json"],
        "eval": lambda _: ["eval", half, "--threads", 1, "--json"],
        "predict": lambda _: ["predict", half, work / "image.png", "--threads", 1, "--json"],
        "summary": lambda _: ["summary", "lenet5", "--json"],
        "program": lambda _: ["program", recipe, "--json"],
        "show": lambda _: ["show", recipe, "--json"],
        "info": lambda _: ["info", "--json"],
        "data": lambda _: ["data", toy, "--json"],
        "hash": lambda _: ["hash", half, "--json"],
        "fold": lambda folder: ["fold", normed[1], "--out", folder / "folded", "--json"],
        "export": lambda folder: ["export", "c", half, "--out", folder / "out", "--json"],
        "vectors": lambda folder: ["vectors", recipe, "--out", folder / "out", "--operations", "conv_forward,loss", "--json"],
        "export again": again,
        "compare": lambda _: ["compare", work / "a", work / "b", "--json"],
        "compare runs": lambda _: ["compare", half, half, "--json"],
        "images": lambda folder: ["train", colour, "--data", pictures, "--run", folder / "run", "--threads", 1, "--json"],
        "arrays": lambda folder: ["train", colour, "--data", arrays, "--run", folder / "run", "--threads", 1, "--json"],
        "help": lambda _: ["help", "train"],
        "completion": lambda _: ["completion", "bash"],
        "man": lambda folder: ["man", "--all", folder],
        "replay": lambda folder: ["replay", work / "device.log", half, "--data", toy, "--threads", 1, "--out", folder / "out", "--json"],
        "import": lambda folder: ["import", *device, "--out", folder / "out", "--json"],
        "import nothing": lambda folder: ["import", work / "toy.yaml", half, "--out", folder / "out"],  # no device's state
        "tune": lambda folder: ["tune", recipe, "--batch", 1, "--seconds", 1, "--threads", 1, "--isa", "ref", "--out", folder / "out", "--json"],
        "bench": lambda _: ["bench", "step", "--model", "mlp", "--batch", 1, "--seconds", 1, "--threads", 1, "--json"],
    }


NAMES = ["train", "resume", "average", "dry run", "find-lr", "eval", "predict", "summary", "program", "show", "info", "data", "hash", "fold", "export",
         "export again", "vectors", "compare", "compare runs", "images", "arrays", "help", "completion", "man", "replay", "import", "import nothing", "tune"] + (["bench"] if faults.SLOW else [])
CODES = {"import nothing": 1}
MEASURING = ("tune", "bench")  # which take longer


def outputs(folder):
    return {name: content for name, content in content_of(folder).items() if name != "report"}


def undisturbed(commands, name, folder):
    folder = faults.fresh(folder)
    done = faults.run("none", *commands[name](folder), report=folder / "report")
    assert done.code == CODES.get(name, 0), done
    return done, outputs(folder)


def check_run(name, folder, case):
    """What a failed run left: its checkpoint loads, and it goes on to the same bits."""
    run, plain = folder / "run", folder.parent / "plain" / "run"
    if not (run / "last.safetensors").exists() and not (run / "previous.safetensors").exists():
        assert name != "resume", case
        return
    done = tool.niti("train", "--resume", run, "--epochs", 2, "--threads", 1, "--json")
    assert done.returncode == 0, (case, done.stderr)
    for end, first in (("csv", "\n1,"), ("jsonl", '{"epoch": 1,')):
        assert name != "resume" or first in (run / f"metrics.{end}").read_text(), (case, end)
    assert not list(run.glob("metrics.*.bak*")), case
    for name in ("last.safetensors", "averaged.safetensors"):
        assert (run / name).exists() == (plain / name).exists(), (case, name)
        assert not (plain / name).exists() or hash_of(run / name) == hash_of(plain / name), (case, name)


def check_done(name, done, folder, expected, case):
    plain, files = expected
    shown = (case, done)
    assert done.code in (0, 1), shown
    assert done.live <= plain.live, shown
    if done.code == 1:
        lines = done.err.splitlines()
        assert lines and lines[-1].startswith("niti: ") and len(lines[-1]) > 12, shown
    if done.code == plain.code and name in SAME_OUTPUT:
        assert done.out.replace(str(folder), "") == plain.out.replace(str(folder.parent / "plain"), ""), shown
        assert outputs(folder) == files, shown
    if name in TRAINING:
        check_run(name, folder, case)


@pytest.mark.parametrize("name", NAMES)
def test_every_allocation_fails_in_turn(name, commands, work):
    base = work / f"allocations-{name.replace(' ', '-')}"
    expected = undisturbed(commands, name, base / "plain")

    def check(number):
        folder = faults.fresh(base / str(number))
        kind = "allocations" if number % 5 == 0 else "allocation"
        done = faults.run(f"{kind}:{number}", *commands[name](folder), report=folder / "report")
        check_done(name, done, folder, expected, (name, kind, number))
        shutil.rmtree(folder)
        return done.code

    codes = faults.each(faults.some(expected[0].allocations, 5 if name in MEASURING else 60), check)
    print(f"{name}: {len(codes)} of {expected[0].allocations} allocations, {sum(codes)} times the command failed")
    shutil.rmtree(base)


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EINTR", "short"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("help", "completion")])  # which make none
def test_every_call_fails_in_turn(name, error, commands, work):
    base = work / f"calls-{name.replace(' ', '-')}-{error}"
    expected = undisturbed(commands, name, base / "plain")
    number_of = 0 if error == "short" else getattr(errno, error)

    def check(number):
        folder = faults.fresh(base / str(number))
        kind = "calls" if error == "ENOSPC" and number % 2 else "call"
        done = faults.run(f"{kind}:{number}:{number_of}", *commands[name](folder), report=folder / "report")
        case = (name, error, kind, number)
        if name in DEVICES:
            assert done.code in (0, 1), (case, done)
        else:
            check_done(name, done, folder, expected, case)
        assert error in ("ENOSPC", "EIO") or done.code == expected[0].code, (case, done)
        assert done.code == expected[0].code or os.strerror(number_of) in done.err, (case, done)
        shutil.rmtree(folder)
        return done.code

    codes = faults.each(faults.some(expected[0].calls, 3 if name in MEASURING else 12), check)
    print(f"{name}, {error}: {len(codes)} of {expected[0].calls} calls, {sum(codes)} times the command failed")
    shutil.rmtree(base)


def test_a_dry_run_where_no_folder_can_be_reached(commands, work):
    """It looks for the deepest folder that is there, and ends where not even `.` can be looked into."""
    folder = faults.fresh(work / "unreachable")
    last = undisturbed(commands, "dry run", folder / "plain")[0].calls
    said = ""
    for number in range(last - 7, last + 1):
        done = faults.run(f"calls:{number}:{errno.EACCES}", *commands["dry run"](folder), report=folder / "report")
        assert done.code in (0, 1), (number, done)
        said += done.err
    assert "niti: .: cannot look into the folder: Permission denied" in said


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("man", "import nothing")])
def test_a_full_standard_output(name, commands, work):
    """Exit code 1 and a message; a run is trained all the same."""
    folder = faults.fresh(work / "full-output")
    with open("/dev/full", "w") as full:
        done = subprocess.run([tool.NITI, *map(str, commands[name](folder))], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
                              check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "niti: " in done.stderr, (name, done)
    if name in TRAINING:
        assert hash_of(folder / "run" / "last.safetensors")
