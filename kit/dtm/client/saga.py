"""Sagas: steps one after the other, and the compensation of each when a later one says no.

Source: dtm-labs/dtm client/dtmcli/trans_saga.go, client/dtmgrpc/saga.go.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Self

from kit.dtm.client.base import GlobalTransaction
from kit.dtm.client.checks import check_gid, check_url
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import InvalidCall
from kit.dtm.client.messages import Operation, TransRequest, go_json
from kit.dtm.client.payloads import Payload, payload_for
from kit.dtm.core.model import Options
from kit.dtm.wire import TransType


class Saga(GlobalTransaction):
    """One saga: add its steps, then :meth:`submit` it.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.
    """

    trans_type = TransType.SAGA

    def __init__(self, client: DtmClient, gid: str = "", options: Options | None = None) -> None:
        super().__init__(client, gid, options)
        self._steps: list[dict[str, str]] = []
        self._payloads: list[bytes] = []
        self._orders: dict[int, list[int]] = {}

    def add(self, action: str, compensate: str = "", payload: Payload = None) -> Self:
        """Append the step that calls ``action``, and ``compensate`` to undo it.

        Args:
            action: the URL of the branch.
            compensate: the URL that undoes it; empty when there is nothing to undo.
            payload: what both are given; see :mod:`kit.dtm.client.payloads`.

        Raises:
            InvalidCall: ``action`` is empty, or one of them cannot be a branch here.
            PayloadError: ``payload`` cannot be encoded.
        """
        protocol, number = self.client.protocol, len(self._steps) + 1
        check_url(f"action of step {number}", action, protocol)
        check_url(f"compensate of step {number}", compensate, protocol, empty=True)
        self._payloads.append(payload_for(action, payload, protocol, f"payload of step {action!r}"))
        self._steps.append({"action": action, "compensate": compensate})
        return self

    def add_branch_order(self, step: int, predecessors: Iterable[int]) -> Self:
        """Have ``step`` wait for ``predecessors``; all are indexes from 0.

        Only a :meth:`concurrent` saga needs it.

        Raises:
            InvalidCall: ``step`` would wait for itself or a later one.
        """
        before = list(predecessors)
        if step < 0 or any(not 0 <= other < step for other in before):
            raise InvalidCall(
                f"predecessors of step {step}: {before} are not all from 0 to {step - 1}; a step "
                "waits for smaller indexes only"
            )
        self._orders[step] = before
        return self

    def concurrent(self) -> Self:
        """Have all steps called at once, but for what :meth:`add_branch_order` says."""
        self.options = replace(self.options, concurrent=True)
        return self

    async def submit(self) -> None:
        """Hand the saga over: its steps all happen, or those that did are compensated.

        Raises:
            Failure: the coordinator refuses; or, with ``wait_result``, the saga failed, or has not
                succeeded yet: ``client.query`` tells which.
            DtmUnavailable: whether it was accepted is unknown; submit again with the same gid.
            InvalidCall: an order names a step that is not there.
        """
        await self.send(Operation.SUBMIT)

    def request(self) -> TransRequest:
        """What is sent."""
        if self._orders and (last := max(self._orders)) >= len(self._steps):
            raise InvalidCall(
                f"order of step {last}: there are {len(self._steps)} steps, counted from 0; add "
                "the step, or correct the index"
            )
        custom = ""
        if self.options.concurrent:
            custom = go_json({"concurrent": True, "orders": _by_text(self._orders)})
        return TransRequest(
            check_gid(self.gid),
            self.trans_type,
            self.sent_options(),
            steps=tuple(self._steps),
            payloads=tuple(self._payloads),
            custom_data=custom,
        )


def _by_text(orders: dict[int, list[int]]) -> dict[str, list[int]]:
    return {str(step): before for step, before in orders.items()}
