"""Trains and evaluates a model as docs/arithmetic.md says, and hashes the result."""

import hashlib
import struct
from dataclasses import replace

import numpy as np

from . import arithmetic as a
from .model import Model, read_model
from .network import Context, Network


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


def batch_input(images, numbers, model, recipe, mantissas, epoch=None):
    """Mantissas [N, H, W, C] of the images of these numbers; epoch None: as at evaluation, centred and not flipped."""
    height, width, channels = model.input_shape
    data, seed = recipe["data"], recipe["seed"]
    pad = data.get("pad", 0)
    out = np.empty((len(numbers), height, width, channels), dtype=np.int64)
    for row, image in enumerate(numbers):
        corner, flip = None, False
        if epoch is not None and data.get("crop", "centre") == "random":
            span_y = images.shape[1] + 2 * pad - height
            span_x = images.shape[2] + 2 * pad - width
            corner = a.random_corner(seed, epoch, image, span_y, span_x)
        if epoch is not None and data.get("flip", False):
            flip = a.is_flipped(seed, epoch, image)
        raw = a.window(images[image], height, width, pad, corner, flip)
        for c in range(channels):
            out[row, :, :, c] = mantissas(raw[:, :, c], c)
    return out


def _context(recipe, step, training):
    rounding = recipe.get("rounding", {})
    return Context(recipe["seed"], step, rounding.get("activation", "nearest"), rounding.get("error", "nearest"), training)


def _loss_error(logits, exponent, targets, recipe, context):
    if recipe["loss"] == "niti":
        words = a.random_range(context.seed, a.PURPOSE_LOSS, context.step, 0, logits.size)
        return a.loss_error_niti(logits, exponent, targets, words)
    assert recipe["loss"] == "softmax"
    return a.loss_error_softmax(logits, exponent, targets, context.error, lambda: a.random_range(
        context.seed, a.PURPOSE_ERROR, context.step, 0, logits.size))


def train(model, images, labels, recipe, epochs=None, max_steps=None, observe=None):
    """Trains from the initial weights.

    images: uint8 (or the recipe's data.type) [N, H, W, C]; labels: integers [N]; recipe: a dictionary; epochs and max_steps replace the recipe's.
    observe(step, network, gradients), where given, is called before each update.
    Returns weights {name: int8 array}, exponents {name: int}, steps, loss_sums and correct (one entry a step) and
    epochs: a list of {epoch, images, loss_sum, correct} of the epochs that were trained, the last maybe in part.
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
    step, loss_sums, correct, totals = 0, [], [], []
    for epoch in range(epochs):
        order = a.shuffled(seed, epoch, len(images))
        mu = a.mu_at(recipe["update"]["mu"], epoch)
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
            error = _loss_error(logits, exponent, targets, recipe, context)
            gradients = network.backward(tensors, notes, error, context)
            if observe is not None:
                observe(step, network, gradients)
            for number, gradient in gradients.items():
                network.weights[number] = a.update_niti(network.weights[number], gradient, mu)
            step += 1
    names = {number: model.nodes[number].weight_name for number in network.weights}
    return {
        "weights": {names[n]: w.astype(np.int8) for n, w in network.weights.items()},
        "exponents": {names[n]: int(e) for n, e in network.exponents.items()},
        "steps": step,
        "loss_sums": loss_sums,
        "correct": correct,
        "epochs": totals,
    }


def evaluate(model, weights, exponents, images, labels, recipe, batch=None):
    """{images, correct, loss_sum} over the images in their order, in batches of the recipe's size (the last may be smaller)."""
    model = _model(model)
    labels = np.asarray(labels, dtype=np.int64)
    size = recipe["batch"] if batch is None else batch
    mantissas, input_exponent = _input_map(recipe)
    network = Network(model, recipe["seed"])
    for number in network.weights:
        name = model.nodes[number].weight_name
        network.weights[number] = np.asarray(weights[name], dtype=np.int64)
        network.exponents[number] = exponents[name]
    out = {"images": len(images), "correct": 0, "loss_sum": 0}
    for start in range(0, len(images), size):
        numbers = range(start, min(start + size, len(images)))
        x = batch_input(images, numbers, model, recipe, mantissas)
        logits, exponent = network.forward(x, input_exponent, _context(recipe, 0, False))[0][-1]
        targets = labels[start:start + size]
        out["correct"] += a.correct_count(logits, targets)
        out["loss_sum"] += a.loss_sum(logits, exponent, targets)
    return out


def hash_checkpoint(weights, exponents):
    """The hexadecimal SHA-256 of `niti hash`. weights: {name: int8 array}."""
    digest = hashlib.sha256()
    for name in sorted(weights, key=lambda n: n.encode()):
        tensor = np.asarray(weights[name])
        assert tensor.dtype == np.int8
        digest.update(name.encode() + b"\0")
        digest.update(struct.pack(f"<{1 + tensor.ndim}I", tensor.ndim, *tensor.shape))
        digest.update(struct.pack("<i", exponents[name]))
        digest.update(tensor.tobytes())
    return digest.hexdigest()
