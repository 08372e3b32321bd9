#!/usr/bin/env python3
"""Trains rows of docs/results.md, several at once on one device, and prints them as a table in Markdown.

  bench/results.py --data cifar10=cifar-10-batches-bin resnet18-cifar10 resnet20-cifar10            # seeds 1 to 3
  bench/results.py --data cifar10=cifar-10-batches-bin --seeds 1-5 --at-once 7 --twins "resnet18-cifar10 --test-every 5"
  bench/results.py --data cifar10=cifar-10-batches-bin --seeds 1 "mobilenet-v2-cifar10 --set data.validation=5000 --set update.lr=0.1"
  bench/results.py --table                                                                          # what has been measured

A row is a recipe and, in the same word, options of `niti train`. Its float twin (--twins; bench/peers/pytorch_train.py) gets --set,
--epochs, --max-steps and --batch of them, goes without those that change no weight, such as --test-every, and refuses the others.
The data set of a recipe is the --data whose name its name ends with.

Each run that ends is a line of JSON in OUT/results.jsonl as soon as it does, and is not made again. SIGINT, SIGTERM or the end of
--seconds stops all: niti's runs save their state, and the same command goes on with them; twins begin anew. Several processes
share an NVIDIA GPU well only under its Multi-Process Service (nvidia-cuda-mps-control -d).

Exit code: 0, 1 where a run failed (OUT/logs says why) or an argument is wrong, 3 where runs were stopped.
"""
import argparse
import json
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TWIN = pathlib.Path(__file__).resolve().parent / "peers" / "pytorch_train.py"
SHORT = {"--epochs": "epochs", "--max-steps": "max_steps", "--batch": "batch"}  # options of niti train for --set KEY=
FLAGS = {"--quiet", "--json", "--json-stream"}  # these and the next change no weight
PASSED_OVER = {"--save-every", "--test-every", "--test-limit", "--measure-every", "--threads", "--isa", "--backend", "--tuning"}


def seeds_of(text: str) -> list[int]:
    """1,4 or 1-3."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError
    return found


def twin_edits(row: str, options: list[str]) -> list[str]:
    """What a row's options change in the recipe, in niti's order: those that are short for settings come after --set."""
    sets, settings, rest = [], [], iter(options)
    for option in rest:
        name, equals, value = option.partition("=")
        if name in FLAGS:
            continue
        if name != "--set" and name not in SHORT and name not in PASSED_OVER:
            sys.exit(f"results: {row}: {name} does not reach the twin (expected --set, {', '.join(SHORT)} or options that change no weight)")
        value = value if equals else next(rest, None)
        if value is None:
            sys.exit(f"results: {row}: {name} needs a value")
        if name == "--set":
            sets.append(value)
        elif name in SHORT:
            settings.append(f"{SHORT[name]}={value}")
    return sets + settings


class Job:
    def __init__(self, kind: str, row: str, seed: int, args: argparse.Namespace) -> None:
        self.kind, self.row, self.seed = kind, " ".join(row.split()), seed
        self.recipe, *self.options = shlex.split(row)
        self.name = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{kind}-{seed}-{self.row}")
        self.run, self.log, self.args = args.out / "runs" / self.name, args.out / "logs" / self.name, args
        names = [name for name in args.data if self.recipe.endswith(name)]
        if not names:
            sys.exit(f"results: {self.recipe}: no --data for it (expected --data NAME=DIR, where the recipe's name ends with NAME)")
        self.data = args.data[max(names, key=len)]
        self.edits = twin_edits(self.row, self.options) if kind == "twin" else []

    def key(self) -> tuple:
        return self.kind, self.row, self.seed

    def command(self) -> list[str]:
        common = [self.recipe, "--data", self.data, "--seed", str(self.seed)]
        if self.kind == "twin":
            return [self.args.python, str(TWIN), *common, *(f"--set={edit}" for edit in self.edits), *shlex.split(self.args.twin_options)]
        if (self.run / "last.safetensors").exists():
            return [self.args.niti, "train", "--resume", str(self.run), "--quiet", "--json"]
        return [self.args.niti, "train", *common, "--run", str(self.run), "--quiet", "--json", *self.options]

    def start(self) -> None:
        self.begin, self.resumed = time.time(), self.kind == "niti" and (self.run / "last.safetensors").exists()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.log}.out", "w") as out, open(f"{self.log}.err", "a") as err:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    def record(self) -> dict | None:
        """What the run reports, or None where it did not end well."""
        lines = pathlib.Path(f"{self.log}.out").read_text().splitlines()
        if self.process.returncode or not lines:
            return None
        report = json.loads(lines[-1])
        if report.get("interrupted"):
            return None
        scored = "validation" if "validation_accuracy" in report or report.get("scored") == "validation" else "test"
        final = report.get(f"final_{scored}_accuracy", report.get(f"{scored}_accuracy"))
        epochs = report.get("epochs_begun", report.get("epochs"))  # max_steps may end a run within one; twins count those begun
        return {"kind": self.kind, "row": self.row, "seed": self.seed, "scored": scored, "final": final,
                "best": report.get(f"best_{scored}_accuracy"), "hash": report.get("hash"), "epochs": epochs,
                "seconds": None if self.resumed else round(time.time() - self.begin, 1), "report": report}


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ({statistics.stdev(values):.2f})" if len(values) > 1 else mean


def table(records: list[dict]) -> str:
    rows: dict[str, dict[str, list[dict]]] = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        rows.setdefault(record["row"], {}).setdefault(record["kind"], []).append(record)
    lines = ["| row | epochs | final %, by seed | mean (standard deviation) | best %, mean | float twin, final % | niti - twin | s | hash of the first seed |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row, kinds in sorted(rows.items()):
        ours, twins = kinds.get("niti", []), kinds.get("twin", [])
        finals, floats = [r["final"] for r in ours], [r["final"] for r in twins]
        seconds = [r["seconds"] for r in ours if r["seconds"] is not None]  # of runs that were not stopped
        some = (ours or twins)[0]
        cells = [f"`{row}`" + (" (validation)" if some["scored"] == "validation" else ""), str(some["epochs"]),
                 ", ".join(f"{value:.2f}" for value in finals), spread(finals) if finals else "",
                 spread([r["best"] for r in ours]).split(" ")[0] if finals else "", spread(floats) if floats else "",
                 f"{statistics.mean(finals) - statistics.mean(floats):+.2f}" if finals and floats else "",
                 f"{statistics.median(seconds):.0f}" if seconds else "", f"`{ours[0]['hash']}`" if finals else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def self_test() -> None:
    record = {"kind": "niti", "row": "a", "seed": 2, "scored": "test", "final": 91.0, "best": 92.0, "hash": "h2", "epochs": 3, "seconds": 5.0}
    records = [record, {**record, "seed": 1, "final": 93.0, "hash": "h1"}, {**record, "kind": "twin", "seed": 1, "final": 92.5}]
    assert table(records).splitlines()[2] == "| `a` | 3 | 93.00, 91.00 | 92.00 (1.41) | 92.00 | 92.50 | -0.50 | 5 | `h1` |", table(records)
    assert seeds_of("1-3,7") == [1, 2, 3, 7]
    args = argparse.Namespace(out=pathlib.Path("/nowhere"), data={"mnist": "m", "fashion-mnist": "f"}, niti="niti", python="python3",
                              twin_options="--compile")

    def twin(options: str) -> list[str]:
        command = Job("twin", f"vgg8b-fashion-mnist {options}", 2, args).command()
        assert command[2:7] == ["vgg8b-fashion-mnist", "--data", "f", "--seed", "2"] and command[-1] == "--compile", command
        return command[7:-1]

    def refusal(options: str) -> str:
        try:
            return f"accepted: {twin(options)}"
        except SystemExit as refused:
            return str(refused.code)

    assert twin("--test-every 5 --set a=b --epochs 3") == ["--set=a=b", "--set=epochs=3"]
    assert twin("--set=a=b --epochs=3 --set 'c={d: 1}'") == ["--set=a=b", "--set=c={d: 1}", "--set=epochs=3"]
    assert twin("--batch 32 --max-steps=9 --set batch=8") == ["--set=batch=8", "--set=batch=32", "--set=max_steps=9"]
    assert twin("--quiet --json --threads 2 --backend=cuda:1 --isa auto --tuning off --save-every=2 --measure-every 0 --test-limit 9") == []
    for options in ("--init a", "--init=a", "--seed 3", "--resume a", "--dry-run", "stray", "-x"):
        assert f"{options.split('=')[0].split()[0]} does not reach the twin" in refusal(options), refusal(options)
    assert refusal("--set a=b --epochs").endswith("--epochs needs a value"), refusal("--epochs")
    with tempfile.TemporaryDirectory() as folder:
        job = Job("niti", "vgg8b-fashion-mnist --max-steps 9", 1, argparse.Namespace(**{**vars(args), "out": pathlib.Path(folder)}))
        job.log.parent.mkdir()
        pathlib.Path(f"{job.log}.out").write_text(json.dumps({"test_accuracy": 9.5, "epochs": 0, "epochs_begun": 1}))
        job.process, job.begin, job.resumed = argparse.Namespace(returncode=0), time.time(), False
        assert job.record()["epochs"] == 1 and job.record()["final"] == 9.5, job.record()


class Stopped(Exception):
    pass


def keep(job: Job, results: pathlib.Path) -> bool:
    """Adds what the run reports to the file. False where it did not end well."""
    record = job.record()
    if record:
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{job.kind} {job.row} seed {job.seed}: {record['final']:.2f} %", flush=True)
    return record is not None


def run_all(jobs: list[Job], args: argparse.Namespace, results: pathlib.Path) -> bool:
    """True where every run ended well. Stopped: what was under way is saved."""
    end = time.monotonic() + args.seconds if args.seconds else None
    waiting, under_way, good = list(jobs), [], True
    try:
        while waiting or under_way:
            while waiting and len(under_way) < args.at_once:
                under_way.append(waiting.pop(0))
                under_way[-1].start()
            time.sleep(0.2)
            for job in [job for job in under_way if job.process.poll() is not None]:
                under_way.remove(job)
                if not keep(job, results):
                    good = False
                    print(f"results: {job.kind} {job.row} seed {job.seed} failed: {job.log}.err", file=sys.stderr, flush=True)
            if end and time.monotonic() > end:
                raise Stopped
    finally:
        for job in under_way:
            job.process.send_signal(signal.SIGINT if job.kind == "niti" else signal.SIGKILL)
        for job in under_way:
            job.process.wait()
            keep(job, results)
    return good


def stop(*_) -> None:
    raise Stopped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a recipe, and options of niti train in the same word")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="the folder of a data set, by the end of recipes' names")
    parser.add_argument("--seeds", default="1-3", help="such as 1-3 or 1,4 (default: 1-3)")
    parser.add_argument("--twins", action="store_true", help="train the float twins too")
    parser.add_argument("--twins-only", action="store_true", help="train the float twins alone")
    parser.add_argument("--twin-options", default="", metavar="OPTIONS", help="of pytorch_train.py, such as --twin-options=--compile")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop all after so long")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/results"), metavar="DIR", help="default: build/results")
    parser.add_argument("--niti", default="build/niti", help="default: build/niti")
    parser.add_argument("--python", default=sys.executable, help="the Python that has PyTorch (default: this one)")
    parser.add_argument("--table", action="store_true", help="print the table alone")
    parser.add_argument("--self-test", action="store_true", help="test this program")
    args = parser.parse_args()
    if args.self_test:
        self_test()
        return 0
    results = args.out / "results.jsonl"
    try:
        args.data = dict(pair.split("=", 1) for pair in args.data)
        seeds = seeds_of(args.seeds)
    except ValueError:
        sys.exit("results: expected --data NAME=DIR and --seeds such as 1-3 or 1,4")
    if args.at_once < 1 or not (args.rows or args.table):
        sys.exit("results: expected a row at least, and --at-once 1 or more (--help)")
    read = lambda: [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []  # noqa: E731
    kinds = ["twin"] if args.twins_only else ["niti", "twin"] if args.twins else ["niti"]
    jobs = [Job(kind, row, seed, args) for row in args.rows for kind in kinds for seed in seeds]
    done = {(r["kind"], r["row"], r["seed"]) for r in read()}
    status = 0
    if not args.table:
        args.out.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        try:
            status = 0 if run_all([job for job in jobs if job.key() not in done], args, results) else 1
        except Stopped:
            status = 3
    print(table(read()))
    return status


if __name__ == "__main__":
    sys.exit(main())
