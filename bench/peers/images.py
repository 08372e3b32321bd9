"""The data sets that niti trains on, read with NumPy: CIFAR's binary files, IDX files, and folders of images (through Pillow)."""
import gzip
import os
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

SUBFOLDERS = ("", "cifar-10-batches-bin", "cifar-100-binary", "mnist", "fashion-mnist", "raw", "MNIST/raw", "FashionMNIST/raw")
FOLDERS = {"train": ("train", "training"), "test": ("test", "testing", "validation", "val", "valid")}
CIFAR = {"cifar10": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]), "cifar100": (["train.bin"], ["test.bin"])}
IDX = {"train": ("train",), "test": ("t10k", "test")}


@dataclass(frozen=True)
class Split:
    """Images of any sizes, one after the other."""

    pixels: np.ndarray  # uint8 [of all images][channels], a row for each pixel
    first: np.ndarray  # where each image begins; int64, as all below
    height: np.ndarray
    width: np.ndarray
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> "Split":
        """Some of the images; their pixels stay where they are."""
        return replace(self, first=self.first[chosen], height=self.height[chosen], width=self.width[chosen], labels=self.labels[chosen])


def even_split(images: np.ndarray, labels: np.ndarray) -> Split:
    """Of uint8 [N][H][W][C], all of one size."""
    count, height, width, channels = images.shape
    sides = np.full(count, height), np.full(count, width)
    return Split(np.ascontiguousarray(images).reshape(-1, channels), np.arange(count) * (height * width), *sides, labels.astype(np.int64))


# CIFAR and IDX


def read_cifar(folder: pathlib.Path, files: list[str], kind: str) -> Split:
    skip = 1 if kind == "cifar10" else 2  # CIFAR-100 has a coarse label before the fine one
    raw = np.concatenate([np.fromfile(folder / name, np.uint8) for name in files])
    if raw.size % (skip + 3072):
        sys.exit(f"{folder}: {raw.size} bytes (expected records of {skip + 3072} bytes)")
    records = raw.reshape(-1, skip + 3072)
    return even_split(records[:, skip:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, skip - 1])


def find_idx(folder: pathlib.Path, split: str, part: str) -> pathlib.Path | None:
    names = [f"{begin}-{part}{mark}{'idx3' if part == 'images' else 'idx1'}-ubyte{end}" for begin in IDX[split] for mark in "-."
             for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx_file(path: pathlib.Path, dimensions: int) -> np.ndarray:
    content = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    header = np.frombuffer(content, ">u4", 1 + dimensions)
    if header[0] != 0x800 + dimensions:
        sys.exit(f"{path}: magic number {header[0]:#x} (expected {0x800 + dimensions:#x})")
    return np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(header[1:].astype(int))


def read_idx(folder: pathlib.Path, split: str) -> Split:
    images, labels = (find_idx(folder, split, part) for part in ("images", "labels"))
    if not images or not labels:
        sys.exit(f"{folder}: no {split} images and labels in IDX files")
    return even_split(read_idx_file(images, 3)[..., np.newaxis], read_idx_file(labels, 1))


# Folders of images


@lru_cache(maxsize=256)
def scaling(source: int, size: int) -> np.ndarray:
    """[size][source]: the weight of each source pixel in each output pixel along one axis, as src/data/resize.c weighs them:
    the mean over the area where an axis shrinks, linear where it grows. Each row's sum is the same whole number."""
    if size <= source:
        i, j = np.arange(size)[:, np.newaxis], np.arange(source)[np.newaxis]
        return np.maximum(np.minimum((i + 1) * source, (j + 1) * size) - np.maximum(i * source, j * size), 0).astype(np.float64)
    place = np.clip((2 * np.arange(size) + 1) * source - size, 0, 2 * size * (source - 1))
    first, rest = place // (2 * size), place % (2 * size)
    weights = np.zeros((size, source))
    weights[np.arange(size), first] = 2 * size - rest
    weights[np.arange(size), np.minimum(first + 1, source - 1)] += rest
    return weights


def fitted_size(height: int, width: int, options: dict, window: tuple[int, int]) -> tuple[int, int]:
    """The size that data.fit and data.resize give an image of height x width."""
    if options["fit"] == "stretch":
        return window
    resize = options["resize"]
    by_height = height <= width if resize else window[0] * width >= window[1] * height
    side = resize or window[0 if by_height else 1]
    return (side, (2 * width * side + height) // (2 * height)) if by_height else ((2 * height * side + width) // (2 * width), side)


def scale(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H][W][C] to [size][C]; exact, since every sum is a whole number below 2^53."""
    if size == image.shape[:2]:
        return image
    rows, columns = scaling(image.shape[0], size[0]), scaling(image.shape[1], size[1])
    sums = np.einsum("yx,xjc->yjc", rows, np.einsum("jx,yxc->yjc", columns, image, optimize=True), optimize=True).astype(np.int64)
    total = int(rows[0].sum() * columns[0].sum())
    return ((2 * sums + total) // (2 * total)).astype(np.uint8)


def read_image(path: str, channels: int, options: dict, window: tuple[int, int]) -> np.ndarray:
    from PIL import Image, ImageOps  # only folders need it

    with Image.open(path) as opened:
        image = np.asarray(ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB"))
    image = image.reshape(*image.shape[:2], channels)
    return scale(image, fitted_size(*image.shape[:2], options, window)) if options["fit"] != "none" else image


def list_classes(folder: pathlib.Path) -> list[str]:
    return sorted((entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."), key=os.fsencode)


def list_images(folder: str) -> list[str]:
    """In the byte order of their paths."""
    found = []
    for where, below, files in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if name[0] != "."]
        found += [os.path.join(where, name) for name in files if name[0] != "." and name.lower().endswith((".jpg", ".jpeg", ".png"))]
    return sorted(found, key=os.fsencode)


def find_folder(folder: pathlib.Path, split: str) -> pathlib.Path | None:
    names = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
    return next((names[name] for name in FOLDERS[split] if name in names), None)


def read_folder(folder: pathlib.Path, split: str, names: list[str], options: dict, shape: tuple[int, int, int]) -> Split:
    where = find_folder(folder, split)
    if unknown := [name for name in list_classes(where) if name not in names]:
        sys.exit(f"{where}: class \"{unknown[0]}\" is missing in the training images")
    files = [(path, label) for label, name in enumerate(names) for path in list_images(str(where / name))]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        images = list(pool.map(lambda file: read_image(file[0], shape[2], options, shape[:2]), files))
    height, width = (np.array([image.shape[side] for image in images]) for side in (0, 1))
    first = np.concatenate(([0], np.cumsum(height * width)[:-1]))
    pixels = np.concatenate([image.reshape(-1, shape[2]) for image in images])
    return Split(pixels, first, height, width, np.array([label for _, label in files]))


# All of them


def kind_of(folder: pathlib.Path) -> str | None:
    """What a folder holds."""
    for kind, (files, _) in CIFAR.items():
        if (folder / files[0]).is_file():
            return kind
    if find_idx(folder, "train", "images"):
        return "idx"
    return "folder" if folder.is_dir() and find_folder(folder, "train") and find_folder(folder, "test") else None


def read(path: str, options: dict, shape: tuple[int, int, int]) -> dict[str, Split]:
    """The splits "train" and "test", and with resized crops of a folder "sources", the training images as they are. options: a recipe's `data`;
    shape: height, width and channels of the network's input."""
    wanted = options["kind"]
    folder, kind = next(((pathlib.Path(path, below), kind) for below in SUBFOLDERS
                         if (kind := kind_of(pathlib.Path(path, below))) and wanted in ("auto", kind)), (None, None))
    if folder is None:
        sys.exit(f"{path}: no data set of kind {wanted} (read here: cifar10, cifar100, idx, folder)")
    if kind in CIFAR:
        splits = {split: read_cifar(folder, files, kind) for split, files in zip(("train", "test"), CIFAR[kind])}
    elif kind == "idx":
        splits = {split: read_idx(folder, split) for split in IDX}
    else:
        names = list_classes(find_folder(folder, "train"))
        splits = {split: read_folder(folder, split, names, options, shape) for split in FOLDERS}
        if options.get("crop") == "resized":
            splits["sources"] = read_folder(folder, "train", names, {**options, "fit": "none"}, shape)
    if splits["train"].pixels.shape[1] != shape[2]:
        sys.exit(f"{folder}: images of {splits['train'].pixels.shape[1]} channels (the network takes {shape[2]})")
    return splits
