"""From Kafka's errors to the hub's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka

from hub.domain.errors import LogUnavailable, PayloadTooLarge, PositionExpired


class TopicMissing(LogUnavailable):
    """There is no such topic."""


NOT_TAKEN: tuple[type[Exception], ...] = (
    kafka.UnknownTopicOrPartitionError,
    kafka.LeaderNotAvailableError,
    kafka.NotLeaderForPartitionError,
    kafka.BrokerNotAvailableError,
    kafka.ReplicaNotAvailableError,
    kafka.NotEnoughReplicasError,
    kafka.StaleLeaderEpochCodeError,
    kafka.GroupLoadInProgressError,
    kafka.GroupCoordinatorNotAvailableError,
    kafka.NotCoordinatorForGroupError,
    kafka.NodeNotReadyError,
    kafka.NoBrokersAvailable,
    kafka.KafkaUnavailableError,
    kafka.StaleMetadata,
    kafka.MetadataEmptyBrokerList,
    kafka.NotControllerError,
    kafka.QuotaViolationError,
)
"""Certainly nothing was appended, and the same may succeed in a moment."""

SEQUENCE: tuple[type[Exception], ...] = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.ProducerFenced,
)
"""The broker does not go on with this producer id: nothing was appended by this try, and a new id is needed."""

REFUSED: tuple[type[Exception], ...] = (
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
    kafka.DelegationTokenAuthorizationFailed,
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
    kafka.SecurityDisabled,
    kafka.InvalidTopicError,
    kafka.InvalidTimestampError,
    kafka.InvalidRequiredAcksError,
    kafka.InvalidRequestError,
    kafka.UnsupportedVersionError,
    kafka.UnsupportedForMessageFormatError,
    kafka.IncompatibleBrokerVersion,
    kafka.UnrecognizedBrokerVersion,
    kafka.PolicyViolationError,
    kafka.UnsupportedCodecError,
)
"""Certainly nothing was appended, and only an operator can change that."""

TOO_LARGE: tuple[type[Exception], ...] = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.RecordTooLargeError,
)

IN_DOUBT: tuple[type[Exception], ...] = (
    kafka.RequestTimedOutError,
    kafka.KafkaTimeoutError,
    kafka.NotEnoughReplicasAfterAppendError,  # it stands on the leader, and may yet be lost or kept
    kafka.DuplicateSequenceNumber,  # it stands in the log, nobody says where
    kafka.KafkaConnectionError,
    kafka.KafkaProtocolError,
    kafka.CorrelationIdError,
    kafka.KafkaStorageError,
    kafka.LogDirNotFound,
    kafka.CorruptRecordException,
    kafka.UnknownError,
    kafka.Cancelled,
)
"""The broker may or may not have appended. So is every answer to an append that nobody foresaw."""


def told(error: BaseException) -> str:
    """One line for the operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's TLS certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with the broker failed: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer from the broker in time"
    if isinstance(error, ConnectionRefusedError):
        return "no broker listens there"
    if isinstance(error, OSError):
        return f"no connection to the broker: {error.strerror or error}"
    if isinstance(
        error, (kafka.SaslAuthenticationFailed, kafka.AuthenticationFailedError, kafka.UnsupportedSaslMechanismError)
    ):
        return f"the broker refuses the credentials (kafka_username, kafka_password, kafka_sasl_mechanism): {error}"
    if isinstance(error, (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)):
        return f"the broker's access rules forbid it to this user: {error}"
    if isinstance(error, kafka.BrokerResponseError):
        return f"the broker answered {type(error).__name__}: {type(error).description}"
    return str(error) or type(error).__name__


def translated(error: BaseException) -> Exception | None:
    """What ``error`` of a read or a look-up is in the hub's terms; None if it did not come from Kafka."""
    if isinstance(error, TOO_LARGE):
        return PayloadTooLarge("The record is larger than the log takes (max.message.bytes of its topic).")
    if isinstance(error, (kafka.OffsetOutOfRangeError, kafka.NoOffsetForPartitionError)):
        return PositionExpired()
    if isinstance(error, (kafka.KafkaError, kafka.ConsumerStoppedError, kafka.IllegalOperation)):
        return LogUnavailable(f"The log cannot be reached: {told(error)}.")
    if isinstance(error, (TimeoutError, OSError, EOFError)):
        return LogUnavailable(f"The log cannot be reached: {told(error)}.")
    return None


@contextmanager
def translating() -> Iterator[None]:
    """Let only errors of the domain out of the block (and mistakes of the program, and cancellation, untouched)."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except Exception as error:
        known = translated(error)
        if known is None:
            raise
        raise known from error
