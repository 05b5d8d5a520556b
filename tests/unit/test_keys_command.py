"""`numhub keys`: made once, shared by all, changed without locking anybody out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.adapters.oauth.keys import KeyFileError, open_hub_keys
from hub.app.cli.main import app

NAMES = {"cursor.key", "link.key"}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_keys_are_made_once(tmp_path: Path) -> None:
    """All three keys, for the owner alone; a second run changes nothing."""
    folder, found = tmp_path / "keys", []
    for _ in range(2):
        done = CliRunner().invoke(app, ["keys", "create", "--to", str(folder)])
        assert done.exit_code == 0, done.output
        found.append(contents(folder))
    assert found[0] == found[1] and len(found[0]) == 3 and set(found[0]) > NAMES
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_a_rotated_key_signs_and_the_old_one_still_verifies(tmp_path: Path) -> None:
    """Tokens given out before stay good until the old file goes."""
    CliRunner().invoke(app, ["keys", "create", "--to", str(tmp_path)])
    old = open_hub_keys(tmp_path).signing_kid
    assert CliRunner().invoke(app, ["keys", "rotate", "--to", str(tmp_path)]).exit_code == 0
    keys = open_hub_keys(tmp_path)
    assert keys.signing_kid != old and keys.get(old) is not None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="changes owners")
def test_a_mounted_secret_may_be_read_by_our_group_and_nobody_else(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as root's files that a group may read; the hub's own file is for itself alone."""
    CliRunner().invoke(app, ["keys", "create", "--to", str(tmp_path)])
    (file,) = tmp_path.glob("token-signing-*.json")
    for owner, mode, good in ((0, 0o440, False), (1, 0o440, True), (1, 0o444, False), (1, 0o460, False)):
        os.chown(file, owner, 0)
        file.chmod(mode)
        if good:
            open_hub_keys(tmp_path)
        else:
            with pytest.raises(KeyFileError):
                open_hub_keys(tmp_path)
