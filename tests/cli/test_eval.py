"""niti eval: classes by name and number, notes of the data, and what is written about the classes."""
import csv
import shutil

import numpy as np
import pytest

import data_sets
from tool import fails, forge, json_of, metadata_of, misused, niti, output_of, train

NAMES = "ant bee cat dog"


def set_of(folder, names=None):
    """The small set; names: what stands in classes.txt."""
    data_sets.write_idx_set(folder, data_sets.squares(160, 1), data_sets.squares(60, 2))
    if names:
        (folder / "classes.txt").write_text("\n".join(names.split()) + "\n")
    return folder


@pytest.fixture(scope="module")
def named(shared, toy_recipe):
    """(run, result) on the set with names."""
    data = set_of(shared / "named", NAMES)
    return shared / "named-run", train(toy_recipe, data, shared / "named-run")


def test_numbers_are_no_names(named, trained, tmp_path):
    """A copy without names, or with names that the run's data had not, is scored by number; other names are refused."""
    with_names, without = set_of(tmp_path / "with", NAMES), set_of(tmp_path / "without")
    for run, result in (named, trained):
        for data in (with_names, without):
            assert json_of("eval", f"{run}:last", "--data", data)["test_accuracy"] == result["test_accuracy"]
    assert metadata_of(named[0] / "last.safetensors")["classes"].split() == NAMES.split()
    assert "classes" not in metadata_of(trained[0] / "last.safetensors")
    other = set_of(tmp_path / "other", "ant bee cat wasp")
    fails("eval", named[0], "--data", other, says=(other, "wasp"))
    # names in another order: the labels follow them
    images, labels = data_sets.squares(60, 2)
    order = [2, 0, 3, 1]
    turned = tmp_path / "turned"
    data_sets.write_idx_set(turned, data_sets.squares(160, 1), (images, np.argsort(order)[labels]))
    (turned / "classes.txt").write_text("".join(NAMES.split()[k] + "\n" for k in order))
    assert json_of("eval", f"{named[0]}:last", "--data", turned)["test_accuracy"] == named[1]["test_accuracy"]


@pytest.mark.parametrize("key", ("classes", "class_labels"))
@pytest.mark.parametrize("names, says", [
    ("a\nb\nc\n", " has 3 names (expected 4"), ("a\nb\nc\nd\ne\n", " has 5 names (expected 4"), ("", " has 0 names"), ("a\n\nc\nd\n", ": the name of class 1 is empty"),
    ("a\nb\nc\nd", ": the name of class 3 does not end in a newline"),
])
def test_names_that_are_not_the_networks(key, names, says, named, tmp_path):
    """As of a stranger's file, with hash and checksum right."""
    last = tmp_path / "last.safetensors"
    shutil.copy(named[0] / "last.safetensors", last)
    forge(last, lambda metadata, _: metadata.update({"class_labels": "w\nx\ny\nz\n", key: names}))
    for command in (["eval", last], ["predict", last, "x.png"]):
        fails(*command, says=(last, f"'{key}'{says}", "expected 4"))


def test_folders_named_by_numbers(trained, tmp_path):
    """Some of the numbers are enough, and it is the number that counts, not the place."""
    run, _ = trained
    images, labels = data_sets.squares(60, 2)
    for name, wanted in (("all", "0123"), ("some", "31")):
        for digit in wanted:
            (tmp_path / name / "test" / digit).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels)):
            if str(label) in wanted:
                data_sets.write_png(tmp_path / name / "test" / str(label) / f"{number:02}.png", image)
        result = json_of("eval", run, "--data", tmp_path / name, "--per-class")
        counts = {str(entry["class"]): entry["images"] for entry in result["per_class"]}
        assert counts == {digit: int((labels == int(digit)).sum()) if digit in wanted else 0 for digit in "0123"}
        assert result["test_accuracy"] > 50
    shutil.move(tmp_path / "all" / "test" / "3", tmp_path / "all" / "test" / "7")
    fails("eval", run, "--data", tmp_path / "all", says="no class '7'")
    shutil.move(tmp_path / "all" / "test" / "7", tmp_path / "all" / "test" / "x")
    assert json_of("eval", run, "--data", tmp_path / "all")["images"] == 60  # a name that is no number: all by place
    shutil.rmtree(tmp_path / "all" / "test" / "0")
    fails("eval", run, "--data", tmp_path / "all", says=("3 classes", "4"))


def test_notes_of_the_data(trained, tmp_path):
    run, _ = trained
    images, labels = data_sets.squares(60, 2)
    for number, (image, label) in enumerate(zip(images, labels)):
        (tmp_path / "test" / str(label)).mkdir(parents=True, exist_ok=True)
        data_sets.write_png(tmp_path / "test" / str(label) / f"{number}.png", image)
    (tmp_path / "test" / "1" / "notes.txt").write_text("mine")
    done = niti("eval", run, "--data", tmp_path)
    assert done.returncode == 0 and "notes.txt" in done.stderr and "60)" in done.stdout


def test_per_class(named):
    out = output_of("eval", named[0], "--per-class")
    table = [line for line in out.splitlines() if any(name in line for name in NAMES.split())]
    entries = json_of("eval", named[0], "--per-class")["per_class"]
    assert len(table) == 4
    for line, entry in zip(table, entries):
        words = line.split()
        assert [int(words[0]), int(words[1])] == [entry["images"], entry["correct"]]
        assert float(words[2]) == pytest.approx(entry["recall"], abs=0.006)
        assert words[6].rstrip(":") == entry["name"]
    assert "per_class" not in json_of("eval", named[0])


def test_names_of_any_kind_in_the_table(trained, toy_recipe, tmp_path):
    data = set_of(tmp_path / "data", NAMES)
    (data / "classes.txt").write_bytes(b'a,b\nsaid "x"\ncaf\xe9\n\xe2\x82\xac\n')
    train(toy_recipe, data, tmp_path / "run", "--max-steps", 1)
    assert "60" in output_of("eval", tmp_path / "run", "--confusion", tmp_path / "c.csv")
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true class", "a,b", 'said "x"', "caf\\xE9", "\N{EURO SIGN}"] and [row[0] for row in rows] == rows[0]
    assert output_of("eval", tmp_path / "run", "--confusion", tmp_path / "c.png")
    for name in ("c.csv", "c.png"):
        assert output_of("eval", tmp_path / "run", "--confusion", tmp_path / name.upper())
        assert (tmp_path / name.upper()).read_bytes() == (tmp_path / name).read_bytes()
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_files_that_cannot_be_written(trained, tmp_path):
    run, _ = trained
    misused("eval", run, "--confusion", tmp_path / "c.txt", says=".csv nor in .png")
    misused("eval", run, "--confusion", ".csv", says=".csv nor in .png")
    fails("eval", run, "--confusion", tmp_path / "none" / "c.csv", says=(tmp_path / "none" / "c.csv", "No such file"))
    (tmp_path / "c.csv").write_text("mine")
    fails("eval", run, "--data", tmp_path / "nothing", "--confusion", tmp_path / "c.csv", says="nothing")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("c.csv", "mine")]


def test_too_many_classes(recipe, tmp_path):
    many = recipe(("  classes: 4", "  classes: 3000"))
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(16, 1), data_sets.squares(16, 2))
    (data / "classes.txt").unlink(missing_ok=True)
    model = tmp_path / "model.yaml"
    model.write_text(many.read_text())
    for option in ("--per-class",), ("--confusion", tmp_path / "c.csv"):
        done = niti("eval", model, "--data", data, *option)
        assert done.returncode == 1 and "3000 classes are too many" in done.stderr
    assert not (tmp_path / "c.csv").exists() and not (tmp_path / "c.csv.tmp").exists()
