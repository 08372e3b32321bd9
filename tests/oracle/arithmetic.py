"""The arithmetic of docs/arithmetic.md on int64 numpy arrays and Python integers. Nothing here uses floating point."""

from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction

import numpy as np

LIMIT = 127
MODES = ("nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte")
DRAWING = ("stochastic", "stochastic-byte")

PURPOSE_INITIAL_WEIGHTS = 1
PURPOSE_SHUFFLE = 2
PURPOSE_CROP = 3
PURPOSE_FLIP = 4
PURPOSE_DROPOUT = 5
PURPOSE_ACTIVATION = 6
PURPOSE_ERROR = 7
PURPOSE_LOSS = 8
PURPOSE_FORK = 9
PURPOSE_VALIDATION = 10
PURPOSE_UPDATE = 11

LOG2_E = 94548  # round(log2(e) * 2^16)


# Numbers and rounding


def bits(v):
    """B(v): the smallest b with v <= 2^b, for one non-negative integer."""
    v = int(v)
    assert v >= 0
    return 0 if v <= 1 else (v - 1).bit_length()


def clip(x):
    return np.clip(x, -LIMIT, LIMIT)


def shift_round(x, s, mode, words=None):
    """x / 2^s rounded, before the clipping. `words`: as rounding_words makes them, needed by the modes that draw."""
    x = np.asarray(x, dtype=np.int64)
    if s == 0:
        return x.copy()
    assert s >= 1
    size = np.abs(x)
    assert size.size == 0 or int(size.max()) < 1 << 62
    q = size >> s
    r = size & ((1 << s) - 1)
    if mode == "nearest":
        out = (size + (1 << (s - 1))) >> s
    elif mode == "truncate":
        out = q
    elif mode == "pseudo-stochastic":
        h = s // 2
        hi = r >> h
        lo = r & ((1 << h) - 1)
        if s % 2 == 1:
            lo = lo * 2
        out = q + (hi > lo)
    elif mode == "stochastic":
        assert s <= 32
        u = np.asarray(words, dtype=np.uint64).astype(np.int64).reshape(x.shape) >> (32 - s)
        out = q + (u < r)
    elif mode == "stochastic-byte":
        u = np.asarray(words, dtype=np.int64).reshape(x.shape)
        assert u.size == 0 or 0 <= int(u.min()) and int(u.max()) < 256
        # floor(r * 2^9 / 2^s), written so that nothing leaves int64
        t = r >> (s - 9) if s > 9 else r << (9 - s)
        out = q + (t > 2 * u)
    else:
        raise ValueError(f"unknown rounding mode {mode!r}")
    return np.where(x < 0, -out, out)


def round_clip(x, s, mode, words=None):
    """Every rounding is followed by a clip to [-127, 127]; s = 0 only clips."""
    return clip(shift_round(x, s, mode, words))


def requantise(acc, exponent, mode, words=None, clip_bits=0):
    """int32 accumulators at `exponent` to (mantissas, exponent). `words`: a function without arguments, called when needed;
    clip_bits: the recipe's `clip`."""
    acc = np.asarray(acc, dtype=np.int64)
    largest = int(np.abs(acc).max()) if acc.size else 0
    assert largest < 1 << 31, "an accumulator left int32"
    s = max(0, bits(largest) - 7 - clip_bits)
    drawn = words() if mode in DRAWING and s > 0 else None
    return round_clip(acc, s, mode, drawn), exponent + s


def add_tensors(a, a_exponent, b, b_exponent):
    """The accumulators and exponent of a sum of two int8 tensors, before it is requantised."""
    if a_exponent >= b_exponent:
        large, large_exponent, small, small_exponent = a, a_exponent, b, b_exponent
    else:
        large, large_exponent, small, small_exponent = b, b_exponent, a, a_exponent
    large = np.asarray(large, dtype=np.int64)
    small = np.asarray(small, dtype=np.int64)
    d = large_exponent - small_exponent
    if d <= 15:
        return (large << d) + small, small_exponent
    if d - 15 > 8:
        return large << 15, large_exponent - 15
    return (large << 15) + shift_round(small, d - 15, "nearest"), large_exponent - 15


# Random numbers


def philox4x32_10(counter, key):
    """Random123's Philox4x32-10. counter: four arrays or integers below 2^32, key: two integers; returns four uint64 arrays."""
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in np.broadcast_arrays(*counter))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ np.uint64(k0),
            product1 & mask,
            (product0 >> shift) ^ c3 ^ np.uint64(k1),
            product0 & mask,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_words(seed, purpose, time, layer, index):
    """The random words at the indices of an integer array, as int64 in [0, 2^32)."""
    index = np.asarray(index, dtype=np.int64)
    counter = ((index >> 2).astype(np.uint64), np.uint64(time), np.uint64(layer), np.uint64(purpose))
    outputs = philox4x32_10(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    stacked = np.stack([o.astype(np.int64) for o in outputs])
    return np.take_along_axis(stacked, (index & 3)[np.newaxis], axis=0)[0]


def random_range(seed, purpose, time, layer, count):
    """The random words at the indices 0 .. count - 1."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    outputs = philox4x32_10((blocks, np.uint64(time), np.uint64(layer), np.uint64(purpose)),
                            (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return np.stack(outputs, axis=1).reshape(-1)[:count].astype(np.int64)


def rounding_words(mode, seed, purpose, time, layer, count):
    """What rounding draws at the indices 0 .. count - 1: words, or for `stochastic-byte` bytes, four of a word."""
    if mode != "stochastic-byte":
        return random_range(seed, purpose, time, layer, count)
    words = random_range(seed, purpose, time, layer, (count + 3) // 4)
    return np.stack([words >> (8 * b) & 255 for b in range(4)], axis=1).reshape(-1)[:count]


# Tables


def _exp2_entry(i):
    """round(2^(i/256) * 2^30): the largest n with n - 1/2 <= x, that is (2n - 1)^256 <= 2^(31 * 256 + i)."""
    target = 1 << (31 * 256 + i)
    low, high = 1 << 30, 1 << 31
    while low < high:
        middle = (low + high + 1) // 2
        if (2 * middle - 1) ** 256 <= target:
            low = middle
        else:
            high = middle - 1
    return low


def _log2_entry(i):
    """round(log2(1 + i/256) * 2^16) with 60 decimal digits; a value too near a tie would fail the assertion."""
    with localcontext() as context:
        context.prec = 60
        x = (1 + Decimal(i) / 256).ln() / Decimal(2).ln() * 65536 + Decimal("0.5")
        floor = x.to_integral_value(rounding=ROUND_FLOOR)
        assert i in (0, 256) or Decimal("1e-30") < x - floor < 1 - Decimal("1e-30")
        return int(floor)


EXP2_TABLE = np.array([_exp2_entry(i) for i in range(257)], dtype=np.int64)
LOG2_TABLE = np.array([_log2_entry(i) for i in range(257)], dtype=np.int64)


def exp2_frac(f):
    """2^(f / 2^16) with 30 fraction bits, for f in 0 .. 65535."""
    f = np.asarray(f, dtype=np.int64)
    i, r = f >> 8, f & 255
    return EXP2_TABLE[i] + (((EXP2_TABLE[i + 1] - EXP2_TABLE[i]) * r) >> 8)


def log2_fixed(v):
    """log2(v) with 16 fraction bits, for one integer v >= 1."""
    v = int(v)
    assert v >= 1
    n = v.bit_length() - 1
    f = ((v << 16) >> n) & 65535
    i, r = f >> 8, f & 255
    return (n << 16) + int(LOG2_TABLE[i]) + (((int(LOG2_TABLE[i + 1]) - int(LOG2_TABLE[i])) * r) >> 8)


# Bias, ReLU and dropout


def bias_at(b, d):
    """Bias values at the accumulators' exponent, d below their own."""
    b = np.asarray(b, dtype=np.int64)
    if d < 0:
        return shift_round(b, -d, "nearest") if d >= -16 else np.zeros_like(b)
    return np.array([max(-(1 << 29), min(1 << 29, int(one) << d)) for one in b], dtype=np.int64)


def relu_limit(maximum, exponent):
    """nearest(maximum / 2^exponent) of a maximum in millionths, ties up."""
    return int((Fraction(maximum, 10**6) / Fraction(2)**exponent + Fraction(1, 2)) // 1)


def dropout_scale(rate):
    """(threshold, factor, exponent change) of a rate in millionths."""
    kept = Fraction(10**6 - rate, 10**6)
    k = 0
    while 2**k < 1 / kept:
        k += 1
    return int((Fraction(rate, 10**6) * 2**32 + Fraction(1, 2)) // 1), int((2**15 / (kept * 2**k) + Fraction(1, 2)) // 1), k


# Loss


def scaled_logits(logits, exponent):
    """d_j: the logits in base 2 with 16 fraction bits, less each image's largest. logits [N, classes]."""
    t = np.asarray(logits, dtype=np.int64) * LOG2_E
    if exponent > 0:
        t = t << min(exponent, 16)
    elif exponent < 0:
        t = t >> min(-exponent, 40)
    return t - t.max(axis=1, keepdims=True)


def softmax_terms(d):
    """p_j of the `softmax` variant and of the reported loss, 30 fraction bits."""
    return exp2_frac(d & 65535) >> np.minimum(31, -(d >> 16))


def loss_sum(logits, exponent, targets):
    """The reported loss summed over the images, 16 fraction bits (base 2), a Python integer."""
    d = scaled_logits(logits, exponent)
    totals = softmax_terms(d).sum(axis=1)
    return sum(log2_fixed(totals[n]) - (30 << 16) - int(d[n, target]) for n, target in enumerate(targets))


def flip_sums(logits, exponent, mirrored, mirrored_exponent):
    """(sums, exponent of the means) of the logits of images and of their mirrors."""
    sums, aligned = add_tensors(logits, min(exponent, 16), mirrored, min(mirrored_exponent, 16))
    return sums, aligned - 1


def correct_count(logits, targets):
    """How many images have the first largest mantissa at the target."""
    return int((np.argmax(logits, axis=1) == np.asarray(targets)).sum())


def loss_error_niti(logits, exponent, targets, words):
    """(delta, exponent) of the published loss. `words`: the random words at n * classes + j."""
    d = scaled_logits(logits, exponent)
    s = np.maximum(0, d + (10 << 16))
    p = (exp2_frac(s & 65535) >> (14 - (s >> 16))) - 65536
    g = (p << 11) // p.sum(axis=1, keepdims=True)
    g[np.arange(len(targets)), targets] -= g.sum(axis=1)
    return round_clip(g, 4, "stochastic", words), 0


def smoothed_share(smoothing, classes):
    """off: what smoothed labels expect of every class but the target, 24 fraction bits. smoothing: the recipe's decimal."""
    share = Decimal(str(smoothing))
    assert share * 10**9 == int(share * 10**9) and 0 <= share < 1
    return int(Fraction(share) * 2**24 / classes // 1)


def loss_error_softmax(logits, exponent, targets, mode, words, off=0, mix=lambda expected: expected):
    """(delta, exponent) of the `softmax` loss. `words` as in requantise; off: smoothed_share; mix: what mixup makes of the expected classes."""
    p = softmax_terms(scaled_logits(logits, exponent))
    g = (p << 24) // p.sum(axis=1, keepdims=True)
    expected = np.full(g.shape, off, dtype=np.int64)
    expected[np.arange(len(targets)), targets] = (1 << 24) - (g.shape[1] - 1) * off
    return requantise(g - mix(expected), -24, mode, words)


# Update and initial weights


def update_niti(weight, gradient, mu):
    """The weights after one update. `gradient`: the exact sums, int64."""
    b = bits(np.abs(gradient).max())
    if b == 0:
        return weight.copy()
    whole, rest = divmod(millionths(mu), 10**6)
    s = b - whole
    if s < 1:
        return clip(weight - gradient)
    if rest == 0:
        return clip(weight - round_clip(gradient, s, "pseudo-stochastic"))
    before, factor = max(b - 45, 0), mu_factor(rest)
    product = shift_round(gradient, before, "nearest") * factor
    assert int(np.abs(product).max()) <= 1 << 61
    return clip(weight - round_clip(product, s - before + 15, "pseudo-stochastic"))


def mu_factor(rest):
    """2 to the fraction of mu, given in millionths, with 15 fraction bits."""
    return (int(exp2_frac(rest * 2**16 // 10**6)) + (1 << 14)) >> 15


def position_step(entry, steps_per_epoch, steps):
    """The step of a position {epoch}, {step} or {at} (a share: 0.25, or "25%") in a run of so many steps."""
    if "epoch" in entry:
        return entry["epoch"] * steps_per_epoch
    if "step" in entry:
        return entry["step"]
    share = entry["at"]
    share = Fraction(share[:-1]) / 100 if isinstance(share, str) and share.endswith("%") else Fraction(str(share))
    return int(share * steps)


def mu_at(mu, step, steps_per_epoch, steps):
    """The learning rate of a step: a number, or the last entry of a schedule [{position, mu}] that has begun."""
    if not isinstance(mu, list):
        return mu
    begun = [entry for entry in mu if position_step(entry, steps_per_epoch, steps) <= step]
    return begun[-1]["mu"]


def initial_exponent(fan_in, fan_out):
    """k - 7 with the least integer k for which 4^k * (fan_in + fan_out) >= 6."""
    k = 40
    while Fraction(4) ** (k - 1) * (fan_in + fan_out) >= 6:
        k -= 1
    return k - 7


def initial_weights(seed, node, shape):
    """Uniform mantissas of a weight tensor."""
    w = random_range(seed, PURPOSE_INITIAL_WEIGHTS, 0, node, int(np.prod(shape)))
    return (((w * 255) >> 32) - 127).reshape(shape)


# Input


def _divide_nearest(numerator, denominator):
    """numerator / denominator to the nearest integer, ties away from zero."""
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -magnitude if numerator < 0 else magnitude


def millionths(decimal):
    """A decimal number of a recipe in millionths; it has at most six digits after the point."""
    scaled = Decimal(str(decimal)) * 1000000
    assert scaled == int(scaled)
    return int(scaled)


def input_table(mean, std):
    """([channels, 256] mantissas, exponent) from the channels' means and deviations in millionths."""
    for exponent in range(-20, 21):
        up, down = 1 << max(0, -exponent), 1 << max(0, exponent)
        rows = [[_divide_nearest((v * 10**6 - 255 * m) * up, 255 * s * down) for v in range(256)] for m, s in zip(mean, std)]
        if max(abs(x) for row in rows for x in row) <= LIMIT:
            break
    return clip(np.array(rows, dtype=np.int64)), exponent


VALUE_EXPONENT = -5
FULL_SCALE = {"uint8": 255, "int8": 128, "int16": 32768}


def value_mantissas(values, full, mean, std):
    """The mantissas, at VALUE_EXPONENT, of signed values of one channel."""
    numerators = (values.astype(np.int64) * 10**6 - full * mean) * 2**-VALUE_EXPONENT
    magnitudes = (2 * np.abs(numerators) + full * std) // (2 * full * std)
    return clip(np.sign(numerators) * magnitudes)


def validation_count(validation, count):
    """How many of `count` training images a recipe asks for: a number of them, or a share (a decimal or a percentage)."""
    if isinstance(validation, int):
        return validation
    text = str(validation)
    share = millionths(Decimal(text[:-1]) / 100 if text.endswith("%") else text)
    return (count * share + 500000) // 1000000


def held_out(labels, wanted, seed):
    """Which training images are the validation split: a list of booleans."""
    labels = [int(label) for label in labels]
    classes, total = sorted(set(labels)), len(labels)
    sizes = {c: labels.count(c) for c in classes}
    quota = {c: sizes[c] * wanted // total for c in classes}
    by_remainder = sorted(classes, key=lambda c: (-(sizes[c] * wanted % total), c))
    missing = wanted - sum(quota.values())
    for c in [c for c in by_remainder if quota[c] + 1 < sizes[c]][:missing]:
        quota[c] += 1
    words = random_range(seed, PURPOSE_VALIDATION, 0, 0, total)
    held = [False] * total
    for c in classes:
        for i in sorted((i for i in range(total) if labels[i] == c), key=lambda i: (int(words[i]), i))[:quota[c]]:
            held[i] = True
    return held


def shuffled(seed, epoch, count):
    """The order of an epoch's images."""
    w = random_range(seed, PURPOSE_SHUFFLE, epoch, 0, count)
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = (int(w[i]) * (i + 1)) >> 32
        order[i], order[j] = order[j], order[i]
    return order


def random_corner(seed, epoch, image, span_y, span_x):
    """(dy, dx) of an image's random crop."""
    wy, wx = random_words(seed, PURPOSE_CROP, epoch, 0, [2 * image, 2 * image + 1])
    return (int(wy) * (span_y + 1)) >> 32, (int(wx) * (span_x + 1)) >> 32


def is_flipped(seed, epoch, image):
    return int(random_words(seed, PURPOSE_FLIP, epoch, 0, [image])[0]) >> 31 == 1


def window(raw, height, width, pad, corner=None, flip=False):
    """The window [height, width, C] of one raw image; corner None: centred."""
    padded = np.pad(raw, ((pad, pad), (pad, pad), (0, 0)))
    span_y, span_x = padded.shape[0] - height, padded.shape[1] - width
    assert span_y >= 0 and span_x >= 0
    dy, dx = (span_y // 2, span_x // 2) if corner is None else corner
    out = padded[dy:dy + height, dx:dx + width]
    return out[:, ::-1] if flip else out
