"""Every problem code: status, title, what to do. A code without an entry here does not leave the hub."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    status: int
    title: str
    remedy: str


CATALOGUE: dict[str, Entry] = {
    # the request as sent
    "invalid_request": Entry(
        422, "The request does not fit the documented form", "Correct the members named in errors."
    ),
    "invalid_number": Entry(
        422, "Not a mainland-China mobile number", "Send 11 digits; +86 or 0086 may stand in front."
    ),
    "invalid_json": Entry(
        400, "The body is not strict JSON", "Send one JSON value in UTF-8: no duplicate keys, no NaN."
    ),
    "invalid_query": Entry(422, "A query or header parameter is wrong", "Correct the parameters named in errors."),
    "bad_request": Entry(400, "The request cannot be read", "Check how the request is put together."),
    "idempotency_key_missing": Entry(
        400, "Idempotency-Key is missing", "Send 1 to 128 printable characters of your own."
    ),
    "idempotency_key_malformed": Entry(
        400, "Idempotency-Key is malformed", "Send 1 to 128 printable characters in quotes."
    ),
    "request_timeout": Entry(
        408, "The request did not arrive in time", "Send headers in 10 s, the body without pauses."
    ),
    "payload_too_large": Entry(413, "The body is too large", "Send it in parts."),
    "uri_too_long": Entry(414, "The address is too long", "Send parameters in the body where the call offers it."),
    "unsupported_media_type": Entry(
        415, "Content type or coding not supported", "Send application/json, not compressed."
    ),
    "headers_too_large": Entry(431, "Too many or too large header fields", "Send fewer and shorter header fields."),
    "expectation_failed": Entry(417, "Expectation not supported", "Leave the Expect header out."),
    "range_not_satisfiable": Entry(416, "The range cannot be served", "Ask for a range within the content."),
    "invalid_key": Entry(422, "Not a public key the hub verifies with", "Send a public JWK: P-256, Ed25519 or RSA."),
    "invalid_statement": Entry(422, "The signed statement is not valid", "Sign it with a registered key of yours."),
    "invalid_endpoint": Entry(422, "The endpoint cannot be used", "Give an https address on a public host."),
    "endpoint_refused": Entry(422, "The endpoint cannot be used", "Give an https address on a public host."),
    "future_time": Entry(422, "A time lies in the future", "Send what has happened, when it has."),
    # access
    "unauthenticated": Entry(401, "No valid access token", "Ask the token endpoint for one and send it as Bearer."),
    "invalid_token": Entry(401, "The access token is not valid", "Ask the token endpoint for a new one."),
    "forbidden": Entry(403, "Your role does not allow this", "Ask for a token with the scope this call needs."),
    "insufficient_scope": Entry(403, "The token lacks a scope", "Ask for a token with the scope this call needs."),
    "not_found": Entry(404, "Nothing of that id is yours", "Check the id; what belongs to others looks the same."),
    "no_such_address": Entry(404, "There is no such address", "Look it up in /openapi.json."),
    "method_not_allowed": Entry(405, "This address does not know that method", "Use a method named in Allow."),
    # rules
    "rule_violated": Entry(409, "The rules forbid this now", "Read detail; the state must change first."),
    "conflict": Entry(409, "The state forbids this now", "Read the state anew, then decide."),
    "lifecycle_conflict": Entry(
        409, "The number's state does not allow this event", "Ask what the hub knows of the number."
    ),
    "idempotency_mismatch": Entry(422, "Key used before with another body", "Use a new key for a new request."),
    "idempotency_in_progress": Entry(
        409, "The first request is still running", "Repeat in a moment, same key, same body."
    ),
    "party_exists": Entry(409, "There is a party of that id already", "Choose another id."),
    "app_exists": Entry(409, "There is an app of that id already", "Choose another id."),
    "key_exists": Entry(409, "The key is registered already", "Make a new key pair."),
    "wrong_role": Entry(409, "The party's role does not fit", "Name a party of the role this needs."),
    "batch_conflict": Entry(
        409, "The batch's state does not allow this", "Read the batch, then continue from its state."
    ),
    "no_secret": Entry(409, "The subscription has no secret", "Secrets belong to webhooks."),
    "wrong_state": Entry(409, "The subscription's state does not allow this", "Read the subscription first."),
    "nothing_to_prove": Entry(409, "There is no endpoint to prove", "Proof is asked of webhooks only."),
    "nothing_to_test": Entry(409, "There is no endpoint to test", "Test events go to webhooks only."),
    "not_a_webhook": Entry(409, "The subscription is no webhook", "Pull what is parked from the feed."),
    "statement_reused": Entry(409, "The jti was used for another statement", "Sign each statement with a fresh jti."),
    "renewal_cooling_down": Entry(
        409, "A renewal was asked for a short while ago", "Follow that one; repeat tomorrow."
    ),
    "no_such_block": Entry(409, "No such number block was issued", "Check the number."),
    "foreign_block": Entry(409, "The number's block is another carrier's", "Only its own carrier may report it."),
    # cursors
    "cursor_invalid": Entry(
        400, "The cursor cannot be used", "Continue without a cursor from your committed position."
    ),
    "cursor_malformed": Entry(
        400, "Not a cursor of this hub", "Continue without a cursor from your committed position."
    ),
    "cursor_expired": Entry(
        410, "The log no longer keeps that position", "Continue without a cursor; ask for what is gone."
    ),
    # later
    "too_many_requests": Entry(429, "Too many requests", "Wait as long as Retry-After says, then repeat."),
    "unavailable": Entry(503, "The hub cannot do this right now", "Repeat later; the request is fine."),
    "append_in_doubt": Entry(503, "The log did not confirm in time", "Repeat with the same Idempotency-Key."),
    "log_unavailable": Entry(503, "The log cannot be written right now", "Repeat later with the same Idempotency-Key."),
    "internal": Entry(500, "Something went wrong in the hub", "Repeat later; tell the operator if it stays."),
}
