#!/usr/bin/env python3
"""niti on 1 and on N GPUs beside PyTorch's DistributedDataParallel on the same N, in turns; prints one table.

bench/compare_ranks.py --niti build/niti --ranks 2 --batch 1024 256 [--model vgg-small-7 --recipe vgg-small-7-cifar10] [--launch "mpirun -n {}"] [--rounds 3]

--batch is that of each GPU. niti trains random images of CIFAR-10's form by the recipe, loader included, for at least 10 whole epochs and --steps steps; its rate is that of
all epochs but the first two, in which the device's copy of the images is made, kernels are loaded and steps recorded. PyTorch steps on one batch that stays on the device. Where there
is no MPI: --launch "bench/local_ranks.sh {}" (bench/local_transport.c). Every run of niti at one global batch must end with the same hash on 1 and N GPUs. A recipe's
warm-up is shortened to 5% of a run, where the runs here would end within it. NITI_CUDA_SUMS and NITI_CUDA_SMALL (docs/scaling.md), which choose
how GPUs exchange, are taken from the environment; what was used is printed.
"""
import argparse
import csv
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SAME_STEPS = 30  # of the runs whose hashes are compared
IMAGES = 50000
EPOCHS_LEAST, WARM_UP = 10, 2  # epochs of a run, and those of them that are not timed
SHORT = ["--set", "update.warmup.at=5%"]


def write_images(folder):
    """Random images in CIFAR-10's files: those to train with, and 1,000 to test."""
    folder.mkdir()
    dice = np.random.default_rng(1)
    for name, count in [(f"data_batch_{i}.bin", IMAGES // 5) for i in range(1, 6)] + [("test_batch.bin", 1000)]:
        records = dice.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())


class Failure(Exception):
    pass


told = set()


def run(command):
    """Its output; the line that says how GPUs exchange is told once."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    for line in done.stderr.splitlines():
        if ", NCCL" in line and line not in told:
            told.add(line)
            print(line, file=sys.stderr, flush=True)
    return done.stdout


def settings(args, data, folder):
    """What the recipe needs to be run for a few steps: nothing, or a shorter warm-up."""
    command = [args.niti, "train", args.recipe, "--data", data, "--run", folder, "--backend", "cpu", "--batch", 1, "--max-steps",
               min(SAME_STEPS, args.steps), "--dry-run"]
    try:
        run(command)
        return []
    except Failure as failure:
        if "update: warmup" not in str(failure):
            raise
        run([*command, *SHORT])
        return SHORT


def niti(args, launch, batch, steps, data, folder):
    out = run([*shlex.split(launch), args.niti, "train", args.recipe, "--data", data, "--run", folder, "--backend", args.backend, "--batch", batch, "--max-steps",
               steps, "--test-limit", 64, "--test-every", 1000, "--measure-every", 0, "--json", *args.settings])
    return json.loads([line for line in out.splitlines() if line.startswith("{")][-1])


def measure(args, launch, batch, data, folder):
    """Images per second once everything is in place, and of the whole run."""
    per_epoch = -(-IMAGES // batch)
    epochs = max(EPOCHS_LEAST, -(-args.steps // per_epoch))
    whole = niti(args, launch, batch, epochs * per_epoch, data, folder)["images_per_second"]
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file)][WARM_UP:]
    if len(rates) != epochs - WARM_UP:
        raise Failure(f"{folder}/metrics.csv: {len(rates) + WARM_UP} epochs (expected {epochs})")
    return statistics.harmonic_mean(rates), whole


def same_hash(args, batch, place):
    """Whether runs at one global batch end alike on one GPU and on all: "yes", "NO" or "failed"."""
    try:
        found = {niti(args, args.launch.format(n) if n > 1 else "", batch * args.ranks, SAME_STEPS, place / "data", place / f"same-{batch}-{n}")["hash"]
                 for n in (1, args.ranks)}
    except Failure as failure:
        print(f"compare_ranks: {failure}", file=sys.stderr, flush=True)
        return "failed"
    return "yes" if len(found) == 1 else "NO"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--niti", default="build/niti")
    parser.add_argument("--model", default="vgg-small-7")
    parser.add_argument("--recipe", default="vgg-small-7-cifar10")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--launch", default="mpirun -n {}")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--peer-options", default="")
    args = parser.parse_args()
    rates, peers = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        write_images(place / "data")
        args.settings = settings(args, place / "data", place / "dry")
        for turn in range(args.rounds):
            for batch in args.batch:
                for ranks in (1, args.ranks):
                    launch = args.launch.format(ranks) if ranks > 1 else ""
                    rate, whole = measure(args, launch, batch * ranks, place / "data", place / f"run-{turn}-{batch}-{ranks}")
                    rates.setdefault((batch, ranks), []).append(rate)
                    print(f"niti, {batch} images on each of {ranks}: {rate:,.0f} images/s, {whole:,.0f} with the first {WARM_UP} epochs", file=sys.stderr, flush=True)
            if args.no_peer:
                continue
            done = subprocess.run(["torchrun", "--nproc-per-node", str(args.ranks), str(HERE / "peers" / "pytorch_ddp.py"), "--model", args.model,
                                   "--batch", *map(str, args.batch), *shlex.split(args.peer_options)], capture_output=True, text=True, check=True)
            for result in json.loads(done.stdout.splitlines()[-1])["results"]:
                peers.setdefault((result["batch"], result["mode"]), []).append(result["images_per_second"])
                print(f"PyTorch {result['mode']}, {result['batch']} on each: {result['images_per_second']:,.0f} images/s", file=sys.stderr, flush=True)
        hashes = {batch: same_hash(args, batch, place) for batch in args.batch}
    print(f"{args.model}, {args.ranks} GPUs; medians of {args.rounds} rounds in turns (min to max), images/s\n")
    print(f"| batch per GPU | niti, 1 GPU | niti, {args.ranks} GPUs | over 1 GPU | over DDP | same hash |\n|---|---|---|---|---|---|")
    for batch in args.batch:
        one, many = rates[batch, 1], rates[batch, args.ranks]
        over = ", ".join(f"{mode} {statistics.median(many) / statistics.median(values):.2f}" for (b, mode), values in peers.items() if b == batch)
        print(f"| {batch} | {statistics.median(one):,.0f} ({min(one):,.0f} to {max(one):,.0f}) | {statistics.median(many):,.0f} ({min(many):,.0f} to "
              f"{max(many):,.0f}) | {statistics.median(many) / statistics.median(one):.2f} | {over or '-'} | {hashes[batch]} |")
    return 0 if set(hashes.values()) == {"yes"} else 1


try:
    sys.exit(main())
except Failure as error:
    sys.exit(f"compare_ranks: {error}")
