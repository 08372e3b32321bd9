"""Runs on a CUDA device: the CPU's bits, wherever they start and go on, and clear refusals."""
import shutil
import signal
import time

import pytest

import data_sets
from recipes import NORMED
from tool import (fails, hash_of, json_of, metadata_of, output_of, resume, rows_of, start_training, stop, timeless, train, wait_for)

SAME = ("hash", "epochs", "steps", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy", "best_epoch")
CPU, CUDA = ("--backend", "cpu"), ("--backend", "cuda")


def check_same(run, result, whole, expected):
    for key in SAME:
        assert result[key] == expected[key], key
    assert hash_of(run / "last.safetensors") == hash_of(whole / "last.safetensors") == expected["hash"]
    assert timeless(rows_of(run)) == timeless(rows_of(whole))


@pytest.fixture(scope="module")
def every_layer_on_cpu(shared, every_layer, cifar):
    run = shared / "every-layer-on-cpu"
    return run, train(every_layer, cifar, run, *CPU)


def test_each_family_gives_the_bits_of_the_cpu(families, every_layer, cifar, every_layer_on_cpu, tmp_path):
    for isa in families:
        run = tmp_path / isa
        check_same(run, train(every_layer, cifar, run, *CUDA, "--isa", isa), *every_layer_on_cpu)


LARGE = (("resnet18-cifar10", 512), ("resnet18-cifar10", 200), ("vgg-small-9-bn-cifar10", 128), ("vgg-small-7-cifar10", 256), ("resnet20-cifar10", 128),
         ("mobilenet-v2-cifar10", 256))


@pytest.mark.parametrize(("recipe", "batch"), LARGE)
def test_families_agree_on_large_networks(families, recipe, batch, shared, tmp_path):
    """For 30 steps, in which values cross powers of two in any tile: too much for the CPU, and its kernels agree with mma's on small ones."""
    if len(families) < 2:
        pytest.skip("the device has one family of kernels")
    data = shared / "noise"
    if not data.exists():
        data_sets.write_cifar10_set(data, 2000, 64)
    warmup = () if recipe == "vgg-small-7-cifar10" else ("--set", "update.warmup.at=5%")
    ends = [train(recipe, data, tmp_path / isa, *CUDA, "--isa", isa, "--batch", batch, "--max-steps", 30, "--measure-every", 0, *warmup)["hash"] for isa in families]
    assert ends[0] == ends[1]


def events_of(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()
    found = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return found | {tag: [(image.step, image.encoded_image_string) for image in events.Images(tag)] for tag in events.Tags()["images"]}


def test_each_family_measures_what_the_cpu_does(families, every_layer, cifar, tmp_path):
    """Every figure of every step, and the pictures; by default layers seldom, in the same steps as elsewhere."""
    train(every_layer, cifar, tmp_path / "cpu", *CPU, "--measure-every", 1)
    expected = events_of(tmp_path / "cpu")
    assert {"changed_weights/conv1", "zero_gradients/conv1", "test/confusion", "loss/train_steps"} <= set(expected)
    for isa in families:
        train(every_layer, cifar, tmp_path / isa, *CUDA, "--isa", isa, "--measure-every", 1)
        assert events_of(tmp_path / isa) == expected
    train(every_layer, cifar, tmp_path / "default", *CUDA, "--epochs", 21)
    few = events_of(tmp_path / "default")
    steps = [step for step, _ in few["loss/train_steps"]]
    assert len(steps) == 21 and [step for step, _ in few["changed_weights/conv1"]] == steps[::10]


def test_auto_takes_the_device(every_layer, cifar, every_layer_on_cpu, tmp_path):
    run = tmp_path / "run"
    check_same(run, train(every_layer, cifar, run), *every_layer_on_cpu)
    assert '"backend": "cuda"' in (run / "environment.json").read_text().replace('":"', '": "')


def test_an_image_folder_is_streamed(tmp_path, every_layer):
    data = tmp_path / "data"
    for split, seed in (("train", 1), ("test", 2)):
        images, labels = data_sets.squares(40, seed, side=24, channels=3)
        for i, (image, label) in enumerate(zip(images, labels)):
            folder = data / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            data_sets.write_png(folder / f"{i}.png", image)
    text = every_layer.read_text().replace("kind: cifar10", "kind: folder").replace("classes: 10", "classes: 4")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.replace("{out: 10, name: last}", "{out: 4, name: last}"))
    on_cpu, on_cuda = tmp_path / "cpu", tmp_path / "cuda"
    expected = train(recipe, data, on_cpu, *CPU)
    check_same(on_cuda, train(recipe, data, on_cuda, *CUDA), on_cpu, expected)
    sets = [word for key in AUGMENTED["all"] for word in ("--set", key)]
    expected = train(recipe, data, tmp_path / "changed-cpu", *CPU, *sets)
    check_same(tmp_path / "changed-cuda", train(recipe, data, tmp_path / "changed-cuda", *CUDA, *sets), tmp_path / "changed-cpu", expected)


AUGMENTED = {"cut": ["data.cutout=9"], "coloured": ["data.brightness=0.4", "data.contrast=0.5", "data.saturation=1"],
             "resized": ["data.pad=0", "data.crop=resized"],
             "all": ["data.pad=0", "data.crop=resized", "data.scale=[0.01, 1]", "data.aspect=[0.1, 10]", "data.cutout=5", "data.brightness=1",
                     "data.contrast=1", "data.saturation=1"],
             "mixed": ["loss=softmax", "data.mixup=1"]}


@pytest.mark.parametrize("name", AUGMENTED)
def test_changed_images_are_those_of_the_cpu(name, every_layer, cifar, tmp_path):
    sets = [word for key in AUGMENTED[name] for word in ("--set", key)]
    expected = train(every_layer, cifar, tmp_path / "cpu", *CPU, *sets)
    check_same(tmp_path / "cuda", train(every_layer, cifar, tmp_path / "cuda", *CUDA, *sets), tmp_path / "cpu", expected)


@pytest.mark.parametrize("update", ["{kind: niti16, lr: 3, weight_decay: 0.001}", "{kind: sgd, lr: 0.05, nesterov: true, clip_norm: 0.5}"])
def test_16_bit_updates_move_between_devices(families, update, toy, tmp_path):
    """Batch norm, masters and velocities, and the sums of squares of clipping: begun on the CPU, ended on the device, and the other way."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(NORMED[:NORMED.index("update:")] + f"update: {update}\n")
    options = ("--epochs", 4, "--save-every", 2)
    whole = tmp_path / "whole"
    expected = train(recipe, toy, whole, *CPU, *options)
    for isa in families:
        on_device = tmp_path / isa
        check_same(on_device, train(recipe, toy, on_device, *CUDA, "--isa", isa, *options), whole, expected)
    for name, begun, device in (("cpu-cuda", whole, CUDA), ("cuda-cpu", tmp_path / families[-1], CPU)):
        run = tmp_path / name
        run.mkdir()
        shutil.copy(begun / "epoch-0002.safetensors", run / "last.safetensors")
        assert resume(run, *device)["hash"] == expected["hash"]


@pytest.mark.parametrize("first, second", [(CUDA, CPU), (CPU, CUDA)], ids=["cuda-then-cpu", "cpu-then-cuda"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_moves_between_devices(toy_recipe, toy, tmp_path, first, second, number):
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ("--epochs", 40, "--set", "data.crop=random", "--set", "data.pad=1", "--set", "data.flip=true", "--set",
               "rounding={activation: stochastic, error: stochastic}")
    expected = train(toy_recipe, toy, whole, *second, *options)
    process = start_training(toy_recipe, "--data", toy, "--run", run, *first, *options)
    wait_for(run / "last.safetensors", process)
    while int(metadata_of(run / "last.safetensors")["epoch"]) < 2 and process.poll() is None:
        time.sleep(0.001)
    code, out, err = stop(process, number)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL), out + err
    assert 0 < int(metadata_of(run / "last.safetensors")["step"]) < expected["steps"]
    check_same(run, resume(run, *second), whole, expected)


def test_evaluation_and_prediction(every_layer_on_cpu, cifar, tmp_path):
    checkpoint = every_layer_on_cpu[0] / "last.safetensors"
    for options in ((), ("--flip", "--per-class")):
        on_cuda, on_cpu = (json_of("eval", checkpoint, "--data", cifar, *options, *device) for device in (CUDA, CPU))
        assert on_cuda == on_cpu and on_cuda["flip"] == bool(options)
    image = tmp_path / "image.png"
    data_sets.write_png(image, data_sets.squares(1, 5, side=32, channels=3)[0][0])
    for flip in ((), ("--flip",)):
        on_cuda, on_cpu = (json_of("predict", checkpoint, image, *flip, *device)["predictions"] for device in (CUDA, CPU))
        assert on_cuda == on_cpu


def test_averaged_weights(families, toy, tmp_path):
    """The same sums, means, running statistics and scores, with test-time flip; and from a run that changes devices."""
    recipe = tmp_path / "normed.yaml"
    recipe.write_text(NORMED + "evaluation: {flip: true}\naverage: {from: {epoch: 1}, every: {step: 3}}\n")
    expected = train(recipe, toy, tmp_path / "cpu", *CPU, "--save-every", 1)
    for isa in families:
        result = train(recipe, toy, tmp_path / isa, *CUDA, "--isa", isa)
        for key in (*SAME, "averaged_hash", "averaged_test_accuracy"):
            assert result[key] == expected[key], key
        assert timeless(rows_of(tmp_path / isa)) == timeless(rows_of(tmp_path / "cpu"))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("recipe.yaml", "model.yaml", "environment.json"):
        (moved / name).write_bytes((tmp_path / "cpu" / name).read_bytes())
    (moved / "last.safetensors").write_bytes((tmp_path / "cpu" / "epoch-0002.safetensors").read_bytes())
    assert resume(moved, *CUDA)["averaged_hash"] == expected["averaged_hash"]


def test_a_folded_network(families, toy, tmp_path):
    """Grouped and plain convolutions with large biases, which training alone seldom has."""
    recipe = tmp_path / "normed.yaml"
    recipe.write_text(NORMED.replace("        shortcut:\n          - norm\n", ""))
    train(recipe, toy, tmp_path / "run", *CPU, "--epochs", 1)
    json_of("fold", f"{tmp_path / 'run'}:last", "--out", tmp_path / "folded.safetensors")
    expected = json_of("eval", tmp_path / "folded.safetensors", "--data", toy, *CPU)
    for isa in families:
        assert json_of("eval", tmp_path / "folded.safetensors", "--data", toy, *CUDA, "--isa", isa) == expected


def test_info_tells_of_the_devices(families):
    report = json_of("info", *CUDA)
    assert report["backend"] == "cuda" and report["device"].startswith("cuda:0, ") and families[-1] in report["device"]
    assert report["devices"][0].startswith("cuda:0, ") and report["devices"][-1].startswith("cpu, ")
    assert report["devices"][0] in output_of("info")


@pytest.mark.parametrize("arguments, says", [
    (("--backend", "cuda:99"), ("cuda:99", "CUDA device")),
    (("--backend", "cuda:x"), "cuda:N"),
    (("--backend", "cuda", "--isa", "avx2"), ("avx2", "mma")),
])
def test_what_is_not_there_is_refused(arguments, says):
    fails("info", *arguments, says=says)


def test_a_batch_that_does_not_fit(tmp_path, cifar):
    recipe = tmp_path / "recipe.yaml"
    layers = ", ".join(["{conv: {out: 250, kernel: 3, padding: 1}}, relu"] * 6)  # 200 GB of activations and errors
    recipe.write_text("name: large\nbatch: 65536\nmodel: {name: large, input: [32, 32, 3], classes: 10, layers: "
                      f"[{layers}, {{maxpool: {{kernel: 4}}}}, flatten, {{linear: {{out: classes}}}}]}}\n")
    fails("train", recipe, "--data", cifar, "--run", tmp_path / "run", *CUDA, says=("asked for", "free", "a batch of", "would fit"))
    assert not (tmp_path / "run").exists()


def test_bench():
    for what in ("step", "infer"):
        report = json_of("bench", what, "--model", "lenet5", "--batch", 64, "--seconds", 1, *CUDA)
        assert report["images_per_second"] > 0 and report["device"].startswith("cuda:0")
    report = json_of("bench", "kernels", "--model", "lenet5", "--batch", 64, "--seconds", 2, *CUDA)
    assert report["product_operations_per_second"] > 1e12 and report["copy_bytes_per_second"] > 1e10
    assert all(0 < kernel["share_of_product"] < 2 for kernel in report["kernels"])
    assert all(row["gigabytes_per_second"] > 0 for row in report["others"])
