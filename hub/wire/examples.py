"""One typical example per message, by the name of its model; the documents below schemas/ show them.

A test holds each against its model. Numbers, ids and keys are made up.
"""

from __future__ import annotations

from typing import Any, Final

_CHUNK = "evt_5d41402abc4b2a76b9719d911017c592"
_SUBSCRIPTION = "sub_9f86d081884c7d65"
_BATCH = "bat_0a4d55a8d778e5022fab7019"
_RENEWAL = "ren_7c4a8d09ca3762af61e59520"
_CLEARANCE = "clr_b1946ac92492d2347c6235b4"
_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_JWK = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
_CURSOR = "AQHk3Vb1Yy8tZ2hQ"

Json = dict[str, Any]


def _cloud_event(type_: str, data: Json, event_id: str = _CHUNK) -> Json:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "urn:numhub:hub",
        "type": type_,
        "time": "2026-06-01T02:00:00Z",
        "timestamp": "2026-06-01T02:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }


_CHUNK_EVENT = _cloud_event(
    "cn.numhub.number.release_scheduled.v1",
    {
        "chunk_id": _CHUNK,
        "event_type": "release_scheduled",
        "lane": "bulk",
        "count": 3,
        "country_code": "86",
        "numbers": [13800138000, 13800138007, 13800138042],
        "shared": {
            "generation": 0,
            "seq": 2,
            "occurred_at": 1780279200,
            "binding_cutoff_at": 1772294400,
            "release_planned_at": 1782835200,
        },
        "exceptions": {},
        "columns": {},
        "reported_at": 1780279200,
    },
)

_BATCH_OUT: Json = {
    "batch_id": _BATCH,
    "batch_seq": 42,
    "state": "committed",
    "event_type": "release_scheduled",
    "rows_declared": 20000,
    "bytes_uploaded": 640020,
    "rows_seen": 20000,
    "rows_accepted": 19998,
    "rows_refused": 2,
    "chunks": 8,
    "reasons": [
        {
            "reason": "freeze_too_short",
            "rows": 2,
            "meaning": "the number would be released before its 90 full days of rest are over",
        }
    ],
    "created_at": "2026-06-01T01:58:00Z",
    "committed_at": "2026-06-01T02:00:04Z",
    "failure": None,
    "acting_for": None,
}

_PARTY_OUT: Json = {
    "party_id": "cmcc",
    "role": "carrier",
    "name": "China Mobile",
    "suspended": False,
    "sandbox": False,
    "kids": ["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"],
    "block_holders": ["cmcc"],
    "acting_for": [],
    "coverage_since": "2026-01-01T00:00:00Z",
    "created_at": "2026-01-01T00:00:00Z",
}

_SUBSCRIPTION_OUT: Json = {
    "subscription_id": _SUBSCRIPTION,
    "app_id": "shop-app",
    "app_class": "e_commerce",
    "mode": "webhook_full",
    "endpoint": "https://hooks.example.com/numhub",
    "event_types": ["deactivated", "restored", "release_scheduled", "release_cancelled"],
    "lanes": ["bulk", "live"],
    "purpose": "account_unbind",
    "state": "active",
    "state_reason": None,
    "created_at": "2026-05-01T00:00:00Z",
    "secret": None,
    "parked": 0,
}

_RENEWAL_OUT: Json = {
    "renewal_id": _RENEWAL,
    "state": "submitted",
    "number": "138****8000",
    "requested_at": "2026-06-01T02:00:00Z",
    "due_at": "2026-06-08T16:00:00Z",
    "due_approximate": False,
    "apps": [
        {
            "app_id": "shop-app",
            "name": "The shop",
            "app_class": "e_commerce",
            "state": "clear",
            "reason": None,
            "next_step": None,
            "review_at": None,
            "overdue": False,
        },
        {
            "app_id": "pay-app",
            "name": "A wallet",
            "app_class": "payment",
            "state": "held",
            "reason": "held_funds",
            "next_step": "The former holder's account still holds money. The app looks at it again on 2026-07-01.",
            "review_at": "2026-07-01T00:00:00Z",
            "overdue": False,
        },
    ],
}

_WAIVER_OUT: Json = {
    "waiver_id": "wai_2c26b46b68ffc68ff99b453c",
    "subscriber_id": "shop",
    "batch_id": _BATCH,
    "person": "Li Wei, numbering office",
    "reason": "the shop closed down",
    "issued_by": "miit",
    "issued_at": "2026-06-20T02:00:00Z",
    "ends_at": None,
}

EXAMPLES: Final[dict[str, Json]] = {
    "ChunkEvent": _CHUNK_EVENT,
    "PointerEvent": _cloud_event(
        "cn.numhub.chunk.pointer.v1",
        {
            "chunk_id": _CHUNK,
            "event_type": "release_scheduled",
            "lane": "bulk",
            "count": 3,
            "sha256": _SHA256,
            "bytes": 640,
            "url": f"/v1/chunks/{_CHUNK}",
        },
    ),
    "ProofEvent": _cloud_event(
        "cn.numhub.endpoint.proof.v1",
        {"challenge": "Zl2x0bQm3nA7", "subscription_id": _SUBSCRIPTION},
        "prf_6512bd43d9caa6e02c990b0a",
    ),
    "ProofAnswer": {"challenge": "Zl2x0bQm3nA7"},
    "TestEvent": _cloud_event(
        "cn.numhub.endpoint.test.v1",
        {"subscription_id": _SUBSCRIPTION, "message": "a test; nothing to do"},
        "tst_c20ad4d76fe97759aa27a0c9",
    ),
    "BatchIn": {
        "batch_seq": 42,
        "rows": 20000,
        "sha256": _SHA256,
        "event_type": "release_scheduled",
        "format": "csv",
        "encoding": "zstd",
    },
    "BatchOut": _BATCH_OUT,
    "BatchList": {"batches": [_BATCH_OUT]},
    "EventsIn": {
        "events": [
            {"number": "+8613800138000", "event_type": "restored", "occurred_at": "2026-06-01T09:30:00+08:00"},
            {
                "number": "13800138007",
                "event_type": "deactivated",
                "occurred_at": "2026-06-01T09:00:00+08:00",
                "terminate_reason": "holder_request",
            },
        ]
    },
    "IngressEvent": {
        "schema": "numhub.ingress.v1",
        "id": "2026-06-01-000017",
        "number": "13800138007",
        "event_type": "deactivated",
        "occurred_at": "2026-06-01T09:00:00+08:00",
        "terminate_reason": "holder_request",
    },
    "IngressList": {
        "schema": "numhub.ingress.v1",
        "id": "night-2026-06-01-part-3",
        "event_type": "release_scheduled",
        "numbers": [13800138042, 13800138000, 13800138007],
        "shared": {"release_planned_at": 1782835200},
        "columns": {"terminated_at": [1772294400, 1772208000, 1772294400]},
    },
    "IngressRefusal": {
        "schema": "numhub.rejects.v1",
        "kind": "refusal",
        "source": {"topic": "numhub.ingress.cmcc", "partition": 3, "offset": 1041},
        "id": "night-2026-06-01-part-3",
        "reason": None,
        "detail": None,
        "retriable": False,
        "number": None,
        "rows": [
            {
                "reason": "freeze_too_short",
                "meaning": "the number would be released before its 90 full days of rest are over",
                "retriable": False,
                "rows": [0, 2],
            }
        ],
        "rows_refused": 2,
        "told_at": "2026-06-01T02:00:01Z",
    },
    "IngressSummary": {
        "schema": "numhub.rejects.v1",
        "kind": "summary",
        "source": {"topic": "numhub.ingress.cmcc", "partition": 3, "from_offset": 1040, "to_offset": 1041},
        "records": 2,
        "accepted": 2,
        "refused": 2,
        "events": [{"offset": 1040, "id": "2026-06-01-000017", "event_id": _CHUNK}],
        "lists": [
            {
                "offset": 1041,
                "id": "night-2026-06-01-part-3",
                "accepted": 1,
                "refused": 2,
                "chunks": [{"chunk_id": "evt_7d793037a0760186574b0282f2f435e7", "count": 1, "rows": [1]}],
            }
        ],
        "told_at": "2026-06-01T02:00:01Z",
    },
    "CarrierAnswer": {
        "schema": "numhub.answers.carrier.v1",
        "chunk_id": _CHUNK,
        "event_type": "release_scheduled",
        "batch_id": _BATCH,
        "app_class": "bank",
        "version": 3,
        "count": 2500,
        "counts": {"done": 2497, "held": 2, "pending": 0, "failed": 1},
        "held_rows": [17, 2044],
        "failed_rows": [311],
        "as_of": "2026-06-02T02:00:00Z",
    },
    "RegulatorAnswer": {
        "schema": "numhub.answers.regulator.v1",
        "chunk_id": _CHUNK,
        "subscription_id": _SUBSCRIPTION,
        "subscriber_id": "shop",
        "app_class": "e_commerce",
        "carrier_id": "cmcc",
        "event_type": "release_scheduled",
        "version": 0,
        "count": 2500,
        "answered": 2500,
        "dispositions": {"no_account": 2460, "unbound": 38, "held_debt": 2},
        "due_at": "2026-06-21T02:00:00Z",
        "as_of": "2026-06-02T02:00:00Z",
    },
    "EventsOut": {
        "results": [
            {"status": "accepted", "event_id": _CHUNK, "reason": None, "detail": None, "retriable": False},
            {
                "status": "refused",
                "event_id": None,
                "reason": "lifecycle_conflict",
                "detail": "the number's present state does not allow this event",
                "retriable": False,
            },
        ],
        "accepted": 1,
        "refused": 1,
    },
    "SubscriptionIn": {
        "app_id": "shop-app",
        "mode": "webhook_full",
        "endpoint": "https://hooks.example.com/numhub",
        "event_types": ["deactivated", "restored", "release_scheduled", "release_cancelled"],
        "purpose": "account_unbind",
        "signature": "v1",
    },
    "SubscriptionPatch": {"lanes": ["live"]},
    "SubscriptionOut": _SUBSCRIPTION_OUT,
    "SubscriptionList": {"subscriptions": [_SUBSCRIPTION_OUT]},
    "RotateIn": {"overlap_seconds": 86400},
    "ProofOut": {"state": "active", "proven": True, "status": 200, "detail": "proven"},
    "EndpointTestOut": {"delivered": True, "status": 204, "detail": "received"},
    "DeliveryList": {
        "deliveries": [
            {
                "chunk_id": _CHUNK,
                "state": "retrying",
                "at": "2026-06-01T02:05:00Z",
                "attempts": 2,
                "reason": "status 503",
            }
        ]
    },
    "RedriveIn": {"subscription_id": _SUBSCRIPTION, "since": "2026-06-01T00:00:00+08:00"},
    "RedriveOut": {"chunks": 3},
    "FeedPage": {"cursor": _CURSOR, "events": [_CHUNK_EVENT], "more": False},
    "FeedCommitIn": {"subscription_id": _SUBSCRIPTION, "cursor": _CURSOR},
    "FeedCommitOut": {"committed": True, "receipts": 1},
    "AcksIn": {
        "subscription_id": _SUBSCRIPTION,
        "answers": [
            {
                "chunk_id": _CHUNK,
                "default": "no_account",
                "exceptions": [
                    {"disposition": "unbound", "rows": [0]},
                    {"disposition": "held_funds", "numbers": ["13800138042"], "review_at": "2026-07-01T00:00:00+08:00"},
                ],
            }
        ],
    },
    "AcksOut": {"results": [{"chunk_id": _CHUNK, "new": True}]},
    "ClearanceIn": {"numbers": ["13800138000", "+8613800138042"]},
    "ClearanceOut": {
        "clearance_id": _CLEARANCE,
        "policy": "tiered",
        "judged_at": "2026-06-25T02:00:00Z",
        "go": 1,
        "go_with_exceptions": 1,
        "wait": 0,
        "waivers": [],
        "numbers": [
            {
                "index": 0,
                "number": "138****8000",
                "verdict": "go",
                "until": None,
                "reasons": [],
                "app_classes": [],
            },
            {
                "index": 1,
                "number": "138****8042",
                "verdict": "go_with_exceptions",
                "until": None,
                "reasons": [],
                "app_classes": ["payment"],
            },
        ],
    },
    "BatchClearanceOut": {
        "clearance_id": _CLEARANCE,
        "batch_id": _BATCH,
        "policy": "tiered",
        "judged_at": "2026-06-25T02:00:00Z",
        "go": 19000,
        "go_with_exceptions": 31,
        "wait": 967,
        "wait_until": "2026-07-01T16:00:00Z",
        "waiting_for": {"answers_pending": 900, "freeze": 67},
        "waivers": [],
        "numbers": [],
        "numbers_left_out": 0,
    },
    "WaiverIn": {"statement": "eyJhbGciOiJFZERTQSJ9.eyJ3YWl2ZXIiOiJudW1odWIvdjEifQ.c2lnbmF0dXJl"},
    "WaiverOut": _WAIVER_OUT,
    "WaiverList": {"waivers": [_WAIVER_OUT]},
    "RenewalIn": {
        "number": "+8613800138000",
        "activated_at": "2026-05-20T10:00:00+08:00",
        "apps": ["shop-app", "pay-app"],
        "consent_sha256": _SHA256,
    },
    "RenewalOut": _RENEWAL_OUT,
    "AppCatalogue": {"apps": [{"app_id": "shop-app", "name": "The shop", "app_class": "e_commerce"}]},
    "CheckIn": {"checks": [{"number": "+8613800138000", "since": "2025-06-01"}]},
    "CheckOut": {
        "answers": [
            {"answer": "yes", "reason": "reassigned", "coverage_since": "2025-01-01"},
            {"answer": "no_data", "reason": "before_coverage", "coverage_since": "2026-01-01"},
        ],
        "as_of": "2026-06-01T02:00:00Z",
    },
    "ReportOut": {
        "name": "answers",
        "watermark": {
            "judged_at": "2026-06-25T02:00:00Z",
            "log_positions": [12, 9, 11, 10, 8, 12, 9, 10],
            "catalogue_positions": [12, 9, 11, 10, 8, 12, 9, 10],
            "waivers": 0,
        },
        "suppressed_below": 10,
        "columns": ["app_class", "done", "held"],
        "rows": [{"app_class": "e_commerce", "done": 18950, "held": None}],
    },
    "PartyIn": {
        "party_id": "cmcc",
        "role": "carrier",
        "name": "China Mobile",
        "keys": [_JWK],
        "block_holders": ["cmcc"],
        "coverage_since": "2026-01-01T00:00:00+08:00",
    },
    "PartyOut": _PARTY_OUT,
    "PartyList": {"parties": [_PARTY_OUT]},
    "KeyIn": {"key": _JWK, "overlap_seconds": 86400},
    "TokenOut": {
        "access_token": "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2lnbmF0dXJl",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "events.publish clearance.read",
    },
    "TokenErrorOut": {"error": "invalid_client", "error_description": "The assertion was used before."},
    "JwksOut": {"keys": [{**_JWK, "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "use": "sig", "alg": "EdDSA"}]},
    "AuthorizationServerOut": {
        "issuer": "https://hub.example",
        "token_endpoint": "https://hub.example/oauth2/token",
        "jwks_uri": "https://hub.example/jwks.json",
        "scopes_supported": ["events.publish"],
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA"],
    },
    "ProtectedResourceOut": {
        "resource": "https://hub.example",
        "authorization_servers": ["https://hub.example"],
        "jwks_uri": "https://hub.example/jwks.json",
        "scopes_supported": ["events.publish"],
        "bearer_methods_supported": ["header"],
        "resource_name": "numhub",
    },
    "LiveOut": {"status": "live"},
    "ReadyOut": {"status": "ready", "ledger": "ok", "fold": "ok", "behind": 0},
    "Problem": {
        "type": "/problems/lifecycle_conflict",
        "title": "The number's state does not allow this event",
        "status": 409,
        "code": "lifecycle_conflict",
        "detail": "The number is not in use; a renewal is for a line that is active.",
        "remedy": "Ask what the hub knows of the number.",
        "retriable": False,
        "errors": [],
    },
}
