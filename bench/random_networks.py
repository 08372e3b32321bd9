#!/usr/bin/env python3
"""Writes random networks as model files, to measure speed on shapes that nobody has tuned: the same seed gives the same networks.

  python3 bench/random_networks.py --out networks              # networks/random-01.yaml to random-20.yaml
  python3 bench/random_networks.py --out networks --count 100 --seed 2

A network has 8 to 640 channels, images of 8x8 to 128x128 with 1 to 4 channels, two to five stages of one to three convolutions or
residual blocks, kernels of 1x1 to 7x7 in strides 1 and 2, pools in some places, and every fourth network batch norm after each
convolution. Those whose forward takes less than 4 or more than 1,500 million multiply-adds per image are thrown away.
"""
import argparse
import math
import pathlib
import random
import sys

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import models  # noqa: E402

CHANNELS, SIDES = (8, 640), (8, 128)
KERNELS = (1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7)  # each as likely as the others
MULTIPLES = (1, 4, 8, 8, 16, 32)
MULTIPLY_ADDS = (4e6, 1.5e9)  # per image forward
VALUES_MAX = 12e6  # of all layers' outputs per image


class Generator:
    """Only random() is used, which Python's versions share."""

    def __init__(self, source: random.Random, norm: bool) -> None:
        self.source, self.norm = source, norm
        self.side, self.layers = 0, []

    def below(self, n: int) -> int:
        return int(self.source.random() * n)

    def choice(self, items: tuple):
        return items[self.below(len(items))]

    def chance(self, share: float) -> bool:
        return self.source.random() < share

    def between(self, low: int, high: int) -> int:
        """Each doubling is as likely as the others."""
        return min(high, int(math.exp(math.log(low) + self.source.random() * math.log((high + 1) / low))))

    def channels(self) -> int:
        multiple = self.choice(MULTIPLES)
        low, high = CHANNELS
        return min(high, max(low, round(self.between(low, high) / multiple) * multiple))

    def conv(self, out: int, kernel: int, stride: int = 1) -> list:
        fields = {"out": out, "kernel": kernel}
        if stride > 1:
            fields["stride"] = stride
        if kernel > 2:
            fields["padding"] = (kernel - 1) // 2
        return [{"conv": fields}, *(["norm"] if self.norm else [])]

    def kernel(self, kernels: tuple = KERNELS) -> int:
        """One whose window fits the image."""
        fitting = tuple(k for k in kernels if k <= self.side)
        return self.choice(fitting)

    def residual(self, channels: int, out: int, stride: int) -> list:
        kernel = self.kernel(tuple(k for k in KERNELS if k % 2 == 1))
        body = [*self.conv(out, kernel, stride), "relu", *self.conv(out, kernel)]
        block = {"body": body}
        if stride > 1 or out != channels:
            block["shortcut"] = self.conv(out, 1, stride)
        self.shrink(kernel, (kernel - 1) // 2, stride)
        return [{"residual": block}, "relu"]

    def shrink(self, kernel: int, padding: int, stride: int) -> None:
        self.side = (self.side + 2 * padding - kernel) // stride + 1

    def stage(self, channels: int, first: bool) -> int:
        out, skips = self.channels(), not first and self.chance(0.4)
        for i in range(1 + self.below(3)):
            stride = 2 if i == 0 and self.side >= 4 and self.chance(0.5) else 1
            if skips:
                self.layers += self.residual(channels, out, stride)
            else:
                kernel = self.kernel()
                self.layers += [*self.conv(out, kernel, stride), "relu"]
                self.shrink(kernel, (kernel - 1) // 2 if kernel > 2 else 0, stride)
            channels = out
        if self.side >= 4 and self.chance(0.35):
            self.layers.append({self.choice(("maxpool", "maxpool", "avgpool")): {"kernel": 2}})
            self.shrink(2, 0, 2)
        return out

    def end(self, channels: int) -> None:
        if self.side * self.side * channels > 8192 or self.chance(0.6):
            self.layers.append("global-avgpool")
        self.layers.append("flatten")
        if self.chance(0.4):
            self.layers += [{"linear": {"out": self.channels()}}, "relu"]
        self.layers.append({"linear": {"out": "classes"}})

    def model(self, name: str) -> dict:
        side, channels = self.between(*SIDES), self.choice((1, 3, 3, 3, 4))
        self.side, self.layers = side, []
        inputs = [side, side, channels]
        for i in range(2 + self.below(4)):
            channels = self.stage(channels, i == 0)
        self.end(channels)
        return {"name": name, "input": inputs, "classes": self.choice((10, 10, 100)), "layers": self.layers}


def multiply_adds(model: dict) -> int:
    """Per image forward."""
    products = [(math.prod(node.output), node.weight_shape()) for node in models.nodes(model) if node.weight_shape()]
    return sum(values * math.prod(shape[1:]) for values, shape in products)


def suits(model: dict) -> bool:
    low, high = MULTIPLY_ADDS
    values = sum(math.prod(node.output) for node in models.nodes(model))
    return low <= multiply_adds(model) <= high and values <= VALUES_MAX


def generate(count: int, seed: int) -> list[dict]:
    found: list[dict] = []
    source = random.Random(seed)
    while len(found) < count:
        number = len(found) + 1
        model = Generator(source, number % 4 == 0).model(f"random-{number:02d}")
        if suits(model):
            found.append(model)
    return found


def write(folder: pathlib.Path, count: int, seed: int) -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for model in generate(count, seed):
        path = folder / f"{model['name']}.yaml"
        head = f"# A network from bench/random_networks.py, seed {seed}.\n"
        path.write_text(head + yaml.safe_dump(model, sort_keys=False, default_flow_style=None, width=120))
        paths.append(path)
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder for the files")
    parser.add_argument("--count", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count: expected at least 1")
    for path in write(args.out, args.count, args.seed):
        model = models.load(str(path))
        height, _, channels = model["input"]
        print(f"{path}: {height}x{height}x{channels}, {multiply_adds(model) / 1e6:,.1f} million multiply-adds per image forward")
    return 0


if __name__ == "__main__":
    sys.exit(main())
