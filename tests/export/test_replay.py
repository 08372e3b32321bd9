"""What a device learned comes back: the log of its samples trains the same weights on the host, and its saved state is a checkpoint."""

import json
import os
import subprocess

import networks as nets
import numpy as np
import pytest
from conftest import HERE, NITI, Job, call, niti_json, write_npy


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    made = Job(tmp_path_factory.mktemp("replay"), nets.A, images=40, batch=3, max_steps=30, freeze=["conv1"])
    made.export()
    made.checkpoint = made.path("c", "a.safetensors")
    random = np.random.RandomState(5)
    made.order = [random.randint(0, 40, size=random.randint(1, 4)) for _ in range(25)]
    write_npy(made.path("shifted"), np.roll(made.images, 3, axis=2), (made.labels + 1) % 10)
    made.batches = lambda: ((made.images[n], made.labels[n]) for n in made.order)
    with open(made.path("log"), "w", encoding="ascii") as file:
        file.write("# what the device saw\n")
        for numbers in made.order:
            file.write(" ".join(f"{n}:{made.labels[n]}" for n in numbers) + "\n")
    return made


def test_replay_has_the_hash_of_the_device(job):
    report = niti_json("replay", job.path("log"), job.checkpoint, "--data", job.path("data"), "--out", job.path("replayed.safetensors"))
    assert report == {"hash": job.c_hash(), "steps": 25, "mu": 4}
    assert call(NITI, "hash", job.path("replayed.safetensors")).decode().strip() == report["hash"]


@pytest.mark.parametrize("keys", [{"flip": True}, {"crop": "resized"}, {"cutout": 3}, {"brightness": 0.2}], ids=lambda keys: next(iter(keys)))
def test_augmentation_stays_on_the_host(keys, job, tmp_path):
    """An export leaves it out and says so, with the same bits; a replay of a run that had it is refused."""
    data = {"mean": [0.5], "std": [0.25], **keys}
    changed = Job(tmp_path, nets.A, images=40, batch=3, max_steps=6, freeze=["conv1"], data=data)
    result = subprocess.run([NITI, "export", "c", changed.path("recipe.yaml"), "--out", changed.path("c"), "--batch", "3"], capture_output=True, text=True, check=True)
    assert "the device takes images as they are" in result.stderr
    replayed = niti_json("replay", job.path("log"), changed.path("c", "a.safetensors"), "--data", job.path("data"), "--out", changed.path("replayed.safetensors"))
    assert replayed["hash"] == job.c_hash()
    changed.host_hash()
    result = subprocess.run([NITI, "replay", job.path("log"), changed.path("run", "last.safetensors"), "--data", job.path("data"), "--out",
                             changed.path("bad.safetensors")], capture_output=True, text=True, check=False)
    assert result.returncode != 0 and "a replay takes images as they are" in result.stderr and not os.path.exists(changed.path("bad.safetensors"))


@pytest.mark.parametrize("line, why", [
    ("3", "expected SAMPLE:LABEL"), ("3:x", "expected SAMPLE:LABEL"), ("+3:1", "'+3:1': expected SAMPLE:LABEL"), ("3:+1", "expected SAMPLE:LABEL"),
    ("\v3:1", "expected SAMPLE:LABEL"), ("3:\f1", "expected SAMPLE:LABEL"), ("40:0", "no such sample"), ("-1:0", "no such sample"), ("-0:0", "no such sample"), ("3:-0", "no such class"), ("3:10", "no such class"),
    ("1:1 2:2 3:3 4:4", "more images than the network's batch"), ("mu 31", "expected a learning rate"), ("mu", "expected a learning rate"),
    ("mu 3 4", "'4': expected nothing after the learning rate"), ("mu +3", "expected a learning rate")])
def test_wrong_logs_are_refused(line, why, job):
    with open(job.path("bad.log"), "w", encoding="ascii") as file:
        file.write(f"0:0\n{line}\n")
    result = subprocess.run([NITI, "replay", job.path("bad.log"), job.checkpoint, "--data", job.path("data"), "--out", job.path("bad.safetensors")],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 1 and f"bad.log:2: " in result.stderr and why in result.stderr
    assert not os.path.exists(job.path("bad.safetensors"))


def test_a_log_is_checked_before_the_data_is_opened(job):
    with open(job.path("bad.log"), "w", encoding="ascii") as file:
        file.write("0:0\n1:1 x\n")
    result = subprocess.run([NITI, "replay", job.path("bad.log"), job.checkpoint, "--data", job.path("missing")], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "bad.log:2: 'x': expected SAMPLE:LABEL" in result.stderr


def test_nothing_that_is_read_is_overwritten(job):
    """Neither the export's checkpoint, without which no slot can be read again, nor the dump or the log."""
    slots = job.path("over.bin")
    dump_of(job, slots)
    os.makedirs(job.path("linked"), exist_ok=True)
    link = job.path("linked", "a.safetensors")
    if not os.path.exists(link):
        os.symlink(job.checkpoint, link)
    data = ["--data", job.path("data")]
    for command in (["import", slots, job.checkpoint, "--out", job.checkpoint], ["import", slots, job.checkpoint, "--out", link], ["import", slots, job.checkpoint, "--out", slots],
                    ["replay", job.path("log"), job.checkpoint, *data, "--out", job.checkpoint], ["replay", job.path("log"), job.checkpoint, *data, "--out", job.path("log")]):
        before = [open(path, "rb").read() for path in (slots, job.checkpoint, job.path("log"))]
        result = subprocess.run([NITI, *command], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "(expected another file)" in result.stderr
        assert before == [open(path, "rb").read() for path in (slots, job.checkpoint, job.path("log"))]


def test_a_log_with_a_zero_byte_is_refused(job):
    """Serial lines drop them in; what follows would be left out."""
    with open(job.path("zero.log"), "w", encoding="ascii") as file:
        file.write("0:0\n1:1\0\n2:2\n")
    result = subprocess.run([NITI, "replay", job.path("zero.log"), job.checkpoint, "--data", job.path("data")], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1 and "zero.log: byte 7: a zero byte in a text" in result.stderr and result.stdout == ""


DUMP = """
#include "a.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static uint8_t slots[2][A_SLOT_BYTES];
static int read_slot(void *u, int s, uint32_t o, void *d, uint32_t n) { (void)u; memcpy(d, slots[s] + o, n); return 0; }
static int write_slot(void *u, int s, uint32_t o, const void *d, uint32_t n) { (void)u; memcpy(slots[s] + o, d, n); return 0; }
#define DUMP fwrite(slots, 1, sizeof slots, fopen(argv[1], "wb"))
"""


def dump_of(job, path, *changes):
    """Both slots after the steps, saved three times. changes: of the program's text."""
    with open(os.path.join(HERE, "host.c"), encoding="utf-8") as file:
        source = file.read().replace("#include NET_H", DUMP).replace(
            "NET(hash)(&network, hash);\n  puts", "NET(save)(&network, read_slot, write_slot, NULL);\n  DUMP;\n  NET(hash)(&network, hash);\n  puts")
        source = source.replace("if (every)", "NET(save)(&network, read_slot, write_slot, NULL);\n    if (every)")
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    with open(job.path("dump.c"), "w", encoding="utf-8") as file:
        file.write(source)
    call("gcc", "-O1", "-w", *job.defines(), job.path("dump.c"), job.path("c", "a.c"), "-o", job.path("dump"))
    return call(job.path("dump"), path, input=job.feed()).decode().split()[-1]


def test_a_dump_becomes_a_checkpoint_that_goes_on_training(job):
    slots = job.path("slots.bin")
    expected = dump_of(job, slots)
    assert niti_json("import", slots, job.checkpoint, "--out", job.path("back.safetensors")) == {"hash": expected, "steps": 25, "mu": 4}
    report = niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("on"), "--init", job.path("back.safetensors"), "--quiet")
    assert report["steps"] == 30
    with open(slots, "rb") as file:
        content = bytearray(file.read())
    half = len(content) // 2
    for slot in (content[:half], content[half:]):  # one slot alone is an older or the newest state
        with open(job.path("one.bin"), "wb") as file:
            file.write(slot)
        assert niti_json("import", job.path("one.bin"), job.checkpoint, "--out", job.path("one.safetensors"))["steps"] == 25
    erased = lambda count: b"\xff" * count  # noqa: E731
    noise = bytes(range(256)) * 9
    pages = [content[:half] + erased(4096 - half % 4096) + content[half:], content + erased(100), noise + content[half:] + noise[3:] + content[:half] + noise[:77],
             content[:half] + erased(50), b"NITI" * 100 + content]
    for dump in pages:  # as it lies in pages of flash, in either order
        with open(job.path("pages.bin"), "wb") as file:
            file.write(dump)
        assert niti_json("import", job.path("pages.bin"), job.checkpoint, "--out", job.path("pages.safetensors"))["steps"] == 25
        newest = call(NITI, "hash", job.path("pages.safetensors")).decode().strip()
        assert newest == expected
    cut = [(content[:-1], "end within a slot"), (content[:-40], "end within a slot"), (content[:half + 70], "end within a slot"), (content[:half - 1], "end within a slot")]
    content = bytearray(content)
    content[5] ^= 1
    content[half + 5] ^= 1
    for damaged, why in [(content, "no whole state of this network"), *cut]:
        with open(slots, "wb") as file:
            file.write(damaged)
        result = subprocess.run([NITI, "import", slots, job.checkpoint, "--out", job.path("no.safetensors")], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "slots.bin" in result.stderr and why in result.stderr, why
        assert not os.path.exists(job.path("no.safetensors"))


def test_headers_without_slots_are_few(job):
    """Each costs a checksum over a slot, so a dump of the size of N slots may have 2 (N + 1), whole or not."""
    slots, dump, out = job.path("few.bin"), job.path("headers.bin"), job.path("headers.safetensors")
    expected = dump_of(job, slots)
    with open(slots, "rb") as file:
        content = file.read()
    slot = len(content) // 2
    stale = content[slot - 64:slot - 28]  # the fields of a header
    assert 5 * len(stale) + 64 < slot

    def write(data):
        with open(dump, "wb") as file:
            file.write(data)
        return ["import", dump, job.checkpoint, "--out", out]

    assert niti_json(*write(content * 10))["hash"] == expected
    assert niti_json(*write(content + stale * 4 + b"\xff" * 64))["hash"] == expected
    os.remove(out)
    result = subprocess.run([NITI, *write(content + stale * 5 + b"\xff" * 64)], capture_output=True, text=True, check=False)
    at = 2 * slot + 4 * len(stale)
    assert result.returncode == 1 and f"headers.bin: byte {at}: more than 6 headers of this network (expected one per slot of {slot} bytes)" in result.stderr
    assert not os.path.exists(out)


def test_a_weight_that_no_state_has_is_refused(job):
    """The message is about the dump, not about the file to be written; an older state does not count instead."""
    slots, out = job.path("weight.bin"), job.path("weight.safetensors")
    dump_of(job, slots, ("DUMP;", "network.weights[5] = -128; NET(save)(&network, read_slot, write_slot, NULL); DUMP;"))
    result = subprocess.run([NITI, "import", slots, job.checkpoint, "--out", out], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "weight.bin: byte " in result.stderr and "a weight of the newest state is -128" in result.stderr
    assert not os.path.exists(out)


@pytest.mark.parametrize("mu", [31, -1, -100000])
def test_a_saved_rate_out_of_range_is_refused(mu, job):
    """By the field, as a signed number: neither an export nor a replay would take the checkpoint."""
    slots, out = job.path("rate.bin"), job.path("rate.safetensors")
    dump_of(job, slots, ("DUMP;", f"network.mu = {mu}; NET(save)(&network, read_slot, write_slot, NULL); DUMP;"))
    result = subprocess.run([NITI, "import", slots, job.checkpoint, "--out", out], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and f"rate.bin: the mu of the newest state is {mu} (expected a whole number from 0 to 30)" in result.stderr
    assert not os.path.exists(out)


def test_a_replay_goes_on_from_an_import_in_the_middle(tmp_path):
    """At the step, whose number is part of all random words, and the learning rate that the device had."""
    job = Job(tmp_path, nets.A, images=40, batch=3, max_steps=30, rounding={"activation": "stochastic", "error": "stochastic"})
    job.export()
    checkpoint = job.path("c", "a.safetensors")
    order = [[(7 * step + k) % 40 for k in range(3)] for step in range(20)]
    lines = [" ".join(f"{n}:{job.labels[n]}" for n in numbers) for numbers in order]
    lines.insert(8, "mu 6")
    for name, part in (("whole", lines), ("first", lines[:11]), ("rest", lines[11:])):
        with open(job.path(name), "w", encoding="ascii") as file:
            file.write("\n".join(part) + "\n")
    replay = lambda log, network, *options: niti_json("replay", job.path(log), network, "--data", job.path("data"), *options)  # noqa: E731
    whole = replay("whole", checkpoint)
    assert whole["steps"] == 20 and whole["mu"] == 6

    job.batches = lambda: ((job.images[n], job.labels[n]) for n in map(np.array, order[:10]))
    middle = dump_of(job, job.path("slots.bin"), ("const int every =", "int at = 0;\n  const int every ="),
                     ("    if (train(pixels", "    if (at++ == 8) network.mu = 6;\n    if (train(pixels"))
    assert niti_json("import", job.path("slots.bin"), checkpoint, "--out", job.path("middle.safetensors")) == {"hash": middle, "steps": 10, "mu": 6}
    first = replay("first", checkpoint, "--out", job.path("first.safetensors"))
    assert first["hash"] == middle
    for start in ("middle.safetensors", "first.safetensors"):
        assert replay("rest", job.path(start)) == whole


def test_int8_values_are_replayed(tmp_path):
    """A device takes values as the data set has them, the host as mantissas."""
    job = Job(tmp_path, nets.FORKS, images=30, batch=2, max_steps=20, data={"type": "int8", "mean": [0.1], "std": [0.4]})
    values = job.images.astype(np.int16) - 128
    values = np.maximum(values, -127).astype(np.int8)
    write_npy(job.path("data"), values, job.labels)
    job.export()
    order = [[(5 * step) % 30, (11 * step + 3) % 30] for step in range(20)]
    job.batches = lambda: ((values[n].view(np.uint8), job.labels[n]) for n in map(np.array, order))
    with open(job.path("log"), "w", encoding="ascii") as file:
        file.write("".join(" ".join(f"{n}:{job.labels[n]}" for n in numbers) + "\n" for numbers in order))
    report = niti_json("replay", job.path("log"), job.path("c", "forks.safetensors"), "--data", job.path("data"))
    assert report == {"hash": job.c_hash(), "steps": 20, "mu": 4}
    write_npy(job.path("pixels"), job.images, job.labels)
    result = subprocess.run([NITI, "replay", job.path("log"), job.path("c", "forks.safetensors"), "--data", job.path("pixels")], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1 and "values of uint8, but the network takes int8 (data.type)" in result.stderr


def test_a_replay_writes_where_it_ended(job):
    from safetensors import safe_open
    niti_json("replay", job.path("log"), job.checkpoint, "--data", job.path("data"), "--out", job.path("whole.safetensors"))
    with safe_open(job.path("whole.safetensors"), "np") as file:
        metadata = file.metadata()
    assert [metadata[key] for key in ("device_step", "device_mu", "device_seed", "arithmetic")] == ["25", "4", "3", "1.2"]


def test_a_step_beyond_the_counter_is_refused(job):
    """Its number has 32 bits; from 0 on, random words would be those of the first steps. Said before the data is opened."""
    slots, late, out = job.path("late.bin"), job.path("late.safetensors"), job.path("later.safetensors")
    dump_of(job, slots, ("DUMP;", "network.step = 4294967290u; NET(save)(&network, read_slot, write_slot, NULL); DUMP;"))
    assert niti_json("import", slots, job.checkpoint, "--out", late)["steps"] == 2**32 - 6
    with open(job.path("five.log"), "w", encoding="ascii") as file:
        file.write("# the last\nmu 3\n" + "0:0\n" * 5)
    assert niti_json("replay", job.path("five.log"), late, "--data", job.path("data"), "--out", out)["steps"] == 2**32 - 1
    os.remove(out)
    with open(job.path("six.log"), "w", encoding="ascii") as file:
        file.write("# one more\n" + "0:0\n" * 6)
    result = subprocess.run([NITI, "replay", job.path("six.log"), late, "--data", job.path("missing"), "--out", out], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "six.log:7: one step too many" in result.stderr and "at most 4294967295 in all" in result.stderr
    assert not os.path.exists(out)


SCHEDULE = [{"epoch": 0, "mu": 4}, {"epoch": 2, "mu": 3}, {"at": 0.9, "mu": 2}]


def exported(job, network, out):
    """The report of an export, what the command says, and mu and step as the C begins with them."""
    result = subprocess.run([NITI, "export", "c", network, "--out", job.path(out), "--batch", "3", "--json"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return None, result.stderr, None
    with open(job.path(out, "a.c"), encoding="ascii") as file:
        text = file.read()
    begins = tuple(int(text.split(f"network->{key} = ")[1].split(";")[0].rstrip("u")) for key in ("step", "mu"))
    return json.loads(result.stdout.splitlines()[-1]), result.stderr, begins


def test_an_export_begins_with_the_rate_in_force(tmp_path):
    """Of a schedule: the recipe's first, or the one of the checkpoint's last step; a replay begins with the same, and the command says whose the rest is."""
    job = Job(tmp_path, nets.A, images=10, batch=2, epochs=5, max_steps=25, update={"mu": SCHEDULE})
    niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--save-every", 1, "--quiet")
    with open(job.path("none.log"), "w", encoding="ascii") as file:
        file.write("# no step\n")
    for i, (network, mu) in enumerate([("recipe.yaml", 4), ("run:2", 4), ("run:3", 3), ("run:4", 3), ("run:last", 2)]):
        report, said, begins = exported(job, job.path(network), f"c{i}")
        assert begins == (0, mu) and (report["step"], report["mu"]) == begins
        assert f"update.mu is a schedule: the device begins with mu {mu}, and its firmware sets any other (network.mu)" in said
        for start in [job.path(f"c{i}", "a.safetensors")] + ([job.path(network)] if network != "recipe.yaml" else []):
            replayed = niti_json("replay", job.path("none.log"), start, "--data", job.path("data"))
            assert (replayed["steps"], replayed["mu"]) == begins
    plain = Job(tmp_path / "plain", nets.A, images=10, batch=2, max_steps=4)
    assert "schedule" not in exported(plain, plain.path("recipe.yaml"), "c")[1]


def test_a_fractional_rate_is_refused_where_it_is_in_force(tmp_path):
    schedule = [{"epoch": 0, "mu": 4}, {"epoch": 2, "mu": 3.5}]
    job = Job(tmp_path, nets.A, images=10, batch=2, epochs=5, max_steps=25, update={"mu": schedule})
    niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--save-every", 1, "--quiet")
    assert exported(job, job.path("run:2"), "c2")[2] == (0, 4)
    report, said, _ = exported(job, job.path("run:3"), "c3")
    assert report is None and "update.mu, which is 3.5: cannot be exported to C (expected a whole number)" in said and not os.path.exists(job.path("c3"))


def test_an_export_of_an_adapted_checkpoint_goes_on(tmp_path):
    """What was imported or replayed is exported with its step, rate and seed; the same log trains it further on the device and on the host."""
    job = Job(tmp_path, nets.A, images=40, batch=3, max_steps=30, rounding={"activation": "stochastic", "error": "stochastic"})
    job.export()
    order = [[(7 * step + k) % 40 for k in range(3)] for step in range(12)]
    for name, rate, part in (("first", "mu 2\n", order[:7]), ("rest", "", order[7:])):
        with open(job.path(name), "w", encoding="ascii") as file:
            file.write(rate + "".join(" ".join(f"{n}:{job.labels[n]}" for n in numbers) + "\n" for numbers in part))
    replay = lambda log, network, *options: niti_json("replay", job.path(log), network, "--data", job.path("data"), *options)  # noqa: E731
    replay("first", job.path("c", "a.safetensors"), "--out", job.path("adapted.safetensors"))
    report, _, begins = exported(job, job.path("adapted.safetensors"), "again")
    assert begins == (7, 2) == (report["step"], report["mu"])
    job.batches = lambda: ((job.images[n], job.labels[n]) for n in map(np.array, order[7:]))
    rest = replay("rest", job.path("adapted.safetensors"))
    assert rest["steps"] == 12 and rest["mu"] == 2
    assert replay("rest", job.path("again", "a.safetensors")) == rest and job.c_hash("gcc", "again") == rest["hash"]
