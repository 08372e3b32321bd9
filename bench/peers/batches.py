"""niti's random numbers, vectorised: initial weights, orders of epochs, crops, flips and the validation split.

docs/arithmetic.md defines them as functions of (seed, purpose, time, layer, index); tests/oracle compares these with its own.
"""
import numpy as np

WEIGHTS, SHUFFLE, CROP, FLIP, VALIDATION = 1, 2, 3, 4, 10  # purposes


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
