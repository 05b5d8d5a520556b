"""`numhub party|app|agreement` on a data directory: what an operator types and sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.app.cli.main import app


@pytest.fixture
def numhub(tmp_path: Path) -> Any:
    runner = CliRunner()

    def run(*arguments: str, ok: bool = True) -> str:
        result = runner.invoke(app, list(arguments), env={"NUMHUB_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"})
        assert (result.exit_code == 0) is ok, result.output
        return result.output

    return run


def test_a_party_is_enrolled_shown_and_suspended(numhub: Any, tmp_path: Path) -> None:
    """The private key stands in its own file of mode 0600 and nowhere else."""
    key_file = tmp_path / "bank.jwk"
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "[bold]Bank", "--key-out", str(key_file))
    key = json.loads(key_file.read_text("utf-8"))
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key["d"].encode() not in b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*"))
    numhub("app", "add", "bank-app", "--subscriber", "bank", "--class", "bank", "--name", "App")
    numhub("agreement", "add", "--subscriber", "bank", "--pia", "PIA-1")
    shown = numhub("party", "show", "bank")
    for expected in ("[bold]Bank", key["kid"], "bank-app", "agr_", "active"):
        assert expected in shown
    numhub("party", "suspend", "bank")
    assert "suspended" in numhub("party", "list")
    numhub("party", "resume", "bank")
    assert "suspended" not in numhub("party", "list")


def test_keys_rotate_from_a_public_file(numhub: Any, tmp_path: Path) -> None:
    """A party may bring its own public key; the old one stays for the overlap, or goes at once."""
    first, second = tmp_path / "1.jwk", tmp_path / "2.jwk"
    numhub("party", "add", "mobile", "--role", "carrier", "--name", "M", "--holder", "cmcc", "--key-out", str(first))
    numhub("party", "add", "other", "--role", "carrier", "--name", "O", "--key-out", str(second), "--alg", "EdDSA")
    public = {name: value for name, value in json.loads(second.read_text("utf-8")).items() if name != "d"}
    (tmp_path / "public.jwk").write_text(json.dumps({"keys": [public]}), "utf-8")
    numhub("party", "rotate-key", "mobile", "--public-key", str(tmp_path / "public.jwk"), "--overlap-hours", "0")
    shown = numhub("party", "show", "mobile")
    assert public["kid"] in shown
    assert json.loads(first.read_text("utf-8"))["kid"] not in shown


def test_agreements_end(numhub: Any, tmp_path: Path) -> None:
    """An ended agreement is listed as no longer in force."""
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "B", "--key-out", str(tmp_path / "k.jwk"))
    made = numhub("agreement", "add", "--subscriber", "bank", "--pia", "PIA-1", "--days", "30")
    agreement_id = next(word for word in made.split() if word.startswith("agr_"))
    assert " yes " in numhub("agreement", "list")
    numhub("agreement", "end", agreement_id)
    assert " yes " not in numhub("agreement", "list")


REFUSED: dict[str, list[str]] = {
    "no key": ["party", "add", "x1", "--role", "carrier", "--name", "X"],
    "bad id": ["party", "add", "X Y", "--role", "carrier", "--name", "X", "--sandbox"],
    "bad holder": ["party", "add", "x1", "--role", "carrier", "--name", "X", "--sandbox", "--holder", "nokia"],
    "foreign option": ["party", "add", "x1", "--role", "subscriber", "--name", "X", "--sandbox", "--holder", "cmcc"],
    "unknown mvno": ["party", "add", "x1", "--role", "carrier", "--name", "X", "--sandbox", "--acting-for", "mv"],
    "bad day": ["party", "add", "x1", "--role", "carrier", "--name", "X", "--sandbox", "--coverage-since", "soon"],
    "nobody": ["party", "suspend", "nobody"],
    "nobody shown": ["party", "show", "nobody"],
    "app of nobody": ["app", "add", "a1", "--subscriber", "nobody", "--class", "bank", "--name", "A"],
    "agreement of nobody": ["agreement", "add", "--subscriber", "nobody", "--pia", "P"],
    "no such agreement": ["agreement", "end", "agr_0"],
    "key file missing": ["party", "add", "x1", "--role", "carrier", "--name", "X", "--public-key", "/nowhere"],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_clear_line(numhub: Any, name: str) -> None:
    """Exit code 1 and one line that says why; no trace."""
    output = numhub(*REFUSED[name], ok=False)
    assert output.startswith("numhub: ")
    assert len(output.strip().splitlines()) == 1


def test_a_failed_enrolment_leaves_no_key_behind(numhub: Any, tmp_path: Path) -> None:
    """A key nobody knows the public half of is no use; an existing file is never replaced."""
    first, second = tmp_path / "1.jwk", tmp_path / "2.jwk"
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "B", "--key-out", str(first))
    before = first.read_bytes()
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "B", "--key-out", str(second), ok=False)
    numhub("party", "add", "bank2", "--role", "subscriber", "--name", "B", "--key-out", str(first), ok=False)
    assert not second.exists()
    assert first.read_bytes() == before


def test_the_policy_is_shown_and_changed_piece_by_piece(numhub: Any, tmp_path: Path) -> None:
    """What is not named stays; a rest below 90 days, a share above 1 and an empty change are refused."""
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "B", "--key-out", str(tmp_path / "k.jwk"))
    assert "tiered" in numhub("policy", "show")
    numhub("policy", "set", "--clearance", "strict", "--answer-within-days", "10")
    numhub("policy", "set", "--freeze-days", "120")
    shown = {line.split()[1]: line.split()[3:5] for line in numhub("policy", "show").splitlines() if line[:1] == "│"}
    assert shown["clearance"][0] == "strict"
    assert shown["freeze_days"][0] == "120"
    assert shown["answer_within"] == ["10", "days"]
    for wrong in (("--freeze-days", "89"), ("--tiered-share", "1.5"), ("--clearance", "lax"), ()):
        numhub("policy", "set", *wrong, ok=False)
    assert "120" in numhub("policy", "show")
