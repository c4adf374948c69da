"""Shapes of JSON values: what fits, and messages that name the place."""

import json

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import json_shapes

NAME = json_shapes.NAME


def _problem(value, shape):
  """The part of the message between the source and the remedy; "" if the value fits."""
  try:
    json_shapes.check(value, shape, "x.json", "delete it")
  except errors.DataError as error:
    text = str(error)
    assert text.startswith("x.json is damaged: ") and text.endswith("; delete it")
    return text.removeprefix("x.json is damaged: ").removesuffix("; delete it")
  return ""


@pytest.mark.parametrize("value, shape", [
    (1, int), (-3, int), (1, float), (0.5, float), ("", str), (True, bool), ([], [int]),
    ([1, 2], [int]), ({}, dict), (None, None), (None, (None, int)), (7, (None, int)), ("a.b", NAME),
    ({"a": 1, "more": []}, {"a": int}), ({}, {"a?": int}), ({"x": 1, "y": 2}, {str: int}),
    ({"x": [{"k": None}]}, {NAME: [{"k": object}]})])
def test_values_that_fit(value, shape):
  assert _problem(value, shape) == ""


@pytest.mark.parametrize("value, shape, expected", [
    (True, int, "it is True; expected a whole number"),
    (1.5, int, "it is 1.5; expected a whole number"),
    (2**63, int, f"it is {2**63}; expected a whole number"),
    (10**400, float, "expected a number"), ("1", float, "it is '1'; expected a number"),
    ([1, None], [int], "[1] is None; expected a whole number"),
    ({"a": {"b": [{"c": "x"}]}}, {"a": {"b": [{"c": int}]}},
     "a.b[0].c is 'x'; expected a whole number"),
    ({"a": {}}, {"a": {"b": int}}, "a lacks the key 'b'; expected 'b'"),
    ([], dict, "it is []; expected an object"), ({}, [int], "it is {}; expected a list"),
    (3, (str, None), "it is 3; expected"),
    ({"a": {"b": 3}}, {"a": (None, {"b": str})}, "a.b is 3; expected text"),
    *((name, NAME, "expected a file's name") for name in (
        "", ".", "..", "a/b", "/a", "a\0", "../../a", "a" * 300, 3, None)),
    ({"../x": 1}, {NAME: int}, "a key of it is '../x'; expected a file's name")])
def test_values_that_do_not(value, shape, expected):
  assert expected in _problem(value, shape)


def test_a_message_is_printable(tmp_path):
  path = tmp_path / "x.json"
  path.write_text(json.dumps({"a\x1b[31m": {"b\n": "\x1b"}}))
  with pytest.raises(errors.DataError) as caught:
    json_shapes.read(path, {str: {str: int}}, "delete it")
  assert str(caught.value).isprintable()
