#!/usr/bin/env python3
"""Makes a data set of sensor windows: python3 sensor_windows.py DIR

Three sensors, 64 readings a window, int16; four kinds of movement: rest, slow and fast swinging, and knocks.
"""
import pathlib
import sys

import numpy as np

CLASSES = ["rest", "slow", "fast", "knocks"]
LENGTH, SENSORS = 64, 3


def windows(count, seed):
    """(x int16 [count][LENGTH][SENSORS], y int64 [count])."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % len(CLASSES)
    time = np.arange(LENGTH)
    x = random.normal(0, 60, (count, LENGTH, SENSORS)) + np.array([0, 400, -1000])  # each sensor's own rest
    for window, label in zip(x, y):
        phase, strength = random.uniform(0, 6.28), random.uniform(400, 700)
        if label in (1, 2):
            swing = strength * np.sin(time * (0.2 if label == 1 else 0.9) + phase)
            window += swing[:, None] * np.array([1, 0.5, -0.8])
        if label == 3:
            for at in random.integers(4, LENGTH - 4, 3):
                window[at:at + 3] += 3 * strength * random.choice([-1, 1])
    return x.astype(np.int16), y


def write(folder, train=400, test=120):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        x, y = windows(count, seed)
        np.save(folder / f"{split}_x.npy", x)
        np.save(folder / f"{split}_y.npy", y)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
