"""What becomes of an exception inside a try."""

from __future__ import annotations

import asyncio
from types import TracebackType

from actors.gateway.call_session import CallSession, Try
from actors.gateway.faults import as_provider_error
from registries.contracts.errors import Fault, ParleyError, ProviderError


class TryGuard:
    """``with TryGuard(session, tried):`` swallows an error after which another try is due, else raises."""

    def __init__(self, session: CallSession, tried: Try) -> None:
        self._session = session
        self._tried = tried

    def __enter__(self) -> Try:
        return self._tried

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._session.cancelled(self._tried)
            return False
        if not isinstance(error, Exception) or self._tried.ended:
            return False
        fault = self._translated(error)
        if self._session.failed(self._tried, fault):
            return True
        final = self._session.final_error()
        raise final from (None if final is error else error)

    def _translated(self, error: Exception) -> ParleyError:
        if isinstance(error, TimeoutError):
            if self._session.out_of_time:
                return self._session.out_of_time_error(self._tried.begun)
            return ProviderError(
                f"model {self._tried.spec.key!r} did not answer within {self._tried.timeout_s:.1f} s",
                Fault.TIMEOUT,
                self._tried.spec.provider,
                self._tried.spec.key,
            )
        return as_provider_error(error, self._tried.spec)
