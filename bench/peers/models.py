"""niti's model descriptions, for the peers: built-ins, the networks of bench/models, or files."""
import pathlib
import sys
from dataclasses import dataclass

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


def layers(model: dict, items: list | None = None, prefix: str = "", suffix: str = "") -> list[tuple[str, dict]]:
    """(kind, fields) of each layer, with blocks and repeats written out; a residual's body and shortcut are such lists.
    Given names are between prefix, of the blocks around the layer, and suffix, of the repeats."""
    out = []
    for item in model["layers"] if items is None else items:
        (kind, fields), = item.items() if isinstance(item, dict) else [(item, {})]
        fields = {"use": fields} if isinstance(fields, str) else fields or {}
        if kind == "block":
            inner = f"{prefix}{fields['name']}." if "name" in fields else prefix
            out += layers(model, model["blocks"][fields["use"]], inner, suffix)
        elif kind == "repeat":
            for i in range(1, fields["times"] + 1):
                out += layers(model, fields["layers"], prefix, f"{suffix}.{i}")
        elif kind == "residual":
            ends = {end: layers(model, fields.get(end, []), prefix, suffix) for end in ("body", "shortcut")}
            out.append((kind, ends))
        else:
            out.append((kind, {**fields, "name": f"{prefix}{fields['name']}{suffix}"} if "name" in fields else fields))
    return out


def side(kind: str, fields: dict, sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width after a layer with a window."""
    kernel, padding = pair(fields["kernel"]), pair(fields.get("padding", 0))
    stride = pair(fields.get("stride", 1 if kind == "conv" else fields["kernel"]))
    return tuple((sides[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))


@dataclass(frozen=True)
class Node:
    """A layer in niti's order: of a residual block the body, the shortcut, then the addition (kind "add")."""

    number: int  # from 1, as docs/arithmetic.md numbers them
    kind: str
    fields: dict
    input: tuple[int, int, int]  # height, width, channels of one image
    output: tuple[int, int, int]
    first: bool  # reads the network's input
    name: str  # the one given, or the kind and the number among the layers of that kind

    def weight_shape(self) -> tuple[int, ...] | None:
        """Of conv [Cout][KH][KW][Cin / groups] and linear [out][in]; None: the kind has no such weights."""
        if self.kind == "conv":
            return (self.output[2], *pair(self.fields["kernel"]), self.input[2] // groups(self.fields, self.input[2]))
        return (self.output[2], self.input[2]) if self.kind == "linear" else None

    def fans(self) -> tuple[int, int]:
        """fan_in and fan_out of the weights."""
        out, *window, channels = self.weight_shape()
        area = window[0] * window[1] if window else 1
        return channels * area, out // (groups(self.fields, self.input[2]) if window else 1) * area


def groups(fields: dict, channels: int) -> int:
    """Of a convolution; the word `channels`: one per input channel."""
    value = fields.get("groups", 1)
    return channels if value == "channels" else value


def features(model: dict, fields: dict) -> int:
    """What `out` says: a number, or the word `classes`."""
    return model["classes"] if fields["out"] == "classes" else fields["out"]


def shape_after(model: dict, kind: str, fields: dict, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Height, width and channels after a layer."""
    h, w, c = shape
    if kind in ("conv", "maxpool", "avgpool"):
        return (*side(kind, fields, (h, w)), features(model, fields) if kind == "conv" else c)
    if kind == "linear":
        return 1, 1, features(model, fields)
    return (1, 1, h * w * c if kind == "flatten" else c) if kind in ("flatten", "global-avgpool") else shape


def nodes(model: dict) -> list[Node]:
    """Every layer with its number and shapes."""
    found: list[Node] = []

    def name_of(kind: str, fields: dict) -> str:
        return fields.get("name", f"{kind}{1 + sum(node.kind == kind for node in found)}")

    def walk(items: list, shape: tuple[int, int, int], first: bool) -> tuple[int, int, int]:
        for kind, fields in items:
            if kind == "residual":
                after = walk(fields["body"], shape, first)
                walk(fields["shortcut"], shape, first)
                found.append(Node(len(found) + 1, "add", {}, after, after, False, name_of("add", {})))
            else:
                after = shape_after(model, kind, fields, shape)
                found.append(Node(len(found) + 1, kind, fields, shape, after, first, name_of(kind, fields)))
            shape, first = after, False
        return shape

    walk(layers(model), tuple(model["input"]), True)
    return found


def frozen(model: dict, names) -> list[bool]:
    """Of each convolution, linear layer and norm, in order: whether `freeze`, a list of names, holds its weights."""
    weighted = [node.name for node in nodes(model) if node.kind in ("conv", "linear", "norm")]
    if not isinstance(names, list):
        sys.exit(f"freeze: expected a list of layers, found {names!r}")
    for name in names:
        if name not in weighted:
            sys.exit(f"freeze: {name!r} is no layer with weights (expected some of {', '.join(weighted)})")
    if set(names) >= set(weighted):
        sys.exit("freeze: every layer with weights is frozen (expected at least one that is trained)")
    return [name in names for name in weighted]


def convolutions(model: dict) -> list[dict]:
    """Every convolution: h, w, c, k (output channels), kernel, stride, padding (pairs) and whether it is the first layer."""
    return [{"h": node.input[0], "w": node.input[1], "c": node.input[2], "k": node.output[2], "kernel": pair(node.fields["kernel"]),
             "stride": pair(node.fields.get("stride", 1)), "padding": pair(node.fields.get("padding", 0)), "first": node.first}
            for node in nodes(model) if node.kind == "conv"]
