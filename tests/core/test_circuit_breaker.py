"""Which AppIds are served after the vendor has refused one."""

from watchdog.core.circuit_breaker import Breaker


def test_a_refused_app_waits_and_is_probed_once() -> None:
    breaker = Breaker(30)
    assert breaker.trip(1, 100)
    assert not breaker.trip(1, 101), "no news"
    assert breaker.unserved() == {1}
    assert breaker.probe(130) is None
    assert breaker.probe(131) == 1
    assert breaker.probe(132) is None, "one probe at a time"
    assert breaker.unserved() == {1}
    assert breaker.close(1)
    assert breaker.unserved() == set()
    assert not breaker.close(1), "no news"


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    breaker = Breaker(30)
    breaker.trip(1, 0)
    assert breaker.probe(30) == 1
    assert breaker.probe(60) == 1


def test_a_probe_that_came_to_nothing_is_followed_by_another_later() -> None:
    breaker = Breaker(30)
    breaker.trip(1, 0)
    assert breaker.probe(30) == 1
    breaker.postpone(1, 35)
    assert breaker.probe(64) is None
    assert breaker.probe(65) == 1


def test_apps_are_kept_apart() -> None:
    breaker = Breaker(30)
    breaker.trip(1, 0)
    breaker.trip(2, 10)
    breaker.postpone(3, 0)
    assert breaker.unserved() == {1, 2}
    assert breaker.probe(35) == 1
    assert breaker.probe(41) == 2
