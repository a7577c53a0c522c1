#!/usr/bin/env python3
"""Checks which crate may depend on which.

    check_dependencies.py               check this workspace; ends with 1 if a rule is broken
    check_dependencies.py --self-test   check that every rule can be broken

Rules, all violations printed at once:
  direction   a crate uses only the workspace crates that WORKSPACE gives it
  closed      a crate in EXTERNAL uses no other crates from outside
  only user   a crate in ONLY_USERS is named by its users alone, tests included
  pure        nothing in IMPURE is anywhere in the tree of a pure crate
  built once  tests turn on no feature of a crate that programs are built of without: it and all
              that use it would be compiled a second time

Dependencies for tests alone are free, but for `only user`.
"""

import json
import subprocess
import sys
from pathlib import Path

PREFIX = "fermata-"
ROOT = Path(__file__).resolve().parent.parent

PRODUCT = {
    "core", "definitions", "wire", "audit", "partition", "jetstream", "executors", "store", "actors", "api", "cli",
}
# To add a crate, say here what it may use.
WORKSPACE = {
    "core": set(),
    "definitions": {"core"},
    "wire": {"core"},
    "audit": set(),
    "partition": {"core", "wire", "audit"},
    "jetstream": {"core", "wire"},
    "executors": {"core"},
    "store": {"core", "wire"},
    "actors": {"core", "definitions", "wire", "audit", "partition", "jetstream", "executors", "store"},
    "api": set(),
    "cli": PRODUCT - {"cli"},
    "sim": {"core", "wire", "audit", "partition"},
    "bench": PRODUCT | {"sim"},
    "tests": PRODUCT | {"sim", "bench"},
    "fuzz": {"core", "definitions", "wire"},
    "test-clock": set(),
}
EXTERNAL = {
    "core": {"serde", "serde_json", "petgraph", "cel", "uuid", "thiserror", "sha2"},
    "definitions": {"serde", "serde_json", "serde-saphyr", "schemars", "thiserror"},
}
ONLY_USERS = {
    "async-nats": {"jetstream", "bench", "tests"},
    "ractor": {"actors", "tests"},
    "sled": {"store"},
}
PURE = ("core", "definitions", "wire", "audit", "partition")
# I/O, clocks, randomness: a pure crate decides the same from the same input for ever.
IMPURE = {
    "tokio", "mio", "async-nats", "ractor", "reqwest",
    "rand", "getrandom", "fastrand", "chrono", "time",
}  # fmt: skip


def short(package):
    return package.removeprefix(PREFIX)


def violations_of_package(package, members):
    """Yields what one package of `cargo metadata` breaks, as (from, to, rule)."""
    crate = short(package["name"])
    if crate not in WORKSPACE:
        yield package["name"], "-", "the crate is not in WORKSPACE of scripts/check_dependencies.py; say there what it may use"
        return
    for dependency in package["dependencies"]:
        name = dependency["name"]
        for_tests = dependency["kind"] == "dev"
        users = ONLY_USERS.get(name)
        if users is not None and crate not in users:
            yield package["name"], name, f"only {', '.join(sorted(users))} may name it"
        if for_tests:
            continue
        if name in members:
            allowed = WORKSPACE[crate]
            if short(name) not in allowed:
                yield package["name"], name, f"direction: may use {', '.join(sorted(allowed)) or 'no workspace crate'}"
        elif crate in EXTERNAL and name not in EXTERNAL[crate]:
            yield package["name"], name, f"closed: may use {', '.join(sorted(EXTERNAL[crate]))}"


def violations_of_tree(crate, tree):
    """Yields what is impure in the set of crates that `crate` is built from."""
    for name in sorted(IMPURE & tree):
        how = f"`cargo tree -p {PREFIX}{crate} -e normal -i {name}` shows the way"
        yield PREFIX + crate, name, f"pure: must not reach it; {how}"


def violations_of_features(programs, tests):
    """Yields what the tests build otherwise, of sets of (crate and version, features)."""
    built = {crate for crate, _ in programs}
    for crate, features in sorted(tests - programs):
        if crate in built:
            how = f"`cargo tree --workspace -e features -i {crate.replace(' v', '@')}` shows who asks for them"
            yield "tests", crate, f"built once: not with the features `{features}` alone; {how}"


def check(packages, trees, programs=frozenset(), tests=frozenset()):
    members = {package["name"] for package in packages}
    found = [violation for package in packages for violation in violations_of_package(package, members)]
    for crate, tree in trees.items():
        found += violations_of_tree(crate, tree)
    found += violations_of_features(programs, tests)
    return sorted(set(found))


def cargo(*arguments):
    answer = subprocess.run(["cargo", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        sys.exit(f"`cargo {' '.join(arguments)}` failed")
    return answer.stdout


def resolved_tree(crate):
    """Names all crates that `crate` alone is built from, on every platform.

    Asked of each crate by itself: features that other crates turn on are not its own.
    """
    arguments = ("tree", "--locked", "--package", PREFIX + crate, "--edges", "normal")
    lines = cargo(*arguments, "--target", "all", "--prefix", "none").splitlines()
    return {line.split()[0] for line in lines if line.strip()}


def built_crates(kinds):
    """Names what a build of the workspace compiles, as (crate and version, features)."""
    arguments = ("tree", "--locked", "--workspace", "--edges", kinds, "--prefix", "none")
    lines = cargo(*arguments, "--format", "{p}\t{f}").splitlines()
    crates = (line.removesuffix(" (*)").split("\t") for line in lines if line.strip())
    return {(" ".join(crate.split()[:2]), features.removesuffix(" (*)")) for crate, features in crates}


def self_test():
    def package(crate, *dependencies):
        return {
            "name": PREFIX + crate,
            "dependencies": [{"name": name, "kind": kind} for name, kind in dependencies],
        }

    def broken(packages, trees=None, programs=frozenset(), tests=frozenset()):
        found = check(packages, trees or {}, programs, tests)
        return [rule.split(":")[0].split()[0] for _, _, rule in found]

    core, wire, jetstream = package("core"), package("wire"), package("jetstream")
    cases = [
        ("a clean workspace", broken([core, package("wire", ("fermata-core", None), ("rmp", None))]), []),
        ("an upward dependency", broken([package("core", ("fermata-wire", None)), wire]), ["direction"]),
        ("an upward dependency of a build script", broken([package("core", ("fermata-wire", "build")), wire]), ["direction"]),
        ("one for tests alone", broken([package("core", ("fermata-wire", "dev"), ("proptest", "dev")), wire]), []),
        ("a sideways dependency", broken([package("executors", ("fermata-jetstream", None)), jetstream]), ["direction"]),
        ("an outside crate in a closed one", broken([package("core", ("regex", None))]), ["closed"]),
        ("a second user of the broker", broken([package("actors", ("async-nats", None))]), ["only"]),
        ("a second user, in tests", broken([package("cli", ("ractor", "dev"))]), ["only"]),
        ("its proper users", broken([package("jetstream", ("async-nats", None)), package("actors", ("ractor", None))]), []),
        ("a crate without a rule", broken([package("novel")]), ["the"]),
        ("an impure tree", broken([core], {"core": {"serde", "rand", "tokio"}}), ["pure", "pure"]),
        ("a pure tree", broken([core], {"core": {"serde", "rand_core"}}), []),
        ("a feature of tests alone", broken([core], {}, {("a v1", "std")}, {("a v1", "default,std")}), ["built"]),
        ("a crate of tests alone", broken([core], {}, {("a v1", "")}, {("a v1", ""), ("b v1", "x")}), []),
    ]
    for name, found, expected in cases:
        if found != expected:
            sys.exit(f"self-test: {name} gives {found}, expected {expected}")
    crates = set(WORKSPACE)
    for crate, allowed in WORKSPACE.items():
        if not allowed <= crates or crate in allowed:
            sys.exit(f"self-test: the rule of `{crate}` names itself or a crate that has no rule")
    print(f"dependencies: self-test of {len(cases)} cases passed")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments:
        sys.exit(f"unknown arguments {arguments}; see the top of {__file__}")
    packages = json.loads(cargo("metadata", "--format-version", "1", "--locked", "--no-deps"))["packages"]
    members = {package["name"] for package in packages}
    trees = {crate: resolved_tree(crate) for crate in PURE if PREFIX + crate in members}
    found = check(packages, trees, built_crates("normal,build"), built_crates("normal,build,dev"))
    for source, target, rule in found:
        print(f"{source} -> {target}: {rule}")
    if found:
        sys.exit(f"dependencies: {len(found)} violations of the crate directions (ARCHITECTURE.md)")
    print(f"dependencies: {len(packages)} crates keep their directions, {len(trees)} are pure")


if __name__ == "__main__":
    main(sys.argv[1:])
