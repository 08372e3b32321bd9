"""Ranks on CUDA devices: the bits of one process on the CPU, through host memory and through NCCL."""
import json
import os
import signal
import subprocess
import time

import pytest

import data_sets
from launch import end_of, give_up, needs_mpi, processes_of, start, together
from recipes import NORMED
from tool import NITI, resume, train

pytestmark = needs_mpi
EPOCHS = 6
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


@pytest.fixture(scope="module")
def large(shared):
    """Gradients of more than a megabyte, so that their sums begin in several parts of backward."""
    path = shared / "ranks-large.yaml"
    path.write_text(NORMED.replace("- linear: {out: classes}", "- linear: {out: 1200}\n    - relu\n    - linear: {out: 1000}\n    - relu\n    - linear: {out: classes}"))
    assert "1200" in path.read_text()
    return path


@pytest.fixture(scope="module", params=["every layer", "norms", "wide norms", "mixup", "large"])
def case(request, shared, every_layer, cifar, normed, wide, mixed, large, odd):
    """(recipe, data, the result of one process on the CPU)"""
    recipe, data = {"every layer": (every_layer, cifar), "norms": (normed, odd), "wide norms": (wide, odd), "mixup": (mixed, odd), "large": (large, odd)}[request.param]
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


# ---- through NCCL, and past it ----

# By default gradients are copied into peers' memory beside backward, by few ranks, and what is small goes through it.
WAYS = {"default": {}, "sums after": {"NITI_CUDA_SUMS": "after"}, "sums beside": {"NITI_CUDA_SUMS": "beside"}, "small by nccl": {"NITI_CUDA_SMALL": "nccl"},
        "sums beside, small by nccl": {"NITI_CUDA_SUMS": "beside", "NITI_CUDA_SMALL": "nccl"}}
# NCCL refuses a device twice on one host, but takes NCCL_HOSTID for the host: its exchanges then go through sockets.
SOCKETS = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_SOCKET_IFNAME": "=lo", "NCCL_NET": "Socket", "NCCL_MULTI_RANK_GPU_ENABLE": "1"}


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def apart(shared):
    """The tool, each rank of which says that it has a host of its own."""
    return script(shared / "niti-apart", f"NCCL_HOSTID=host$OMPI_COMM_WORLD_RANK exec '{NITI}' \"$@\"")


@pytest.fixture(scope="module")
def two(apart):
    """(program, options, environment) of two ranks that NCCL connects: on a device each, or else on one."""
    return (NITI, ("--backend", "cuda"), {}) if devices() >= 2 else (apart, ("--backend", "cuda:0"), SOCKETS)


COPIES_RANKS = 4  # NITI_COPIES_RANKS of src/backend/cuda/copies.h


def check_way(err, way, ranks=2):
    """Skips where ranks could not exchange in this way."""
    if ", NCCL" not in err:
        pytest.skip("libnccl.so.2 is not there: ranks exchanged through host memory")
    copies = not way and ranks <= COPIES_RANKS and "(peers' memory is out of reach)" not in err
    assert (", sums by copies beside backward" in err) == copies, err
    assert (", sums after backward" in err) == (not copies and way.get("NITI_CUDA_SUMS") != "beside"), err
    if "NITI_CUDA_SMALL" in way:
        assert "peers' memory" not in err, err
    elif "(peers' memory is out of reach)" in err:
        pytest.skip("the devices cannot write each other's memory: small exchanges went through NCCL")
    else:
        assert ", small exchanges through peers' memory" in err, err


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_nccl_between_devices(ranks, way, case, tmp_path):
    if devices() < ranks:
        pytest.skip(f"{devices()} CUDA devices here (expected at least {ranks})")
    code, out, err = end_of(start((ranks, *how(case, tmp_path / "run"), "--backend", "cuda"), environment=way))
    assert code == 0, f"exit {code}\n{out}{err}"
    assert same(json.loads(out)) == same(case[2])
    check_way(err, way, ranks)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nccl_between_ranks_that_share_a_device(way, case, apart, tmp_path):
    code, out, err = end_of(start((2, apart, *how(case, tmp_path / "run")[1:], "--backend", "cuda:0"), environment=SOCKETS | way))
    assert code == 0, f"exit {code}\n{out}{err}"
    assert same(json.loads(out)) == same(case[2])
    check_way(err, way)


@pytest.fixture(scope="module")
def long(normed, shared):
    """(recipe, data, result of one process on the CPU) of a run that takes a while."""
    data = data_sets.write_idx_set(shared / "ranks-long", data_sets.squares(600, 1), data_sets.squares(60, 2))
    return normed, data, train(normed, data, shared / "ranks-long-run", "--epochs", EPOCHS, "--backend", "cpu")


def start_long(long, two, way, run):
    """The launcher and its ranks, once there is a checkpoint."""
    program, options, environment = two
    launcher = start((2, program, long[0], "--data", long[1], "--run", run, "--threads", 1, "--epochs", EPOCHS, "--json", *options),
                     environment=environment | way)
    ranks = processes_of(launcher, 2)
    end = time.monotonic() + 60
    while not (run / "best.safetensors").exists():
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < end or give_up(launcher, "no checkpoint")
        time.sleep(0.01)
    return launcher, ranks


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_ranks_that_are_interrupted_go_on_in_any_way(way, long, two, tmp_path):
    run = tmp_path / "run"
    launcher, ranks = start_long(long, two, way, run)
    os.kill(ranks[1], signal.SIGTERM)
    code, out, err = end_of(launcher)
    assert code == 128 + signal.SIGTERM and json.loads(out.splitlines()[0])["interrupted"], (code, out, err)
    program, options, environment = two
    other = WAYS["default"] if way else WAYS["sums beside, small by nccl"]
    code, out, err = end_of(start((2, program, "--resume", run, "--threads", 1, "--json", *options), environment=environment | other))
    assert code == 0 and same(json.loads(out)) == same(long[2]), (code, out, err)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_killed_rank_ends_the_run_although_kernels_wait_for_it(way, long, two, tmp_path):
    run = tmp_path / "run"
    launcher, ranks = start_long(long, two, way, run)
    os.kill(ranks[1], signal.SIGKILL)
    code, out, err = end_of(launcher, timeout=30)
    assert code != 0 and "rank 1" in err and "signal 9" in err, (code, out, err)
    assert same(resume(run, "--backend", "cpu")) == same(long[2])


def test_ways_that_are_unknown_or_differ_are_refused(normed, odd, two, tmp_path):
    program, options, environment = two
    words = (normed, "--data", odd, "--run", tmp_path / "run", "--threads", 1, *options)
    code, out, err = end_of(start((2, program, *words), environment=environment | {"NITI_CUDA_SUMS": "sideways"}))
    if code == 0:
        pytest.skip("libnccl.so.2 is not there: ranks exchanged through host memory")
    assert code == 1 and err.count("NITI_CUDA_SUMS is 'sideways' (expected copies, after or beside)") == 1, (code, out, err)
    differs = script(tmp_path / "differs", f"NITI_CUDA_SMALL=nccl exec '{program}' \"$@\"")
    code, out, err = end_of(start((1, program, *words), (1, differs, *words), environment=environment))
    assert code == 1 and "NITI_CUDA_SMALL: rank 1 (" in err and "has nccl, but rank 0 (" in err and "has peers" in err, (code, out, err)
    assert not (tmp_path / "run").exists()
