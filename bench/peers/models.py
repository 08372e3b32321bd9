"""niti's model descriptions, for the peers: built-ins, the networks of bench/models, or files."""
import pathlib
import sys

import yaml

BENCH = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = (BENCH.parent / "models", BENCH / "models")


def find(name: str) -> pathlib.Path:
    """The file of a built-in, of a network of bench/models, or the file itself."""
    return next((folder / f"{name}.yaml" for folder in FOLDERS if (folder / f"{name}.yaml").exists()), pathlib.Path(name))


def load(name: str) -> dict:
    try:
        return yaml.safe_load(find(name).read_text())
    except OSError as error:
        sys.exit(f"model \"{name}\": {error.strerror} (expected one of {' '.join(map(str, FOLDERS))}, or a file)")


def pair(value) -> tuple[int, int]:
    """[height, width] or one number for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def layers(model: dict, items: list | None = None) -> list[tuple[str, dict]]:
    """(kind, fields) of each layer, with blocks and repeats written out; a residual's body and shortcut are such lists."""
    out = []
    for item in model["layers"] if items is None else items:
        (kind, fields), = item.items() if isinstance(item, dict) else [(item, {})]
        if kind == "block":
            name = fields if isinstance(fields, str) else fields["use"]
            out += layers(model, model["blocks"][name])
        elif kind == "repeat":
            out += fields["times"] * layers(model, fields["layers"])
        elif kind == "residual":
            ends = {end: layers(model, fields.get(end, [])) for end in ("body", "shortcut")}
            out.append((kind, ends))
        else:
            out.append((kind, fields))
    return out


def side(kind: str, fields: dict, sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width after a layer with a window."""
    kernel, padding = pair(fields["kernel"]), pair(fields.get("padding", 0))
    stride = pair(fields.get("stride", 1 if kind == "conv" else fields["kernel"]))
    return tuple((sides[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))


def convolutions(model: dict) -> list[dict]:
    """Every convolution: h, w, c, k (output channels), kernel, stride, padding (pairs) and whether it is the first layer."""
    found: list[dict] = []

    def walk(items: list, shape: tuple[int, int, int], first: bool) -> tuple[int, int, int]:
        h, w, c = shape
        for kind, fields in items:
            if kind == "conv":
                found.append({"h": h, "w": w, "c": c, "k": fields["out"], "kernel": pair(fields["kernel"]),
                              "stride": pair(fields.get("stride", 1)), "padding": pair(fields.get("padding", 0)), "first": first})
            if kind in ("conv", "maxpool", "avgpool"):
                h, w = side(kind, fields, (h, w))
                c = fields.get("out", c)
            elif kind == "residual":
                shape = walk(fields["body"], (h, w, c), first)
                walk(fields["shortcut"], (h, w, c), first)
                h, w, c = shape
            elif kind in ("flatten", "global-avgpool"):
                h, w, c = 1, 1, h * w * c if kind == "flatten" else c
            first = False
        return h, w, c

    walk(layers(model), tuple(model["input"]), True)
    return found
