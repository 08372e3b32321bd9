"""Bad input at every door: an exit code, one line that says what is wrong and where, and nothing left behind."""
import gzip
import json
import os
import shutil
import struct

import numpy as np
import pytest

import data_sets
import tool
from recipes import TOY
from tool import content_of, fails, metadata_of, niti, resume, train

LAYERS = TOY[TOY.index("  layers:"):TOY.index("data:")]


@pytest.fixture
def refused(tmp_path, toy):
    """refused(recipe, *options, says=...): training fails as it should and leaves no folder."""
    run = tmp_path / "run"

    def check(recipe, *options, says, data=toy, **more):
        line = fails("train", recipe, "--data", data, "--run", run, "--threads", 1, *options, says=says, **more)
        assert not run.exists()
        return line

    return check


# ---- recipes ----

@pytest.mark.parametrize("name, says", [
    ("no-such-recipe", ("no-such-recipe", "lenet5-mnist")),
    ("./no-such.yaml", ("./no-such.yaml", "No such file")),
    (".", "."),
    ("", "''"),
])
def test_unknown_recipes(refused, name, says):
    refused(name, says=says)


def with_changes(*changes):
    text = TOY
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# The place is where the offending text begins in the recipe written: line:column, both from 1.
BAD_RECIPES = {
    "malformed": ([("batch: 16", "batch: [16")], None, ""),
    "tab": ([("batch: 16", "\tbatch: 16")], "\tbatch", ""),
    "duplicate key": ([("seed: 7", "batch: 8")], "batch: 8", "batch"),
    "unknown key": ([("seed: 7", "sead: 7")], "sead", "sead"),
    "unknown key below": ([("data: {mean: auto,", "data: {men: auto, mean: auto,")], "men:", "'men'"),
    "unknown layer": ([("    - relu", "    - rely")], "rely", "rely"),
    "unknown layer key": ([("kernel: 3,", "kernels: 3,")], "kernels", "kernels"),
    "missing kernel": ([("kernel: 3, ", "")], "conv", "kernel"),
    "text for a number": ([("batch: 16", "batch: many")], "many", "'many'"),
    "list for a number": ([("epochs: 3", "epochs: [3]")], "[3]", "a list"),
    "number for a list": ([("[8, 8, 1]", "8")], "8\n", "input"),
    "fraction": ([("batch: 16", "batch: 1.5")], "1.5", "1.5"),
    "zero batch": ([("batch: 16", "batch: 0")], "0\n", "batch"),
    "negative epochs": ([("epochs: 3", "epochs: -1")], "-1", "epochs"),
    "huge batch": ([("batch: 16", "batch: 9999999999999")], "9999", "batch"),
    "negative seed": ([("seed: 7", "seed: -7")], "-7", "seed"),
    "seed beyond 64 bits": ([("seed: 7", "seed: 18446744073709551616")], "18446744073709551616", "seed"),
    "unknown loss": ([("loss: softmax", "loss: mse")], "mse", "softmax"),
    "mu too large": ([("mu: 3", "mu: 31")], "31", "mu"),
    "unknown update": ([("kind: niti", "kind: adam")], "adam", "adam"),
    "mean beyond one": ([("mean: auto, std: auto", "mean: [1.5], std: [1]")], "1.5", "mean"),
    "std of zero": ([("mean: auto, std: auto", "mean: [0.5], std: [0]")], "0]}", "std"),
    "too many channels": ([("mean: auto, std: auto", "mean: [0.5, 0.5, 0.5], std: [1, 1, 1]")], "[0.5", "channels"),
    "kernel too large": ([("kernel: 3, padding: 1", "kernel: 11, padding: 1")], "conv", "kernel"),
    "no flatten": ([("    - flatten\n", "")], "linear", "flatten"),
    "wrong last layer": ([("linear: {out: classes}", "linear: {out: 7}")], "linear", "7"),
    "residual of other shapes": (
        [("    - relu", "    - residual: {body: [{conv: {out: 5, kernel: 1}}]}")], "residual", "8x8x5"),
    "no layers": ([(LAYERS, "  layers: []\n")], "[]", "layer"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_bad_recipes(refused, recipe, name):
    changes, at, says = BAD_RECIPES[name]
    text = with_changes(*changes)
    path = recipe(text)
    line = refused(path, says=(path, says))
    place = line.split(f"{path}:")[1].split(": ")[0]
    row, column = map(int, place.split(":"))
    if at is not None:
        before = text[:text.index(at)]
        assert (row, column) == (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1), line
    else:
        assert 1 <= row <= text.count("\n") + 1 and column >= 1


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"toy\n", b"\xff\xfe\x00", b"name: \xc3\x28\n", b"{" * 5000,
                                     b"a: &x [*x]\n", b"name: a\n---\nname: b\n", b"\x00" * 100])
def test_files_that_are_no_recipe(refused, tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    refused(path, says=path)


@pytest.mark.parametrize("command", ["show", "summary", "train"])
def test_nothing_follows_a_zero_byte(command, toy_recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(toy_recipe.read_bytes() + b"\0garbage: [ {{{")
    result = tool.niti(command, path)
    assert result.returncode == 1 and f"{path}:" in result.stderr and "a zero byte" in result.stderr and result.stdout == "", result


@pytest.mark.parametrize("name, fails", [(".lock", True), ("metrics.csv", False), ("metrics.jsonl", False)])
def test_a_strangers_run_reaches_nothing_through_links(name, fails, trained, toy, tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(trained[0], run)
    for content in (None, (run / name).read_bytes()):
        if content is not None:
            outside.write_bytes(content)
        (run / name).unlink()
        (run / name).symlink_to(outside)
        result = tool.niti("train", "--resume", run, "--epochs", trained[1]["epochs"] + 1, "--quiet")
        assert result.returncode == (1 if fails else 0), result
        assert not fails or f"niti: {run / name}: a symbolic link, which may lead elsewhere" in result.stderr, result
        assert outside.read_bytes() == content if content is not None else not outside.exists()
        shutil.rmtree(run)
        shutil.copytree(trained[0], run)


@pytest.mark.parametrize("setting, says", [
    ("batch", "KEY.PATH=VALUE"), ("=3", "KEY.PATH=VALUE"), ("batch=", "batch"), ("batch=0", "batch"), ("batch=x", "'x'"),
    ("sead=1", "sead"), ("update.my=1", "my"), ("batch.size=3", "batch"), ("update.mu=[", "update.mu=["),
    ("update.mu=[{epoch: 1, mu: 3}]", "epoch"), ("data.crop=left", "left"), ("data.pad=-1", "pad"),
    ("model.classes=1", "classes"), ("model.depth=3", "depth"), ("..=1", "KEY.PATH=VALUE"), ("", "KEY.PATH=VALUE"), ("rounding=nearest", "rounding"),
    ("data.resize=4", "resize"), ("data.mean=auto", None), ("epochs=1000001", "epochs"), ("max_steps=4294967296", "max_steps"),
])
def test_wrong_settings(refused, toy_recipe, tmp_path, toy, setting, says):
    if says is None:  # right, lest the others fail for another reason
        train(toy_recipe, toy, tmp_path / "run", "--set", setting)
        return
    line = refused(toy_recipe, "--set", setting, says=says)
    assert "--set" in line


@pytest.mark.parametrize("option, value", [("--epochs", "0"), ("--epochs", "two"), ("--batch", "-1"), ("--batch", "65537"),
                                           ("--seed", "-1"), ("--seed", ""), ("--max-steps", "1.5"), ("--seed", "9" * 40)])
def test_numbers_out_of_range(refused, toy_recipe, option, value):
    line = refused(toy_recipe, option, value, says=option[2:].replace("-", "_"))
    assert value[:20] in line


def test_values_too_long_for_a_number_are_misuse(toy_recipe, tmp_path):
    done = niti("train", toy_recipe, "--run", tmp_path / "run", "--seed", "1" * 100)
    assert done.returncode == 2 and "too long" in done.stderr and not (tmp_path / "run").exists()


# ---- devices ----

@pytest.mark.parametrize("options, says", [
    (("--isa", "sse9"), ("sse9", "avx2")), (("--isa", ""), "expected"), (("--backend", "cuda"), "cuda"),
    (("--backend", "tpu"), ("tpu", "cpu")), (("--backend", "cpu:1"), "cpu:1"), (("--backend", ""), "expected"),
])
def test_unknown_devices(refused, toy_recipe, trained, toy, tmp_path, options, says):
    refused(toy_recipe, *options, says=says)
    checkpoint = trained[0] / "last.safetensors"
    data_sets.write_png(tmp_path / "a.png", data_sets.squares(1, 1)[0][0])
    fails("eval", checkpoint, "--data", toy, *options, says=says)
    fails("predict", checkpoint, tmp_path / "a.png", *options, says=says)
    fails("info", *options, says=says)
    fails("bench", "step", "--model", "mlp", *options, says=says)


# ---- models ----

def test_unknown_models():
    for arguments in (("summary", "lenet6"), ("bench", "step", "--model", "lenet6")):
        fails(*arguments, says=("lenet6", "lenet5"))
    fails("summary", "./lenet5.yaml", says=("./lenet5.yaml", "No such file"))


def test_accumulators_that_could_overflow_are_refused(refused, recipe, tmp_path):
    """127^2 * 133,144 is the last that fits into 31 bits: 133,144 inputs are right, 133,145 are not."""
    def model(height, width):
        return (f"name: broad\ninput: [{height}, {width}, 1]\nclasses: 2\nlayers:\n"
                "  - flatten\n  - linear: {out: classes, name: classifier}\n")

    path = tmp_path / "model.yaml"
    path.write_text(model(88, 1513))
    assert niti("summary", path).returncode == 0
    path.write_text(model(155, 859))
    fails("summary", path, says=(path, ":6:", "classifier", "133145", "133144"))
    fails("bench", "step", "--model", path, says="classifier")
    text = "name: broad\nmodel:\n  " + model(155, 859).replace("\n", "\n  ").rstrip() + "\ndata: {mean: [0.5], std: [0.5]}\n"
    images = np.zeros((4, 155, 859, 1)), np.arange(4) % 2
    refused(recipe(text), says=("classifier", "overflow"), data=data_sets.write_idx_set(tmp_path / "broad", images, images))


def test_more_values_than_random_numbers_can_tell_apart_are_refused(tmp_path):
    """2^28 values an image: 64 images have 2^34, 65 more."""
    path = tmp_path / "model.yaml"
    path.write_text("name: vast\ninput: [16384, 16384, 1]\nclasses: 2\nlayers:\n  - relu: {name: vast}\n"
                    "  - maxpool: {kernel: 1, stride: 1024}\n  - global-avgpool\n  - linear: {out: classes}\n")
    assert niti("summary", path, "--batch", 64).returncode == 0
    fails("summary", path, "--batch", 65, says=(path, ":5:", "vast", 65 << 28))


def test_inputs_of_many_channels(tmp_path):
    """Each channel has a mean of its own: 4096 channels work; more are refused where they are described."""
    path = tmp_path / "model.yaml"
    for channels in (4096, 4097):
        path.write_text(f"name: deep\ninput: [2, 2, {channels}]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {{out: classes}}\n")
        if channels == 4096:
            assert niti("bench", "infer", "--model", path, "--threads", 1, "--seconds", 1).returncode == 0
    for arguments in (("summary", path), ("bench", "step", "--model", path)):
        fails(*arguments, says=(path, ":2:8", "4097 channels", "at most 4096"))


def test_backward_accumulators_count_too(tmp_path):
    """The 1x1 convolution's delta sums over its 60,000 outputs of a 3x3 kernel: 540,000 products."""
    path = tmp_path / "model.yaml"
    path.write_text("name: deep\ninput: [4, 4, 1]\nclasses: 2\nlayers:\n  - conv: {out: 2, kernel: 1}\n"
                    "  - conv: {out: 60000, kernel: 3, padding: 1, name: fan}\n  - conv: {out: 2, kernel: 1}\n"
                    "  - global-avgpool\n  - flatten\n")
    fails("summary", path, says=("fan", "540000"))


# ---- data ----

def test_no_data(refused, toy_recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    refused(toy_recipe, says=("nowhere", "No such file"), data=tmp_path / "nowhere")
    refused(toy_recipe, says=("empty", "no data set found"), data=tmp_path / "empty")
    refused(toy_recipe, says=tmp_path / "file", data=tmp_path / "file")
    refused("vgg-small-7-cifar10", says=("cifar10", "data_batch_1.bin"), data=tmp_path / "empty")
    for folder in ("nowhere", "empty", "file"):
        fails("data", tmp_path / folder, says=tmp_path / folder)


def test_other_classes_than_the_models(refused, toy_recipe, tmp_path):
    data = data_sets.write_idx_set(tmp_path / "three", data_sets.squares(30, 1, classes=3), data_sets.squares(9, 2, classes=3))
    refused(toy_recipe, says=(data, "3 classes", "4"), data=data)


def test_other_shapes_than_the_models(refused, toy_recipe, tmp_path, cifar):
    data = data_sets.write_idx_set(tmp_path / "small", data_sets.squares(30, 1, side=6), data_sets.squares(9, 2, side=6))
    refused(toy_recipe, says=(data, "6x6x1", "8x8x1"), data=data)
    refused(toy_recipe, "--set", "model.classes=10", says=(cifar, "32x32x3"), data=cifar)


def test_images_without_contrast(refused, toy_recipe, tmp_path):
    images, labels = data_sets.squares(30, 1)
    data = data_sets.write_idx_set(tmp_path / "flat", (images * 0 + 7, labels), data_sets.squares(9, 2))
    refused(toy_recipe, says=(data, "channel 0", "data.std"), data=data)


def cut(content):
    return content[:-5]


def lengthen(content):
    return content + b"x"


def other_magic(content):
    return b"\0\0\x09" + content[3:]


def huge_count(content):
    return content[:4] + struct.pack(">I", 0xfffffff0) + content[8:]


def one_image_more(content):
    return content[:4] + struct.pack(">I", 31) + content[8:] + bytes(64)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", [cut, lengthen, other_magic, huge_count, one_image_more, lambda content: b"",
                                    lambda content: content[:3]])
def test_damaged_idx_files(refused, toy_recipe, tmp_path, damage, file, compressed):
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(30, 1), data_sets.squares(9, 2), compressed)
    path = data / (file + (".gz" if compressed else ""))
    content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    path.write_bytes(gzip.compress(damage(content)) if compressed else damage(content))
    refused(toy_recipe, says=(data, "byte "), data=data)
    fails("data", data, says=data)


def test_damaged_gzip(refused, toy_recipe, tmp_path):
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(30, 1), data_sets.squares(9, 2), True)
    path = data / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for damaged in (content[:len(content) // 2], content[:-8] + bytes(8), content[:200] + bytes(50) + content[250:],
                    content + b"garbage", content + bytes(100) + b"x"):
        path.write_bytes(damaged)
        refused(toy_recipe, says=path, data=data)


def test_a_missing_idx_file(refused, toy_recipe, tmp_path):
    for file in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        data = data_sets.write_idx_set(tmp_path / file, data_sets.squares(30, 1), data_sets.squares(9, 2))
        (data / file).unlink()
        refused(toy_recipe, says=(file, "not found"), data=data)


def test_labels_out_of_range(refused, toy_recipe, every_layer, tmp_path):
    images, labels = data_sets.squares(9, 2)
    labels[5] = 4  # the training set has 0 to 3
    data = data_sets.write_idx_set(tmp_path / "idx", data_sets.squares(30, 1), (images, labels))
    refused(toy_recipe, says=("t10k-labels", "label 4"), data=data)
    cifar = data_sets.write_cifar10_set(tmp_path / "cifar", 3, 2)
    content = bytearray((cifar / "data_batch_3.bin").read_bytes())
    content[3073] = 10
    (cifar / "data_batch_3.bin").write_bytes(content)
    refused(every_layer, says=("data_batch_3.bin", "byte 3073", "label 10"), data=cifar)


@pytest.mark.parametrize("size", [0, 1, 3072, 3 * 3073 - 1, 3 * 3073 + 1])
@pytest.mark.parametrize("name", ["data_batch_2.bin", "test_batch.bin"])
def test_damaged_cifar_files(refused, every_layer, tmp_path, name, size):
    cifar = data_sets.write_cifar10_set(tmp_path / "cifar", 4, 4)
    (cifar / name).write_bytes((cifar / name).read_bytes()[:size])
    refused(every_layer, says=(name, f"byte {size}"), data=cifar)
    (cifar / name).unlink()
    refused(every_layer, says=(name, "not found"), data=cifar)


@pytest.fixture
def folder(tmp_path):
    return data_sets.write_folder_set(tmp_path / "set", ["a", "b", "c", "d"], data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))


COLOUR = [("[8, 8, 1]", "[8, 8, 3]"), ("mean: auto, std: auto", "mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]")]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", None])
def test_a_damaged_image_is_found_before_training(folder, refused, recipe, content):
    path = folder / "train" / "c" / "0042.png"
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    refused(recipe(*COLOUR), says=path, data=folder)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_image_in_mid_training(folder, recipe, tmp_path, threads):
    """The run stops when it meets the image; what was saved stays, and goes on once the image is repaired."""
    from PIL import Image
    run, path = tmp_path / "run", folder / "train" / "c" / "photo.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    good = path.read_bytes()
    half = len(good) // 2
    path.write_bytes(good[:half] + b"\xff\xd9" + good[half + 2:])  # damage inside a JPEG, which decoding alone finds
    message = fails("train", recipe(*COLOUR), "--data", folder, "--run", run, "--threads", threads, says=path)
    assert "\n" not in message and metadata_of(run / "last.safetensors")["step"] == "0"
    assert niti("train", tmp_path / "recipe.yaml", "--data", folder, "--dry-run").returncode == 1
    path.write_bytes(good)
    whole = train(tmp_path / "recipe.yaml", folder, tmp_path / "whole")
    assert resume(run)["hash"] == whole["hash"]


def test_a_damaged_image_and_statistics_of_the_data(folder, refused, recipe):
    path = folder / "train" / "c" / "0042.png"
    path.write_bytes(b"text")
    refused(recipe(COLOUR[0]), says=path, data=folder)


def test_splits_of_different_classes(folder, refused, recipe):
    (folder / "test" / "e").mkdir()
    refused(recipe(*COLOUR), says=("train", "'e'"), data=folder)
    (folder / "test" / "e").rmdir()
    shutil.rmtree(folder / "train" / "b")
    refused(recipe(*COLOUR), says=("train", "'b'"), data=folder)
    (folder / "train" / "b").mkdir()
    refused(recipe(*COLOUR), says="train/b", data=folder)


# ---- pipes and devices ----

def test_a_recipe_whose_model_is_no_file(toy, recipe, tmp_path):
    """A pipe without a writer, a device without an end: neither is waited for."""
    os.mkfifo(tmp_path / "pipe")
    text = recipe().read_text()
    start, end = text.index("model:"), text.index("data:")
    for name in ("pipe", "/dev/zero"):
        path = tmp_path / "odd.yaml"
        path.write_text(text[:start] + f"model: {{file: {name}}}\n" + text[end:])
        for command in (("train", path, "--data", toy, "--dry-run"), ("summary", path)):
            fails(*command, timeout=20, says=("odd.yaml:", name, "expected a regular file"))


# ---- checkpoints ----

def not_checkpoints(tmp_path, trained):
    from safetensors.numpy import save_file
    good = (trained[0] / "last.safetensors").read_bytes()
    contents = {"empty": b"", "short": b"\x08", "text": b"this is no checkpoint of any kind\n",
                "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
                "cut": good[:len(good) // 2], "headless": good[8:], "changed": good[:-1] + bytes([good[-1] ^ 1]),
                "longer": good + b"x", "huge header": struct.pack("<Q", 2**63) + good[8:]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        yield tmp_path / name
    save_file({"conv1.weight": np.zeros((4, 3, 3, 1), np.int8)}, tmp_path / "foreign")
    yield tmp_path / "foreign"
    (tmp_path / "folder").mkdir()
    yield tmp_path / "folder"
    yield tmp_path / "missing"


def test_what_is_no_checkpoint(refused, trained, toy, toy_recipe, tmp_path):
    image = tmp_path / "image.png"
    data_sets.write_png(image, data_sets.squares(1, 1)[0][0])
    for path in not_checkpoints(tmp_path, trained):
        fails("hash", path, says=path)
        fails("eval", path, "--data", toy, says=path)
        fails("predict", path, image, says=path)
        if path.name != "changed":  # one weight differs: it may have been edited, so --init takes it
            refused(toy_recipe, "--init", path, says=path)


def test_eval_on_other_data(trained, tmp_path, cifar):
    checkpoint = trained[0] / "last.safetensors"
    five = data_sets.write_idx_set(tmp_path / "five", data_sets.squares(30, 1, classes=5), data_sets.squares(9, 2, classes=5))
    small = data_sets.write_idx_set(tmp_path / "small", data_sets.squares(30, 1, side=6), data_sets.squares(9, 2, side=6))
    fails("eval", checkpoint, "--data", five, says=(five, "5 classes"))
    fails("eval", checkpoint, "--data", small, says=(small, "6x6x1"))
    fails("eval", checkpoint, "--data", cifar, says=cifar)
    fails("eval", checkpoint, "--data", tmp_path / "none", says=tmp_path / "none")


def test_predict_with_bad_images(trained, tmp_path):
    checkpoint = trained[0] / "last.safetensors"
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    data_sets.write_png(good, data_sets.squares(1, 1)[0][0])
    for content in (b"", b"text", good.read_bytes()[:-20], good.read_bytes()[:30]):
        bad.write_bytes(content)
        fails("predict", checkpoint, bad, says=bad)
        done = niti("predict", checkpoint, good, bad, "--json")
        assert done.returncode == 1 and str(bad) in done.stderr
        assert [one["image"] for one in json.loads(done.stdout)["predictions"]] == [str(good)]
    fails("predict", checkpoint, tmp_path / "none.png", says=tmp_path / "none.png")
    (tmp_path / "none").mkdir()
    fails("predict", checkpoint, tmp_path / "none", says=tmp_path / "none")


# ---- the run's folder ----

def test_folders_that_cannot_be_made(toy_recipe, toy, tmp_path):
    (tmp_path / "file").write_text("x")
    before = content_of(tmp_path)
    for run in (tmp_path / "file", tmp_path / "file" / "below", "/proc/niti/run"):
        fails("train", toy_recipe, "--data", toy, "--run", run, says=str(run).removesuffix("/below").removesuffix("/run"))
    fails("train", toy_recipe, "--data", toy, "--run", "", says="empty")
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("sets, says", [
    (("update={kind: sgd}", "loss=niti"), "--set loss=niti: update sgd follows true derivatives"),
    (("loss=niti", "data.mixup=1"), "data: mixup gives an image two labels"),
    (("data.mixup=1", "loss=niti"), "data: mixup gives an image two labels"),
    (("average={from: {at: 50%}}", "update={kind: niti}"), "--set average={from: {at: 50%}}: average: update niti has no weights of 16"),
])
def test_contradictions_begin_with_the_edit(sets, says, toy_recipe, toy, tmp_path):
    edits = [part for text in sets for part in ("--set", text)]
    line = fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", *edits, says=says)
    assert line.startswith("niti: --set ")


def test_a_contradiction_with_the_file_begins_with_the_edit(recipe, toy, tmp_path):
    published = recipe(("loss: softmax", "loss: niti"))
    fails("train", published, "--data", toy, "--run", tmp_path / "run", "--set", "update={kind: sgd}",
          says="niti: --set update={kind: sgd}: update sgd follows true derivatives")


def test_an_edit_of_the_kind_alone(toy_recipe, toy, tmp_path):
    arguments = ("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--dry-run", "--set")
    fails(*arguments, "update.kind=sgd", says="niti: --set update.kind=sgd: update sgd has no mu, which the recipe sets (expected --set 'update={kind: sgd}'")
    assert niti(*arguments, "update={kind: sgd}").returncode == 0


def test_an_edit_replaces_a_position_in_another_unit(recipe, toy, tmp_path):
    warm = recipe(("{kind: niti, mu: 3}", "{kind: sgd, warmup: {epoch: 2}}"))
    arguments = ("train", warm, "--data", toy, "--run", tmp_path / "run", "--epochs", 2)
    fails(*arguments, says="--set 'update.warmup={at: 5%}'")
    assert niti(*arguments, "--set", "update.warmup.at=5%", "--dry-run").returncode == 0
    assert niti(*arguments, "--set", "update.warmup={at: 5%}", "--dry-run").returncode == 0
    fails(*arguments, "--set", "update.warmup={at: 5%, step: 3}", says="a second position")


def test_a_rate_without_a_kind(recipe, toy, tmp_path):
    rate = recipe(("{kind: niti, mu: 3}", "{lr: 0.1}"))
    fails("train", rate, "--data", toy, "--run", tmp_path / "run", says=":17:14: update: lr belongs to other kinds than niti (expected kind: sgd")


def test_a_bias_needs_a_wide_update(recipe, toy, tmp_path):
    biased = recipe(("linear: {out: classes}", "linear: {out: classes, bias: true}"))
    fails("train", biased, "--data", toy, "--run", tmp_path / "run", says=("not the bias of linear", "expected update sgd or niti16"))


# ---- what is in the place of a file ----

PLACES = {
    "dangling": (lambda path: path.symlink_to("nowhere"), "a symbolic link to a file that is not there"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "folder": (lambda path: path.mkdir(), "expected a regular file"),
    "fifo": (os.mkfifo, "expected a regular file"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_last_does_not_serve_for_a_best_that_cannot_be_read(kind, trained, toy, tmp_path):
    """Only where there is no best.safetensors of any kind."""
    run, best = tmp_path / "run", tmp_path / "run" / "best.safetensors"
    shutil.copytree(trained[0], run)
    best.unlink()
    assert niti("hash", run).stdout == niti("hash", f"{run}:last").stdout != ""
    make, says = PLACES[kind]
    make(best)
    for network in run, f"{run}:best":
        fails("hash", network, says=(best, says))
        fails("eval", network, "--data", toy, says=(best, says))
        fails("export", "c", network, "--out", tmp_path / "out", says=(best, says))


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", ["train_x.npy", "train_y.csv", "train-images-idx3-ubyte", "classes.txt"])
def test_data_files_that_cannot_be_read_are_not_called_missing(name, kind, tmp_path):
    make, says = PLACES[kind]
    if name.endswith("ubyte"):
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II2B", 0x801, 2, 0, 1))
    elif name.endswith("csv"):
        (tmp_path / "train_x.csv").write_text("1,2\n3,4\n")
    else:
        np.save(tmp_path / "train_y.npy", np.arange(2, dtype=np.uint8))
        if name == "classes.txt":
            np.save(tmp_path / "train_x.npy", np.zeros((2, 3), np.int8))
    make(tmp_path / name)
    fails("data", tmp_path, says=(tmp_path / name, says))
