"""Why a record of a carrier's topic is set aside as a whole: nothing in it was judged, and what follows it goes on."""

from __future__ import annotations

from enum import StrEnum


class Quarantine(StrEnum):
    damaged = "damaged"
    empty = "empty"
    too_large = "too_large"
    headers_too_large = "headers_too_large"
    invalid_json = "invalid_json"
    schema_missing = "schema_missing"
    schema_unknown = "schema_unknown"
    invalid_message = "invalid_message"
    id_reused = "id_reused"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Quarantine.damaged: "this record, or one before it in its batch, cannot be read (is a header name not UTF-8?)",
    Quarantine.empty: "the record has no value",
    Quarantine.too_large: "the record is larger than 2 MiB; send at most 10,000 numbers in one",
    Quarantine.headers_too_large: "the record has more than 32 headers, or more than 8 KiB of them",
    Quarantine.invalid_json: "the value is not one strict JSON object in UTF-8 (no duplicate keys, no NaN)",
    Quarantine.schema_missing: "neither the header nor the member `schema` names the version of the message",
    Quarantine.schema_unknown: "the hub does not know this schema version, or header and member differ",
    Quarantine.invalid_message: "the members do not fit the schema named",
    Quarantine.id_reused: "you gave this id to another content before; nothing of this record was taken",
}
