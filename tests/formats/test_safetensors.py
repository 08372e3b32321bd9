"""Checkpoints and the public `safetensors` package: each reads what the other writes."""
import hashlib
import struct

import numpy
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file


def ramp(factor, *shape):
    count = int(numpy.prod(shape))
    return (numpy.arange(count) * factor % 255 - 127).astype(numpy.int8).reshape(shape)


WEIGHTS = {
    "conv.weight": (ramp(37, 4, 3, 3, 3), -8),
    "fc.weight": (ramp(11, 10, 7), -6),
    "wide": (numpy.array([-300, 0, 32767], numpy.int16), 2),
    "running": (numpy.array([-(2**63), 2**63 - 1], numpy.int64), 0),
}
STATE = {"state": (numpy.array([-(2**31), 2**31 - 1], numpy.int32), 0)}


def identity(weights):
    """docs/arithmetic.md, "Identity"."""
    sha = hashlib.sha256()
    for name in sorted(weights, key=str.encode):
        data, exponent = weights[name]
        sha.update(name.encode() + b"\0")
        sha.update(struct.pack(f"<I{data.ndim}I", data.ndim, *data.shape))
        sha.update(struct.pack("<i", exponent))
        sha.update(data.tobytes())
    return sha.hexdigest()


def metadata_of(path):
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


@pytest.fixture
def checkpoint(written):
    return written / "checkpoint.safetensors"


def test_tensors(checkpoint):
    tensors = load_file(checkpoint)
    expected = {**WEIGHTS, **STATE}
    assert set(tensors) == set(expected) | {name + ".exponent" for name in expected}
    for name, (data, exponent) in expected.items():
        assert tensors[name].dtype == data.dtype
        assert tensors[name].shape == data.shape
        assert (tensors[name] == data).all()
        assert tensors[name + ".exponent"].dtype == numpy.int32
        assert tensors[name + ".exponent"].shape == ()
        assert tensors[name + ".exponent"] == exponent


def test_metadata(checkpoint):
    metadata = metadata_of(checkpoint)
    assert len(metadata.pop("checksum")) == 64
    assert metadata == {
        "format": "niti", "version": "1", "seed": str(2**64 - 1), "model": "name: café\n",
        "recipe": 'batch: 64\n\t"quoted"\n', "hash": identity(WEIGHTS),
    }


def test_layout(checkpoint):
    """The header's padding, and every tensor aligned for its type."""
    raw = checkpoint.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert length % 8 == 0
    header = raw[8:8 + length]
    assert header.startswith(b"{") and header.rstrip(b" ").endswith(b"}")
    with safe_open(checkpoint, framework="numpy") as file:
        offset = 0
        for name in file.offset_keys():
            data = file.get_tensor(name)
            assert offset % data.itemsize == 0
            offset += data.nbytes
    assert 8 + length + offset == len(raw)


def test_hash(checkpoint, write_formats):
    result = write_formats("hash", checkpoint)
    assert (result.returncode, result.stdout) == (0, identity(WEIGHTS) + "\n"), result.stderr


def test_saved_again_by_the_package(checkpoint, write_formats, tmp_path):
    """The package lays a file out in its own way; the content is the same, so it still loads."""
    again = tmp_path / "again.safetensors"
    save_file(load_file(checkpoint), again, metadata_of(checkpoint))
    result = write_formats("hash", again)
    assert (result.returncode, result.stdout) == (0, identity(WEIGHTS) + "\n"), result.stderr


def change_weight(tensors, metadata):
    tensors["fc.weight"][3, 2] += 1


def change_exponent(tensors, metadata):
    tensors["fc.weight.exponent"] = numpy.array(-5, numpy.int32)


def overflow_exponent(tensors, metadata):
    tensors["fc.weight.exponent"] = numpy.array(2**31 - 1, numpy.int32)


def change_shape(tensors, metadata):
    tensors["fc.weight"] = tensors["fc.weight"].reshape(7, 10)


def change_state(tensors, metadata):
    tensors["state"][0] = 0


def change_value(tensors, metadata):
    metadata["seed"] = "5"


def add_float(tensors, metadata):
    tensors["f"] = numpy.zeros(2, numpy.float32)


def add_weight(tensors, metadata):
    tensors["more"] = numpy.zeros(2, numpy.int8)


def drop_weight(tensors, metadata):
    del tensors["fc.weight"]


def drop_metadata(tensors, metadata):
    metadata.clear()


@pytest.mark.parametrize("change, words", [
    (change_weight, "does not have the hash"),
    (change_exponent, "does not have the hash"),
    (overflow_exponent, "'fc.weight': exponent 2147483647, expected -1024 to 1024"),
    (change_shape, "does not have the hash"),
    (change_state, "does not have the checksum"),
    (change_value, "does not have the checksum"),
    (add_float, "'f'"),
    (add_weight, "'more.exponent', is missing"),
    (drop_weight, "5 exponents for 4 tensors"),
    (drop_metadata, "'format' is missing"),
])
def test_changed_content_is_refused(checkpoint, write_formats, tmp_path, change, words):
    tensors, metadata = load_file(checkpoint), metadata_of(checkpoint)
    change(tensors, metadata)
    changed = tmp_path / "changed.safetensors"
    save_file(tensors, changed, metadata)
    result = write_formats("hash", changed)
    assert result.returncode == 1
    assert str(changed) in result.stderr and words in result.stderr
