"""Resized crops, colour jitter and cutout of docs/arithmetic.md, "Augmentation", for one image at a time, on Python integers and int64 arrays."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np

from . import arithmetic as a

PURPOSE_CUTOUT = 12
PURPOSE_COLOUR = 13
PURPOSE_RESIZED_CROP = 14
PURPOSE_MIXUP = 15

SCALE, ASPECT = (0.08, 1), (0.75, 1.333333)  # a recipe's defaults


def _words(seed, purpose, epoch, first, count):
    return [int(w) for w in a.random_words(seed, purpose, epoch, 0, range(first, first + count))]


# Resized crops


def _half_up(numerator, denominator):
    return max(1, int((Fraction(numerator, denominator) + Fraction(1, 2)) // 1))


def rectangle(seed, epoch, image, height, width, scale=SCALE, aspect=ASPECT):
    """(first row, first column, rows, columns) of an image's resized crop."""
    a0, a1, r0, r1 = (a.millionths(v) for v in (*scale, *aspect))
    w0, w1, w2, w3 = _words(seed, PURPOSE_RESIZED_CROP, epoch, 4 * image, 4)
    area = max(1, height * width * (a0 + ((w0 * (a1 - a0 + 1)) >> 32)) // 10**6)
    l0, l1 = (a.log2_fixed(r) - a.log2_fixed(10**6) for r in (r0, r1))
    t = l0 + ((w1 * (l1 - l0 + 1)) >> 32)
    ratio = int(a.exp2_frac(t & 65535)) >> (14 - (t >> 16))
    columns = max(1, (isqrt(4 * area * ratio >> 16) + 1) >> 1)
    rows = max(1, (isqrt((4 * area << 16) // ratio) + 1) >> 1)
    if columns > width:
        rows, columns = _half_up(rows * width, columns), width
    if rows > height:
        rows, columns = height, _half_up(columns * height, rows)
    return (w2 * (height - rows + 1)) >> 32, (w3 * (width - columns + 1)) >> 32, rows, columns


def _weights(source, size):
    """[size][source] of Fractions that sum to 1 in every row."""
    out = [[Fraction(0)] * source for _ in range(size)]
    for i, row in enumerate(out):
        if size <= source:
            low, high = Fraction(i * source, size), Fraction((i + 1) * source, size)
            for j in range(source):
                row[j] = max(min(high, j + 1) - max(low, j), Fraction(0)) / (high - low)
        else:
            place = min(max(Fraction((2 * i + 1) * source, 2 * size) - Fraction(1, 2), 0), source - 1)
            row[int(place)] += 1 - (place - int(place))
            if place > int(place):
                row[int(place) + 1] += place - int(place)
    return out


def scaled(pixels, height, width):
    """Pixels [H, W, C] as [height, width, C], rounded once, ties up."""
    rows, columns = (_weights(*sides) for sides in ((pixels.shape[0], height), (pixels.shape[1], width)))
    common_rows, common_columns = (np.lcm.reduce([w.denominator for row in table for w in row]) for table in (rows, columns))
    exact_rows = np.array([[int(w * int(common_rows)) for w in row] for row in rows], dtype=object)
    exact_columns = np.array([[int(w * int(common_columns)) for w in row] for row in columns], dtype=object)
    total = int(common_rows) * int(common_columns)
    out = np.empty((height, width, pixels.shape[2]), dtype=np.int64)
    for c in range(pixels.shape[2]):
        sums = exact_rows @ pixels[:, :, c].astype(object) @ exact_columns.T
        out[:, :, c] = (2 * sums + total) // (2 * total)
    return out


def resized(seed, epoch, image, raw, height, width, scale=SCALE, aspect=ASPECT):
    """The window [height, width, C] of a raw image."""
    y, x, rows, columns = rectangle(seed, epoch, image, *raw.shape[:2], scale, aspect)
    return scaled(raw[y:y + rows, x:x + columns], height, width)


# Colours


def factor(strength, word):
    reach = (4096 * a.millionths(strength) + 500000) // 10**6
    return 4096 - reach + ((word * (2 * reach + 1)) >> 32)


def grey(pixels):
    """Of [.., C], C 1 or 3."""
    v = np.asarray(pixels, dtype=np.int64)
    if v.shape[-1] == 1:
        return v[..., 0]
    return (19595 * v[..., 0] + 38470 * v[..., 1] + 7471 * v[..., 2] + 32768) >> 16


def mean_grey(raw):
    """With 8 fraction bits."""
    v = np.asarray(raw, dtype=np.int64).reshape(-1, raw.shape[-1])
    weights = [65536] if v.shape[1] == 1 else [19595, 38470, 7471]
    total = sum(int(s) * w for s, w in zip(v.sum(axis=0), weights))
    return (256 * total + 32768 * len(v)) // (65536 * len(v))


def coloured(seed, epoch, image, pixels, raw, brightness=0, contrast=0, saturation=0):
    """Pixels of an image [H, W, C] after jitter; raw: the whole source image."""
    if not (brightness or contrast or saturation):
        return pixels
    words = _words(seed, PURPOSE_COLOUR, epoch, 4 * image, 3)
    b, c, s = (factor(*pair) for pair in zip((brightness, contrast, saturation), words))
    p = (s * c * b + (1 << 24)) >> 25
    q = ((4096 - s) * c * b + (1 << 24)) >> 25
    o = ((4096 - c) * b * mean_grey(raw) + (1 << 20)) >> 21
    sums = p * pixels.astype(np.int64) + q * grey(pixels)[..., np.newaxis] + o + 1024
    assert np.abs(sums).max() < 1 << 23
    return np.clip(sums >> 11, 0, 255)


# Cutout


def square(seed, epoch, image, size, height, width):
    """The square's (rows, columns) as slices."""
    words = _words(seed, PURPOSE_CUTOUT, epoch, 2 * image, 2)
    starts = ((w * side >> 32) - size // 2 for w, side in zip(words, (height, width)))
    return tuple(slice(max(0, start), max(0, start + size)) for start in starts)


# Mixup


def _beta_part(x, shape):
    """The integral from 0 to x <= 1/2 of Beta(shape, shape)'s density but for a constant: the series of its hypergeometric function."""
    term, total, n = Decimal(1), Decimal(0), 0
    while term / (shape + n) > Decimal("1e-50"):
        total += term / (shape + n)
        n += 1
        term *= (n - shape) / n * x
    return (shape * x.ln()).exp() * total


def _quantiles(shape):
    """T: for each i, how many n from 1 to 128 have 2 F((n - 1/2) / 256) <= (i + 1/2) / 256; a value too near a tie would fail the assertion."""
    with localcontext() as context:
        context.prec = 60
        half = _beta_part(Decimal("0.5"), shape)
        reached = [_beta_part((Decimal(n) - Decimal("0.5")) / 256, shape) / half for n in range(1, 129)]
        wanted = [(Decimal(i) + Decimal("0.5")) / 256 for i in range(256)]
        assert min(abs(a - b) for a in reached for b in wanted) > Decimal("1e-30")
        return [sum(part <= want for part in reached) for want in wanted]


SHARES = {0.2: _quantiles(Decimal("0.2")), 1: [(2 * i + 3) >> 2 for i in range(256)]}


def share(seed, epoch, image, mixup):
    """How many 256ths of the next image are mixed in."""
    return SHARES[mixup][_words(seed, PURPOSE_MIXUP, epoch, image, 1)[0] >> 24] if mixup else 0


def mixed(values, shares):
    """A batch [N, H, W, C] of mantissas, each mixed with the next one."""
    q = np.array(shares)[:, np.newaxis, np.newaxis, np.newaxis]
    return ((256 - q) * values + q * np.roll(values, -1, axis=0) + 128) >> 8


def mixed_labels(expected, targets, shares, off):
    """What is expected of every class, [N, classes], from what is without mixup."""
    out = expected.copy()
    for n, q in enumerate(shares):
        own, other = targets[n], targets[(n + 1) % len(targets)]
        if own != other:
            part = ((int(expected[n, own]) - off) * q + 128) >> 8
            out[n, own] -= part
            out[n, other] += part
    return out
