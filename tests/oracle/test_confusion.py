"""Confusion matrices and pictures of misclassified images, against the oracle's answers; the pictures are read by Pillow."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from oracle import arithmetic as a
from oracle import cases, make_data
from oracle.network import Network
from oracle.test_against_niti import last_object, read_safetensors, run_niti
from oracle.train import _context, _input_map, batch_input

CASES = ["lenet", "vgg", "one-image-left", "rows-int8"]
WRONG_MAX = 36
CELL, GAP, TILE = 52, 8, 96


class Answers:
    """What the network of a checkpoint says of the test images, by the oracle."""

    def __init__(self, case, checkpoint):
        model, recipe, _ = cases.read_case(case)
        recipe["data"].setdefault("pad", 0)
        images, labels = make_data.generate(case)["test"]
        tensors = read_safetensors(checkpoint)
        network = Network(model, recipe["seed"])
        for key in network.weights:
            name = model.nodes[key[0]].parameter_name(key[1])
            network.weights[key] = tensors[name].astype(np.int64)
            network.exponents[key] = int(tensors[f"{name}.exponent"].reshape(-1)[0])
        mantissas, exponent = _input_map(recipe)
        self.classes, self.counts = model.classes, np.zeros((model.classes, model.classes), np.int64)
        self.wrong = []  # (loss, label, predicted, image)
        for start in range(0, len(images), recipe["batch"]):
            numbers = range(start, min(start + recipe["batch"], len(images)))
            x = batch_input(images, numbers, model, recipe, mantissas)
            logits, shared = network.forward(x, exponent, _context(recipe, 0, False))[0][-1]
            for row, number in enumerate(numbers):
                label, found = int(labels[number]), int(np.argmax(logits[row]))
                self.counts[label, found] += 1
                if label != found:
                    loss = a.loss_sum(logits[row:row + 1], shared, labels[number:number + 1])
                    height, width, _ = model.input_shape
                    self.wrong.append((loss, label, found, a.window(images[number], height, width, recipe["data"]["pad"], None, False)))
        self.wrong.sort(key=lambda answer: -answer[0])  # stable: of equals the first


@pytest.fixture(scope="module", params=CASES)
def answered(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_data.write(request.param, str(folder / "data"))
    run_niti("train", cases.recipe_path(request.param), "--data", folder / "data", "--run", folder / "run", "--quiet")
    return request.param, folder / "run", Answers(request.param, folder / "run" / "best.safetensors")


def picture_of(data):
    return np.asarray(Image.open(data).convert("RGB"))


def test_table(answered, tmp_path):
    _, run, answers = answered
    result = last_object(run_niti("eval", run, "--confusion", tmp_path / "c.csv", "--per-class", "--json"))
    rows = list(csv.reader(io.StringIO((tmp_path / "c.csv").read_text(encoding="utf-8"))))
    assert [[int(count) for count in row[1:]] for row in rows[1:]] == answers.counts.tolist()
    assert rows[0][1:] == [row[0] for row in rows[1:]] == [entry["name"] for entry in result["per_class"]]
    assert result["correct"] == np.trace(answers.counts)
    for k, entry in enumerate(result["per_class"]):
        images, found, right = answers.counts[k].sum(), answers.counts[:, k].sum(), answers.counts[k, k]
        assert (entry["class"], entry["images"], entry["found"], entry["correct"]) == (k, images, found, right)
        for key, whole in (("recall", images), ("precision", found)):
            assert entry[key] == (pytest.approx(100 * right / whole) if whole else None)
    assert [path.name for path in tmp_path.iterdir()] == ["c.csv"]


def check_matrix(picture, answers):
    """The corner of every cell: white for none, blue for right answers, red for wrong ones, the darker the more."""
    left = picture.shape[1] - 4 - CELL * answers.classes
    assert picture.shape[0] == CELL * (answers.classes + 1) + 4 and left > 0
    for row in range(answers.classes):
        shades = []
        for column in range(answers.classes):
            red, green, blue = map(int, picture[CELL * (row + 1) + 1, left + CELL * column + 1])
            count = answers.counts[row, column]
            assert (blue if row == column else red) == 255
            assert (red if row == column else blue) == green
            assert (green == 255) == (count == 0)
            shades.append((count, -green))
        assert [shade for _, shade in sorted(shades)] == sorted(shade for _, shade in shades)


def test_picture(answered, tmp_path):
    _, run, answers = answered
    run_niti("eval", run, "--confusion", tmp_path / "c.png")
    check_matrix(picture_of(tmp_path / "c.png"), answers)


def test_events(answered):
    """TensorBoard's own reader finds both pictures of the best epoch; the page has the most wrong images first."""
    case, run, answers = answered
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    pictures = {}
    for tag in events.Tags()["images"]:
        last = events.Images(tag)[-1]
        pictures[tag] = picture_of(io.BytesIO(last.encoded_image_string))
        assert pictures[tag].shape == (last.height, last.width, 3)
    check_matrix(pictures["test/confusion"], answers)
    shown = answers.wrong[:WRONG_MAX]
    assert shown or case != "lenet"  # or nothing is tested
    assert ("test/misclassified" in pictures) == (bool(shown) and case != "rows-int8")
    if "test/misclassified" not in pictures:
        return
    page = pictures["test/misclassified"]
    height, width, _ = shown[0][3].shape
    scale = max(1, TILE // max(height, width))
    columns = min(6, len(shown))
    tile_width = max(TILE, width * scale) + GAP
    tile_height = (page.shape[0] - GAP) // -(-len(shown) // columns)
    for number, (_, _, _, image) in enumerate(shown):
        x, y = GAP + number % columns * tile_width, GAP + number // columns * tile_height
        tile = page[y:y + height * scale:scale, x:x + width * scale:scale]
        assert (tile == np.broadcast_to(image, tile.shape)).all(), f"image {number}"
