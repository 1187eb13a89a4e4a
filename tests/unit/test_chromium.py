"""A bill as a PDF: by a real Chromium where there is one; and what is said where there is none, or it fails."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from shared.errors import SetupFailed
from tokengrid.chromium import find_chromium, print_pdf


def has_chromium() -> bool:
    try:
        find_chromium()
    except SetupFailed:
        return False
    return True


def program(folder: Path, script: str) -> str:
    """A program that takes Chromium's place."""
    file = folder / "chromium"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.skipif(not has_chromium(), reason="no Chromium here: apt-get install chromium, or set TOKENGRID_CHROMIUM")
def test_a_page_becomes_a_pdf_without_a_look_at_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        print_pdf(f"<title>Bill 7</title><img src='{url}'><p>¥ 5.00</p>", tmp_path / "bill.pdf")
        with pytest.raises(BlockingIOError):
            listener.accept()
    content = (tmp_path / "bill.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["bill.pdf"]


def test_without_a_chromium_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENGRID_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupFailed, match="apt-get install chromium"):
        print_pdf("", tmp_path / "bill.pdf")
    monkeypatch.setenv("TOKENGRID_CHROMIUM", "nothing")
    with pytest.raises(SetupFailed, match="TOKENGRID_CHROMIUM names no program: nothing"):
        find_chromium()


def test_the_first_of_its_names_in_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENGRID_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    made = program(tmp_path, "")
    assert find_chromium() == made


@pytest.mark.parametrize(
    ("script", "said"), [("echo no display >&2; exit 1", "no display"), ("exit 0", "it said nothing")]
)
def test_its_failure_is_told_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setenv("TOKENGRID_CHROMIUM", program(tmp_path, script))
    with pytest.raises(SetupFailed, match=said):
        print_pdf("<p>", tmp_path / "bill.pdf")
    assert not (tmp_path / "bill.pdf").exists()


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGRID_CHROMIUM", program(tmp_path, f"(sleep 1; touch {tmp_path}/alive) & sleep 60"))
    began = time.monotonic()
    with pytest.raises(SetupFailed, match=r"no PDF in 0\.2 s"):
        print_pdf("<p>", tmp_path / "bill.pdf", deadline_s=0.2)
    assert time.monotonic() - began < 30
