#!/usr/bin/env python3
"""Makes the table of docs/benchmarks.md from what compare_cpu.sh measured.

  python3 bench/table.py build/compare_cpu.json
  python3 bench/table.py --self-test

A figure is the median of the rounds; a ratio is the median of the rounds' own ratios, niti over the other. Where a peer has
several modes (memory layouts, forms of a network) the one that was fastest is shown.
"""
import json
import pathlib
import statistics
import sys


def fastest_mode(records: list[dict]) -> list[dict]:
    """Those of one mode: of the modes measured most often, the fastest."""
    modes: dict[str, list[dict]] = {}
    for record in records:
        modes.setdefault(record["mode"], []).append(record)
    return max(modes.values(), key=lambda r: (len(r), statistics.median(x["images_per_second"] for x in r)))


def ratio(ours: list[dict], theirs: list[dict]) -> float | None:
    """The median over the rounds in which both were measured."""
    rates = {record["round"]: record["images_per_second"] for record in ours}
    pairs = [rates[r["round"]] / r["images_per_second"] for r in theirs if r["round"] in rates]
    return statistics.median(pairs) if pairs else None


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rows(records: list[dict], what: str) -> list[str]:
    cases: dict[tuple, dict[str, list[dict]]] = {}
    for r in records:
        if r["what"] == what:
            cases.setdefault((r["model"], r["batch"], r["threads"]), {}).setdefault(r["who"], []).append(r)
    order = {model: i for i, model in enumerate(dict.fromkeys(model for model, _, _ in cases))}
    lines = []
    for case in sorted(cases, key=lambda c: (order[c[0]], c[1], -c[2])):
        model, batch, threads = case
        ours = cases[case].get("niti", [])
        for who, found in cases[case].items():
            chosen = fastest_mode(found)
            rates = [r["images_per_second"] for r in chosen]
            spread = f" ({number(min(rates))} to {number(max(rates))})" if len(rates) > 1 else ""
            times = statistics.median(r["milliseconds"] for r in chosen)
            over = None if who == "niti" else ratio(ours, chosen)
            lines.append(f"| {model} | {batch} | {threads} | {who} ({chosen[0]['mode']}) | "
                         f"{number(statistics.median(rates))}{spread} | {number(times)} | {'' if over is None else f'{over:.2f}'} |")
    return lines


def scaling(records: list[dict]) -> list[str]:
    """niti's two threads over one, where both were measured."""
    mine = [r for r in records if r["who"] == "niti"]
    found = []
    for what, model, batch in dict.fromkeys((r["what"], r["model"], r["batch"]) for r in mine):
        of = {n: [r for r in mine if (r["what"], r["model"], r["batch"], r["threads"]) == (what, model, batch, n)] for n in (1, 2)}
        over = ratio(of[2], of[1])
        if over is not None:
            found.append(f"| {what} | {model} | {batch} | {over:.2f} |")
    return found


def markdown(report: dict) -> str:
    machine, records = report["machine"], report["records"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if name != "niti")
    lines = [f"{report['date']}; {machine['processor']} ({' '.join(machine['features'])}), {machine['cores']} cores, "
             f"{machine['system']}, Linux {machine['kernel']}; load {machine['load_at_start']:.1f} at the start.",
             f"{versions or 'No peer'}. Medians over {report['rounds']} round{'s'[:report['rounds'] != 1]}, in turns (minimum to maximum); the last column is "
             "niti's images/s over the row's, the median of the rounds' ratios.", ""]
    for what in dict.fromkeys(r["what"] for r in records):
        lines += [f"| {what} | batch | threads | who | images/s | ms | niti is faster by |", "|---|---|---|---|---|---|---|",
                  *rows(records, what), ""]
    threads = scaling(records)
    if threads:
        lines += ["| niti | model | batch | two threads over one |", "|---|---|---|---|", *threads, ""]
    return "\n".join(lines).rstrip()


def self_test() -> None:
    def record(turn: int, who: str, mode: str, rate: float, threads: int = 2) -> dict:
        return {"round": turn, "what": "training step", "model": "m", "batch": 64, "threads": threads, "who": who, "mode": mode,
                "images_per_second": rate, "milliseconds": 64e3 / rate}

    records = [record(1, "niti", "k", 100), record(1, "P", "a", 50), record(1, "P", "b", 60), record(2, "niti", "k", 300),
               record(2, "P", "b", 100), record(3, "niti", "k", 200), record(3, "P", "b", 50), record(1, "niti", "k", 80, 1),
               record(3, "niti", "k", 100, 1)]
    report = {"date": "2000-01-02", "rounds": 3, "records": records, "versions": {"niti": "k", "P": "1.2"},
              "machine": {"processor": "C", "features": ["avx2"], "cores": 2, "system": "S", "kernel": "5", "load_at_start": 0.04}}
    text = markdown(report)
    # mode b was measured in every round; niti over it: 100/60, 300/100, 200/50, the middle one 3
    assert "| m | 64 | 2 | niti (k) | 200 (100 to 300) | 320 |  |" in text, text
    assert "| m | 64 | 2 | P (b) | 60.0 (50.0 to 100) | 1,067 | 3.00 |" in text, text
    assert "| training step | m | 64 | 1.62 |" in text, text  # 100/80 and 200/100: 1.25 and 2, between them 1.625
    assert "2000-01-02; C (avx2), 2 cores, S, Linux 5; load 0.0 at the start." in text, text
    assert "P 1.2. Medians over 3 rounds, in turns" in text, text
    assert text.index("| m | 64 | 2 |") < text.index("| m | 64 | 1 |"), text
    alone = markdown({**report, "versions": {}, "records": records[:1]})  # every peer left out
    assert "No peer." in alone and "niti (k) | 100 | 640 |  |" in alone and "two threads" not in alone, alone
    assert markdown({**report, "records": []}).startswith("2000-01-02")
    assert ratio(records[:1], [record(2, "P", "b", 1)]) is None


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        print("table: the self-test passes")
    elif len(sys.argv) == 2:
        print(markdown(json.loads(pathlib.Path(sys.argv[1]).read_text())))
    else:
        sys.exit("usage: table.py MEASUREMENTS.json | --self-test")
