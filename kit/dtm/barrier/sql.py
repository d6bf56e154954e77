"""The barrier's primitives as SQL, for each family of databases.

Values are always bound. The only text from outside is the table's name, and that is checked.
"""
# ruff: noqa: S608 - the table's name is an identifier, checked in `Sql.__post_init__`

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from kit.dtm.barrier.errors import BarrierError
from kit.dtm.barrier.rule import InsertAbsent, ReadReason, Row

Statement: TypeAlias = tuple[str, tuple[object, ...]]
"""SQL with marks, and the values for the marks."""

Marks: TypeAlias = Callable[[int], str]
"""The mark of the n-th value, counted from 1."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?", re.ASCII)

_COLUMNS = "trans_type, gid, branch_id, op, barrier_id, reason, create_time, update_time"
_KEY = ("gid", "branch_id", "op", "barrier_id")


class Family(StrEnum):
    """Databases that understand the same statements."""

    SQLITE = "sqlite"
    POSTGRES = "postgresql"
    MYSQL = "mysql"
    MARIADB = "mariadb"

    @classmethod
    def of_mysql(cls, version: str) -> "Family":
        """Which of the two a server is that calls itself ``version``."""
        return cls.MARIADB if "mariadb" in version.lower() else cls.MYSQL


def question_mark(_: int) -> str:
    """``?``: sqlite3, aiosqlite."""
    return "?"


def percent_s(_: int) -> str:
    """``%s``: psycopg, PyMySQL and its relatives, Django."""
    return "%s"


def dollar(number: int) -> str:
    """``$1``: asyncpg."""
    return f"${number}"


def colon(number: int) -> str:
    """``:v1``: SQLAlchemy."""
    return f":v{number}"


DEFAULT_TABLES = {
    Family.SQLITE: "dtm_barrier",  # a dot would name an attached file
    Family.POSTGRES: "dtm_barrier.barrier",
    Family.MYSQL: "dtm_barrier.barrier",
    Family.MARIADB: "dtm_barrier.barrier",
}


def check_table(name: str) -> str:
    """``name``, when it is an identifier or two with a dot.

    Raises:
        BarrierError: it is something else.
    """
    if not _NAME.fullmatch(name):
        raise BarrierError(
            f"barrier table {name!r} is no name; write letters, digits and _, "
            "as in barrier or dtm_barrier.barrier"
        )
    return name


@dataclass(frozen=True, slots=True)
class Sql:
    """Statements for one family, one style of marks and one table.

    Attributes:
        table: an empty one becomes the default of the family.

    Raises:
        BarrierError: the table's name is none.
    """

    family: Family
    marks: Marks
    table: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", check_table(self.table or DEFAULT_TABLES[self.family]))

    @property
    def tells_inserted(self) -> bool:
        """Whether an insert gives back the rows that were new; else their number is all it says."""
        return self.family is not Family.MYSQL

    def inserts(self, primitive: InsertAbsent) -> list[tuple[Statement, str]]:
        """Statements for ``primitive`` with the op each is about.

        One for all rows where the database tells which of them were new: a barrier then costs one
        round trip. Elsewhere one a row.
        """
        if self.tells_inserted:
            return [(self._insert(primitive.rows), "")]
        return [(self._insert((row,)), row.op) for row in primitive.rows]

    def _insert(self, rows: Sequence[Row]) -> Statement:
        values: list[object] = []
        groups = []
        for row in rows:
            given = (
                row.trans_type, row.gid, row.branch_id, row.op, row.barrier_id, row.reason
            )  # fmt: skip
            marks = (self.marks(len(values) + n) for n in range(1, len(given) + 1))
            groups.append(f"({', '.join(marks)}, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)")
            values += given
        mysql = self.family in (Family.MYSQL, Family.MARIADB)
        text = (
            f"INSERT {'IGNORE ' if mysql else ''}INTO {self.table} ({_COLUMNS}) "
            f"VALUES {', '.join(groups)}"
            f"{'' if mysql else ' ON CONFLICT DO NOTHING'}"
            f"{' RETURNING op' if self.tells_inserted else ''}"
        )
        return text, tuple(values)

    def reason(self, primitive: ReadReason) -> Statement:
        """The statement that reads a reason.

        MySQL reads what is committed now only with a lock; a plain read shows the state in which
        the transaction first read anything.
        """
        row = primitive.row
        where = " AND ".join(f"{name} = {self.marks(n)}" for n, name in enumerate(_KEY, 1))
        lock = " LOCK IN SHARE MODE" if self.family in (Family.MYSQL, Family.MARIADB) else ""
        text = f"SELECT reason FROM {self.table} WHERE {where}{lock}"
        return text, (row.gid, row.branch_id, row.op, row.barrier_id)
