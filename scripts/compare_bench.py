#!/usr/bin/env python3
"""Measures two programs in turns on this machine, and says what has become worse.

    compare_bench.py --before PROGRAM [--after PROGRAM] [--rounds N] [--worse SHARE]
                     [--judge KEYS] [--] ARGUMENTS…
    compare_bench.py --self-test

PROGRAM is a `fermata-bench`: it is also the engine that it measures. ARGUMENTS are its own: cases, and
whatever else. They are run as often as --rounds says (3), before, after, before, after, so that both
meet the same machine. Of each figure the median of all rounds counts. The end is 1 if one of --judge
(per_s,p50_ms,cpu_us_engine,rss_mib) is worse by more than --worse (0.15) of what it was before, 2 if a
program measured nothing. Without --after it is the one that was built here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()

# What is compared, and whether more of it is better.
KEYS = {
    "per_s": True, "ratio": True, "p50_ms": False, "p99_ms": False,
    "cpu_us_engine": False, "cpu_us_broker": False, "rss_mib": False,
}  # fmt: skip
# The others are told: the longest times of a short run and the broker's share vary by themselves.
JUDGED = "per_s,p50_ms,cpu_us_engine,rss_mib"


def fail(text):
    print(f"compare: error: {text}", file=sys.stderr)
    sys.exit(2)


def measure(program, arguments):
    """Runs a program once and returns its lines of JSON."""
    command = [str(program), *arguments, "--json"]
    print("+ " + " ".join(command), file=sys.stderr, flush=True)
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    # One that missed a floor ends with 1. So did one of before that failed behind some cases: `main` tells those apart.
    if answer.returncode not in (0, 1) or not lines:
        fail(f"`{program}` ended with {answer.returncode} and measured {len(lines)} cases")
    return lines


def measured(lines):
    """What was measured, of which sizes."""
    return {(line["case"], line["n"], line.get("workers"), line.get("servers")) for line in lines}


def whole(rounds):
    """Whether each round measured the same: one that lacks something failed half-way."""
    return all(measured(lines) == measured(rounds[0]) for lines in rounds)


def medians(rounds):
    """The median of each figure over all rounds, by what was measured and the figure's name."""
    found = {}
    for lines in rounds:
        for line in lines:
            measured = (line["case"], line["n"], line.get("workers"), line.get("servers"))
            for key in KEYS:
                if line.get(key) is not None:
                    found.setdefault((measured, key), []).append(line[key])
    return {place: statistics.median(values) for place, values in found.items()}


def compare(before, after, judged, worse):
    """Rows of a table, and how many of them are worse by more than they may be."""
    rows, count = [], 0
    before, after = medians(before), medians(after)
    for (measured, key), was in before.items():
        case, n, *_ = measured
        now = after.get((measured, key))
        if now is None or was == 0:
            verdict = "not compared" if now is not None else "gone"
            # What was measured before and is no longer must not look like a pass.
            is_worse, ratio = now is None and key in judged, ""
        else:
            ratio = now / was
            is_worse = key in judged and (ratio < 1 - worse if KEYS[key] else ratio > 1 + worse)
            verdict, ratio = "WORSE" if is_worse else "", f"{ratio:.3f}"
        count += is_worse
        rows.append((case, str(n), key, f"{was:g}", "" if now is None else f"{now:g}", ratio, verdict))
    return rows, count


def show(rows):
    head = ("case", "n", "figure", "before", "after", "ratio", "")
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def self_test():
    def line(case="runs", **figures):
        return {"case": case, "n": 10, "seconds": 1.0, "workers": 1, "servers": 1, "per_s": None, **figures}

    def worse(before, after, share=0.15):
        rows, count = compare([[line(**one)] for one in before], [[line(**one)] for one in after], JUDGED.split(","), share)
        assert sum(row[-1] in ("WORSE", "gone") and row[2] in JUDGED.split(",") for row in rows) == count, rows
        return count

    cases = [
        ("the same", worse([{"per_s": 100.0}], [{"per_s": 100.0}]), 0),
        ("slower within the share", worse([{"per_s": 100.0}], [{"per_s": 86.0}]), 0),
        ("slower beyond it", worse([{"per_s": 100.0}], [{"per_s": 84.0}]), 1),
        ("faster", worse([{"per_s": 100.0}], [{"per_s": 200.0}]), 0),
        ("more time", worse([{"cpu_us_engine": 30.0}], [{"cpu_us_engine": 35.0}]), 1),
        ("less time", worse([{"p50_ms": 4.0}], [{"p50_ms": 1.0}]), 0),
        ("another share", worse([{"per_s": 100.0}], [{"per_s": 84.0}], 0.2), 0),
        ("one bad round of three", worse([{"per_s": 9.0}] * 3, [{"per_s": 9.0}, {"per_s": 1.0}, {"per_s": 9.0}]), 0),
        ("what is only told", worse([{"p99_ms": 1.0}], [{"p99_ms": 9.0}]), 0),
        ("two figures", worse([{"per_s": 9.0, "rss_mib": 9.0}], [{"per_s": 1.0, "rss_mib": 90.0}]), 2),
        ("one that is no longer measured", worse([{"per_s": 9.0}], [{}]), 1),
        ("a case that is gone", worse([{"per_s": 9.0}], [{"case": "latency", "per_s": 9.0}]), 1),
        ("nothing to divide by", worse([{"cpu_us_engine": 0.0}], [{"cpu_us_engine": 5.0}]), 0),
    ]
    cases += [
        ("rounds that measured the same", int(whole([[line()], [line()]])), 1),
        ("a round that ended half-way", int(whole([[line(), line("latency")], [line()]])), 0),
    ]
    for name, found, expected in cases:
        if found != expected:
            sys.exit(f"self-test: {name}: {found}, expected {expected}")
    print(f"compare: self-test of {len(cases)} cases passed")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=TARGET / "release" / "fermata-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worse", type=float, default=0.15)
    parser.add_argument("--judge", default=JUDGED)
    told, arguments = parser.parse_known_args()
    arguments = [argument for argument in arguments if argument not in ("--", "--json")]
    judged = told.judge.split(",")
    if not arguments or told.rounds < 1 or not set(judged) <= KEYS.keys():
        fail(f"give cases, one round or more, and figures of {', '.join(KEYS)}")
    before, after = [], []
    for _ in range(told.rounds):
        for program, rounds in ((told.before, before), (told.after, after)):
            rounds.append(measure(program, arguments))
            if not whole(rounds):
                fail(f"`{program}` did not measure in one round what it did in another; its last words say why")
    rows, count = compare(before, after, judged, told.worse)
    show(rows)
    if count:
        sys.exit(f"compare: {count} figures are worse by more than {told.worse:.0%}, by the median of {told.rounds} rounds")
    print(f"compare: nothing is worse by more than {told.worse:.0%}, by the median of {told.rounds} rounds")


if __name__ == "__main__":
    main()
