"""Update niti16: it learns, its state is in checkpoints, and the bits are the same on every instruction set and number of threads
and from every checkpoint on; and the warning that its logits grow without bound."""
import json
import math
import shutil

import pytest

import data_sets
from recipes import NORMED
from test_norm_runs import assert_same_tensors
from tool import hash_of, json_of, niti, output_of, resume, tensors_of, train

UPDATE = "update: {kind: niti16, lr: 3, nesterov: true, weight_decay: 0.001}\n"
EPOCHS = 4


@pytest.fixture(scope="module")
def normed16(shared):
    path = shared / "normed16.yaml"
    path.write_text(NORMED[:NORMED.index("update:")] + UPDATE)
    return path


@pytest.fixture(scope="module")
def whole(normed16, odd, shared):
    run = shared / "niti16"
    return run, train(normed16, odd, run, "--isa", "ref", "--threads", 1, "--epochs", EPOCHS, "--save-every", 1)


def test_it_learns_and_keeps_its_state(whole):
    run, result = whole
    assert result["test_accuracy"] > 60  # of four classes
    tensors = tensors_of(run / "last.safetensors")
    assert {"conv1.master", "conv1.velocity", "norm1.velocity", "norm1.bias.velocity", "linear1.master"} <= set(tensors)
    first = tensors_of(run / "epoch-0001.safetensors")
    for name in tensors:  # the weights' exponents stay
        if name.endswith((".weight.exponent", ".bias.exponent", ".master.exponent")):
            assert tensors[name] == first[name], name


@pytest.mark.parametrize("isa, threads", [("ref", 3), ("avx2", 1), ("avx2", 2), ("avx512vnni", 3), ("amx", 2), ("neon-i8mm", 3)])
def test_every_isa_and_number_of_threads_gives_the_same_bits(isa, threads, normed16, odd, whole, tmp_path):
    if isa not in json_of("info")["isa_available"]:
        pytest.skip(f"this machine has no {isa}")
    again = json_of("train", normed16, "--data", odd, "--run", tmp_path / "run", "--isa", isa, "--threads", threads, "--epochs", EPOCHS)
    assert again["hash"] == whole[1]["hash"]
    assert_same_tensors(tmp_path / "run" / "last.safetensors", whole[0] / "last.safetensors")


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_resumed_from_every_checkpoint(epoch, whole, tmp_path):
    run, result = whole
    begun = tmp_path / "run"
    begun.mkdir()
    shutil.copy(run / f"epoch-{epoch:04d}.safetensors", begun / "last.safetensors")
    assert resume(begun)["hash"] == result["hash"] == hash_of(begun / "last.safetensors")
    assert_same_tensors(begun / "last.safetensors", run / "last.safetensors")


def test_the_published_loss(recipe, toy, tmp_path):
    """Normalised gradients need no true derivatives."""
    published = recipe(("{kind: niti, mu: 3}", "{kind: niti16}"), ("loss: softmax", "loss: niti"))
    assert train(published, toy, tmp_path / "run", "--epochs", 10)["test_accuracy"] > 60
    assert "update_niti16 rate: conv1.weight" in output_of("program", published, "--phase", "update")


def test_logits_that_grow_are_noticed(recipe, toy, tmp_path):
    """Steps of a hundred at labels of which a fifth are wrong: the network learns, and its loss leaves that of guessing behind."""
    images, labels = data_sets.squares(160, 1)
    labels = labels.copy()
    labels[::5] = (labels[::5] + 1) % 4
    data = data_sets.write_idx_set(tmp_path / "data", (images, labels), data_sets.squares(60, 2))
    wild = recipe(("{kind: niti, mu: 3}", "{kind: niti16, lr: 100, schedule: steps}\nlabel_smoothing: 0.1"))
    done = niti("train", wild, "--data", data, "--run", tmp_path / "run", "--epochs", 12, "--json", "--quiet")
    warnings = [text for text in json.loads(done.stdout)["warnings"] if "logits grow without bound" in text]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    epoch = next(i for i in range(1, len(rows)) if rows[i]["train_loss"] > max(rows[i - 1]["train_loss"], 2 * math.log(4)))
    assert len(warnings) == 1 and f"epoch {epoch + 1}: the training loss rises" in warnings[0], warnings
    assert "update.lr, which is 100" in warnings[0] and "label_smoothing" in warnings[0]


@pytest.mark.parametrize("layers", [7, 9])
def test_built_in_recipes(layers):
    assert f"model: vgg-small-{layers}\n" in output_of("show", f"vgg-small-{layers}-niti16-cifar10")
    assert "update_niti16 rate" in output_of("program", f"vgg-small-{layers}-niti16-cifar10", "--phase", "update", "--batch", 2)
