"""What niti accepts as the values of a recipe, for the peers: a twin refuses the rest, as niti does."""
import sys
from decimal import Decimal, InvalidOperation

CHOICES = {
    "data.kind": ("auto", "idx", "cifar10", "cifar100", "folder", "npy", "csv"), "data.type": ("auto", "uint8"),
    "data.default": ("none", "fashion-mnist"), "data.crop": ("centre", "random", "resized"), "data.fit": ("crop", "stretch"),
    "data.bad_files": ("error", "skip"), "data.mixup": (0, 0.2, 1), "data.flip": (False, True), "evaluation.flip": (False, True),
    "loss": ("softmax",), "update.kind": ("sgd",), "update.schedule": ("steps", "linear", "cosine", "one-cycle"),
    "update.nesterov": (False, True),
    **dict.fromkeys(("rounding.activation", "rounding.error"), ("nearest", "pseudo-stochastic", "stochastic", "stochastic-byte", "truncate")),
}
WHOLE = {  # least and most
    "batch": (1, 65536), "epochs": (1, 10**6), "max_steps": (0, 2**32 - 1), "seed": (0, 2**64 - 1), "data.pad": (0, 1024),
    "data.resize": (0, 16384), "clip.activation": (0, 7), "clip.error": (0, 7),
}
BELOW_ONE = Decimal("0.999999999")
DECIMAL = {  # least, most and decimals
    "label_smoothing": (0, BELOW_ONE, 9), "update.final_lr": (0, 1000, 9), "update.momentum": (0, BELOW_ONE, 9),
    "update.weight_decay": (0, 1, 9), "update.clip_norm": (0, 10**6, 9), "data.brightness": (0, 1, 6), "data.contrast": (0, 1, 6),
    "data.saturation": (0, 1, 6),
}
UNITS = ("epoch", "step", "at")


def refuse(what: str, value, expected: str) -> None:
    sys.exit(f"{what.replace('.', ': ')}: expected {expected}, found {value!r}")


def choice(what: str, value, allowed: tuple) -> None:
    if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
        refuse(what, value, "one of " + ", ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in allowed))


def whole(what: str, value, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(what, value, f"an integer from {least} to {most}")


def decimal(what: str, value, least, most, places: int) -> None:
    try:
        number = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not least <= number <= most or number * 10**places % 1:
        refuse(what, value, f"a number from {least} to {most} with at most {places} decimals")


def share(what: str, value, most: int) -> None:
    """A decimal below 1, or a percentage."""
    if isinstance(value, str) and value.endswith("%"):
        decimal(what, value[:-1], 0, 100 * most, 4)
    else:
        decimal(what, value, 0, Decimal("0.999999"), 6)


def position(what: str, value, units: tuple = UNITS, beside: tuple = ()) -> None:
    keys = [key for key in value if key not in beside] if isinstance(value, dict) else []
    if len(keys) != 1 or keys[0] not in units:
        refuse(what, value, f"a position, such as {{epoch: 2}}, with one of {', '.join(units)}")
    if keys[0] == "at":
        share(f"{what}.at", value["at"], 1)
    else:
        whole(f"{what}.{keys[0]}", value[keys[0]], 0, 10**6 if keys[0] == "epoch" else 2**32 - 1)


def rates(value, curve: str) -> None:
    if not isinstance(value, list):
        decimal("update.lr", value, 0, 1000, 9)
        return
    if curve != "steps" or not 1 <= len(value) <= 32:
        refuse("update.lr", value, "a number, or with schedule steps 1 to 32 positions")
    for point in value:
        position("update.lr", point, beside=("lr",))
        decimal("update.lr.lr", point.get("lr"), 0, 1000, 9)
    if any(value[0][key] not in (0, "0%") for key in UNITS if key in value[0]):
        refuse("update.lr", value, "a first position of 0")


def validation(value) -> None:
    if isinstance(value, int):
        whole("data.validation", value, 0, 2**31 - 1)
    else:
        share("data.validation", value, 1)


def ranges(data: dict) -> None:
    for key, least, most in (("scale", Decimal("0.000001"), 1), ("aspect", Decimal("0.0625"), 16)):
        value = data[key]
        if not isinstance(value, list) or len(value) != 2:
            refuse(f"data.{key}", value, "a list of two numbers, the least and the most")
        for end in value:
            decimal(f"data.{key}", end, least, most, 6)
        if value[0] > value[1]:
            refuse(f"data.{key}", value, "the least, then the most")


def statistics(data: dict, channels: int) -> None:
    given = [key for key in ("mean", "std") if data[key] != "auto"]
    for key in given:
        if not isinstance(data[key], list) or len(data[key]) != channels or len(given) != 2:
            refuse(f"data.{key}", data[key], f"auto, or {channels} numbers of both mean and std")
        for value in data[key]:
            decimal(f"data.{key}", value, Decimal("0.000001") if key == "std" else 0, 8 if key == "std" else 1, 6)


def check(recipe: dict, shape: list[int]) -> None:
    """Exits with a message unless niti would train the recipe, whose model's input is `shape`, with update sgd."""
    for table, rule in ((CHOICES, lambda *args: choice(args[0], args[1], args[2:])), (WHOLE, whole), (DECIMAL, decimal)):
        for what, limits in table.items():
            place, _, key = what.rpartition(".")
            mapping = recipe.get(place, {}) if place else recipe
            if key in mapping:
                rule(what, mapping[key], *limits)
    data, update, average = recipe["data"], recipe["update"], recipe.get("average")
    whole("data.cutout", data["cutout"], 0, max(shape[:2]))
    rates(update["lr"], update["schedule"])
    validation(data["validation"])
    ranges(data)
    statistics(data, shape[2])
    if data["crop"] == "resized" and data["pad"]:
        refuse("data.pad", data["pad"], "0 with crop resized")
    if update["final_lr"] and update["schedule"] not in ("linear", "cosine"):
        refuse("update.final_lr", update["final_lr"], "schedule linear or cosine")
    if "warmup" in update:
        position("update.warmup", update["warmup"])
    if average is not None:
        position("average.from", average.get("from"))
        position("average.every", average.get("every", {"epoch": 1}), ("epoch", "step"))
