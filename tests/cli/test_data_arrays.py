"""Data beyond pictures: arrays and tables, trained, scored, resumed, refused."""
import json
import shutil

import numpy as np
import pytest

import sensor_windows
from tool import fails, json_of, niti, output_of, train


@pytest.fixture
def sensors(tmp_path):
    return sensor_windows.write(tmp_path / "sensors")


def test_the_example_learns(sensors, tmp_path):
    """The built-in recipe on windows of three sensors: nine of ten are told apart, where chance is a quarter."""
    result = train("sensor-windows", sensors, tmp_path / "run")
    assert result["test_accuracy"] > 90
    checkpoint = tmp_path / "run" / "last.safetensors"
    assert json_of("eval", checkpoint, "--data", sensors)["test_accuracy"] == result["test_accuracy"]
    assert json_of("hash", checkpoint)["hash"] == result["hash"]
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "type: int16" in recipe
    assert train(tmp_path / "run" / "recipe.yaml", sensors, tmp_path / "again")["hash"] == result["hash"]
    whole = json_of("train", "sensor-windows", "--data", sensors, "--run", tmp_path / "three", "--threads", 3)
    assert whole["hash"] == result["hash"]
    sensors.joinpath("x.png").write_bytes(b"")
    fails("predict", checkpoint, sensors / "x.png", says=(checkpoint, "int16, not images"))


def test_what_data_says_of_arrays(sensors):
    facts = json_of("data", sensors)
    assert (facts["kind"], facts["type"], facts["shape"], facts["classes"]) == ("npy", "int16", [1, 64, 3], 4)
    assert (facts["train_images"], facts["test_images"], facts["validation_images"]) == (400, 120, 0)
    assert facts["class_names"] == sensor_windows.CLASSES
    x = np.load(sensors / "train_x.npy").astype(np.float64) / 32768
    np.testing.assert_allclose(facts["mean"], x.mean(axis=(0, 1)), atol=1.01e-6)
    np.testing.assert_allclose(facts["std"], x.std(axis=(0, 1)), atol=1.01e-6)
    assert "npy (int16)" in output_of("data", sensors)


def test_only_cutout_changes_arrays(sensors, tmp_path):
    """Whether the recipe has the type or the data set brings it."""
    for key, what in (("data.brightness=0.2", "colour jitter"), ("data.contrast=0.2", "colour jitter"), ("data.crop=resized", "crop: resized")):
        fails("train", "sensor-windows", "--data", sensors, "--run", tmp_path / "no", "--set", key, says=(what, "int16"))
        fails("train", "sensor-windows", "--data", sensors, "--run", tmp_path / "no", "--set", "data.pad=0", "--set", "data.type=int16", "--set", key, says=("images", "int16"))
    fails("train", "sensor-windows", "--data", sensors, "--run", tmp_path / "no", "--set", "data.cutout=65", says=("65", "1x64"))
    assert not (tmp_path / "no").exists()
    plain, cut = (train("sensor-windows", sensors, tmp_path / name, "--epochs", 1, *options)["hash"]
                  for name, options in (("plain", ()), ("cut", ("--set", "data.cutout=20"))))
    assert plain != cut


def test_other_types_and_sizes_than_the_networks(sensors, tmp_path):
    train("sensor-windows", sensors, tmp_path / "run", "--epochs", 1)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(sensors / "classes.txt", other)
    for path in sensors.glob("*.npy"):
        array = np.load(path)
        np.save(other / path.name, (array // 16).astype(np.int8) if path.stem.endswith("x") else array)
    for command in (("eval", tmp_path / "run" / "last.safetensors", "--data", other),
                    ("train", "sensor-windows", "--data", other, "--run", tmp_path / "no", "--set", "data.type=int16")):
        fails(*command, says=(other, "values of int8, but the network takes int16"))
    assert not (tmp_path / "no").exists()
    fails("train", "--resume", tmp_path / "run", "--data", other, says=other)
    for path in other.glob("*_x.npy"):
        np.save(path, np.load(sensors / path.name)[:, :, :2])
    fails("train", "sensor-windows", "--data", other, "--run", tmp_path / "no", says=(other, "1x64x2", "1x64x3"))


ROWS = """\
name: rows
model: {name: rows, input: [1, 1, 5], classes: 2, layers: [{linear: {out: 12}}, relu, {linear: {out: classes}}]}
batch: 8
epochs: 6
loss: softmax
"""


def test_a_table_of_whole_numbers(recipe, tmp_path):
    """The same numbers as .csv and as .npy are the same run; a fraction is refused with its place."""
    random = np.random.default_rng(3)
    tables, arrays = tmp_path / "csv", tmp_path / "npy"
    for folder in (tables, arrays):
        folder.mkdir()
    for split, count in (("train", 60), ("test", 20)):
        y = np.arange(count) % 2
        x = (random.normal(0, 900, (count, 5)) + 2000 * y[:, None] * np.array([1, -1, 0, 0, 1])).astype(np.int16)
        np.save(arrays / f"{split}_x.npy", x)
        np.save(arrays / f"{split}_y.npy", y)
        np.savetxt(tables / f"{split}_x.csv", x, fmt="%d", delimiter=",", header="a,b,c,d,e", comments="")
        np.savetxt(tables / f"{split}_y.csv", y, fmt="%d")
    result = train(recipe(ROWS), tables, tmp_path / "run")
    assert result["test_accuracy"] > 70
    assert train(recipe(ROWS), arrays, tmp_path / "arrays")["hash"] == result["hash"]
    path = tables / "train_x.csv"
    path.write_text(path.read_text() + "1,2,3.5,4,5\n")
    fails("data", tables, says=(path, "line 62, column 3: '3.5'"))


def test_broken_arrays_are_reported(sensors, tmp_path):
    path = sensors / "test_x.npy"
    array = np.load(path)
    broken = {"float": (array.astype(np.float32), "floating point"), "big": (array.astype(">i2"), "big-endian"),
              "fortran": (np.asfortranarray(array), "Fortran order"), "object": (array.astype(object), "Python objects"),
              "wide": (array.astype(np.int32), "int32, expected uint8, int8 or int16")}
    for other, says in broken.values():
        np.save(path, other)
        fails("train", "sensor-windows", "--data", sensors, "--run", tmp_path / "run", says=(path, says))
    np.save(path, array)
    path.write_bytes(path.read_bytes()[:-2])
    done = niti("data", sensors, "--json")
    assert done.returncode == 1 and "the file ends here" in done.stderr and json.loads(done.stdout)["exit_code"] == 1
    np.savez(sensors / "all.npz", x=array)
    for each in sensors.glob("*.npy"):
        each.unlink()
    fails("data", sensors, says=(sensors, ".npz", "numpy.save"))
