"""Shared by the tests of exported networks: exporting, building and feeding them."""

import functools
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NITI = os.path.join(ROOT, os.environ.get("NITI_BUILD", "build"), "niti")
WARNINGS = ["-std=c99", "-ffreestanding", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wundef", "-Werror"]

sys.path.insert(0, os.path.join(ROOT, "tests"))
from oracle import arithmetic, make_data  # noqa: E402
from oracle.library import sanitizers  # noqa: E402
from oracle.train import batch_input  # noqa: E402,F401

LIMIT = 3000 if sanitizers(NITI) else 300  # seconds of a command


def call(*command, **kwargs):
    """The standard output of a command that must succeed."""
    result = subprocess.run([str(c) for c in command], capture_output=True, timeout=LIMIT, check=False, **kwargs)
    assert result.returncode == 0, f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def files_opened(log, *command):
    """How often a command that must succeed opens files, as strace writes it into log; the search for leaks does not work under strace."""
    options = "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", "")
    call("strace", "-f", "-e", "trace=openat", "-o", log, *command, env={**os.environ, "ASAN_OPTIONS": options})
    with open(log, encoding="utf-8") as file:
        return file.read()


def niti(*arguments):
    return call(NITI, *arguments).decode()


def niti_json(*arguments):
    return json.loads(niti(*arguments, "--json").strip().splitlines()[-1])


def synthetic(shape, classes, count, seed=7):
    """Images of noisy patterns, uint8 [count, H, W, C], and labels."""
    random = np.random.RandomState(seed)
    labels = random.permutation(np.arange(max(count, classes)) % classes)
    patterns = random.randint(0, 256, size=(classes, *shape))
    noise = random.randint(-60, 61, size=(len(labels), *shape))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels.astype(np.int64)


def write_npy(folder, images, labels, test=8):
    os.makedirs(folder, exist_ok=True)
    for split, x, y in (("train", images, labels), ("test", images[:test], labels[:test])):
        np.save(os.path.join(folder, f"{split}_x.npy"), x)
        np.save(os.path.join(folder, f"{split}_y.npy"), y)


class Plain(yaml.SafeDumper):
    """Without anchors."""

    def ignore_aliases(self, data):
        return True


class Job:
    """A model, a recipe, its data, and the same training on the host and in exported C."""

    def __init__(self, folder, model, images=None, **recipe):
        self.folder = folder
        self.model = model
        self.name = model["name"]
        self.recipe = {"name": self.name, "model": "./model.yaml", "batch": 1, "epochs": 1000, "max_steps": 50, "seed": 3, "loss": "niti",
                       "data": {"mean": [0.5] * model["input"][2], "std": [0.25] * model["input"][2]}, "update": {"mu": 4}}
        self.recipe.update(recipe)
        count = images or self.recipe["max_steps"] * self.recipe["batch"] * 2 // 3 + 1  # in the second epoch, the last batch of the first one smaller
        self.images, self.labels = synthetic(tuple(model["input"]), model["classes"], count)
        os.makedirs(folder, exist_ok=True)
        for name, content in (("model", model), ("recipe", self.recipe)):
            with open(os.path.join(folder, f"{name}.yaml"), "w", encoding="utf-8") as file:
                yaml.dump(content, file, Dumper=Plain)
        write_npy(os.path.join(folder, "data"), self.images, self.labels)

    def path(self, *parts):
        return os.path.join(str(self.folder), *parts)

    @functools.cached_property
    def _trained(self):
        report = niti_json("train", self.path("recipe.yaml"), "--data", self.path("data"), "--run", self.path("run"), "--quiet")
        assert report["steps"] == self.recipe["max_steps"]
        return report["hash"]

    def host_hash(self):
        return self._trained

    def batches(self):
        """(images, labels) of each step, in the order of docs/arithmetic.md."""
        done = 0
        for epoch in range(self.recipe["epochs"]):
            order = np.array(arithmetic.shuffled(self.recipe["seed"], epoch, len(self.images)))
            for start in range(0, len(order), self.recipe["batch"]):
                if done == self.recipe["max_steps"]:
                    return
                numbers = order[start:start + self.recipe["batch"]]
                yield self.images[numbers], self.labels[numbers]
                done += 1

    def feed(self):
        return b"".join(struct.pack("<H", len(y)) + y.astype("<u2").tobytes() + x.tobytes() for x, y in self.batches())

    def export(self, out="c", *options):
        return niti_json("export", "c", self.path("recipe.yaml"), "--out", self.path(out), "--batch", self.recipe["batch"], *options)

    def defines(self, out="c"):
        upper = self.name.upper()
        return [f'-DNET_H="{self.name}.h"', f"-DNET(x)={self.name}_##x", f"-DMAX(x)={upper}_##x", f"-DNETWORK={self.name}", "-I", self.path(out)]

    def build(self, compiler, out="c", *flags):
        program = self.path(f"{os.path.basename(compiler)}-program")
        library = self.path(f"{os.path.basename(compiler)}.o")
        call(compiler, *WARNINGS, "-O2", *flags, "-c", self.path(out, f"{self.name}.c"), "-o", library)
        call(compiler, "-std=c99", "-O1", *flags, *self.defines(out), os.path.join(HERE, "host.c"), library, "-o", program)
        return program

    def c_hash(self, compiler="gcc", out="c", *flags):
        return call(self.build(compiler, out, *flags), input=self.feed()).decode().split()[-1]


@pytest.fixture(scope="session", autouse=True)
def built():
    if not os.path.exists(NITI):
        pytest.fail(f"{NITI} does not exist")
