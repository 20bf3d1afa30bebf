"""The digest names the recipe; the summary notices what the recipe cannot promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effbench.data.digest import agrees, differences, digest, summary

RECIPE = {"version": 1, "args": {"n": 100, "sigma": 1.0, "name": "x"}, "seed": 0, "inputs": {"toy/file": "ab"}}


def test_equal_recipes_have_equal_digests():
    first = digest("clustered", **RECIPE)
    assert len(first) == 16 and int(first, 16) >= 0
    again = {**RECIPE, "args": {"name": "x", "sigma": 1, "n": 100.0}}  # order and 1 against 1.0 mean nothing
    assert digest("clustered", **again) == first


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"args": {**RECIPE["args"], "n": 101}},
        {"args": {}},
        {"seed": 1},
        {"inputs": {"toy/file": "ac"}},
        {"inputs": {}},
    ],
)
def test_every_part_of_the_recipe_counts(change):
    assert digest("clustered", **{**RECIPE, **change}) != digest("clustered", **RECIPE)
    assert digest("clustered2", **RECIPE) != digest("clustered", **RECIPE)


def test_true_is_not_one_and_objects_are_no_recipe():
    assert digest("a", version=1, args={"x": True}) != digest("a", version=1, args={"x": 1})
    for value in (object(), float("nan"), float("inf"), np.float64("nan"), {1: 2}, np.zeros(2)):
        with pytest.raises(ValueError, match="cannot be part"):
            digest("a", version=1, args={"x": value})


def arrays():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(3, 2, size=(500, 8)).astype("f4"),
        "y": rng.integers(0, 10, 500),
        "s": np.array(["a", "b"]),
        "m": rng.random(9) > 0.5,
    }


def test_the_same_up_to_the_last_bits_agrees():
    one, other = arrays(), arrays()
    other["x"] = np.nextafter(other["x"], np.float32(np.inf))
    assert agrees(summary(one), summary(other), rtol=1e-5)


CHANGES = {
    "rows in another order": lambda a: {**a, "x": a["x"][::-1].copy()},
    "two rows exchanged": lambda a: {**a, "x": a["x"][[1, 0, *range(2, 500)]]},
    "one value far off": lambda a: {**a, "x": np.where(np.arange(4000).reshape(500, 8) == 7, 1e3, a["x"]).astype("f4")},
    "one not a number": lambda a: {**a, "x": np.where(np.arange(4000).reshape(500, 8) == 7, np.nan, a["x"]).astype("f4")},
    "scaled by 1.01": lambda a: {**a, "x": a["x"] * np.float32(1.01)},
    "another seed": lambda a: {**a, "x": np.random.default_rng(1).normal(3, 2, size=(500, 8)).astype("f4")},
    "another shape": lambda a: {**a, "x": a["x"].reshape(250, 16)},
    "another dtype": lambda a: {**a, "x": a["x"].astype("f8")},
    "one label changed": lambda a: {**a, "y": np.where(np.arange(500) == 3, 9 - a["y"], a["y"])},
    "another text": lambda a: {**a, "s": np.array(["a", "c"])},
    "an array missing": lambda a: {name: value for name, value in a.items() if name != "m"},
    "a mask inverted": lambda a: {**a, "m": ~a["m"]},
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_real_difference_is_named(case):
    found = differences(summary(arrays()), summary(CHANGES[case](arrays())))
    assert found and all(isinstance(text, str) for text in found)


def test_summaries_survive_json_and_odd_arrays():
    import json

    odd = {
        "empty": np.zeros((0, 3)),
        "one": np.float32(2),
        "nan": np.array([np.nan, np.inf]),
        "z": np.array([1 + 2j]),
        "t": "text",
        "i": 3,
    }
    made = summary(odd)
    assert agrees(made, json.loads(json.dumps(made, allow_nan=False)))
    with pytest.raises(ValueError, match="no summary"):
        summary({"o": np.array([object()])})


@given(st.lists(st.integers(0, 255), min_size=1, max_size=200))
def test_the_summary_is_the_arrays_own_statistics(values):
    array = np.array(values, dtype=np.uint8)
    row = summary({"x": array})["x"]
    assert np.isclose(row["mean"], array.mean()) and np.isclose(row["std"], array.std())
    assert row["quantiles"][0] == array.min() and row["quantiles"][-1] == array.max() and row["quantiles"][3] == np.median(array)


def test_chunks_change_nothing(monkeypatch):
    from effbench.data import digest as module

    whole = summary(arrays())
    monkeypatch.setattr(module, "CHUNK", 97)
    assert agrees(whole, summary(arrays()), rtol=1e-9)
