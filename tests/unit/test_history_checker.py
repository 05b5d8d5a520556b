"""The checker of histories finds what it is there to find: each planted fault is named, a clean history is not."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from tests.history import (
    AnswerSent,
    BatchSent,
    Delivery,
    EventsCall,
    History,
    Kept,
    VerdictsHeard,
    Wishes,
    check,
)

ALL = frozenset({"deactivated", "restored", "release_scheduled", "release_cancelled", "released"})
BOTH = frozenset({"bulk", "live"})
ONE, TWO = "sub_one", "sub_two"
LIVE, BACK, BULK = "evt_live", "evt_back", "evt_bulk"
N, A, B, RESTING = 13_900_000_001, 13_800_000_001, 13_800_000_002, 13_800_000_003


def clean() -> tuple[History, Kept]:
    """One number ends and comes back, one batch is delivered, answered and cleared; two subscribers."""
    history = History({ONE: Wishes(ALL, BOTH), TWO: Wishes(ALL, BOTH)})
    history.calls = [
        EventsCall("cmcc", "k1", [(N, "deactivated")], 1, 2, heard=[[LIVE], [LIVE]], misused="refused"),
        EventsCall("cmcc", "k2", [(N, "restored")], 3, 4, heard=[[BACK]]),
    ]
    good = [A, B, RESTING]
    history.batches = [
        BatchSent("cmcc", "b1", "release_scheduled", good, frozenset({RESTING}), 1, 1, 2, ["bat_1"], 3, 1)
    ]
    rows = tuple((number, 0, 1) for number in good)
    said = ("no_account", (("unbound", (1,)),))
    for subscription_id in (ONE, TWO):
        history.deliveries += [
            Delivery(3, subscription_id, LIVE, "deactivated", "live", ((N, 0, 1),), "x1"),
            Delivery(4, subscription_id, BULK, "release_scheduled", "bulk", rows, "x2"),
            Delivery(5, subscription_id, BACK, "restored", "live", ((N, 0, 2),), "x3"),
            Delivery(6, subscription_id, LIVE, "deactivated", "live", ((N, 0, 1),), "x1"),  # a repeat
        ]
        history.answers += [
            AnswerSent(subscription_id, BULK, 3, said, 7, 8),
            AnswerSent(subscription_id, BULK, 3, (None, (("rejected_cutoff", (0,)),)), 9, 10),
        ]
    history.verdicts = [
        VerdictsHeard(5, 6, {A: "wait", B: "wait", RESTING: "wait"}),
        VerdictsHeard(11, 12, {A: "go", B: "go", RESTING: "wait"}),
    ]
    kept = Kept(
        receipts={(s, chunk) for s in (ONE, TWO) for chunk in (LIVE, BACK, BULK)},
        batch_chunks={"bat_1": {BULK: 3}},
        facts={(s, BULK): [said, (None, (("rejected_cutoff", (0,)),))] for s in (ONE, TWO)},
        codes={(s, BULK): ("rejected_cutoff", "unbound", "no_account") for s in (ONE, TWO)},
    )
    return history, kept


def test_a_clean_history_has_no_findings() -> None:
    """Repeats, corrections and waiting are no faults."""
    assert check(*clean()) == []


def test_what_was_parked_is_not_lost() -> None:
    """An event that never arrived and stands visibly in the parking place is settled."""
    history, kept = clean()
    history.deliveries = [d for d in history.deliveries if (d.subscription_id, d.chunk_id) != (TWO, BACK)]
    kept.receipts.discard((TWO, BACK))
    kept.parked.add((TWO, BACK))
    assert check(history, kept) == []


def lost(history: History, kept: Kept) -> None:
    history.deliveries = [d for d in history.deliveries if (d.subscription_id, d.chunk_id) != (TWO, BACK)]


def lost_rows(history: History, kept: Kept) -> None:
    history.deliveries = [
        replace(d, rows=d.rows[:2]) if (d.subscription_id, d.chunk_id) == (ONE, BULK) else d for d in history.deliveries
    ]


def receipt_lost(history: History, kept: Kept) -> None:
    kept.receipts.discard((ONE, LIVE))


def phantom(history: History, kept: Kept) -> None:
    history.deliveries.append(Delivery(7, ONE, "evt_ghost", "deactivated", "live", ((N + 1, 0, 1),), "x9"))


def refused_row_delivered(history: History, kept: Kept) -> None:
    history.batches[0].good.remove(B)
    history.batches[0].accepted = 2


def row_delivered_in_two_chunks(history: History, kept: Kept) -> None:
    kept.batch_chunks["bat_1"]["evt_again"] = 1
    kept.receipts |= {(ONE, "evt_again"), (TWO, "evt_again")}
    for subscription_id in (ONE, TWO):
        history.deliveries.append(
            Delivery(7, subscription_id, "evt_again", "release_scheduled", "bulk", ((A, 0, 2),), "x8")
        )


def not_asked_for(history: History, kept: Kept) -> None:
    history.subscriptions[TWO] = Wishes(ALL - {"restored"}, BOTH)


def changed_bytes(history: History, kept: Kept) -> None:
    history.deliveries[-1] = replace(history.deliveries[-1], digest="other")


def reordered(history: History, kept: Kept) -> None:
    mine = [place for place, d in enumerate(history.deliveries) if d.subscription_id == ONE]
    first, _, third, _ = mine
    deliveries = history.deliveries
    deliveries[first], deliveries[third] = deliveries[third], deliveries[first]


def another_id_on_repeat(history: History, kept: Kept) -> None:
    history.calls[0].heard[1] = ["evt_other"]


def key_served_another_body(history: History, kept: Kept) -> None:
    history.calls[0].misused = "accepted"


def two_batches_for_one_key(history: History, kept: Kept) -> None:
    history.batches[0].batch_ids.append("bat_2")


def rows_miscounted(history: History, kept: Kept) -> None:
    history.batches[0].accepted = 2


def answer_lost(history: History, kept: Kept) -> None:
    del kept.facts[TWO, BULK][1]


def answer_invented(history: History, kept: Kept) -> None:
    kept.facts[TWO, BULK].append(("unbound", ()))


def answer_of_a_stranger(history: History, kept: Kept) -> None:
    kept.facts[TWO, LIVE] = [("unbound", ())]


def correction_ineffective(history: History, kept: Kept) -> None:
    kept.codes[ONE, BULK] = ("no_account", "unbound", "no_account")


def cleared_before_all_had_answered(history: History, kept: Kept) -> None:
    history.verdicts[0].verdicts[A] = "go"


def cleared_during_the_freeze(history: History, kept: Kept) -> None:
    history.verdicts[1].verdicts[RESTING] = "go"


def cleared_after_a_withdrawal(history: History, kept: Kept) -> None:
    cancelled = Delivery(10, ONE, "evt_off", "release_cancelled", "live", ((B, 0, 2),), "x7")
    history.calls.append(EventsCall("cmcc", "k3", [(B, "release_cancelled")], 9, 10, heard=[["evt_off"]]))
    for subscription_id in (ONE, TWO):
        history.deliveries.append(replace(cancelled, subscription_id=subscription_id))
        kept.receipts.add((subscription_id, "evt_off"))


def never_answered(history: History, kept: Kept) -> None:
    history.calls.append(EventsCall("cmcc", "k4", [(N, "deactivated")], 9))


FAULTS: list[tuple[Callable[[History, Kept], None], str]] = [
    (lost, "S1"),
    (lost_rows, "S1"),
    (receipt_lost, "S1"),
    (phantom, "S2"),
    (refused_row_delivered, "S2"),
    (row_delivered_in_two_chunks, "S2"),
    (not_asked_for, "S2"),
    (changed_bytes, "S3"),
    (reordered, "S4"),
    (another_id_on_repeat, "S5"),
    (key_served_another_body, "S5"),
    (two_batches_for_one_key, "S5"),
    (rows_miscounted, "S5"),
    (answer_lost, "S6"),
    (answer_invented, "S6"),
    (answer_of_a_stranger, "S6"),
    (correction_ineffective, "S6"),
    (cleared_before_all_had_answered, "S9"),
    (cleared_during_the_freeze, "S10"),
    (cleared_after_a_withdrawal, "S12"),
    (never_answered, "L1"),
]


@pytest.mark.parametrize(("plant", "invariant"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_a_planted_fault_is_found(plant: Callable[[History, Kept], None], invariant: str) -> None:
    """Each fault, planted alone into a clean history, is named by the invariant it breaks."""
    history, kept = deepcopy(clean())
    plant(history, kept)
    assert invariant in {finding.invariant for finding in check(history, kept)}
