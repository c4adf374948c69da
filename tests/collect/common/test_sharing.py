"""Both collectors with several machines on one folder, up to the raw files, without measuring."""

import base64
import pathlib
from typing import Any

import pytest

from tests.hlo import modules
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.layout import collect as layout_collect
from tpugraphs_rank.collect.tile import collect as tile_collect


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
  """The collector's packages need not be installed."""
  monkeypatch.setattr(plans, "package_versions", lambda: {"jax": "1"})


def _arguments(kind: str, output: pathlib.Path, *more: str) -> Any:
  return flags.parse(kind, "", ["--output", str(output), "--limit=5", "--configurations=3",
                                "--common_programs=1", *more])


def _write(folder: pathlib.Path, stem: str, number: int, entries: list[dict[str, Any]]) -> None:
  """A record in which configuration i takes i + 1 microseconds; on machine b twice as long."""
  slower = 2 if folder.name == "b" else 1
  files.write_json(plans.record_path(folder, stem, number), {
      "stem": stem, "pass": number, "seed": 0, "total_s": 1.0, "date": f"2026-01-0{number}",
      "module": base64.b64encode(modules.tiny().SerializeToString()).decode(),
      "sites": [{"node": 3, "opcode": "dot", "shapes": [[2, 2]] * 3}],
      "configurations": [
          {**entry, "status": "ok", "optimised_hlo": str(place), "kind": "random",
           "runtime_ns": 1000 * (place + 1) * slower} for place, entry in enumerate(entries)]})


def _check(output: pathlib.Path, report: dict[str, Any], measured: dict[str, list[str]]) -> None:
  assert {name: sorted(stems) for name, stems in measured.items()} == {
      name: sorted(path.name.partition(".pass1")[0] for path in (
          output / machines.FOLDER / name / "measured").glob("*.pass1.json")) for name in "ab"}
  together = [*measured["a"], *measured["b"]]
  assert len(together) == 6 and len(set(together)) == 5  # One program is common.
  (row,) = report["agreement"]
  assert row["machines"] == ["a", "b"] and row["programs"] == 1
  assert row["tau"] == 1 and row["ratio_of_medians"] == 2
  assert set(report["machines"]) == {"a", "b"} and report["versions"] == {"jax": "1"}


def test_tiles(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  measured: dict[str, list[str]] = {"a": [], "b": []}

  def run_passes(folder, passes, cores, time_budget_s, stems=()):
    del cores, time_budget_s
    if folder.name == "a" and len(measured["a"]) >= 3:
      raise errors.OutputError("the machine loses its power")
    for entry in files.read_json(folder / "plan.json")["kernels"]:
      if entry["stem"] in stems:
        measured[folder.name].append(entry["stem"])
        for number in range(1, passes + 1):
          _write(folder, entry["stem"], number, entry["tiles"])

  monkeypatch.setattr(tile_collect, "run_passes", run_passes)
  with pytest.raises(errors.OutputError):
    tile_collect.collect(_arguments("tile", tmp_path, "--machine=a"))
  tile_collect.collect(_arguments("tile", tmp_path, "--machine=b"))
  tile_collect.collect(_arguments("tile", tmp_path, "--assemble_only"))
  report = files.read_json(tmp_path / "report.json")
  _check(tmp_path, report, measured)
  assert {stem: entry["machine"] for stem, entry in report["kernels"].items()} == {
      stem: "a" if stem in measured["a"] else "b" for stem in report["kernels"]}
  assert len(report["kernels"]) == 5 and not report["unfinished"]
  with pytest.raises(errors.ConfigError, match="--assemble_only"):
    tile_collect.collect(_arguments("tile", tmp_path))


def test_layouts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  measured: dict[str, list[str]] = {"a": [], "b": []}

  def measure_program(folder, stem, passes, core, limit_s, processes):
    del core, limit_s, processes
    measured[folder.name].append(stem)
    for number in range(1, passes + 1):
      _write(folder, stem, number, [{"layouts": layouts} for layouts in ("//", "10//", "//10")])

  monkeypatch.setattr(layout_collect, "measure_program", measure_program)
  layout_collect.collect(_arguments("layout", tmp_path, "--machine=a", "--time_budget=0"))
  assert not measured["a"]
  layout_collect.collect(_arguments("layout", tmp_path, "--machine=a"))
  layout_collect.collect(_arguments("layout", tmp_path, "--machine=b", "--wait"))
  report = machines.merge(tmp_path, 2)
  assert report["machines"]["a"]["programs"] == 5 and len(measured["b"]) == 1
