"""Image files as people have them: turned, nested, broken, named by number; and the tool's commands on them."""
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

import data_sets
from tool import NITI, fails, forge, json_of, metadata_of, niti, output_of, resume, start_training, stop, train, wait_for, without_progress

NAMES = ["n01", "n02", "n03", "n04"]
COLOUR = ("[8, 8, 1]", "[8, 8, 3]")


@pytest.fixture
def folder(tmp_path):
    """An image folder that the small network learns."""
    return data_sets.write_folder_set(tmp_path / "set", NAMES, data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))


@pytest.fixture(scope="session")
def learned(shared, tmp_path_factory):
    """(checkpoint, folder) of a network that knows four corners, with labels in classes.txt."""
    from recipes import TOY

    data = data_sets.write_folder_set(shared / "corners", NAMES, data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))
    (data / "classes.txt").write_bytes(b"\xef\xbb\xbfn01 top left\r\nn02\ttop right\r\nn03 bottom left\r\nn04 bottom right\r\n")
    recipe = shared / "corners.yaml"
    recipe.write_text(TOY.replace(*COLOUR))
    assert train(recipe, data, shared / "corners-run")["test_accuracy"] == 100
    return shared / "corners-run" / "best.safetensors", data


def corner(label, seed=9):
    """An image [8][8][3] whose bright quarter is the class."""
    return data_sets.squares(4, seed, channels=3)[0][label]


# ---- predict ----

def test_labels_on_screen_are_those_of_classes_txt(learned, tmp_path):
    checkpoint, data = learned
    data_sets.write_png(tmp_path / "a.png", corner(1))
    assert output_of("predict", checkpoint, tmp_path / "a.png", "--top", 1).splitlines()[1].endswith("%  top right")
    facts = json_of("data", data)
    assert facts["class_names"] == NAMES and facts["class_labels"][2] == "bottom left"
    assert "classes    4: top left, top right," in output_of("data", data)


def test_a_bad_image_does_not_lose_the_results_of_the_others(learned, tmp_path):
    checkpoint, _ = learned
    for name, label in (("a.png", 0), ("c.png", 3)):
        data_sets.write_png(tmp_path / name, corner(label))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    paths = [tmp_path / name for name in ("a.png", "b.png", "gone.png", "c.png")]
    done = niti("predict", checkpoint, *paths, "--top", 1)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0::2] == [str(paths[0]), str(paths[3])]
    assert [line.split("%  ")[1] for line in done.stdout.splitlines()[1::2]] == ["top left", "bottom right"]
    errors = done.stderr.splitlines()
    assert [line.startswith(f"niti: {path}: ") for line, path in zip(errors, paths[1:3])] == [True, True] and len(errors) == 2
    done = niti("predict", checkpoint, *paths, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert [one["image"] for one in answer["predictions"]] == [str(paths[0]), str(paths[3])]
    assert [one["image"] for one in answer["failures"]] == [str(paths[1]), str(paths[2])]
    assert answer["failures"][1]["error"] == errors[1].removeprefix("niti: ")


def test_folders_and_standard_input(learned, tmp_path):
    checkpoint, _ = learned
    below = tmp_path / "photos" / "b" / "deep"
    below.mkdir(parents=True)
    data_sets.write_png(below / "x.PNG", corner(2))
    data_sets.write_png(tmp_path / "photos" / "a.png", corner(1))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    done = niti("predict", checkpoint, tmp_path / "photos", "--top", 1)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0::2] == [str(tmp_path / "photos" / "a.png"), str(below / "x.PNG")]
    assert [line.split("%  ")[1] for line in done.stdout.splitlines()[1::2]] == ["top right", "bottom left"]
    assert "1 file of another type (notes.txt)" in done.stderr
    (tmp_path / "empty").mkdir()
    fails("predict", checkpoint, tmp_path / "empty", says=(tmp_path / "empty", "expected at least one"))

    def from_input(content):
        return subprocess.run([NITI, "predict", checkpoint, "-", "--json"], input=content, capture_output=True, check=False)

    done = from_input((below / "x.PNG").read_bytes())
    assert done.returncode == 0
    one = json.loads(done.stdout)["predictions"][0]
    assert (one["image"], one["top"][0]["name"]) == ("standard input", "bottom left")
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run([NITI, "predict", checkpoint, "-"], stdin=endless, capture_output=True, check=False)
    assert done.returncode == 1 and done.stderr == b"niti: standard input: too long, expected at most 268435456 bytes\n"
    done = from_input(b"text")
    assert done.returncode == 1 and done.stderr.startswith(b"niti: standard input: byte 0: neither a JPEG nor a PNG")


def test_names_that_are_not_utf_8(learned, tmp_path):
    checkpoint, _ = learned
    name = os.fsencode(tmp_path) + b"/caf\xe9-\xc3\xa9.png"
    data_sets.write_png(tmp_path / "a.png", corner(1))
    os.rename(tmp_path / "a.png", name)
    done = subprocess.run([NITI, "predict", checkpoint, name, "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["predictions"][0]["image"] == f"{tmp_path}/caf\\xE9-é.png"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_photos_are_seen_as_viewers_show_them(learned, tmp_path, orientation, kind):
    """Pillow turns an image so that, stored with the orientation, it is seen upright."""
    checkpoint, _ = learned
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}
    photo = Image.fromarray(np.kron(corner(1), np.ones((4, 4, 1), np.uint8)))  # top right
    stored = photo.transpose(undo[orientation]) if orientation > 1 else photo
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"photo.{kind}"
    stored.save(path, exif=exif)
    assert json_of("predict", checkpoint, path)["predictions"][0]["top"][0]["name"] == "top right"


# ---- data ----

@pytest.mark.parametrize("what", ["image", "gzip", "idx"])
def test_files_of_a_terabyte_are_refused_at_once(what, folder, recipe, tmp_path):
    """Holes, which take no room on the disk; and what unpacks to a thousand times its size."""
    image = sorted((folder / "train" / "n01").iterdir())[0]
    data, says = folder, "too long, expected at most 1073741824 bytes"
    if what != "idx":
        train(recipe(COLOUR), data, tmp_path / "run")
    if what == "idx":
        data = data_sets.write_idx_set(tmp_path / "idx", data_sets.squares(16, 1), data_sets.squares(16, 2), compressed=True)
        image, says = data / "train-images-idx3-ubyte.gz", "expected the end of the file, after its gzip data"
    if what == "gzip":
        image.write_bytes(gzip.compress(b""))
        says = "gzip data (expected an image)"
    else:
        try:
            os.truncate(image, 1 << 40)
        except OSError as error:
            assert error.errno == errno.EFBIG
            pytest.skip("this file system has no files of that size")
    done = niti("data", data, timeout=20)
    assert done.returncode == 1 and str(image) in done.stdout + done.stderr
    if what != "gzip":
        assert says in done.stdout + done.stderr
    if what != "idx":
        facts = json.loads(niti("data", data, "--json", timeout=20).stdout)
        assert len(facts["bad_files"]) == 1 and facts["test_sha256"] and "train_sha256" not in facts
        shutil.rmtree(data / "test")
        (data / "train").rename(data / "test")
        fails("eval", tmp_path / "run", "--data", data, says=(image.name, says), timeout=20)


def test_every_bad_file_is_listed(folder):
    bad = [folder / "train" / "n03" / "0042.png", folder / "test" / "n01" / "0000.png", folder / "test" / "n04" / "0019.png"]
    for path in bad:
        path.write_bytes(b"")
    done = niti("data", folder)
    assert done.returncode == 1 and without_progress(done.stderr) == f"niti: {folder}: 3 image files cannot be read\n"
    lines = [line for line in done.stdout.splitlines() if line.startswith("bad ")]
    assert [line.split()[1] for line in lines] == [f"{path}:" for path in bad]
    assert all("it is empty" in line for line in lines)
    done = niti("data", folder, "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert [text.split(": ")[0] for text in facts["bad_files"]] == [str(path) for path in bad]
    images = [np.asarray(Image.open(path)) for path in sorted((folder / "train").rglob("*.png")) if path not in bad]
    np.testing.assert_allclose(facts["mean"], np.mean(images, axis=(0, 1, 2)) / 255, atol=1.01e-6)


def test_files_that_cannot_be_opened_are_listed_too(folder):
    fifo, link = folder / "train" / "n03" / "9.png", folder / "train" / "n04" / "9.png"
    os.mkfifo(fifo)  # no writer: opening it must not wait for one
    link.symlink_to("nowhere")
    empty = folder / "test" / "n01" / "0000.png"
    empty.write_bytes(b"")
    done = niti("data", folder, timeout=20)
    assert done.returncode == 1 and without_progress(done.stderr) == f"niti: {folder}: 3 image files cannot be read\n"
    assert all(f"bad        {path}: " in done.stdout for path in (fifo, link, empty)), done.stdout
    facts = json.loads(niti("data", folder, "--json", timeout=20).stdout)
    assert len(facts["bad_files"]) == 3 and facts["test_sha256"] and "train_sha256" not in facts


def test_what_is_not_read_is_counted_and_named(folder):
    nested = folder / "train" / "n01" / "session"
    nested.mkdir()
    data_sets.write_png(nested / "x.png", corner(0))
    (folder / "train" / "n02" / "x.webp").write_bytes(b"RIFF")
    (folder / "train" / "n02" / ".DS_Store").write_bytes(b"")
    facts = json_of("data", folder)
    assert facts["train_images"] == 81
    assert facts["notes"] == [f"{folder}/train: not read: 1 file of another type (n02/x.webp), 1 hidden entry (n02/.DS_Store)"]
    assert f"note       {facts['notes'][0]}" in output_of("data", folder)


def test_a_folder_with_test_images_alone(learned, tmp_path):
    checkpoint, data = learned
    (tmp_path / "alone").mkdir()
    os.symlink(data / "test", tmp_path / "alone" / "test")
    assert json_of("eval", checkpoint, "--data", tmp_path / "alone")["images"] == 20
    assert json_of("data", tmp_path / "alone")["train_images"] == 0
    (tmp_path / "few" / "test").mkdir(parents=True)
    os.symlink(data / "test" / "n03", tmp_path / "few" / "test" / "n03")  # classes are matched by name
    score = json_of("eval", checkpoint, "--data", tmp_path / "few")
    assert (score["images"], score["correct"]) == (5, 5)
    os.rename(tmp_path / "few" / "test" / "n03", tmp_path / "few" / "test" / "other")
    fails("eval", checkpoint, "--data", tmp_path / "few", says=("no class 'other'", "n01, n02, n03, n04"))


# ---- training ----

def test_bad_test_images_are_reported_before_training(folder, recipe, tmp_path):
    path = folder / "test" / "n02" / "0001.png"
    path.write_bytes(b"text")
    fails("train", recipe(COLOUR), "--data", folder, "--run", tmp_path / "run", says=(path, "neither a JPEG nor a PNG"))
    assert not (tmp_path / "run").exists()


def test_bad_images_may_be_left_out(folder, recipe, tmp_path):
    """The run is that of a folder without them."""
    bad = [folder / "train" / "n03" / "0042.png", folder / "test" / "n02" / "0001.png"]
    good = [path.read_bytes() for path in bad]
    for path in bad:
        path.write_bytes(b"")
    skip = ("--set", "data.bad_files=skip")
    done = niti("train", recipe(COLOUR), "--data", folder, "--run", tmp_path / "run", "--threads", 1, "--json", *skip)
    assert done.returncode == 0, done.stderr
    for split, path in zip(("train", "test"), bad):
        assert f"niti: {folder}/{split}: 1 image left out, being bad: {path}: " in done.stderr
    skipped = json.loads(done.stdout.splitlines()[-1])
    score = json_of("eval", tmp_path / "run" / "last.safetensors", "--data", folder)
    assert score["images"] == 19
    for path in bad:
        path.unlink()
    assert train(recipe(COLOUR), folder, tmp_path / "without")["hash"] == skipped["hash"]
    for path, content in zip(bad, good):
        path.write_bytes(content)
    assert train(recipe(COLOUR), folder, tmp_path / "whole")["hash"] != skipped["hash"]


def damage(path, content):
    """A JPEG or PNG in the ways that a glance must see: cut short, empty, another type, a header that is none, a chunk that changed."""
    for damaged in (content[:len(content) // 2], content[:len(content) - 6], b"", b"GIF89a" + content[6:], content[:20] + b"\0" * 20,
                    content[:-30] + bytes([content[-30] ^ 1]) + content[-29:] if path.suffix == ".png" else content[:-2]):
        path.write_bytes(damaged)
        yield


def test_bad_training_images_are_found_before_training(folder, recipe, tmp_path):
    """With mean and std given no image has to be decoded before the first step; files that are not whole are found all the same."""
    path = recipe(COLOUR, ("mean: auto, std: auto", "mean: [0.5, 0.5, 0.5], std: [1, 1, 1]"))
    jpeg = folder / "train" / "n04" / "photo.jpg"
    Image.fromarray(corner(3).repeat(4, 0).repeat(4, 1)).save(jpeg)
    assert niti("train", path, "--data", folder, "--run", tmp_path / "good", "--threads", 1).returncode == 0
    for image in (jpeg, folder / "train" / "n02" / "0001.png"):
        content = image.read_bytes()
        for number, _ in enumerate(damage(image, content)):
            if image == jpeg and number == 5:
                continue  # no end marker, but every pixel
            done = niti("train", path, "--data", folder, "--run", tmp_path / "run", "--threads", 1)
            assert done.returncode == 1 and str(image) in done.stderr and "epoch" not in done.stdout.replace("epochs", ""), number
            assert not (tmp_path / "run").exists()
        image.write_bytes(content)
    content = jpeg.read_bytes()
    for more in (content[:-2], content + b"\0" * 40):  # what every decoder shows is good
        jpeg.write_bytes(more)
        assert niti("train", path, "--data", folder, "--run", tmp_path / f"run{len(more)}", "--threads", 1).returncode == 0


def test_bad_images_to_be_held_out_are_found_before_training(folder, recipe, tmp_path):
    image = folder / "train" / "n02" / "0001.png"
    image.write_bytes(image.read_bytes()[:-20])
    done = niti("train", recipe(COLOUR), "--data", folder, "--run", tmp_path / "run", "--threads", 1, "--set", "data.validation=50%")
    assert done.returncode == 1 and str(image) in done.stderr and not (tmp_path / "run").exists()


def test_the_hash_of_cifar_is_that_of_its_files(cifar):
    content = {split: b"".join(path.read_bytes() for path in sorted(cifar.glob(f"{split}*.bin"))) for split in ("data", "test")}
    facts = json_of("data", cifar)
    assert facts["train_sha256"] == hashlib.sha256(content["data"]).hexdigest()
    assert facts["test_sha256"] == hashlib.sha256(content["test"]).hexdigest()


def test_test_images_may_go_while_a_run_rests(folder, recipe, tmp_path):
    """They decide no weight."""
    run, path = tmp_path / "run", recipe(COLOUR, ("epochs: 3", "epochs: 60"))
    whole = train(path, folder, tmp_path / "whole")
    process = start_training(path, "--data", folder, "--run", run)
    wait_for(run / "best.safetensors", process)
    stop(process)
    (folder / "test" / "n02" / "0001.png").unlink()
    done = niti("train", "--resume", run, "--threads", 1, "--json")
    assert done.returncode == 0 and "have changed" in done.stderr, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["hash"] == whole["hash"]
    last = run / "last.safetensors"
    forge(last, lambda metadata, _: metadata.update(best_images=str(int(metadata["test_set_images"]) + 1)))  # the best epoch was scored on all
    assert resume(run)["hash"] == whole["hash"]


def test_test_images_that_come_back(folder, recipe, tmp_path):
    """The run goes on to be that of all of them: they are accepted without a word, and fewer are told of each time."""
    run, gone = tmp_path / "run", [folder / "test" / "n02" / "0001.png", folder / "test" / "n02" / "0005.png"]
    train(recipe(COLOUR), folder, run, "--epochs", 1)
    keys = [f"test_set_{what}" for what in ("images", "sha256", "names_sha256")]
    last, content = run / "last.safetensors", [path.read_bytes() for path in gone]
    began, facts = {key: metadata_of(last)[key] for key in keys}, json_of("data", folder)
    for epochs, missing in ((2, 1), (3, 2), (4, 0), (5, 1), (6, 0)):
        for number, path in enumerate(gone):
            path.write_bytes(content[number])
            if number < missing:
                path.unlink()
        done = niti("train", "--resume", run, "--threads", 1, "--epochs", epochs, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        now = json_of("data", folder)
        assert {key: metadata_of(last)[key] for key in keys} == began and result["data"]["test"]["images"] == result["testing"]["of"] == 20 - missing
        assert result["data"]["test"]["sha256"] == now["test_sha256"] and (now == facts) == (missing == 0)
        assert metadata_of(last)["test_images"] == str(20 - missing)
        said = f"({20 - missing} test images, where it began with 20)"
        assert len(result["warnings"]) == (missing > 0) and all(said in text for text in result["warnings"]), result["warnings"]
        assert json_of("eval", last)["data"]["of_run"] == (missing == 0)
    for path in gone:
        path.unlink()
    assert json_of("eval", last, "--data", folder)["data"]["of_run"] is False
    (folder / "test" / "n03" / "more.png").write_bytes(content[0])
    (folder / "test" / "n03" / "most.png").write_bytes(content[1])
    fails("train", "--resume", run, says=(folder, "not the files that the run began with"))


def test_test_images_of_a_run_with_validation_that_come_back(folder, recipe, tmp_path):
    """All of them, too: it needs none but at its end."""
    run, away = tmp_path / "run", tmp_path / "away"
    train(recipe(COLOUR), folder, run, "--epochs", 1, "--set", "data.validation=20%")
    (folder / "test").rename(away)
    done = niti("train", "--resume", run, "--threads", 1, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert "(0 test images, where it began with 20)" in result["warnings"][0] and result["test_accuracy"] is None and "test" not in result["data"]
    away.rename(folder / "test")
    result = resume(run, "--epochs", 3)
    assert not result["warnings"] and result["data"]["test"]["images"] == 20 and result["test_accuracy"] is not None


def test_a_best_that_a_crash_left_behind_changed_images(folder, recipe, tmp_path):
    """It is of an earlier epoch, and of other training images, as a run may go on with in an image folder."""
    for seed in range(1, 20):  # until one improves after the first epoch
        best_epoch = train(recipe(COLOUR), folder, tmp_path / f"long{seed}", "--epochs", 6, "--seed", seed)["best_epoch"]
        if best_epoch > 1:
            break
    assert best_epoch > 1
    run = tmp_path / "run"
    train(recipe(COLOUR), folder, run, "--epochs", best_epoch, "--save-every", 1, "--seed", seed)
    best = run / "best.safetensors"
    expected = best.read_bytes()
    shutil.copy(run / "epoch-0001.safetensors", best)
    forge(best, lambda metadata, _: metadata.update(train_set_sha256="0" * 64))
    done = niti("train", "--resume", run, "--threads", 1)
    assert done.returncode == 0 and "best.safetensors made of last.safetensors" in done.stderr and best.read_bytes() == expected, done.stderr


def test_a_class_without_test_images(folder, recipe, tmp_path):
    for path in (folder / "test" / "n02").iterdir():
        path.unlink()
    for run in ("empty", "none"):
        done = niti("train", recipe(COLOUR), "--data", folder, "--run", tmp_path / run, "--threads", 1)
        assert done.returncode == 0 and f"{folder}/test: no test images of 1 of 4 classes: n02" in done.stderr, done.stderr
        if run == "empty":
            (folder / "test" / "n02").rmdir()


def test_training_images_held_out(toy_recipe, toy, tmp_path):
    """A percentage, a decimal and a number are the same images; without them the run is another."""
    runs = {value: train(toy_recipe, toy, tmp_path / value, "--set", f"data.validation={value}") for value in ("10%", "0.1", "16")}
    assert len({run["hash"] for run in runs.values()}) == 1
    assert runs["16"]["steps"] == 3 * 9  # 144 images in batches of 16
    assert train(toy_recipe, toy, tmp_path / "whole")["hash"] != runs["16"]["hash"]
    fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "none", "--set", "data.validation=160",
          says=(toy, "data.validation is 160 of 160"))


# ---- while images are read ----

@pytest.fixture
def slow(tmp_path):
    """A folder that takes seconds to read: links to one large image."""
    folder = tmp_path / "slow"
    for split, count in (("train", 60), ("test", 1)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                path = folder / split / name / f"{i}.png"
                if path == folder / "train" / "a" / "0.png":
                    data_sets.write_png(path, np.random.default_rng(1).integers(0, 256, (2000, 2000, 3)).astype(np.uint8))
                else:
                    os.link(folder / "train" / "a" / "0.png", path)
    return folder


PIXELS = ("mean: auto, std: auto", "mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]")


@pytest.mark.parametrize("statistics", [True, False])
def test_ctrl_c_while_images_are_read(slow, recipe, tmp_path, statistics):
    """Before the first step there is nothing to save; by then the run has said what it is doing."""
    path = recipe(COLOUR, ("classes: 4", "classes: 2"), *(() if statistics else (PIXELS,)))
    process = start_training(path, "--data", slow, "--run", tmp_path / "run")
    lines = []
    while not any(" images" in line or " files" in line for line in lines[-1:]):
        lines.append(process.stderr.readline())
        assert lines[-1], "the run has ended"
    code, _, err = stop(process, signal.SIGINT)
    assert code == 130 and "nothing was trained or written" in err
    done, total = re.search(r"interrupted while .*: (\d+) of (\d+) done", err).groups()
    assert int(done) < int(total)  # it did not wait for the end
    assert not (tmp_path / "run").exists()


def test_names_of_any_bytes_in_notes_and_bad_files(folder):
    """Escaped, and never dropped."""
    below = os.fsencode(folder) + b"/test/n01/"
    for name in (b"caf\xe9.txt", b"caf\xe9.png"):
        with open(below + name, "wb"):
            pass
    done = niti("data", folder, "--json")
    facts = json.loads(done.stdout)
    assert facts["notes"] == [f"{folder}/test: not read: 1 file of another type (n01/caf\\xE9.txt)"]
    assert [text.split(": ")[0] for text in facts["bad_files"]] == [f"{folder}/test/n01/caf\\xE9.png"]
    lines = niti("data", folder).stdout
    assert "caf\\xE9.png: byte 0" in lines and "caf\\xE9.txt" in lines
