"""Who calls, proven by a signed token: ``authorization: Bearer …``.

::

    GrpcServer(middleware=[jwt.server(key)])
    ...
    claims = jwt.claims()  # inside a method

Every failure is 401 ``UNAUTHORIZED`` in kratos' words. Two turns from kratos, both stricter: a
token that names another algorithm than the configured one is never verified with it, and nothing
of a token is looked at before its signature holds.

Source: go-kratos/kratos contrib/middleware/jwt, middleware/auth/jwt/jwt.go.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeAlias

from joserfc import jwt as tokens
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact, validate_compact
from joserfc.jwt import JWTClaimsRegistry

from kit.errors import Unauthorized
from kit.transport import Handler, Middleware, current_call

HEADER = "authorization"
ALGORITHM = "HS256"
REASON = "UNAUTHORIZED"

MISSING = "JWT token is missing"
NO_KEY = "keyFunc is missing"
INVALID = "Token is invalid"
EXPIRED = "JWT token has expired"
NOT_PARSED = "Fail to parse JWT token "
WRONG_ALGORITHM = "Wrong signing method"
NO_CALL = "Wrong context for middleware"
NO_PROVIDER = "Token provider is missing"
NO_SIGNING_KEY = "Can not get key while signing token"
NOT_SIGNED = "Can not sign token.Is the key correct?"

Claims: TypeAlias = Mapping[str, Any]
Secret: TypeAlias = str | bytes | Key
KeyFor: TypeAlias = Callable[[Mapping[str, Any]], Secret]
"""Gives the key for a token with this header, or raises."""

_claims: ContextVar[Claims | None] = ContextVar("kit_jwt_claims", default=None)


def claims() -> Claims | None:
    """What the token of the call being served says; ``None`` without one."""
    return _claims.get()


def server(
    key: Secret | KeyFor | None,
    *,
    algorithm: str = ALGORITHM,
    leeway: int = 0,
    now: Callable[[], int] = lambda: int(time.time()),
) -> Middleware:
    """Lets calls in whose token is signed and in time.

    Around a stream the first message that is read or written is checked, and each one after.

    Args:
        key: a secret (below 14 bytes it draws a warning), a public key, or a function that finds
            the key by the token's header, for example by its ``kid``; ``None`` refuses every call.
        algorithm: how tokens must be signed, such as ``HS256``, ``RS256``, ``ES256``.
        leeway: seconds that clocks may differ.
        now: seconds since the epoch.

    Raises:
        ValueError: the algorithm is unknown, or unsafe.
    """
    registry = _registry(algorithm)
    times = JWTClaimsRegistry(now=now, leeway=leeway)
    find = key if key is None or callable(key) else _always(_imported(key, algorithm))

    def verify(value: str) -> Claims:
        if find is None:
            raise _no(NO_KEY)
        try:
            token = extract_compact(value.encode(), None, registry)
            header = token.headers()
            named = header["alg"]
            known = named in JWSRegistry.algorithms
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _no(INVALID) from error
        if named != algorithm:
            raise _no(WRONG_ALGORITHM if known else INVALID)
        try:
            found = _imported(find(header), algorithm)
        except Exception as error:
            raise _no(INVALID) from error
        try:
            good = validate_compact(token, found, [algorithm], registry)
        except (JoseError, ValueError, TypeError) as error:
            raise _no(NOT_PARSED) from error
        if not good:
            raise _no(NOT_PARSED)
        return _in_time(token.payload, times)

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            if info is None:
                raise _no(NO_CALL)
            word, separator, value = info.request_headers.get(HEADER).partition(" ")
            if not separator or word.lower() != "bearer":
                raise _no(MISSING)
            token = _claims.set(verify(value))
            try:
                return await handler(request)
            finally:
                _claims.reset(token)

        return call

    return wrap


def client(
    key: Secret | Callable[[], Secret] | None,
    make: Callable[[], Claims] | None = None,
    *,
    algorithm: str = ALGORITHM,
    header: Mapping[str, Any] | None = None,
) -> Middleware:
    """Signs a token for each call.

    Args:
        key: a secret, a private key, or a function that gives one; ``None`` fails every call.
        make: gives the claims of a call; none by default. Without ``exp`` a token never expires.
        algorithm: how it is signed.
        header: more for the token's header, such as ``kid``.

    Raises:
        ValueError: the algorithm is unknown, or unsafe.
    """
    registry = _registry(algorithm)
    head = {"alg": algorithm, **(header or {})}

    def sign() -> str:
        if key is None:
            raise _no(NO_PROVIDER)
        try:
            found = _imported(key() if callable(key) else key, algorithm)
        except Exception as error:
            raise _no(NO_SIGNING_KEY) from error
        try:
            said = dict(make()) if make is not None else {}
            return tokens.encode(head, said, found, algorithms=[algorithm], registry=registry)
        except Exception as error:
            raise _no(NOT_SIGNED) from error

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            if info is None:
                raise _no(NO_CALL)
            info.request_headers.set(HEADER, f"Bearer {sign()}")
            return await handler(request)

        return call

    return wrap


def _in_time(payload: bytes | None, times: JWTClaimsRegistry) -> Claims:
    """The claims in a payload whose signature holds."""
    try:
        said = json.loads(payload or b"")
    except ValueError as error:
        raise _no(INVALID) from error
    if not isinstance(said, dict):
        raise _no(INVALID)
    try:
        times.validate(said)
    except ExpiredTokenError as error:
        raise _no(EXPIRED) from error
    except InvalidClaimError as error:
        raise _no(EXPIRED if error.claim == "nbf" else NOT_PARSED) from error
    except JoseError as error:
        raise _no(NOT_PARSED) from error
    return said


def _registry(algorithm: str) -> JWSRegistry:
    if algorithm == "none" or algorithm not in JWSRegistry.algorithms:
        names = ", ".join(sorted(JWSRegistry.algorithms.keys() - {"none"}))
        raise ValueError(f"jwt algorithm {algorithm!r}: use one of {names}")
    return JWSRegistry(algorithms=[algorithm], strict_check_header=False)


def _always(key: Key) -> KeyFor:
    return lambda _header: key


def _imported(key: Secret, algorithm: str) -> Key:
    return _parsed(key, algorithm[:2]) if isinstance(key, str | bytes) else key


@lru_cache(maxsize=64)
def _parsed(key: str | bytes, family: str) -> Key:
    """A key in its form for ``family``; reading one takes longer than using it."""
    match family:
        case "HS":
            return OctKey.import_key(key)
        case "RS" | "PS":
            return RSAKey.import_key(key)
        case "ES":
            return ECKey.import_key(key)
        case _:
            return OKPKey.import_key(key)


def _no(message: str) -> Unauthorized:
    return Unauthorized(REASON, message)
