#!/usr/bin/env python3
"""How long a training step takes on N ranks: a model of docs/scaling.md, "Cost model".

bench/scaling.py NETWORK --batch B --step IMAGES:MS --step IMAGES:MS --latency US --bandwidth GB/S [--ranks 1,2,4] [--weak] [--niti build/niti]

What is exchanged is counted from the program (`niti program --ranks`). --step: a measured step of one process, at two batch sizes; between
and beyond them the time is a line. --latency and --bandwidth: of an all-reduce of 2 ranks (bench/allreduce.c, nccl-tests).
"""
import argparse
import json
import math
import subprocess
import sys


def exchanges(niti, network, batch, ranks):
    """(number of small collectives, bytes of the large ones) of a step."""
    text = subprocess.run([niti, "program", network, "--batch", str(batch), "--ranks", str(ranks), "--json"], check=True,
                          capture_output=True, text=True).stdout
    small, large = 0, 0
    for operation in json.loads(text)["operations"]:
        size = operation["exchanged_bytes"]
        if operation["opcode"] == "loss" and size > 24:
            small += 1  # the metrics and the range
        small += size > 0
        large += size if size > 4 else 0
    return small, large


def line(points):
    """milliseconds(images) through two measured points; proportional through one."""
    (b0, t0), (b1, t1) = (points + points)[:2] if len(points) > 1 else ((0, 0.0), points[0])
    slope = (t1 - t0) / (b1 - b0)
    return lambda images: t0 + slope * (images - b0)


def predict(compute, small, large, share, ranks, latency, bandwidth):
    """Milliseconds: small all-reduces by recursive doubling, large ones by a ring."""
    if ranks == 1:
        return compute(share)
    rounds = math.ceil(math.log2(ranks))
    # two ranks move `large` bytes each way at the measured bandwidth: a ring moves 2 (N - 1) / N of that
    return compute(share) + small * rounds * latency / 1e3 + large * 2 * (ranks - 1) / ranks / bandwidth / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--batch", type=int, required=True, help="of one process; --weak: of each rank")
    parser.add_argument("--step", action="append", required=True, help="IMAGES:MILLISECONDS, measured in one process")
    parser.add_argument("--latency", type=float, required=True, help="microseconds")
    parser.add_argument("--bandwidth", type=float, required=True, help="GB/s")
    parser.add_argument("--ranks", default="1,2,4,8,16,32,64,128,256,512,1024")
    parser.add_argument("--weak", action="store_true", help="the batch grows with the ranks")
    parser.add_argument("--niti", default="build/niti")
    given = parser.parse_args()
    points = sorted((int(images), float(ms)) for images, ms in (step.split(":") for step in given.step))
    compute = line(points)
    print("| ranks | batch | images per rank | small | MB | ms per step | images/s | over 1 rank |")
    print("|---|---|---|---|---|---|---|---|")
    first = None
    for ranks in map(int, given.ranks.split(",")):
        batch = given.batch * ranks if given.weak else given.batch
        share = -(-batch // ranks)
        small, large = exchanges(given.niti, given.network, batch, ranks)
        ms = predict(compute, small, large, share, ranks, given.latency, given.bandwidth)
        rate = batch / ms * 1e3
        first = first or rate
        print(f"| {ranks} | {batch} | {share} | {small if ranks > 1 else 0} | {large / 1e6 if ranks > 1 else 0:.2f} | {ms:.3f} | {rate:.0f} | "
              f"{rate / first:.2f} |")
    return 0


sys.exit(main())
