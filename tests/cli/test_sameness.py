"""The same bits whichever instruction set and however many threads; other bits for another seed."""
import pytest

import data_sets
from tool import json_of, rows_of, timeless, train

ISAS = ("ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm")


@pytest.fixture(scope="module")
def expected(every_layer, cifar, shared):
    """(hash, metrics) by the reference kernels and one thread."""
    run = shared / "reference"
    result = train(every_layer, cifar, run, "--isa", "ref")
    return result["hash"], timeless(rows_of(run))


@pytest.mark.parametrize("isa, threads", [(isa, threads) for isa in ISAS for threads in range(1, 9)])
def test_every_isa_and_number_of_threads_gives_the_same_bits(isa, threads, every_layer, cifar, expected, tmp_path):
    if isa not in json_of("info")["isa_available"]:
        pytest.skip(f"this machine has no {isa}")
    result = json_of("train", every_layer, "--data", cifar, "--run", tmp_path / "run", "--isa", isa, "--threads", threads)
    assert (result["hash"], timeless(rows_of(tmp_path / "run"))) == expected


@pytest.mark.parametrize("isa", ISAS)
def test_eval_and_predict_are_the_same_too(isa, trained, toy, tmp_path):
    if isa not in json_of("info")["isa_available"]:
        pytest.skip(f"this machine has no {isa}")
    run, result = trained
    score = json_of("eval", run / "last.safetensors", "--data", toy, "--isa", isa, "--threads", 3)
    assert score["test_loss"] == pytest.approx(result["test_loss"], rel=1e-12)
    data_sets.write_png(tmp_path / "image.png", data_sets.squares(3, 5)[0][2])
    answers = [json_of("predict", run / "last.safetensors", tmp_path / "image.png", "--isa", name, "--threads", threads)
               for name, threads in (("ref", 1), (isa, 3))]
    assert answers[0] == answers[1]


def test_another_seed_gives_other_bits(every_layer, cifar, expected, tmp_path):
    hashes = {train(every_layer, cifar, tmp_path / str(seed), "--seed", seed, "--max-steps", 2)["hash"]
              for seed in (0, 1, 2, 2**32, 2**63)}
    assert len(hashes) == 5
    again = train(every_layer, cifar, tmp_path / "again", "--seed", 2**32, "--max-steps", 2)["hash"]
    assert again in hashes


@pytest.mark.parametrize("change", ["rounding.activation=nearest", "rounding.error=truncate", "rounding.error=pseudo-stochastic",
                                    "loss=softmax", "data.flip=false", "data.crop=centre", "update.mu=4", "batch=15", "data.cutout=6",
                                    "data.brightness=0.1", "data.contrast=0.1", "data.saturation=0.1"])
def test_what_the_recipe_says_changes_the_bits(change, every_layer, cifar, expected, tmp_path):
    assert train(every_layer, cifar, tmp_path / "run", "--set", change)["hash"] != expected[0]
