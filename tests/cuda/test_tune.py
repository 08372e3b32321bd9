"""niti tune on a CUDA device: no choice of kernels changes a bit."""
import json

from tool import hash_of, json_of, train

CUDA = ("--backend", "cuda")


def test_no_file_changes_a_bit(families, every_layer, cifar, tmp_path):
    for isa in families:
        path, worst = tmp_path / f"{isa}.json", tmp_path / f"{isa}-worst.json"
        found = json_of("tune", every_layer, "--seconds", 5, "--out", path, *CUDA, "--isa", isa)
        content = json.loads(path.read_text())
        content["devices"][0]["ways"] = {each["convolution"]: max(each["ways"], key=lambda way: way["milliseconds"] or 0)["way"]
                                         for each in found["convolutions"]}
        worst.write_text(json.dumps(content))
        hashes = set()
        for name, tuning in (("off", "off"), ("best", path), ("worst", worst)):
            run = tmp_path / f"{isa}-{name}"
            result = train(every_layer, cifar, run, *CUDA, "--isa", isa, "--tuning", tuning)
            assert result["hash"] == hash_of(run / "last.safetensors")
            hashes.add(result["hash"])
        assert len(hashes) == 1
        assert len(found["convolutions"]) > 3


# Wide enough for every family of kernels.
WIDE = """\
name: wide
model:
  name: wide
  input: [8, 8, 1]
  classes: 4
  layers: [{conv: {out: 64, kernel: 3, padding: 1}}, relu, {conv: {out: 64, kernel: 3, padding: 1}}, relu,
           {conv: {out: 64, kernel: 3, padding: 1}}, relu, {maxpool: {kernel: 2}}, flatten, {linear: {out: classes}}]
batch: 16
epochs: 2
loss: softmax
update: {kind: niti, mu: 3}
"""


def test_the_last_batch_may_run_in_another_way(families, odd, tmp_path):
    """A file is for whole batches, and the last one of each epoch is smaller: by the cost model it is another family's."""
    recipe = tmp_path / "wide.yaml"
    recipe.write_text(WIDE)
    hashes = {train(recipe, odd, tmp_path / "cpu", "--backend", "cpu")["hash"]}
    for isa in families:
        path = tmp_path / f"{isa}.json"
        found = json_of("tune", recipe, "--seconds", 1, "--out", path, *CUDA, "--isa", isa)
        content = json.loads(path.read_text())
        content["devices"][0]["ways"] = {each["convolution"]: [way["way"] for way in each["ways"] if way["way"].startswith("mma")][-1]
                                         for each in found["convolutions"]}
        path.write_text(json.dumps(content))
        hashes.add(train(recipe, odd, tmp_path / isa, *CUDA, "--isa", isa, "--tuning", path)["hash"])
    assert len(hashes) == 1
