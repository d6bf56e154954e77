"""How branch URLs are split."""

import pytest

from kit.dtm.driver.direct import DirectDriver
from kit.dtm.driver.kratos import KratosDriver


def test_the_default_driver_says_in_the_words_of_dtm_what_a_url_lacks() -> None:
    """dtmdriver driver.go, ParseServerMethod."""
    with pytest.raises(ValueError) as no_slash:
        DirectDriver().parse("localhost:9000")
    assert str(no_slash.value) == "bad url: 'localhost:9000'. no '/' found"
    with pytest.raises(ValueError) as scheme:
        DirectDriver().parse("discovery:///busi/a.B/C")
    assert str(scheme.value) == (
        "call dtmdriver.Use() before you use custom scheme for 'discovery:///busi/a.B/C'"
    )


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("localhost:9000/a.B/C", "localhost:9000"),
        ("discovery:///busi/a.B/C", "discovery:///busi"),
        ("discovery://127.0.0.1:2379/busi/a.B/C", "discovery://127.0.0.1:2379/busi"),
        ("direct:///127.0.0.1:9000/a.B/C", "direct:///127.0.0.1:9000"),
    ],
)
def test_the_kratos_driver_splits_after_the_first_path_element(url: str, target: str) -> None:
    assert KratosDriver().parse(url) == (target, "/a.B/C")
