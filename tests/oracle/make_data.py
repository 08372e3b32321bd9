#!/usr/bin/env python3
"""Writes the synthetic data set of a case: IDX files for one channel, a folder of PNG images for three, or arrays where it says so.

    python3 tests/oracle/make_data.py CASE DIR
"""

import os
import struct
import sys
import zlib

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from oracle.cases import read_case  # noqa: E402

# Byte order differs from the order of numbers and from the order of a language: 10 < 9 < B < a.
CLASS_NAMES = ["10", "100", "9", "B", "Z", "_c", "a", "apple", "b", "zebra"]


def _template(random, height, width, channels):
    """A smooth pattern in about -120 .. 120: coarse random cells, each blurred over its neighbours."""
    coarse = random.randint(-160, 161, size=((height + 5) // 3, (width + 5) // 3, channels))
    fine = np.repeat(np.repeat(coarse, 3, axis=0), 3, axis=1)
    return (2 * fine[1:height + 1, 1:width + 1] + fine[:height, 1:width + 1] + fine[1:height + 1, :width]) // 4


def _images(random, templates, labels):
    height, width, channels = templates[0].shape
    out = np.empty((len(labels), height, width, channels), dtype=np.uint8)
    for n, label in enumerate(labels):
        moved = np.roll(templates[label], tuple(random.randint(-1, 2, size=2)), axis=(0, 1))
        noise = random.randint(-45, 46, size=moved.shape)
        out[n] = np.clip(128 + moved + noise, 0, 255)
    return out


def generate(name):
    """{"train": (images uint8 [N, H, W, C], labels int64 [N]), "test": ...} in the data set's order."""
    model, _, data = read_case(name)
    channels, classes = model.input_shape[2], model.classes
    random = np.random.RandomState(zlib.crc32(name.encode()))
    templates = [_template(random, data["height"], data["width"], channels) for _ in range(classes)]
    out = {}
    for split in ("train", "test"):
        labels = np.arange(data[split]) % classes
        labels = np.sort(labels) if channels == 3 else random.permutation(labels)
        images = _images(random, templates, labels)
        if "constant" in data:
            images[..., data["constant"]] = 150
        out[split] = (_as_type(images, data.get("type", "uint8")), labels.astype(np.int64))
    return out


def _as_type(images, kind):
    """Signed values with other means and deviations in every channel, and the ends of the type's range."""
    if kind == "uint8":
        return images
    limit = np.iinfo(kind)
    factors = np.array([[11, 23, 40, 6, 90][c % 5] for c in range(images.shape[3])]) * (1 if kind == "int16" else 0) + 1
    values = (images.astype(np.int64) - 128 + 3 * np.arange(images.shape[3])) * factors
    values[0, 0, 0, 0], values[1, 0, 0, 0] = limit.min, limit.max
    return np.clip(values, limit.min, limit.max).astype(kind)


def write_idx(path, array):
    """An IDX file of unsigned bytes."""
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape))
        file.write(np.ascontiguousarray(array, dtype=np.uint8).tobytes())


def write_png(path, image):
    """An 8-bit RGB image [H, W, 3]."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = image.shape
    rows = b"".join(b"\0" + image[y].tobytes() for y in range(height))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def _write_folder(directory, split, images, labels):
    names = CLASS_NAMES[:max(labels) + 1]
    assert sorted(names, key=str.encode) == names
    for label, name in enumerate(names):
        folder = os.path.join(directory, split, name)
        os.makedirs(folder)
        members = np.flatnonzero(labels == label)
        # "image-10.png" comes before "image-9.png": the images are in the order of the names' bytes.
        files = sorted((f"image-{i}.png" for i in range(len(members))), key=str.encode)
        for file, n in zip(files, members):
            write_png(os.path.join(folder, file), images[n])


def _write_arrays(directory, split, images, labels):
    """[N, H, W, C], or without the dimensions of one pixel."""
    shape = tuple(side for side in images.shape[1:3] if side > 1)
    np.save(os.path.join(directory, f"{split}_x.npy"), images.reshape(images.shape[:1] + shape + images.shape[3:]))
    np.save(os.path.join(directory, f"{split}_y.npy"), labels)


def write_sets(sets, directory, arrays=False):
    """Writes what `generate` returns below `directory`."""
    os.makedirs(directory, exist_ok=True)
    for split, (images, labels) in sets.items():
        if arrays:
            _write_arrays(directory, split, images, labels)
        elif images.shape[3] == 3:
            _write_folder(directory, split, images, labels)
        else:
            prefix = os.path.join(directory, "train" if split == "train" else "t10k")
            write_idx(f"{prefix}-images-idx3-ubyte", images[:, :, :, 0])
            write_idx(f"{prefix}-labels-idx1-ubyte", labels)


def write(name, directory):
    """Writes the data set of a case below `directory`."""
    write_sets(generate(name), directory, read_case(name)[2].get("format") == "npy")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write(sys.argv[1], sys.argv[2])
