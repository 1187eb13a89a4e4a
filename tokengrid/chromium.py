"""A page as a PDF, by a headless Chromium that the machine has. It must not know what is on the page.

The page is opened from a file in a folder of its own, under a profile that is thrown away, without network. That it
runs no scripts is its own to say; with them switched off, Chromium prints nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from shared.errors import SetupFailed

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
VARIABLE = "TOKENGRID_CHROMIUM"
DEADLINE_S = 60.0  # a bill takes a second or two; a machine that is busy or cold some ten
POLL_S = 0.05
LAST_WORDS_MAX = 300


def find_chromium() -> str:
    """The program's path: the one that TOKENGRID_CHROMIUM names, else the first in PATH. SetupFailed: none."""
    named = os.environ.get(VARIABLE)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = f"{VARIABLE} names no program: {named}" if named else "There is no Chromium in PATH"
        raise SetupFailed(f"{missing}. Install it (Debian: apt-get install chromium), or name one in {VARIABLE}.")
    return found


def print_pdf(html: str, file: Path, deadline_s: float = DEADLINE_S) -> None:
    """Write the page as a PDF to `file`, whole or not at all. SetupFailed: no Chromium, it failed, or took too long."""
    program = find_chromium()
    with tempfile.TemporaryDirectory(prefix="tokengrid-pdf-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        page, made = folder / "page.html", folder / "page.pdf"
        page.write_text(html, encoding="utf-8")
        said = _run([program, *_options(folder), f"--print-to-pdf={made}", page.as_uri()], folder / "log", deadline_s)
        content = made.read_bytes() if made.exists() else b""
    if not content.startswith(b"%PDF-") or b"%%EOF" not in content[-1024:]:
        raise SetupFailed(f"{program} made no PDF: {said[-LAST_WORDS_MAX:] or 'it said nothing'}")
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(content)
    part.replace(file)


def _options(folder: Path) -> list[str]:
    options = [
        "--headless",
        f"--user-data-dir={folder / 'profile'}",
        "--no-first-run",
        "--no-pdf-header-footer",
        "--disable-gpu",
        "--disable-dev-shm-usage",  # containers have little of it
        "--disable-extensions",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--proxy-server=127.0.0.1:9",  # discard: what needs no name resolved does not get out either
        "--proxy-bypass-list=<-loopback>",
    ]
    # Chromium's sandbox refuses to run as root; what it opens is our own page.
    return [*options, "--no-sandbox"] if os.geteuid() == 0 else options


def _run(command: list[str], log: Path, deadline_s: float) -> str:
    """What it said on stderr. If the deadline passes, or we are interrupted, its whole family is ended."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
    deadline = time.monotonic() + deadline_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if process.poll() is None:
            raise SetupFailed(f"{command[0]} has made no PDF in {deadline_s:g} s.")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return log.read_text(errors="replace").strip()
