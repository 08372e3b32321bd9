"""Trains and evaluates a model as docs/arithmetic.md says, and hashes the result."""

import hashlib
import struct
from dataclasses import dataclass, replace

import numpy as np

from . import arithmetic as a
from . import augment, average, sgd
from .model import Model, read_model
from .network import Context, Network
from .scalar import S


def _model(source):
    return source if isinstance(source, Model) else read_model(source)


def _input_map(recipe):
    """(values of channel c -> mantissas, their exponent)."""
    data = recipe["data"]
    mean, std = ([a.millionths(v) for v in data[key]] for key in ("mean", "std"))
    kind = data.get("type", "uint8")
    if kind == "uint8":
        table, exponent = a.input_table(mean, std)
        return lambda values, c: table[c][values], exponent
    return lambda values, c: a.value_mantissas(values, a.FULL_SCALE[kind], mean[c], std[c]), a.VALUE_EXPONENT


def _pixels(raw, image, size, recipe, epoch, mirrored=False):
    """The window of one image before the table; epoch None: as at evaluation, mirrored or not."""
    data, seed = recipe["data"], recipe["seed"]
    pad, crop = data.get("pad", 0), data.get("crop", "centre") if epoch is not None else "centre"
    flip = mirrored if epoch is None else data.get("flip", False) and a.is_flipped(seed, epoch, image)
    if crop == "resized":
        assert pad == 0
        pixels = augment.resized(seed, epoch, image, raw, *size, data.get("scale", augment.SCALE), data.get("aspect", augment.ASPECT))
        pixels = pixels[:, ::-1] if flip else pixels
    else:
        spans = (raw.shape[0] + 2 * pad - size[0], raw.shape[1] + 2 * pad - size[1])
        corner = a.random_corner(seed, epoch, image, *spans) if crop == "random" else None
        pixels = a.window(raw, *size, pad, corner, flip)
    if epoch is None:
        return pixels
    return augment.coloured(seed, epoch, image, pixels, raw, *(data.get(key, 0) for key in ("brightness", "contrast", "saturation")))


def batch_input(images, numbers, model, recipe, mantissas, epoch=None, mirrored=False):
    """Mantissas [N, H, W, C] of the images of these numbers; epoch None: as at evaluation, centred and not changed, all of them
    mirrored or none."""
    height, width, channels = model.input_shape
    cutout = recipe["data"].get("cutout", 0) if epoch is not None else 0
    out = np.empty((len(numbers), height, width, channels), dtype=np.int64)
    for row, image in enumerate(numbers):
        pixels = _pixels(images[image], image, (height, width), recipe, epoch, mirrored)
        for c in range(channels):
            out[row, :, :, c] = mantissas(pixels[:, :, c], c)
        if cutout:
            out[(row, *augment.square(recipe["seed"], epoch, image, cutout, height, width))] = 0
    return augment.mixed(out, _shares(numbers, recipe, epoch))


def _context(recipe, step, training):
    rounding, sgd_error = recipe.get("rounding", {}), recipe["update"].get("kind") in ("sgd", "niti16")
    error = rounding.get("error", "stochastic-byte" if sgd_error else "nearest")
    clip = recipe.get("clip", {})
    return Context(recipe["seed"], step, rounding.get("activation", "nearest"), error, training, clip.get("activation", 0),
                   clip.get("error", 0))


def _shares(numbers, recipe, epoch):
    """Of each image of a batch, how much of the next one is mixed in."""
    mixup = recipe["data"].get("mixup", 0) if epoch is not None else 0
    return [augment.share(recipe["seed"], epoch, image, mixup) for image in numbers]


def _loss_error(logits, exponent, targets, recipe, context, shares):
    if recipe["loss"] == "niti":
        words = a.random_range(context.seed, a.PURPOSE_LOSS, context.step, 0, logits.size)
        return a.loss_error_niti(logits, exponent, targets, words)
    assert recipe["loss"] == "softmax"
    off = a.smoothed_share(recipe.get("label_smoothing", 0), logits.shape[1])
    return a.loss_error_softmax(logits, exponent, targets, context.error, lambda: a.rounding_words(
        context.error, context.seed, a.PURPOSE_ERROR, context.step, 0, logits.size),
        off, lambda expected: augment.mixed_labels(expected, targets, shares, off))


@dataclass(frozen=True)
class Moment:
    """Where in a run a step stands: its number and its batch's images."""

    step: int
    steps_per_epoch: int
    steps: int  # of the whole run
    images: int


class NitiUpdate:
    """Update `niti`: the weights alone."""

    def __init__(self, network, recipe):
        assert not any(network.model.is_trained(network.model.nodes[n]) for n in network.running), "the page defines no update `niti` of batch norm's int16 tensors"
        self.network, self.update = network, recipe["update"]

    def apply(self, gradients, moment):
        mu = a.mu_at(self.update["mu"], moment.step, moment.steps_per_epoch, moment.steps)
        for key, (gradient, _) in gradients.items():
            self.network.weights[key] = a.update_niti(self.network.weights[key], gradient, mu)

    def state(self):
        """What a checkpoint holds besides the weights, as kind: {name: (array, exponent)}."""
        return {}


class SgdUpdate:
    """Update `sgd`: masters and velocities (int64 array, exponent) by (node number, k)."""

    normalised = False

    @staticmethod
    def defaults(update):
        return {}

    def __init__(self, network, recipe):
        assert self.normalised or recipe["loss"] == "softmax", "update `sgd` needs deltas that are true derivatives"
        self.network, self.update, self.seed = network, {**self.defaults(recipe["update"]), **recipe["update"]}, recipe["seed"]
        self.masters, self.velocities = {}, {}
        for key, values in network.weights.items():
            if not network.model.is_trained(network.model.nodes[key[0]]):
                continue
            exponent = network.exponents[key]
            self.masters[key] = (values * 256, exponent - 8) if self._has_operand(key) else (values, exponent)
            self.velocities[key] = np.zeros_like(values), 0

    def _has_operand(self, key):
        return not self.network.model.nodes[key[0]].is_wide(key[1])

    def apply(self, gradients, moment):
        assert sorted(gradients) == sorted(self.masters)
        clip = S(1, 0)
        if self.update.get("clip_norm", 0):
            clip = sgd.clip_factor(sgd.squares_sum(gradients[key] for key in sorted(gradients)), self.update["clip_norm"], moment.images)
        for key, gradient in gradients.items():
            number, k = key
            master = self.masters[key]
            words = a.random_range(self.seed, a.PURPOSE_UPDATE, moment.step, number + 65536 * k, master[0].size)
            numbers = sgd.constants(self.update, moment, self._has_operand(key), clip, self.normalised)
            master, self.velocities[key] = sgd.step_of_tensor(master, self.velocities[key], gradient, moment.images, numbers, words)
            self.masters[key] = master
            values = sgd.operand(master) if self._has_operand(key) else master
            self.network.weights[key], self.network.exponents[key] = values

    def state(self):
        """The masters of int8 operands, and all velocities."""
        def named(tensors):
            nodes = self.network.model.nodes
            return {nodes[n].parameter_name(k): (v.astype(np.int16), e) for (n, k), (v, e) in tensors.items()}

        return {"master": named({key: v for key, v in self.masters.items() if self._has_operand(key)}),
                "velocity": named(self.velocities)}


class Niti16Update(SgdUpdate):
    """Update `niti16`: of gradients that are scaled to their largest."""

    normalised = True

    @staticmethod
    def defaults(update):
        warmup = {} if update.get("schedule") == "one-cycle" else {"warmup": {"at": "5%"}}
        return {"lr": 4, "schedule": "linear", **warmup}


class Averager:
    """The samples of a run, and what is left of it at the end."""

    def __init__(self, recipe, steps_per_epoch, steps):
        plan = recipe.get("average")
        self.first, self.period, self.totals = 0, 0, {}
        if plan:
            self.first = a.position_step(plan["from"], steps_per_epoch, steps)
            self.period = a.position_step(plan.get("every", {"epoch": 1}), steps_per_epoch, steps)

    def see(self, done, update):
        if self.period and done > self.first and done % self.period == 0:
            for key, master in update.masters.items():
                self.totals[key] = average.add(self.totals.get(key), *master)

    def apply(self, network, update):
        """Sets the means; the running statistics are the caller's to measure."""
        for key, total in self.totals.items():
            mean = average.mean(total)
            network.weights[key], network.exponents[key] = sgd.operand(mean) if update._has_operand(key) else mean


UPDATES = {"niti": NitiUpdate, "niti16": Niti16Update, "sgd": SgdUpdate}


def train(model, images, labels, recipe, epochs=None, max_steps=None, observe=None):
    """Trains from the initial weights.

    images: uint8 (or the recipe's data.type) [N, H, W, C]; labels: integers [N]; recipe: a dictionary; epochs and max_steps replace the recipe's.
    observe(step, network, gradients, tensors), where given, is called before each update.
    Returns weights {name: array} and exponents {name: int} as Network.named, steps, loss_sums and correct (one entry a step),
    epochs: a list of {epoch, images, loss_sum, correct} of the epochs that were trained, the last maybe in part; and the
    update's state.
    """
    model = _model(model)
    model = replace(model, frozen=set(recipe.get("freeze", model.frozen)))
    epochs = recipe["epochs"] if epochs is None else epochs
    max_steps = recipe.get("max_steps") if max_steps is None else max_steps
    labels = np.asarray(labels, dtype=np.int64)
    seed, size = recipe["seed"], recipe["batch"]
    if recipe["data"].get("validation", 0):
        left = ~np.array(a.held_out(labels, a.validation_count(recipe["data"]["validation"], len(labels)), seed))
        images, labels = images[left], labels[left]
    mantissas, input_exponent = _input_map(recipe)
    network = Network(model, seed)
    update = UPDATES[recipe["update"].get("kind", "niti")](network, recipe)
    step, loss_sums, correct, totals = 0, [], [], []
    steps_per_epoch = -(-len(images) // size)
    steps = min(epochs * steps_per_epoch, max_steps or epochs * steps_per_epoch)
    averager = Averager(recipe, steps_per_epoch, steps)
    for epoch in range(epochs):
        order = a.shuffled(seed, epoch, len(images))
        for start in range(0, len(order), size):
            if max_steps is not None and step >= max_steps:
                break
            if start == 0:
                totals.append({"epoch": epoch, "images": 0, "loss_sum": 0, "correct": 0})
            numbers = order[start:start + size]
            targets = labels[numbers]
            context = _context(recipe, step, True)
            x = batch_input(images, numbers, model, recipe, mantissas, epoch)
            tensors, notes = network.forward(x, input_exponent, context)
            logits, exponent = tensors[-1]
            loss_sums.append(a.loss_sum(logits, exponent, targets))
            correct.append(a.correct_count(logits, targets))
            totals[-1]["images"] += len(numbers)
            totals[-1]["loss_sum"] += loss_sums[-1]
            totals[-1]["correct"] += correct[-1]
            error = _loss_error(logits, exponent, targets, recipe, context, _shares(numbers, recipe, epoch))
            gradients = network.backward(tensors, notes, error, context)
            if observe is not None:
                observe(step, network, gradients, tensors)
            update.apply(gradients, Moment(step, steps_per_epoch, steps, len(numbers)))
            step += 1
            averager.see(step, update)
    weights, exponents = network.named()
    averaged = {}
    if averager.totals:
        averager.apply(network, update)
        epoch = -(-steps // steps_per_epoch)
        order = a.shuffled(seed, epoch, len(images))
        for i in range(min(average.STATISTICS_STEPS, steps_per_epoch) if network.running else 0):
            x = batch_input(images, order[i * size:(i + 1) * size], model, recipe, mantissas, epoch)
            network.forward(x, input_exponent, _context(recipe, steps + i, True))
        averaged = dict(zip(("averaged_weights", "averaged_exponents"), network.named()), sums={
            model.nodes[n].parameter_name(k): total for (n, k), total in averager.totals.items()})
    return {
        "weights": weights,
        "exponents": exponents,
        **update.state(),
        **averaged,
        "steps": step,
        "loss_sums": loss_sums,
        "correct": correct,
        "epochs": totals,
    }


def evaluate(model, weights, exponents, images, labels, recipe, batch=None, flip=None):
    """{images, correct, loss_sum} over the images in their order, in batches of the recipe's size (the last may be smaller); flip:
    whether with their mirrors (None: as the recipe says)."""
    flip = recipe.get("evaluation", {}).get("flip", False) if flip is None else flip
    model = _model(model)
    labels = np.asarray(labels, dtype=np.int64)
    size = recipe["batch"] if batch is None else batch
    mantissas, input_exponent = _input_map(recipe)
    network = Network(model, recipe["seed"])
    network.load(weights, exponents)
    out = {"images": len(images), "correct": 0, "loss_sum": 0}
    for start in range(0, len(images), size):
        numbers = range(start, min(start + size, len(images)))
        passes = []
        for mirrored in (False, True)[:1 + flip]:
            x = batch_input(images, numbers, model, recipe, mantissas, mirrored=mirrored)
            passes += network.forward(x, input_exponent, _context(recipe, 0, False))[0][-1]
        logits, exponent = a.flip_sums(*passes) if flip else passes
        targets = labels[start:start + size]
        out["correct"] += a.correct_count(logits, targets)
        out["loss_sum"] += a.loss_sum(logits, exponent, targets)
    return out


def hash_checkpoint(weights, exponents):
    """The hexadecimal SHA-256 of `niti hash`. weights: {name: int8, int16 or int64 array}."""
    digest = hashlib.sha256()
    for name in sorted(weights, key=lambda n: n.encode()):
        tensor = np.asarray(weights[name])
        assert tensor.dtype in (np.int8, np.int16, np.int64)
        digest.update(name.encode() + b"\0")
        digest.update(struct.pack(f"<{1 + tensor.ndim}I", tensor.ndim, *tensor.shape))
        digest.update(struct.pack("<i", exponents[name]))
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
