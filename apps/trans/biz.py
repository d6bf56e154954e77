"""What the transfer service does, and what it refuses."""

from kit import log
from kit.dtm.errors import Failure


class Accounts:
    """Accounts that are told in the log only, as in the original sample."""

    async def transfer_out(self, amount: int, user_id: int) -> None:
        """Take ``amount`` cents from an account.

        Raises:
            Failure: the amount or the account makes no sense.
        """
        _check(amount, user_id)
        log.plain("transfer out %d cents from %d", amount, user_id)

    async def transfer_in(self, amount: int, user_id: int) -> None:
        """Put ``amount`` cents into an account.

        Raises:
            Failure: the amount or the account makes no sense.
        """
        _check(amount, user_id)
        log.plain("transfer in %d cents to %d", amount, user_id)


def _check(amount: int, user_id: int) -> None:
    # Not INVALID_ARGUMENT, which to a coordinator is an unknown result: it would ask for ever.
    # Failure is the definite no that rolls a saga or tcc back.
    if amount <= 0:
        raise Failure(f"Amount: {amount} is not a number of cents of at least 1")
    if user_id <= 0:
        raise Failure(f"UserID: {user_id} is not an account; accounts are numbered from 1")
