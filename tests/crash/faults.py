"""Runs the tool with a fault (tests/crash/faults.c), and the lists of cases."""
import collections
import concurrent.futures
import os
import random
import shutil
import subprocess

import tool

SLOW = int(os.environ.get("NITI_TEST_SLOW") or 0)  # times the cases of `make test`
LIBRARY = tool.ROOT / os.environ.get("NITI_BUILD", "build") / "tests" / "libfaults.so"

Done = collections.namedtuple("Done", "code out err allocations live calls hit")


def run(fault, *arguments, report, **options):
    """The tool with the fault; `report` is a file's path. A killed process reports nothing."""
    environment = {**os.environ, "NITI_FAULT": fault, "NITI_FAULT_REPORT": str(report), "LD_PRELOAD": str(LIBRARY)}
    report.unlink(missing_ok=True)
    done = subprocess.run([tool.NITI, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL, env=environment, **options)
    words = report.read_text().split() if report.exists() else ["-1", "-1", "-1", "-"]
    return Done(done.returncode, done.stdout, done.stderr, *map(int, words[:3]), words[3])


def some(count, few, seed=1):
    """Of the numbers 1 to count `few`, or NITI_TEST_SLOW times as many: the same each time."""
    everything = range(1, count + 1)
    wanted = few * max(SLOW, 1)
    return list(everything) if count <= wanted else sorted(random.Random(seed).sample(everything, wanted))


def each(cases, check):
    """check(case) of every case, two at a time; returns what it returned."""
    with concurrent.futures.ThreadPoolExecutor(2 if not SLOW else os.cpu_count()) as pool:
        return list(pool.map(check, cases))


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
