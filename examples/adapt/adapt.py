#!/usr/bin/env python3
"""A camera that was turned: trains on Fashion-MNIST, exports the network, and adapts it in C to images that are turned by 40 degrees.

    adapt.py NITI DIR [--steps N] [--epochs N]

NITI is the tool; everything is made below DIR. Prints the accuracy on turned images before and after, the same on the host by `niti replay`, and the hash of
both. docs/microcontrollers.md walks through it. Needs numpy, gcc and Debian's package dataset-fashion-mnist (or NITI_DATA).
"""

import argparse
import gzip
import json
import os
import struct
import subprocess

import numpy as np

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
BATCH, IMAGES, DEGREES = 8, 2000, 40


def read_idx(folder, name):
    with gzip.open(os.path.join(folder, f"{name}.gz")) as file:
        content = file.read()
    dims = struct.unpack(f">{content[3]}I", content[4:4 + 4 * content[3]])
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3]).reshape(dims)


def turned(images):
    """Each image turned about its centre, to the nearest pixel."""
    sine, cosine = np.sin(np.radians(DEGREES)), np.cos(np.radians(DEGREES))
    y, x = np.mgrid[0:28, 0:28] - 13.5
    from_y, from_x = np.rint(cosine * y - sine * x + 13.5).astype(int), np.rint(sine * y + cosine * x + 13.5).astype(int)
    inside = (from_y >= 0) & (from_y < 28) & (from_x >= 0) & (from_x < 28)
    return np.where(inside, images[:, from_y.clip(0, 27), from_x.clip(0, 27)], 0).astype(np.uint8)


def write_idx(path, array):
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("niti")
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    at = lambda *parts: os.path.join(given.folder, *parts)  # noqa: E731
    os.makedirs(at("turned"))

    def niti(*arguments):
        done = subprocess.run([given.niti, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    for name, text in (("model.yaml", MODEL), ("recipe.yaml", RECIPE % given.epochs)):
        with open(at(name), "w", encoding="ascii") as file:
            file.write(text)
    source = os.environ.get("NITI_DATA", "/usr/share/datasets/fashion-mnist")
    sets = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = turned(read_idx(source, f"{prefix}-images-idx3-ubyte")[:IMAGES])
        labels = read_idx(source, f"{prefix}-labels-idx1-ubyte")[:IMAGES]
        write_idx(at("turned", f"{prefix}-images-idx3-ubyte"), images)
        write_idx(at("turned", f"{prefix}-labels-idx1-ubyte"), labels)
        sets[split] = images, labels

    trained = niti("train", at("recipe.yaml"), "--run", at("run"), "--quiet")
    report = niti("export", "c", at("run"), "--out", at("c"), "--batch", BATCH)
    print(f"trained: {trained['test_accuracy']:.1f} % of the upright test images")
    print(f"exported: {report['ram']} bytes of RAM at batch {BATCH}")
    print(f"before: {niti('eval', at('c', 'camera.safetensors'), '--data', at('turned'))['test_accuracy']:.1f} % of the turned test images")

    images, labels = sets["train"]
    order = [np.random.RandomState(step).randint(0, IMAGES, BATCH) for step in range(given.steps)]
    with open(at("device.log"), "w", encoding="ascii") as file:  # what the device would write
        file.write("mu 2\n" + "".join(" ".join(f"{n}:{labels[n]}" for n in numbers) + "\n" for numbers in order))
    feed = b"".join(struct.pack("<H", BATCH) + labels[n].astype("<u2").tobytes() + images[n].tobytes() for n in order)
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(["gcc", "-std=c99", "-O2", "-I", at("c"), os.path.join(here, "device.c"), at("c", "camera.c"), "-o", at("device")], check=True)
    device = subprocess.run([at("device"), at("slots.bin")], input=feed, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    back = niti("import", at("slots.bin"), at("c", "camera.safetensors"), "--out", at("adapted.safetensors"))
    host = niti("replay", at("device.log"), at("c", "camera.safetensors"), "--data", at("turned"), "--out", at("replayed.safetensors"))
    print(f"after {given.steps} steps on the device: {niti('eval', at('adapted.safetensors'), '--data', at('turned'))['test_accuracy']:.1f} %, hash {device[:16]}")
    print(f"the same on the host:  {niti('eval', at('replayed.safetensors'), '--data', at('turned'))['test_accuracy']:.1f} %, hash {host['hash'][:16]}")
    assert device == back["hash"] == host["hash"], "the hashes differ"


main()
