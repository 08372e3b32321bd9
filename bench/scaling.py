#!/usr/bin/env python3
"""How long a training step takes on N ranks: a model of docs/scaling.md, "Cost model".

bench/scaling.py NETWORK --batch B --step IMAGES:MS --step IMAGES:MS --latency US --bandwidth GB/S [--ranks 1,2,4] [--weak] [--beside PART] [--niti build/niti]

What is exchanged is counted from the program (`niti program --ranks`). --step: a measured step of one process, at two batch sizes; between
and beyond them the time is a line. --latency and --bandwidth: of an all-reduce of 2 ranks (bench/allreduce.c, nccl-tests). Where a batch is
larger than niti takes, the exchanges of a smaller one are counted, and a line below the table says so.
"""
import argparse
import json
import math
import subprocess
import sys

BATCH_MAX = 65536  # of a recipe (src/train/recipe.c)


class Refused(Exception):
    """niti's message."""


def exchanges(niti, network, batch, ranks):
    """(collectives that a step waits for, bytes of the gradients' sums, which travel beside it) of a step."""
    try:
        done = subprocess.run([niti, "program", network, "--batch", str(batch), "--ranks", str(ranks), "--json"], capture_output=True,
                              text=True)
    except OSError as error:
        raise Refused(f"{niti}: {error.strerror} (--niti names the tool)") from None
    if done.returncode != 0:
        try:
            message = json.loads(done.stdout)["error"]
        except (ValueError, KeyError):
            message = done.stderr.strip() or f"{niti} ended with {done.returncode}"
        raise Refused(message)
    rows = [(o["opcode"], o["exchanged_bytes"]) for o in json.loads(done.stdout)["operations"]]
    waits = sum(size > (24 if opcode == "loss" else 0) for opcode, size in rows if opcode != "all_sum")  # a loss's metrics travel, too
    return waits, sum(size for opcode, size in rows if opcode == "all_sum")


def counted(niti, network, batch, ranks):
    """(exchanges of the batch, None); where niti does not train it: (those of the largest half, quarter, ... that it lowers, its message)."""
    try:
        why = None if batch <= BATCH_MAX else f"a batch of {batch} images (expected at most {BATCH_MAX} in a recipe)"
        return exchanges(niti, network, batch, ranks), why
    except Refused as refused:
        first = refused
    while batch > 1:
        batch //= 2
        try:
            return exchanges(niti, network, batch, ranks), str(first)
        except Refused:
            pass
    raise first


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


def whole(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def positive(text):
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def step(text):
    images, milliseconds = text.split(":")
    return whole(images), positive(milliseconds)


def numbers(text):
    return [whole(part) for part in text.split(",")]


def report(given):
    """The table's rows, and below them from where on niti does not take such a batch."""
    compute = line(sorted(given.step))
    rows = ["| ranks | batch | images per rank | small | MB | ms per step | images/s | over 1 rank |", "|---|---|---|---|---|---|---|---|"]
    first, refused = None, []
    for ranks in given.ranks:
        batch = given.batch * ranks if given.weak else given.batch
        share = -(-batch // ranks)
        (small, large), why = counted(given.niti, given.network, batch, ranks)
        refused += [(ranks, why)] if why else []
        ms = predict(compute, small, large, share, ranks, given)
        rate = batch / ms * 1e3
        first = first or rate
        rows.append(f"| {ranks} | {batch} | {share} | {small if ranks > 1 else 0} | {large / 1e6 if ranks > 1 else 0:.2f} | {ms:.3f} | "
                    f"{rate:.0f} | {rate / first:.2f} |")
    if refused:
        ranks, why = min(refused)
        rows.append(f"\nFrom {ranks} ranks on niti does not take the batch: {why}. Predicted all the same, with exchanges of a smaller one where "
                    "it does not lower this one.")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--batch", type=whole, required=True, help="of one process; --weak: of each rank")
    parser.add_argument("--step", type=step, action="append", required=True, help="IMAGES:MILLISECONDS, measured in one process")
    parser.add_argument("--latency", type=float, required=True, help="microseconds")
    parser.add_argument("--bandwidth", type=positive, required=True, help="GB/s")
    parser.add_argument("--ranks", type=numbers, default="1,2,4,8,16,32,64,128,256,512,1024")
    parser.add_argument("--weak", action="store_true", help="the batch grows with the ranks")
    parser.add_argument("--beside", type=float, default=0, help="the part of a step's time in which sums travel without slowing it: 0 on CPUs, "
                        "which move them themselves")
    parser.add_argument("--niti", default="build/niti")
    given = parser.parse_args()
    if len(given.step) > 2 or len({images for images, _ in given.step}) < len(given.step):
        parser.error("argument --step: expected one, or two with different numbers of images")
    try:
        print("\n".join(report(given)))
    except Refused as refused:
        print(f"scaling.py: {refused}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
