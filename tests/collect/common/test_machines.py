"""Measurements of several machines: their folders, and their assembly."""

from collections.abc import Callable, Sequence
import math
import pathlib
from typing import Any

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import claims as claims_lib
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol

PLAN = {"seed": 0, "programs": [{"stem": stem} for stem in "abcde"]}


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
  """The collector's packages need not be installed."""
  monkeypatch.setattr(plans, "package_versions", lambda: {"jax": "1"})


def _member(folder: pathlib.Path, name: str, **changes: Any):
  return machines.member(folder, {**PLAN, **changes}, ("seed",), "programs",
                         machines.Sharing(name))


def _record(folder: pathlib.Path, machine: str, stem: str, number: int, times: Sequence[float],
            **more: Any) -> None:
  files.write_json(plans.record_path(folder / machines.FOLDER / machine, stem, number), {
      "stem": stem, "pass": number, "configurations": [
          {"layouts": f"configuration {place}", "status": "ok" if time else "mismatch",
           **({"runtime_ns": time} if time else {})} for place, time in enumerate(times)], **more})


def test_machines_agree_on_settings_and_processor(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  with _member(tmp_path, "one") as folder:
    assert files.read_json(folder / "plan.json") == PLAN
    with pytest.raises(errors.RunDirectoryError, match="in use by process"), (
        _member(tmp_path, "one")):
      pass
  with pytest.raises(errors.RunDirectoryError, match="seed: stored 0, requested 1"), (
      _member(tmp_path, "two", seed=1)):
    pass
  monkeypatch.setattr(protocol, "cpu_model", lambda: "another processor")
  with pytest.raises(errors.RunDirectoryError, match="(?s)cpu: .*another --output"), (
      _member(tmp_path, "two")):
    pass


def test_work_is_shared_and_common_programs_are_measured_by_all(tmp_path: pathlib.Path) -> None:
  measured: dict[str, list[str]] = {"one": [], "two": []}

  def work_of(name: str, most: int) -> Callable[..., bool]:
    def work(take: Callable[[int], list[str]], finish: Callable[[str], None]) -> bool:
      while len(measured[name]) < most and (stems := take(1)):
        measured[name] += stems
        finish(*stems)
      return True
    return work

  stems = list("abcde")
  for name, most in (("one", 3), ("two", 9)):
    sharing = machines.Sharing(name, common_programs=1)
    assert machines.measure(tmp_path, stems, sharing, work_of(name, most),
                            measured[name].extend) == []
  assert measured == {"one": ["c", "a", "b"], "two": ["c", "d", "e"]}


def test_waiting_takes_over_the_work_of_a_machine_that_died(tmp_path: pathlib.Path) -> None:
  (tmp_path / "claims").mkdir()
  dead = claims_lib.Claims(tmp_path / "claims", "dead")
  dead.take(["a"])
  measured: list[str] = []

  def work(take: Callable[[int], list[str]], finish: Callable[[str], None]) -> bool:
    for stem in take(5):
      measured.append(stem)
      finish(stem)
    return True

  sharing = machines.Sharing("one", 0, stale_s=0.3)
  assert machines.measure(tmp_path, ["a", "b"], sharing, work, lambda stems: None) == ["a"]
  waiting = machines.Sharing("one", 0, stale_s=0.3, wait=True)
  assert machines.measure(tmp_path, ["a", "b"], waiting, work, lambda stems: None) == []
  assert measured == ["b", "a"]


def test_merging_names_machines_and_compares_them(tmp_path: pathlib.Path) -> None:
  for name in ("one", "two"):
    with _member(tmp_path, name):
      pass
  # Program a on both machines: means 10, 20, 30, 40 and 22, 66, 44, 88; configuration 4 on one.
  _record(tmp_path, "one", "a", 1, [10, 20, 30, 41, 50])
  _record(tmp_path, "one", "a", 2, [10, 20, 30, 39, 50])
  _record(tmp_path, "two", "a", 1, [22, 66, 44, 88, 0])
  _record(tmp_path, "two", "a", 2, [22, 66, 44, 88, 99])
  _record(tmp_path, "two", "b", 1, [1, 2])
  _record(tmp_path, "two", "b", 2, [1, 2])
  _record(tmp_path, "two", "c", 1, [1, 2])  # Not whole.
  _record(tmp_path, "one", "d", 1, [], failed="no")
  _record(tmp_path, "two", "d", 1, [1, 2])
  _record(tmp_path, "two", "d", 2, [1, 2])
  report = machines.merge(tmp_path, passes=2)
  assert {name: about["programs"] for name, about in report["machines"].items()} == {
      "one": 1, "two": 2}
  (row,) = report["agreement"]
  assert row["machines"] == ["one", "two"] and row["programs"] == 1
  assert row["tau"] == row["lowest_tau"] == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not.
  assert row["tau_between_passes"] == pytest.approx(1.0)
  assert row["ratio_of_medians"] == pytest.approx(55 / 25)
  assert "two takes 2.200 times as long (they disagree" in machines.text(row)
  machine_of = {path.name: files.read_json(path)["machine"]
                for path in (tmp_path / "measured").iterdir()}
  assert machine_of == {"a.pass1.json": "one", "a.pass2.json": "one", "b.pass1.json": "two",
                        "b.pass2.json": "two", "d.pass1.json": "two", "d.pass2.json": "two"}
  shown = machines.of_report(tmp_path)
  assert shown["machine"] == protocol.machine() and shown["versions"] == {"jax": "1"}
  assert math.isclose(shown["agreement"][0]["tau"], 4 / 6)
  assert machines.of_measurement(shown) == report and machines.of_measurement({"machine": 1}) == {}


def test_flags_that_do_not_fit_the_folder(tmp_path: pathlib.Path) -> None:
  alone, shared = tmp_path / "alone", tmp_path / "shared"
  files.write_json(alone / "plan.json", PLAN)
  with _member(shared, "one"):
    pass
  for folder, machine, assemble_only, message in (
      (shared, None, False, "--machine, or merge"), (alone, "one", False, "another --output"),
      (shared, "one", True, "leave out --machine")):
    with pytest.raises(errors.ConfigError, match=message):
      machines.prepare(folder, machine, assemble_only, 2)
  assert machines.prepare(shared, "one", False, 2)
  assert not machines.prepare(alone, None, False, 2)
  assert machines.of_report(alone) == {}


def test_times_of_zero_are_refused_before_anything_is_merged(tmp_path: pathlib.Path) -> None:
  with _member(tmp_path, "one"):
    pass
  _record(tmp_path, "one", "a", 1, [10, 20])
  path = plans.record_path(tmp_path / machines.FOLDER / "one", "a", 1)
  record = files.read_json(path)
  record["configurations"][1]["runtime_ns"] = 0
  files.write_json(path, record)
  with pytest.raises(errors.DataError, match=r"a.pass1.json: runtime_ns is 0; expected a time "
                     "above 0; delete a.pass1.json to measure it again"):
    machines.merge(tmp_path, passes=1)
  assert not (tmp_path / "measured").exists() and not (tmp_path / machines.REPORT).exists()


def test_a_machine_that_ended_before_it_described_itself_does_not_count(
    tmp_path: pathlib.Path) -> None:
  with _member(tmp_path, "one"):
    pass
  _record(tmp_path, "one", "a", 1, [10, 20])
  (tmp_path / machines.FOLDER / "two").mkdir()
  assert list(machines.merge(tmp_path, passes=1)["machines"]) == ["one"]
