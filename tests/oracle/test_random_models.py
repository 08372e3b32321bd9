"""Trains random small models with niti and with the oracle and compares them bit for bit, as test_against_niti.py the cases."""

import math

import pytest
import yaml

from oracle import make_data
from oracle.model import read_model
from oracle.random_models import niti16_case, pointwise_case, random_case, sgd_case
from oracle.test_against_niti import ISAS, THREADS, check_metrics, check_weights, last_object, run_niti
from oracle.test_against_niti import available_isas  # noqa: F401, a fixture
from oracle.train import evaluate, hash_checkpoint, train

SEEDS = range(40)
SGD_SEEDS = range(100, 120)
NITI16_SEEDS = range(200, 212)
# (height, width, channels, batch) of 1x1 convolutions whose workspace was once too small: the kernels take every pixel of a batch
# as an image of its own there, and the workspace was measured for whole images.
POINTWISE = [(11, 11, 1, 16), (12, 11, 3, 16), (13, 10, 1, 17)]
CASES = [pytest.param((random_case, (seed,)), id=f"seed-{seed}") for seed in SEEDS]
CASES += [pytest.param((sgd_case, (seed,)), id=f"sgd-seed-{seed}") for seed in SGD_SEEDS]
CASES += [pytest.param((niti16_case, (seed,)), id=f"niti16-seed-{seed}") for seed in NITI16_SEEDS]
CASES += [pytest.param((pointwise_case, sizes), id="pointwise-" + "x".join(map(str, sizes))) for sizes in POINTWISE]


def test_the_seeds_cover_the_layers():
    models = [read_model(random_case(seed).model) for seed in SEEDS]
    nodes = [(node, [model.nodes[i].shape for i in node.inputs]) for model in models for node in model.nodes]
    for kind in ("conv", "linear", "relu", "maxpool", "avgpool", "global-avgpool", "flatten", "dropout", "add"):
        assert sum(node.kind == kind for node, _ in nodes) >= 10, kind
    assert any(node.kind == "linear" and len(shapes[0]) == 3 for node, shapes in nodes), "linear behind 1x1 images"


def test_the_seeds_cover_update_sgd():
    cases = [sgd_case(seed) for seed in SGD_SEEDS]
    nodes = [(model, node) for model in (read_model(case.model) for case in cases) for node in model.nodes]
    before = [model.nodes[node.inputs[0]].kind for model, node in nodes if node.kind == "norm"]
    for kind in ("conv", "linear", "relu", "maxpool", "avgpool", "flatten", "dropout", "add"):
        assert kind in before, kind
    updates = [case.recipe["update"] for case in cases]
    assert {update["nesterov"] for update in updates} == {True, False}
    assert {0, 0.9} <= {update["momentum"] for update in updates}
    assert {0, 1000} <= {update["lr"] for update in updates if not isinstance(update["lr"], list)}
    schedules = {("list" if isinstance(update["lr"], list) else update["schedule"], "warmup" in update) for update in updates}
    assert {kind for kind, _ in schedules} == {"steps", "list", "linear", "cosine", "one-cycle"}
    assert {warm for _, warm in schedules} == {True, False}
    assert {0, 0.1} <= {case.recipe["label_smoothing"] for case in cases}


def test_the_seeds_cover_clipping_and_update_niti16():
    assert {0, 0.5} <= {sgd_case(seed).recipe["update"].get("clip_norm", 0) for seed in SGD_SEEDS}
    recipes = [niti16_case(seed).recipe for seed in NITI16_SEEDS]
    assert {recipe["loss"] for recipe in recipes} == {"niti", "softmax"}
    assert {len(recipe["update"]) == 1 for recipe in recipes} == {True, False}
    assert {"linear", "one-cycle"} <= {recipe["update"].get("schedule") for recipe in recipes}


def write_yaml(path, value):
    path.write_text(yaml.safe_dump(value, default_flow_style=None, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="session", params=CASES)
def written_case(request, tmp_path_factory):
    """(the folder of recipe.yaml, model.yaml and data, what the oracle trained, its evaluation on the test set)."""
    generate, arguments = request.param
    case = generate(*arguments)
    folder = tmp_path_factory.mktemp("random")
    write_yaml(folder / "model.yaml", case.model)
    write_yaml(folder / "recipe.yaml", case.recipe)
    make_data.write_sets(case.sets, str(folder / "data"))
    trained = train(case.model, *case.sets["train"], case.recipe)
    return folder, trained, evaluate(case.model, trained["weights"], trained["exponents"], *case.sets["test"], case.recipe)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("isa", ISAS)
def test_niti_trains_the_same_bits(written_case, isa, threads, available_isas, tmp_path):  # noqa: F811
    if isa not in available_isas:
        pytest.skip(f"this machine has no {isa}")
    folder, trained, evaluation = written_case
    run = tmp_path / "run"
    report = last_object(run_niti("train", folder / "recipe.yaml", "--data", folder / "data", "--run", run, "--isa", isa,
                                  "--threads", threads, "--json", "--quiet"))
    check_metrics(run / "metrics.jsonl", trained)
    check_weights(run / "last.safetensors", trained)
    assert report["steps"] == trained["steps"]
    assert report["hash"] == hash_checkpoint(trained["weights"], trained["exponents"])
    assert report["test_accuracy"] == pytest.approx(100 * evaluation["correct"] / evaluation["images"], abs=1e-4)
    loss = evaluation["loss_sum"] / 65536 / evaluation["images"] * math.log(2)
    assert report["test_loss"] == pytest.approx(loss, abs=1e-4, rel=1e-6)
