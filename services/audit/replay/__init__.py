"""The independent replay: folds all logs from their raw JSON with the auditor's own arithmetic, and compares.

It shares no code with the services it audits: no domain of theirs, no rates, no units, no event classes.
What it knows, it knows from the published contract.
"""

from services.audit.replay.findings import AuditReport, Difference
from services.audit.replay.recomputed import Audited
from services.audit.replay.run import audited, run_audit

__all__ = ["AuditReport", "Audited", "Difference", "audited", "run_audit"]
