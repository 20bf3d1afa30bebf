"""Numbers carry three digits and one prefix; foreign text becomes one printable line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench.publish import format as fmt

UNITS = ["s", "B", "FLOP", "1", "", "1/s", "queries/s", "J", "%", "W", "×"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, "s", "1.23 ms"),
        (3.4e-8, "s", "34.0 ns"),
        (300, "s", "5.00 min"),
        (10800.0, "s", "3.00 h"),
        (4.5e9, "FLOP", "4.50 GFLOP"),
        (0, "FLOP", "0 FLOP"),
        (12.3 * 2**20, "B", "12.3 MiB"),
        (17, "B", "17 B"),
        (0.9512, "1", "0.9512"),
        (65610, "1", "65610"),
        (12345.6, "1/s", "12.3 k/s"),
        (2.5e6, "queries/s", "2.50 Mqueries/s"),
        (0.5, "J", "500 mJ"),
        (None, "s", "-"),
        (math.nan, "s", "-"),
        (math.inf, "s", "-"),
    ],
)
def test_number(value, unit, text):
    assert fmt.number(value, unit) == text


def test_interval_shares_the_scale_of_its_value():
    assert fmt.interval({"value": 0.00123, "unit": "s", "low": 0.0009, "high": 0.0014}) == "1.23 ms [0.90, 1.40]"
    assert fmt.interval({"value": 1, "unit": "1", "low": 0.99, "high": 1}) == "1.000 [0.990, 1.000]"
    assert fmt.interval({"value": None, "unit": "s", "reason": "no sensor"}) == "-"
    assert fmt.interval({"value": 2.0, "unit": "s"}) == "2.00 s"


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(UNITS))
def test_number_never_fails_and_stays_short(value, unit):
    assert 0 < len(fmt.number(value, unit)) < 330
    if 1e-9 < abs(value) < 1e15:
        assert len(fmt.number(value, unit)) <= 24


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-8, 1e14), st.sampled_from(["s", "B", "FLOP", "1/s", "J"]))
def test_number_is_within_half_a_percent(value, unit):
    factor, _ = fmt.scale(value, unit)
    assert abs(float(fmt.number(value, unit).split()[0]) * factor - value) <= 0.0051 * value


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_clean_is_printable(text):
    shown = fmt.clean(text)
    assert len(shown.encode("utf-8")) >= bool(text)
    assert not any(ord(char) < 32 or ord(char) == 127 or ord(char) in fmt.HIDDEN for char in shown)


def test_clean_makes_terminal_codes_and_direction_marks_visible():
    assert fmt.clean("a\x1b[31mb") == "a\u241b[31mb"
    assert fmt.clean("a\u202eb\ud800") == "a\\u202eb\\ud800"
    assert len(fmt.clean("x" * 10_000)) == 400
    assert fmt.clean({"b": [1]}) == '{"b": [1]}'


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-8, 1e12), st.floats(5, 1e6), st.sampled_from(["s", "B", "FLOP", "1/s", ""]))
def test_ticks_lie_near_the_axis_and_are_few(low, span, unit):
    places, texts = fmt.ticks(low, low * span, unit)
    assert 1 <= len(places) == len(texts) <= 9
    assert all(low / 1.7 <= place <= low * span * 1.7 for place in places)
    assert len(set(texts)) == len(texts)
