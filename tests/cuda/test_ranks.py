"""Ranks on CUDA devices: the bits of one process on the CPU, through host memory and through NCCL."""
import json
import subprocess

import pytest

from launch import end_of, needs_mpi, start, together
from recipes import NORMED
from tool import NITI, train

pytestmark = needs_mpi
SAME = ("hash", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_epoch", "steps")


def same(result):
    return {key: result[key] for key in SAME}


@pytest.fixture(scope="module")
def wide(shared):
    """Norms of 64 channels, which have kernels of their own."""
    path = shared / "ranks-wide.yaml"
    path.write_text(NORMED.replace("out: 6", "out: 64"))
    return path


@pytest.fixture(scope="module")
def mixed(shared):
    """Mixup takes the next image of the whole batch, which may be another rank's."""
    path = shared / "ranks-mixed.yaml"
    path.write_text(NORMED.replace("data: {", "data: {mixup: 1, ", 1))
    assert "mixup" in path.read_text()
    return path


@pytest.fixture(scope="module", params=["every layer", "norms", "wide norms", "mixup"])
def case(request, shared, every_layer, cifar, normed, wide, mixed, odd):
    """(recipe, data, the result of one process on the CPU)"""
    recipe, data = {"every layer": (every_layer, cifar), "norms": (normed, odd), "wide norms": (wide, odd), "mixup": (mixed, odd)}[request.param]
    return recipe, data, train(recipe, data, shared / f"ranks {request.param}", "--backend", "cpu")


def how(case, run):
    recipe, data, _ = case
    return NITI, recipe, "--data", data, "--run", run, "--threads", 1, "--json"


def test_ranks_that_share_a_device_and_with_others_on_the_cpu(case, tmp_path):
    for name, parts in {"shared": ((3, "cuda:0"),), "mixed": ((1, "cpu"), (2, "cuda:0")), "led": ((1, "cuda:0"), (1, "cpu"))}.items():
        many = together(*((count, *how(case, tmp_path / name), "--backend", backend) for count, backend in parts))
        assert same(many) == same(case[2]), name


def devices():
    done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return len(done.stdout.splitlines()) if done.returncode == 0 else 0


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_nccl_between_devices(ranks, case, tmp_path):
    if devices() < ranks:
        pytest.skip(f"{devices()} CUDA devices here (expected at least {ranks})")
    code, out, err = end_of(start((ranks, *how(case, tmp_path / "run"), "--backend", "cuda")))
    assert code == 0, f"exit {code}\n{out}{err}"
    if ", NCCL" not in err:
        pytest.skip("libnccl.so.2 is not there: ranks exchanged through host memory")
    assert same(json.loads(out)) == same(case[2])


def test_nccl_between_ranks_that_share_a_device(case, tmp_path):
    """NCCL refuses that on one host, but takes NCCL_HOSTID for the host: its exchanges then go through sockets."""
    program = tmp_path / "niti"
    program.write_text(f"#!/bin/sh\nNCCL_HOSTID=host$OMPI_COMM_WORLD_RANK exec '{NITI}' \"$@\"\n")
    program.chmod(0o755)
    sockets = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_SOCKET_IFNAME": "=lo", "NCCL_NET": "Socket", "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    code, out, err = end_of(start((2, program, *how(case, tmp_path / "run")[1:], "--backend", "cuda:0"), environment=sockets))
    assert code == 0, f"exit {code}\n{out}{err}"
    if ", NCCL" not in err:
        pytest.skip("libnccl.so.2 is not there: ranks exchanged through host memory")
    assert same(json.loads(out)) == same(case[2])
