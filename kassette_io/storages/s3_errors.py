"""What an error of the S3 client means, and what to do about it; nothing is requested here.

Rules:
- Only the store itself can refuse. A response without S3's error body (a code such as
  ``NoSuchKey``) comes from something in front of it: a proxy, a load balancer, a server that is
  still starting. It is as inconclusive as no response, whatever its status. So a 404 means that an
  object does not exist only if its code is ``NoSuchKey``.
- Certain are: requests that were never sent (no credentials, an untrusted certificate), redirects,
  501, and a 4xx of the store that does not indicate a transient state. Everything else is
  transient.
- What the SDK refuses to send because of a setting is the caller's mistake: UsageError.
- Every kind of error has its own text, which includes the server's message.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from errno import ECONNREFUSED
from socket import gaierror
from typing import Any, Final, final

from kassette.immutable import Immutable

MISSING_KEY: Final = "NoSuchKey"
_CONDITION_CODES: Final = frozenset(
    {"PreconditionFailed", "ConditionalRequestConflict", MISSING_KEY}
)
_PASSING_CODES: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_STATUSES: Final = frozenset({408, 425, 429})
_REGION: Final = (
    "the bucket is in another region or behind another endpoint; set region_name (AWS_REGION) and "
    "endpoint_url (AWS_ENDPOINT_URL_S3) accordingly"
)
_ADVICE: Final = {
    "AccessDenied": "the credentials lack s3:GetObject, s3:PutObject or s3:ListBucket here",
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": "the credentials have expired; renew them",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": "the access key is unknown to this store",
    "InvalidToken": "the session token is not valid for this store; renew the credentials",
    "NoSuchBucket": "create the bucket, or use another one",
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it (with NTP)",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "TemporaryRedirect": _REGION,
}
_NO_CONDITIONS: Final = (
    "this store does not support conditional writes (If-None-Match, If-Match), so it cannot be "
    "used for journals; use another store, or another version of this one"
)
_CREDENTIALS: Final = frozenset(
    {"NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"}
)
_SETTINGS: Final = frozenset(
    {
        "ConfigNotFound",
        "InvalidConfigError",
        "InvalidEndpointConfigurationError",
        "InvalidRegionError",
        "NoRegionError",
        "ParamValidationError",
        "ProfileNotFound",
        "UnsupportedS3ConfigurationError",
    }
)


class Unusable(Exception):
    """A response that is incomplete or not from the store."""


class Redirected(Exception):
    """The endpoint redirects to another address, which is the argument."""


@final
class Meaning(Immutable):
    """What an error means: ``why``, whether that is certain, and whether the caller caused it."""

    why: str
    certain: bool
    misuse: bool = False


def meaning(error: Exception, silence: str, *, opening: bool = False) -> Meaning:
    """Return what ``error`` means.

    ``silence`` is the text for a timeout; ``opening`` means that no request was made yet.
    """
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name in ("ReadTimeoutError", "ConnectTimeoutError"):
        return Meaning(silence, certain=False)
    if isinstance(error, Unusable):
        return Meaning(str(error), certain=False)
    if code(error) is not None:
        return _refusal(error)
    if name in _SETTINGS or (opening and isinstance(error, TypeError | ValueError)):
        return Meaning(f"{name}: {error}; check the settings", certain=True, misuse=True)
    if name in _CREDENTIALS:
        return Meaning(f"{error}; configure credentials as usual for AWS", certain=True)
    return _connection(error, name)


def code(error: Exception) -> str | None:
    """Return the code of an error response: S3's own, an HTTP status or ""; None: no response."""
    found = _response(error).get("Error", {}).get("Code")
    return found if isinstance(found, str) else None


def is_refused_condition(error: Exception) -> bool:
    """Return whether a put's condition failed, or another put was in progress (any 409)."""
    return status(error) in (409, 412) or code(error) in _CONDITION_CODES


def status(error: Exception) -> int | None:
    """Return the HTTP status of an error response."""
    found = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None


def repeats(error: Exception) -> int:
    """Return how often the SDK itself has retried the request."""
    return int(_response(error).get("ResponseMetadata", {}).get("RetryAttempts", 0))


def _refusal(error: Exception) -> Meaning:
    given, number = code(error) or "", status(error) or 0
    by_the_store = bool(given) and not given.isdigit()
    said = _response(error).get("Error", {}).get("Message") or "no message"
    told = f"{given}: {said}" if by_the_store else f"HTTP {number}"
    if number == 501 or given == "NotImplemented":
        return Meaning(f"{told}; {_NO_CONDITIONS}", certain=True)
    if 300 <= number < 400:
        return Meaning(f"{told}; {_ADVICE.get(given, _REGION)}{_elsewhere(error)}", certain=True)
    if not by_the_store:
        what = "a proxy or load balancer answered, or the store is starting"
        return Meaning(f"{told} without an S3 error body: {what}", certain=False)
    advice = f"; {_ADVICE[given]}{_elsewhere(error)}" if given in _ADVICE else ""
    passing = number >= 500 or number in _PASSING_STATUSES or given in _PASSING_CODES
    return Meaning(f"{told}{advice}", certain=number >= 400 and not passing)


def _elsewhere(error: Exception) -> str:
    """Return where a response says that the bucket is."""
    headers = _response(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = _response(error).get("Error", {})
    region = headers.get("x-amz-bucket-region") or found.get("Region")
    place = found.get("Endpoint") or headers.get("location")
    named = [f"region {region}"] if region else []
    named += [f"endpoint {place}"] if place else []
    return f" ({', '.join(named)})" if named else ""


def _connection(error: Exception, name: str) -> Meaning:
    """Return the meaning of an error without a response, from its root cause."""
    roots = list(_roots(error))
    for root in roots:
        if isinstance(root, Redirected):
            return Meaning(
                f"it redirects to {root}; set endpoint_url (AWS_ENDPOINT_URL_S3) accordingly",
                certain=True,
            )
        if isinstance(root, ssl.SSLCertVerificationError):
            return Meaning(
                f"the server's certificate is not trusted: {_verdict(root)}; check "
                "the host name, or set the certificate authority with verify= (AWS_CA_BUNDLE)",
                certain=True,
            )
    for root in roots:
        if isinstance(root, ssl.SSLError):
            return Meaning(
                f"the server does not speak TLS as expected: {root}; check http:// or https:// "
                "in the endpoint",
                certain=False,
            )
        if isinstance(root, gaierror) or "DNS" in type(root).__name__:
            return Meaning(
                f"the host name cannot be resolved: {root}; check endpoint_url "
                "(AWS_ENDPOINT_URL_S3) and the region",
                certain=False,
            )
        if getattr(root, "errno", None) == ECONNREFUSED:
            return Meaning(
                "connection refused: nothing is listening; check the port, and that the store runs",
                certain=False,
            )
    told = str(roots[-1]) or type(roots[-1]).__name__
    return Meaning(f"the connection failed or was lost: {name}: {told}", certain=False)


def _verdict(error: ssl.SSLCertVerificationError) -> str:
    return getattr(error, "verify_message", "") or str(error)  # aiohttp's own has no message


def _roots(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, however its library wraps them."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kwargs: Any = getattr(each, "kwargs", {})  # where botocore's errors put what they wrap
        wrapped: object = kwargs.get("error")
        waiting += [wrapped, getattr(each, "os_error", None), each.__cause__, each.__context__]


def _response(error: Exception) -> dict[str, Any]:
    found: object = getattr(error, "response", None)
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]
