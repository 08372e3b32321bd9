"""The measuring part of compare_cpu.sh, which says what it measures: niti and its peers in turns, one process each."""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator

import table

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import models  # noqa: E402

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
PYTORCH = {"PyTorch fp32": ["fp32-nchw", "fp32-nhwc"], "PyTorch bf16": ["bf16-nchw", "bf16-nhwc"]}
ONNXRUNTIME = {"onnxruntime int8": ["qoperator", "qdq"]}
ONEDNN = {"fp32": "oneDNN fp32 direct", "winograd": "oneDNN fp32 Winograd", "bf16": "oneDNN bf16", "int8": "oneDNN int8"}


BESIDE = " beside a busy process"  # what a case is called in which another process keeps one core busy


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Another process that keeps the last usable core busy, at the same priority."""
    core = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


class Session:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.round, self.records = args, 0, []
        self.best: dict[tuple, str] = {}  # of a peer's modes, by its name and case
        self.versions: dict[str, str] = {}

    def call(self, command: list[str], threads: int, text: str | None = None) -> dict | None:
        """What a command prints as JSON; None, and why on standard error, where it fails."""
        done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            print(f"compare_cpu: {' '.join(map(str, command))}: {(done.stderr.strip() or 'no result').splitlines()[-1]}",
                  file=sys.stderr)
            return None

    def add(self, case: tuple, who: str, mode: str, result: dict) -> None:
        what, model, batch, threads = case
        self.records.append({"round": self.round, "what": what, "model": model, "batch": batch, "threads": threads, "who": who,
                             "mode": mode, "images_per_second": result["images_per_second"],
                             "milliseconds": result["milliseconds"]["median"]})
        print(f"round {self.round} of {self.args.rounds}: {what} of {model}, batch {batch}, {threads} threads: {who} {mode}: "
              f"{result['images_per_second']:.1f} images/s", file=sys.stderr, flush=True)

    def niti(self, case: tuple, isa: str = "auto") -> None:
        what, model, batch, threads = case
        result = self.call([self.args.niti, "bench", "infer" if what.startswith("inference") else "step", "--backend", "cpu", "--isa", isa,
                            "--model", models.find(model), "--batch", batch, "--threads", threads, "--json",
                            "--seconds", max(1, round(self.args.seconds))], threads)
        if result:
            self.add(case, "niti" if isa == "auto" else f"niti {isa}", result["device"].split(", ")[1], result)
            self.versions["niti"] = result["device"].split(", ")[1]

    def python_peer(self, case: tuple, command: list[str], groups: dict[str, list[str]]) -> None:
        """A peer of several modes: all of them in the first round, then the faster one of each group."""
        _, model, batch, threads = case
        wanted = {self.best[case, who]: who for who in groups if (case, who) in self.best}
        wanted = wanted or {mode: who for who, modes in groups.items() for mode in modes}
        report = self.call([*command, "--model", model, "--batch", batch, "--threads", threads, "--seconds", self.args.seconds,
                            "--json", "--modes", *wanted], threads)
        fastest: dict[str, dict] = {}
        for result in report["results"] if report else []:
            who = wanted[result["mode"]]
            self.add(case, who, result["mode"], result)
            fastest[who] = max(fastest.get(who, result), result, key=lambda r: r["images_per_second"])
            self.versions[who.split()[0]] = report.get("version") or report.get("torch")
        self.best.update({(case, who): result["mode"] for who, result in fastest.items()})

    def onednn(self, case: tuple, kinds: list[str]) -> None:
        """The sum over the convolutions alone; with Winograd, the faster of both for each kernel."""
        _, model, batch, threads = case
        lines = [[c["h"], c["w"], c["c"], c["k"], *c["kernel"], *c["stride"], *c["padding"], int(c["first"])]
                 for c in models.convolutions(models.load(model))]
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        direct = None
        for kind in kinds:
            result = self.call([self.args.onednn, kind, batch, self.args.seconds], threads, text)
            if not result:
                continue
            if kind == "fp32":
                direct = result["kernels"]
            if kind == "winograd" and direct:
                total = sum(min(a["milliseconds"], b["milliseconds"]) for a, b in zip(result["kernels"], direct))
                result = {**result, "images_per_second": batch / total * 1e3, "milliseconds": {"median": total}}
            self.add(case, ONEDNN[kind], "convolutions only", result)
            self.versions["oneDNN"] = result["version"]

    def step(self, case: tuple) -> None:
        """niti's training step and PyTorch's."""
        self.niti(case)
        if "pytorch" in self.args.peers:
            self.python_peer(case, [sys.executable, PEERS / "pytorch_step.py", "--device", "cpu"], PYTORCH)

    def run_round(self) -> None:
        a = self.args
        for threads in a.threads:
            for model in a.models:
                for batch in a.batches:
                    case = ("training step", model, batch, threads)
                    self.step(case)
                    if a.busy:
                        with busy_core():
                            self.step(("training step" + BESIDE, *case[1:]))
                    if model in a.avx2_models:
                        self.niti(case, "avx2")
                    if "onednn" in a.peers and model in a.onednn_models:
                        self.onednn(case, ["fp32", "winograd", "bf16"])
            for model in a.infer_models:
                for batch in a.infer_batches:
                    case = ("inference", model, batch, threads)
                    self.niti(case)
                    if "onnxruntime" in a.peers:
                        self.python_peer(case, [a.venv / "bin/python", PEERS / "onnxruntime_infer.py"], ONNXRUNTIME)
                    if "onednn" in a.peers and model in a.onednn_models:
                        self.onednn(case, ["int8"])

    def report(self) -> dict:
        return {"date": datetime.date.today().isoformat(), "machine": machine(), "versions": self.versions,
                "rounds": self.round, "seconds_each": self.args.seconds, "records": self.records}


def machine() -> dict:
    """The processor, what of it may be used, and the system."""
    fields: dict[str, str] = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
    has = (fields.get("flags") or fields.get("Features", "")).split()
    release = platform.freedesktop_os_release() if hasattr(platform, "freedesktop_os_release") else {}
    return {"processor": fields.get("model name", platform.machine()), "features": [word for word in known if word in has],
            "cores": len(os.sched_getaffinity(0)), "system": release.get("PRETTY_NAME", platform.system()),
            "kernel": platform.release(), "load_at_start": os.getloadavg()[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("niti", "onednn", "venv", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    for name in ("batches", "threads", "infer-batches"):
        parser.add_argument(f"--{name}", type=int, nargs="*", default=[])
    for name in ("models", "infer-models", "onednn-models", "avx2-models", "peers"):
        parser.add_argument(f"--{name}", nargs="*", default=[])
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    args.niti = args.niti.resolve()
    session = Session(args)
    start = machine()
    if start["load_at_start"] > 0.3 * start["cores"]:
        print(f"compare_cpu: the load is {start['load_at_start']:.2f}: others are at work here, and the peers suffer from it most",
              file=sys.stderr)
    for number in range(1, args.rounds + 1):
        session.round = number
        session.run_round()
        report = session.report()
        report["machine"] = start
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table.markdown(json.loads(args.out.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
