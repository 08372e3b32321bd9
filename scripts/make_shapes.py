#!/usr/bin/env python3
"""Writes a small folder of images to try niti with: circles, squares and triangles in colours, on coloured noise.

    make_shapes.py DEST [TRAIN [TEST [WORD]]]   -> DEST/train/CLASS/NNN.png, DEST/test/CLASS/NNN.png; 200 and 50 per class

Sides are 48 to 96 pixels. The same arguments give the same images everywhere; with another WORD they are others. Uses the standard
library only.
"""
import math
import os
import random
import struct
import sys
import zlib

CLASSES = ["circle", "square", "triangle"]


def png(rows):
    """An 8-bit RGB PNG file's bytes, of rows of 3 * width bytes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def half_width(shape, y, r):
    """Half the width of a shape of radius r in row y, counted from its middle."""
    if abs(y) > r:
        return 0
    return {"circle": math.isqrt(r * r - y * y), "square": r, "triangle": (y + r) // 2}[shape]


def draw(shape, source):
    """One image as rows of bytes."""
    width, height = source.randint(48, 96), source.randint(48, 96)
    r = source.randint(min(width, height) // 5, min(width, height) * 2 // 5)
    middle, level = source.randint(r, width - r), source.randint(r, height - r)
    back = [source.randint(0, 150) for _ in range(3)]
    front = [value + source.randint(25, 90) for value in back]
    noisy = [[bytes(min(255, max(0, value + noise % 81 - 40)) for noise in range(256)) for value in colour]
             for colour in (front, back)]  # per colour and channel: 256 random bytes to values around it
    rows = []
    for y in range(height):
        row, half = bytearray(3 * width), half_width(shape, y - level, r)
        left, right = middle - half, middle + half
        for channel, (shape_value, back_value) in enumerate(zip(*noisy)):
            noise = source.randbytes(width)
            line = noise[:left].translate(back_value) + noise[left:right].translate(shape_value)
            row[channel::3] = line + noise[right:].translate(back_value)
        rows.append(bytes(row))
    return rows


def main():
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    dest, train, test, *word = sys.argv[1:] + ["200", "50"][len(sys.argv) - 2:]
    for split, count in (("train", int(train)), ("test", int(test))):
        for shape in CLASSES if count else ():
            source = random.Random(" ".join([split, shape, *word]))
            folder = os.path.join(dest, split, shape)
            os.makedirs(folder, exist_ok=True)
            for i in range(count):
                with open(os.path.join(folder, f"{i:03d}.png"), "wb") as file:
                    file.write(png(draw(shape, source)))


main()
