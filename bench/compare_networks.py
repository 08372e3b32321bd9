#!/usr/bin/env python3
"""Times niti's training step of many networks beside PyTorch's on one device, in turns, and prints one table in Markdown.

  bench/compare_networks.py --out build/networks.jsonl                     # everything
  bench/compare_networks.py --out build/networks.jsonl --budget 540        # what fits; the same again goes on from there
  bench/compare_networks.py --out build/r.jsonl --models resnet18 vgg16 --batches 64 256 --rounds 5 --seconds 2
  bench/compare_networks.py --out build/c.jsonl --device cpu --threads 2 --modes fp32-nhwc --models lenet5 --batches 16
  bench/compare_networks.py --table build/networks.jsonl                   # the table of a file again

Measures first MAIN, then random networks (random_networks.py) at batch 128, then what --compiled-for names among these with
torch.compile, then every built-in network at every batch. In each round niti runs, then each mode of PyTorch. Each measurement is
a line of JSON in the file as soon as it is made, so that none is lost; one that the file has already, also one that failed, is
not made again.

A network's limit is the least time that a step could take if operations run one after the other: for each that is left after
fusing (`niti program --fused`), the larger of its multiply-adds over the device's int8 speed and its operands' bytes over the
bandwidth of memory. Small operands stay in the cache, so a share of the limit above 100 % is possible.

Needs a Python with PyTorch (2.3 or later for CUDA) and PyYAML. Exit code: 0, or 1 where something was not measured.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import random_networks
from table import number, ratio

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
sys.path.insert(0, str(PEERS))
import models  # noqa: E402

MAIN = [("resnet-18", 256), ("resnet18", 256), ("vgg16", 256), ("lenet5", 64), ("alexnet-128", 256), ("resnet20", 256),
        ("mobilenet-v2", 256), ("vgg-small-7", 256), ("vgg-small-7", 1024)]
BATCHES = (256, 64, 1024, 1, 16)  # the most telling first
RANDOM_BATCH = 128
LIMITS = {"H200": (1570e12, 4.19e12)}  # of a device's name: int8 operations and bytes per second, as measured with large work
DTYPE_BYTES = {"s8": 1, "u8": 1, "s16": 2, "s32": 4, "s64": 8}


class OutOfTime(Exception):
    pass


class Peer:
    """PyTorch's process, started when it is needed and again after a failure."""

    def __init__(self, args: argparse.Namespace, deadline: float) -> None:
        self.args, self.deadline = args, deadline
        self.process: subprocess.Popen | None = None
        self.about: dict | None = None
        self.log = args.out.with_name(args.out.name + ".log")

    def start(self) -> None:
        a = self.args
        command = [a.python, PEERS / "pytorch_server.py", "--device", a.device, "--seconds", a.seconds, "--weights", a.weights]
        command += ["--threads", a.threads] if a.threads else []
        command += ["--algorithms", a.algorithms, "--modes", *a.modes, *(["compiled-graph"] if a.compiled_for else [])]
        command += [] if a.autotune else ["--no-autotune"]
        command += ["--limits"] if self.about is None else []
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, text=True, start_new_session=True)
        about = self.read()
        if "error" in about:
            sys.exit(f"compare_networks: PyTorch does not start: {about['error']}")
        self.about = self.about or about

    def read(self) -> dict:
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, self.deadline - time.monotonic()))
        if not ready:
            self.stop()
            raise OutOfTime
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.stop()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return {"error": f"the process has ended, exit code {code}: {lines[-1] if lines else 'no message'}"}

    def measure(self, request: dict) -> dict:
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # with what torch.compile has started
            self.process.wait()
            self.process = None


def key(record: dict) -> tuple:
    return tuple(record.get(name) for name in ("model", "batch", "who", "mode", "round"))


class Session:
    def __init__(self, args: argparse.Namespace, folder: pathlib.Path) -> None:
        """folder: for the random networks."""
        self.args, self.deadline = args, time.monotonic() + args.budget
        self.records = read_records(args.out)
        self.done = {key(r) for r in self.records}
        self.peer = Peer(args, self.deadline)
        self.paths = {path.stem: path for path in random_networks.write(folder, args.random, args.seed)}

    def keep(self, record: dict) -> None:
        self.records.append(record)
        self.done.add(key(record))
        with open(self.args.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def run(self, *command) -> dict:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=left)
            return json.loads(done.stdout)
        except subprocess.TimeoutExpired as error:
            raise OutOfTime from error
        except json.JSONDecodeError:
            return {"error": (done.stderr.strip() or f"no result, exit code {done.returncode}").splitlines()[-1]}

    def path(self, model: str) -> pathlib.Path:
        return self.paths.get(model) or models.find(model)

    def niti(self, model: str, batch: int) -> dict:
        a = self.args
        return self.run(a.niti, "bench", "step", "--backend", a.device, "--model", self.path(model), "--batch", batch, "--seconds",
                        f"{a.seconds:.3f}", "--json", *(["--threads", a.threads] if a.threads else []))

    def pytorch(self, model: str, batch: int, mode: str) -> dict:
        known = self.peer.about
        result = self.peer.measure({"model": str(self.path(model)), "batch": batch, "mode": mode})
        if not known:
            self.keep({"who": "about", "date": datetime.date.today().isoformat(), **(self.peer.about or {}),
                       "smi": line_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm",
                                      "--format=csv,noheader"),
                       "weights": self.args.weights, "autotune": self.args.autotune,
                       "algorithms": self.args.algorithms, "seconds": self.args.seconds})
        return result

    def measure(self, case: dict, who: str, mode: str, run) -> bool:
        """Whether it was measured, now or before."""
        record = {**case, "who": who, "mode": mode}
        if key(record) in self.done:
            return "error" not in next(r for r in self.records if key(r) == key(record))
        result = run()
        wanted = {"niti": ("device", "images_per_second", "shift_predictions", "shift_retries"), "limit": ("work",)}
        names = ("error", *wanted.get(who, ("images_per_second", "prepare_seconds")))
        record |= {name: result[name] for name in names if name in result}
        if "milliseconds" in result:
            record |= {"milliseconds": result["milliseconds"]["median"], "least": result["milliseconds"]["min"]}
        self.keep(record)
        if who != "limit" or "error" in record:
            what = record.get("error") or f"{record['milliseconds']:.3f} ms"
            print(f"{case['model']}, batch {case['batch']}, {who} {mode}: {what}", file=sys.stderr, flush=True)
        return "error" not in record

    def unit(self, model: str, batch: int, modes: list[str]) -> None:
        self.measure({"model": model, "batch": batch, "round": 1}, "limit", "", lambda: work_of(
            self.run(self.args.niti, "program", self.path(model), "--batch", batch, "--fused", "--json")))
        modes = list(modes)
        for number_of_round in range(1, self.args.rounds + 1):
            case = {"model": model, "batch": batch, "round": number_of_round}
            self.measure(case, "niti", "", lambda: self.niti(model, batch))
            for mode in list(modes):
                if not self.measure(case, "PyTorch", mode, lambda m=mode: self.pytorch(model, batch, m)):
                    modes.remove(mode)

    def units(self) -> list[tuple[str, int, list[str]]]:
        a = self.args
        for model in [*(a.models or []), *a.compiled_for]:
            if model != "all" and not self.path(model).exists():
                sys.exit(f"compare_networks: there is no network {model} (expected a built-in, one of bench/models or a file)")
        chosen = [(model, batch, a.modes) for batch in a.batches or BATCHES for model in a.models or built_ins()]
        if a.models:
            return chosen
        main = MAIN + [(model, RANDOM_BATCH) for model in self.paths]
        compiled = [(model, batch, ["compiled-graph"]) for model, batch in main if model in a.compiled_for or "all" in a.compiled_for]
        return [(model, batch, a.modes) for model, batch in main] + compiled + (chosen if a.batches != [] else [])

    def run_all(self) -> bool:
        """Whether there was time for all."""
        try:
            for unit in self.units():
                self.unit(*unit)
        except OutOfTime:
            print(f"compare_networks: {self.args.budget:g} seconds are over; the same command goes on from here", file=sys.stderr)
            return False
        finally:
            self.peer.stop()
        return True


def built_ins() -> list[str]:
    return sorted(path.stem for path in (models.BENCH.parent / "models").glob("*.yaml"))


def line_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""


def work_of(program: dict) -> dict:
    """Of each operation of `niti program`: how many operations on int8 its products are, and the bytes of its operands."""
    if "error" in program:
        return program
    size = {}
    for tensor in program["tensors"]:
        size[tensor["name"]] = DTYPE_BYTES[tensor["dtype"]]
        for dim in tensor["dims"]:
            size[tensor["name"]] *= dim
    return {"work": [[2 * program["batch"] * o["multiply_adds_per_image"], sum(size[name] for name in o["inputs"] + o["outputs"])]
                     for o in program["operations"] if o["opcode"] != "reshape"]}


def least_milliseconds(work: list, speeds: tuple[float, float]) -> float:
    return sum(max(operations / speeds[0], size / speeds[1]) for operations, size in work) * 1e3


def speeds_of(records: list[dict], args: argparse.Namespace) -> tuple[float, float] | None:
    """int8 operations and bytes per second: those given, else those of LIMITS, else those that PyTorch reached."""
    about = next((r for r in records if r["who"] == "about"), {})
    known = next((speeds for name, speeds in LIMITS.items() if name in about.get("device", "")), (0, 0))
    operations = args.tops * 1e12 or known[0] or about.get("operations_per_second", 0)
    size = args.gbs * 1e9 or known[1] or about.get("bytes_per_second", 0)
    return (operations, size) if operations and size else None


def read_records(path: pathlib.Path) -> list[dict]:
    """A last line that was not written whole is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"compare_networks: {path}: a line is no JSON and is left out: {line[:60]}", file=sys.stderr)
    return records


def best_mode(theirs: list[dict]) -> str | None:
    """The mode with the least median."""
    times: dict[str, list[float]] = {}
    for r in theirs:
        times.setdefault(r["mode"], []).append(r["milliseconds"])
    return min(times, key=lambda mode: statistics.median(times[mode]), default=None)


def row(case: tuple, found: list[dict], speeds: tuple[float, float] | None) -> tuple[str, float | None]:
    """A line of the table, and niti's speed over PyTorch's."""
    good = [r for r in found if "error" not in r]
    ours = [r for r in good if r["who"] == "niti"]
    mode = best_mode([r for r in good if r["who"] == "PyTorch"])
    theirs = [r for r in good if r["who"] == "PyTorch" and r["mode"] == mode]
    over = ratio(ours, theirs)
    mine, peers = ([statistics.median(r["milliseconds"] for r in rs)] if rs else [] for rs in (ours, theirs))
    limit = [least_milliseconds(r["work"], speeds) for r in good if r["who"] == "limit" and speeds]
    share = f"{100 * limit[0] / mine[0]:.0f} %" if limit and mine else ""
    cells = [case[0], str(case[1]), *(f"{x[0]:.3f}" if x else "-" for x in (mine, peers)), mode or "-",
             f"{over:.2f}" if over else "-", number(case[1] / mine[0] * 1e3) if mine else "-",
             f"{limit[0]:.3f}" if limit else "", share]
    return f"| {' | '.join(cells)} |", over


def summary(ratios: dict[tuple, float]) -> list[str]:
    lines = []
    drawn = [over for (model, _), over in ratios.items() if model.startswith("random-")]
    if drawn:
        lines.append(f"Random networks: {len(drawn)}, from {min(drawn):.2f} to {max(drawn):.2f}, median {statistics.median(drawn):.2f}.")
    below = [f"{model} at {batch} ({over:.2f})" for (model, batch), over in sorted(ratios.items(), key=lambda x: x[1]) if over < 1]
    lines.append(f"Slower than PyTorch, of {len(ratios)} cases: {', '.join(below) or 'none'}.")
    return lines


def markdown(records: list[dict], speeds: tuple[float, float] | None) -> str:
    about = next((r for r in records if r["who"] == "about"), {})
    niti = next((r["device"] for r in records if r["who"] == "niti" and "device" in r), "not measured")
    lines = [f"{about.get('date', '')}; niti: {niti}; {about.get('smi') or about.get('device', 'no PyTorch')}",
             f"PyTorch {about.get('torch', '-')} (CUDA {about.get('cuda')}, cuDNN {about.get('cudnn')}), "
             f"weights {about.get('weights', '-')}. Times are medians of the rounds' medians; the ratio is niti's images/s over those "
             "of PyTorch's fastest mode, the median of the rounds' ratios."]
    if speeds:
        lines.append(f"Limit: {speeds[0] / 1e12:,.0f} TOPS and {speeds[1] / 1e9:,.0f} GB/s, operation by operation.")
    lines += ["", "| network | batch | niti, ms | PyTorch, ms | its mode | ratio | niti, images/s | limit, ms | share of it |",
              "|---|---|---|---|---|---|---|---|---|"]
    cases: dict[tuple, list[dict]] = {}
    for r in records:
        if "model" in r:
            cases.setdefault((r["model"], r["batch"]), []).append(r)
    ratios = {}
    for case, found in sorted(cases.items(), key=lambda x: (x[0][0].startswith("random-"), x[0])):
        line, over = row(case, found, speeds)
        lines.append(line)
        if over:
            ratios[case] = over
    errors = [f"- {r['model']} at {r['batch']}, {r['who']} {r['mode']}: {r['error']}" for r in records if "error" in r]
    return "\n".join([*lines, "", *summary(ratios), *(["", "Not measured:", *errors] if errors else [])])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="the file of the measurements; PyTorch's messages are in FILE.log beside it")
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE", help="print the table of these measurements, and measure nothing")
    parser.add_argument("--niti", type=pathlib.Path, default="build/niti", help="the tool (default: build/niti)")
    parser.add_argument("--python", default=sys.executable, help="the Python that has PyTorch (default: this one)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: each one's own)")
    parser.add_argument("--models", nargs="+", help="only these networks, at every batch (default: all, in the order above)")
    parser.add_argument("--batches", type=int, nargs="*", help=f"default: {' '.join(map(str, BATCHES))}; none: no other than the main ones")
    parser.add_argument("--modes", nargs="+", help="of PyTorch, see pytorch_step.py --help (default: bf16-graph; on the CPU bf16-nhwc)")
    parser.add_argument("--compiled-for", nargs="*", default=[], metavar="MODEL", help="which of the first networks to compile, or all")
    parser.add_argument("--no-autotune", dest="autotune", action="store_false", help="compile in the default mode: about three times as fast")
    parser.add_argument("--algorithms", type=int, default=0, metavar="N", help="that cuDNN tries for each convolution; 0: all (default)")
    parser.add_argument("--weights", choices=("bf16", "float32"), default="bf16", help="PyTorch's (default: bf16)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each case is measured (default: 1)")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long each measurement takes (default: 0.3)")
    parser.add_argument("--budget", type=float, default=1e6, metavar="S", help="stop after so many seconds")
    parser.add_argument("--random", type=int, default=20, help="how many random networks (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="theirs (default: 1)")
    parser.add_argument("--tops", type=float, default=0, help="the device's int8 speed, for the limit (default: known or measured)")
    parser.add_argument("--gbs", type=float, default=0, help="its memory's GB per second (default: known or measured)")
    args = parser.parse_args()
    args.modes = args.modes or (["bf16-nhwc"] if args.device == "cpu" else ["bf16-graph"])
    if bool(args.out) == bool(args.table):
        parser.error("expected --out FILE to measure, or --table FILE")
    if min(args.rounds, *(args.batches or [1])) < 1 or min(args.random, args.algorithms) < 0 or args.seconds < 0.001:
        parser.error("expected --rounds and --batches from 1, --random and --algorithms from 0, --seconds from 0.001")
    if not 0 < args.budget <= 1e6:
        parser.error("expected --budget above 0, at most 1000000")
    return args


def main() -> int:
    args = parse()
    if args.table:
        records = read_records(args.table)
        print(markdown(records, speeds_of(records, args)))
        return 0
    if not args.niti.exists():
        sys.exit(f"compare_networks: {args.niti} is not there: build niti first, or name the tool with --niti")
    args.niti = args.niti.resolve()
    there = subprocess.run([args.niti, "info", "--backend", args.device], capture_output=True, text=True, check=False)
    if there.returncode:
        sys.exit(f"compare_networks: {there.stderr.strip().removeprefix('niti: ')}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(args, pathlib.Path(folder))
        complete = session.run_all()
    print(markdown(session.records, speeds_of(session.records, args)))
    return 0 if complete and not any("error" in r for r in session.records) else 1


if __name__ == "__main__":
    sys.exit(main())
