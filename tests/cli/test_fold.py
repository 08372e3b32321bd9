"""niti fold: a network without batch norm from one with it, and the norms that cannot be folded."""
import pytest
import yaml

import data_sets
from tool import content_of, fails, forge, json_of, metadata_of, misused, niti, output_of, tensors_of, train

LAYERS = """\
    - conv: {out: 6, kernel: 3, padding: 1, name: first}
    - norm
    - relu
    - repeat:
        times: 2
        layers:
          - block: separable
    - residual:
        body:
          - conv: {out: 6, kernel: 3, padding: 1}
          - norm
        shortcut:
          - conv: {out: 6, kernel: 1}
          - norm: {name: last}
    - flatten
    - linear: {out: classes, name: logits}
"""
RECIPE = """\
name: small
model:
  name: small
  input: [8, 8, 1]
  classes: 4
  blocks:
    separable:
      - conv: {out: 6, kernel: 3, padding: 1, groups: channels}
      - norm
      - relu: {max: 6}
  layers:
LAYERS
freeze: [last]
data: {mean: auto, std: auto}
batch: 16
epochs: 2
"""


def write(path, layers=LAYERS):
    text = RECIPE.replace("LAYERS\n", layers)
    if layers != LAYERS:
        text = text.replace("freeze: [last]\n", "")
        if "separable\n" not in layers:
            text = text[:text.index("  blocks:")] + text[text.index("  layers:"):]
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(shared, toy):
    train(write(shared / "small.yaml"), toy, shared / "small")
    return shared / "small"


@pytest.fixture(scope="module")
def folded(run, shared):
    """(file, result)."""
    return shared / "folded.safetensors", json_of("fold", f"{run}:last", "--out", shared / "folded.safetensors")


def test_it_is_a_network_without_norms(folded, run, toy, tmp_path):
    path, result = folded
    assert result["norms"] == result["from_masters"] == 5  # the layer before the frozen norm is trained
    model = yaml.safe_load(metadata_of(path)["model"])
    assert "norm" not in metadata_of(path)["model"] and model["name"] == "small-folded" == result["model"]
    assert model["layers"][0]["conv"] == {"out": 6, "kernel": 3, "padding": 1, "name": "first", "bias": True}
    names = {name for name in tensors_of(path) if not name.endswith(".exponent")}
    layers = ("first", "conv2", "conv3", "conv4", "conv5")
    assert names == {f"{layer}.{what}" for layer in layers for what in ("weight", "bias")} | {"logits.weight"}
    scored = json_of("eval", path, "--data", toy)
    assert scored["hash"] == result["hash"] and scored["data"]["of_run"]
    before = json_of("eval", f"{run}:last", "--data", toy)
    assert abs(scored["test_accuracy"] - before["test_accuracy"]) < 10 and abs(scored["test_loss"] - before["test_loss"]) < 0.2
    image = tmp_path / "image.png"
    data_sets.write_png(image, data_sets.squares(1, 5)[0][0])
    assert json_of("predict", path, image)["predictions"]


def test_it_has_no_scores_of_the_other_network(folded, run):
    """What says where the weights and the images come from stays; what the network with norms scored does not."""
    before, after = metadata_of(run / "last.safetensors"), metadata_of(folded[0])
    scores = {key for key in before if not key.startswith(("train_set", "test_set", "validation_set"))
              and key.endswith(("_loss_sum", "_correct", "_images"))}
    assert {"train_correct", "test_loss_sum", "test_images", "best_correct", "best_test_correct"} <= scores
    assert set(before) - set(after) == scores | {"complete", "best_epoch", "best_on_validation"} and set(after) < set(before)
    kept = set(after) - {"hash", "checksum", "model", "recipe"}
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept} and {"step", "seed", "train_set_sha256"} <= kept


def test_averaged_weights_are_folded_without_their_scores(toy, tmp_path):
    recipe = write(tmp_path / "small.yaml")
    recipe.write_text(recipe.read_text() + "update: {kind: sgd, lr: 0.01}\naverage: {from: {at: 50%}, every: {step: 5}}\n")
    train(recipe, toy, tmp_path / "run")
    assert "averaged_correct" in metadata_of(tmp_path / "run" / "averaged.safetensors")
    json_of("fold", f"{tmp_path / 'run'}:averaged", "--out", tmp_path / "folded.safetensors")
    assert not [key for key in metadata_of(tmp_path / "folded.safetensors") if key.startswith("average")]


def test_it_does_not_depend_on_kernels_or_threads(folded, toy):
    expected = json_of("eval", folded[0], "--data", toy, "--isa", "ref", "--threads", 1)
    for isa in json_of("info")["isa_available"]:
        assert json_of("eval", folded[0], "--data", toy, "--isa", isa, "--threads", 3) == expected


def test_the_same_twice_and_as_text(folded, run, tmp_path):
    text = output_of("fold", run / "last.safetensors", "--out", tmp_path / "again.safetensors")
    assert folded[1]["hash"] in text and "5 norms folded" in text
    assert (tmp_path / "again.safetensors").read_bytes() == folded[0].read_bytes()


def test_it_trains_on(folded, toy, tmp_path):
    """An ordinary checkpoint: its weights start another run, its model too."""
    (tmp_path / "model.yaml").write_text(metadata_of(folded[0])["model"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: on\nmodel: model.yaml\nbatch: 16\nepochs: 1\nupdate: {kind: sgd, lr: 0.001}\n")
    assert train(recipe, toy, tmp_path / "run", "--init", folded[0])["test_accuracy"] > 30


HEAD = "    - conv: {out: 6, kernel: 3, padding: 1}\n"
TAIL = "    - flatten\n    - linear: {out: classes}\n"


@pytest.mark.parametrize("layers, says", [
    ("    - norm\n" + HEAD + TAIL, ("norm1 cannot be folded", "follows the network's input")),
    (HEAD + "    - residual: {body: [relu]}\n    - norm\n" + TAIL, ("norm1 cannot be folded", "follows add1")),
    (HEAD + "    - relu\n    - norm: {name: mine}\n" + TAIL, ("mine cannot be folded", "follows relu1")),
    (HEAD + "    - norm\n    - norm\n" + TAIL, ("norm2 cannot be folded", "follows norm1")),
    (HEAD + "    - residual: {body: [norm, relu]}\n" + TAIL, ("norm1 cannot be folded", "conv1, which other layers read too")),
    ("    - repeat: {times: 1, layers: [{conv: {out: 6, kernel: 3}}]}\n    - norm\n" + TAIL, ("norm: cannot be folded", "same list")),
    (HEAD + TAIL, "has no norm to fold"),
])
def test_what_cannot_be_folded(layers, says, tmp_path):
    out = tmp_path / "out.safetensors"
    done = fails_with_note("fold", write(tmp_path / "other.yaml", layers), "--out", out)
    for text in says if isinstance(says, tuple) else (says,):
        assert text in done
    assert not out.exists()


def fails_with_note(*arguments):
    """The last line: a network that is not trained has a note before it."""
    done = niti(*arguments)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def test_wrong_use(run, toy, tmp_path):
    misused("fold", says="a network is missing")
    misused("fold", run, says="--out is missing")
    fails("fold", run, "--out", tmp_path / "no" / "folder.safetensors", says="no/folder.safetensors")
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((run / "last.safetensors").read_bytes())

    def change(_, tensors):
        tensors["first.master"] = tensors["first.master"] + 1000

    forge(copy, change)
    fails("fold", copy, "--out", tmp_path / "out.safetensors", says=("first.master", "first.weight"))
    assert not (tmp_path / "out.safetensors").exists()


def test_no_file_of_a_run_is_overwritten(run, toy, tmp_path):
    before = content_of(run)
    for name in ("last", "best", "previous", "averaged", "epoch-0001"):
        fails("fold", run, "--out", run / f"{name}.safetensors", says=f"{name}.safetensors: ")
    fails("fold", run, "--out", run / "metrics.csv", says="metrics.csv: the file belongs to the run in that folder")
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((run / "last.safetensors").read_bytes())
    (tmp_path / "link.safetensors").symlink_to(copy)
    for name in ("copy", "link"):
        fails("fold", copy, "--out", tmp_path / f"{name}.safetensors", says="this is the network to fold")
    assert content_of(run) == before and copy.read_bytes() == before["last.safetensors"]
