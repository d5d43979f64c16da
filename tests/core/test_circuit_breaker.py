"""Which APIs of which AppIds are served after one has refused."""

from watchdog.core.circuit_breaker import Breaker
from watchdog.core.model import Api

A, B, C = Api(1, "asr"), Api(1, "agent"), Api(2, "asr")


def test_a_refused_app_waits_and_is_probed_once() -> None:
    breaker = Breaker(30)
    assert breaker.trip(A, 100)
    assert not breaker.trip(A, 101), "no news"
    assert breaker.unserved() == {A}
    assert breaker.probe(130) is None
    assert breaker.probe(131) == A
    assert breaker.probe(132) is None, "one probe at a time"
    assert breaker.unserved() == {A}
    assert breaker.close(A)
    assert breaker.unserved() == set()
    assert not breaker.close(A), "no news"


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    breaker = Breaker(30)
    breaker.trip(A, 0)
    assert breaker.probe(30) == A
    assert breaker.probe(60) == A


def test_a_probe_that_came_to_nothing_is_followed_by_another_later() -> None:
    breaker = Breaker(30)
    breaker.trip(A, 0)
    assert breaker.probe(30) == A
    breaker.postpone(A, 35)
    assert breaker.probe(64) is None
    assert breaker.probe(65) == A


def test_apps_are_kept_apart() -> None:
    breaker = Breaker(30)
    breaker.trip(A, 0)
    breaker.trip(B, 10)
    breaker.postpone(C, 0)
    assert breaker.unserved() == {A, B}
    assert breaker.probe(35) == A
    assert breaker.probe(41) == B
