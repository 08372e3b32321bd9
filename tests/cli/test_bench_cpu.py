"""bench/compare_cpu.py with a tool that reports how many processes its caller runs."""
import json
import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
FAKE = """#!/bin/sh
count=$(wc -w < /proc/$PPID/task/$PPID/children)
echo "{\\"device\\": \\"cpu, fake kernels, 1 thread\\", \\"images_per_second\\": $count, \\"milliseconds\\": {\\"median\\": 1}}"
"""


def compare(folder: pathlib.Path, *options: str) -> tuple[str, list[dict]]:
    fake = folder / "niti"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    done = subprocess.run([sys.executable, BENCH / "compare_cpu.py", "--niti", fake, "--out", folder / "out.json", "--rounds", "2",
                           "--models", "lenet5", "--batches", "1", "--threads", "1", "--onednn", folder, "--venv", folder, *options],
                          capture_output=True, text=True, check=True)
    return done.stdout, json.loads((folder / "out.json").read_text())["records"]


def test_busy(tmp_path):
    table, records = compare(tmp_path, "--busy")
    counts = [(r["what"], r["images_per_second"]) for r in records]
    assert counts == 2 * [("training step", 1), ("training step beside a busy process", 2)]
    assert "| training step |" in table and "| training step beside a busy process |" in table


def test_quiet(tmp_path):
    table, records = compare(tmp_path)
    assert [(r["what"], r["images_per_second"]) for r in records] == 2 * [("training step", 1)]
    assert "busy" not in table
