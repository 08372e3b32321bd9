"""Random small models, recipes and data sets, each from a seed alone.

They meet what nobody thinks of writing down: channel counts around the kernels' block sizes, windows larger than the image,
padding beyond the kernel, branches of branches, batches of one image and last batches of any size.
"""

import random
from dataclasses import dataclass

import numpy as np

from . import arithmetic as a

CHANNELS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70, 97, 129)
BATCHES = (1, 2, 3, 5, 8, 16, 17, 33)
LARGEST = 6000  # values of one image after which a model gets no further spatial layers


@dataclass
class RandomCase:
    model: dict  # as a model's YAML file
    recipe: dict  # as a recipe's YAML file, which calls the model ./model.yaml
    sets: dict  # {"train": (images uint8 [N, H, W, C], labels int64 [N]), "test": ...}


class _Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, probability):
        return self.random.random() < probability

    def pair(self, height, width):
        """[height, width], or at times one number where they are equal: the two ways to write it."""
        return height if height == width and self.chance(0.5) else [height, width]

    # Layers

    def dropout(self):
        args = {"per": self.random.choice(["feature", "element"])}
        if self.chance(0.5):
            args["rate"] = self.random.choice([0, 0.1, 0.2, 0.25, 0.5, 0.75, 0.123456])
        return {"dropout": args}

    def relu(self):
        return {"relu": {"max": self.random.choice([6, 1, 0.5, 20.5])}} if self.chance(0.3) else "relu"

    def same_shape(self, channels):
        """A layer whose output has the shape of its input."""
        kind = self.random.choice(["conv", "conv", "relu", "dropout", "maxpool", "avgpool", "residual"])
        if kind == "conv":
            height, width = self.random.choice([1, 3, 5]), self.random.choice([1, 3])
            return {"conv": {"out": channels, "kernel": self.pair(height, width), "padding": self.pair(height // 2, width // 2)}}
        if kind == "relu":
            return self.relu()
        if kind == "dropout":
            return self.dropout()
        if kind == "maxpool":
            return {"maxpool": {"kernel": 3, "stride": 1, "padding": 1}}
        if kind == "avgpool":
            return {"avgpool": {"kernel": 1}}
        return self.residual(channels)

    def residual(self, channels):
        layer = {"body": [self.same_shape(channels) for _ in range(self.random.randint(1, 3))]}
        if self.chance(0.5):
            layer["shortcut"] = [self.same_shape(channels) for _ in range(self.random.randint(1, 2))]
        return {"residual": layer}

    def conv_side(self, side, strides):
        """(kernel, stride, padding) of a convolution along a side of the image."""
        kernel = self.random.choice([1, self.random.randint(1, min(side + 2, 7))])
        padding = self.random.choice([0, 0, 1, kernel // 2, kernel, kernel + 1])
        while side + 2 * padding < kernel:
            padding += 1
        return kernel, self.random.choice(strides), padding

    def pool_side(self, side):
        """(kernel, stride, padding) of a pool along a side of the image."""
        kernel = self.random.randint(1, min(side, 5))
        return kernel, self.random.randint(1, 4), self.random.randint(0, kernel - 1)

    def windows(self, shape):
        """(layer, shape of its output): a convolution or a pool of any geometry."""
        height, width, channels = shape
        kind = self.random.choice(["conv", "conv", "conv", "maxpool", "avgpool"])
        args = {}
        if kind == "conv":
            sides = self.conv_side(height, (1, 1, 1, 2, 3, 5)), self.conv_side(width, (1, 1, 1, 2, 4))
            inputs, channels = channels, self.random.choice(CHANNELS)
            if self.chance(0.3):
                args["groups"] = groups = self.random.choice([g for g in range(1, inputs + 1) if inputs % g == 0])
                channels = groups * max(1, channels // groups)
                if groups == inputs and self.chance(0.5):
                    args["groups"] = "channels"
            args["out"] = channels
        else:
            sides = self.pool_side(height), self.pool_side(width)
        (kernel_h, stride_h, padding_h), (kernel_w, stride_w, padding_w) = sides
        args.update(kernel=self.pair(kernel_h, kernel_w), stride=self.pair(stride_h, stride_w))
        args["padding"] = self.pair(padding_h, padding_w)
        height = (height + 2 * padding_h - kernel_h) // stride_h + 1
        width = (width + 2 * padding_w - kernel_w) // stride_w + 1
        return {kind: args}, (height, width, channels)

    # Models

    def spatial_layers(self, shape):
        """(layers, shape of the last one's output): the part of a model before it goes flat."""
        layers = []
        for _ in range(self.random.randint(0, 6)):
            if np.prod(shape) > LARGEST:
                break
            kind = self.random.choice(["windows"] * 5 + ["residual"] * 3 + ["relu", "dropout", "repeat"])
            if kind == "windows":
                layer, shape = self.windows(shape)
            elif kind == "residual":
                layer = self.residual(shape[2])
            elif kind == "relu":
                layer = self.relu()
            elif kind == "dropout":
                layer = self.dropout()
            else:
                layer = {"repeat": {"times": 2, "layers": [self.same_shape(shape[2]) for _ in range(2)]}}
            layers.append(layer)
        return layers, shape

    def flat_layers(self):
        layers = []
        for _ in range(self.random.randint(0, 2)):
            features = self.random.choice(CHANNELS)
            layers.append({"linear": {"out": features}})
            if self.chance(0.7):
                layers.append(self.relu())
            if self.chance(0.3):
                layers.append(self.dropout())
            if self.chance(0.2):
                layers.append({"residual": {"body": [{"linear": {"out": features}}, "relu"]}})
        layers.append({"linear": {"out": "classes"}})
        if self.chance(0.15):
            layers.append("relu")
        if self.chance(0.15):
            layers.append({"residual": {"body": [{"linear": {"out": "classes"}}]}})
        if self.chance(0.1):
            layers.append(self.dropout())
        return layers

    def model(self, name):
        shape = [self.random.randint(1, 13), self.random.randint(1, 13), self.random.choice([1, 3])]
        layers, _ = self.spatial_layers(shape)
        layers += self.random.choice([["flatten"], ["flatten"], ["global-avgpool"], ["global-avgpool", "flatten"]])
        return {"name": name, "input": shape, "classes": self.random.randint(2, 10), "layers": layers + self.flat_layers()}

    def recipe(self, name, channels):
        return {
            "name": name, "model": "./model.yaml", "batch": self.random.choice(BATCHES), "epochs": 2, "max_steps": 4,
            "seed": self.random.randint(0, 2**40), "loss": self.random.choice(["niti", "softmax"]),
            "rounding": {"activation": self.random.choice(a.MODES), "error": self.random.choice(a.MODES)},
            "update": {"kind": "niti", "mu": self.random.choice([3, 4, 5, 8, 20])},
            "data": {"mean": [0.45] * channels, "std": [0.3] * channels, "pad": self.random.choice([0, 0, 1, 2, 4]),
                     "crop": self.random.choice(["random", "centre"]), "flip": self.chance(0.5)},
        }


def noise(seed, shape, classes, counts):
    """A data set of random bytes: counts of training and test images of `shape`, every class in both."""
    numbers, sets = np.random.RandomState(seed), {}
    for split, count in zip(("train", "test"), counts):
        labels = np.arange(max(count, classes), dtype=np.int64) % classes
        # The images of a folder come class by class.
        labels = np.sort(labels) if shape[2] == 3 else numbers.permutation(labels)
        sets[split] = numbers.randint(0, 256, size=(len(labels), *shape)).astype(np.uint8), labels
    return sets


def random_case(seed):
    """The case of a seed; IDX files for one channel, a folder for three, as make_data writes them."""
    generator = _Generator(seed)
    model = generator.model(f"random-{seed}")
    height, width, channels = model["input"]
    recipe = generator.recipe(f"random-{seed}", channels)
    if channels == 1:  # a folder's images are scaled to the input, IDX ones may be larger and are cropped
        height, width = height + generator.random.randint(0, 3), width + generator.random.randint(0, 3)
    numbers = random.Random(seed + 3 * 10**6)
    if numbers.random() < 0.4:
        recipe["update"]["mu"] = numbers.choice([3.5, 4.25, 5.999999, 0.001, 8.1, 20.7])
    batch = recipe["batch"]
    counts = batch * generator.random.randint(1, 2) + generator.random.randint(1, batch), generator.random.randint(1, 2 * batch)
    return RandomCase(model, recipe, noise(seed, (height, width, channels), model["classes"], counts))


def _with_norms(layers, numbers):
    """The layers, with a norm behind each with probability 0.4."""
    out = []
    for layer in layers:
        if isinstance(layer, dict):
            (kind, args), = layer.items()
            if kind in ("residual", "repeat"):
                layer = {kind: {key: _with_norms(v, numbers) if isinstance(v, list) else v for key, v in args.items()}}
        out += [layer, "norm"] if numbers.random() < 0.4 else [layer]
    return out


def _rates(numbers):
    """Keys of update `sgd`, of any schedule in runs of at least two steps."""
    kind = numbers.choice(["steps", "steps", "list", "linear", "cosine", "one-cycle"])
    keys = {"lr": numbers.choice([0, 0.001, 0.05, 0.1, 0.1, 2, 1000]), "schedule": "steps" if kind == "list" else kind}
    if kind == "list":
        keys["lr"] = [{"step": 0, "lr": keys["lr"]}, {"at": "50%", "lr": 0.03}, {"step": 3, "lr": 0.123456789}]
    if kind in ("linear", "cosine"):
        keys["final_lr"] = numbers.choice([0, 0.02, 0.5])
    if numbers.random() < 0.4:
        keys["warmup"] = numbers.choice([{"step": 1}, {"at": 0.5}, {"epoch": 0}])
    return keys


def sgd_case(seed):
    """The case of random_case with norms in its model, trained by update `sgd`."""
    case, numbers = random_case(seed), random.Random(seed + 10**6)
    case.model["layers"] = (["norm"] if numbers.random() < 0.2 else []) + _with_norms(case.model["layers"], numbers)
    momentum = numbers.choice([0, 0.5, 0.9, 0.99])
    case.recipe["clip"] = {"activation": numbers.choice([0, 0, 1, 7]), "error": numbers.choice([0, 0, 2])}
    case.recipe["loss"] = "softmax"
    case.recipe["label_smoothing"] = numbers.choice([0, 0.1, 0.999999999])
    case.recipe["update"] = {
        "kind": "sgd", **_rates(numbers), "momentum": momentum,
        "weight_decay": numbers.choice([0, 0.0001, 0.0005, 0.3, 1]), "nesterov": momentum > 0 and numbers.random() < 0.5,
    }
    if numbers.random() < 0.3:
        case.recipe["update"]["clip_norm"] = numbers.choice([0.01, 0.5, 1, 1000000])
    return case


def niti16_case(seed):
    """The case of sgd_case, trained by update `niti16`; at times with the published loss, or all defaults."""
    case, numbers = sgd_case(seed), random.Random(seed + 2 * 10**6)
    update = case.recipe["update"]
    update["kind"] = "niti16"
    update.pop("clip_norm", None)
    if numbers.random() < 0.4:
        case.recipe["loss"] = "niti"
        case.recipe["label_smoothing"] = 0
    if numbers.random() < 0.3:
        case.recipe["update"] = {"kind": "niti16"}
    return case


def pointwise_case(height, width, channels, batch):
    """A model with a 1x1 convolution in the middle, trained on images and batches of these sizes."""
    recipe = {
        "name": "pointwise", "model": "./model.yaml", "batch": batch, "epochs": 2, "max_steps": 4, "seed": 11, "loss": "softmax",
        "rounding": {"activation": "nearest", "error": "nearest"}, "update": {"kind": "niti", "mu": 3},
        "data": {"mean": [0.45] * channels, "std": [0.3] * channels, "pad": 0, "crop": "centre", "flip": False},
    }
    layers = [{"conv": {"out": channels, "kernel": 1}},
              {"residual": {"body": ["relu", {"conv": {"out": channels, "kernel": 1}}]}},
              "flatten", {"linear": {"out": "classes"}}]
    model = {"name": "pointwise", "input": [height, width, channels], "classes": 5, "layers": layers}
    return RandomCase(model, recipe, noise(batch, (height, width, channels), 5, (2 * batch + 3, batch)))
