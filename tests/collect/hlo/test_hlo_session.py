"""Which process compiles and measures what, with processes of the test's own. Needs no JAX."""

import pathlib
from typing import Any

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.hlo import session as session_lib
from tpugraphs_rank.collect.hlo import worker

_EVENTS: list[tuple[str, str, str]] = []


class _Worker:
  """Records what it is sent: its kind, the request, and the configuration."""

  ready: dict[str, Any] = {"status": "ready"}
  helper_fails = False

  def __init__(self, folder: pathlib.Path, variables: Any, *arguments: str) -> None:
    self._helps = "--helper" in arguments
    self._answers = [dict({"status": "ready"} if self._helps else _Worker.ready)]

  def send(self, request: dict[str, Any]) -> None:
    layouts = request["layouts"]
    compiled = "compiled" in request
    _EVENTS.append(("helper" if self._helps else "measuring",
                    request["do"] + (" compiled" if compiled else ""), layouts))
    answer: dict[str, Any] = {"status": "ok", "optimised_hlo": layouts}
    if self._helps and request["do"] == "compile":
      answer |= {"file": f"{layouts}.bin"}
      if layouts == "bad":
        answer = {"status": "not_compiled", "reason": "no"}
      if _Worker.helper_fails:
        answer = {"status": "crashed", "reason": "gone"}
    if request["do"] == "measure":
      answer |= {"seconds": 1.0, "default_seconds": 2.0}
      if layouts == "crash":
        answer = {"status": "crashed", "reason": "gone"}
    self._answers.append(answer)

  def answer(self, limit_s: float) -> dict[str, Any]:
    return self._answers.pop(0)

  def end(self) -> None:
    _EVENTS.append(("helper" if self._helps else "measuring", "end", ""))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(worker, "Worker", _Worker)
  monkeypatch.setattr(flags, "usable_cores", lambda: [0, 1])
  monkeypatch.setattr(_Worker, "helper_fails", False)
  monkeypatch.setattr(_Worker, "ready", {"status": "ready"})
  _EVENTS.clear()


def test_a_helper_compiles_what_is_asked_next(tmp_path: pathlib.Path) -> None:
  with session_lib.Session(tmp_path, "f") as session:
    assert session.helpers == 1
    for layouts, ahead in (("a", ["b", "x"]), ("b", ["c"]), ("c", ["bad"]), ("bad", [])):
      answer = session.ask("measure", layouts, ahead)
      assert (answer["status"] == "ok") == (layouts != "bad")
  assert [event for event in _EVENTS if event[1] != "end"] == [
      ("helper", "compile", "b"), ("measuring", "compile", "a"), ("measuring", "measure", "a"),
      ("measuring", "measure compiled", "b"),  # Nothing compiles for the one after it.
      ("helper", "compile", "bad"), ("measuring", "compile", "c"), ("measuring", "measure", "c")]
  assert [event[1] for event in _EVENTS].count("end") == 2


def test_a_fresh_process_compiles_the_default_while_a_helper_compiles_the_other(tmp_path) -> None:
  with session_lib.Session(tmp_path, "f") as session:
    session.ask("measure", "a", ["a"])
  assert _EVENTS[:2] == [("helper", "compile", "a"), ("measuring", "measure compiled", "a")]


def test_without_helpers_the_measuring_process_compiles(tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(flags, "usable_cores", lambda: [0])
  with session_lib.Session(tmp_path, "f") as session:
    session.ask("measure", "a", ["b"])
    session.ask("measure", "b", [])
  assert [event[:2] for event in _EVENTS] == [
      ("measuring", "measure"), ("measuring", "measure"), ("measuring", "end")]


def test_helpers_that_fail_are_given_up(tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(_Worker, "helper_fails", True)
  with session_lib.Session(tmp_path, "f") as session:
    for number in range(5):
      assert session.ask("measure", str(number), [str(number + 1)])["status"] == "ok"
  assert sum(event == ("helper", "compile", str(number)) for number in range(9)
             for event in _EVENTS) == 3


def test_a_crash_costs_one_configuration(tmp_path) -> None:
  with session_lib.Session(tmp_path, "f") as session:
    assert session.ask("measure", "crash")["status"] == "crashed"
    assert session.ask("measure", "a")["status"] == "ok"


def test_a_default_that_cannot_be_measured_is_an_error(tmp_path, monkeypatch) -> None:
  for answer, message in (({"status": "failed", "reason": "f: no numbers"}, "f: no numbers"),
                          ({"status": "crashed", "reason": "gone"}, "f: the default .* gone")):
    monkeypatch.setattr(_Worker, "ready", answer)
    with (pytest.raises(errors.DataError, match=message),
          session_lib.Session(tmp_path, "f") as session):
      session.ask("measure", "a", ["b"])
