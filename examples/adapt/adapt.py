#!/usr/bin/env python3
"""A camera that was turned: trains on Fashion-MNIST, exports the network, and adapts it in C to images that are turned by 40 degrees.

    adapt.py NITI DIR [--steps N] [--epochs N]

NITI is the tool; everything is made below DIR: a new folder, an empty one, or one of an earlier run, whose files are made anew. Prints the accuracy on turned
images before and after, the same on the host by `niti replay`, and the hash of both. docs/microcontrollers.md walks through it. Needs Python alone, gcc (or
another compiler in CC) and Debian's package dataset-fashion-mnist (or its files in the folder NITI_DATA).
"""

import argparse
import gzip
import json
import math
import os
import random
import shlex
import shutil
import struct
import subprocess
import sys

MODEL = """name: camera
input: [28, 28, 1]
classes: 10
layers:
  - conv: {out: 8, kernel: 5}
  - relu
  - maxpool: {kernel: 2}
  - conv: {out: 16, kernel: 5}
  - relu
  - maxpool: {kernel: 2}
  - flatten
  - linear: {out: classes}
"""
RECIPE = """name: camera
model: ./model.yaml
data: {kind: idx, default: fashion-mnist, mean: [0.286], std: [0.353]}
batch: 64
epochs: %d
update: {mu: [{epoch: 0, mu: 4}, {epoch: 1, mu: 3}]}
"""
BATCH, IMAGES, DEGREES, SIDE = 8, 2000, 40, 28
MARK = "made-by-adapt.txt"
MADE = ("turned", "run", "c", "model.yaml", "recipe.yaml", "device.log", "device", "slots.bin", "adapted.safetensors", "replayed.safetensors")


def read_idx(folder, name):
    """The bytes of an IDX file's values, and how many belong to one image."""
    path = os.path.join(folder, f"{name}.gz")
    try:
        with gzip.open(path) as file:
            content = file.read()
    except OSError as error:
        sys.exit(f"adapt.py: {path}: {error.strerror or error} (expected Debian's package dataset-fashion-mnist, or NITI_DATA)")
    dims = struct.unpack(f">{content[3]}I", content[4:4 + 4 * content[3]])
    return content[4 + 4 * content[3]:], math.prod(dims[1:])


def turn():
    """For each pixel of a turned image, which pixel of the upright one it shows, about the centre and to the nearest; -1: none."""
    sine, cosine, middle = math.sin(math.radians(DEGREES)), math.cos(math.radians(DEGREES)), (SIDE - 1) / 2
    places = []
    for y in range(SIDE):
        for x in range(SIDE):
            from_y, from_x = (round(v + middle) for v in (cosine * (y - middle) - sine * (x - middle), sine * (y - middle) + cosine * (x - middle)))
            places.append(from_y * SIDE + from_x if 0 <= from_y < SIDE and 0 <= from_x < SIDE else -1)
    return places


def write_idx(path, values, *dims):
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + values)


def write_text(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def prepare(folder):
    """An empty folder, or an earlier run's without what that made."""
    mark = os.path.join(folder, MARK)
    if os.path.isdir(folder) and os.listdir(folder) and not os.path.exists(mark):
        sys.exit(f"adapt.py: {folder}: the folder is not empty (expected a new one, or one of an earlier run)")
    try:
        os.makedirs(folder, exist_ok=True)
        for path in (os.path.join(folder, name) for name in MADE):
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)
        write_text(mark, "Files of an earlier run of adapt.py, which the next one removes.\n")
        os.makedirs(os.path.join(folder, "turned"))
    except OSError as error:
        sys.exit(f"adapt.py: {folder}: {error.strerror}")


def run(command, **options):
    """What a command prints; it must succeed, and says itself why it does not."""
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=False, **options)
    except OSError as error:
        sys.exit(f"adapt.py: {command[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"adapt.py: {shlex.join(map(str, command))}: failed with code {done.returncode}")
    return done.stdout.decode()


def main():
    parser = argparse.ArgumentParser(description="adapts a network in exported C to a camera that was turned")
    parser.add_argument("niti", help="the tool: build/niti")
    parser.add_argument("folder", help="where everything is made: new, empty, or of an earlier run")
    parser.add_argument("--steps", type=int, default=1000, help="training steps on the device (default: 1000)")
    parser.add_argument("--epochs", type=int, default=2, help="of training before (default: 2)")
    given = parser.parse_args()
    at = lambda *parts: os.path.join(given.folder, *parts)  # noqa: E731
    niti = lambda *arguments: json.loads(run([given.niti, *arguments, "--json"]).splitlines()[-1])  # noqa: E731
    score = lambda *network: niti("eval", at(*network), "--data", at("turned"))["test_accuracy"]  # noqa: E731

    source, places, sets = os.environ.get("NITI_DATA", "/usr/share/datasets/fashion-mnist"), turn(), {}
    for prefix in ("train", "t10k"):
        pixels, size = read_idx(source, f"{prefix}-images-idx3-ubyte")
        labels, _ = read_idx(source, f"{prefix}-labels-idx1-ubyte")
        if size != SIDE * SIDE or len(labels) < IMAGES:
            sys.exit(f"adapt.py: {source}: expected {IMAGES} images or more of {SIDE}x{SIDE} pixels")
        upright = (pixels[n * size:(n + 1) * size] + b"\0" for n in range(IMAGES))  # place -1 is the 0 at the end
        sets[prefix] = [bytes(image[place] for place in places) for image in upright], labels[:IMAGES]
    prepare(given.folder)
    for prefix, (images, labels) in sets.items():
        write_idx(at("turned", f"{prefix}-images-idx3-ubyte"), b"".join(images), IMAGES, SIDE, SIDE)
        write_idx(at("turned", f"{prefix}-labels-idx1-ubyte"), labels, IMAGES)
    write_text(at("model.yaml"), MODEL)
    write_text(at("recipe.yaml"), RECIPE % given.epochs)

    trained = niti("train", at("recipe.yaml"), "--run", at("run"), "--quiet")
    report = niti("export", "c", at("run"), "--out", at("c"), "--batch", BATCH)
    print(f"trained: {trained['test_accuracy']:.1f} % of the upright test images")
    print(f"exported: {report['ram']} bytes of RAM at batch {BATCH}")
    print(f"before: {score('c', 'camera.safetensors'):.1f} % of the turned test images")

    images, labels = sets["train"]
    draw = random.Random(1)
    order = [[draw.randrange(IMAGES) for _ in range(BATCH)] for _ in range(given.steps)]
    log = "".join(" ".join(f"{n}:{labels[n]}" for n in numbers) + "\n" for numbers in order)
    write_text(at("device.log"), "mu 2\n" + log)  # what the device would write
    feed = b"".join(struct.pack(f"<{BATCH + 1}H", BATCH, *(labels[n] for n in numbers)) + b"".join(images[n] for n in numbers) for numbers in order)
    here = os.path.dirname(os.path.abspath(__file__))
    run([*shlex.split(os.environ.get("CC", "gcc")), "-std=c99", "-O2", "-I", at("c"), os.path.join(here, "device.c"), at("c", "camera.c"), "-o", at("device")])
    device = run([at("device"), at("slots.bin")], input=feed).strip()
    back = niti("import", at("slots.bin"), at("c", "camera.safetensors"), "--out", at("adapted.safetensors"))
    host = niti("replay", at("device.log"), at("c", "camera.safetensors"), "--data", at("turned"), "--out", at("replayed.safetensors"))
    print(f"after {given.steps} steps on the device: {score('adapted.safetensors'):.1f} %, hash {device[:16]}")
    print(f"the same on the host:  {score('replayed.safetensors'):.1f} %, hash {host['hash'][:16]}")
    if not device == back["hash"] == host["hash"]:
        sys.exit("adapt.py: the hashes differ")


main()
