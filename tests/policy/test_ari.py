"""What a CA advises about a renewal, and when it is asked."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.acme.resources import RenewalInfo
from nginx_acme.policy import Life, Word, ari, when_due
from nginx_acme.policy.ari import Advice

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LIFE = Life(NOW - 30 * DAY, NOW + 60 * DAY)
"""Of 90 days, and 30 of them are over; the last sixth begins in 45."""


def window(start: timedelta, end: timedelta, retry_after: timedelta | None = None) -> RenewalInfo:
    """An answer, as seen from now."""
    later = None if retry_after is None else NOW + retry_after
    return RenewalInfo(NOW + start, NOW + end, retry_after=later)


def heard(info: RenewalInfo, before: Advice | None = None, dice: float = 0.5) -> Advice:
    """What is noted of an answer that comes now."""
    return ari.heard(info, before, LIFE, NOW, dice)


@pytest.mark.parametrize(
    ("info", "dice", "expected"),
    [
        pytest.param(window(28 * DAY, 32 * DAY), 0.0, 28 * DAY, id="its first moment"),
        pytest.param(window(28 * DAY, 32 * DAY), 0.5, 29.8 * DAY, id="in the middle"),
        pytest.param(window(28 * DAY, 32 * DAY), 0.999999, 31.6 * DAY, id="not in its last tenth"),
        pytest.param(window(-2 * HOUR, -1 * HOUR), 0.0, -2 * HOUR, id="moved into the past"),
        pytest.param(window(-300 * DAY, -299 * DAY), 0.0, -300 * DAY, id="before its beginning"),
        pytest.param(window(40 * DAY, 60 * DAY), 1.0, 45 * DAY, id="reaches into the last sixth"),
        pytest.param(window(46 * DAY, 47 * DAY), 0.0, None, id="within the last sixth"),
        pytest.param(window(70 * DAY, 71 * DAY), 0.0, None, id="after its end"),
    ],
)
def test_drawn(info: RenewalInfo, dice: float, expected: timedelta | None) -> None:
    """A moment is drawn from the window, as far as that isn't too late."""
    advice = heard(info, dice=dice)
    assert (advice.start, advice.end) == (info.start, info.end)
    assert (advice.problem is None) is (expected is not None)
    moment = None if expected is None else NOW + expected
    assert advice.moment == moment or (
        advice.moment and moment and abs(advice.moment - moment) < MINUTE
    )


@pytest.mark.parametrize(
    ("info", "kept"),
    [
        pytest.param(window(28 * DAY, 32 * DAY), True, id="the same window"),
        pytest.param(window(29 * DAY, 33 * DAY), True, id="a little later"),
        pytest.param(window(29.9 * DAY, 30.1 * DAY), True, id="a shorter one"),
        pytest.param(window(31 * DAY, 35 * DAY), False, id="later"),
        pytest.param(window(26 * DAY, 30 * DAY), False, id="its end is outside"),
        pytest.param(window(-HOUR, -MINUTE), False, id="moved into the past"),
    ],
)
def test_drawn_once(info: RenewalInfo, kept: bool) -> None:  # noqa: FBT001
    """It is drawn again only where it lies outside of the window as it is now."""
    before = replace(heard(window(28 * DAY, 32 * DAY)), moment=NOW + 30 * DAY)
    advice = heard(info, before, dice=0.25)
    assert (advice.moment == before.moment) is kept
    assert advice.moment is not None
    assert info.start <= advice.moment < info.end


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(6 * HOUR, 6 * HOUR, id="as it says"),
        pytest.param(timedelta(0), MINUTE, id="not within a minute"),
        pytest.param(-HOUR, MINUTE, id="long ago"),
        pytest.param(30 * DAY, DAY, id="once a day at least"),
        pytest.param(None, 6 * HOUR, id="it doesn't say"),
    ],
)
def test_ask_again(said: timedelta | None, expected: timedelta) -> None:
    """RFC 9773 §4.3.2: Retry-After says when to ask again, within bounds."""
    assert heard(window(28 * DAY, 32 * DAY, said)).ask == NOW + expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(None, 6 * HOUR, id="six hours"),
        pytest.param(MINUTE, 6 * HOUR, id="not earlier, whatever it says"),
        pytest.param(12 * HOUR, 12 * HOUR, id="later, if it says so"),
        pytest.param(30 * DAY, DAY, id="once a day at least"),
    ],
)
def test_after_an_error(said: timedelta | None, expected: timedelta) -> None:
    """RFC 9773 §4.3.3: after six hours; what was advised before still holds."""
    before = heard(window(28 * DAY, 32 * DAY))
    later = None if said is None else NOW + said
    advice = ari.unheard(before, "no route", NOW, later)
    assert advice == replace(before, ask=NOW + expected, problem="no route")
    assert ari.unheard(None, "no route", NOW, later) == Advice(
        NOW, NOW + expected, problem="no route"
    )
    assert heard(window(28 * DAY, 32 * DAY), advice).problem is None


@pytest.mark.parametrize(
    ("advice", "now", "expected"),
    [
        pytest.param(None, NOW, True, id="never asked"),
        pytest.param(ari.first(NOW), NOW, False, id="just issued"),
        pytest.param(ari.first(NOW), NOW + HOUR, True, id="an hour later"),
        pytest.param(ari.not_given(NOW), NOW + 23 * HOUR, False, id="a CA without advice"),
        pytest.param(ari.not_given(NOW), NOW + DAY, True, id="perhaps it learned to"),
        pytest.param(None, LIFE.not_after, False, id="expired"),
        pytest.param(ari.first(NOW), LIFE.not_after + DAY, False, id="long over"),
    ],
)
def test_is_to_be_asked(advice: Advice | None, now: datetime, expected: bool) -> None:  # noqa: FBT001
    """Nobody is asked before it is time, nor after the end (RFC 9773 §4.3)."""
    assert ari.is_to_be_asked(advice, LIFE, now) is expected


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        pytest.param(6 * HOUR, 7 * HOUR, id="an hour later"),
        pytest.param(DAY, 25 * HOUR, id="an hour at most"),
        pytest.param(6 * MINUTE, 7 * MINUTE, id="a short wait stays short"),
    ],
)
def test_next_look(wait: timedelta, expected: timedelta) -> None:
    """A run for the sake of asking comes later than it might, so that it can ask about more."""
    assert ari.next_look(Advice(NOW, NOW + wait), LIFE) == NOW + expected


def test_no_look_after_the_end() -> None:
    """What expires first is not looked at again for that."""
    asked = LIFE.not_after - HOUR
    assert ari.next_look(Advice(asked, asked + 6 * HOUR), LIFE) is None


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        pytest.param(Advice(NOW, NOW + 6 * HOUR), True, id="nothing advised"),
        pytest.param(Advice(NOW + MINUTE, NOW + DAY), True, id="a clock set back a minute"),
        pytest.param(Advice(NOW + DAY, NOW + DAY), False, id="asked tomorrow"),
        pytest.param(Advice(NOW, NOW + 9 * DAY), False, id="to be asked next week"),
        pytest.param(Advice(NOW, NOW + HOUR, moment=NOW + 46 * DAY), False, id="in the last sixth"),
        pytest.param(Advice(NOW, NOW + HOUR, moment=NOW + 45 * DAY), True, id="just before it"),
    ],
)
def test_is_credible(advice: Advice, expected: bool) -> None:  # noqa: FBT001
    """What a wrong clock or a hand has noted is not believed."""
    assert ari.is_credible(advice, LIFE, NOW) is expected


TICK = timedelta(microseconds=1)
"""What a part of a time may be rounded by."""
MOMENTS = st.timedeltas(-400 * DAY, 400 * DAY)
LENGTHS = st.timedeltas(HOUR, 400 * DAY)


@given(LENGTHS, MOMENTS, LENGTHS, st.floats(0, 1, exclude_max=True))
def test_whatever_the_ca_says(
    length: timedelta, start: timedelta, width: timedelta, dice: float
) -> None:
    """A renewal is in the window where that makes sense, and in any case within the bounds."""
    life = Life(NOW, NOW + length)
    info = RenewalInfo(NOW + start, NOW + start + width)
    advice = ari.heard(info, None, life, NOW, dice)
    due = when_due(life, advised=advice.moment)
    assert length / 100 - TICK <= due.moment - life.not_before
    assert length / 6 - TICK <= life.not_after - due.moment
    if advice.moment is None:
        assert due.word is Word.LIFETIME
    else:
        assert info.start <= advice.moment < info.end
        assert due.moment >= advice.moment
    assert ari.heard(info, advice, life, NOW + HOUR, 1 - dice / 2).moment == advice.moment


@given(st.floats(0, 1, exclude_max=True))
def test_order_inside_of_three_hours(dice: float) -> None:
    """A certificate of 160 hours has a window of three, and there is time left for its order."""
    life = Life(NOW, NOW + 160 * HOUR)
    info = RenewalInfo(NOW + 78.4 * HOUR, NOW + 81.6 * HOUR)
    moment = when_due(life, advised=ari.heard(info, None, life, NOW, dice).moment).moment
    assert info.start <= moment <= info.end - 19 * MINUTE


@pytest.mark.parametrize("seed", range(5))
def test_years_of_short_lives(seed: int) -> None:
    """By nothing but the times that it is told to look again, every order is made in its window.

    The CA is there half of the time, and moves one window in ten.
    """
    chance, now = random.Random(seed), NOW  # noqa: S311 - nobody guesses it
    orders = 0
    while now < NOW + 730 * DAY:
        life, advice = Life(now, now + 160 * HOUR), ari.first(now)
        start, width = now + 78.4 * HOUR, 3.2 * HOUR
        due = when_due(life, advised=advice.moment)
        while now < due.moment:
            if ari.is_to_be_asked(advice, life, now) and chance.random() < 0.5:
                start -= 20 * HOUR * (chance.random() < 0.1)
                again = now + timedelta(hours=chance.uniform(4.8, 7.2))
                info = RenewalInfo(start, start + width, retry_after=again)
                advice = ari.heard(info, advice, life, now, chance.random())
            elif ari.is_to_be_asked(advice, life, now):
                advice = ari.unheard(advice, "no route", now, None)
            due = when_due(life, advised=advice.moment)
            look = ari.next_look(advice, life)
            assert look is not None
            now = max(now, min(due.moment, look))
        assert advice.start is None or advice.start <= due.moment <= advice.start + width
        assert now in {due.moment, advice.asked}, (
            "at that moment, or when it was told of a past one"
        )
        orders += 1
    assert orders > 100


def test_one_run_an_hour_at_most() -> None:
    """Hundreds of certificates, each with a time of its own, are asked about in few runs."""
    chance = random.Random(1)  # noqa: S311 - nobody guesses it
    asked = [NOW - chance.random() * 6 * HOUR for _ in range(300)]
    advices = [Advice(moment, moment + 6 * HOUR) for moment in asked]
    now, runs, questions = NOW, 0, 0
    while now < NOW + 3 * DAY:
        now = min(look for advice in advices if (look := ari.next_look(advice, LIFE)))
        runs += 1
        for number, advice in enumerate(advices):
            if ari.is_to_be_asked(advice, LIFE, now):
                assert now >= advice.ask
                questions += 1
                again = now + timedelta(hours=chance.uniform(4.8, 7.2))
                info = RenewalInfo(NOW + 20 * DAY, NOW + 21 * DAY, retry_after=again)
                advices[number] = ari.heard(info, advice, LIFE, now, chance.random())
    assert runs <= 3 * 30
    assert 3 * 300 * 3 < questions < 3 * 300 * 5
