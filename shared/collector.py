"""The garbage collector, as it suits a process that works in batches.

Nearly all that a batch makes is freed by counting references, at its end. Python's own setting looks for cycles after
every 700 objects, so several times within a batch, each time among what is still needed, and finds none.
"""

from __future__ import annotations

import gc

# More than a batch of 8,192 commands makes; real cycles (exceptions, closed connections) still go, a little later.
OBJECTS_BETWEEN_LOOKS = 50_000


def suit_batches() -> None:
    """Call it once, when the process is ready to work: what was loaded so far is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS, 20, 20)
