"""Verifies an exported audit log of one partition, offline.

Independent of the engine: it shares no code with it and needs nothing but
Python's standard library. From each entry's header and commitment it recomputes
the leaf and the RFC 6962 Merkle tree, and compares the tree with every signed
checkpoint (C2SP tlog-checkpoint, Ed25519 as in RFC 8032).

    python3 verify_audit.py export.ndjson [--vkey KEY] [--checkpoint NOTE ...]
    python3 verify_audit.py --receipts receipts.ndjson --vkey KEY

An export names its own key. Give --vkey, from a source that you trust, to
verify with that key instead. A NOTE is a checkpoint that was kept earlier: the
export has to go on from it.

A receipt shows that the log holds one record: its leaf, recomputed from header
and commitment, leads to the root that the key signed (RFC 9162, section 2.1.3.2).
It names no key, so --vkey is needed.

Prints one line per finding, then a summary. A note that the key did not sign, or
that was copied, proves nothing about the log, since anyone could put it there:
it is printed as a notice and is no finding.
Exit code: 0 sound, 1 something is wrong, 2 the file cannot be read as what it should be.
"""

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import re
import sys

FORMAT = "fermata-audit-export/1"
RECEIPT_FORMAT = "fermata-audit-receipt/1"
RECEIPT_BYTES_MAX = 4 * 1024 * 1024
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


def root_by_path(leaf, index, size, path):
    """Returns the root that a path leads to, or None if it has the wrong length."""
    if index >= size:
        return None
    node, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            root = sha256(b"\x01" + sibling + root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = sha256(b"\x01" + root + sibling)
        node, last = node >> 1, last >> 1
    return root if last == 0 else None


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
    """The file is not what it should be."""


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
        self.kept = {}

    def keep(self, name, note):
        """Takes a checkpoint that was kept, to be compared at its size."""
        try:
            origin, size, root, _ = parse_checkpoint(open_note(note, self.vkey))
        except Refused as reason:
            self.finding(f"kept {name}: {reason}")
            return
        if origin != self.origin:
            raise Unreadable(f"kept {name} is of log {origin!r}, not {self.origin!r}")
        self.kept.setdefault(size, []).append((name, root))

    def compare_kept(self):
        for name, root in self.kept.pop(self.tree.size, []):
            if root != self.tree.root():
                self.finding(f"kept {name}: root differs at size {self.tree.size}")

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
        self.compare_kept()

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


def verify(lines, trusted_key, kept):
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
    for name, note in kept:
        log.keep(name, note)
    log.compare_kept()
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
    for size, notes in log.kept.items():
        for name, _ in notes:
            log.finding(f"kept {name}: covers {size} entries, the log ends after {log.tree.size}")
    return log


# --- Receipts -----------------------------------------------------------------

RECEIPT_KEYS = {
    "format", "partition", "origin", "index", "header", "commitment", "leaf", "path", "checkpoint",
}  # fmt: skip


def check_receipt(number, value, vkey):
    """Returns the origin, the index and the size of the signed tree."""
    if value.get("format") != RECEIPT_FORMAT:
        raise Unreadable(f"line {number}: format is not {RECEIPT_FORMAT}")
    if set(value) not in (RECEIPT_KEYS, RECEIPT_KEYS | {"opened"}):
        raise Unreadable(f"line {number}: the keys are not those of a receipt")
    index, path = value["index"], value["path"]
    if type(index) is not int or index < 0 or not isinstance(path, list):
        raise Unreadable(f"line {number}: index or path is none")
    if not all(isinstance(value[text], str) for text in ("partition", "origin", "checkpoint")):
        raise Unreadable(f"line {number}: partition, origin or checkpoint is not a text")
    header = hexadecimal(number, value, "header")
    commitment = hexadecimal(number, value, "commitment", 32)
    leaf = hexadecimal(number, value, "leaf", 32)
    path = [hexadecimal(number, {"path": node}, "path", 32) for node in path]
    origin, size, root, _ = parse_checkpoint(open_note(value["checkpoint"], vkey))
    if origin != value["origin"] or origin.rpartition("/")[2] != value["partition"]:
        raise Refused(f"the checkpoint is of log {origin!r}")
    if leaf_hash(header, commitment) != leaf:
        raise Refused("leaf is not that of header and commitment")
    if root_by_path(leaf, index, size, path) != root:
        raise Refused("the path does not lead to the signed root")
    if "opened" in value:
        opened = value["opened"]
        if not isinstance(opened, dict) or set(opened) != {"salt", "payload"}:
            raise Unreadable(f"line {number}: opened is not salt and payload")
        salt = hexadecimal(number, opened, "salt", 16)
        payload = hexadecimal(number, opened, "payload")
        if hmac.digest(salt, payload, "sha256") != commitment:
            raise Refused("salt and payload are not what was committed to")
    return origin, index, size


def check_receipts(lines, vkey):
    """Prints a line per receipt; returns how many there are, and how many do not hold."""
    receipts = findings = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line.encode()) > RECEIPT_BYTES_MAX + 1:
            raise Unreadable(f"line {number}: too long")
        receipts += 1
        try:
            origin, index, size = check_receipt(number, parse_line(number, line), vkey)
            print(f"holds: record {index} of {origin}, in {size} entries")
        except Refused as reason:
            findings += 1
            print(f"line {number}: {reason}")
    if not receipts:
        raise Unreadable("there is no receipt")
    return receipts, findings


# --- The command --------------------------------------------------------------


def read_kept(path):
    with open(path, encoding="utf-8", newline="\n") as note:
        return path, note.read(NOTE_BYTES_MAX + 1)


def main():
    parser = argparse.ArgumentParser(
        description="Verifies an exported audit log, or receipts, offline."
    )
    parser.add_argument("export", nargs="?")
    parser.add_argument("--receipts", help="check the receipts in this file instead of an export")
    parser.add_argument("--vkey", help="key to trust, instead of the one that the export names")
    parser.add_argument(
        "--checkpoint", action="append", default=[], help="a checkpoint that was kept earlier"
    )
    arguments = parser.parse_args()
    if (arguments.export is None) == (arguments.receipts is None):
        parser.error("name an export, or receipts")
    if arguments.receipts and not arguments.vkey:
        parser.error("a receipt names no key: --vkey is needed")
    try:
        if arguments.receipts:
            return receipts_main(arguments)
        kept = [read_kept(path) for path in arguments.checkpoint]
        with open(arguments.export, encoding="utf-8", newline="\n") as lines:
            log = verify(lines, arguments.vkey, kept)
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        print(f"unreadable: {error}")
        return 2
    print(
        f"entries {log.tree.size}, checkpoints {log.checkpoints}, "
        f"sound to {log.sound_to}, not signed yet {max(0, log.tree.size - log.last_size)}, "
        f"root {log.tree.root().hex()}, notices {log.notices}, findings {log.findings}"
    )
    return 1 if log.findings else 0


def receipts_main(arguments):
    try:
        vkey = parse_vkey(arguments.vkey)
    except Refused as reason:
        raise Unreadable(f"--vkey: {reason}") from None
    with open(arguments.receipts, encoding="utf-8", newline="\n") as lines:
        receipts, findings = check_receipts(lines, vkey)
    print(f"receipts {receipts}, findings {findings}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
