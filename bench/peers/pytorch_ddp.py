#!/usr/bin/env python3
"""How fast PyTorch trains one of niti's models on several GPUs: DistributedDataParallel, the peer of `mpirun -n N niti train`.

  torchrun --nproc-per-node 2 bench/peers/pytorch_ddp.py --model vgg-small-7 --batch 1024 256

--batch is that of each process. A step is forward, cross-entropy, backward with the sum of the gradients, and SGD with momentum, on a batch that is on the
device already; weights, activations and momentum are bfloat16, channels-last (as pytorch_step.py's bf16), --modes eager and compiled (torch.compile). --sync-norm: batch
norm over all processes, as niti's is. Process 0 prints; a time is the median of many runs of as many steps as take 20 ms. Needs PyYAML and PyTorch 2.3 or later.
"""
import argparse
import json
import os
import statistics
import sys
import time

import models
import networks
import torch
from torch.nn.parallel import DistributedDataParallel

WARM_UP, RUN_MS, RUNS_MIN = 15, 20.0, 5


def make_step(model, batch, mode, sync_norm, device):
    torch.manual_seed(1)
    network = networks.build(model, True, dropout_per="element")
    if sync_norm:
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network = network.to(device=device, dtype=torch.bfloat16, memory_format=torch.channels_last)
    network = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True,
                                      static_graph=True)
    height, width, channels = model["input"]
    images = torch.randn(batch, channels, height, width, device=device).to(dtype=torch.bfloat16, memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % model["classes"]
    update = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, **({"fused": True} if device.type == "cuda" else {}))
    forward = torch.compile(network, dynamic=False) if mode == "compiled" else network

    def step():
        update.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(images).float(), labels)
        loss.backward()
        update.step()
        return loss

    for _ in range(WARM_UP):
        step()
    return step


def time_run(step, repeat, device):
    """Milliseconds per step; all processes begin together."""
    torch.distributed.barrier()
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeat):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3 / repeat


def agreed(number, device):
    """The same number on every process: process 0's."""
    tensor = torch.tensor([number], dtype=torch.float64, device=device)
    torch.distributed.broadcast(tensor, 0)
    return tensor.item()


def measure(model, batch, mode, args, device):
    step = make_step(model, batch, mode, args.sync_norm, device)
    repeat = max(1, min(1000, round(RUN_MS / agreed(time_run(step, 5, device), device))))
    runs, end = [], time.perf_counter() + args.seconds
    while agreed(len(runs) < RUNS_MIN or time.perf_counter() < end, device):
        runs.append(time_run(step, repeat, device))
    median = statistics.median(runs)
    ranks = torch.distributed.get_world_size()
    return {"mode": mode, "batch": batch, "ranks": ranks, "images_per_second": ranks * batch / median * 1e3, "milliseconds": median}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg-small-7")
    parser.add_argument("--batch", type=int, nargs="+", default=[1024], metavar="N")
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=("eager", "compiled"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--sync-norm", action="store_true")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    args = parser.parse_args()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if args.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(local)
        torch.backends.cudnn.benchmark = True
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    model, results = models.load(args.model), []
    for batch in args.batch:
        for mode in args.modes:
            torch.compiler.reset()
            results.append(measure(model, batch, mode, args, device))
    if torch.distributed.get_rank() == 0:
        print(json.dumps({"peer": "PyTorch DDP", "torch": torch.__version__, "model": args.model, "sync_norm": args.sync_norm, "results": results}))
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
