"""niti tune: the file it writes chooses kernels and changes no bit; one that cannot be used is left out with a note."""
import json
import os
import subprocess

import pytest

import tool
from tool import NITI, fails, json_of, misused, niti, output_of, rows_of, timeless, train

DEVICE = ("--threads", 2)


@pytest.fixture(scope="module")
def tuned(shared, every_layer):
    """(the file, what niti tune found)."""
    path = shared / "tuning.json"
    return path, json_of("tune", every_layer, "--seconds", 1, "--out", path, *DEVICE)


def slowest(found):
    """A file's ways, each the slowest that was measured."""
    worst = lambda ways: max(ways, key=lambda way: way["milliseconds"] or 0)["way"]
    return {each["convolution"]: worst(each["ways"]) for each in found["convolutions"]}


def rewritten(path, to, ways):
    content = json.loads(path.read_text())
    content["devices"][0]["ways"] = ways
    to.write_text(json.dumps(content))
    return to


def test_the_file_has_every_convolution_once(tuned):
    path, found = tuned
    content = json.loads(path.read_text())
    device, = content["devices"]
    assert (content["format"], content["version"], device["threads"]) == ("niti tuning", 1, 2)
    assert device["ways"] == {each["convolution"]: each["chosen"] for each in found["convolutions"]}
    for each in found["convolutions"]:
        names = [way["way"] for way in each["ways"]]
        assert each["model"] == names[0] and each["chosen"] in names and len(set(names)) == len(names)
    assert found["step_milliseconds"]["model"] > 0 and found["step_milliseconds"]["tuned"] > 0


def test_no_file_changes_a_bit(tuned, every_layer, cifar, tmp_path):
    path, found = tuned
    worst = rewritten(path, tmp_path / "worst.json", slowest(found))
    count = len(found["convolutions"])
    results = []
    for name, tuning in (("off", "off"), ("best", path), ("worst", worst)):
        run = tmp_path / name
        prose = niti("train", every_layer, "--data", cifar, "--run", run, "--tuning", tuning, *DEVICE)
        assert prose.returncode == 0, prose.stderr
        assert (f"convolutions as measured in {tuning}\n" in prose.stdout) == (name != "off")
        results.append((tool.hash_of(run / "last.safetensors"), timeless(rows_of(run))))
    assert results[0] == results[1] == results[2] and count > 3


def test_commands_say_what_they_use(tuned, every_layer, trained, toy, cifar, tmp_path):
    path, found = tuned
    count = len(found["convolutions"])
    assert json_of("info", "--tuning", path, *DEVICE)["tuning"] == {"path": str(path), "convolutions": count, "note": None}
    assert f"tuning     {count} convolutions of this device in {path}\n" in output_of("info", "--tuning", path, *DEVICE)
    assert json_of("info", "--tuning", "off")["tuning"] is None
    text = f"as measured in {path}"
    assert text in json_of("train", every_layer, "--data", cifar, "--run", tmp_path / "run", "--dry-run", "--tuning", path, *DEVICE)["tuning"]
    run, _ = trained
    plain = json_of("eval", run / "last.safetensors", "--data", toy, *DEVICE)
    score = json_of("eval", run / "last.safetensors", "--data", toy, "--tuning", path, *DEVICE)
    assert text in score.pop("tuning") and plain.pop("tuning") is None and score == plain
    step = ("bench", "step", "--model", "lenet5", "--batch", 1, "--seconds", 1)
    assert text in json_of(*step, "--tuning", path, *DEVICE)["tuning"]
    assert json_of(*step, "--tuning", path, "--algorithm", "direct", *DEVICE)["tuning"] is None


@pytest.mark.parametrize("content, says", [("", "not JSON"), ("{]", ":1: not JSON"), ("{}", "not a tuning file"),
                                           ('{"format": "niti tuning", "version": 9, "devices": []}', "version 9 (expected 1)"),
                                           ('{"format": "niti tuning", "version": 1, "devices": []}', "nothing for this device"),
                                           (None, "cannot open")])
def test_a_file_that_cannot_be_used_is_a_note(content, says, trained, toy, toy_recipe, tmp_path):
    run, result = trained
    path = tmp_path / "tuning.json"
    if content is not None:
        path.write_text(content)
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--tuning", path, "--json", *DEVICE)
    assert done.returncode == 0 and json.loads(done.stdout)["hash"] == result["hash"]
    note, = [line for line in done.stderr.splitlines() if str(path) in line]
    assert note.startswith("niti: ") and says in note
    # A file that is damaged, or that is not where it was said to be, is worth a warning: that one is sound.
    damaged = says != "nothing for this device"
    assert json.loads(done.stdout)["warnings"] == ([note.removeprefix("niti: ")] if damaged else [])
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "quiet", "--tuning", path, "--quiet", "--max-steps", 1, *DEVICE)
    assert done.returncode == 0 and (says in done.stderr) == damaged
    done = niti("eval", run / "last.safetensors", "--data", toy, "--tuning", path)
    assert done.returncode == 0 and says in done.stderr
    done = niti("bench", "step", "--model", "lenet5", "--batch", 1, "--seconds", 1, "--tuning", path)
    assert done.returncode == 0 and says in done.stderr
    assert says in json_of("info", "--tuning", path)["tuning"]["note"]


def test_another_build_is_stale(tuned, tmp_path):
    path, _ = tuned
    content = json.loads(path.read_text())
    content["devices"][0]["build"] = "0"
    stale = tmp_path / "stale.json"
    stale.write_text(json.dumps(content))
    assert "another build of niti" in json_of("info", "--tuning", stale, *DEVICE)["tuning"]["note"]


def test_the_users_own_file(tmp_path):
    """Where XDG says, made with its folders, and found again; an empty or relative XDG_CACHE_HOME does not count."""
    step = ("bench", "step", "--model", "lenet5", "--batch", 2, "--seconds", 1, *DEVICE)
    for variables, file in (({"XDG_CACHE_HOME": str(tmp_path / "cache")}, tmp_path / "cache/niti/tuning.json"),
                            ({"XDG_CACHE_HOME": "relative", "HOME": str(tmp_path / "home")}, tmp_path / "home/.cache/niti/tuning.json")):
        env = {**os.environ, **variables}
        assert json_of(*step, env=env)["tuning"] is None
        assert json_of("tune", "--model", "lenet5", "--batch", 2, "--seconds", 1, *DEVICE, env=env)["path"] == str(file)
        assert str(file) in json_of(*step, env=env)["tuning"] and json_of(*step, "--tuning", "off", env=env)["tuning"] is None
    nowhere = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    assert niti("tune", "--model", "lenet5", env=nowhere).returncode == 2
    assert json_of("info", env=nowhere)["tuning"] is None


def test_two_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "tuning.json"
    start = lambda batch: subprocess.Popen([NITI, "tune", "--model", "lenet5", "--batch", str(batch), "--seconds", "1", "--out", path],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for process in [start(batch) for batch in (1, 2)]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    device, = json.loads(path.read_text())["devices"]
    batches = {name.split()[1].split("x")[0] for name in device["ways"]}
    assert batches == {"1", "2"} and len(device["ways"]) == 22  # lenet5 has 11 convolutions of each


def test_bad_input(tmp_path):
    misused("tune", says="either a recipe or --model")
    misused("tune", "lenet5-mnist", "--model", "lenet5", says="either a recipe or --model")
    misused("tune", "lenet5-mnist", "mlp-mnist", says="one recipe at a time")
    misused("tune", "lenet5-mnist", "--batch", 0, says="--batch")
    misused("tune", "lenet5-mnist", "--seconds", 0, says="--seconds")
    fails("tune", "no-such-recipe", "--out", tmp_path / "t.json", says="no-such-recipe")
    fails("tune", "--model", "no-such-model", "--out", tmp_path / "t.json", says="no-such-model")
    fails("tune", "--model", "lenet5", "--out", tmp_path / "no" / "t.json", says=str(tmp_path / "no"))
    fails("tune", "--model", "lenet5", "--isa", "abacus", "--out", tmp_path / "t.json", says="abacus")
    assert list(tmp_path.iterdir()) == []
