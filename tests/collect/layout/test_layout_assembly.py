"""From the records of the passes to raw files, to graphs, to a collection."""

from collections.abc import Callable
import os
import pathlib
import subprocess
import time
from typing import Any

import numpy as np
import pytest

from tests.collect.layout import small_layouts
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import extending
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import assemble
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import collect
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure
from tpugraphs_rank.collect.layout import raw
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import output as hlo_output
from tpugraphs_rank.hlo import tuning_pb2

COUNT = 44
ENCODER = "encoder.4x96x96x4x1.forward"      # train
BOTTLENECK = "bottleneck.2x24x48x2.forward"  # valid
UNET = "unet.1x48x12x2.forward"              # test
GRU = "gru.96x5x96.forward"                  # test


def _store(output: pathlib.Path, stem: str, number: int, **values: Any) -> None:
  files.write_json(plans.record_path(output, stem, number),
                   small_layouts.record(stem, number, COUNT, **values))


def _featurize(collected: pathlib.Path, npz: pathlib.Path) -> None:
  """Featurizes both passes, as `tpugraphs-rank featurize` does."""
  for path in sorted((collected / "pass1").glob("*.pb")):
    converted = convert.convert_file(path, 0, [collected / "pass2" / path.name])
    for graph in converted.graphs:
      hlo_output.write_graph(npz / f"{path.stem}.npz", graph.arrays)


def test_featurized_raw_files_hold_the_measurements(tmp_path: pathlib.Path) -> None:
  for number in (1, 2):
    _store(tmp_path, UNET, number)
  report = raw.write(tmp_path, [UNET], passes=2)
  assert report["programs"][UNET]["sites"] == ["dot", "reshape"]
  assert report["programs"][UNET]["kinds"] == ["default"] + ["random"] * (COUNT - 1)
  assert report["dates"] == ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
  _featurize(tmp_path, tmp_path / "npz")
  arrays = graph_files.read(tmp_path / "npz" / f"{UNET}.npz", graph_files.LAYOUT_KEYS)
  assert list(arrays["node_config_ids"]) == [site.node for site in small_layouts.SITES]
  steps = 100_000 + 1000 * np.arange(COUNT)
  assert (arrays["config_runtime_passes"] == [steps + 1, steps + 2]).all()
  assert (arrays["config_runtime_normalizers"] == arrays["config_runtime"][0]).all()
  rows = arrays["node_config_feat"].reshape(COUNT, len(small_layouts.SITES), 3, 6)
  for row, configuration in zip(rows, small_layouts.configurations(COUNT)):
    for node, layouts in zip(row, configuration):
      expected = np.full((3, 6), -1)
      for tensor, minor_to_major in enumerate(layouts):
        expected[tensor, :len(minor_to_major)] = minor_to_major
      assert (node == expected).all()
  assert list(assemble.constraints(arrays)) == [
      configurations.constraints(expected) for expected in small_layouts.configurations(COUNT)]


def test_raw_files_hold_the_program_with_its_name(tmp_path: pathlib.Path) -> None:
  for number in (1, 2):
    _store(tmp_path, UNET, number)
  raw.write(tmp_path, [UNET], passes=2)
  for number in (1, 2):
    data = tuning_pb2.ModuleTuningData.FromString(
        (tmp_path / f"pass{number}" / f"{UNET}.pb").read_bytes())
    assert data.module.name == UNET
    assert [run.is_default for run in data.runs] == [True] + [False] * (COUNT - 1)


def test_bad_configurations_are_dropped_in_every_pass(tmp_path: pathlib.Path) -> None:
  _store(tmp_path, UNET, 1, statuses={3: "mismatch", 5: "same_program"})
  _store(tmp_path, UNET, 2, statuses={4: "mismatch"}, programs={9: "another"})
  record = files.read_json(plans.record_path(tmp_path, UNET, 2))
  del record["configurations"][7]
  files.write_json(plans.record_path(tmp_path, UNET, 2), record)
  report = raw.write(tmp_path, [UNET], passes=2)
  assert report["programs"][UNET]["dropped"] == {
      "mismatch": 2, "same_program": 1, "compiled_differently": 1, "not_repeated": 1}
  for number in (1, 2):
    data = tuning_pb2.ModuleTuningData.FromString(
        (tmp_path / f"pass{number}" / f"{UNET}.pb").read_bytes())
    assert [run.profile.compute_time_ns for run in data.runs] == [
        100_000 + 1000 * index + number for index in range(COUNT) if index not in (3, 4, 5, 7, 9)]


def test_repeated_passes_hold_the_faster_times(tmp_path: pathlib.Path) -> None:
  for number in (1, 2):
    _store(tmp_path, UNET, number)
  assert raw.agreement(tmp_path, UNET, 2) == 1
  # The repetitions are slower in their second half; two configurations are no longer usable.
  for number in (3, 4):
    record = small_layouts.record(UNET, number, COUNT, statuses={5: "mismatch"},
                                 programs={6: "another"})
    for index, entry in enumerate(record["configurations"]):
      if "runtime_ns" in entry:
        entry["runtime_ns"] += 50 if index >= 20 else -50
    files.write_json(plans.record_path(tmp_path, UNET, number), record)
    if number == 3:  # One repetition alone is not used.
      assert len(raw.usable(raw.read_passes(tmp_path, UNET, 2))["entries"]) == COUNT
  records = raw.read_passes(tmp_path, UNET, 2)
  choice = raw.usable(records)
  assert choice["dropped"] == {"mismatch": 1, "compiled_differently": 1}
  left = [index for index in range(COUNT) if index not in (5, 6)]
  for number, record in enumerate(records, 1):
    assert record["total_s"] == 4.0 and record["date"] == f"2026-01-0{number + 2}T00:00:00+00:00"
    # The records of the repetitions have two nanoseconds more in each runtime.
    assert [by_pass[number - 1]["runtime_ns"] for by_pass in choice["entries"]] == [
        100_000 + 1000 * index + number + (0 if index >= 20 else 2 - 50) for index in left]


def test_a_failed_repetition_is_not_used(tmp_path: pathlib.Path) -> None:
  for number in (1, 2, 3):
    _store(tmp_path, UNET, number)
  before = raw.read_passes(tmp_path, UNET, 2)
  files.write_json(plans.record_path(tmp_path, UNET, 4),
                   {"stem": UNET, "pass": 4, "failed": "crashed"})
  assert raw.read_passes(tmp_path, UNET, 2) == before
  assert before[1] == files.read_json(plans.record_path(tmp_path, UNET, 2))


def test_failed_unfinished_and_defaultless_programs_are_reported(tmp_path: pathlib.Path) -> None:
  _store(tmp_path, UNET, 1)  # The second pass is missing.
  _store(tmp_path, GRU, 1)
  _store(tmp_path, GRU, 2, statuses={0: "mismatch"})
  files.write_json(plans.record_path(tmp_path, ENCODER, 1),
                   {"stem": ENCODER, "pass": 1, "failed": "took longer than 1 s"})
  report = raw.write(tmp_path, [UNET, GRU, ENCODER, BOTTLENECK], passes=2)
  assert report["unfinished"] == [BOTTLENECK, UNET]
  assert report["failed"][ENCODER] == "took longer than 1 s"
  assert "default" in report["failed"][GRU]
  assert not report["programs"] and not list(tmp_path.rglob("*.pb"))


def _collected(folder: pathlib.Path, stems: list[str], flat: str = "", first_rows: int = 8
               ) -> None:
  """Writes and featurizes both passes of some programs; the runtimes of `flat` are noise."""
  for stem in stems:
    for number in (1, 2):
      _store(folder, stem, number, step_ns=0 if stem == flat else 1000,
             rows=first_rows + 2 * stems.index(stem))
  report = raw.write(folder, stems, 2)
  report.update(machine=protocol.machine(), versions={}, seed=0, protocol={})
  files.write_json(folder / "report.json", report)
  _featurize(folder, folder / "npz")


def test_assembly(tmp_path: pathlib.Path) -> None:
  stems = [ENCODER, BOTTLENECK, UNET, GRU, "resnet.2x32x16x2.forward"]
  _collected(tmp_path, stems, flat="resnet.2x32x16x2.forward")
  output = tmp_path / "bundle"
  measurement = assemble.assemble(tmp_path, tmp_path / "npz", output, "layout:mine:mixed")
  collection = registry.read_descriptor(output / "collection.json")
  assert collection.name == "layout:mine:mixed" and collection.kind == "layout"
  assert collection.hlo_stage == "before_optimization"
  assert collection.splits == {"train": 1, "valid": 1, "test": 2}
  assert collection.groups == {"attention": ("encoder",), "convolution": ("bottleneck", "unet"),
                               "recurrent": ("gru",)}
  assert [collection.family(stem) for stem in stems[:2]] == ["encoder", "bottleneck"]
  splits = {path.stem: path.parent.name for path in (output / "npz").glob("*/*.npz")}
  assert splits == {ENCODER: "train", BOTTLENECK: "valid", UNET: "test", GRU: "test"}
  assert measurement["semantics"] == "relayout-copies"
  assert measurement["gates"]["families"]["resnet"]["lost_to_tau"] == 1
  assert measurement["drawn"] == {
      "default": {"share": round(1 / COUNT, 4), "fastest_of_programs": 4},
      "random": {"share": round(1 - 1 / COUNT, 4), "fastest_of_programs": 0}}
  assert measurement["seconds_per_configuration"] == round(2 * 2.0 / COUNT, 3)
  summary = measurement["splits"]["valid"]
  arrays = graph_files.read(output / "npz" / "valid" / f"{BOTTLENECK}.npz", graph_files.LAYOUT_KEYS)
  assert summary["tau_between_passes"]["lowest"] == 1
  # The default is the fastest in the artificial records.
  assert summary["slowdown_of_default"]["highest"] == 0
  assert summary["tau_of_fewest_constraints_first"]["mean"] == round(
      gates.kendall_tau_b(assemble.constraints(arrays), np.arange(COUNT)), 4)
  assert files.read_json(output / "measurement.json") == measurement

  kept = {path.name: path.read_bytes() for path in output.rglob("*.npz")}
  files.write_json(tmp_path / "report.json", {
      **files.read_json(tmp_path / "report.json"),
      "programs": {stem: entry for stem, entry
                   in files.read_json(tmp_path / "report.json")["programs"].items()
                   if stem != GRU}})
  assemble.assemble(tmp_path, tmp_path / "npz", output, "layout:mine:mixed")
  left = {path.name: path.read_bytes() for path in output.rglob("*.npz")}
  assert left == {name: content for name, content in kept.items() if name != f"{GRU}.npz"}


def test_one_graph_in_two_splits_is_rejected(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, [ENCODER, UNET])
  (tmp_path / "npz" / f"{UNET}.npz").write_bytes((tmp_path / "npz" / f"{ENCODER}.npz").read_bytes())
  with pytest.raises(errors.DataError, match=r"\(train\) and unet.*\(test\) are the same graph"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "layout:mine:mixed")


def test_assembly_names_what_is_missing(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, [UNET])
  (tmp_path / "npz" / f"{UNET}.npz").unlink()
  with pytest.raises(errors.MissingDataError, match="tpugraphs-rank featurize --input .*pass1 "):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "layout:mine:mixed")


def test_assembly_fails_if_no_program_passes_the_gates(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, [UNET], flat=UNET)
  with pytest.raises(errors.DataError, match="none of the 1 programs.*passes the gates"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "layout:mine:mixed")


# Replaces a measuring process: moves its prepared record into place, fails, or hangs.
_STAND_IN = """
echo "$2 $3" >>"$1/log"
case $2 in
  unet*) exit 3 ;;
  gru*) exec sleep 60 ;;
esac
mv "$1/prepared.$2.$3" "$4"
"""


@pytest.fixture(name="measured")
def _measured(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
              ) -> Callable[[], list[str]]:
  """Replaces the measuring processes; returns those that were started since the last call."""
  start = subprocess.Popen

  def stand_in(command: list[str], env: Any, stdin: int) -> subprocess.Popen:
    assert stdin == subprocess.DEVNULL
    values = dict(zip(command[3::2], command[4::2]))
    assert command[1:3] == ["-m", "tpugraphs_rank.collect.layout.measure"]
    assert all(env[name] == value for name, value in protocol.LAYOUT_ENVIRONMENT.items())
    output, stem, number = values["--output"], values["--program"], values["--pass_number"]
    files.write_json(pathlib.Path(output) / f"prepared.{stem}.{number}", small_layouts.record(
        stem, int(number), step_ns=0 if stem.startswith("mixer") else 1000))
    (pathlib.Path(output) / "measured").mkdir(exist_ok=True)
    path = plans.record_path(pathlib.Path(output), stem, int(number))
    return start(["sh", "-c", _STAND_IN, "sh", output, stem, number, str(path)])

  monkeypatch.setattr(processes.subprocess, "Popen", stand_in)

  def started() -> list[str]:
    log = tmp_path / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("")
    return lines
  return started


def test_a_collection_resumes(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]]) -> None:
  collect.run(tmp_path, [ENCODER, BOTTLENECK], 2, [], float("inf"), 60)
  assert measured() == [f"{ENCODER} 1", f"{ENCODER} 2", f"{BOTTLENECK} 1", f"{BOTTLENECK} 2"]
  plans.record_path(tmp_path, BOTTLENECK, 2).unlink()
  collect.run(tmp_path, [ENCODER, BOTTLENECK], 2, [], float("inf"), 60)
  assert measured() == [f"{BOTTLENECK} 2"]


def test_several_programs_are_measured_at_the_same_time(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]]) -> None:
  stems = [program.stem for program in catalogue.programs(["encoder", "mixer", "lstm"])][:5]
  stems = [stem for stem in stems if not stem.startswith("mixer")]
  core = min(os.sched_getaffinity(0))
  collect.run(tmp_path, stems, 2, [core, core], float("inf"), 60)
  assert sorted(measured()) == sorted(f"{stem} {number}" for stem in stems for number in (1, 2))


@pytest.mark.parametrize("cores", ["0,0", "99999"])
def test_unusable_cores_are_rejected(
    tmp_path: pathlib.Path, cores: str, capsys: pytest.CaptureFixture) -> None:
  with pytest.raises(SystemExit):
    collect.main(["--output", str(tmp_path / "out"), f"--cores={cores}"])
  assert f"--cores={cores}: expected different cores of " in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_a_stopped_collection_leaves_no_process_and_no_record(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch) -> None:
  started: list[subprocess.Popen] = []
  start = processes.Processes.start
  monkeypatch.setattr(processes.Processes, "start", lambda self, *arguments: (
      started.append(start(self, *arguments)) or started[-1]))

  def fails(*arguments: Any) -> bool:
    if len(arguments) and arguments[1] == GRU:
      return run_pass(*arguments)  # Hangs.
    while not started:
      time.sleep(0.01)
    raise KeyboardInterrupt

  run_pass = collect.run_pass
  monkeypatch.setattr(collect, "run_pass", fails)
  begun = time.monotonic()
  with pytest.raises(KeyboardInterrupt):
    collect.run(tmp_path, [GRU, ENCODER], 2, [-1, -1], float("inf"), 600)
  assert time.monotonic() - begun < 50
  assert len(started) == 1 and started[0].poll() is not None
  assert not plans.record_path(tmp_path, GRU, 1).exists()


def test_passes_that_disagree_are_repeated(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]]) -> None:
  mixer = "mixer.8x64x64x2.forward"  # All of its runtimes are equal.
  collect.run(tmp_path, [mixer, ENCODER], 2, [], float("inf"), 60)
  assert measured() == [*(f"{mixer} {number}" for number in (1, 2, 3, 4)),
                        f"{ENCODER} 1", f"{ENCODER} 2"]


def test_a_program_that_fails_or_hangs_does_not_end_the_collection(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]]) -> None:
  start = time.monotonic()
  collect.run(tmp_path, [UNET, GRU, ENCODER], 2, [], float("inf"), 2)
  assert time.monotonic() - start < 50
  assert measured() == [f"{UNET} 1", f"{GRU} 1", f"{ENCODER} 1", f"{ENCODER} 2"]
  failed = [files.read_json(plans.record_path(tmp_path, stem, 1))["failed"]
            for stem in (UNET, GRU)]
  assert "status 3" in failed[0] and "longer than 2 s" in failed[1]


def test_compiled_programs_do_not_outlive_their_passes(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]]) -> None:
  cache = measure.cache_path(tmp_path, ENCODER)
  cache.mkdir(parents=True)
  (cache / "entry").write_text("machine code")
  collect.run(tmp_path, [ENCODER], 2, [], float("inf"), 60)
  assert measured() and not cache.exists()


def test_no_program_is_started_after_the_time_is_used_up(
    tmp_path: pathlib.Path, measured: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch) -> None:
  now = [0.0]
  monkeypatch.setattr(collect.time, "monotonic", lambda: now[0])
  run_pass = collect.run_pass

  def slow(*arguments: Any) -> bool:
    now[0] += 10
    return run_pass(*arguments)

  monkeypatch.setattr(collect, "run_pass", slow)
  # A program takes 20 s. After two programs 10 s remain, too few for the third.
  stems = [program.stem for program in catalogue.programs(["encoder", "mixer", "lstm"])][:3]
  collect.run(tmp_path, stems, 2, [], 50, 60)
  assert len(measured()) == 4


def test_a_collection_that_extends_another(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path / "first", [UNET, ENCODER])
  assemble.assemble(tmp_path / "first", tmp_path / "first" / "npz", tmp_path / "old", "layout:a:b")
  earlier = extending.read(str(tmp_path / "old"), "layout", graph_files.LAYOUT_KEYS)
  _collected(tmp_path / "second", ["resnet.2x32x16x2.forward", "lstm.64x6x96.forward",
                                   BOTTLENECK], first_rows=20)
  measurement = assemble.assemble(
      tmp_path / "second", tmp_path / "second" / "npz", tmp_path / "both", "layout:a:c", earlier)
  splits = {path.stem: path.parent.name for path in (tmp_path / "both" / "npz").glob("*/*.npz")}
  assert splits == {ENCODER: "train", UNET: "test", "resnet.2x32x16x2.forward": "train",
                    "lstm.64x6x96.forward": "train", BOTTLENECK: "valid"}
  assert [entry["measured"] for entry in measurement["extends"]] == [sorted([UNET, ENCODER])]
  assert len(measurement["measured"]) == measurement["all_measured"]["programs"] == 3
  assert measurement["families"]["unet"]["programs"] == 1
