"""A layer type and an optimiser of existing operations take one file and one line in a table: niti_with_example, built with those of
tests/example, trains with them to the same bits as with what they stand for."""
import signal

import pytest
from safetensors.numpy import load_file

import tool
from tool import NITI, json_of, train

EXAMPLE = NITI.parent / "tests" / "niti_with_example"

# Layers with weights have the same names in both; layer numbers differ, and decide nothing where nothing draws random words.
RECIPE = """\
name: example
model:
  name: example
  input: [8, 8, 1]
  classes: 4
  layers:
{layers}
data: {{mean: auto, std: auto}}
batch: 16
epochs: 2
seed: 7
loss: softmax
rounding: {{activation: nearest, error: nearest}}
update: {{kind: {kind}, mu: 3}}
"""
APART = """\
    - conv: {out: 5, kernel: 3, padding: 1, name: first}
    - relu
    - residual:
        body:
          - conv: {out: 5, kernel: 3, padding: 1, name: second}
          - relu
    - maxpool: {kernel: 2}
    - conv: {out: 6, kernel: 2, stride: 2, name: third}
    - relu
    - flatten
    - linear: {out: classes, name: last}
"""
JOINED = """\
    - conv-relu: {out: 5, kernel: 3, padding: 1, name: first}
    - residual:
        body:
          - conv-relu: {out: 5, kernel: 3, padding: 1, name: second}
    - maxpool: {kernel: 2}
    - conv-relu: {out: 6, kernel: 2, stride: 2, name: third}
    - flatten
    - linear: {out: classes, name: last}
"""


@pytest.fixture
def write(tmp_path):
    def write(name, layers, kind="niti"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(layers=layers.rstrip("\n"), kind=kind))
        return path

    return write


@pytest.fixture
def example(monkeypatch):
    """Every run of the tool is one of niti_with_example."""
    monkeypatch.setattr(tool, "NITI", EXAMPLE)


def opcodes(recipe):
    return [row["opcode"] for row in json_of("program", recipe)["operations"]]


@pytest.mark.parametrize("isa", ["ref", "auto"])
def test_conv_relu_is_conv_and_relu(isa, example, write, toy, tmp_path):
    apart, joined = write("apart", APART), write("joined", JOINED)
    assert opcodes(joined) == opcodes(apart)
    first = train(apart, toy, tmp_path / "first", "--max-steps", 1)
    start = tmp_path / "first" / "last.safetensors"
    results = [train(recipe, toy, tmp_path / recipe.stem, "--init", start, "--isa", isa) for recipe in (apart, joined)]
    assert results[0]["hash"] == results[1]["hash"] != first["hash"]
    assert results[0]["test_loss"] == results[1]["test_loss"]
    assert results[1]["test_accuracy"] > 50  # of four classes: it learns


def test_its_keys_are_checked_like_any_layers(example, write, toy, tmp_path):
    for key, change in (("kernel", "kernel: 0"), ("groups", "kernel: 2, groups: 2")):
        bad = write("bad", JOINED.replace("kernel: 2, stride: 2", change))
        tool.fails("train", bad, "--data", toy, "--run", tmp_path / "run", says=("bad.yaml:12:", "third", key))


def test_the_optimiser_is_update_niti_by_another_name(example, write, toy, tmp_path):
    results = [train(write(kind, APART, kind), toy, tmp_path / kind) for kind in ("niti", "again")]
    assert results[0]["hash"] == results[1]["hash"]
    assert "kind: again" in (tmp_path / "again" / "recipe.yaml").read_text()  # kept, for resume
    resumed = tool.resume(tmp_path / "again")
    assert resumed["hash"] == results[1]["hash"]


def test_an_optimisers_state_is_saved_and_resumed(example, write, toy, tmp_path):
    recipe = write("again", APART, "again")
    train(recipe, toy, tmp_path / "whole", "--epochs", 50)
    process = tool.start_training(recipe, "--data", toy, "--run", tmp_path / "parts", "--epochs", 50)
    tool.wait_for(tmp_path / "parts" / "best.safetensors", process)
    assert tool.stop(process, signal.SIGTERM)[0] == 143  # not yet at its end
    tool.resume(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "parts"))
    sums = {name for name in whole if name.endswith(".sum")}
    assert len(sums) == 4 and all(whole[name].any() for name in sums)
    assert whole.keys() == parts.keys()
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_the_tool_itself_knows_neither(write, toy, tmp_path):
    arguments = ("--data", toy, "--run", tmp_path / "run")
    tool.fails("train", write("joined", JOINED), *arguments, says=("unknown layer 'conv-relu'", "global-avgpool"))
    tool.fails("train", write("again", APART, "again"), *arguments, says=("update: kind", "again"))
