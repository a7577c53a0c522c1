#!/usr/bin/env python3
"""Runs tests by cargo-nextest, or by cargo where that is missing, and judges what was skipped.

    run_tests.py SUITE [--binary PACKAGE::TEST]   run; ends with 1 on a failure
    run_tests.py --report                         print the summaries of the last runs
    run_tests.py --self-test                      check what is told of tests that were not run

SUITE names the summary that is kept in the target folder for --report. Every skipped test
must stand in tests/allowed-skips.txt, or the run fails.

A test that lacks rights which not every machine gives (network namespaces, loop devices) leaves a
note in the folder that FERMATA_NOT_RUN names and returns. The runner counts it as passed; here it
is taken from that number and named as not run, with the reason. A test that is run without a part
of it leaves a note whose name begins with `part-`: it counts as run, and the part is named. With
FERMATA_RIGHTS=required either fails the run.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "tests" / "allowed-skips.txt"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
SUMMARIES = TARGET / "test-summaries"

NEXTEST_SUMMARY = re.compile(r"^\s*Summary \[.*\] (\d+) tests? run: .*?(?:, )?(\d+) skipped")
CARGO_IGNORED = re.compile(r"^test (.+?) \.\.\. ignored")
CARGO_RESULT = re.compile(r"^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored;.* (\d+) filtered out")
RUN_AND_PASSED = re.compile(r"(\d+)( tests? run: )(\d+)( passed)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def fail(text):
    sys.exit(f"tests: error: {text}")


def run(command):
    """Runs a command, passes its output on, and returns its end and lines."""
    print("+ " + " ".join(command), flush=True)
    environment = dict(os.environ)
    if sys.stdout.isatty():
        environment.setdefault("CARGO_TERM_COLOR", "always")
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(ANSI.sub("", line.rstrip("\n")))
    return process.returncode, lines


def has_nextest():
    answer = subprocess.run(["cargo", "nextest", "--version"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True)
    return answer.returncode == 0


def nextest(binary):
    # The workspace is always built whole and a part picked by filter: building one package
    # alone would unify features differently and compile its dependencies again.
    common = ["--cargo-profile", "release", "--workspace", "--locked"]
    common += ["--test", binary.split("::")[-1], "-E", f"binary_id({binary})"] if binary else []
    listing = ["cargo", "nextest", "list", "--message-format", "json", *common]
    print("+ " + " ".join(listing), flush=True)
    answer = subprocess.run(listing, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        fail("the tests do not build")
    skipped = []
    for suite_name, suite in json.loads(answer.stdout)["rust-suites"].items():
        if binary and suite_name != binary:
            continue
        for name, case in suite["testcases"].items():
            if case["ignored"] or case["filter-match"]["status"] != "matches":
                skipped.append(f"{suite_name} {name}")
    code, lines = run(["cargo", "nextest", "run", "--no-fail-fast", *common])
    summaries = [match for match in map(NEXTEST_SUMMARY.match, lines) if match]
    if not summaries:
        fail("cargo-nextest printed no summary")
    summary = summaries[-1]
    if not binary and int(summary[2]) != len(skipped):
        fail(f"cargo-nextest skipped {summary[2]} tests, and {len(skipped)} are known by name: {skipped}")
    return code, int(summary[1]), skipped, summary[0].strip()


def cargo_test(binary, *what):
    command = ["cargo", "test", "--release", "--locked", "--no-fail-fast", *what]
    if binary:
        # Several clusters, each with its own faults, would take each other's time: nextest knows by
        # `.config/nextest.toml` which run alone.
        command += ["--workspace", "--test", binary.split("::")[-1], "--", "--test-threads=1"]
    elif not what:
        command += ["--workspace", "--all-targets"]
    code, lines = run(command)
    results = [match for match in map(CARGO_RESULT.match, lines) if match]
    if not results:
        fail("the tests do not build")
    group = "doc" if what else "cargo"
    skipped = [f"{group} {match[1]}" for match in map(CARGO_IGNORED.match, lines) if match]
    ran = sum(int(match[1]) + int(match[2]) for match in results)
    ignored = sum(int(match[3]) + int(match[4]) for match in results)
    if ignored != len(skipped):
        fail(f"cargo skipped {ignored} tests, and {len(skipped)} are known by name: {skipped}")
    failed = sum(int(match[2]) for match in results)
    return code, ran, skipped, f"Summary {ran} tests run: {ran - failed} passed, {failed} failed, {ignored} skipped"


def judge(skipped, whole):
    """Compares what was skipped with what may be."""
    lines = (line.split("#")[0].strip() for line in ALLOWED.read_text().splitlines())
    allowed = {line for line in lines if line}
    # Without cargo-nextest a test is known by its own name alone.
    own_names = {name.split(" ", 1)[-1] for name in allowed}
    unexpected = [
        name for name in skipped
        if name not in allowed and not (name.startswith("cargo ") and name[6:] in own_names)
    ]  # fmt: skip
    for name in unexpected:
        print(f"tests: skipped and not in {ALLOWED.name}: {name}")
    skipped_names = {name.split(" ", 1)[-1] for name in skipped}
    idle = [name for name in sorted(allowed) if whole and name.split(" ", 1)[-1] not in skipped_names]
    for name in idle:
        print(f"tests: in {ALLOWED.name} and not skipped: {name}")
    return not unexpected and not idle


def without(summary, count):
    """The summary of a runner that counted so many tests as passed which were not run."""
    return RUN_AND_PASSED.sub(lambda match: f"{int(match[1]) - count}{match[2]}{int(match[3]) - count}{match[4]}", summary)


def report():
    summaries = sorted(SUMMARIES.glob("*.txt"))
    if not summaries:
        fail("no tests were run")
    for summary in summaries:
        print(summary.read_text().strip())


# A runner that knows of three tests and counts all as passed: one lacks its rights, one a part of them.
RUNNER = """#!/bin/sh
case "$*" in
    "nextest --version") exit $FERMATA_SELF_TEST_NEXTEST ;;
    "nextest list"*) echo '{"rust-suites": {}}' && exit 0 ;;
esac
echo 'a power cut: `mount`: must be superuser' > "$FERMATA_NOT_RUN/a-power-cut"
echo 'a mixture: a disk: `mount`: must be superuser' > "$FERMATA_NOT_RUN/part-a-mixture"
case "$*" in
    "nextest run"*) echo "     Summary [   0.1s] 3 tests run: 3 passed, 0 skipped" ;;
    *) echo "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s" ;;
esac
"""


def self_test():
    """Runs itself with such a runner, with nextest and without, where rights may be missing and where not."""
    told = [
        "2 tests run: 2 passed",
        "fault: NOT RUN: a power cut: `mount`: must be superuser",
        "fault: PART NOT RUN: a mixture: a disk: `mount`: must be superuser",
        "fault: 1 tests not run",
    ]
    for nextest_is_missing in "01":
        for rights, expected in (("", 0), ("required", 1)):
            with tempfile.TemporaryDirectory() as folder:
                runner = Path(folder) / "cargo"
                runner.write_text(RUNNER)
                runner.chmod(0o755)
                environment = {
                    **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "CARGO_TARGET_DIR": folder,
                    "FERMATA_SELF_TEST_NEXTEST": nextest_is_missing, "FERMATA_RIGHTS": rights,
                }  # fmt: skip
                command = [sys.executable, __file__, "fault", "--binary", "fermata-tests::fault"]
                run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                command = [sys.executable, __file__, "--report"]
                kept = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if run.returncode != expected:
                fail(f"self-test: rights `{rights}` end with {run.returncode}: {run.stdout}{run.stderr}")
            for text in told:
                if text not in run.stdout or text not in kept.stdout:
                    fail(f"self-test: `{text}` is not told: {run.stdout}{kept.stdout}")
    print(f"tests: self-test of {len(told)} lines passed")


def main(arguments):
    if arguments == ["--report"]:
        return report()
    if arguments == ["--self-test"]:
        return self_test()
    suite, *rest = arguments or [""]
    options = dict(zip(rest[::2], rest[1::2]))
    if not re.fullmatch(r"[a-z-]+", suite) or len(rest) % 2 or options.keys() - {"--binary"}:
        fail(f"unknown arguments {arguments}; see the top of {__file__}")
    binary = options.get("--binary")
    SUMMARIES.mkdir(parents=True, exist_ok=True)
    kept = SUMMARIES / f"{suite}.txt"
    kept.unlink(missing_ok=True)

    runner = nextest if has_nextest() else cargo_test
    with tempfile.TemporaryDirectory() as notes:
        os.environ["FERMATA_NOT_RUN"] = notes
        code, ran, skipped, summary = runner(binary)
        left = [(note.name, note.read_text().strip()) for note in sorted(Path(notes).iterdir())]
    parts = [text for name, text in left if name.startswith("part-")]
    not_run = [text for name, text in left if not name.startswith("part-")]
    summary += "".join(f"\n{suite}: PART NOT RUN: {note}" for note in parts)
    if not_run:
        summary = without(summary, len(not_run))
        summary += "".join(f"\n{suite}: NOT RUN: {note}" for note in not_run)
        summary += f"\n{suite}: {len(not_run)} tests not run: this machine does not give the rights"
    if not binary:
        # cargo-nextest does not run the examples in the documentation.
        doc_code, doc_ran, doc_skipped, _ = cargo_test(None, "--doc", "--workspace")
        code, skipped = code or doc_code, skipped + doc_skipped
        summary += f"\n{suite}: {doc_ran} examples in the documentation run"

    skips_are_fine = judge(skipped, whole=not binary)
    summary += f"\n{suite}: {len(skipped)} tests skipped"
    kept.write_text(summary + "\n")
    print(summary)
    if ran == 0:
        fail(f"suite `{suite}` has no tests")
    if code != 0:
        fail(f"suite `{suite}` failed")
    if (not_run or parts) and os.environ.get("FERMATA_RIGHTS") == "required":
        missing = f"{len(not_run)} tests and {len(parts)} parts of tests"
        fail(f"suite `{suite}` did not run {missing}, and FERMATA_RIGHTS says that it can")
    if not skips_are_fine:
        fail(f"suite `{suite}` skipped other tests than {ALLOWED.relative_to(ROOT)} says")


if __name__ == "__main__":
    main(sys.argv[1:])
