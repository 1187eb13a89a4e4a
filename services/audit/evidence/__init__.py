"""Evidence: one file that proves one bill to someone who trusts nobody, without asking anybody.

`collect` makes it by asking services, `package` writes and reads its bytes, `verify` judges it, `page` shows it to
people. The format is specified in docs/reference/evidence.md; `deploy/verify_evidence.py` is a second verifier, which
shares no code with this one.
"""

from services.audit.evidence.collect import collect
from services.audit.evidence.package import Evidence, Proven, pack, unpack
from services.audit.evidence.page import render_html
from services.audit.evidence.verify import Verdict, verify

__all__ = ["Evidence", "Proven", "Verdict", "collect", "pack", "render_html", "unpack", "verify"]
