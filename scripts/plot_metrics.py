#!/usr/bin/env python3
"""Draws the curves of a run as SVG: accuracy and loss, in training and testing, over the epochs.

    plot_metrics.py RUN/metrics.csv TITLE >curves.svg

Uses the standard library only, so that it runs wherever Python 3 does.
"""
import csv
import math
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 430, 300, 56, 16, 58, 46  # of one panel, in pixels
CURVES = (("train", "#4477aa"), ("test", "#cc3311"))
PANELS = (("accuracy", "accuracy, %"), ("loss", "loss, nats"))


def ticks(low, high):
    """Round numbers, at most eight, the first at most `low` and the last above or at `high`."""
    for step in (digit * 10.0 ** power for power in range(-6, 9) for digit in (1, 2, 5)):
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first < 8:
            return [round(number * step, 6) for number in range(first, max(last, first + 1) + 1)]
    raise ValueError(high)


def panel(rows, key, label, left):
    """The lines of one panel."""
    columns = {name: [float(row[f"{name}_{key}"]) for row in rows] for name, _ in CURVES}
    every = [value for values in columns.values() for value in values]
    marks = ticks(min(every), max(every))
    epochs = [int(row["epoch"]) for row in rows]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(epoch):
        return left + LEFT + width * (epoch - epochs[0]) / max(1, epochs[-1] - epochs[0])

    def y(value):
        return TOP + height * (marks[-1] - value) / (marks[-1] - marks[0])

    for value in marks:
        yield f'<line x1="{left + LEFT}" x2="{left + LEFT + width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>'
        yield f'<text x="{left + LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    for epoch in epochs[::max(1, len(epochs) // 10)]:
        yield f'<text x="{x(epoch):.1f}" y="{TOP + height + 18}" text-anchor="middle">{epoch}</text>'
    yield f'<text x="{left + LEFT + width / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">epoch</text>'
    yield f'<text x="{left + LEFT}" y="{TOP - 12}">{label}</text>'
    for number, (name, colour) in enumerate(CURVES):
        points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in zip(epochs, columns[name]))
        yield f'<polyline id="{name}_{key}" points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield (f'<text x="{left + WIDTH - RIGHT - 70 * (1 - number)}" y="{TOP - 12}" text-anchor="end" fill="{colour}">'
               f'{"training" if name == "train" else "test"}</text>')


def plot(rows, title):
    """The SVG file's text."""
    width = len(PANELS) * WIDTH
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
             f'<text x="{width / 2:.1f}" y="22" text-anchor="middle" font-size="14">{escape(title)}</text>']
    for number, (key, label) in enumerate(PANELS):
        lines += panel(rows, key, label, number * WIDTH)
    return "\n".join(lines + ["</svg>", ""])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {f"{name}_{key}" for name, _ in CURVES for key, _ in PANELS} - set(rows[0] if rows else ())
    if missing:
        sys.exit(f"{sys.argv[1]}: expected the columns of metrics.csv and at least one row, but {', '.join(sorted(missing))} is missing")
    sys.stdout.write(plot(rows, sys.argv[2]))


if __name__ == "__main__":
    main()
