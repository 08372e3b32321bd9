"""niti program and niti summary: the listing against shapes, accumulation lengths and head-room computed here from the description."""
import math
import re

import pytest
import yaml

from recipes import EVERY_LAYER
from tool import ROOT, fails, json_of, misused, output_of

PHASES = ("input", "forward", "loss", "backward", "reduce", "update")
MAX_LENGTH = (2**31 - 1) // 127**2
DRAWS = {"activation": 6, "error": 7, "loss": 8, "fork": 9}  # docs/arithmetic.md, "Random numbers"


# ---- what a description says ----

def pair(value):
    return value if isinstance(value, list) else [value, value]


class Layers:
    """Walks a description's layers: {name: facts} of each, in the order of their numbers."""

    def __init__(self, model):
        self.classes = model["classes"]
        self.layers = {}
        self.counts = {}
        self.walk(model["layers"], tuple(model["input"]))

    def walk(self, items, shape):
        for item in items:
            kind, fields = (item, {}) if isinstance(item, str) else next(iter(item.items()))
            shape = self.residual(fields, shape) if kind == "residual" else self.layer(kind, fields or {}, shape)
        return shape

    def residual(self, fields, shape):
        out = self.walk(fields["body"], shape)
        assert self.walk(fields.get("shortcut") or [], shape) == out
        return self.add("add", fields, shape, out)

    def layer(self, kind, fields, shape):
        height, width, channels = shape
        facts = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "inputs": channels}
        if kind == "global-avgpool":
            facts["kernel"] = facts["stride"] = [height, width]
        if "kernel" in fields:
            facts["kernel"] = pair(fields["kernel"])
            facts["stride"] = pair(fields.get("stride", 1 if kind == "conv" else facts["kernel"]))
            facts["padding"] = pair(fields.get("padding", 0))
        sides = [(size + 2 * pad - kernel) // stride + 1 for size, pad, kernel, stride in
                 zip((height, width), facts["padding"], facts["kernel"], facts["stride"])]
        out = {"conv": lambda: (*sides, fields["out"]), "maxpool": lambda: (*sides, channels), "avgpool": lambda: (*sides, channels),
               "global-avgpool": lambda: (1, 1, channels), "flatten": lambda: (1, 1, height * width * channels),
               "linear": lambda: (1, 1, self.classes if fields["out"] == "classes" else fields["out"])}.get(kind, lambda: shape)()
        return self.add(kind, fields, shape, out, **facts)

    def add(self, kind, fields, shape, out, **facts):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.layers[fields.get("name", f"{kind}{self.counts[kind]}")] = {"kind": kind, "in": shape, "out": out, **facts}
        return out


def times(values):
    return values[0] * values[1]


def up(number, divisor):
    return -(-number // divisor)


def covering(facts):
    """How many windows cover one position at most."""
    return times([up(kernel, stride) for kernel, stride in zip(facts["kernel"], facts["stride"])])


def average_length(summands, facts):
    """The accumulation length of this many mantissas, each multiplied by the reciprocal's factor."""
    cells = times(facts["kernel"])
    factor = 1 if cells & (cells - 1) == 0 else (2**15 + cells // 2) // cells
    return up(summands * factor, 127)


def length_of(opcode, facts, batch):
    """Products in the longest sum of an accumulator; None: the operation has none."""
    return {"conv_forward": lambda: times(facts["kernel"]) * facts["inputs"],
            "conv_backward": lambda: covering(facts) * facts["out"][2],
            "conv_gradient": lambda: batch * times(facts["out"][:2]),
            "avgpool_forward": lambda: average_length(times(facts["kernel"]), facts),
            "avgpool_backward": lambda: average_length(covering(facts), facts),
            "add": lambda: up(2**15 + 1, 127)}.get(opcode, lambda: None)()


def weight_dims(facts):
    if facts["kind"] == "linear":
        return [facts["out"][2], facts["in"][2]]
    return [facts["out"][2], *facts["kernel"], facts["inputs"]]


# ---- the listing against it ----

def check_tensors(listing, layers, batch):
    tensors = {tensor["name"]: tensor for tensor in listing["tensors"]}
    assert len(tensors) == len(listing["tensors"])
    for tensor in tensors.values():
        layer = tensor["name"].rsplit(".", 1)[0]
        assert tensor["batched"] == (tensor["role"] in ("input", "activation", "delta", "saved"))
        assert not tensor["batched"] or tensor["dims"][0] == batch
        assert tensor["exponents"] == ("one" if tensor["dtype"] == "s8" else "none")
        if tensor["role"] in ("weight", "gradient"):
            assert tensor["dims"] == weight_dims(layers[layer])
        if tensor["role"] == "weight":
            assert tensor["dtype"] == "s8" and tensor["name"] == f"{layer}.weight"
        if tensor["role"] == "activation" and layer in layers:
            assert tensor["dims"] == [batch, *layers[layer]["out"]] and tensor["dtype"] == "s8"
        if tensor["role"] == "saved":
            assert tensor["dims"] == [batch, *layers[layer]["out"]] and tensor["dtype"] == "u8"
    assert {name for name, facts in layers.items() if facts["kind"] in ("conv", "linear")} == {
        name.rsplit(".", 1)[0] for name, tensor in tensors.items() if tensor["role"] == "weight"}
    return tensors


def check_sum(row, facts, tensors, batch):
    length = length_of(row["opcode"], facts, batch)
    assert row.get("accumulation_length") == length, row
    if length is None:
        return
    wide = row["opcode"] == "conv_gradient" and length > MAX_LENGTH
    assert row["accumulator_bits"] == (64 if wide else 32)
    assert row.get("headroom_bits") == (None if wide else (MAX_LENGTH // length).bit_length() - 1)
    if row["opcode"] == "conv_gradient":
        assert tensors[row["outputs"][0]]["dtype"] == ("s64" if wide else "s32")


def check_listing(listing, model, batch):
    """Every operand is listed, and every number is the one computed above."""
    layers = Layers(model).layers
    tensors = check_tensors(listing, layers, batch)
    assert (listing["model"], listing["batch"]) == (model["name"], batch)
    assert [row["number"] for row in listing["operations"]] == list(range(len(listing["operations"])))
    for row in listing["operations"]:
        assert set(row["inputs"]) | set(row["outputs"]) <= set(tensors)
        facts = layers.get(row["layer"])
        if facts is None:
            assert row["layer"] == "-" and row["opcode"] in ("input", "loss")
            continue
        check_sum(row, facts, tensors, batch)
        if row["opcode"].startswith(("conv", "maxpool", "avgpool")):
            assert row["attributes"] == {key: facts[key] for key in ("kernel", "stride", "padding")}
        products = times(facts["out"][:2]) * facts["out"][2] * times(facts["kernel"]) * facts["inputs"] \
            if row["opcode"].startswith("conv") else 0
        assert row["multiply_adds_per_image"] == products


def built_in(name):
    return yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("model", ["lenet5", "mlp", "vgg-small-7", "alexnet"])
@pytest.mark.parametrize("batch", [1, 200])
def test_the_listing_is_what_the_description_says(model, batch):
    check_listing(json_of("program", model, "--batch", batch), built_in(model), batch)


def test_the_listing_of_every_layer(every_layer):
    recipe = yaml.safe_load(EVERY_LAYER)
    for batch in (1, 7):
        check_listing(json_of("program", every_layer, "--batch", batch), recipe["model"], batch)


def test_gradients_beyond_int32_are_s64():
    """batch * 32 * 32 products: 131072 at batch 128 fit, 134144 at batch 131 do not."""
    for batch, dtype in ((128, "s32"), (131, "s64")):
        listing = json_of("program", "vgg-small-7", "--batch", batch)
        dtypes = {tensor["name"]: tensor["dtype"] for tensor in listing["tensors"]}
        assert dtypes["conv1.gradient"] == dtype and dtypes["conv3.gradient"] == "s32"


# By hand, from models/lenet5.yaml: nothing needs the input's delta, so conv1 sends none back.
LENET5 = [("input", "-", "input"), ("forward", "conv1", "conv_forward"), ("forward", "relu1", "relu_forward"),
          ("forward", "maxpool1", "maxpool_forward"), ("forward", "conv2", "conv_forward"), ("forward", "relu2", "relu_forward"),
          ("forward", "maxpool2", "maxpool_forward"), ("forward", "flatten1", "reshape"), ("forward", "linear1", "conv_forward"),
          ("forward", "relu3", "relu_forward"), ("forward", "linear2", "conv_forward"), ("loss", "-", "loss"),
          ("backward", "linear2", "conv_gradient"), ("backward", "linear2", "conv_backward"), ("backward", "relu3", "relu_backward"),
          ("backward", "linear1", "conv_gradient"), ("backward", "linear1", "conv_backward"), ("backward", "flatten1", "reshape"),
          ("backward", "maxpool2", "maxpool_backward"), ("backward", "relu2", "relu_backward"), ("backward", "conv2", "conv_gradient"),
          ("backward", "conv2", "conv_backward"), ("backward", "maxpool1", "maxpool_backward"),
          ("backward", "relu1", "relu_backward"), ("backward", "conv1", "conv_gradient"), ("update", "conv1", "update_niti"),
          ("update", "conv2", "update_niti"), ("update", "linear1", "update_niti"), ("update", "linear2", "update_niti")]


def test_one_line_per_operation():
    head, body = output_of("program", "lenet5", "--batch", 3).split("\n\n")
    assert f"lenet5, batch 3: {len(LENET5)} operations" in head and str(MAX_LENGTH) in head
    lines = body.splitlines()
    assert [tuple(line.replace(":", " ").split()[:4]) for line in lines] == [
        (str(number), *operation) for number, operation in enumerate(LENET5)]
    assert "conv2.out s8[3][8][8][50] e <- maxpool1.out s8[3][12][12][20] e, conv2.weight s8[50][5][5][20] e" in lines[4]
    assert "5x5 stride 1,1 pad 0,0" in lines[4] and f"s32 sums of 500, {(MAX_LENGTH // 500).bit_length() - 1} bits free" in lines[4]
    assert lines[4].endswith("; nearest")
    assert "conv1.gradient s32[20][5][5][1] <- " in lines[24] and f"s32 sums of {3 * 24 * 24}," in lines[24]
    assert "stochastic, purpose 8 stream 0" in lines[11]


def test_text_and_json_list_the_same():
    text = [re.match(r" *(\d+) (\w+) +(\S+) +(\w+)", line).groups() for line in
            output_of("program", "vgg-small-7").split("\n\n")[1].splitlines()]
    rows = json_of("program", "vgg-small-7")["operations"]
    assert text == [(str(row["number"]), row["phase"], row["layer"], row["opcode"]) for row in rows]


def test_fused_operations_do_the_relus():
    """In lenet5 a ReLU follows a product, or its delta comes out of one or of a pool whose windows do not overlap."""
    kept = [(number, operation) for number, operation in enumerate(LENET5) if "relu" not in operation[2]]
    fused = json_of("program", "lenet5", "--fused")
    rows = {row["number"]: row for row in fused["operations"]}
    assert [(row["number"], (row["phase"], row["layer"], row["opcode"])) for row in fused["operations"]] == kept
    assert [number for number, row in rows.items() if row.get("relu")] == [1, 4, 8]
    assert rows[1]["outputs"] == ["relu1.out"] and rows[4]["outputs"] == ["relu2.out"]
    assert rows[13]["outputs"] == ["linear1.delta"] and rows[13]["inputs"][2] == "relu3.out"  # the mask
    assert rows[18]["outputs"] == ["conv2.delta"] and rows[18]["inputs"][2] == "maxpool2.out"
    assert fused["tensors"] == json_of("program", "lenet5")["tensors"]
    head, body = output_of("program", "lenet5", "--fused").split("\n\n")
    assert f": {len(kept)} operations" in head and len(body.splitlines()) == len(kept)
    assert " relu: relu1.out" in body.splitlines()[1]
    assert not any(row.get("relu") for row in json_of("program", "lenet5")["operations"])


def test_phases_are_parts_of_the_whole():
    whole = json_of("program", "lenet5")
    parts = {phase: json_of("program", "lenet5", "--phase", phase) for phase in PHASES}
    assert [row for phase in PHASES for row in parts[phase]["operations"]] == whole["operations"]
    for phase, part in parts.items():
        assert {row["phase"] for row in part["operations"]} <= {phase} and part["tensors"] == whole["tensors"]
    assert not parts["reduce"]["operations"] and len(parts["update"]["operations"]) == 4
    assert output_of("program", "lenet5", "--phase", "loss").splitlines()[-1].split()[1] == "loss"


def test_evaluation_neither_draws_nor_goes_back(every_layer):
    rows = json_of("program", every_layer, "--evaluation")["operations"]
    assert {row["phase"] for row in rows} == {"input", "forward", "loss"}
    assert "dropout" not in {row["opcode"] for row in rows}
    assert {row["rounding"]["mode"] for row in rows if "rounding" in row} == {"nearest"}
    assert "stochastic" not in output_of("program", every_layer, "--evaluation")


# ---- a recipe ----

def roundings(listing, phase):
    return {(row["rounding"]["mode"], row["rounding"]["purpose"]) for row in listing["operations"]
            if row["phase"] == phase and "rounding" in row and row["opcode"] != "dropout"}


def test_a_recipe_decides_batch_rounding_and_loss(every_layer, recipe):
    listing = json_of("program", every_layer)
    assert listing["batch"] == 16
    assert roundings(listing, "forward") == {("stochastic", DRAWS["activation"])}
    assert roundings(listing, "backward") == {("stochastic", DRAWS["error"]), ("stochastic", DRAWS["fork"])}
    assert roundings(listing, "loss") == {("stochastic", DRAWS["loss"])}
    softmax = recipe(EVERY_LAYER.replace("loss: niti", "loss: softmax").replace("error: stochastic", "error: truncate"))
    listing = json_of("program", softmax)
    assert roundings(listing, "loss") == {("truncate", DRAWS["error"])}
    assert roundings(listing, "backward") == {("truncate", DRAWS["error"]), ("truncate", DRAWS["fork"])}
    loss, = [row for row in listing["operations"] if row["phase"] == "loss"]
    assert loss["attributes"] == {"loss": "softmax", "off": 0}


def test_streams_are_layer_numbers(every_layer):
    """Of roundings and dropout; where deltas are added, 65536 more for each further addition."""
    numbers = {name: number for number, name in enumerate(Layers(yaml.safe_load(EVERY_LAYER)["model"]).layers, 1)}
    additions = {}
    for row in json_of("program", every_layer)["operations"]:
        if "rounding" not in row or row["layer"] == "-":
            continue
        expected = numbers[row["layer"]]
        if row["rounding"]["purpose"] == DRAWS["fork"]:
            expected += 65536 * additions.setdefault(row["layer"], 0)
            additions[row["layer"]] += 1
        assert row["rounding"]["stream"] == expected
    assert additions


def test_a_built_in_recipe():
    recipe = yaml.safe_load((ROOT / "recipes" / "lenet5-mnist.yaml").read_text())
    listing = json_of("program", "lenet5-mnist")
    check_listing(listing, built_in("lenet5"), recipe["batch"])
    assert json_of("program", "lenet5-mnist", "--batch", 5)["batch"] == 5


# ---- what is refused ----

@pytest.mark.parametrize("command", ["program", "summary"])
def test_unknown_names_are_errors(command, tmp_path):
    fails(command, "no-such-network", says="no-such-network")
    fails(command, tmp_path / "missing.yaml", says="missing.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: w\ninput: [4, 4, 1]\nclasses: 2\nlayers:\n  - convolution: {out: 2}\n")
    fails(command, wrong, says=("wrong.yaml:5:5", "convolution"))


def test_a_network_that_could_overflow_is_refused(tmp_path):
    wide = tmp_path / "wide.yaml"
    wide.write_text("name: w\ninput: [365, 365, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes, name: head}\n")
    fails("program", wide, says=("wide.yaml:6:3", "head", str(365 * 365), str(MAX_LENGTH)))


@pytest.mark.parametrize("arguments, says", [
    ((), "missing"), (("lenet5", "mlp"), "one"), (("lenet5", "--phase", "sideways"), "--phase: 'sideways' is not"),
    (("lenet5", "--phase"), "--phase"), (("lenet5", "--batch", "0"), "--batch"), (("lenet5", "--batch", "many"), "'many'"),
    (("lenet5", "--batch", str(2**20 + 1)), "--batch")])
def test_misuse(arguments, says):
    misused("program", *arguments, says=says)


# ---- summary ----

@pytest.mark.parametrize("model, batch", [("lenet5", 1), ("lenet5", 64), ("vgg-small-7", 131), ("alexnet", 2)])
def test_the_summary_counts_the_listing(model, batch):
    summary = json_of("summary", model, "--batch", batch)
    listing = json_of("program", model, "--batch", batch)
    layers = Layers(built_in(model)).layers
    assert [layer["name"] for layer in summary["layers"]] == list(layers)
    for layer in summary["layers"]:
        rows = [row for row in listing["operations"] if row["layer"] == layer["name"]]
        lengths = [row["accumulation_length"] for row in rows if "accumulation_length" in row and row["opcode"] != "conv_gradient"]
        widths = [row["accumulator_bits"] for row in rows if row["opcode"] == "conv_gradient"]
        facts = layers[layer["name"]]
        trained = facts["kind"] in ("conv", "linear")
        assert layer["output"] == list(facts["out"])
        assert layer["accumulation_length"] == max(lengths, default=0)
        assert layer["gradient_bits"] == (widths[0] if trained else 0)
        weights = weight_dims(facts) if trained else [0]
        assert layer["parameters"] == math.prod(weights)
        assert layer["bytes"] == batch * math.prod(facts["out"])
    sizes = {tensor["name"]: math.prod(tensor["dims"]) for tensor in listing["tensors"]
             if tensor["role"] in ("activation", "delta", "saved")}
    widest = max(sum(sizes.get(name, 0) for name in {*row["inputs"], *row["outputs"]}) for row in listing["operations"]
                 if row["opcode"].startswith(("conv", "maxpool_f")))
    assert widest <= summary["activation_bytes"] <= sum(sizes.values()) + 256 * len(sizes)


def test_ranks_share_a_batch_and_add_their_gradients():
    shared = json_of("program", "lenet5", "--batch", 30, "--ranks", 4)
    assert shared["batch"] == 8  # the largest share
    sums = [o for o in shared["operations"] if o["opcode"] == "all_sum"]
    assert [(o["phase"], o["layer"], o["exchanged_bytes"], o["with_next"]) for o in sums] == [  # linear1's are more than 2^20 bytes
        ("backward", layer, 4 * count, together) for layer, count, together in (
            ("linear2", 10 * 500, True), ("linear1", 500 * 800, False), ("conv2", 50 * 25 * 20, True), ("conv1", 20 * 25, False))]
    assert [o["opcode"] for o in shared["operations"] if o["phase"] == "reduce"] == ["all_sum_wait"]
    others = {o["opcode"]: o["exchanged_bytes"] for o in shared["operations"] if o["opcode"] != "all_sum"}
    assert others["conv_forward"] == others["conv_backward"] == 4 and others["loss"] == 24 and others["update_niti"] == 0
    alone = json_of("program", "lenet5", "--batch", 30)
    assert not [o for o in alone["operations"] if o["phase"] == "reduce" or "exchanged_bytes" in o or "with_next" in o]
    listing = output_of("program", "lenet5", "--ranks", 2, "--phase", "backward")
    assert "exchanges 100000 bytes, together with the next\n" in listing and "exchanges 2000 bytes\n" in listing


def test_sums_of_different_widths_are_not_said_to_travel_together(tmp_path):
    model = tmp_path / "mixed.yaml"
    model.write_text("name: mixed\ninput: [32, 32, 3]\nclasses: 10\nlayers:\n"
                     "  - residual:\n      body: [{conv: {out: 4, kernel: 1, stride: 2}}]\n"
                     "      shortcut: [{conv: {out: 4, kernel: 3, padding: 1}}, {conv: {out: 4, kernel: 3, stride: 2, padding: 1}}]\n"
                     "  - flatten\n  - linear: {out: 10}\n")
    sums = [o for o in json_of("program", model, "--batch", 256, "--ranks", 2)["operations"] if o["opcode"] == "all_sum"]
    # conv2's sums have 256 * 32 * 32 products, which are too many for 32 bits, the others at most 256 * 16 * 16
    assert [(o["layer"], o["exchanged_bytes"], o["with_next"]) for o in sums] == [
        ("linear1", 4 * 10 * 1024, True), ("conv3", 4 * 4 * 9 * 4, True), ("conv2", 8 * 4 * 9 * 3, False), ("conv1", 4 * 4 * 3, False)]
    said = [line.split("; ")[-1].partition(" bytes")[2] for line in output_of("program", model, "--batch", 256, "--ranks", 2).splitlines()
            if " all_sum: " in line]
    assert said == [", together with the next", ", together with operation 18", "", ""]
