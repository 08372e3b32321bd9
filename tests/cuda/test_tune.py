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
