"""niti's recipes, for the peers: built-ins or files, with --set, and the learning rate of each step of update sgd."""
import math
import pathlib
import sys
from decimal import Decimal

import checks
import models
import yaml

FOLDER = models.BENCH.parent / "recipes"
KEYS = {
    "": {"name", "model", "data", "batch", "epochs", "max_steps", "seed", "loss", "label_smoothing", "rounding", "clip", "update",
         "evaluation", "average", "freeze"},
    "data": {"kind", "type", "default", "mean", "std", "pad", "crop", "flip", "fit", "resize", "bad_files", "validation",
             "scale", "aspect", "cutout", "brightness", "contrast", "saturation", "mixup"},
    "evaluation": {"flip"},
    "average": {"from", "every"},
    "rounding": {"activation", "error"},
    "clip": {"activation", "error"},
    "update": {"kind", "lr", "schedule", "warmup", "final_lr", "momentum", "nesterov", "weight_decay", "clip_norm", "mu"},
}  # mu: of update niti, so that --set update.kind=sgd is enough
UNIT = 10**9  # rates are in billionths


def is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def edit(recipe: dict, option: str) -> None:
    """Applies KEY.PATH=VALUE, as niti's --set."""
    path, equals, text = option.partition("=")
    keys = [int(key) if key.isdigit() else key for key in path.split(".")]
    if not equals:
        sys.exit(f"--set {option}: expected KEY=VALUE")
    at = recipe
    try:
        for key in keys[:-1]:
            if key == "model" and isinstance(at[key], str):
                at[key] = {"file" if is_path(at[key]) else "name": at[key]}
            at = at[key] if isinstance(at, list) else at.setdefault(key, {})
        at[keys[-1]] = yaml.safe_load(text)
    except (IndexError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        sys.exit(f"--set {option}: there is no such place in the recipe, or the value is not YAML")


def check_keys(what: str, mapping: dict, known: set[str]) -> None:
    """An option that a twin would leave out is an error: the two would not train the same."""
    if not isinstance(mapping, dict):
        sys.exit(f"{what or 'recipe'}: expected keys with values, found {mapping!r}")
    for key in mapping:
        if key not in known:
            sys.exit(f"{what or 'recipe'}: key \"{key}\" is not known here (expected one of {', '.join(sorted(known))})")


def read_model(value, folder: pathlib.Path) -> dict:
    """The description that a recipe's `model` names or holds."""
    if isinstance(value, dict) and "layers" in value:
        return value
    fields = value if isinstance(value, dict) else {"file" if is_path(value) else "name": value}
    if "name" in fields:
        name = fields["name"]
    else:  # a path is relative to the recipe's folder; one of --set to the current folder
        name = str(folder / fields["file"] if (folder / fields["file"]).exists() else fields["file"])
    return {**models.load(name), **{key: fields[key] for key in ("classes", "input") if key in fields}}


def load(name: str, edits: list[str]) -> tuple[dict, dict]:
    """The recipe, with every value that the twin reads, and the description of its model."""
    path = pathlib.Path(name) if is_path(name) else FOLDER / f"{name}.yaml"
    try:
        recipe = yaml.safe_load(path.read_text())
    except OSError as error:
        sys.exit(f"recipe \"{name}\": {path}: {error.strerror}")
    except yaml.YAMLError as error:
        sys.exit(f"recipe \"{name}\": not YAML: {' '.join(str(error).split())}")
    check_keys("", recipe, KEYS[""])
    for option in edits:
        edit(recipe, option)
    if recipe.get("average") == "none":
        del recipe["average"]
    for what, known in KEYS.items():
        check_keys(what, recipe.get(what, {}) if what else recipe, known)
    data = {"kind": "auto", "type": "auto", "mean": "auto", "std": "auto", "pad": 0, "crop": "centre", "flip": False, "fit": "crop",
            "resize": 0, "validation": 0, "scale": [0.08, 1], "aspect": [0.75, 1.333333], "cutout": 0, "brightness": 0, "contrast": 0,
            "saturation": 0, "mixup": 0}
    if "model" not in recipe:
        sys.exit(f"recipe \"{name}\": expected a key \"model\"")
    model = read_model(recipe["model"], path.parent)
    wide = any(node.kind == "norm" or node.fields.get("bias") for node in models.nodes(model))
    update = {"kind": "sgd" if wide else "niti", "lr": 0.1, "schedule": "steps", "final_lr": 0, "momentum": 0.9, "nesterov": False,
              "weight_decay": 0, "clip_norm": 0}
    recipe = {"batch": 64, "epochs": 10, "max_steps": 0, "seed": 1, "label_smoothing": 0, "freeze": model.get("freeze", []), **recipe,
              "evaluation": {"flip": False, **recipe.get("evaluation", {})}, "data": {**data, **recipe.get("data", {})},
              "update": {**update, **recipe.get("update", {})}}
    if recipe["update"]["kind"] != "sgd":
        sys.exit(f"recipe \"{name}\": update {recipe['update']['kind']} (expected sgd: --set 'update={{kind: sgd, lr: 0.1}}' replaces it)")
    checks.check(recipe, model["input"])
    models.frozen(model, recipe["freeze"])
    return recipe, model


def share(value) -> int:
    """A share, 0.1 or "10%", in millionths."""
    text = str(value)
    return int(Decimal(text[:-1]) * 10**4 if text.endswith("%") else Decimal(text) * 10**6)


def strengths(data: dict) -> list[int]:
    """Of brightness, contrast and saturation, in millionths."""
    return [share(data[key]) for key in ("brightness", "contrast", "saturation")]


def validation_images(value, count: int) -> int:
    """How many of `count` images data.validation holds out."""
    return value if isinstance(value, int) else (count * share(value) + 500000) // 10**6


def billionths(value) -> int:
    return int(Decimal(str(value)) * UNIT)


def position_step(position: dict, steps_per_epoch: int, steps: int) -> int:
    """The step of {epoch}, {step} or {at}."""
    if "epoch" in position:
        return position["epoch"] * steps_per_epoch
    return position["step"] if "step" in position else share(position["at"]) * steps // 10**6


COSINES = [round(math.cos(math.pi * i / 512) * 2**30) for i in range(256)] + [0]


def cosine(done: int, all_: int) -> int:
    """cos(pi done / all) with 30 fraction bits."""
    angle = (done << 17) // all_
    i, rest = divmod(min(angle, (1 << 17) - angle), 256)
    value = 0 if i == 256 else COSINES[i] + (((COSINES[i + 1] - COSINES[i]) * rest) >> 8)
    return value if angle <= 1 << 16 else -value


def anneal(begin: int, end: int, done: int, all_: int) -> int:
    return end + (((begin - end) * ((1 << 30) + cosine(done, all_))) >> 31)


def sample_steps(average: dict, steps_per_epoch: int, steps: int) -> list[int]:
    """After how many steps niti takes a sample of the weights."""
    if not average:
        return []
    first = position_step(average["from"], steps_per_epoch, steps)
    period = position_step(average.get("every", {"epoch": 1}), steps_per_epoch, steps)
    samples = [step for step in range(period, steps + 1, period) if step > first]
    if not samples:
        sys.exit(f"average: no sample in this run of {steps} steps (expected at least one)")
    return samples


class Rate:
    """The learning rate of each step, the same as src/train/rate.c."""

    def __init__(self, update: dict, steps_per_epoch: int, steps: int) -> None:
        def place(position: dict) -> int:
            return position_step(position, steps_per_epoch, steps)

        lr, self.curve = update["lr"], update["schedule"]
        points = lr if isinstance(lr, list) else [{"step": 0, "lr": lr}]
        self.points = [(place(point), billionths(point["lr"])) for point in points]
        self.last = billionths(update["final_lr"])
        self.warm = place(update.get("warmup", {"at": "30%"} if self.curve == "one-cycle" else {"step": 0}))
        self.steps = steps
        if self.warm >= steps > 0 and self.warm > 0:
            sys.exit(f"update: warmup: step {self.warm} of this run of {steps} steps (expected an earlier one)")

    def _curve(self, step: int, done: int, all_: int) -> int:
        highest = self.points[0][1]
        if self.curve == "linear":
            parts = abs(highest - self.last)  # C's divisions round towards 0
            moved = parts // all_ * done + parts % all_ * done // all_
            return highest - moved if highest >= self.last else highest + moved
        if self.curve == "cosine":
            return anneal(highest, self.last, done, all_)
        if self.curve == "one-cycle":
            return anneal(highest, highest // 250000, done, all_)
        return [value for at, value in self.points if at <= step][-1]

    def billionths(self, step: int) -> int:
        all_ = self.steps - self.warm
        if step >= self.warm:
            return self._curve(step, min(step - self.warm, all_), max(all_, 1))
        if self.curve == "one-cycle":
            return anneal(self.points[0][1] // 25, self.points[0][1], step, self.warm)
        target = self._curve(step, 0, all_)
        return target // self.warm * (step + 1) + target % self.warm * (step + 1) // self.warm

    def value(self, step: int) -> float:
        return self.billionths(step) / UNIT
