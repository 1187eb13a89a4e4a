"""The independent replay: folds all logs from their raw JSON with the auditor's own arithmetic, and compares.

It shares no code with the services it audits: no domain of theirs, no rates, no units, no event classes.
What it knows, it knows from the published contract.
"""

from services.audit.replay.findings import AuditReport, Difference
from services.audit.replay.page import render_html
from services.audit.replay.run import run_audit

__all__ = ["AuditReport", "Difference", "render_html", "run_audit"]
