"""Runs the tool. NITI_BUILD names the build folder (default: build in the repository)."""
import hashlib
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NITI = ROOT / os.environ.get("NITI_BUILD", "build") / "niti"  # an absolute NITI_BUILD stays as it is
CACHE = NITI.parent / "CMakeCache.txt"  # not there where valgrind runs the tool
SETTINGS = CACHE.read_text() if CACHE.exists() else ""
SANITIZE = re.findall(r"^NITI_SANITIZE:\w+=(.+)$", SETTINGS, re.MULTILINE)
# What a program must be compiled with beside such a build, and how many times as long the tool may take.
FLAGS = [f"-fsanitize={names}" for names in SANITIZE] + ["--coverage"] * ("CMAKE_BUILD_TYPE:STRING=Coverage" in SETTINGS)
SLOWER = 10 if FLAGS or not SETTINGS else 1

# nohup ignores SIGHUP and a shell's background jobs SIGINT, and the tool goes on ignoring what its parent had ignored; what a parent
# handles begins with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def niti(*arguments, timeout=120 * SLOWER, **options):
    """One run of the tool, finished."""
    return subprocess.run([NITI, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL, **options)


def output_of(*arguments, **options):
    """The standard output of a run that succeeds."""
    done = niti(*arguments, **options)
    assert done.returncode == 0, f"niti {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def json_of(*arguments, **options):
    """The object on the last line of a run with --json."""
    return json.loads(output_of(*arguments, "--json", **options).splitlines()[-1])


def train(recipe, data, run, *arguments, **options):
    """A new run, by one thread: on small networks more only get into each other's way."""
    return json_of("train", recipe, "--data", data, "--run", run, "--threads", 1, *arguments, **options)


def resume(run, *arguments, **options):
    return json_of("train", "--resume", run, "--threads", 1, *arguments, **options)


def without_progress(text):
    """Standard error without the lines of work that goes on for seconds, as it does under valgrind."""
    return "".join(line for line in text.splitlines(True) if not re.fullmatch(r"niti: [a-z ]+: \d+ of \d+\n", line))


def fails(*arguments, says=(), code=1, **options):
    """A run that fails as it should: the exit code, and one line of standard error with all of `says` in it. Returns the line."""
    done = niti(*arguments, **options)
    shown = f"niti {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
    assert done.returncode == code, shown
    lines = without_progress(done.stderr).splitlines()
    assert len(lines) == 1 and lines[0].startswith("niti: ") and len(lines[0]) < 1200, shown
    for text in says if isinstance(says, tuple) else (says,):
        assert str(text) in lines[0], f"'{text}' is not in: {lines[0]}"
    return lines[0]


def misused(*arguments, says=""):
    """A run that is refused as wrong usage: exit code 2, the reason and the usage on standard error, nothing done."""
    done = niti(*arguments)
    assert done.returncode == 2 and done.stdout == "", (done.returncode, done.stdout, done.stderr)
    assert says in done.stderr and "usage: niti" in done.stderr, done.stderr


def start_training(*arguments):
    """A run of `niti train` in the background, by one thread."""
    return subprocess.Popen([NITI, "train", *map(str, arguments), "--threads", "1"], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, process, seconds=30 * SLOWER):
    """Waits until the file is there; the process must not end before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.002)


def stop(process, number=signal.SIGKILL):
    """Sends the signal; returns the exit code, standard output and standard error."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60 * SLOWER)
    return process.returncode, out, err


def rows_of(run):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(rows):
    """Rows without what differs from one run to the next."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


def metadata_of(checkpoint):
    """The metadata of a safetensors file."""
    content = checkpoint.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length])["__metadata__"]


def tensors_of(checkpoint):
    """The tensors of a file opened by the safetensors package."""
    from safetensors.numpy import load_file

    return load_file(checkpoint)


def hash_of(checkpoint):
    """docs/arithmetic.md, "Identity", of a file or of its tensors. An optimiser's state is int32, and not part of it."""
    tensors = checkpoint if isinstance(checkpoint, dict) else tensors_of(checkpoint)
    sha = hashlib.sha256()
    names = [name for name in tensors if not name.endswith(".exponent") and tensors[name].dtype.name != "int32"]
    for name in sorted(names, key=str.encode):
        tensor = tensors[name]
        assert tensor.dtype.name in ("int8", "int16", "int64")
        sha.update(name.encode() + b"\0" + struct.pack(f"<{1 + tensor.ndim}I", tensor.ndim, *tensor.shape))
        sha.update(struct.pack("<i", int(tensors[name + ".exponent"])) + tensor.tobytes())
    return sha.hexdigest()


def forge(path, change):
    """Lets change(metadata, tensors) alter anything in a checkpoint, and recomputes its checksum (src/io/checkpoint.h) and, where the
    metadata has the hash of its weights, that too."""
    from safetensors.numpy import save_file

    metadata, tensors = metadata_of(path), tensors_of(path)
    metadata.pop("checksum")
    change(metadata, tensors)
    if "hash" in metadata:
        metadata["hash"] = hash_of(tensors)
    sha = hashlib.sha256()
    for key in sorted(metadata, key=str.encode):
        sha.update(key.encode() + b"\0" + metadata[key].encode() + b"\0")
    for name in sorted(tensors, key=str.encode):
        tensor = tensors[name]
        words = [name, {"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"}[tensor.dtype.name], *map(str, tensor.shape), ""]
        sha.update(b"".join(word.encode() + b"\0" for word in words) + tensor.tobytes())
    save_file(tensors, path, {**metadata, "checksum": sha.hexdigest()})


def content_of(folder):
    """{path: bytes} of everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
