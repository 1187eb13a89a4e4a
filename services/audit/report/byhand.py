"""How a debit on the pages is checked by hand: words and a dozen lines of standard Python. Pure.

The program is a text on the page, written from docs/reference/leaf-encoding.md and RFC 6962; a test runs it.
"""

from __future__ import annotations

from services.audit import markup as m

PROGRAM = """import hashlib

def leaf(log, position, stream, version, topic, state):
    def number(n): return n.to_bytes(8, "big")
    def text(t): return number(len(t.encode())) + t.encode()
    event = text(log) + number(position) + text(stream) + number(version) + text(topic) + text(state)
    return hashlib.sha256(b"\\x00tokengrid/event-leaf/v1\\n" + event).digest()

def root(leaf, index, size, path):
    def node(left, right): return hashlib.sha256(b"\\x01" + left + right).digest()
    last = size - 1
    for hash in path:
        if index % 2 or index == last:
            leaf = node(hash, leaf)
            while index and index % 2 == 0:
                index, last = index // 2, last // 2
        else:
            leaf = node(leaf, hash)
        index, last = index // 2, last // 2
    return leaf if last == 0 else None
"""

BY_HAND = (
    m.element("h2", "Check it yourself", id="check"),
    m.element(
        "p",
        "These pages are what an independent replay computed from the logs; they ask to be checked, not believed. "
        "From the top down: the sums of the lists are the total above; the lines of a bill are its total; the debits "
        "of a line are its calls, tokens and points; a debit is its tokens times its rates.",
    ),
    m.element(
        "p",
        "That a debit is in the log that was signed: unfold it on its page. Its fields give the leaf, and leaf, index, "
        "size and path (as bytes, from the hexadecimal) give the root, which must be the signed root above; the "
        "checkpoint with it is signed by the log's key (Ed25519, C2SP signed note). Have that key from elsewhere than "
        "from here. In Python, with nothing else:",
    ),
    m.element("pre", "\n", PROGRAM, id="program"),
    m.element(
        "p",
        "For one bill, ",
        m.code("tokengrid audit evidence --bill NUMBER"),
        " makes a file with everything it rests on, which ",
        m.code("tokengrid audit verify FILE --key …"),
        " judges offline, and so does ",
        m.code("deploy/verify_evidence.py"),
        ", which shares no code with it.",
    ),
)
