"""Which major version of kratos the peers, the log readers and the dashboards expect."""

from enum import StrEnum


class Compat(StrEnum):
    """The one word that a service sets; parts of the kit that differ take it as ``compat``."""

    V2 = "v2"
    V3 = "v3"
