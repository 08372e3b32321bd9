"""A model description: YAML (or the same thing as a dictionary) to a list of nodes numbered as docs/arithmetic.md says."""

import math
from dataclasses import dataclass, field

import yaml

from .arithmetic import millionths

BIAS_PRODUCTS = 33287  # as many products as a bias counts for


@dataclass
class Node:
    number: int
    kind: str
    inputs: list  # node numbers, 0 is the network's input
    name: str
    shape: tuple  # of one image's output: (height, width, channels) or (features,)
    args: dict = field(default_factory=dict)
    weight_shape: tuple = None
    fans: tuple = None  # fan_in, fan_out

    def parameters(self):
        """Every k of a tensor that training updates: 0 for a weight, 1 for a bias."""
        if self.weight_shape is None:
            return []
        return [0, 1] if self.kind == "norm" or self.args.get("bias") else [0]

    def is_wide(self, k):
        """Parameter k has 16 bits."""
        return self.kind == "norm" or k == 1

    def parameter_name(self, k):
        return f"{self.name}.{('weight', 'bias')[k]}"

    @property
    def running_name(self):
        return f"{self.name}.running"


@dataclass
class Model:
    name: str
    input_shape: tuple
    classes: int
    nodes: list  # nodes[0] stands for the input
    frozen: set = field(default_factory=set)  # names of nodes whose weights stay

    def is_trained(self, node):
        """Whether the node has weights that training changes."""
        return node.weight_shape is not None and node.name not in self.frozen

    def is_centred(self, node):
        """Whether the layer before a norm measures its accumulators from the norm's running means."""
        if node.kind != "norm":
            return False
        source, = node.inputs
        product = self.nodes[source]
        alone = sum(other.inputs.count(source) for other in self.nodes) == 1
        return alone and product.kind in ("conv", "linear") and not product.args["bias"] and \
            math.prod(product.weight_shape[1:]) <= BIAS_PRODUCTS

    def trainable(self):
        """trainable()[i]: node i or a node before it has weights that are trained, so a delta is needed at its output."""
        out = []
        for node in self.nodes:
            out.append(self.is_trained(node) or any(out[i] for i in node.inputs))
        return out


def _pair(value):
    pair = (value, value) if isinstance(value, int) else tuple(value)
    assert len(pair) == 2
    return pair


class _Builder:
    def __init__(self, input_shape, classes):
        self.classes = classes
        self.nodes = [Node(0, "input", [], "input", tuple(input_shape))]
        self.ordinals = {}

    def add(self, kind, inputs, shape, args=None, weight_shape=None, fans=None):
        self.ordinals[kind] = self.ordinals.get(kind, 0) + 1
        assert min(shape) >= 1, f"{kind}{self.ordinals[kind]}: empty output"
        name = f"{kind}{self.ordinals[kind]}"
        self.nodes.append(Node(len(self.nodes), kind, inputs, name, tuple(shape), args or {}, weight_shape, fans))
        return self.nodes[-1].number

    def chain(self, layers, source):
        """Adds the layers after node `source`; returns the last node's number."""
        for item in layers:
            if isinstance(item, str):
                kind, args = item, {}
            else:
                (kind, args), = item.items()
            source = getattr(self, "layer_" + kind.replace("-", "_"))(source, **(args or {}))
        return source

    def _windows(self, source, kernel, stride, padding):
        height, width, channels = self.nodes[source].shape
        out = [(size + 2 * p - k) // s + 1 for size, k, s, p in zip((height, width), kernel, stride, padding)]
        return out[0], out[1], channels

    def _outputs(self, out):
        return self.classes if out == "classes" else out

    def layer_conv(self, source, out, kernel, stride=1, padding=0, groups=1, bias=False):
        kernel, stride, padding, out = _pair(kernel), _pair(stride), _pair(padding), self._outputs(out)
        height, width, channels = self._windows(source, kernel, stride, padding)
        groups = channels if groups == "channels" else groups
        assert channels % groups == 0 and out % groups == 0
        area = kernel[0] * kernel[1]
        return self.add("conv", [source], (height, width, out),
                        {"kernel": kernel, "stride": stride, "padding": padding, "groups": groups, "bias": bias},
                        (out, *kernel, channels // groups), (channels // groups * area, out // groups * area))

    def layer_linear(self, source, out, bias=False):
        *image, features = self.nodes[source].shape
        assert image in ([], [1, 1]), "linear takes flat features or 1x1 images"
        out = self._outputs(out)
        return self.add("linear", [source], (out,), {"bias": bias}, (out, features), (features, out))

    def layer_norm(self, source):
        shape = self.nodes[source].shape
        return self.add("norm", [source], shape, {}, shape[-1:])

    def layer_relu(self, source, max=None):  # pylint: disable=redefined-builtin
        return self.add("relu", [source], self.nodes[source].shape, {"max": None if max is None else millionths(max)})

    def layer_maxpool(self, source, kernel, stride=None, padding=0):
        kernel, padding = _pair(kernel), _pair(padding)
        stride = kernel if stride is None else _pair(stride)
        return self.add("maxpool", [source], self._windows(source, kernel, stride, padding),
                        {"kernel": kernel, "stride": stride, "padding": padding})

    def layer_avgpool(self, source, kernel, stride=None, padding=0):
        kernel, padding = _pair(kernel), _pair(padding)
        stride = kernel if stride is None else _pair(stride)
        return self.add("avgpool", [source], self._windows(source, kernel, stride, padding),
                        {"kernel": kernel, "stride": stride, "padding": padding})

    def layer_global_avgpool(self, source):
        height, width, channels = self.nodes[source].shape
        return self.add("global-avgpool", [source], (1, 1, channels),
                        {"kernel": (height, width), "stride": (height, width), "padding": (0, 0)})

    def layer_flatten(self, source):
        features = 1
        for size in self.nodes[source].shape:
            features *= size
        return self.add("flatten", [source], (features,))

    def layer_dropout(self, source, per="feature", rate="0.5"):
        assert per in ("feature", "element")
        return self.add("dropout", [source], self.nodes[source].shape, {"per": per, "rate": millionths(rate)})

    def layer_repeat(self, source, times, layers):
        for _ in range(times):
            source = self.chain(layers, source)
        return source

    def layer_residual(self, source, body, shortcut=()):
        left = self.chain(body, source)
        right = self.chain(shortcut, source)
        assert self.nodes[left].shape == self.nodes[right].shape
        return self.add("add", [left, right], self.nodes[left].shape)


def read_model(source):
    """A Model from a YAML file's path or a dictionary."""
    if not isinstance(source, dict):
        with open(source, encoding="utf-8") as file:
            source = yaml.safe_load(file)
    builder = _Builder(source["input"], source["classes"])
    last = builder.chain(source["layers"], 0)
    assert builder.nodes[last].shape == (source["classes"],)
    return Model(source["name"], tuple(source["input"]), source["classes"], builder.nodes, set(source.get("freeze", [])))


def read_recipe(path):
    """A recipe's values as a dictionary."""
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)
