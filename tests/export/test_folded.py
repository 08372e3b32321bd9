"""Networks with biases, folded by niti fold or trained with them: they predict in C what niti predicts, and only predict."""
import ctypes
import os
import subprocess

import networks as nets
import numpy as np
import pytest
from conftest import HERE, NITI, WARNINGS, Job, call, niti_json
from oracle.library import load

SGD = {"loss": "softmax", "update": {"kind": "sgd", "lr": 0.05}}
NORMED = nets.network("normed", (9, 10, 2), [
    nets.conv(6, 3, 1), "norm", "relu", nets.POOL,  # pooled, with a rest of windows
    {"residual": {"body": [nets.conv(6, 3, 1), "norm", "relu", nets.conv(6, 1), "norm"]}}, "relu",
    nets.conv(5, 3, 1, stride=2), "norm", "global-avgpool", {"linear": {"out": 11}}, "norm", "relu", nets.LINEAR], 4)
# As ds-cnn: depthwise convolutions, of which one is before a pool, one with two groups, and one over single pixels.
SEPARABLE = nets.network("separable", (11, 10, 1), [
    nets.conv(6, 3, 1, stride=2), "norm", "relu", nets.conv(6, 3, 1, groups="channels"), "norm", "relu", nets.conv(8, 1), "norm", "relu",
    nets.conv(16, [3, 2], [0, 1], groups=2, stride=[1, 2]), "norm", "relu", nets.POOL, "global-avgpool",
    nets.conv(16, 1, groups="channels"), "norm", "relu", nets.LINEAR], 4)
BIASED = nets.network("biased", (8, 8, 1), [nets.conv(4, 3, 1, bias=True), "relu", nets.POOL, "flatten", {"linear": {"out": "classes", "bias": True}}], 3)


def logits_of(network, images, classes):
    """[image][class], by the library."""
    library, model = load(os.path.join(os.path.dirname(NITI), "libniti.so")), ctypes.c_void_p()
    assert library.niti_model_open(ctypes.byref(model), os.fsencode(network), None) == 0
    out = np.zeros((len(images), classes), np.int8)
    for image, row in zip(images, out):
        exponent = ctypes.c_int32()
        pixels = np.ascontiguousarray(image)
        assert library.niti_model_predict(model, row.ctypes.data_as(ctypes.c_void_p), ctypes.byref(exponent), pixels.ctypes.data_as(ctypes.c_void_p)) == 0
    library.niti_model_close(model)
    return out


def check_predictions(job, network, hashed):
    report = niti_json("export", "c", network, "--train", "none", "--out", job.path("c"), "--name", "folded")
    assert report["trained"] == 0
    defines = ['-DNET_H="folded.h"', "-DNET(x)=folded_##x", "-DMAX(x)=FOLDED_##x", "-DNETWORK=folded", "-I", job.path("c")]
    call("gcc", *WARNINGS, "-O2", "-c", job.path("c", "folded.c"), "-o", job.path("folded.o"))
    call("gcc", "-std=c99", "-O1", *defines, os.path.join(HERE, "predict.c"), job.path("folded.o"), "-o", job.path("predict"))
    first, *lines = call(job.path("predict"), input=job.images[:40].tobytes()).decode().split("\n")[:-1]
    assert first == hashed
    expected = logits_of(network, job.images[:40], job.model["classes"])
    assert [line.split() for line in lines] == [[str(int(np.argmax(row))), *map(str, row.tolist())] for row in expected]
    assert len({line.split()[0] for line in lines}) > 1


@pytest.mark.parametrize("activation", ["nearest", "truncate", "pseudo-stochastic"])
@pytest.mark.parametrize("model", [NORMED, SEPARABLE], ids=["normed", "separable"])
def test_a_folded_network_predicts_the_same_logits(model, activation, tmp_path):
    job = Job(tmp_path, model, images=60, batch=10, max_steps=30, rounding={"activation": activation}, **SGD)
    job.host_hash()
    folded = niti_json("fold", job.path("run:last"), "--out", job.path("folded.safetensors"))
    check_predictions(job, job.path("folded.safetensors"), folded["hash"])


def test_biases_that_were_trained(tmp_path):
    job = Job(tmp_path, BIASED, images=60, batch=10, max_steps=30, **SGD)
    check_predictions(job, job.path("run:last"), job.host_hash())


def test_they_are_not_trained_in_c(tmp_path):
    job = Job(tmp_path, BIASED, images=20, batch=2, max_steps=3, rounding={"error": "nearest"}, **SGD)
    for command, says in ((("export", "c", job.path("recipe.yaml"), "--out", job.path("no")), "conv1: update_sgd: cannot be exported to C: expected update niti"),
                          (("export", "c", job.path("recipe.yaml"), "--train", "all", "--out", job.path("no")), "update_sgd")):
        result = subprocess.run([NITI, *command], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and says in result.stderr and not os.path.exists(job.path("no"))


def test_groups_are_not_trained_in_c(tmp_path):
    model = nets.network("grouped", (8, 8, 1), [nets.conv(4, 3, 1), nets.conv(4, 3, 1, groups=2), nets.conv(4, 3, 1), nets.POOL, "flatten", nets.LINEAR], 3)
    job = Job(tmp_path, model, batch=2, max_steps=3)
    result = subprocess.run([NITI, "export", "c", job.path("recipe.yaml"), "--out", job.path("no")], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "conv2: conv_gradient: cannot be exported to C: it has groups" in result.stderr and not os.path.exists(job.path("no"))
    job.export("c", "--train", "last:2")  # what comes before is constant
    frozen = Job(tmp_path / "frozen", {**model, "freeze": ["conv1", "conv2"]}, batch=2, max_steps=9)
    frozen.export()
    assert frozen.c_hash() == frozen.host_hash()
