"""Networks that the tests export."""


def conv(out, kernel=3, padding=0, **more):
    return {"conv": {"out": out, "kernel": kernel, "padding": padding, **more}}


POOL = {"maxpool": {"kernel": 2}}
LINEAR = {"linear": {"out": "classes"}}


def network(name, shape, layers, classes=10, **more):
    return {"name": name, "input": list(shape), "classes": classes, "layers": layers, **more}


A = network("a", (28, 28, 1), [conv(8, 5), "relu", POOL, conv(16, 5), "relu", POOL, "flatten", LINEAR])
B = network("b", (32, 32, 3), [conv(16, 3, 1), "relu", POOL, conv(32, 3, 1), "relu", POOL, conv(64, 3, 1), "relu", POOL, "flatten", LINEAR])
# The third network of docs/microcontrollers.md: 147-160-2 behind layers of three channels.
NARROW = network("narrow", (28, 28, 1), [conv(3, 3, 1, stride=2), "relu", conv(3, 3, 1, stride=2), "relu", "flatten", {"linear": {"out": 160}}, "relu", LINEAR], 2)
RESIDUAL = network("residual", (10, 9, 2), [
    conv(6, 3, 1), "relu",
    {"residual": {"body": [conv(6, 3, 1), "relu", conv(6, 3, 1)]}}, "relu",
    {"residual": {"body": [conv(9, 3, 1, stride=2), "relu", conv(9, [1, 3], [0, 1])], "shortcut": [conv(9, 1, stride=2)]}}, "relu",
    "global-avgpool", LINEAR], 4)
# Its grouped convolution, and what comes before, is frozen.
DEPTHWISE = network("depthwise", (10, 9, 2), [
    conv(8, 3, 1), "relu", conv(8, 3, 1, groups="channels"), "relu", conv(12, 1), "relu", POOL, "flatten", LINEAR], 4)
# Kernels of 1 with padding, where no window is the whole image, and windows that lie beyond the image by more than their own size.
BORDER = network("border", (1, 1, 2), [
    conv(4, 1, [0, 1]), "relu", {"maxpool": {"kernel": [1, 2], "stride": [1, 1]}}, conv(8, 1, [3, 2], stride=[2, 3]), "relu", conv(4, [2, 1], [4, 5], stride=2), "relu",
    POOL, conv(2, 1, [1, 0]), "flatten", LINEAR], 3)
BEYOND = network("beyond", (1, 1, 8), [conv(5, 1, 4), "relu", POOL, "flatten", LINEAR], 3)
LENET = network("lenet5n", (28, 28, 1), [conv(6, 5, 2), "relu", POOL, conv(16, 5), "relu", POOL, "flatten", {"linear": {"out": 120}}, "relu",
                                         {"linear": {"out": 84}}, "relu", LINEAR])
POOLS = network("pools", (17, 41, 3), [
    conv(5, 3, [2, 1]), {"maxpool": {"kernel": 3, "stride": 2, "padding": 1}}, "relu", {"avgpool": {"kernel": [2, 3], "stride": [1, 2]}},
    conv(7, [3, 2], 1), "relu", {"maxpool": {"kernel": [1, 3], "stride": [2, 3]}}, {"dropout": {"per": "element"}}, conv(6, 2), "relu", "dropout",
    {"avgpool": {"kernel": 2}}, "flatten", {"linear": {"out": 11}}, "relu", LINEAR], 5)
FORKS = network("forks", (8, 8, 1), [
    conv(6, 3, 1),
    {"residual": {"body": [{"residual": {"body": [{"residual": {"body": [conv(6, 3, 1), "relu"]}}]}}, conv(6, 1)]}}, "relu",
    {"residual": {"body": [conv(6, 3, 1)], "shortcut": [{"maxpool": {"kernel": 3, "stride": 1, "padding": 1}}]}},
    {"avgpool": {"kernel": 2}}, "flatten", LINEAR], 4)
# Pools that leave outputs of their convolution out, in one case the last row and column, in the other what lies between windows.
REST = network("rest", (9, 11, 1), [
    conv(6, 3, 1), "relu", POOL, conv(5, 2, 1), "relu", {"maxpool": {"kernel": [1, 2], "stride": [2, 3]}}, "flatten", LINEAR], 4)
AVERAGE = network("average", (9, 9, 1), [conv(4, 3, 1), "relu", {"avgpool": {"kernel": 3}}, "flatten", LINEAR], 3)
STRIDES = network("strides", (13, 14, 2), [
    conv(5, [4, 3], [3, 1], stride=[3, 2]), "relu", conv(6, 1, 2, stride=3), "relu", conv(8, 3, 3), "relu", POOL, conv(4, 2, stride=4, padding=1), "relu",
    "flatten", LINEAR], 3)
