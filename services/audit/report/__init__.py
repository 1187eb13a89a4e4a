"""The report of an audit for people: one page of verdicts, or a month's pages from the total to each debit's proof.

`render_html` is the page; `write_pages` writes the folder. Everything shown is what the replay computed, beside what
was billed; the proofs are of the auditor's own trees. It asks no service but for the logs that the replay has read.
"""

from services.audit.report.index import render_html
from services.audit.report.write import DEBITS_MAX, Written, empty_folder, write_pages

__all__ = ["DEBITS_MAX", "Written", "empty_folder", "render_html", "write_pages"]
