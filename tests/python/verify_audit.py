"""Verifies an exported audit log of one partition, offline.

Independent of the engine: it shares no code with it and needs nothing but
Python's standard library. From each entry's header and commitment it recomputes
the leaf and the RFC 6962 Merkle tree, and compares the tree with every signed
checkpoint (C2SP tlog-checkpoint, Ed25519 as in RFC 8032).

    python3 verify_audit.py export.ndjson [--vkey KEY]

An export names its own key. Give --vkey, from a source that you trust, to
verify with that key instead.

Prints one line per finding, then a summary. A note that the key did not sign, or
that was copied, proves nothing about the log, since anyone could put it there:
it is printed as a notice and is no finding.
Exit code: 0 sound, 1 something is wrong, 2 the file cannot be read as an export.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys

FORMAT = "fermata-audit-export/1"
ENTRY_VERSION = 1
NOTE_BYTES_MAX = 16 * 1024
SIGNATURES_MAX = 16

# --- Ed25519, RFC 8032 section 5.1 --------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)


def point_add(one, other):
    """Adds two points in extended coordinates (X, Y, Z, T)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        scalar >>= 1
    return result


def point_equal(one, other):
    return (one[0] * other[2] - other[0] * one[2]) % P == 0 and (
        one[1] * other[2] - other[1] * one[2]
    ) % P == 0


def recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_1 % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


def point_decode(data):
    """Decodes 32 bytes, or returns None if they are no canonical point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if len(data) != 32 or y >= P:
        return None
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = point_decode(BASE_Y.to_bytes(32, "little"))


def small_order(point):
    return point_equal(point_multiply(8, point), (0, 1, 1, 0))


def ed25519_verifies(public_key, message, signature):
    if len(signature) != 64:
        return False
    key, r = point_decode(public_key), point_decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= L or small_order(key) or small_order(r):
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % L
    return point_equal(point_multiply(s, BASE), point_add(r, point_multiply(k, key)))


# --- The Merkle tree, RFC 6962 section 2.1 ------------------------------------


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(header, commitment):
    entry = bytes([ENTRY_VERSION]) + len(header).to_bytes(4, "big") + header + commitment
    return sha256(b"\x00" + entry)


class Tree:
    """A growing tree: (level, hash) of its perfect subtrees, left to right."""

    def __init__(self):
        self.size = 0
        self.subtrees = []

    def push(self, leaf):
        level, node = 0, leaf
        while self.subtrees and self.subtrees[-1][0] == level:
            node = sha256(b"\x01" + self.subtrees.pop()[1] + node)
            level += 1
        self.subtrees.append((level, node))
        self.size += 1

    def root(self):
        if not self.subtrees:
            return sha256(b"")
        node = self.subtrees[-1][1]
        for _, left in reversed(self.subtrees[:-1]):
            node = sha256(b"\x01" + left + node)
        return node


# --- Keys, notes and checkpoints, C2SP ----------------------------------------


class Refused(Exception):
    """A text that is not what it should be; the message says why."""


def decode_base64(text, what):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Refused(f"{what} is not canonical base64")
    return data


def parse_vkey(vkey):
    """Returns (name, key id, public key)."""
    match = re.fullmatch(r"([^+\s]+)\+([0-9a-f]{8})\+(.+)", vkey)
    if not match:
        raise Refused("the key is not of the form name+keyid+base64")
    name, key_id, encoded = match[1], bytes.fromhex(match[2]), match[3]
    key = decode_base64(encoded, "the key")
    if len(key) != 33 or key[0] != 1:
        raise Refused("the key is not an Ed25519 key")
    if sha256(name.encode() + b"\n" + key)[:4] != key_id:
        raise Refused("the key id does not belong to the name and key")
    return name, key_id, key[1:]


def open_note(note, vkey):
    """Returns the text of a note that is signed by the key."""
    name, key_id, public_key = vkey
    if len(note.encode()) > NOTE_BYTES_MAX:
        raise Refused("the note is too large")
    if any(character < " " and character != "\n" for character in note):
        raise Refused("the note has a control character")
    head, blank, tail = note.rpartition("\n\n")
    if not blank or not head or not tail.endswith("\n"):
        raise Refused("the note is not text, blank line, signatures")
    text, lines = head + "\n", tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise Refused("the note has too many signatures")
    verified = False
    for line in lines:
        match = re.fullmatch(r"\u2014 ([^+\s]+) ([^ ]+)", line)
        if not match:
            raise Refused("a signature line is malformed")
        signature = decode_base64(match[2], "a signature")
        if len(signature) < 5:
            raise Refused("a signature line is malformed")
        if match[1] != name or signature[:4] != key_id:
            continue
        if not ed25519_verifies(public_key, text.encode(), signature[4:]):
            raise Refused(f"the signature of {name} does not verify")
        verified = True
    if not verified:
        raise Refused("no signature is by the known key")
    return text


def parse_checkpoint(text):
    """Returns (origin, size, root, journal sequence)."""
    lines = text[:-1].split("\n")
    number = "0|[1-9][0-9]{0,18}"
    if (
        len(lines) != 4
        or not lines[0]
        or not re.fullmatch(number, lines[1])
        or not re.fullmatch(f"journal ({number})", lines[3])
    ):
        raise Refused("it is not origin, size, root, journal sequence")
    root = decode_base64(lines[2], "the root")
    if len(root) != 32:
        raise Refused("the root is not 32 bytes")
    return lines[0], int(lines[1]), root, int(lines[3].removeprefix("journal "))


# --- The export ---------------------------------------------------------------


class Unreadable(Exception):
    """The file is no export."""


def reject_repeated_keys(pairs):
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def parse_line(number, line):
    try:
        value = json.loads(line, object_pairs_hook=reject_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"line {number}: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable(f"line {number}: not an object")
    return value


def hexadecimal(number, value, field, length=None):
    text = value[field]
    if not isinstance(text, str) or not re.fullmatch("([0-9a-f]{2})*", text):
        raise Unreadable(f"line {number}: {field} is not lower-case hexadecimal")
    if length is not None and len(text) != 2 * length:
        raise Unreadable(f"line {number}: {field} is not {length} bytes")
    return bytes.fromhex(text)


class Log:
    """The log as read so far, and what is wrong with it."""

    def __init__(self, origin, vkey):
        self.origin = origin
        self.vkey = vkey
        self.tree = Tree()
        self.next_index = 0
        self.findings = 0
        self.notices = 0
        self.notes = 0
        self.checkpoints = 0
        self.seen = {}
        self.last_size = 0
        self.sound_to = 0
        self.mismatched = False
        self.sequence = 0

    def finding(self, text):
        self.findings += 1
        print(text)

    def notice(self, text):
        self.notices += 1
        print(f"notice: {text}")

    def entry(self, number, value):
        index = value["index"]
        if type(index) is not int or index < 0:
            raise Unreadable(f"line {number}: index is not a number")
        header = hexadecimal(number, value, "header")
        commitment = hexadecimal(number, value, "commitment", 32)
        stored = hexadecimal(number, value, "leaf", 32)
        if index > self.next_index:
            self.finding(f"entry {self.next_index}: missing, entry {index} follows instead")
        elif index < self.next_index:
            self.finding(f"entry {index}: added or reordered, expected was {self.next_index}")
        self.next_index = max(self.next_index, index + 1)
        leaf = leaf_hash(header, commitment)
        if leaf != stored:
            self.finding(f"entry {index}: leaf is not that of header and commitment")
        self.tree.push(leaf)

    def checkpoint(self, note):
        self.notes += 1
        name = f"checkpoint {self.notes}"
        place = f"after entry {self.tree.size - 1}"
        try:
            if not isinstance(note, str):
                raise Refused("it is not a text")
            text = open_note(note, self.vkey)
        except Refused as reason:
            self.notice(f"{name} {place}: {reason}")
            return
        try:
            origin, size, root, sequence = parse_checkpoint(text)
        except Refused as reason:
            self.finding(f"{name} {place}: {reason}")
            return
        if origin != self.origin:
            self.notice(f"{name}: is of log {origin!r}, not {self.origin!r}")
            return
        if size in self.seen:
            if self.seen[size] == text:
                self.notice(f"{name}: repeats the one of size {size}")
            else:
                self.finding(f"{name}: contradicts another of size {size}")
            return
        self.seen[size] = text
        self.checkpoints += 1
        if size < self.last_size or sequence < self.sequence:
            self.finding(f"{name}: is older than one before it")
        self.last_size, self.sequence = max(size, self.last_size), max(sequence, self.sequence)
        if size != self.tree.size:
            self.finding(
                f"{name}: covers {size} entries but stands after {self.tree.size}; "
                f"from entry {self.sound_to} on something was added or is missing"
            )
        elif root == self.tree.root():
            self.sound_to = size
        elif not self.mismatched:
            self.mismatched = True
            self.finding(
                f"{name}: root differs at size {size}; "
                f"something in entries {self.sound_to} to {size - 1} is not as it was signed"
            )


def verify(lines, trusted_key):
    lines = enumerate(lines, start=1)
    number, line = next(lines, (1, ""))
    first = parse_line(number, line)
    if first.get("format") != FORMAT:
        raise Unreadable(f"line {number}: format is not {FORMAT}")
    if set(first) != {"format", "origin", "vkey"}:
        raise Unreadable(f"line {number}: keys are not format, origin, vkey")
    try:
        log = Log(first["origin"], parse_vkey(trusted_key or str(first["vkey"])))
    except Refused as reason:
        raise Unreadable(f"line {number}: {reason}") from None
    for number, line in lines:
        value = parse_line(number, line)
        if set(value) == {"checkpoint"}:
            log.checkpoint(value["checkpoint"])
        elif set(value) == {"index", "header", "commitment", "leaf"}:
            log.entry(number, value)
        else:
            raise Unreadable(f"line {number}: neither an entry nor a checkpoint")
    if log.tree.size and not log.checkpoints:
        log.finding("no checkpoint: nothing is signed")
    return log


def main():
    parser = argparse.ArgumentParser(description="Verifies an exported audit log, offline.")
    parser.add_argument("export")
    parser.add_argument("--vkey", help="key to trust, instead of the one that the export names")
    arguments = parser.parse_args()
    try:
        with open(arguments.export, encoding="utf-8", newline="\n") as lines:
            log = verify(lines, arguments.vkey)
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        print(f"unreadable: {error}")
        return 2
    print(
        f"entries {log.tree.size}, checkpoints {log.checkpoints}, "
        f"sound to {log.sound_to}, not signed yet {max(0, log.tree.size - log.last_size)}, "
        f"root {log.tree.root().hex()}, notices {log.notices}, findings {log.findings}"
    )
    return 1 if log.findings else 0


if __name__ == "__main__":
    sys.exit(main())
