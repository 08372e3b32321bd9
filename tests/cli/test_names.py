"""Texts and names from elsewhere: byte-order marks, other line ends, and names that are not UTF-8."""
import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import data_sets
from recipes import TOY
from tool import NITI, metadata_of, output_of, train

MARK = b"\xef\xbb\xbf"


def with_blank_lines_and_spaces(text):
    return b"".join(line + b"  \n \n" for line in text.splitlines())


@pytest.mark.parametrize("change", [
    lambda text: MARK + text,
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: MARK + text.replace(b"\n", b"\r\n"),
    with_blank_lines_and_spaces,
    lambda text: text + b"\r\n\r\n",
    lambda text: text.rstrip(b"\n"),
])
def test_recipes_and_models_as_editors_save_them(toy, toy_recipe, trained, tmp_path, change):
    """A recipe with its model inside it, one whose model is a file of its own, and the model by itself."""
    whole, apart, model = (tmp_path / f"{name}.yaml" for name in ("whole", "apart", "model"))
    head, body = TOY.split("model:\n")
    inside, tail = body.split("data:", 1)
    whole.write_bytes(change(TOY.encode()))
    apart.write_bytes(change(f"{head}model: {model}\ndata:{tail}".encode()))
    model.write_bytes(change("".join(line[2:] for line in inside.splitlines(True)).encode()))
    for i, recipe in enumerate((whole, apart)):
        assert train(recipe, toy, tmp_path / f"run{i}")["hash"] == trained[1]["hash"]
    assert output_of("summary", model) == output_of("summary", toy_recipe)


# ---- names of any bytes ----

NAME = b"caf\xe9 \x1b[1m\\x41 \xe2\x82\xac"  # Latin-1, an escape sequence, something like an escape, UTF-8
SHOWN = "caf\\xE9 \\x1B[1m\\x5Cx41 \N{EURO SIGN}"


def bytes_of(text):
    """The name that an escaped text stands for."""
    return re.sub(rb"\\x([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())


def run(*arguments):
    """One run of the tool: standard output and error as bytes."""
    done = subprocess.run([os.fsencode(NITI), *(part if isinstance(part, bytes) else str(part).encode() for part in arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    done.stdout.decode(), done.stderr.decode()  # always UTF-8
    assert b"\x1b" not in done.stdout + done.stderr
    return done


def json_of(*arguments):
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def odd(shared, toy_recipe, toy):
    """A folder, a data set, a recipe, a run and an image, all of this name."""
    folder = os.path.join(os.fsencode(shared), b"odd " + NAME)
    os.mkdir(folder)
    names = {"data": NAME, "recipe": NAME + b".yaml", "run": NAME + b" run", "image": NAME + b".png"}
    paths = {key: os.path.join(folder, name) for key, name in names.items()}
    shutil.copytree(os.fsencode(toy), paths["data"])
    shutil.copy(os.fsencode(toy_recipe), paths["recipe"])
    images, _ = data_sets.squares(1, 3)
    plain = shared / "plain.png"
    data_sets.write_png(plain, images[0])
    shutil.move(os.fsencode(plain), paths["image"])
    done = run("train", paths["recipe"], "--data", paths["data"], "--run", paths["run"], "--threads", "1")
    assert done.returncode == 0, done.stderr
    return paths


def test_such_paths_work_and_are_escaped(odd, trained):
    last = os.path.join(odd["run"], b"last.safetensors")
    result = json_of("hash", last)
    assert result["hash"] == trained[1]["hash"]
    assert SHOWN in result["checkpoint"] and bytes_of(result["checkpoint"]) == last
    images = json_of("predict", last, odd["image"])["predictions"]
    assert bytes_of(images[0]["image"]) == odd["image"]
    assert bytes_of(json_of("data", odd["data"])["path"]) == odd["data"]
    assert SHOWN in run("predict", last, odd["image"]).stdout.decode()
    with open(os.path.join(odd["run"], b"environment.json"), encoding="utf-8") as file:
        assert bytes_of(json.load(file)["data"]["path"]) == os.path.realpath(odd["data"])


def test_messages_escape_names_too(odd):
    done = run("train", odd["recipe"] + b"\n", "--run", odd["run"])
    assert done.returncode == 1 and SHOWN[:10] in done.stderr.decode() and done.stderr.count(b"\n") == 1
    done = run("summary", b"--caf\xe9=1", "lenet5")
    assert done.returncode == 2 and "--caf\\xE9" in done.stderr.decode()


def test_what_turns_a_line_round_is_escaped_where_it_is_shown(odd, tmp_path):
    """Characters that put a line in another order: a name may pretend to end otherwise than it does."""
    done = run("summary", b"--a\xe2\x80\xaeb=1", "lenet5")
    assert done.returncode == 2 and "--a\\xE2\\x80\\xAEb" in done.stderr.decode()
    image = tmp_path / "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe.png"
    shutil.copy(os.fsdecode(odd["image"]), image)
    last = os.path.join(odd["run"], b"last.safetensors")
    shown = run("predict", last, image).stdout.decode()
    assert "\\xE2\\x80\\xAEgnp.exe.png" in shown and "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
    assert json_of("predict", last, image)["predictions"][0]["image"] == str(image)


def test_a_run_finds_its_data_again(odd, tmp_path):
    """The path of the data stands in the checkpoint, escaped, and resuming and evaluating read it from there."""
    last = pathlib.Path(os.fsdecode(odd["run"])) / "last.safetensors"
    metadata = metadata_of(last)
    assert "data" not in metadata and bytes_of(metadata["data.escaped"]) == os.path.realpath(odd["data"])
    assert json_of("train", "--resume", odd["run"], "--threads", "1")["epochs"] == 3
    assert json_of("eval", odd["run"])["images"] == 60


def test_class_names_of_folders(tmp_path, recipe):
    """Folders whose names are not UTF-8 are classes; their names are escaped in checkpoints' metadata and in output."""
    data = os.fsencode(tmp_path / "set")
    for split, count in ((b"train", 8), (b"test", 2)):
        for k, name in enumerate((NAME, b"b")):
            os.makedirs(os.path.join(data, split, name))
            for i in range(count):
                data_sets.write_png(tmp_path / "one.png", np.full((8, 8, 3), 100 * k + i, np.uint8))
                shutil.move(tmp_path / "one.png", os.path.join(data, split, name, b"%d.png" % i))
    small = recipe(("input: [8, 8, 1]", "input: [8, 8, 3]"), ("classes: 4", "classes: 2"), ("batch: 16", "batch: 4"))
    folder = os.fsencode(tmp_path / "run")
    done = run("train", small, "--data", data, "--run", folder, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(bytes_of(name) for name in json_of("data", data)["class_names"]) == sorted([NAME, b"b"])
    top = json_of("predict", os.path.join(folder, b"last.safetensors"), os.path.join(data, b"test", b"b", b"0.png"))
    assert sorted(bytes_of(row["name"]) for row in top["predictions"][0]["top"]) == sorted([NAME, b"b"])
    assert json_of("train", "--resume", folder, "--threads", "1")["epochs"] == 3
