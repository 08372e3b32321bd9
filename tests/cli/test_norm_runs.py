"""Runs with batch norm and update sgd: the same bits on every instruction set and number of threads and from every checkpoint on;
evaluation, prediction, hashes and other runs' weights; and what a checkpoint of theirs may not hold."""
import shutil

import numpy as np
import pytest

import data_sets
from tool import fails, forge, hash_of, json_of, niti, output_of, resume, rows_of, tensors_of, timeless, train

ISAS = ("ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm")
EPOCHS = 4


@pytest.fixture(scope="module")
def whole(normed, odd, shared):
    """(run folder, result) by the reference kernels and one thread; every epoch's checkpoint is kept."""
    run = shared / "normed"
    return run, train(normed, odd, run, "--isa", "ref", "--epochs", EPOCHS, "--save-every", 1)


def assert_same_tensors(a, b):
    a, b = tensors_of(a), tensors_of(b)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name].dtype != b[name].dtype or (a[name] != b[name]).any()] == []


def test_it_learns_and_keeps_its_state(whole):
    run, result = whole
    assert result["test_accuracy"] > 60  # of four classes
    tensors = tensors_of(run / "last.safetensors")
    types = {name: tensor.dtype.name for name, tensor in tensors.items() if not name.endswith(".exponent")}
    expected = {"linear1.weight": "int8", "linear1.master": "int32", "linear1.velocity": "int32"}
    for conv in ("conv1", "conv2"):
        expected |= {f"{conv}.weight": "int8", f"{conv}.master": "int32", f"{conv}.velocity": "int32"}
    for norm in ("norm1", "norm2", "norm3"):
        expected |= {f"{norm}.weight": "int16", f"{norm}.bias": "int16", f"{norm}.running": "int64",
                     f"{norm}.velocity": "int32", f"{norm}.bias.velocity": "int32"}
    assert types == expected
    assert result["hash"] == hash_of(run / "last.safetensors")


@pytest.mark.parametrize("isa, threads", [(isa, threads) for isa in ISAS for threads in (1, 2, 3)])
def test_every_isa_and_number_of_threads_gives_the_same_bits(isa, threads, normed, odd, whole, tmp_path):
    if isa not in json_of("info")["isa_available"]:
        pytest.skip(f"this machine has no {isa}")
    run, result = whole
    again = json_of("train", normed, "--data", odd, "--run", tmp_path / "run", "--isa", isa, "--threads", threads,
                    "--epochs", EPOCHS)
    assert (again["hash"], timeless(rows_of(tmp_path / "run"))) == (result["hash"], timeless(rows_of(run)))
    assert_same_tensors(tmp_path / "run" / "last.safetensors", run / "last.safetensors")


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_resumed_from_every_checkpoint(epoch, whole, tmp_path):
    run, result = whole
    begun = tmp_path / "run"
    begun.mkdir()
    shutil.copy(run / f"epoch-{epoch:04d}.safetensors", begun / "last.safetensors")
    assert resume(begun)["hash"] == result["hash"]
    assert_same_tensors(begun / "last.safetensors", run / "last.safetensors")


@pytest.mark.parametrize("steps", [1, 9, 13])
def test_a_run_cut_within_an_epoch_evaluates_as_it_says(steps, normed, odd, tmp_path):
    result = train(normed, odd, tmp_path / "run", "--max-steps", steps, "--set", "update.warmup={step: 0}")
    score = json_of("eval", tmp_path / "run" / "last.safetensors", "--data", odd)
    assert (score["test_loss"], score["test_accuracy"]) == (result["test_loss"], result["test_accuracy"])


@pytest.mark.parametrize("isa", ISAS)
def test_eval_hash_and_predict(isa, whole, odd, tmp_path):
    if isa not in json_of("info")["isa_available"]:
        pytest.skip(f"this machine has no {isa}")
    run, result = whole
    checkpoint = run / "last.safetensors"
    score = json_of("eval", checkpoint, "--data", odd, "--isa", isa, "--threads", 3)
    assert (score["test_loss"], score["test_accuracy"]) == (result["test_loss"], result["test_accuracy"])
    assert result["hash"] in output_of("hash", checkpoint)
    data_sets.write_png(tmp_path / "image.png", data_sets.squares(3, 5)[0][2])
    answers = [json_of("predict", checkpoint, tmp_path / "image.png", "--isa", name, "--threads", threads)
               for name, threads in (("ref", 1), (isa, 3))]
    assert answers[0] == answers[1]


def test_weights_of_another_run(whole, normed, odd, tmp_path):
    """All of them, norms and their statistics included; masters begin as 256 times the weights, velocities with nothing."""
    run, _ = whole
    done = niti("train", normed, "--data", odd, "--run", tmp_path / "run", "--init", run / "last.safetensors", "--max-steps", 1,
                "--set", "update.warmup={step: 0}", "--threads", 1)
    assert done.returncode == 0 and "initialised afresh" not in done.stderr, done.stderr
    source, start = tensors_of(run / "last.safetensors"), tensors_of(tmp_path / "run" / "previous.safetensors")
    assert source.keys() == start.keys()
    for name in source:
        kind = name.removesuffix(".exponent").rsplit(".", 1)[1]
        if kind in ("weight", "bias", "running"):
            assert (start[name] == source[name]).all(), name
        elif not name.endswith(".exponent"):
            weight = name.removesuffix(kind) + "weight"
            assert (start[name] == (256 * source[weight].astype(np.int32) if kind == "master" else 0)).all(), name
    for name in ("conv1", "conv2", "linear1"):
        assert start[f"{name}.master.exponent"] == start[f"{name}.weight.exponent"] - 8
    after = tensors_of(tmp_path / "run" / "last.safetensors")
    assert any((after[name] != start[name]).any() for name in after if name.endswith(".weight"))


def test_each_tensor_of_a_norm_that_begins_anew_is_named(whole, normed, odd, tmp_path):
    """A norm has three."""
    from safetensors.numpy import load_file, save_file
    tensors = load_file(whole[0] / "last.safetensors")
    counted = [name for name in tensors if name.rsplit(".", 1)[1] in ("weight", "bias", "running")]
    left = {name: value for name, value in tensors.items() if not name.startswith("norm1.")}
    save_file(left, tmp_path / "left.safetensors")
    done = niti("train", normed, "--data", odd, "--run", tmp_path / "run", "--init", tmp_path / "left.safetensors", "--max-steps", 1,
                "--set", "update.warmup={step: 0}")
    assert done.returncode == 0, done.stderr
    notes = [line.split("afresh: ")[1].split(" ")[0] for line in done.stderr.splitlines() if "afresh" in line]
    assert sorted(notes) == ["norm1.bias", "norm1.running", "norm1.weight"]
    assert f"{len(counted) - 3} of {len(counted)} tensors of weights taken from" in done.stderr


@pytest.mark.parametrize("tensor, element, value, expected", [
    ("norm1.running", (1, 3), -1, "element 9 is -1 (expected 0 to 1152921504606846976)"),
    ("norm2.running", (1, 0), 2**60 + 1, "element 6 is 1152921504606846977 (expected 0 to 1152921504606846976)"),
    ("norm1.running", (0, 2), -2**60 - 1,
     "element 2 is -1152921504606846977 (expected -1152921504606846976 to 1152921504606846976)"),
    ("norm3.weight", 5, -32768, "element 5 is -32768 (expected -32512 to 32512)"),
    ("norm3.bias", 0, 32513, "element 0 is 32513 (expected -32512 to 32512)"),
])
def test_weights_out_of_range_are_refused(tensor, element, value, expected, whole, normed, odd, tmp_path):
    """By whatever reads them, with the file, the tensor and the element, and nothing is written."""
    run = shutil.copytree(whole[0], tmp_path / "run")

    def change(_, tensors):
        tensors[tensor] = tensors[tensor].copy()
        tensors[tensor][element] = value

    forge(run / "last.safetensors", change)
    says = (run / "last.safetensors", f"tensor '{tensor}': {expected}")
    fails("eval", run / "last.safetensors", "--data", odd, says=says)
    fails("train", "--resume", run, says=says)
    fails("train", normed, "--data", odd, "--run", tmp_path / "new", "--init", run / "last.safetensors", says=says)
    assert not (tmp_path / "new" / "last.safetensors").exists()


def set_element(name, element, value):
    def change(_, tensors):
        tensors[name] = tensors[name].copy()
        tensors[name][element] = value

    return change


def set_exponent(name, value):
    def change(_, tensors):
        tensors[f"{name}.exponent"] = np.array(value, dtype=np.int32)

    return change


def move_a_master(_, tensors):
    """To what rounds to the next integer."""
    tensors["conv1.master"] = tensors["conv1.master"].copy()
    tensors["conv1.master"][2, 1, 0, 0] += 256 if tensors["conv1.weight"][2, 1, 0, 0] < 0 else -256


@pytest.mark.parametrize("change, expected", [
    (set_element("linear1.master", (0, 7), 32513), "tensor 'linear1.master': element 7 is 32513 (expected -32512 to 32512)"),
    (set_element("linear1.master", (0, 7), -32768), "tensor 'linear1.master': element 7 is -32768 (expected -32512 to 32512)"),
    (set_element("conv2.velocity", (0, 0, 0, 1), -32768), "tensor 'conv2.velocity': element 1 is -32768 (expected -32767 to 32767)"),
    (set_element("norm1.bias.velocity", 3, 32768), "tensor 'norm1.bias.velocity': element 3 is 32768 (expected -32767 to 32767)"),
    (set_exponent("conv1.master", -3), "tensor 'conv1.master': exponent -3 (expected "),
    (set_exponent("norm1.velocity", 1025), "tensor 'norm1.velocity': exponent 1025, expected -1024 to 1024"),
    (move_a_master, "tensor 'conv1.master': element 21 is "),
])
def test_states_out_of_range_are_refused(change, expected, whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    for name in ("previous.safetensors", "metrics.csv"):
        (run / name).unlink(missing_ok=True)
    forge(run / "last.safetensors", change)
    fails("train", "--resume", run, says=(run / "last.safetensors", expected))


def test_a_master_that_rounds_to_its_weight_is_accepted(whole, tmp_path):
    """Ties away from zero: 256 w + 127 and 256 w - 128 (w > 0) are w."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole[0] / "epoch-0001.safetensors", run / "last.safetensors")

    def change(_, tensors):
        weight = tensors["conv1.weight"].astype(np.int32)
        tensors["conv1.master"] = 256 * weight + np.where(np.abs(weight) < 127, np.where(weight > 0, -128, 127), 0).astype(np.int32)

    forge(run / "last.safetensors", change)
    resume(run)


@pytest.mark.parametrize("exponent", [-31, -33, 0])
def test_running_statistics_have_their_exponent(exponent, whole, odd, normed, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    forge(run / "last.safetensors", set_exponent("norm2.running", exponent))
    says = (run / "last.safetensors", f"tensor 'norm2.running': exponent {exponent} (expected -32)")
    fails("eval", run / "last.safetensors", "--data", odd, says=says)
    fails("train", "--resume", run, says=says)
    fails("train", normed, "--data", odd, "--run", tmp_path / "new", "--init", run / "last.safetensors", says=says)


@pytest.mark.parametrize("name", ["conv1.master", "conv1.velocity", "norm2.bias.velocity", "norm1.running", "norm1.bias"])
def test_a_missing_tensor_is_named(name, whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")

    def change(_, tensors):
        del tensors[name], tensors[f"{name}.exponent"]

    forge(run / "last.safetensors", change)
    fails("train", "--resume", run, says=(run / "last.safetensors", f"tensor '{name}' is missing"))


def test_a_run_that_diverges_stops_before_no_file_can_hold_it(normed, toy, tmp_path):
    """At rate 1000 the weights' exponents rise with every step. The last checkpoint that was saved can be read."""
    done = niti("train", normed, "--data", toy, "--run", tmp_path / "run", "--epochs", 300, "--test-every", 300, "--quiet",
                "--threads", 1, "--set", "update={kind: sgd, lr: 1000}")
    assert done.returncode == 1
    assert ": exponent 10" in done.stderr and "(expected -1024 to 1024): training has diverged" in done.stderr.splitlines()[-1]
    assert json_of("eval", tmp_path / "run" / "last.safetensors", "--data", toy)["images"] == 60
