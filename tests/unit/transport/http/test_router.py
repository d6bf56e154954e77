"""Paths, templates and routes: spec §7."""

import pytest

from kit.transport.http.asgi import Message, Receive, Scope, Send
from kit.transport.http.router import Found, Moved, Route, Router
from kit.transport.http.template import clean, join, parse_template


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    message: Message = {"type": "http.response.start", "status": 200}
    await send(message)


def router(*routes: str, strict_slash: bool = True) -> Router:
    made = Router(strict_slash=strict_slash)
    for each in routes:
        verb, path = each.split(" ")
        made.add(Route(verb, parse_template(path), nothing))
    return made


def found(made: Router, verb: str, path: str) -> str:
    """The template that serves, with variables; or where to go."""
    match made.find(verb, path):
        case Found(route, variables):
            return " ".join([route.template.text, *(f"{k}={v}" for k, v in variables.items())])
        case Moved(location, _):
            return f"301 {location}"
        case _:
            return "404"


def test_the_first_route_registered_wins() -> None:
    """A variable before a literal hides it."""
    assert found(router("GET /a/{x}", "GET /a/b"), "GET", "/a/b") == "/a/{x} x=b"
    assert found(router("GET /a/b", "GET /a/{x}"), "GET", "/a/b") == "/a/b"
    assert found(router("GET /{x=**}", "GET /a/{y}"), "GET", "/a/b") == "/{x=**} x=a/b"
    assert found(router("GET /a/{y}", "GET /{x=**}"), "GET", "/a/b") == "/a/{y} y=b"


def test_another_verb_is_like_another_path() -> None:
    """There is no 405, and HEAD is not derived from GET."""
    made = router("GET /a", "* /b")
    assert found(made, "HEAD", "/a") == found(made, "POST", "/a") == "404"
    assert found(made, "LOCK", "/b") == "/b"


def test_unclean_paths_are_sent_to_the_clean_one() -> None:
    """Whether that one exists or not; never to another host."""
    made = router("GET /a/b")
    assert found(made, "GET", "//a//b") == "301 /a/b"
    assert found(made, "POST", "/x/../a/./b") == "301 /a/b"
    assert found(made, "GET", "//evil.example/%") == "301 /evil.example/%25"


def test_a_slash_too_many_or_too_few_is_redirected_to_what_is_registered() -> None:
    """Only for the verb that is registered, and only when told to."""
    made = router("GET /a", "GET /b/", "GET /c/{x}")
    assert found(made, "GET", "/a/") == "301 /a"
    assert found(made, "GET", "/b") == "301 /b/"
    assert found(made, "GET", "/c/1/") == "301 /c/1"
    assert found(made, "POST", "/a/") == "404"
    assert found(router("GET /a", strict_slash=False), "GET", "/a/") == "404"


def test_variables_of_several_segments() -> None:
    """``*`` is one segment, ``**`` any number; letters of regular expressions are letters."""
    made = router("GET /v1/{name=files/*/parts/**}:read", "GET /v1/{a.b}/c")
    assert found(made, "GET", "/v1/files/x/parts/1/2:read").endswith("name=files/x/parts/1/2")
    assert found(made, "GET", "/v1/files/x/y/parts/1:read") == "404"
    assert found(made, "GET", "/v1/files/x/parts/1:write") == "404"
    assert found(made, "GET", "/v1/é/c") == "/v1/{a.b}/c a.b=é"
    assert found(router("GET /a.b/{x}"), "GET", "/aXb/1") == "404"


@pytest.mark.parametrize("text", ["", "a", "/{", "/a}", "/{}", "/{1}", "/{a=b{c}}"])
def test_a_template_that_cannot_be_read_is_refused(text: str) -> None:
    """When it is registered, not when it is asked for."""
    with pytest.raises(ValueError, match=r"path"):
        parse_template(text)


def test_a_path_is_built_with_its_values_encoded() -> None:
    """Go's client leaves them as they are, so a slash changes the URL: spec §22 row 19."""
    values = {"id": "a/b?c=é", "name": "files/x y/parts/1"}
    assert parse_template("/v1/{id}").build(values.__getitem__) == "/v1/a%2Fb%3Fc%3D%C3%A9"
    template = parse_template("/v1/{name=files/**}")
    assert template.build(values.__getitem__) == "/v1/files/x%20y/parts/1"


def test_paths_are_cleaned_as_in_go() -> None:
    """The trailing slash of a path stays, that of a joined template is lost."""
    assert [clean(each) for each in ("/a/../../b", "/./", "/a//", "/...")] == [
        "/b", "/", "/a/", "/..."
    ]  # fmt: skip
    assert join("/v1", "users/") == "/v1/users"
