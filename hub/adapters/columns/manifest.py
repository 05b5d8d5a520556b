"""The one file that says which runs make up the index and up to where the log is folded in them.

It is replaced atomically (temporary file, fsync, rename, fsync of the directory) and carries a checksum of itself: a
crash leaves the old one or the new one, damage leaves none.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson
from pyroaring import BitMap

from hub.adapters.columns.level import RunInfo

FORMAT = 2
FILE = "manifest.json"


class UnusableManifest(Exception):
    """Missing, damaged, of another version or of another log: the index starts anew from the log."""


@dataclass(slots=True)
class Manifest:
    log_id: str
    positions: list[int]  # per partition the next offset to fold
    skipped: list[BitMap]  # per partition the offsets of void records, repeats and barriers: about a bit each
    runs: list[list[RunInfo]] = field(default_factory=list)  # per partition, newest first
    ids: list[RunInfo] = field(default_factory=list)
    names_given: int = 0  # run names count up and are never used twice

    def run_names(self) -> set[str]:
        return {run.name for runs in (*self.runs, self.ids) for run in runs}


def save(directory: Path, manifest: Manifest) -> None:
    said = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    said["skipped"] = [b64encode(offsets.serialize()).decode("ascii") for offsets in manifest.skipped]
    content = orjson.dumps({"format": FORMAT, **said})
    temporary = directory / (FILE + ".new")
    with temporary.open("wb") as file:
        file.write(_digest(content) + b"\n" + content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / FILE)
    sync_directory(directory)


def load(directory: Path, log_id: str, partitions: int) -> Manifest:
    """Raises UnusableManifest with the reason."""
    try:
        digest, _, content = (directory / FILE).read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise UnusableManifest("there is none") from None
    if digest != _digest(content):
        raise UnusableManifest("its checksum is wrong")
    raw = orjson.loads(content)
    if raw.pop("format", None) != FORMAT:
        raise UnusableManifest("it is of another version")
    raw["skipped"] = [BitMap.deserialize(b64decode(text)) for text in raw["skipped"]]
    raw["runs"] = [[RunInfo(**run) for run in runs] for runs in raw["runs"]]
    raw["ids"] = [RunInfo(**run) for run in raw["ids"]]
    manifest = Manifest(**raw)
    if manifest.log_id != log_id or len(manifest.positions) != partitions:
        raise UnusableManifest("it belongs to another log")
    return manifest


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
