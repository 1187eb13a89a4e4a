"""Where a replay reads the logs: one module a source.

A source answers two questions, as the services do, and no other: `call(service, "head", shard=)` and `call(service,
"events", after=, limit=, shard=)`, for each service and `audit`. It raises MalformedCommand for a log that it does not
have, and AuditFailed for what cannot be a log. `rpc` is no module: there the services' own client is asked.
Another source is a class with this `call`, and a name in `tokengrid/commands/audit_sources.py`.
"""

from services.audit.sources.snapshot import SnapshotSource, snapshot, urls_in
from services.audit.sources.stream import StreamSource

__all__ = ["SnapshotSource", "StreamSource", "snapshot", "urls_in"]
