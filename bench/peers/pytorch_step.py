#!/usr/bin/env python3
"""How fast PyTorch trains one of niti's models: the peer of `niti bench step`.

Measures a whole training step (forward, cross-entropy, backward, SGD with momentum) on one batch that is on the device
already: no loader, no augmentation, no conversion of the input. The network is niti's description. Modes:

  tf32       float32 weights and activations, NCHW, TF32 products (on the CPU: plain float32)
  bf16       bfloat16 weights, activations and momentum, channels-last: no casts, which is the fastest
  compiled   bf16 through torch.compile, mode max-autotune (--no-autotune: its default mode, which compiles much faster)
  fp32-nchw, fp32-nhwc, bf16-nchw, bf16-nhwc
             for the CPU: the type of everything, and the order in memory (nhwc: channels-last)
  MODE-graph the same with the whole step in one CUDA graph, update included; compiled-graph: max-autotune-no-cudagraphs, since
             a CUDA graph cannot hold those that max-autotune makes

With --weights float32, bf16 and compiled keep float32 weights and compute under autocast, as training usually does.

  python3 bench/peers/pytorch_step.py --model vgg-small-7 --batch 256 1024
  python3 bench/peers/pytorch_step.py --batch 64 --device cpu --threads 2 --modes fp32-nchw bf16-nhwc
  python3 bench/peers/pytorch_step.py --batch 1024 --modes compiled-graph --seconds 10 --json

Needs PyYAML and PyTorch: 2.3 or later for CUDA, 1.13 or later for the CPU. A time is the median of many runs, each of as many
steps as take 20 ms, between CUDA events (the CPU: by its clock). Exit code: 0, or 1 where anything could not be measured.
"""
import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

try:
    import models
    import networks
    import torch
except ImportError as error:
    sys.exit(f"pytorch_step: {error}; it needs PyTorch and PyYAML: python3 -m pip install torch pyyaml")

CPU_MODES = ("fp32-nchw", "fp32-nhwc", "bf16-nchw", "bf16-nhwc")
MODES = ("tf32", "bf16", "compiled", "tf32-graph", "bf16-graph", "compiled-graph") + CPU_MODES
RUN_MS = 20.0
WARM_UP = 11  # steps: cuDNN tries its algorithms, torch.compile its kernels, momentum is allocated
CPU_WARM_UP = 2
RUNS_MIN, RUNS_MAX = 5, 1000
CPU_RUNS_MIN = 2  # a step may take many seconds

Step = Callable[[], None]


def make_network(model: dict, channels_last: bool) -> torch.nn.Sequential:
    network = networks.build(model, channels_last, dropout_per="element")
    for module in networks.products(network):
        torch.nn.init.kaiming_normal_(module.weight)
    return network


def make_step(model: dict, batch: int, mode: str, args: argparse.Namespace, device: torch.device) -> tuple[Step, Callable[[], float]]:
    """A step, warmed up and (with -graph) captured; and the loss of the last one."""
    kind, graph = mode.removesuffix("-graph"), mode.endswith("-graph")
    channels_last = kind not in ("tf32", "fp32-nchw", "bf16-nchw")
    half = not kind.startswith(("tf32", "fp32"))
    autocast = half and args.weights == "float32"
    dtype = torch.bfloat16 if half and not autocast else torch.float32
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(1)
    network = make_network(model, channels_last).to(device=device, dtype=dtype, memory_format=layout)
    height, width, channels = model["input"]
    images = torch.randn(batch, channels, height, width, device=device)
    images = images.to(dtype=torch.bfloat16 if half else dtype, memory_format=layout)
    labels = torch.arange(batch, device=device) % model["classes"]
    # one kernel for all weights; on the CPU there is such a kernel from PyTorch 2.4 on
    how = {"fused": True} if device.type == "cuda" else {"foreach": True}
    update = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, **how)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(x).float(), y)

    compute = loss_of
    if kind == "compiled":
        torch.compiler.reset()
        tuned = "max-autotune-no-cudagraphs" if graph else "max-autotune"
        compute = torch.compile(loss_of, dynamic=False, mode=tuned if args.autotune else "default")
    loss = torch.zeros((), device=device)

    def step() -> None:
        # gradients are None, not 0: backward writes them and adds nothing
        update.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast, cache_enabled=not graph):
            value = compute(images, labels)
        value.backward()
        update.step()
        loss.copy_(value.detach())

    if not graph:
        for _ in range(WARM_UP if device.type == "cuda" else CPU_WARM_UP):
            step()
        return step, loss.item
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    update.zero_grad(set_to_none=True)  # so that the graph's gradients are in its own memory
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, stream=side):
        step()

    def replay(_keep: Step = step) -> None:  # the graph works in the memory of what `step` refers to
        captured.replay()

    return replay, loss.item


def time_run(step: Step, repeat: int, device: torch.device) -> float:
    """Milliseconds a step, over `repeat` of them."""
    if device.type == "cpu":
        begin = time.perf_counter()
        for _ in range(repeat):
            step()
        return (time.perf_counter() - begin) * 1e3 / repeat
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeat):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeat


@dataclass
class Prepared:
    """A step that is warm, with how many of them make a run."""

    step: Step
    loss: Callable[[], float]
    repeat: int
    seconds: float  # that this took


def prepare(model: dict, batch: int, mode: str, args: argparse.Namespace, device: torch.device) -> Prepared:
    begin = time.perf_counter()
    step, loss = make_step(model, batch, mode, args, device)
    cpu = device.type == "cpu"
    once = min(time_run(step, 1, device) for _ in range(1 if cpu else 3))
    repeat = max(1, min(1000, round(RUN_MS / once)))
    if not cpu:
        time_run(step, repeat, device)
    return Prepared(step, loss, repeat, time.perf_counter() - begin)


def measure(prepared: Prepared, batch: int, mode: str, seconds: float, device: torch.device) -> dict:
    begin, runs = time.perf_counter(), []
    least = CPU_RUNS_MIN if device.type == "cpu" else RUNS_MIN
    while len(runs) < least or (len(runs) < RUNS_MAX and time.perf_counter() - begin < seconds):
        runs.append(time_run(prepared.step, prepared.repeat, device))
    last = prepared.loss()
    if last != last or last in (float("inf"), float("-inf")):
        raise RuntimeError(f"the loss is {last}: times of such a step say nothing")
    median = statistics.median(runs)
    return {"mode": mode, "batch": batch, "images_per_second": batch / median * 1e3, "runs": len(runs),
            "steps_a_run": prepared.repeat, "milliseconds": {"min": min(runs), "median": median, "max": max(runs)}, "loss": last,
            "prepare_seconds": prepared.seconds}


def set_up(device: torch.device, threads: int | None, algorithms: int) -> None:
    """What makes PyTorch fast. Ends the program where the device is not there."""
    if threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        sys.exit(f"pytorch_step: PyTorch {torch.__version__} sees no CUDA device here (--device cpu measures the CPU)")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        sys.exit(f"pytorch_step: there is no {device}: the last CUDA device is cuda:{torch.cuda.device_count() - 1}")
    torch.cuda.set_device(index)
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = algorithms


def describe(device: torch.device) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "device": name}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg-small-7", help="a built-in's name or a file (default: vgg-small-7)")
    parser.add_argument("--batch", type=int, nargs="+", default=[256], metavar="N", help="images a batch (default: 256)")
    parser.add_argument("--modes", nargs="+", choices=MODES, metavar="MODE", help="default: all -graph; on the CPU: fp32- and bf16-")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: PyTorch's)")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="how long to measure each (default: 5)")
    parser.add_argument("--weights", choices=("bf16", "float32"), default="bf16", help="of bf16 and compiled (default: bf16)")
    parser.add_argument("--no-autotune", dest="autotune", action="store_false", help="compile in torch.compile's default mode")
    parser.add_argument("--algorithms", type=int, default=0, metavar="N", help="that cuDNN tries for each convolution; 0: all (default)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    device = torch.device(args.device)
    modes = args.modes or (CPU_MODES if device.type == "cpu" else [mode for mode in MODES if mode.endswith("-graph")])
    if min(args.batch) < 1:
        parser.error("--batch: expected at least 1")
    if device.type == "cpu" and any(mode.endswith("-graph") for mode in modes):
        parser.error("a CUDA graph needs --device cuda")
    set_up(device, args.threads, args.algorithms)
    about = describe(device)
    name = about["device"]
    report = {"bench": "training step", "peer": "PyTorch", **about, "model": args.model, "weights": args.weights, "results": []}
    model, failed = models.load(args.model), False
    for batch in args.batch:
        for mode in modes:
            try:
                result = measure(prepare(model, batch, mode, args, device), batch, mode, args.seconds, device)
            except RuntimeError as error:  # out of memory, a kernel that does not compile: the others may still be measured
                print(f"pytorch_step: {mode}, batch {batch}: {error}", file=sys.stderr)
                failed = True
                continue
            report["results"].append(result)
            t = result["milliseconds"]
            print(f"training step of {args.model}, batch {batch}, PyTorch {torch.__version__} {mode}, {name}: "
                  f"{result['images_per_second']:.1f} images/s; {t['median']:.3f} ms (min {t['min']:.3f}, max {t['max']:.3f}, "
                  f"{result['runs']} runs)", file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps(report))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
