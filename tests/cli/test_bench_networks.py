"""bench/compare_networks.py with a stand-in for PyTorch's process, and the random networks that it measures."""
import importlib.util
import json
import subprocess
import sys

import pytest
import yaml

from tool import NITI, ROOT, json_of

sys.path.insert(0, str(ROOT / "bench"))
import random_networks  # noqa: E402

SPEC = importlib.util.spec_from_file_location("compare_networks", ROOT / "bench/compare_networks.py")
compare = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(compare)

PEER = """#!{python}
import json, sys, time
print(json.dumps({{"torch": "2.x", "device": "stand-in"}}), flush=True)
for line in sys.stdin:
    r = json.loads(line)
    with open({asked!r}, "a") as file:
        file.write(line)
    if r["mode"] == "slow":
        time.sleep(1000)
    if r["mode"] == "dies":
        sys.exit("killed by a stand-in's fault")
    if r["mode"] == "full":
        print(json.dumps({{"error": "out of memory: all of it"}}), flush=True)
        continue
    ms = 1e6 if r["mode"] == "worse" else 1e5
    print(json.dumps({{"images_per_second": r["batch"] / ms * 1e3, "milliseconds": {{"min": ms, "median": ms}}}}), flush=True)
"""


@pytest.fixture
def measure(tmp_path):
    """Runs the script in tmp_path; returns exit code, output, messages and the records."""
    peer = tmp_path / "peer"
    peer.write_text(PEER.format(python=sys.executable, asked=str(tmp_path / "asked")), encoding="utf-8")
    peer.chmod(0o755)

    def run(*options):
        out = tmp_path / "out.jsonl"
        done = subprocess.run([sys.executable, ROOT / "bench/compare_networks.py", "--niti", NITI, "--out", out, "--python", peer,
                               "--device", "cpu", "--threads", "1", "--seconds", "0.001", *map(str, options)],
                              capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr, compare.read_records(out)
    return run


def test_measures_once_and_prints_the_best_mode(measure, tmp_path):
    options = ("--models", "mlp", "--batches", 1, 2, "--modes", "worse", "better", "--rounds", 2, "--tops", 1, "--gbs", 10)
    code, table, _, records = measure(*options)
    assert code == 0 and len(records) == 1 + 2 * (1 + 2 * 3)
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| mlp")]
    assert [line[1] for line in lines] == ["1", "2"] and all(line[3:5] == ["100000.000", "better"] for line in lines)
    mine = sorted(r["milliseconds"] for r in records if r.get("batch") == 2 and r["who"] == "niti")
    assert float(lines[1][5]) == pytest.approx((1e5 / mine[0] + 1e5 / mine[1]) / 2, rel=0.01)
    assert "Slower than PyTorch, of 2 cases: none." in table
    order = [(r["who"], r["mode"]) for r in records if r.get("batch") == 1]
    assert order == [("limit", ""), *[("niti", ""), ("PyTorch", "worse"), ("PyTorch", "better")] * 2]
    asked = (tmp_path / "asked").read_text().splitlines()
    again = measure(*options)
    assert again[0] == 0 and again[1] == table and again[3] == records
    assert (tmp_path / "asked").read_text().splitlines() == asked


def test_goes_on_after_a_failure(measure):
    code, table, _, records = measure("--models", "mlp", "--batches", 1, 2, "--modes", "full", "dies", "better", "--rounds", 2)
    assert code == 1
    failed = [(r["batch"], r["mode"], r["error"]) for r in records if "error" in r]
    assert [(batch, mode) for batch, mode, _ in failed] == [(1, "full"), (1, "dies"), (2, "full"), (2, "dies")]
    assert failed[0][2] == "out of memory: all of it" and "killed by a stand-in's fault" in failed[1][2]
    assert table.count("| better |") == 2 and "- mlp at 1, PyTorch dies: " in table


def test_stops_when_the_time_is_over(measure):
    code, table, says, records = measure("--models", "mlp", "--batches", 1, "--modes", "better", "slow", "--budget", 10)
    assert code == 1 and "10 seconds are over; the same command goes on from here" in says
    assert {r["mode"] for r in records if r["who"] == "PyTorch"} == {"better"} and "| better |" in table


@pytest.mark.parametrize("options, says", [
    ((), "--out FILE to measure"), (("--out", "a", "--table", "b"), "--out FILE to measure"), (("--out", "a", "--rounds", "0"), "--rounds"),
    (("--out", "a", "--niti", "none"), "none is not there"), (("--out", "a", "--budget", "0"), "--budget"),
    (("--out", "a", "--niti", NITI, "--device", "cuda:9999"), "compare_networks: "),
    (("--out", "a", "--niti", NITI, "--device", "cpu", "--models", "lenet6"), "no network lenet6"),
])
def test_misuse(options, says, tmp_path):
    done = subprocess.run([sys.executable, ROOT / "bench/compare_networks.py", *options], capture_output=True, text=True, cwd=tmp_path,
                          check=False)
    assert done.returncode != 0 and says in done.stderr and not list(tmp_path.iterdir())


def test_work_of_a_network_counts_products_and_bytes(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("name: two\ninput: [4, 4, 3]\nclasses: 5\nlayers:\n  - conv: {out: 8, kernel: 3, padding: 1}\n  - relu\n"
                    "  - flatten\n  - linear: {out: classes}\n", encoding="utf-8")
    n, pixels, hidden, w1, w2 = 2, 2 * 48, 2 * 128, 8 * 27, 5 * 128
    work = compare.work_of(json_of("program", path, "--batch", n, "--fused"))["work"]
    conv, linear = 2 * n * 128 * 27, 2 * n * w2
    delta, metrics = n * 5, 3 * 8
    assert work == [
        [0, pixels + n * 8 * 4 + 3 * 256 + pixels],  # the input's table
        [conv, pixels + w1 + hidden], [linear, hidden + w2 + n * 5],
        [0, n * 5 + 4 * n + 2 * metrics + delta],  # the loss
        [linear, delta + hidden + 4 * w2], [linear, delta + w2 + hidden],
        [0, 3 * hidden],  # the ReLU's delta, behind a reshape
        [conv, hidden + pixels + 4 * w1], [0, 2 * w1 + 4 * w1], [0, 2 * w2 + 4 * w2],
    ]
    assert compare.least_milliseconds([[4e9, 10], [0, 2e6]], (1e12, 1e9)) == pytest.approx(4 + 2)


def test_random_networks_are_what_they_say(tmp_path):
    paths = random_networks.write(tmp_path / "a", 20, 1)
    again = random_networks.write(tmp_path / "b", 20, 1)
    assert [path.read_text() for path in paths] == [path.read_text() for path in again]
    assert paths[0].read_text() != random_networks.write(tmp_path / "c", 1, 2)[0].read_text().replace("seed 2", "seed 1")
    convs = []
    for path in paths:
        model = yaml.safe_load(path.read_text())
        assert model["input"][0] == model["input"][1] and 8 <= model["input"][0] <= 128
        convs += random_networks.models.convolutions(model)
        listing = json_of("program", path, "--batch", 2)["operations"]  # niti takes it, and counts the same products
        forward = sum(o["multiply_adds_per_image"] for o in listing if o["phase"] == "forward")
        assert forward == random_networks.multiply_adds(model)
    assert all(8 <= c["k"] <= 640 for c in convs)
    assert {c["kernel"] for c in convs} >= {(k, k) for k in range(1, 8)} and {c["stride"] for c in convs} == {(1, 1), (2, 2)}
    assert any("residual" in path.read_text() for path in paths)
