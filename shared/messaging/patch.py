"""Makes this process cooperative: import this module before anything else that does I/O.

eventlet replaces the blocking parts of the standard library by green ones. psycopg waits in C by
default, which would stop every green thread for the length of a query; with its `select` wait,
chosen here before psycopg is imported, only the querying green thread waits.
"""

import os
import warnings

# psycopg reads this once, at its import. A value set by the operator wins.
os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_select")

with warnings.catch_warnings():
    # eventlet announces at every import that it is in maintenance. We know: it stays at the edge.
    warnings.simplefilter("ignore")
    import eventlet

    eventlet.monkey_patch()
