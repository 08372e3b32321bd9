#!/usr/bin/env python3
"""How fast onnxruntime infers one of niti's models in int8: the peer of `niti bench infer`.

The network is niti's description with random weights, statically quantised: activations u8 with zero point 0 (each comes after
a ReLU, or is the input), weights s8, one scale a tensor, float32 logits. The input is ready as u8. Modes:

  qoperator  QLinearConv, with the ReLU in its saturation at 0; the last layer dequantised by QLinearMatMul's result
  qdq        DequantizeLinear, Conv, Relu, QuantizeLinear: onnxruntime fuses them

  python3 bench/peers/onnxruntime_infer.py --model vgg-small-7 --batch 64 --threads 2

Needs onnxruntime, onnx, NumPy and PyYAML. Exit code: 0, or 1 where anything could not be measured.
"""
import argparse
import json
import statistics
import sys
import time

try:
    import models
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    sys.exit(f"onnxruntime_infer: {error}; it needs: python3 -m pip install onnxruntime onnx numpy pyyaml")

MODES = ("qoperator", "qdq")
OPSET, IR = 17, 8  # old enough for every onnxruntime of the last years
RUNS_MIN, RUNS_MAX, WARM_UP = 5, 1000, 2


class Graph:
    """Nodes and initialisers as they come."""

    def __init__(self, mode: str) -> None:
        self.mode, self.nodes, self.initialisers, self.count = mode, [], [], 0
        self.random = np.random.default_rng(1)

    def constant(self, value: np.ndarray) -> str:
        self.count += 1
        name = f"c{self.count}"
        self.initialisers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes) -> str:
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def scale(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def zero(self, kind: type) -> str:
        return self.constant(np.array(0, kind))

    def product(self, kind: str, x: str, shape: tuple[int, ...], terms: int, last: bool, **attributes) -> str:
        """A convolution (Conv) or a product with weights from the right (MatMul); its output is u8, or float32 where `last`."""
        weights = self.constant(self.random.integers(-127, 128, shape).astype(np.int8))
        # outputs about as large as the inputs: half of them positive
        unit, of_weights = self.scale(1 / 64), self.scale(1 / (73 * terms ** 0.5))
        if self.mode == "qoperator":
            y = self.node("QLinear" + kind, [x, unit, self.zero(np.uint8), weights, of_weights, self.zero(np.int8), unit,
                                             self.zero(np.uint8)], **attributes)
            return self.node("DequantizeLinear", [y, unit, self.zero(np.uint8)]) if last else y
        real = self.node("DequantizeLinear", [x, unit, self.zero(np.uint8)])
        w = self.node("DequantizeLinear", [weights, of_weights, self.zero(np.int8)])
        y = self.node(kind, [real, w], **attributes)
        return y if last else self.node("QuantizeLinear", [self.node("Relu", [y]), unit, self.zero(np.uint8)])

    def maxpool(self, x: str, **attributes) -> str:
        if self.mode == "qoperator":
            return self.node("MaxPool", [x], **attributes)
        real = self.node("DequantizeLinear", [x, self.scale(1 / 64), self.zero(np.uint8)])
        return self.node("QuantizeLinear", [self.node("MaxPool", [real], **attributes), self.scale(1 / 64), self.zero(np.uint8)])


def make_model(model: dict, batch: int, mode: str) -> bytes:
    g, x = Graph(mode), "images"
    h, w, c = model["input"]
    layers = models.layers(model)
    for i, (kind, fields) in enumerate(layers):
        last = i + 1 == len(layers)
        if kind in ("conv", "linear") and not last and layers[i + 1][0] != "relu":
            sys.exit(f"onnxruntime_infer: model \"{model['name']}\": a {kind} without a ReLU after it is not supported here")
        if kind in ("conv", "maxpool"):
            kernel, padding = models.pair(fields["kernel"]), models.pair(fields.get("padding", 0))
            stride = models.pair(fields.get("stride", 1 if kind == "conv" else fields["kernel"]))
            window = {"kernel_shape": kernel, "strides": stride, "pads": padding + padding}
            h, w = models.side(kind, fields, (h, w))
        if kind == "conv":
            x = g.product("Conv", x, (fields["out"], c) + kernel, c * kernel[0] * kernel[1], last, **window)
            c = fields["out"]
        elif kind == "maxpool":
            x = g.maxpool(x, **window)
        elif kind == "flatten":
            x = g.node("Flatten", [x])
            h, w, c = 1, 1, h * w * c
        elif kind == "linear":
            out = model["classes"] if fields["out"] == "classes" else fields["out"]
            x = g.product("MatMul", x, (c, out), c, last)
            c = out
        elif kind not in ("relu", "dropout"):  # one is in the product before it, the other not in inference
            sys.exit(f"onnxruntime_infer: model \"{model['name']}\": layer \"{kind}\" is not known here")
    height, width, channels = model["input"]
    graph = helper.make_graph(
        g.nodes, model["name"], [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, channels, height, width])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, c])], g.initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def measure(model: dict, batch: int, mode: str, threads: int, seconds: float) -> dict:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(make_model(model, batch, mode), options, providers=["CPUExecutionProvider"])
    height, width, channels = model["input"]
    images = {"images": np.random.default_rng(2).integers(0, 256, (batch, channels, height, width)).astype(np.uint8)}
    for _ in range(WARM_UP):
        (logits,) = session.run(None, images)
    if not np.isfinite(logits).all() or np.ptp(logits) == 0:
        raise RuntimeError("every logit is the same: times of such a network say nothing")
    runs: list[float] = []
    begin = time.perf_counter()
    while len(runs) < RUNS_MIN or (len(runs) < RUNS_MAX and time.perf_counter() - begin < seconds):
        at = time.perf_counter()
        session.run(None, images)
        runs.append((time.perf_counter() - at) * 1e3)
    median = statistics.median(runs)
    return {"mode": mode, "batch": batch, "images_per_second": batch / median * 1e3, "runs": len(runs),
            "milliseconds": {"min": min(runs), "median": median, "max": max(runs)}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg-small-7", help="a built-in's name or a file (default: vgg-small-7)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64], metavar="N", help="images a batch (default: 1 64)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE", help="default: both")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="how long to measure each (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    report = {"bench": "inference", "peer": "onnxruntime", "version": onnxruntime.__version__, "model": args.model,
              "threads": args.threads, "results": []}
    model, failed = models.load(args.model), False
    for batch in args.batch:
        for mode in args.modes:
            try:
                result = measure(model, batch, mode, args.threads, args.seconds)
            except Exception as error:  # onnxruntime's own are of many classes; the other modes may still be measured
                print(f"onnxruntime_infer: {mode}, batch {batch}: {error}", file=sys.stderr)
                failed = True
                continue
            report["results"].append(result)
            t = result["milliseconds"]
            print(f"inference of {args.model}, batch {batch}, onnxruntime {report['version']} {mode}, {args.threads} threads: "
                  f"{result['images_per_second']:.1f} images/s; {t['median']:.3f} ms (min {t['min']:.3f}, max {t['max']:.3f}, "
                  f"{result['runs']} runs)", file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps(report))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
