#!/usr/bin/env python3
"""How well PyTorch trains one of niti's recipes: the float twin of `niti train`.

The twin reads the recipe and its model from niti's YAML files and trains the same network on the same batches: each epoch's
order, crops, flips, colours, cutout and mixup, the validation split and the initial weights are niti's own, drawn from the recipe's seed.
So is the learning rate of every step. What differs is the arithmetic: float32, TF32 products, or bfloat16 under autocast. Update sgd is
torch.optim.SGD, with weight decay on the weights of convolutions and linear layers alone; layers that `freeze` names are not
trained. What niti would refuse is an error here too. A recipe of update niti needs another update and loss (the third example).

  python3 bench/peers/pytorch_train.py resnet18-cifar10 --data cifar-10-batches-bin
  python3 bench/peers/pytorch_train.py resnet20-cifar10 --data cifar-10-batches-bin --precision fp32 --set epochs=30 --seed 2
  python3 bench/peers/pytorch_train.py vgg-small-7-cifar10 --data cifar-10-batches-bin \\
    --set 'update={kind: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.0005, schedule: cosine}' --set loss=softmax

Prints a line per epoch and at the end one line of JSON with the final and the best accuracy in percent. Where the recipe holds
images out for validation, they are what is scored, and the test images are left alone.

Needs PyYAML, NumPy and PyTorch (2.3 or later for CUDA, 1.13 or later for the CPU), and Pillow for folders of images.
Exit code: 0, or 1 where the data cannot be read or the loss is no longer a number.
"""
import argparse
import json
import math
import platform
import sys
import time

try:
    import batches
    import images
    import networks
    import models
    import numpy as np
    import recipes
    import torch
except ImportError as error:
    sys.exit(f"pytorch_train: {error}; it needs: python3 -m pip install torch numpy pyyaml pillow")

from torch.nn import functional


class Feed:
    """A split on the device, as bytes; and its batches, which are cut or scaled, mirrored, coloured and normalised there."""

    def __init__(self, split: images.Split, shape: tuple[int, int, int], data: dict, scale: tuple, device: torch.device) -> None:
        self.split, self.data, self.device, self.count, self.shape = split, data, device, len(split.labels), shape
        self.height, self.width = (side + 2 * data["pad"] - window for side, window in zip((split.height, split.width), shape))
        black = np.zeros((1, split.pixels.shape[1]), np.uint8)  # what lies around an image
        self.pixels = torch.from_numpy(np.concatenate((split.pixels, black))).to(device)
        self.labels = self.put(split.labels)
        self.rows, self.columns = self.put(np.arange(shape[0]))[None, :, None], self.put(np.arange(shape[1]))[None, None, :]
        self.factor, self.offset = scale
        self.strengths = recipes.strengths(data)
        contrast = self.strengths[1] > 0
        self.greys = batches.mean_greys(split.pixels, split.first, split.height * split.width) if contrast else np.zeros(self.count, np.int64)

    def put(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)

    def windows(self, seed: int, epoch: int | None) -> torch.Tensor:
        """For each image, [6][N][1][1]: first pixel, height, width, the top and left of its window, and whether it is mirrored."""
        random = epoch is not None and self.data["crop"] == "random"
        if min(self.height.min(), self.width.min()) < 0:
            sys.exit(f"data: an image is smaller than the network's input, {self.shape[0]}x{self.shape[1]} (expected more padding)")
        top, left = batches.corners(seed, epoch, self.height, self.width) if random else (self.height // 2, self.width // 2)
        pad = self.data["pad"]
        columns = (self.split.first, self.split.height, self.split.width, top - pad, left - pad, self.flips(seed, epoch))
        return self.put(np.stack(columns))[:, :, None, None]

    def flips(self, seed: int, epoch: int | None) -> np.ndarray:
        mirrored = epoch is not None and self.data["flip"]
        return batches.flips(seed, epoch, self.count) if mirrored else np.zeros(self.count, bool)

    def cut(self, seed: int, epoch: int | None):
        """A function from numbers of images to their pixels [n][H][W][C]."""
        windows = self.windows(seed, epoch)
        return lambda chosen: self.pixels[batches.window_index(*windows[:, self.put(chosen)], self.rows, self.columns, len(self.pixels) - 1)]

    def scaled(self, seed: int, epoch: int):
        """The same of resized crops."""
        scale, aspect = ([recipes.share(end) for end in self.data[key]] for key in ("scale", "aspect"))
        found, flip = batches.rectangles(seed, epoch, self.split.height, self.split.width, scale, aspect), self.flips(seed, epoch)

        def take(chosen: np.ndarray) -> torch.Tensor:
            top, left, height, width = found[:, chosen]
            down, down_total = batches.scaling_weights(height, self.shape[0])
            across, across_total = batches.scaling_weights(width, self.shape[1])
            across[flip[chosen]] = across[flip[chosen], ::-1]
            y, x = (np.minimum(np.arange(sides.max())[None, :], sides[:, None] - 1) for sides in (height, width))
            first = self.split.first[chosen] + top * self.split.width[chosen] + left
            index = first[:, None, None] + (y * self.split.width[chosen, None])[:, :, None] + x[:, None, :]
            parts = self.pixels[self.put(index)].double()  # exact: sums stay below 2^53
            weights = [torch.from_numpy(some).to(self.device) for some in (down, across)]
            sums = torch.einsum("nyj,njxc->nyxc", weights[0], torch.einsum("nxi,njic->njxc", weights[1], parts)).long()
            total = self.put(down_total * across_total)[:, None, None, None]
            return (2 * sums + total) // (2 * total)

        return take

    def batches(self, size: int, seed: int, epoch: int | None = None):
        """Images [n][C][H][W] (float32, channels-last in memory), labels, and where images are mixed how much of each is the next one of
        the batch, [n]; epoch None: in order, centred, not changed."""
        trains, data = epoch is not None, self.data
        take = self.scaled(seed, epoch) if trains and data["crop"] == "resized" else self.cut(seed, epoch)
        order = batches.order(seed, epoch, self.count) if trains else np.arange(self.count)
        colours = self.put(batches.colours(seed, epoch, self.greys, self.strengths)) if trains and any(self.strengths) else None
        squares = self.put(batches.squares(seed, epoch, self.count, data["cutout"], *self.shape[:2])) if trains and data["cutout"] else None
        mixes = trains and data["mixup"]
        shares = self.put(batches.shares(seed, epoch, self.count, data["mixup"])) / 256 if mixes else None
        for at in range(0, self.count, size):
            chosen = order[at:at + size]
            numbers = self.put(chosen)
            pixels = take(chosen)
            if colours is not None:
                pixels = batches.coloured(pixels.int(), *colours[:, numbers, None, None, None])
            values = pixels.float() * self.factor + self.offset
            if squares is not None:
                values = values * batches.uncovered(*squares[:, numbers, None, None], data["cutout"], self.rows, self.columns)[..., None]
            part = shares[numbers] if mixes else None
            if mixes:
                values = values + part[:, None, None, None] * (values.roll(-1, 0) - values)
            yield values.permute(0, 3, 1, 2), self.labels[numbers], part


def statistics(split: images.Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel as shares of 255, with six decimals."""
    count, sums, squares = 0, 0.0, 0.0
    for first, height, width in zip(split.first, split.height, split.width):
        values = split.pixels[first:first + height * width].astype(np.float64)
        count, sums, squares = count + len(values), sums + values.sum(0), squares + (values**2).sum(0)
    mean = sums / count
    return np.round(mean / 255, 6), np.round(np.sqrt(squares / count - mean**2) / 255, 6)


def read_splits(recipe: dict, path: str, shape: tuple[int, int, int]) -> dict[str, images.Split]:
    """What is trained on, "train" ("sources": what its resized crops are cut out of), and what is scored: "validation" where the
    recipe holds images out, else "test"."""
    splits = images.read(path, recipe["data"], shape)
    train = splits["train"]
    wanted = recipes.validation_images(recipe["data"]["validation"], len(train.labels))
    if not wanted:
        return splits
    held = batches.held_out(recipe["seed"], train.labels, wanted)
    sources = {"sources": splits["sources"].take(~held)} if "sources" in splits else {}
    return {"train": train.take(~held), "validation": train.take(held), **sources}


def read_feeds(recipe: dict, path: str, shape: tuple[int, int, int], device: torch.device) -> dict[str, Feed]:
    splits, data = read_splits(recipe, path, shape), recipe["data"]
    mean, std = statistics(splits["train"]) if data["mean"] == "auto" else (np.array(data["mean"]), np.array(data["std"]))
    scale = tuple(torch.from_numpy(value.astype(np.float32)).to(device) for value in (1 / (255 * std), -mean / std))
    feeds = {name: Feed(split, shape, data, scale, device) for name, split in splits.items()}
    feeds["train"] = feeds.pop("sources", feeds["train"])
    return feeds


def set_initial_weights(network: torch.nn.Module, model: dict, seed: int) -> None:
    """niti's, bit for bit; biases are 0."""
    nodes = [node for node in models.nodes(model) if node.weight_shape()]
    for module, node in zip(networks.products(network), nodes, strict=True):
        weights = torch.from_numpy(batches.initial_weights(seed, node.number, node.weight_shape(), node.fans()))
        with torch.no_grad():
            module.weight.copy_(weights.permute(0, 3, 1, 2) if weights.ndim == 4 else weights)
            if module.bias is not None:
                module.bias.zero_()


def make_network(recipe: dict, model: dict, args: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(recipe["seed"])
    network = networks.build(model, dropout_per=args.dropout_per)
    if args.init == "niti":
        set_initial_weights(network, model, recipe["seed"])
    for module, is_frozen in zip(networks.weighted(network), models.frozen(model, recipe["freeze"]), strict=True):
        module.requires_grad_(not is_frozen)  # a norm still takes the statistics of each batch, as in niti
    return network.to(device=device, memory_format=torch.channels_last)


def make_update(network: torch.nn.Module, update: dict, device: torch.device) -> torch.optim.SGD:
    trained = [p for p in network.parameters() if p.requires_grad]
    products = [module.weight for module in networks.products(network)]
    decayed = [p for p in trained if any(p is weight for weight in products)]
    others = [p for p in trained if not any(p is weight for weight in products)]
    groups = [{"params": decayed, "weight_decay": float(update["weight_decay"])}, {"params": others, "weight_decay": 0.0}]
    how = {"fused": True} if device.type == "cuda" else {"foreach": True}
    return torch.optim.SGD([group for group in groups if group["params"]], lr=0.0, momentum=float(update["momentum"]),
                           nesterov=bool(update["nesterov"]), **how)


class Scores:
    """Sums of losses (of whole labels, not smoothed) and of right answers; they stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.sums, self.count = torch.zeros(2, dtype=torch.float64, device=device), 0

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        self.sums += torch.stack((loss.double(), (logits.argmax(1) == labels).sum().double()))
        self.count += len(labels)

    def means(self) -> tuple[float, float]:
        """Loss, and accuracy in percent."""
        loss, right = self.sums.tolist()
        return loss / self.count, 100 * right / self.count


class Passes:
    """Forward and backward passes of full batches on a CUDA device, recorded once and replayed, so that a step costs the processor little."""

    def __init__(self, run: "Run", x: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor | None) -> None:
        self.inputs = [None if t is None else t.clone() for t in (x, labels, shares)]
        network, before = run.network, {name: value.clone() for name, value in run.network.state_dict().items()}
        random = torch.cuda.get_rng_state(run.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is chosen or compiled in the first passes must not be recorded
            for _ in range(3):
                network.zero_grad(set_to_none=True)
                run.loss(run.logits(self.inputs[0]), *self.inputs[1:]).backward()
        torch.cuda.current_stream().wait_stream(side)
        network.load_state_dict(before)  # running statistics have moved
        torch.cuda.set_rng_state(random, run.device)
        network.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = run.logits(self.inputs[0])
            run.loss(self.logits, *self.inputs[1:]).backward()
        self.gradients = [p.grad for p in network.parameters()]

    def replay(self, run: "Run", *batch: torch.Tensor | None) -> torch.Tensor:
        for own, given in zip(self.inputs, batch):
            if own is not None:
                own.copy_(given)
        for p, gradient in zip(run.network.parameters(), self.gradients):
            p.grad = gradient
        self.graph.replay()
        return self.logits


class Run:
    def __init__(self, recipe: dict, model: dict, args: argparse.Namespace, device: torch.device) -> None:
        self.recipe, self.device, self.half = recipe, device, args.precision == "bf16"
        self.feeds = read_feeds(recipe, args.data, tuple(model["input"]), device)
        self.scored = "validation" if "validation" in self.feeds else "test"
        self.network = make_network(recipe, model, args, device)
        self.update, self.clip_norm = make_update(self.network, recipe["update"], device), float(recipe["update"]["clip_norm"])
        self.compute = torch.compile(self.network, dynamic=False) if args.compile else self.network
        self.records, self.passes = args.graph, None
        steps_per_epoch = -(-self.feeds["train"].count // recipe["batch"])
        self.steps = min(recipe["epochs"] * steps_per_epoch, recipe["max_steps"] or math.inf)
        self.rate, self.step = recipes.Rate(recipe["update"], steps_per_epoch, self.steps), 0
        self.samples, self.steps_per_epoch = set(recipes.sample_steps(recipe.get("average"), steps_per_epoch, self.steps)), steps_per_epoch
        self.sums = [torch.zeros_like(p, dtype=torch.float64) for p in self.network.parameters()] if self.samples else []

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.compute(x).float()

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor | None) -> torch.Tensor:
        smoothing = float(self.recipe["label_smoothing"])
        if shares is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        own, other = (functional.cross_entropy(logits, some, label_smoothing=smoothing, reduction="none") for some in (labels, labels.roll(-1)))
        return (own + shares * (other - own)).mean()

    def both_passes(self, x: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor | None) -> torch.Tensor:
        """Leaves gradients; returns the logits, which the next call may overwrite."""
        if self.records and len(x) == self.recipe["batch"]:
            self.passes = self.passes or Passes(self, x, labels, shares)
            return self.passes.replay(self, x, labels, shares)
        self.update.zero_grad(set_to_none=True)
        logits = self.logits(x)
        self.loss(logits, labels, shares).backward()
        return logits

    def train_epoch(self, epoch: int) -> tuple[float, float, int]:
        """Loss, accuracy, and how many images there were: max_steps may end the run within the epoch."""
        scores = Scores(self.device)
        self.network.train()
        for x, labels, shares in self.feeds["train"].batches(self.recipe["batch"], self.recipe["seed"], epoch):
            if self.step == self.steps:
                break
            for group in self.update.param_groups:
                group["lr"] = self.rate.value(self.step)
            logits = self.both_passes(x, labels, shares)
            if self.clip_norm:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
            self.update.step()
            scores.add(logits.detach(), labels)
            self.step += 1
            if self.step in self.samples:
                self.add_sample()
        return *scores.means(), scores.count

    @torch.no_grad()
    def add_sample(self) -> None:
        for total, p in zip(self.sums, self.network.parameters()):
            total += p

    @torch.no_grad()
    def evaluate_averaged(self) -> tuple[float, float]:
        """Of the mean of the samples; as in niti, running statistics go on from the final ones over at most 100 batches of the first
        epoch that is not begun. Leaves the mean in the network."""
        for total, p in zip(self.sums, self.network.parameters()):
            p.copy_(total / len(self.samples))
        self.network.train()
        epoch = -(-self.steps // self.steps_per_epoch)
        for i, (x, _, _) in enumerate(self.feeds["train"].batches(self.recipe["batch"], self.recipe["seed"], epoch)):
            if i == 100:
                break
            self.logits(x)
        return self.evaluate()

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        scores = Scores(self.device)
        self.network.eval()
        for x, labels, _ in self.feeds[self.scored].batches(self.recipe["batch"], self.recipe["seed"]):
            logits = self.logits(x)
            if self.recipe["evaluation"]["flip"]:  # the mean, as in niti's loss
                logits = (logits + self.logits(x.flip(3))) / 2
            scores.add(logits, labels)
        return scores.means()

    def epochs(self):
        """Trains, and yields a row for each epoch."""
        for epoch in range(self.recipe["epochs"]):
            if self.step == self.steps:
                return
            begin = time.perf_counter()
            loss, accuracy, count = self.train_epoch(epoch)
            middle = time.perf_counter()
            scored_loss, scored = self.evaluate()
            yield {"epoch": epoch + 1, "images": count, "train_loss": loss, "train": accuracy, "loss": scored_loss, "accuracy": scored,
                   "train_seconds": middle - begin, "seconds": time.perf_counter() - begin}


def choose_device(args: argparse.Namespace) -> torch.device:
    try:
        device = torch.device(args.device)
    except RuntimeError:
        device = None
    if not device or device.type not in ("cpu", "cuda"):
        sys.exit(f"pytorch_train: --device {args.device}: expected cuda, cuda:N or cpu")
    if args.compile and not hasattr(torch, "compile"):
        sys.exit(f"pytorch_train: PyTorch {torch.__version__} has no torch.compile (expected 2.0 or later)")
    if args.graph and device.type != "cuda":
        sys.exit(f"pytorch_train: --graph with --device {args.device}: expected a CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(f"pytorch_train: PyTorch {torch.__version__} sees no CUDA device here (--device cpu trains on the CPU)")
        if (device.index or 0) >= torch.cuda.device_count():
            sys.exit(f"pytorch_train: --device {args.device}: expected a number below {torch.cuda.device_count()}")
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = args.precision != "fp32"
    torch.set_float32_matmul_precision("highest" if args.precision == "fp32" else "high")
    return device


def summary(run: Run, rows: list[dict], recipe: dict, model: dict, args: argparse.Namespace, device: torch.device) -> dict:
    best = max(rows, key=lambda row: row["accuracy"])
    cuda = device.type == "cuda"
    return {
        "bench": "training run", "peer": "PyTorch", "recipe": recipe["name"], "model": model["name"], "precision": args.precision,
        "init": args.init, "seed": recipe["seed"], "batch": recipe["batch"], "epochs": len(rows), "steps": run.step, "scored": run.scored,
        "images": {name: feed.count for name, feed in run.feeds.items()},
        "weights": sum(p.numel() for p in run.network.parameters()), f"final_{run.scored}_accuracy": rows[-1]["accuracy"],
        f"best_{run.scored}_accuracy": best["accuracy"], "best_epoch": best["epoch"], f"final_{run.scored}_loss": rows[-1]["loss"],
        "images_per_second": batches.images_per_second(rows),
        "training_seconds": sum(row["seconds"] for row in rows), "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "compiled": args.compile, "graph": args.graph, "dropout_per": args.dropout_per, "label_smoothing": recipe["label_smoothing"],
        "evaluation": recipe["evaluation"],
        "update": recipe["update"], "data": recipe["data"], "torch": torch.__version__, "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu, {torch.get_num_threads()} threads",
    }


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a built-in recipe's name or a file")
    parser.add_argument("--data", required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the recipe, as niti's --set")
    parser.add_argument("--epochs", type=int, metavar="N", help="the same as --set epochs=N")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    parser.add_argument("--precision", choices=("bf16", "fp32", "tf32"), default="bf16", help="default: bf16, under autocast")
    parser.add_argument("--init", choices=("niti", "torch"), default="niti", help="initial weights (default: niti's)")
    parser.add_argument("--dropout-per", choices=("feature", "element"), help="of every dropout layer (default: the model's)")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--graph", action="store_true", help="record the passes of a step once as a CUDA graph")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: PyTorch's)")
    args = parser.parse_args()
    args.set += [f"{key}={value}" for key, value in (("epochs", args.epochs), ("seed", args.seed)) if value is not None]
    return args


def main() -> int:
    begin, args = time.perf_counter(), read_arguments()
    recipe, model = recipes.load(args.recipe, args.set)
    device = choose_device(args)
    run, rows = Run(recipe, model, args, device), []
    ready = time.perf_counter() - begin
    for row in run.epochs():
        rows.append(row)
        print(f"epoch {row['epoch']}/{recipe['epochs']}: train loss {row['train_loss']:.4f}, {row['train']:.2f} %; {run.scored} loss "
              f"{row['loss']:.4f}, {row['accuracy']:.2f} %; {row['seconds']:.1f} s", flush=True)
        if not math.isfinite(row["train_loss"]):
            sys.exit(f"pytorch_train: the loss is {row['train_loss']} after epoch {row['epoch']}: the run has diverged")
    report = summary(run, rows, recipe, model, args, device)
    if run.samples:
        loss, accuracy = run.evaluate_averaged()
        print(f"average of {len(run.samples)} samples: {run.scored} loss {loss:.4f}, {accuracy:.2f} %", flush=True)
        report |= {"average": recipe["average"], f"averaged_{run.scored}_loss": loss, f"averaged_{run.scored}_accuracy": accuracy}
    print(json.dumps({**report, "seconds_before_training": ready, "seconds": time.perf_counter() - begin}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
