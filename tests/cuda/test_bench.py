"""niti bench on a CUDA device: every kind, of networks with and without norms and residual blocks."""
import pytest

from tool import json_of

CUDA = ("--backend", "cuda", "--batch", 16, "--seconds", "0.1")


@pytest.mark.parametrize("model", ("lenet5", "resnet20"))
def test_every_kind_ends_well(families, model):
    for isa in families:
        given = ("--model", model, *CUDA, "--isa", isa)
        kernels = json_of("bench", "kernels", *given)
        assert kernels["product_operations_per_second"] > 0 and kernels["stream_bytes_per_second"] > 0
        assert {row["direction"] for row in kernels["kernels"]} == {"forward", "backward", "gradient"}
        assert all(row["milliseconds"] > 0 for row in kernels["kernels"] + kernels["others"])
        timeline = json_of("bench", "timeline", *given)
        assert timeline["nanoseconds"] == sum(row["nanoseconds"] for row in timeline["operations"]) > 0
        for kind in ("step", "infer"):
            assert json_of("bench", kind, *given)["runs"] >= 5
