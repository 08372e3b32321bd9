"""The parts of bench/peers/pytorch_train.py that decide whether a float twin trains what niti trains. None of them needs PyTorch."""

import math
import os
import re
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
import yaml
from PIL import Image

from oracle import arithmetic as a
from oracle import augment
from oracle import cases
from oracle.network import Network
from oracle.train import Averager

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "bench", "peers"))
import batches  # noqa: E402
import images  # noqa: E402
import models  # noqa: E402
import recipes  # noqa: E402

SEEDS = (0, 1, 7, 2**32 + 5, 2**64 - 1)


# Random numbers


@pytest.mark.parametrize("seed", SEEDS)
def test_words_orders_crops_and_flips_are_the_oracles(seed):
    for epoch, count in ((0, 1), (3, 2), (199, 30), (2**20, 77)):
        assert np.array_equal(batches.words(seed, 9, epoch, 70000, count), a.random_range(seed, 9, epoch, 70000, count))
        assert batches.order(seed, epoch, count).tolist() == a.shuffled(seed, epoch, count)
        assert batches.flips(seed, epoch, count).tolist() == [a.is_flipped(seed, epoch, i) for i in range(count)]
        height, width = np.arange(count) % 9, np.arange(count) % 5
        drawn = zip(*batches.corners(seed, epoch, height, width))
        assert [tuple(map(int, corner)) for corner in drawn] == [
            a.random_corner(seed, epoch, i, i % 9, i % 5) for i in range(count)]


@pytest.mark.parametrize("seed", SEEDS)
def test_validation_split_is_the_oracles(seed):
    random = np.random.default_rng(seed % 100)
    for count, classes, wanted in ((50, 10, 7), (100, 3, 1), (41, 7, 40), (12, 12, 3), (60, 2, 30)):
        labels = random.integers(0, classes, count)
        assert batches.held_out(seed, labels, wanted).tolist() == a.held_out(labels, wanted, seed)


@pytest.mark.parametrize("value", [0, 5000, 0.1, "10%", "12.5%", 0.333333])
def test_validation_count_is_the_oracles(value):
    for count in (1, 999, 50000):
        assert recipes.validation_images(value, count) == a.validation_count(value, count)


@pytest.mark.parametrize("pad, window, mirrored", [(4, (8, 8), True), (0, (3, 5), True), (0, (8, 6), False), (9, (20, 3), True)])
def test_windows_are_the_oracles(pad, window, mirrored):
    """Of images of several sizes; a window may be larger than its image and lie in the padding."""
    random = np.random.default_rng(pad)
    raw = [random.integers(1, 256, (8 + i % 3, 6 + i % 2, 3), dtype=np.uint8) for i in range(20)]
    height, width = (np.array([image.shape[side] for image in raw]) for side in (0, 1))
    pixels = np.concatenate([image.reshape(-1, 3) for image in raw] + [np.zeros((1, 3), np.uint8)])
    first = np.concatenate(([0], np.cumsum(height * width)[:-1]))
    top, left = batches.corners(5, 2, height + 2 * pad - window[0], width + 2 * pad - window[1])
    flip = batches.flips(5, 2, 20) & mirrored
    columns = [values[:, None, None] for values in (first, height, width, top - pad, left - pad, flip)]
    index = batches.window_index(*columns, np.arange(window[0])[None, :, None], np.arange(window[1])[None, None, :], len(pixels) - 1)
    for i, image in enumerate(raw):
        corner = a.random_corner(5, 2, i, height[i] + 2 * pad - window[0], width[i] + 2 * pad - window[1])
        expected = a.window(image, *window, pad, corner, mirrored and a.is_flipped(5, 2, i))
        assert np.array_equal(pixels[index[i]], expected)


# Networks


@pytest.mark.parametrize("name", cases.NAMES)
def test_initial_weights_are_the_oracles(name):
    model, _, _ = cases.read_case(name)
    recipe = yaml.safe_load(open(cases.recipe_path(name), encoding="utf-8"))
    network = Network(model, 3)
    described = models.load(os.path.join(cases.FOLDER, recipe["model"]))
    found = {node.number: node for node in models.nodes(described) if node.weight_shape()}
    assert sorted(found) == [node.number for node in model.nodes if node.kind in ("conv", "linear")]
    for number, node in found.items():
        expected = network.weights[number, 0] * 2.0**network.exponents[number, 0]
        assert np.array_equal(batches.initial_weights(3, number, node.weight_shape(), node.fans()), expected), (name, number)


@pytest.mark.parametrize("name", [name[:-5] for name in sorted(os.listdir(os.path.join(ROOT, "models")))])
def test_every_built_in_model_ends_in_its_classes(name):
    model = models.load(name)
    assert models.nodes(model)[-1].output == (1, 1, model["classes"])


# Learning rates


def test_cosines_are_those_of_rate_c():
    with open(os.path.join(ROOT, "src", "train", "rate.c"), encoding="utf-8") as file:
        table = re.search(r"cosines\[257\] = \{(.*?)\}", file.read(), re.DOTALL).group(1)
    assert recipes.COSINES == [int(number) for number in table.split(",")]


def rates(steps, steps_per_epoch=10, **update):
    rate = recipes.Rate({"schedule": "steps", "final_lr": 0, **update}, steps_per_epoch, steps)
    return [rate.value(step) for step in range(steps)]


def test_rates_follow_their_curves():
    near = {"abs": 3e-6}  # an angle is a multiple of pi / 2^17, which moves these cosines, at most 0.1 high, by 2.4e-6
    assert rates(30, lr=[{"epoch": 0, "lr": 0.1}, {"epoch": 1, "lr": 0.01}, {"at": "75%", "lr": 0.5}]) == (
        10 * [0.1] + 12 * [0.01] + 8 * [0.5])
    assert rates(40, lr=0.4, schedule="linear", final_lr=0.2) == pytest.approx([0.4 - 0.2 * i / 40 for i in range(40)], **near)
    assert rates(40, lr=0.2, schedule="cosine", final_lr=0.04) == pytest.approx(
        [0.12 + 0.08 * math.cos(math.pi * i / 40) for i in range(40)], **near)
    rise = [0.1 / 25 + (0.1 - 0.1 / 25) * (1 - math.cos(math.pi * i / 30)) / 2 for i in range(30)]
    fall = [0.1 * (1 + math.cos(math.pi * i / 70)) / 2 for i in range(70)]
    assert rates(100, lr=0.1, schedule="one-cycle") == pytest.approx(rise + fall, **near)


def test_warm_up_rises_to_the_curve():
    assert rates(12, lr=0.3, warmup={"step": 3}) == pytest.approx([0.1, 0.2] + 10 * [0.3])
    assert rates(30, lr=0.5, schedule="linear", warmup={"epoch": 1}) == pytest.approx(
        [0.05 * (i + 1) for i in range(10)] + [0.5 * (1 - i / 20) for i in range(20)])


# Recipes


def test_set_replaces_values_of_built_in_recipes():
    recipe, model = recipes.load("resnet18-cifar10", ["model.classes=100", "data.pad=2", "update.warmup.epoch=3", "update.lr=0.05"])
    assert (model["classes"], model["name"]) == (100, "resnet18")
    assert recipe["data"]["pad"] == 2 and recipe["data"]["flip"] is True
    assert recipe["update"]["warmup"] == {"epoch": 3} and recipe["update"]["lr"] == 0.05


def test_an_average_can_be_switched_off(tmp_path):
    (tmp_path / "averaging.yaml").write_text("{name: a, model: vgg-small-7-bn, average: {from: {epoch: 1}}}")
    name = str(tmp_path / "averaging.yaml")
    assert recipes.load(name, [])[0]["average"] == {"from": {"epoch": 1}}
    assert "average" not in recipes.load(name, ["average=none"])[0]
    with pytest.raises(SystemExit, match="average: expected keys"):
        recipes.load(name, ["average=off"])


def test_images_per_second_count_what_was_trained():
    """Where max_steps ends the last epoch after a tenth of it, it is as fast as the others."""
    assert batches.images_per_second([{"images": 1000, "train_seconds": 2.0}, {"images": 100, "train_seconds": 0.2}]) == pytest.approx(500)
    assert batches.images_per_second([{"images": 128, "train_seconds": 0.5}]) == pytest.approx(256)


def test_defaults_are_those_of_the_recipe_reference(tmp_path):
    (tmp_path / "net.yaml").write_text("{name: net, input: [2, 2, 1], classes: 2, layers: [norm, flatten, {linear: {out: classes}}]}")
    (tmp_path / "bare.yaml").write_text("{name: bare, model: net.yaml}")
    recipe, model = recipes.load(str(tmp_path / "bare.yaml"), [])
    assert model["name"] == "net"
    with open(os.path.join(ROOT, "docs", "recipe-reference.md"), encoding="utf-8") as file:
        table = dict(re.findall(r"^\| `([a-z_.]+)`(?:, `data.std`)? \| `?([^|`]*)`?(?:;[^|]*)? \|", file.read(), re.MULTILINE))
    for what, mapping in (("", recipe), ("data.", recipe["data"]), ("update.", recipe["update"])):
        for key, value in mapping.items():
            if what + key in table and key not in ("kind", "freeze") and not isinstance(value, dict):
                assert str(value).lower() == table[what + key] or table[what + key] == "required", what + key
    assert recipe["update"]["kind"] == "sgd"


@pytest.mark.parametrize("name, option, complaint", [
    ("resnet18-cifar10", "data.padding=2", "padding"), ("resnet18-cifar10", "epochs", "KEY=VALUE"),
    ("resnet18-cifar10", "batch.size=2", "no such place"), ("vgg-small-7-cifar10", "epochs=1", "update"), ("nothing", "epochs=1", "nothing")])
def test_what_a_twin_would_train_otherwise_is_an_error(name, option, complaint):
    with pytest.raises(SystemExit, match=complaint):
        recipes.load(name, [option])


@pytest.mark.parametrize("option", [
    "update.clip_norm=-1", "data.crop=foo", "update.momentum=1.5", "data.mixup=0.3", "loss=niti", "rounding.error=foo", "rounding.errors=nearest",
    "clip.activation=8", "epochs=0", "batch=abc", "batch=true", "update.lr=abc", "update.lr=-1", "update.lr=[]", "update.warmup=3",
    "update.warmup={at: 5%, step: 1}", "update.schedule=foo", "update.nesterov=1", "update=3", "data.flip=1", "data.pad=-1", "data.cutout=33",
    "data.scale=[1, 0.5]", "data.mean=[0.5]", "data.validation=foo", "data.type=int16", "seed=-1", "label_smoothing=1", "average={from: 3}",
    "average={from: {epoch: 1}, every: {at: 5%}}", "update.weight_decay=.nan", "data.contrast=0.1234567", "update.final_lr=none"])
def test_what_niti_refuses_is_an_error_that_names_the_key(option):
    keys = option.partition("=")[0].split(".")
    with pytest.raises(SystemExit) as refused:
        recipes.load("resnet18-cifar10", [option])
    assert str(refused.value.code).startswith(keys[0]) and "expected" in str(refused.value.code)


@pytest.mark.parametrize("name", [name[:-5] for name in sorted(os.listdir(os.path.join(ROOT, "recipes")))])
def test_every_built_in_recipe_of_update_sgd_is_accepted(name):
    with open(os.path.join(ROOT, "recipes", f"{name}.yaml"), encoding="utf-8") as file:
        update = yaml.safe_load(file)["update"]
    if update.get("kind") == "sgd":
        recipes.load(name, ["update.warmup={at: 5%}"])


def test_models_with_biases_train_with_sgd(tmp_path):
    (tmp_path / "net.yaml").write_text("{name: net, input: [2, 2, 1], classes: 2, layers: [flatten, {linear: {out: classes, bias: true}}]}")
    (tmp_path / "bare.yaml").write_text("{name: bare, model: net.yaml}")
    assert recipes.load(str(tmp_path / "bare.yaml"), [])[0]["update"]["kind"] == "sgd"


NAMED = """
name: net
input: [4, 4, 2]
classes: 2
freeze: [twice.inner.2, norm1]
blocks: {half: [{conv: {out: 2, kernel: 1, name: inner}}]}
layers: [norm, {repeat: {times: 2, layers: [{block: {use: half, name: twice}}]}}, {residual: {body: [{conv: {out: 2, kernel: 1}}]}},
  flatten, {linear: {out: classes}}]
"""


def test_layers_that_a_model_or_a_recipe_freezes_are_frozen(tmp_path):
    (tmp_path / "net.yaml").write_text(NAMED)
    (tmp_path / "bare.yaml").write_text("{name: bare, model: net.yaml}")

    def frozen(*edits):
        recipe, model = recipes.load(str(tmp_path / "bare.yaml"), list(edits))
        return models.frozen(model, recipe["freeze"])

    # norm1, twice.inner.1, twice.inner.2, conv3 (the third of its type), linear1
    assert frozen() == [True, False, True, False, False]
    assert frozen("freeze=[conv3]") == [False, False, False, True, False]
    assert frozen("freeze=[]") == 5 * [False]
    for edit in ("freeze=[conv1]", "freeze=conv3", "freeze=[norm1, twice.inner.1, twice.inner.2, conv3, linear1]"):
        with pytest.raises(SystemExit, match="freeze: "):
            frozen(edit)


# Data sets


def test_cifar_is_read_in_the_order_of_its_files(tmp_path):
    random = np.random.default_rng(1)
    records = random.integers(0, 256, (12, 3073), dtype=np.uint8)
    for i in range(5):
        records[2 * i:2 * i + 2].tofile(tmp_path / f"data_batch_{i + 1}.bin")
    records[10:].tofile(tmp_path / "test_batch.bin")
    splits = images.read(str(tmp_path), {"kind": "auto"}, (32, 32, 3))
    assert splits["train"].labels.tolist() == records[:10, 0].tolist() and splits["test"].labels.tolist() == records[10:, 0].tolist()
    planes = splits["train"].pixels.reshape(10, 1024, 3).transpose(0, 2, 1)
    assert np.array_equal(planes.reshape(10, 3072), records[:10, 1:])


def test_idx_is_read(tmp_path):
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8)
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 3, 4, 5) + pixels.tobytes())
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 3) + bytes([2, 0, 1]))
    train = images.read(str(tmp_path), {"kind": "idx"}, (4, 5, 1))["train"]
    assert train.pixels.reshape(-1).tolist() == pixels.tolist()
    assert (train.labels.tolist(), train.first.tolist(), train.height.tolist(), train.width.tolist()) == ([2, 0, 1], [0, 20, 40], 3 * [4], 3 * [5])


def test_folders_are_read_class_by_class_in_the_order_of_their_paths(tmp_path):
    random, stored = np.random.default_rng(2), {}
    for name in ("train/b/2.png", "train/b/10.png", "train/a-b/x.png", "train/a/deep/x.png", "val/a/0.png", "val/b/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        stored[name] = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(stored[name]).save(tmp_path / name)
    (tmp_path / "train/a/notes.txt").write_text("no image")
    options = {"kind": "folder", "fit": "crop", "resize": 6}
    splits = images.read(str(tmp_path), options, (6, 6, 3))
    expected = ["train/a/deep/x.png", "train/a-b/x.png", "train/b/10.png", "train/b/2.png"]
    assert splits["train"].labels.tolist() == [0, 1, 2, 2] and splits["test"].labels.tolist() == [0, 2]
    assert np.array_equal(splits["train"].pixels, np.concatenate([stored[name].reshape(-1, 3) for name in expected]))


def scaled_by_definition(row, size):
    """One row: the mean over each output pixel's area, or the line between the two nearest pixel centres."""
    source, out = len(row), []
    for i in range(size):
        if size <= source:
            low, high = Fraction(i * source, size), Fraction((i + 1) * source, size)
            parts = [(max(min(high, j + 1) - max(low, j), 0), int(value)) for j, value in enumerate(row)]
            out.append(sum(weight * value for weight, value in parts) / (high - low))
        else:
            place = min(max(Fraction((2 * i + 1) * source, 2 * size) - Fraction(1, 2), 0), source - 1)
            below = min(int(place), source - 2)
            out.append(int(row[below]) + (place - below) * (int(row[below + 1]) - int(row[below])))
    return out


@pytest.mark.parametrize("source, size", [((7, 5), (3, 4)), ((4, 6), (9, 6)), ((5, 4), (8, 3)), ((6, 6), (6, 6))])
def test_scaling_is_exact(source, size):
    image = np.random.default_rng(3).integers(0, 256, (*source, 2), dtype=np.uint8)
    result = images.scale(image, size)
    for c in range(2):
        rows = [scaled_by_definition(row, size[1]) for row in image[:, :, c]]
        if size[0] == source[0]:
            exact = rows
        else:
            mixing = np.array([scaled_by_definition(unit, size[0]) for unit in np.eye(source[0], dtype=int)]).T
            exact = [[sum(weight * row[x] for weight, row in zip(weights, rows)) for x in range(size[1])] for weights in mixing]
        assert result[:, :, c].tolist() == [[math.floor(value + Fraction(1, 2)) for value in row] for row in exact]


def test_fitted_sizes():
    crop, stretch = {"fit": "crop", "resize": 144}, {"fit": "stretch", "resize": 0}
    assert images.fitted_size(128, 170, crop, (128, 128)) == (144, 191)  # 170 * 144 / 128 = 191.25
    assert images.fitted_size(171, 128, crop, (128, 128)) == (192, 144)  # 192.375
    assert images.fitted_size(100, 50, {"fit": "crop", "resize": 0}, (20, 30)) == (60, 30)
    assert images.fitted_size(100, 50, stretch, (20, 30)) == (20, 30)


# Augmentation


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale, aspect", [((0.08, 1), (0.75, 1.333333)), ((0.000001, 1), (0.0625, 16)), ((1, 1), (1, 1))])
def test_resized_crops_are_the_oracles(seed, scale, aspect):
    height, width = np.array([32, 1, 500, 375, 16384, 33] * 5), np.array([32, 77, 3, 500, 16384, 31] * 5)
    found = batches.rectangles(seed, 3, height, width, *([recipes.share(end) for end in ends] for ends in (scale, aspect)))
    assert found.T.tolist() == [list(augment.rectangle(seed, 3, i, int(height[i]), int(width[i]), scale, aspect)) for i in range(30)]


@pytest.mark.parametrize("size", [1, 5, 8, 13])
def test_scaling_of_crops_is_the_oracles(size):
    raw = np.random.default_rng(size).integers(0, 256, (11, 9, 3))
    sources = np.array([[11, 9], [5, 8], [1, 1], [8, 5], [7, 9]])
    down, down_total = batches.scaling_weights(sources[:, 0], size)
    across, across_total = batches.scaling_weights(sources[:, 1], size)
    for n, (rows, columns) in enumerate(sources):
        assert (down[n].sum(axis=1) == down_total[n]).all() and (across[n].sum(axis=1) == across_total[n]).all()
        sums = np.einsum("yj,jxc->yxc", down[n, :, :rows], np.einsum("xi,jic->jxc", across[n, :, :columns], raw[:rows, :columns])).astype(np.int64)
        total = down_total[n] * across_total[n]
        assert np.array_equal((2 * sums + total) // (2 * total), augment.scaled(raw[:rows, :columns], size, size))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("channels, strengths", [(3, (0.4, 0.3, 0.2)), (3, (1, 1, 1)), (1, (0.5, 0.999999, 0)), (3, (0, 0, 0.1))])
def test_colours_are_the_oracles(seed, channels, strengths):
    random = np.random.default_rng(1)
    raw = random.integers(0, 256, (12, 6, 5, channels), dtype=np.uint8)
    flat, first, count = raw.reshape(-1, channels), np.arange(12) * 30, np.full(12, 30)
    found = batches.colours(seed, 4, batches.mean_greys(flat, first, count), [recipes.share(s) for s in strengths])
    changed = batches.coloured(raw.astype(np.int32), *(some[:, None, None, None] for some in found))
    for i in range(12):
        assert np.array_equal(changed[i], augment.coloured(seed, 4, i, raw[i], raw[i], *strengths))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_squares_are_the_oracles(size):
    top, left = batches.squares(9, 2, 40, size, 6, 7)
    kept = batches.uncovered(top[:, None, None], left[:, None, None], size, np.arange(6)[None, :, None], np.arange(7)[None, None, :])
    for i in range(40):
        expected = np.ones((6, 7), bool)
        expected[augment.square(9, 2, i, size, 6, 7)] = False
        assert np.array_equal(kept[i], expected)


@pytest.mark.parametrize("average", [{"from": {"at": "30%"}, "every": {"step": 2}}, {"from": {"epoch": 1}}, {"from": {"step": 0}, "every": {"epoch": 2}}])
def test_samples_are_taken_when_the_oracle_takes_them(average):
    for steps_per_epoch, steps in ((5, 13), (7, 28)):
        averager, seen = Averager({"average": average}, steps_per_epoch, steps), []
        for step in range(1, steps + 1):
            if averager.period and step > averager.first and step % averager.period == 0:
                seen.append(step)
        assert recipes.sample_steps(average, steps_per_epoch, steps) == seen
    assert recipes.sample_steps(None, 5, 13) == []


@pytest.mark.parametrize("mixup", [0.2, 1])
def test_shares_are_the_oracles(mixup):
    for seed in SEEDS:
        assert batches.shares(seed, 5, 300, mixup).tolist() == [augment.share(seed, 5, i, mixup) for i in range(300)]
    assert batches.share_table(mixup).tolist() == augment.SHARES[mixup]
