"""Small data sets, written by these few lines alone."""
import gzip
import struct
import zlib

import numpy as np


def squares(count, seed, side=8, channels=1, classes=4):
    """Noise with a bright quarter that is the class (0 to 3), and labels that go round. uint8 [count][side][side][channels]."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 60, (count, side, side, channels))
    half = side // 2
    for image, label in zip(images, labels):
        y, x = half * (label // 2 % 2), half * (label % 2)
        image[y:y + half, x:x + half] += 150
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_idx(path, array):
    """An IDX file of unsigned bytes; compressed where the name ends in .gz."""
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx_set(folder, train, test, compressed=False):
    """Both splits, each (images [n][h][w][1], labels [n]), under MNIST's file names."""
    folder.mkdir(parents=True, exist_ok=True)
    end = ".gz" if compressed else ""
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", images[:, :, :, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", labels)
    return folder


def write_cifar10_set(folder, per_file, test_count, seed=3):
    """CIFAR-10's six files with so many images, of ten colours in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        with open(folder / name, "wb") as file:
            for i in range(test_count if name.startswith("test") else per_file):
                label = i % 10
                colour = np.array([label * 25, 255 - label * 25, label % 3 * 100])
                planes = random.integers(0, 80, (3, 32, 32)) + colour[:, None, None] * 2 // 3
                file.write(bytes([label]) + np.clip(planes, 0, 255).astype(np.uint8).tobytes())
    return folder


def write_png(path, image):
    """An 8-bit image [h][w][c], c 1 or 3."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    colour = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_folder_set(folder, names, train, test):
    """SPLIT/CLASS/NUMBER.png; names[label] is the class's folder."""
    for split, (images, labels) in (("train", train), ("test", test)):
        for name in names:
            (folder / split / name).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images, labels)):
            write_png(folder / split / names[label] / f"{i:04}.png", image)
    return folder
