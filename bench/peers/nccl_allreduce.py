#!/usr/bin/env python3
"""The latency and bandwidth of NCCL's all-reduce between the GPUs of a host, for bench/scaling.py; MPI's is measured by bench/allreduce.c.

  torchrun --nproc-per-node 2 bench/peers/nccl_allreduce.py

Process 0 prints one JSON object: microseconds of a maximum of 4 bytes, one of many in a CUDA graph, as in a recorded step, and bytes
per second of a sum of int32, 16 MiB unless --megabytes says otherwise. Medians. Needs PyTorch 2.3 or later.
"""
import argparse
import json
import os
import statistics

import torch
import torch.distributed as dist

SMALL_IN_GRAPH, LARGE_IN_GRAPH, RUNS = 200, 10, 25


def microseconds(tensor, op, count):
    """Of one of `count` all-reduces that a graph holds one after the other."""
    for _ in range(3):
        dist.all_reduce(tensor, op)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            dist.all_reduce(tensor, op)
    times = []
    for _ in range(RUNS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / count)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=16, help="of 2^20 bytes, of the large sum (default: 16)")
    args = parser.parse_args()
    if args.megabytes < 1:
        parser.error("expected --megabytes from 1")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl", device_id=torch.device("cuda", torch.cuda.current_device()))
    small = microseconds(torch.zeros(1, dtype=torch.int32, device="cuda"), dist.ReduceOp.MAX, SMALL_IN_GRAPH)
    size = args.megabytes << 20
    large = microseconds(torch.zeros(size // 4, dtype=torch.int32, device="cuda"), dist.ReduceOp.SUM, LARGE_IN_GRAPH)
    if dist.get_rank() == 0:
        print(json.dumps({"device": torch.cuda.get_device_name(), "ranks": dist.get_world_size(), "nccl": torch.cuda.nccl.version(),
                          "maximum_microseconds": small, "sum_bytes": size, "sum_bytes_per_second": size / large * 1e6}))
    dist.destroy_process_group()


main()
