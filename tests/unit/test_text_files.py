"""Texts that are written say in which encoding: pages and reports are UTF-8 wherever they are made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["services", "shared", "tokengrid"])
def test_every_written_text_has_an_encoding(folder: str) -> None:
    silent, seen = [], 0
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_text":
                seen += 1
                if len(node.args) < 2 and not any(keyword.arg == "encoding" for keyword in node.keywords):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []
    assert seen or folder == "shared"
