"""The curves in the README: drawn by scripts/plot_metrics.py from the metrics of a run."""
import csv
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

from tool import ROOT

SCRIPT = ROOT / "scripts" / "plot_metrics.py"
SVG = "{http://www.w3.org/2000/svg}"


def plot(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def check_curves(text, metrics):
    """Every point of every curve lies where the numbers beside the axis put its value."""
    root = xml.fromstring(text)
    with open(metrics, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curves = {line.get("id"): [tuple(map(float, point.split(","))) for point in line.get("points").split()]
              for line in root.iter(f"{SVG}polyline")}
    assert set(curves) == {"train_accuracy", "test_accuracy", "train_loss", "test_loss"}
    for name, points in curves.items():
        axis = {}  # of the panel to the left of the curve: value -> y
        for label in root.iter(f"{SVG}text"):
            x = float(label.get("x"))
            if label.get("text-anchor") == "end" and label.get("fill") is None and 0 < points[0][0] - x < 20:
                axis[float(label.text)] = float(label.get("y")) - 4
        low, high = min(axis), max(axis)
        assert len(axis) >= 2 and len(points) == len(rows)
        for (_, y), row in zip(points, rows):
            value = low + (high - low) * (axis[low] - y) / (axis[low] - axis[high])
            assert value == pytest.approx(float(row[name]), abs=(high - low) / 500) and low <= float(row[name]) <= high
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_a_run(trained, tmp_path):
    metrics = trained[0] / "metrics.csv"
    done = plot(metrics, "a < b & c")
    assert done.returncode == 0 and "a &lt; b &amp; c" in done.stdout
    check_curves(done.stdout, metrics)


def test_the_readme():
    """The committed picture is what the script draws of the committed metrics."""
    committed = (ROOT / "docs" / "fashion-mnist.svg").read_text(encoding="utf-8")
    check_curves(committed, ROOT / "docs" / "fashion-mnist.csv")
    title = next(text.text for text in xml.fromstring(committed).iter(f"{SVG}text") if text.get("font-size") == "14")
    assert plot(ROOT / "docs" / "fashion-mnist.csv", title).stdout == committed
    assert "docs/fashion-mnist.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "epoch,step\n", "epoch,train_loss\n1,2\n"])
def test_other_files(text, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    done = plot(tmp_path / "m.csv", "t")
    assert done.returncode == 1 and str(tmp_path / "m.csv") in done.stderr and "metrics.csv" in done.stderr and not done.stdout
