"""metrics.csv and metrics.jsonl opened by Python's own readers."""
import csv
import json

# 100 * epoch / 7 to three decimals
EXPECTED = [(1, "14.286"), (2, "28.571"), (3, "42.857")]


def test_csv(written):
    with open(written / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"epoch": str(epoch), "accuracy": accuracy, "note": str(-epoch)} for epoch, accuracy in EXPECTED]


def test_jsonl(written):
    lines = (written / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == [{"epoch": epoch, "accuracy": float(accuracy), "note": -epoch} for epoch, accuracy in EXPECTED]
    assert all(isinstance(row["epoch"], int) for row in rows)
