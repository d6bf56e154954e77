"""The caller's trace travels to the coordinator and to the branches."""

from collections.abc import Iterator

import pytest
from opentelemetry import context, trace

from kit.dtm.client import DtmClient, Msg, Options
from kit.dtm.client.tracing import trace_headers

PARENT = "00-0000000000000000000000000000abcd-00000000000000ef-01"


@pytest.fixture
def span() -> Iterator[None]:
    """A span that is recorded elsewhere."""
    spanned = trace.SpanContext(0xABCD, 0xEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(spanned)))
    yield
    context.detach(token)


@pytest.mark.usefixtures("span")
def test_branches_are_called_with_the_trace_of_who_submitted() -> None:
    """As branch headers, which the coordinator keeps; those of the caller come first."""
    assert trace_headers() == {"traceparent": PARENT}
    client = DtmClient("localhost:36790")
    sent = Msg(client, "g", Options(branch_headers={"token": "t"})).request().options
    assert sent.branch_headers == {"traceparent": PARENT, "token": "t"}
    own = Msg(client, "g", Options(branch_headers={"traceparent": "mine"})).request().options
    assert own.branch_headers == {"traceparent": "mine"}


def test_without_a_trace_nothing_is_added() -> None:
    """The bytes are Go's."""
    assert trace_headers() == {}
    assert Msg(DtmClient("localhost:36790"), "g").request().options.branch_headers == {}
