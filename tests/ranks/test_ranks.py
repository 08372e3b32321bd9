"""Training by many processes: the bits of one process at every number of ranks, from every checkpoint on; a rank that is lost, and
ranks that do not belong together."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import data_sets
from launch import PLUGIN, end_of, give_up, needs_mpi, processes_of, start, together, train_in
from recipes import EVERY_LAYER
from tool import NITI, SANITIZE, SLOWER, json_of, niti, resume, rows_of, timeless, train

pytestmark = needs_mpi
EPOCHS = 6
SAME = ("hash", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_epoch", "steps")


def same(result):
    return {key: result[key] for key in SAME}


def events_of(run):
    """What counts all images: losses, accuracies and the confusion matrix."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()
    found = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]
             if tag.startswith(("loss", "accuracy"))}
    found |= {tag: [(image.step, image.encoded_image_string) for image in events.Images(tag)] for tag in events.Tags()["images"]
              if tag.endswith("confusion")}
    assert len(found) >= 3, events.Tags()
    return found


def wait_for(path, launcher, seconds=60 * SLOWER):
    end = time.monotonic() + seconds
    while not path.exists():
        assert launcher.poll() is None, launcher.communicate()
        if time.monotonic() > end:
            give_up(launcher, f"{path} has not come")
        time.sleep(0.01)


@pytest.fixture(scope="module")
def elements(shared):
    """Every layer, with dropout whose random numbers count elements of the whole batch."""
    path = shared / "ranks-elements.yaml"
    path.write_text(EVERY_LAYER.replace("- dropout\n", "- dropout: {per: element, rate: 0.3}\n", 1))
    return path


@pytest.fixture(scope="module")
def long(normed, shared):
    """(recipe, data, result of one process) of a run that takes a while."""
    data = data_sets.write_idx_set(shared / "ranks-long", data_sets.squares(600, 1), data_sets.squares(60, 2))
    return normed, data, train(normed, data, shared / "ranks-long-run", "--epochs", EPOCHS)


def several(cifar, folder, times):
    """CIFAR's files with the training images repeated."""
    folder.mkdir()
    for path in sorted(cifar.glob("*.bin")):
        (folder / path.name).write_bytes(path.read_bytes() * (times if path.name.startswith("data") else 1))
    return folder


# ---- the same bits ----

@pytest.mark.parametrize("changes, ranks", [
    ((), (2, 3)),
    (("rounding.activation=nearest", "rounding.error=pseudo-stochastic", "batch=13"), (4,)),
    (("rounding.activation=truncate", "rounding.error=stochastic-byte", "loss=softmax", "batch=7"), (3, 8)),
    (("rounding.activation=stochastic-byte", "loss=softmax", "batch=1", "max_steps=20"), (2,)),  # some rank has no image
])
def test_every_layer_has_the_bits_of_one_process(changes, ranks, elements, cifar, tmp_path):
    sets = [word for change in changes for word in ("--set", change)]
    one = train(elements, cifar, tmp_path / "one", *sets)
    for count in ranks:
        many = train_in(count, elements, cifar, tmp_path / str(count), *sets)
        assert same(many) == same(one), count
        assert timeless(rows_of(tmp_path / str(count))) == timeless(rows_of(tmp_path / "one"))


@pytest.mark.parametrize("changes, ranks", [
    ((), (2, 4)),
    (("data.validation=30", "rounding.activation=stochastic", "update.nesterov=false"), (3,)),  # the best weights are tested at the end
])
def test_norms_and_update_sgd_have_the_bits_of_one_process(changes, ranks, normed, odd, tmp_path):
    sets = [word for change in changes for word in ("--set", change)]
    one = train(normed, odd, tmp_path / "one", *sets)
    for count in ranks:
        many = train_in(count, normed, odd, tmp_path / str(count), *sets)
        assert same(many) == same(one), count
        assert events_of(tmp_path / str(count)) == events_of(tmp_path / "one")


def test_update_niti16_has_the_bits_of_one_process(normed, odd, tmp_path):
    sets = ("--set", "update={kind: niti16, lr: 3, nesterov: true, weight_decay: 0.001}")
    one = train(normed, odd, tmp_path / "one", *sets)
    assert same(train_in(3, normed, odd, tmp_path / "three", *sets)) == same(one)


def test_averaged_weights_test_time_flip_and_squares_cut_out_have_the_bits_of_one_process(normed, odd, tmp_path):
    sets = ("--set", "average={from: {at: 30%}, every: {step: 3}}", "--set", "evaluation.flip=true", "--set", "data.cutout=3",
            "--set", "data.flip=true")
    for ranks, more in ((2, ()), (3, ("--batch", 2, "--max-steps", 12))):  # of three, one has no image
        one = train(normed, odd, tmp_path / f"one beside {ranks}", *sets, *more)
        many = train_in(ranks, normed, odd, tmp_path / str(ranks), *sets, *more)
        assert same(many) == same(one) and one["averaged_hash"] != one["hash"], ranks
        assert many["averaged_hash"] == one["averaged_hash"] and many["averaged_test_accuracy"] == one["averaged_test_accuracy"], ranks
        assert (tmp_path / str(ranks) / "averaged.safetensors").exists()


def test_averages_and_update_niti16_are_continued_by_other_numbers_of_ranks(normed, odd, tmp_path):
    steady = "lr: 0.05, schedule: steps, warmup: {epoch: 0}"
    for name, sets in {"average": (f"update={{kind: sgd, {steady}}}", "average={from: {epoch: 1}, every: {step: 3}}"),
                       "niti16": (f"update={{kind: niti16, {steady}}}",)}.items():
        run, again = tmp_path / name, tmp_path / f"{name} again"
        train_in(2, normed, odd, run, *(word for change in sets for word in ("--set", change)), "--epochs", 2)
        shutil.copytree(run, again)
        many = together((3, NITI, "--resume", run, "--threads", 1, "--epochs", 3, "--json"))
        one = resume(again, "--epochs", 3)
        assert same(many) == same(one) and many.get("averaged_hash") == one.get("averaged_hash"), name


def test_a_best_that_a_crash_left_behind_is_made_again(normed, odd, tmp_path):
    """By rank 0, before anything is trained."""
    run, again = tmp_path / "run", tmp_path / "again"
    train_in(2, normed, odd, run, "--set", "update={kind: sgd, lr: 0.05}", "--epochs", 1)
    shutil.copytree(run, again)
    content = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").unlink()
    result = together((3, NITI, "--resume", run, "--threads", 1, "--json"))
    assert not result["warnings"] and (run / "best.safetensors").read_bytes() == content
    (run / "best.safetensors").unlink()
    many = together((2, NITI, "--resume", run, "--threads", 1, "--epochs", 2, "--json"))
    one = resume(again, "--epochs", 2)
    assert same(many) == same(one) and not many["warnings"]
    assert (run / "best.safetensors").read_bytes() == (again / "best.safetensors").read_bytes()


def test_clipping_by_norm_sees_the_sum_over_all_ranks(normed, odd, tmp_path):
    """Always, as it clips every step; and not at all, which gives other weights."""
    tight, none = ("--set", "update.clip_norm=0.01", "--epochs", 1), ("--set", "update.clip_norm=0", "--epochs", 1)
    one = train(normed, odd, tmp_path / "one", *tight)
    assert same(train_in(3, normed, odd, tmp_path / "three", *tight)) == same(one)
    assert train(normed, odd, tmp_path / "none", *none)["hash"] != one["hash"]


def test_resized_crops_and_colours_have_the_bits_of_one_process(elements, cifar, tmp_path):
    sets = ("--epochs", 1, "--set", "data.pad=0", "--set", "data.crop=resized", "--set", "data.brightness=0.4", "--set",
            "data.contrast=0.4", "--set", "data.saturation=0.4", "--set", "update.mu=2.5")
    one = train(elements, cifar, tmp_path / "one", *sets)
    assert same(train_in(3, elements, cifar, tmp_path / "three", *sets)) == same(one)


def test_mixup_mixes_in_the_next_image_of_the_whole_batch(normed, odd, tmp_path):
    """Which another rank may have; of images that are in memory, and of those that are decoded on the way."""
    names = ("circle", "line", "point", "square")
    folder = data_sets.write_folder_set(tmp_path / "data", names, data_sets.squares(40, 1), data_sets.squares(8, 2))
    sets = ("--set", "data.mixup=1", "--set", "data.mean=[0.5]", "--set", "data.std=[0.25]")
    for ranks, data, more in ((2, odd, ()), (3, odd, ("--batch", 2, "--max-steps", 12)), (3, folder, ("--batch", 7))):
        name = f"{ranks} {data.name}"
        one = train(normed, data, tmp_path / f"one {name}", *sets, *more)
        assert same(train_in(ranks, normed, data, tmp_path / name, *sets, *more)) == same(one), name
    assert train(normed, odd, tmp_path / "none", *sets[2:])["hash"] != one["hash"]


def test_ranks_of_other_instruction_sets(elements, cifar, tmp_path):
    one = train(elements, cifar, tmp_path / "one", "--epochs", 1)
    how = (elements, "--data", cifar, "--run", tmp_path / "many", "--epochs", 1, "--json")
    many = together((1, NITI, *how, "--threads", 2), (2, NITI, *how, "--threads", 1, "--isa", "ref"))
    assert same(many) == same(one)


def test_weights_to_start_from_and_dry_run(normed, odd, tmp_path):
    first = train(normed, odd, tmp_path / "first", "--epochs", 1)
    one = train(normed, odd, tmp_path / "one", "--init", tmp_path / "first", "--seed", 3)
    assert one["hash"] != first["hash"]
    assert same(train_in(2, normed, odd, tmp_path / "two", "--init", tmp_path / "first", "--seed", 3)) == same(one)
    assert train_in(2, normed, odd, tmp_path / "dry", "--dry-run")["dry_run"]
    assert not (tmp_path / "dry").exists()


def test_a_run_with_a_long_path_is_resumed(normed, odd, tmp_path):
    run = pathlib.Path(str(tmp_path), *("d" * 200 for _ in range(7)), "run")  # 1,400 bytes
    run.parent.mkdir(parents=True)
    one = train(normed, odd, run, "--epochs", 1)
    assert same(together((2, NITI, "--resume", run, "--threads", 1, "--json"))) == same(one)


# ---- interruptions and losses ----

def test_a_signal_to_any_rank_saves_and_resumes_by_other_numbers_of_ranks(long, tmp_path):
    recipe, data, one = long
    run = tmp_path / "run"
    launcher = start((3, NITI, recipe, "--data", data, "--run", run, "--threads", 1, "--epochs", EPOCHS, "--json"))
    ranks = processes_of(launcher, 3)
    wait_for(run / "best.safetensors", launcher)  # an epoch is over
    os.kill(ranks[max(ranks)], signal.SIGTERM)
    code, out, err = end_of(launcher)
    assert code == 128 + signal.SIGTERM and json.loads(out.splitlines()[0])["interrupted"], (code, out, err)
    assert re.search(r"niti: rank 2 \(.*\) received SIGTERM: interrupted after step", err), err
    launcher = start((2, NITI, "--resume", run, "--threads", 1, "--json"))
    ranks = processes_of(launcher, 2)
    wait_for(run / "previous.safetensors", launcher)
    time.sleep(0.3)
    os.kill(ranks[0], signal.SIGTERM)
    end_of(launcher)  # interrupted too, or at its end already
    assert same(together((4, NITI, "--resume", run, "--threads", 1, "--json"))) == same(one)


def end_of_struck(long, run, size, number, timeout):
    """Rank 1 of so many receives the signal once there is a checkpoint: how the run ends."""
    recipe, data, _ = long
    launcher = start((size, NITI, recipe, "--data", data, "--run", run, "--threads", 1, "--epochs", EPOCHS))
    ranks = processes_of(launcher, size)
    wait_for(run / "best.safetensors", launcher)
    os.kill(ranks[1], number)
    return end_of(launcher, timeout=timeout)


def test_a_killed_rank_ends_the_run_and_one_process_resumes(long, tmp_path):
    run = tmp_path / "run"
    code, out, err = end_of_struck(long, run, 3, signal.SIGKILL, timeout=30)
    assert code != 0 and "rank 1" in err and "signal 9" in err, (code, out, err)
    assert same(resume(run)) == same(long[2])


def test_a_stopped_rank_ends_the_run(long, tmp_path):
    run = tmp_path / "run"
    code, out, err = end_of_struck(long, run, 2, signal.SIGSTOP, timeout=40)
    assert code == 3 and "niti: rank 1 (" in err and "has not answered" in err, (code, out, err)
    assert same(resume(run)) == same(long[2])


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_rank_that_stops_before_mpi_starts_is_named(normed, odd, tmp_path):
    stopped = script(tmp_path / "stopped", "kill -STOP $$")
    code, out, err = end_of(start((1, NITI, normed, "--data", odd, "--run", tmp_path / "run"), (1, stopped)), timeout=40)
    assert code == 3 and "niti: rank 1 (" in err and "has not answered" in err and "not known where" not in err, (code, out, err)


@pytest.mark.skipif(not os.environ.get("NITI_TEST_SLOW"), reason="set NITI_TEST_SLOW to a number of kills")
def test_kills_at_random_moments(long, tmp_path):
    """Ranks are killed again and again, and other numbers of ranks go on, until the run is complete."""
    recipe, data, one = long
    run, dice = tmp_path / "run", random.Random(1)
    new = (recipe, "--data", data, "--run", run, "--epochs", EPOCHS)
    for _ in range(int(os.environ["NITI_TEST_SLOW"])):
        count = dice.randint(2, 4)
        launcher = start((count, NITI, *(("--resume", run) if run.exists() else new), "--threads", 1))
        ranks = processes_of(launcher, count)
        time.sleep(dice.random() * 3)
        if launcher.poll() is None:
            os.kill(ranks[dice.randrange(count)], signal.SIGKILL)
        code, out, err = end_of(launcher, timeout=30)
        assert code == 0 or "signal 9" in err, (code, out, err)
    assert same(resume(run)) == same(one)


def test_slow_ranks_are_named(cifar, tmp_path):
    """Two of three, or as many of them as other processes let be slow, within an epoch, with --quiet too."""
    if not set(json_of("info")["isa_available"]) - {"ref"}:
        pytest.skip("this machine has no faster kernels than ref")
    if SANITIZE:
        pytest.skip("with a sanitizer the steps of this network take minutes")
    how = ("vgg-small-7-cifar10", "--data", several(cifar, tmp_path / "data", 20), "--run", tmp_path / "run", "--threads", 1, "--test-limit",
           4, "--batch", 12, "--quiet")
    launcher = start((1, NITI, *how), (2, NITI, *how, "--isa", "ref"))
    words, end = "", time.monotonic() + 90
    while "times as long for" not in words and time.monotonic() < end:
        assert launcher.poll() is None, launcher.communicate()
        words = launcher.stderr.readline()
    ranks = processes_of(launcher, 3)
    os.kill(ranks[0], signal.SIGKILL)
    end_of(launcher)
    assert re.match(r"niti: rank [12] \(.*times as long for .* of a batch as rank ", words), words


# ---- what does not belong together ----

def refused(says, *parts):
    code, out, err = end_of(start(*parts))
    lines = [line for line in err.splitlines() if re.match("niti: (?!(reading|hashing) .* [0-9]+ of [0-9]+$)", line)]  # not progress
    assert code == 1 and len(lines) == 1, (code, out, err)
    for text in says:
        assert text in lines[0], lines[0]


def test_other_recipes_data_and_programs_are_refused(normed, odd, tmp_path):
    how = (normed, "--run", tmp_path / "run", "--threads", 1)
    changed = tmp_path / "changed.yaml"
    changed.write_text(normed.read_text().replace("seed: 9", "seed: 5"))
    refused(("the recipe", "rank 1 (", "seed 5", "rank 0 (", "seed 9"), (1, NITI, *how, "--data", odd),
            (1, NITI, changed, *how[1:], "--data", odd))
    other = data_sets.write_idx_set(tmp_path / "other", data_sets.squares(150, 4), data_sets.squares(61, 2))
    sets = ("--set", "data.mean=[0.5]", "--set", "data.std=[0.25]")
    refused(("training images", "rank 2 (", "SHA-256"), (2, NITI, *how, "--data", odd, *sets), (1, NITI, *how, "--data", other, *sets))
    fewer = data_sets.write_idx_set(tmp_path / "fewer", data_sets.squares(149, 4), data_sets.squares(61, 2))
    refused(("training images", "rank 1 (", "149 of them"), (1, NITI, *how, "--data", odd), (1, NITI, *how, "--data", fewer))
    refused(("training images", "rank 2 (", "SHA-256"), (2, NITI, *how, "--data", odd), (1, NITI, *how, "--data", other))
    folders = data_sets.write_folder_set(tmp_path / "folders", "abcd", data_sets.squares(150, 1), data_sets.squares(61, 2))
    refused(("training images", "rank 1 (", "folder", "idx"), (1, NITI, *how, "--data", odd), (1, NITI, *how, "--data", folders))
    refused(("rank 1 (", "missing"), (1, NITI, *how, "--data", odd), (1, NITI, *how, "--data", tmp_path / "missing"))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "niti"
    program.write_bytes(NITI.read_bytes() + b"\0")
    program.chmod(0o755)
    (tmp_path / "bin" / PLUGIN.name).write_bytes(PLUGIN.read_bytes())
    refused(("the program", "rank 1 (", "SHA-256"), (1, NITI, *how, "--data", odd), (1, program, *how, "--data", odd))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option, says", [
    (("--dry-run",), ("--dry-run: rank 1 (", "has it", "has none")),
    (("--init", "lenet5-mnist"), ("--init: rank 1 (", "has one", "has none")),
    (("--save-every", 2), ("--save-every: rank 1 (", "has '2'", "has '0'")),
    (("--seed", 5), ("--seed: rank 1 (", "has '5'", "has none")),
])
def test_an_option_of_one_rank_only_is_named(option, says, normed, odd, tmp_path):
    """What the ranks exchange depends on their options, so that they would wait for each other."""
    how = (NITI, normed, "--run", tmp_path / "run", "--data", odd, "--threads", 1)
    refused(says, (1, *how), (1, *how, *option))
    assert not (tmp_path / "run").exists()


def test_a_recipe_beside_a_run_to_resume_is_refused(normed, odd, tmp_path):
    train(normed, odd, tmp_path / "run", "--epochs", 1)
    refused(("a recipe: rank 1 (", "has one", "rank 0 (", "has none"), (1, NITI, "--resume", tmp_path / "run"),
            (2, NITI, normed, "--data", odd, "--run", tmp_path / "other"))


def test_options_of_a_ranks_own_may_differ(normed, odd, tmp_path):
    """What it prints, and paths that rank 0 alone opens, which other ranks need not have."""
    first = train(normed, odd, tmp_path / "first", "--epochs", 1)
    how = ("--data", odd, "--threads", 1, "--epochs", 2)
    many = together((1, NITI, normed, *how, "--run", tmp_path / "run", "--init", tmp_path / "first", "--json"),
                    (1, NITI, normed, *how, "--run", tmp_path / "elsewhere", "--init", tmp_path / "missing", "--quiet"))
    assert many["hash"] != first["hash"] and not (tmp_path / "elsewhere").exists()
    one = train(normed, odd, tmp_path / "one", "--epochs", 2, "--init", tmp_path / "first")
    assert same(many) == same(one)


def test_other_class_names_and_plugins_are_refused(normed, tmp_path):
    names, others = ("circle", "line", "point", "square"), ("circle", "line", "point", "triangle")
    data = [data_sets.write_folder_set(tmp_path / str(i), given, data_sets.squares(40, 1), data_sets.squares(8, 2))
            for i, given in enumerate((names, names))]
    (data[1] / "classes.txt").write_text("".join(f"{a} {b}\n" for a, b in zip(names, others)))
    how = (NITI, normed, "--run", tmp_path / "run", "--threads", 1, *PLAIN, "--data")
    refused(("name of class 3", "rank 1 (", "triangle", "rank 0 ("), (1, *how, data[0]), (1, *how, data[1]))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "niti"
    program.write_bytes(NITI.read_bytes())
    program.chmod(0o755)
    (tmp_path / "bin" / PLUGIN.name).write_bytes(PLUGIN.read_bytes() + b"\0")
    refused(("the plugin", "rank 1 (", "SHA-256"), (1, *how, data[0]), (1, program, *how[1:], data[0]))
    assert not (tmp_path / "run").exists()


def hashes_in(run):
    """The SHA-256 of the data in a run's best checkpoint."""
    header = (run / "best.safetensors").read_bytes()[:65536].decode("latin-1")
    return re.findall(r'"(?:train|test)_set_sha256": ?"([0-9a-f]{64})"', header)


def test_copies_of_data_are_told_apart_by_what_is_in_them(normed, odd, tmp_path):
    """Not by their names, sizes and times; ranks with the same files hash them once, others each for itself."""
    twin, forged = tmp_path / "twin", tmp_path / "forged"
    shutil.copytree(odd, twin)
    shutil.copytree(odd, forged)
    changed = forged / "train-images-idx3-ubyte"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    os.utime(changed, ns=((odd / changed.name).stat().st_atime_ns, (odd / changed.name).stat().st_mtime_ns))
    assert changed.stat().st_mtime_ns == (odd / changed.name).stat().st_mtime_ns and changed.stat().st_size == (odd / changed.name).stat().st_size
    time.sleep(3.1)  # files that have just changed are hashed by every rank
    how = (normed, "--threads", 1, "--set", "data.mean=[0.5]", "--set", "data.std=[0.25]")
    refused(("training images", "rank 2 (", "SHA-256"), (2, NITI, *how, "--run", tmp_path / "run", "--data", odd),
            (1, NITI, *how, "--run", tmp_path / "run", "--data", forged))
    assert not (tmp_path / "run").exists()
    one = train(normed, odd, tmp_path / "one", *how[3:], "--epochs", 1)
    many = together((2, NITI, *how, "--run", tmp_path / "many", "--epochs", 1, "--json", "--data", odd),
                    (1, NITI, *how, "--run", tmp_path / "many", "--epochs", 1, "--json", "--data", twin))
    assert same(many) == same(one)
    assert hashes_in(tmp_path / "many") == hashes_in(tmp_path / "one") != []


# ---- what each rank reads ----

PLAIN = ("--set", "data.mean=[0.5]", "--set", "data.std=[0.25]")


def as_arrays(folder, train, test):
    """The same images in .npy files."""
    folder.mkdir()
    for name, (images, labels) in (("train", train), ("test", test)):
        np.save(folder / f"{name}_x.npy", images)
        np.save(folder / f"{name}_y.npy", labels)
    return folder


@pytest.mark.parametrize("kind", ["arrays", "packed", "mixed"])
def test_images_that_stay_in_files_have_the_bits_of_one_process(kind, normed, odd, tmp_path):
    """odd itself is of IDX files, and cifar's are above. packed: every rank unpacks them; mixed: only the first."""
    train_set, test_set = data_sets.squares(150, 1), data_sets.squares(61, 2)
    if kind == "arrays":
        data = as_arrays(tmp_path / "data", train_set, test_set)
    else:
        data = data_sets.write_idx_set(tmp_path / "data", train_set, test_set, compressed=True)
    sets = ("--epochs", 2, "--set", "data.validation=20")
    one = train(normed, data, tmp_path / "one", *sets)
    assert same(one) == same(train(normed, odd, tmp_path / "plain", *sets))
    if kind == "mixed":
        how = (normed, "--run", tmp_path / "run", "--threads", 1, *sets, "--json", "--data")
        assert same(together((1, NITI, *how, data), (2, NITI, *how, odd))) == same(one)
        return
    for ranks in (1, 4):
        assert same(train_in(ranks, normed, data, tmp_path / str(ranks), *sets)) == same(one)


COUNTED = """#!{python}
import json, os, resource, subprocess, sys
def read(): return int(open("/proc/self/io").read().split()[1])
before = read()
code = subprocess.run(["{niti}", *sys.argv[1:]]).returncode
found = [read() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]
open(os.path.join("{folder}", os.environ["OMPI_COMM_WORLD_RANK"]), "w").write(json.dumps(found))
sys.exit(code)
"""


def counted(ranks, recipe, data, folder):
    """[bytes read, the most memory] of each rank in two steps."""
    folder.mkdir()
    program = folder / "counted"
    program.write_text(COUNTED.format(python=sys.executable, niti=NITI, folder=folder))
    program.chmod(0o755)
    sets = ("--set", "data.mean=[0.5, 0.5, 0.5]", "--set", "data.std=[0.25, 0.25, 0.25]")
    together((ranks, program, recipe, "--data", data, "--run", folder / "run", "--threads", 1, "--json", "--max-steps", 2, "--test-limit", 8,
              *sets))
    return [json.loads((folder / str(rank)).read_text()) for rank in range(ranks)]


def test_no_rank_reads_or_keeps_more_than_it_needs(elements, cifar, tmp_path, monkeypatch):
    """Of a host's ranks one hashes the training files; the others read their images, and none keeps them all."""
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # a search for leaks reads the program and its libraries
    large = several(cifar, tmp_path / "large", 500)
    size = sum(path.stat().st_size for path in large.glob("data*"))  # 77 MB
    time.sleep(3.1)  # files that have just changed are hashed by every rank
    usual = max(memory for _, memory in counted(2, elements, cifar, tmp_path / "small"))
    (alone, kept), = counted(1, elements, large, tmp_path / "1")  # a process by itself reads them once, and keeps them
    assert size <= alone < 1.2 * size and kept > size
    for ranks in (2, 4):
        found = counted(ranks, elements, large, tmp_path / str(ranks))
        assert size <= found[0][0] < 1.2 * size + NITI.stat().st_size, found  # it hashes the program too
        assert all(read < size / 10 for read, _ in found[1:]), found
        assert all(memory < usual + size / 4 for _, memory in found), (usual, found)


@pytest.mark.parametrize("how, says", [("shrinks", "the file ends here"), ("changes", "was changed while in use")])
def test_a_data_file_that_changes_ends_the_run(how, says, normed, tmp_path):
    """Every rank that wants one of its images sees it; no step is made of what was not hashed."""
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(150, 1), data_sets.squares(61, 2))
    run, images = tmp_path / "run", data / "train-images-idx3-ubyte"
    launcher = start((3, NITI, normed, "--data", data, "--run", run, "--threads", 1, "--epochs", 2000, "--test-every", 2000, "--save-every",
                      1, *PLAIN))
    wait_for(run / "epoch-0001.safetensors", launcher)
    content = images.read_bytes()
    with open(images, "r+b") as file:
        if how == "shrinks":
            file.truncate(16 + 64 * 10 + 32)
        else:
            file.seek(16)
            file.write(bytes(byte ^ 1 for byte in content[16:]))
    code, out, err = end_of(launcher)
    lines = [line for line in err.splitlines() if says in line]
    assert code == 1 and len(lines) == 1 and str(images) in lines[0], (code, out, err)
    assert f"is saved; once the file is restored, `niti train --resume {run}` continues" in lines[0], lines
    images.write_bytes(content)


@pytest.mark.parametrize("name", ["metrics.csv", ".lock"])
def test_a_file_of_the_run_that_is_removed_ends_it(name, normed, odd, tmp_path):
    """Rank 0 alone sees it, and says how to go on."""
    run = tmp_path / "run"
    launcher = start((2, NITI, normed, "--data", odd, "--run", run, "--threads", 1, "--epochs", 100000, *PLAIN))
    wait_for(run / "best.safetensors", launcher)
    (run / name).unlink()
    code, out, err = end_of(launcher)
    lines = [line for line in err.splitlines() if f"{run / name}: was removed" in line]
    assert code == 1 and len(lines) == 1 and lines[0].startswith("niti: rank 0 ("), (code, out, err)
    assert lines[0].endswith(f"; `niti train --resume {run}` continues"), lines


def test_a_device_that_one_rank_lacks_is_refused(normed, odd, tmp_path):
    """The others wait for it where devices are connected."""
    how = (NITI, normed, "--run", tmp_path / "run", "--data", odd, "--threads", 1)
    refused(("rank 1 (", "cuda"), (1, *how, "--backend", "cpu"), (1, *how, "--backend", "cuda"))
    refused(("rank 0 (", "nope"), (1, *how, "--isa", "nope"), (2, *how))
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_on_all_ranks_is_said_once(normed, odd, tmp_path):
    refused(("no-such-recipe",), (2, NITI, "no-such-recipe", "--data", odd))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    refused(("full",), (2, NITI, normed, "--data", odd, "--run", tmp_path / "full", "--threads", 1))


def test_a_rank_that_cannot_read_its_image_is_named(normed, tmp_path):
    """Only the rank in whose share it is reads an image; all end together, and the state is saved."""
    names = ("circle", "line", "point", "square")
    data = data_sets.write_folder_set(tmp_path / "data", names, data_sets.squares(40, 1), data_sets.squares(8, 2))
    run = tmp_path / "run"
    launcher = start((2, NITI, normed, "--data", data, "--run", run, "--threads", 1, "--epochs", 2000, "--test-every", 2000, "--save-every",
                      1, "--set", "data.mean=[0.5]", "--set", "data.std=[0.25]"))
    wait_for(run / "epoch-0001.safetensors", launcher)
    gone = sorted((data / "train").glob("*/*.png"))[17]
    gone.unlink()
    code, out, err = end_of(launcher)
    lines = [line for line in err.splitlines() if gone.name in line]
    assert code == 1 and len(lines) == 1 and lines[0].startswith("niti: rank ") and "is saved" in lines[0], (code, out, err)


def test_without_the_plugin(normed, odd, tmp_path):
    """One process needs none; one of several is refused rather than training on its own."""
    program = tmp_path / "niti"
    program.write_bytes(NITI.read_bytes())
    program.chmod(0o755)
    how = ["train", str(normed), "--data", str(odd), "--run", str(tmp_path / "run"), "--threads", "1"]
    alone = subprocess.run([program, *how, "--max-steps", "2"], capture_output=True, text=True, timeout=60, check=False)
    assert alone.returncode == 0, alone.stderr
    several = niti("info")  # any other command takes no notice
    assert several.returncode == 0
    several = subprocess.run([program, *how], capture_output=True, text=True, timeout=60, check=False,
                             env={**os.environ, "OMPI_COMM_WORLD_SIZE": "2"})
    assert several.returncode == 1 and "libniti_mpi.so" in several.stderr, several.stderr
