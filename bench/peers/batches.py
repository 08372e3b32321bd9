"""niti's random numbers, vectorised: initial weights, orders of epochs, the validation split, and what changes training images.

docs/arithmetic.md defines them as functions of (seed, purpose, time, layer, index); tests/oracle compares these with its own.
"""
import numpy as np

WEIGHTS, SHUFFLE, CROP, FLIP, VALIDATION, CUTOUT, COLOUR, RESIZED_CROP, MIXUP = 1, 2, 3, 4, 10, 12, 13, 14, 15  # purposes
MILLION = 10**6
EXP2 = [round(2**(i / 256) * 2**30) for i in range(257)]
LOG2 = [round(np.log2(1 + i / 256) * 2**16) for i in range(257)]


def words(seed: int, purpose: int, time: int, layer: int, count: int) -> np.ndarray:
    """The random words at the indices 0 .. count - 1, as int64: Philox4x32-10."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0 = np.arange((count + 3) // 4, dtype=np.uint64)
    c1, c2, c3 = (np.full_like(c0, value) for value in (time, layer, purpose))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        low, high = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (high >> half) ^ c1 ^ np.uint64(k0), high & mask, (low >> half) ^ c3 ^ np.uint64(k1), low & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1).reshape(-1)[:count].astype(np.int64)


def initial_weights(seed: int, number: int, shape: tuple[int, ...], fans: tuple[int, int]) -> np.ndarray:
    """The weights of node `number` as float32, exact: whole numbers from -127 to 127, times a power of two."""
    k = 0
    while 4.0**k * sum(fans) < 6:
        k += 1
    while 4.0**(k - 1) * sum(fans) >= 6:
        k -= 1
    mantissas = ((words(seed, WEIGHTS, 0, number, int(np.prod(shape))) * 255) >> 32) - 127
    return np.ldexp(mantissas.astype(np.float32), k - 7).reshape(shape)


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch's images."""
    others = ((words(seed, SHUFFLE, epoch, 0, count) * (np.arange(count) + 1)) >> 32).tolist()
    images = list(range(count))
    for i in range(count - 1, 0, -1):
        j = others[i]
        images[i], images[j] = images[j], images[i]
    return np.array(images)


def corners(seed: int, epoch: int, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each image's random window begins; height and width: how far it may move, by image."""
    drawn = words(seed, CROP, epoch, 0, 2 * len(height))
    return (drawn[0::2] * (height + 1)) >> 32, (drawn[1::2] * (width + 1)) >> 32


def flips(seed: int, epoch: int, count: int) -> np.ndarray:
    """Which images are mirrored."""
    return words(seed, FLIP, epoch, 0, count) >> 31 == 1


def held_out(seed: int, labels: np.ndarray, wanted: int) -> np.ndarray:
    """Which of the training images are the validation split of `wanted` images."""
    count = len(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    quota, rest = sizes * wanted // count, sizes * wanted % count
    best = [c for c in np.lexsort((classes, -rest)) if quota[c] + 1 < sizes[c]]
    quota[best[:wanted - quota.sum()]] += 1
    drawn, held = words(seed, VALIDATION, 0, 0, count), np.zeros(count, bool)
    for number, some in zip(classes, quota):
        members = np.flatnonzero(labels == number)
        held[members[np.argsort(drawn[members], kind="stable")[:some]]] = True
    return held


def window_index(first, height, width, top, left, flip, rows, columns, outside):
    """The index of each pixel of a batch's windows, [N][rows][columns], in images that lie one after the other; where a window
    reaches beyond its image, `outside`.

    first, height, width: of each image, [N][1][1] like top, left (of the window in the image) and flip (0 or 1); rows
    [1][H][1] and columns [1][1][W] count from 0. All are integers, NumPy's or PyTorch's.
    """
    y = top + rows
    x = left + columns + flip * (columns.shape[2] - 1 - 2 * columns)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return inside * (first + y * width + x - outside) + outside


# Resized crops: docs/arithmetic.md, "Augmentation"


def log2_fixed(value: int) -> int:
    whole = value.bit_length() - 1
    i, rest = divmod((value << 16 >> whole) & 65535, 256)
    return (whole << 16) + LOG2[i] + ((LOG2[i + 1] - LOG2[i]) * rest >> 8)


def exp2_frac(fraction: np.ndarray) -> np.ndarray:
    table, i, rest = np.array(EXP2), fraction >> 8, fraction & 255
    return table[i] + ((table[i + 1] - table[i]) * rest >> 8)


def root(value: np.ndarray) -> np.ndarray:
    """floor(sqrt(value)), value below 2^52."""
    out = np.sqrt(value.astype(np.float64)).astype(np.int64)
    out -= out * out > value
    return out + ((out + 1)**2 <= value)


def rectangles(seed: int, epoch: int, height: np.ndarray, width: np.ndarray, scale: list[int], aspect: list[int]) -> np.ndarray:
    """[4][N]: top, left, rows and columns of each image's resized crop; the ranges in millionths."""
    w0, w1, w2, w3 = words(seed, RESIZED_CROP, epoch, 0, 4 * len(height)).reshape(-1, 4).T
    area = np.maximum(1, height * width * (scale[0] + (w0 * (scale[1] - scale[0] + 1) >> 32)) // MILLION)
    least, most = (log2_fixed(end) - log2_fixed(MILLION) for end in aspect)
    t = least + (w1 * (most - least + 1) >> 32)
    ratio = exp2_frac(t & 65535) >> (14 - (t >> 16))
    columns = np.maximum(1, (root(4 * area * ratio >> 16) + 1) >> 1)
    rows = np.maximum(1, (root((4 * area << 16) // ratio) + 1) >> 1)
    wide = columns > width
    rows = np.where(wide, np.maximum(1, (2 * rows * width + columns) // (2 * columns)), rows)
    columns = np.where(wide, width, columns)
    high = rows > height
    columns = np.where(high, np.maximum(1, (2 * columns * height + rows) // (2 * rows)), columns)
    rows = np.where(high, height, rows)
    return np.stack((w2 * (height - rows + 1) >> 32, w3 * (width - columns + 1) >> 32, rows, columns))


def scaling_weights(sources: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[N][size][longest source] and their sum [N]: of each source pixel in each output pixel, whole numbers as float64."""
    i, j, source = np.arange(size)[None, :, None], np.arange(sources.max())[None, None, :], sources[:, None, None]
    overlap = np.minimum((i + 1) * source, (j + 1) * size) - np.maximum(i * source, j * size)
    place = np.clip((2 * i + 1) * source - size, 0, 2 * size * (source - 1))
    near = 2 * size - np.abs(place - 2 * size * j)
    weights = np.maximum(np.where(source >= size, overlap, near), 0) * (j < source)
    return weights.astype(np.float64), np.where(sources >= size, sources, 2 * size)


# Colours and squares


def factors(strength: int, drawn: np.ndarray) -> np.ndarray:
    """Of a strength in millionths, 12 fraction bits."""
    reach = (4096 * strength + MILLION // 2) // MILLION
    return 4096 - reach + (drawn * (2 * reach + 1) >> 32)


def mean_greys(pixels: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Of images whose pixels [..][C] begin at `first`, 8 fraction bits."""
    weights = np.array([65536] if pixels.shape[1] == 1 else [19595, 38470, 7471])
    sums = np.concatenate(([0], np.cumsum(pixels @ weights)))
    return (256 * (sums[first + count] - sums[first]) + 32768 * count) // (65536 * count)


def colours(seed: int, epoch: int, greys: np.ndarray, strengths: list[int]) -> np.ndarray:
    """[3][N]: what each image's pixels and greys are multiplied by, and what is added; strengths of brightness, contrast, saturation."""
    drawn = words(seed, COLOUR, epoch, 0, 4 * len(greys)).reshape(-1, 4).T
    b, c, s = (factors(strength, some) for strength, some in zip(strengths, drawn))
    return np.stack((s * c * b + (1 << 24) >> 25, (4096 - s) * c * b + (1 << 24) >> 25, (4096 - c) * b * greys + (1 << 20) >> 21))


def coloured(pixels, by_pixel, by_grey, offset):
    """Pixels [N][H][W][C], C 1 or 3, after jitter; NumPy's or PyTorch's integers of at least 32 bits, like the others [N][1][1][1]."""
    grey = pixels if pixels.shape[3] == 1 else (
        19595 * pixels[..., 0:1] + 38470 * pixels[..., 1:2] + 7471 * pixels[..., 2:3] + 32768 >> 16)
    return (by_pixel * pixels + by_grey * grey + offset + 1024 >> 11).clip(0, 255)


def squares(seed: int, epoch: int, count: int, size: int, height: int, width: int) -> np.ndarray:
    """[2][N]: the first row and column of each image's square."""
    drawn = words(seed, CUTOUT, epoch, 0, 2 * count)
    return np.stack(((drawn[0::2] * height >> 32) - size // 2, (drawn[1::2] * width >> 32) - size // 2))


def uncovered(top, left, size, rows, columns):
    """[N][H][W]: False in the squares; the arguments as window_index has them."""
    return (rows < top) | (rows >= top + size) | (columns < left) | (columns >= left + size)


# Mixup


def beta_part(x: np.ndarray, shape: float) -> np.ndarray:
    """The integral from 0 to x <= 1/2 of Beta(shape, shape)'s density, but for a constant factor."""
    term, total = np.ones_like(x), np.zeros_like(x)
    for n in range(80):
        total += term / (shape + n)
        term *= (n + 1 - shape) / (n + 1) * x
    return x**shape * total


def images_per_second(rows: list[dict]) -> float:
    """Of the median epoch: what it trained on, which is less than the whole set where max_steps ended it."""
    return 1 / sorted(row["train_seconds"] / row["images"] for row in rows)[len(rows) // 2]


def share_table(mixup: float) -> np.ndarray:
    """[256]: the shares of the next image, 256ths, by a random word's first byte."""
    if mixup == 1:
        return (2 * np.arange(256) + 3) >> 2
    reached = beta_part((np.arange(1, 129) - 0.5) / 256, mixup) / beta_part(np.array(0.5), mixup)
    return (reached[None, :] <= (np.arange(256)[:, None] + 0.5) / 256).sum(axis=1)


def shares(seed: int, epoch: int, count: int, mixup: float) -> np.ndarray:
    """Of each image, how much of the next one of its batch is mixed in, in 256ths."""
    return share_table(mixup)[words(seed, MIXUP, epoch, 0, count) >> 24]
