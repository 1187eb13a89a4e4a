"""Audit behind the ledger: events followed into the tree, its head signed at the end; proofs verified.

What is timed of following is all that happens to a page once the broker has delivered it. Must not know what an event
means.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from services.audit.application import AuditApplication
from services.audit.service import PAGE
from shared.config import Settings
from shared.eventstore.log import LoggedEvent
from shared.transparency.merkle import StoredHashes, inclusion_proof, leaf_hash, root_at, verify_inclusion
from tokengrid.bench.engine import USUAL
from tokengrid.bench.measure import Measure, Work

LOG = "quota"
FOLLOWED = 20_000  # events of a round
LEAVES, PROOFS = 100_000, 5_000


def row_name(store: str) -> str:
    return f"{store}: followed into the tree and signed"


VERIFIED = f"inclusion proofs verified, of {LEAVES:,} events"


def measure(settings: Settings, sample: Sequence[LoggedEvent], store: str) -> tuple[Measure, Callable[[], None]]:
    """The rate at which audit follows, beside that at which the engine writes; and what ends it."""
    app = AuditApplication(settings)
    numbers, whole = itertools.count(1), itertools.cycle(sample)

    def prepare() -> Work:
        events = [event._asdict() | {"position": n} for n, event in zip(itertools.islice(numbers, FOLLOWED), whole)]  # noqa: B905

        def work() -> None:
            for start in range(0, FOLLOWED, PAGE):
                app.follow(LOG, events[start : start + PAGE])
            app.seal({"log": LOG, "position": events[-1]["position"]})

        return work

    made = Measure(row_name(store), "events/s", FOLLOWED, prepare, (f"{store}: engine, {USUAL:,} a batch",))
    return made, app.close


def verified() -> Measure:
    """Proofs of events anywhere in a log, each by itself."""
    hashes = StoredHashes(leaf_hash(n.to_bytes(4, "big")) for n in range(LEAVES))
    root = root_at(hashes, LEAVES)
    chosen = random.Random(0)

    def prepare() -> Work:
        asked = [chosen.randrange(LEAVES) for _ in range(PROOFS)]
        proofs = [(hashes(0, index), index, inclusion_proof(hashes, index, LEAVES)) for index in asked]

        def work() -> None:
            for leaf, index, proof in proofs:
                verify_inclusion(leaf, index, LEAVES, proof, root)

        return work

    return Measure(VERIFIED, "proofs/s", PROOFS, prepare)
