"""Whether an archive is what it says: every file's hash, every event, every tile, the root and its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.archive import manifest as m
from shared.archive.hashing import Tiles
from shared.archive.reading import LogArchive
from shared.errors import AuditFailed
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.tiles import Tile


def verify_log(archive: Path, log: str, verifier_key: str | None = None) -> dict[str, Any]:
    """Check one log's archive; what was checked. Raises AuditFailed for the first thing that is wrong.

    `verifier_key`: the log's, when it is known from elsewhere; else the one that the archive names is believed.
    """
    found = LogArchive.open(archive, log)
    manifest = found.manifest
    for file in manifest.files():
        found.check(file)
    check_tree(found)
    if verifier_key is not None and not manifest.note:
        raise AuditFailed(f"the archive of {log} is not signed")
    if manifest.note:
        check_note(manifest, verifier_key)
    return {
        "log": log,
        "events": manifest.size,
        "root_sha256": manifest.root_sha256,
        "signed_by": manifest.verifier_key if manifest.note else "",
        "days": sorted({part.day for part in manifest.parts}),
        "bytes": sum(file.bytes for file in manifest.files()),
    }


def check_tree(found: LogArchive) -> None:
    """Hash every event again; every tile and the root must be what comes out. Raises AuditFailed."""
    tree, manifest = Tiles(), found.manifest
    made: dict[Tile, bytes] = {}
    for group in found.groups():
        made.update(tree.append(group.leaf_hashes(manifest.log)))
    made.update(tree.partial())
    for tile, content in made.items():
        if found.stored(tile) != content:
            raise AuditFailed(f"{tile.path} of {manifest.log} does not cover the archived events")
    if (tree.size, tree.root().hex()) != (manifest.size, manifest.root_sha256):
        details = {"stated": manifest.root_sha256, "computed": tree.root().hex()}
        raise AuditFailed(f"the events of {manifest.log} are not those that were archived", details)


def check_note(manifest: m.Manifest, verifier_key: str | None = None) -> None:
    """That the manifest's size and root are the signed ones. Raises AuditFailed."""
    key = VerifierKey.parse(manifest.verifier_key if verifier_key is None else verifier_key)
    checkpoint = open_checkpoint(manifest.note, key).checkpoint
    if (checkpoint.size, checkpoint.root.hex()) != (manifest.size, manifest.root_sha256):
        raise AuditFailed(
            f"{manifest.log} is not the log that was signed: another root, or another size",
            {
                "log": manifest.log,
                "size": checkpoint.size,
                "signed": checkpoint.root.hex(),
                "computed": manifest.root_sha256,
            },
        )
