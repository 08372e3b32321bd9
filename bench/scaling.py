#!/usr/bin/env python3
"""How long a training step takes on N ranks: a model of docs/scaling.md, "Cost model".

bench/scaling.py NETWORK --batch B --step IMAGES:MS --step IMAGES:MS --latency US --bandwidth GB/S [--ranks 1,2,4] [--weak] [--beside PART] [--niti build/niti]

What is exchanged is counted from the program (`niti program --ranks`). --step: a measured step of one process, at two batch sizes; between
and beyond them the time is a line. --latency and --bandwidth: of an all-reduce of 2 ranks (bench/allreduce.c, nccl-tests).
"""
import argparse
import json
import math
import subprocess
import sys


def exchanges(niti, network, batch, ranks):
    """(collectives that a step waits for, bytes of the gradients' sums, which travel beside it) of a step."""
    text = subprocess.run([niti, "program", network, "--batch", str(batch), "--ranks", str(ranks), "--json"], check=True,
                          capture_output=True, text=True).stdout
    rows = [(o["opcode"], o["exchanged_bytes"]) for o in json.loads(text)["operations"]]
    waits = sum(size > (24 if opcode == "loss" else 0) for opcode, size in rows if opcode != "all_sum")  # a loss's metrics travel, too
    return waits, sum(size for opcode, size in rows if opcode == "all_sum")


def line(points):
    """milliseconds(images) through two measured points; proportional through one."""
    (b0, t0), (b1, t1) = (points + points)[:2] if len(points) > 1 else ((0, 0.0), points[0])
    slope = (t1 - t0) / (b1 - b0)
    return lambda images: t0 + slope * (images - b0)


def predict(compute, small, large, share, ranks, given):
    """Milliseconds: small all-reduces by recursive doubling, large ones by a ring, of which a part of the step's time hides as much."""
    if ranks == 1:
        return compute(share)
    rounds = math.ceil(math.log2(ranks))
    # two ranks move `large` bytes each way at the measured bandwidth: a ring moves 2 (N - 1) / N of that
    sums = large * 2 * (ranks - 1) / ranks / given.bandwidth / 1e6
    return compute(share) + small * rounds * given.latency / 1e3 + max(0, sums - given.beside * compute(share))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--batch", type=int, required=True, help="of one process; --weak: of each rank")
    parser.add_argument("--step", action="append", required=True, help="IMAGES:MILLISECONDS, measured in one process")
    parser.add_argument("--latency", type=float, required=True, help="microseconds")
    parser.add_argument("--bandwidth", type=float, required=True, help="GB/s")
    parser.add_argument("--ranks", default="1,2,4,8,16,32,64,128,256,512,1024")
    parser.add_argument("--weak", action="store_true", help="the batch grows with the ranks")
    parser.add_argument("--beside", type=float, default=0, help="the part of a step's time in which sums travel without slowing it: 0 on CPUs, "
                        "which move them themselves")
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
        ms = predict(compute, small, large, share, ranks, given)
        rate = batch / ms * 1e3
        first = first or rate
        print(f"| {ranks} | {batch} | {share} | {small if ranks > 1 else 0} | {large / 1e6 if ranks > 1 else 0:.2f} | {ms:.3f} | {rate:.0f} | "
              f"{rate / first:.2f} |")
    return 0


sys.exit(main())
