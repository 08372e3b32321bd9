"""What niti measures in a step for TensorBoard, against counts over the oracle's tensors."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from oracle import cases, make_data
from oracle.test_against_niti import run_niti
from oracle.train import train


def share(mask):
    """Percent as TensorBoard stores it."""
    return np.float32(100 * int(mask.sum()) / mask.size)


def measure(case):
    """{tag: percent of each step} by the oracle, and the loss sums and right answers of each step."""
    model, recipe, _ = cases.read_case(case)
    seen, befores = {}, []

    def note(tag, mask):
        seen.setdefault(tag, []).append(share(mask))

    def observe(step, network, gradients, tensors):
        befores.append({key: weights.copy() for key, weights in network.weights.items() if model.nodes[key[0]].kind != "norm"})
        note("saturated_logits/network", np.abs(tensors[-1][0]) == 127)
        for node in model.nodes[1:]:
            out = tensors[node.number][0]
            if node.kind == "relu":
                note(f"dead_relu/{node.name}", (out.reshape(-1, out.shape[-1]) == 0).all(axis=0))
            if node.kind != "norm" and (node.number, 0) in gradients:
                note(f"zero_gradients/{node.name}", gradients[node.number, 0][0] == 0)
                note(f"saturated_input/{node.name}", np.abs(tensors[node.inputs[0]][0]) == 127)

    trained = train(model, *make_data.generate(case)["train"], recipe, observe=observe)
    names = {key: model.nodes[key[0]].name for key in befores[0]}
    afters = befores[1:] + [{key: trained["weights"][f"{name}.weight"] for key, name in names.items()}]
    for before, after in zip(befores, afters):
        for key, name in names.items():
            note(f"changed_weights/{name}", before[key] != after[key])
            note(f"saturated_weight/{name}", np.abs(after[key]) == 127)
    return seen, trained


@pytest.mark.parametrize("case", ["vgg", "resnet", "dropout", "one-image-left", "mlp", "norm-resnet", "sgd-plain", "frozen-relus"])
def test_every_step(case, tmp_path):
    """Also with convolutions and ReLUs that a backend fuses, and with batches of different sizes."""
    expected, trained = measure(case)
    make_data.write(case, str(tmp_path / "data"))
    run_niti("train", cases.recipe_path(case), "--data", tmp_path / "data", "--run", tmp_path / "run", "--measure-every", 1,
             "--threads", 2, "--quiet")
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    steps = list(range(1, trained["steps"] + 1))
    written = set()
    for tag in events.Tags()["scalars"]:
        if tag.split("/")[0] not in {name.split("/")[0] for name in expected}:
            continue
        written.add(tag)
        points = events.Scalars(tag)
        skipped = len(steps) - len(points)
        assert [point.step for point in points] == steps[skipped:], tag
        assert [np.float32(point.value) for point in points] == expected[tag][skipped:], tag
        assert not any(expected[tag][:skipped]) and expected[tag][skipped] > 0, tag  # nothing but zeros is left out
    assert not any(value for tag, values in expected.items() if tag not in written for value in values)
    assert any(tag.startswith("changed_weights/") for tag in written)


def test_steps_between(tmp_path):
    """Loss and accuracy are those of the steps since the last measurement, and begin anew with an epoch."""
    case = "vgg"
    model, recipe, _ = cases.read_case(case)
    data = make_data.generate(case)["train"]
    trained = train(model, *data, recipe)
    make_data.write(case, str(tmp_path / "data"))
    run_niti("train", cases.recipe_path(case), "--data", tmp_path / "data", "--run", tmp_path / "run", "--measure-every", 2, "--quiet")
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    count = len(data[1])
    per_epoch = -(-count // recipe["batch"])
    expected = {}
    for step in range(1, trained["steps"] + 1):
        within = (step - 1) % per_epoch + 1
        if within % 2 == 0:
            images = sum(min(recipe["batch"], count - (at - 1) * recipe["batch"]) for at in (within - 1, within))
            expected[step] = (sum(trained["loss_sums"][step - 2:step]) / 65536 / images * 0.693147,
                              100 * sum(trained["correct"][step - 2:step]) / images)
    assert len(expected) > 2
    for k, tag in enumerate(("loss/train_steps", "accuracy/train_steps")):
        points = events.Scalars(tag)
        assert [point.step for point in points] == list(expected)
        assert [point.value for point in points] == pytest.approx([values[k] for values in expected.values()], rel=1e-5)
