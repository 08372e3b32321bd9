"""Random networks and recipes, exported: windows beyond the image, overlapping pools, branches of branches, every rounding mode."""

import random

import pytest
from conftest import Job
from oracle.random_models import random_case

SEEDS = 8


def known(item):
    """The layer, or the nearest one that the runtime has."""
    kind, args = (item, {}) if isinstance(item, str) else next(iter(item.items()))
    if kind in ("residual", "repeat"):
        return {kind: {key: [known(layer) for layer in value] if isinstance(value, list) else value for key, value in args.items()}}
    if kind == "avgpool" and args.get("padding", 0) not in (0, [0, 0]):
        return {"maxpool": args}
    args = {key: value for key, value in args.items() if key not in {"relu": ("max",), "dropout": ("rate",), "conv": ("groups",)}.get(kind, ())}
    return {kind: args} if args else kind


def job_of(seed, folder):
    case = random_case(seed)
    chosen = random.Random(seed)
    model = case.model | {"name": f"r{seed}", "layers": [known(layer) for layer in case.model["layers"]]}
    rounding = {key: mode.replace("stochastic-byte", "stochastic") for key, mode in case.recipe["rounding"].items()}
    names, ordinals = [], {}

    def count(layers):
        for item in layers:
            kind, args = (item, {}) if isinstance(item, str) else next(iter(item.items()))
            if kind == "residual":
                count(args["body"])
                count(args.get("shortcut", []))
            else:
                ordinals[kind] = ordinals.get(kind, 0) + 1
                names.extend([f"{kind}{ordinals[kind]}"] if kind in ("conv", "linear") else [])

    count(model["layers"])
    batch = min(case.recipe["batch"], 6)
    return Job(folder, model, batch=batch, max_steps=6, seed=case.recipe["seed"], loss=case.recipe["loss"], rounding=rounding,
               freeze=chosen.sample(names, chosen.randint(0, len(names) - 1)),
               clip={"activation": chosen.choice([0, 0, 1, 7]), "error": chosen.choice([0, 0, 2])})


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_network(seed, tmp_path):
    job = job_of(seed, tmp_path)
    least = job.export()["ram"]
    job.export("fast", "--memory", "fast")

    assert {job.c_hash("gcc", "c", "-O1"), job.c_hash("gcc", "fast", "-O1")} == {job.host_hash()}
