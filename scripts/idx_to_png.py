#!/usr/bin/env python3
"""Writes the first images of a folder's IDX test set (MNIST, Fashion-MNIST and their kin) as PNG files.

    idx_to_png.py FOLDER DEST COUNT      -> DEST/<number>-<class>.png

Uses the standard library only, so that it runs wherever Python 3 does.
"""
import os
import struct
import sys
import zlib

FASHION = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot".split()


def read_idx(folder, name, dimensions):
    """The shape and bytes of FOLDER/NAME, plain or gzip."""
    for path in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
            if data[:2] == b"\x1f\x8b":
                data = zlib.decompressobj(wbits=31).decompress(data)
            if data[:4] != bytes([0, 0, 8, dimensions]):
                sys.exit(f"{path}: byte 0: not an IDX file of bytes with {dimensions} dimensions")
            return struct.unpack_from(f">{dimensions}I", data, 4), data[4 + 4 * dimensions:]
    sys.exit(f"{folder}: has no {name} or {name}.gz")


def png(width, height, grey):
    """An 8-bit greyscale PNG file's bytes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + grey[y * width:(y + 1) * width] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    folder, dest, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    (images, height, width), pixels = read_idx(folder, "t10k-images-idx3-ubyte", 3)
    _, labels = read_idx(folder, "t10k-labels-idx1-ubyte", 1)
    names = FASHION if "fashion" in os.path.abspath(folder).lower() else [str(digit) for digit in range(256)]
    os.makedirs(dest, exist_ok=True)
    for i in range(min(count, images)):
        grey = pixels[i * height * width:(i + 1) * height * width]
        name = names[labels[i]].replace("/", "-")
        with open(os.path.join(dest, f"{i:04d}-{name}.png"), "wb") as file:
            file.write(png(width, height, grey))


main()
