#!/usr/bin/env python3
"""Measures PyTorch's training steps on request, in one process, so that PyTorch and the device start once for many networks.

A request is a line of JSON on standard input, {"model": NAME OR FILE, "batch": N, "mode": MODE}, and its answer a line of JSON on
standard output: a result as pytorch_step.py makes it, or {"error": TEXT}. The first line says what PyTorch and device these are.
What one network and batch need stays for the next request, and is given back when one comes for another. After an error other
than a lack of memory the process ends, since its device may be of no use. bench/compare_networks.py starts it.
"""
import argparse
import gc
import json
import os
import sys

import models
import pytorch_step
import torch


class Server:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        self.case: tuple | None = None
        self.prepared: dict[str, pytorch_step.Prepared] = {}

    def give_back(self) -> None:
        compiled = any(mode.startswith("compiled") for mode in self.prepared)
        self.prepared.clear()
        if compiled:
            torch.compiler.reset()  # its caches keep networks
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, request: dict) -> pytorch_step.Prepared:
        case, mode = (request["model"], request["batch"]), request["mode"]
        if case != self.case:
            self.give_back()
            self.case = case
        if mode not in self.prepared:
            model = models.load(request["model"])
            try:
                self.prepared[mode] = pytorch_step.prepare(model, request["batch"], mode, self.args, self.device)
            except torch.cuda.OutOfMemoryError:
                if not self.prepared:
                    raise
                self.give_back()  # the other modes' memory may be what is missing
                self.prepared[mode] = pytorch_step.prepare(model, request["batch"], mode, self.args, self.device)
        return self.prepared[mode]

    def answer(self, request: dict) -> dict:
        return pytorch_step.measure(self.prepare(request), request["batch"], request["mode"], self.args.seconds, self.device)


def limits(device: torch.device) -> dict:
    """Products per second of int8, each of two operations, and bytes per second, as large work reaches them."""
    if device.type != "cuda" or not hasattr(torch, "_int_mm"):
        return {}
    a = torch.ones(8192, 8192, dtype=torch.int8, device=device)
    b = torch.ones(1 << 30, dtype=torch.int8, device=device)
    c = torch.empty_like(b)
    try:
        torch._int_mm(a, a.t())
    except RuntimeError:
        return {}
    times = [min(pytorch_step.time_run(step, 10, device) for _ in range(5))
             for step in (lambda: torch._int_mm(a, a.t()), lambda: c.copy_(b))]
    return {"operations_per_second": 2 * 8192**3 / times[0] * 1e3, "bytes_per_second": 2 * (1 << 30) / times[1] * 1e3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--modes", nargs="+", choices=pytorch_step.MODES, help="those that requests will name")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--weights", default="bf16")
    parser.add_argument("--no-autotune", dest="autotune", action="store_false")
    parser.add_argument("--algorithms", type=int, default=0)
    parser.add_argument("--limits", action="store_true", help="say in the first line what the device reaches")
    args = parser.parse_args()
    if args.device == "cpu" and any(mode.endswith("-graph") for mode in args.modes or []):
        parser.error("a CUDA graph needs a CUDA device")
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # so that whatever PyTorch prints is no answer
    server = Server(args)
    pytorch_step.set_up(server.device, args.threads, args.algorithms)
    about = pytorch_step.describe(server.device)
    print(json.dumps({**about, **(limits(server.device) if args.limits else {})}), file=answers)
    server.give_back()
    for line in sys.stdin:
        try:
            print(json.dumps(server.answer(json.loads(line))), file=answers)
        except torch.cuda.OutOfMemoryError as error:
            print(json.dumps({"error": f"out of memory: {error}"}), file=answers)
            server.give_back()
        except Exception as error:  # the networks that follow may still be measured, by another process
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
