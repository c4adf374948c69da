"""From the records of the passes to `.pb` files, and from featurized kernels to a collection."""

import base64
import pathlib
from typing import Any

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import extending
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import assemble
from tpugraphs_rank.collect.tile import collect
from tpugraphs_rank.collect.tile import configurations as configurations_lib
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import measure
from tpugraphs_rank.collect.tile import raw
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2

COUNT = 24


def _module(name: str) -> bytes:
  module = hlo_pb2.HloModuleProto(name=f"jit_{name}")
  computation = module.computations.add(name="main")
  computation.instructions.add(name="x", opcode="parameter", id=1)
  return module.SerializeToString()


def _record(kernel: geometry.Kernel, number: int, statuses: dict[int, str] | None = None,
            equal: dict[int, int] | None = None) -> dict[str, Any]:
  """The record of a pass; configuration i takes about (i + 1) microseconds."""
  configurations: list[dict[str, Any]] = []
  for index, chosen in enumerate(configurations_lib.sample(kernel, COUNT, 0)):
    entry: dict[str, Any] = {
        "output": list(chosen.output), "reduction": list(chosen.reduction),
        "status": (statuses or {}).get(index, "ok"),
        "optimised_hlo": f"program {(equal or {}).get(index, index)}"}
    if entry["status"] == "ok":
      entry["runtime_ns"] = 1000 * (index + 1) + number
    configurations.append(entry)
  return {"stem": kernel.stem, "pass": number, "seed": 0, "total_s": 1.0, "compile_s": 0.5,
          "date": f"2026-01-0{number}T00:00:00+00:00",
          "module": base64.b64encode(_module(kernel.stem)).decode(),
          "configurations": configurations}


def _store(output: pathlib.Path, kernel: geometry.Kernel, number: int, **values: Any) -> None:
  files.write_json(plans.record_path(output, kernel.stem, number),
                   _record(kernel, number, **values))


MATMUL = geometry.Kernel("matmul", (256, 256, 256), "f32")
SOFTMAX = geometry.Kernel("softmax", (384, 768), "f32")


def test_both_passes_hold_the_same_runs(tmp_path: pathlib.Path) -> None:
  for number in (1, 2):
    _store(tmp_path, MATMUL, number)
    _store(tmp_path, SOFTMAX, number)
  report = raw.write(tmp_path, [SOFTMAX, MATMUL], passes=2)
  first, second = (tuning_pb2.TuningData.FromString((tmp_path / f"pass{n}.pb").read_bytes())
                   for n in (1, 2))
  assert [m.module.name for m in first.modules] == [MATMUL.stem, SOFTMAX.stem]
  assert report["dates"] == ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
  for one, other in zip(first.modules, second.modules):
    assert len(one.runs) == len(other.runs) == COUNT
    assert [run.is_default for run in one.runs] == [True] + [False] * (COUNT - 1)
    for a, b in zip(one.runs, other.runs):
      assert a.op_config == b.op_config
      assert a.profile.compute_time_ns + 1 == b.profile.compute_time_ns
  chosen = configurations_lib.sample(MATMUL, COUNT, 0)[5]
  config = first.modules[0].runs[5].op_config.tile_size_config
  assert tuple(config.output_bounds) == chosen.output
  assert tuple(config.kernel_bounds) == chosen.reduction
  assert tuple(config.input_bounds) == (chosen.output[0], chosen.reduction[0])


def test_bad_configurations_are_dropped_in_every_pass(tmp_path: pathlib.Path) -> None:
  _store(tmp_path, MATMUL, 1, statuses={3: "mismatch"}, equal={7: 6, 9: 0})
  _store(tmp_path, MATMUL, 2, statuses={4: "no_loop"}, equal={7: 6, 9: 0})
  report = raw.write(tmp_path, [MATMUL], passes=2)
  assert report["kernels"][MATMUL.stem]["dropped"] == {
      "mismatch": 1, "no_loop": 1, "same_program": 2}
  data = tuning_pb2.TuningData.FromString((tmp_path / "pass2.pb").read_bytes())
  times = [run.profile.compute_time_ns for run in data.modules[0].runs]
  assert times == [1000 * (i + 1) + 2 for i in range(COUNT) if i not in (3, 4, 7, 9)]


def test_failed_unfinished_and_defaultless_kernels_are_reported(tmp_path: pathlib.Path) -> None:
  _store(tmp_path, SOFTMAX, 1)  # The second pass is missing.
  _store(tmp_path, MATMUL, 1, statuses={0: "mismatch"})
  _store(tmp_path, MATMUL, 2)
  gather = geometry.Kernel("gather_rows", (960, 384, 1920), "f32")
  for number in (1, 2):
    files.write_json(plans.record_path(tmp_path, gather.stem, number),
                     {"stem": gather.stem, "pass": number, "failed": "ValueError: no"})
  report = raw.write(tmp_path, [MATMUL, SOFTMAX, gather], passes=2)
  assert report["unfinished"] == [SOFTMAX.stem]
  assert report["failed"][gather.stem] == "ValueError: no"
  assert "default" in report["failed"][MATMUL.stem]
  assert not report["kernels"]


def test_measured_kernels_are_not_measured_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  calls: list[str] = []

  def fake(kernel, tiles, seed, number, settings):
    del tiles, seed, settings
    if kernel.family == "softmax":
      raise RuntimeError("the compiler refuses\nand says why")
    calls.append(kernel.stem)
    return _record(kernel, number)

  monkeypatch.setattr(measure, "measure_kernel", fake)
  plan = collect.make_plan([MATMUL, SOFTMAX], COUNT, 0, protocol.Protocol())
  plans.store(tmp_path, plan, (), "kernels")
  measure.run_pass(tmp_path, 1)
  measure.run_pass(tmp_path, 1)
  assert calls == [MATMUL.stem]
  failed = files.read_json(plans.record_path(tmp_path, SOFTMAX.stem, 1))
  assert failed["failed"] == "RuntimeError: the compiler refuses"


STEMS = [f"matmul.{m}x256x256.f32" for m in (64, 128, 192, 256, 320, 384)] + [
    "softmax.384x768.f32", "softmax.384x768.bf16", "transpose_10.96x192.f32"]


def _write_featurized(folder: pathlib.Path, stem: str, flat: bool = False) -> None:
  """Writes a featurized graph that depends only on the stem."""
  rng = np.random.default_rng(list(stem.encode()))
  times = 1000 + (np.arange(COUNT) if flat else 1000 * np.arange(COUNT))
  passes = np.stack([times, times + 2]).astype(np.int64)
  with files.atomic_write(folder / f"{stem}.npz") as file:
    np.savez(file, node_feat=rng.normal(size=(3, 140)).astype(np.float32),
             node_opcode=np.array([1, 2, 3], np.uint8),
             edge_index=np.array([[1, 0], [2, 1]], np.int64),
             config_feat=rng.integers(1, 64, (COUNT, 24)).astype(np.float32),
             config_runtime=passes.mean(axis=0).astype(np.int64),
             config_runtime_normalizers=np.full(COUNT, passes[0, 0]),
             config_runtime_passes=passes)


def _collected(folder: pathlib.Path, stems: list[str]) -> None:
  files.write_json(folder / "report.json", {
      "kernels": {stem: {"candidates": 28, "dropped": {"mismatch": 1}, "seconds": [1, 1]}
                  for stem in stems},
      "failed": {}, "unfinished": [], "dates": [], "machine": protocol.machine(),
      "versions": {}, "seed": 0, "protocol": {}})
  for stem in stems:
    _write_featurized(folder / "npz", stem)


def test_assembly(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, STEMS)
  _write_featurized(tmp_path / "npz", STEMS[0], flat=True)
  output = tmp_path / "bundle"
  measurement = assemble.assemble(tmp_path, tmp_path / "npz", output, "tile:mine", seed=0)
  descriptor = files.read_json(output / "collection.json")
  assert descriptor["name"] == "tile:mine"
  assert descriptor["groups"] == {"matmul": ["matmul"], "normalisation": ["softmax"],
                                  "transpose": ["transpose_10"]}
  by_split = {split: sorted(path.stem for path in (output / "npz" / split).glob("*.npz"))
           for split in descriptor["splits"]}
  assert {split: len(stems) for split, stems in by_split.items()} == descriptor["splits"]
  assert sorted(sum(by_split.values(), [])) == sorted(STEMS[1:])
  assert set(STEMS[6:]) < set(by_split["test"])
  assert measurement["gates"]["families"]["matmul"]["lost_to_ratio"] == 1
  assert measurement["gates"]["configurations_dropped"] == {"mismatch": len(STEMS)}
  assert measurement["splits"]["train"]["tau_between_passes"]["mean"] == 1
  assert files.read_json(output / "measurement.json") == measurement

  first = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.npz")}
  _collected(tmp_path, STEMS[:4] + STEMS[6:])
  assemble.assemble(tmp_path, tmp_path / "npz", output, "tile:mine", seed=0)
  left = {path.stem for path in output.rglob("*.npz")}
  assert left == set(STEMS[:4] + STEMS[6:])  # Nothing is left of the first.
  again = (output / "npz" / "test" / f"{STEMS[6]}.npz").relative_to(output)
  assert (output / again).read_bytes() == first[again]  # The same arrays give the same bytes.


def test_a_collection_that_extends_another(tmp_path: pathlib.Path) -> None:
  first, second, both = tmp_path / "first", tmp_path / "second", tmp_path / "both"
  _collected(first, STEMS[:6])
  first_measurement = assemble.assemble(first, first / "npz", first / "bundle", "tile:mine", seed=0)
  earlier = extending.read(str(first / "bundle"), "tile", graph_files.TILE_KEYS)
  # The same shapes in another element type, which must follow their shape, and a new group.
  more = [stem.replace("f32", "bf16") for stem in STEMS[:3]] + STEMS[6:]
  _collected(second, more)
  measurement = assemble.assemble(
      second, second / "npz", both, "tile:ours", seed=1, earlier=earlier)
  homes = {path.stem: path.parent.name for path in both.rglob("*.npz")}
  old = {path.stem: path.parent.name for path in (first / "bundle").rglob("*.npz")}
  assert set(homes) == {*STEMS, *more} and homes.items() >= old.items()
  for stem in STEMS[:3]:
    assert homes[stem.replace("f32", "bf16")] == old[stem]
  assert measurement["measured"] == sorted(more)
  (part,) = measurement["extends"]
  assert part["measured"] == sorted(STEMS[:6])
  assert part["gates"] == first_measurement["gates"]
  assert sum(split["kernels"] for split in measurement["splits"].values()) == 12
  assert measurement["all_measured"]["kernels"] == len(more)

  again = extending.read(str(both), "tile", graph_files.TILE_KEYS)
  assert [entry["measured"] for entry in again.measurements] == [sorted(more), sorted(STEMS[:6])]
  cpu = protocol.machine()["cpu"]
  assert again.processors(cpu) == cpu
  assert again.processors("other") == f"other and {cpu}"
  with pytest.raises(errors.DataError, match="was measured again .* leave out --extend"):
    assemble.assemble(first, first / "npz", tmp_path / "bad", "tile:bad", seed=0, earlier=again)


def test_what_cannot_be_extended(tmp_path: pathlib.Path) -> None:
  with pytest.raises(errors.DataError, match="of kind layout; expected one of kind tile"):
    extending.read("layout:xla_cpu:mixed", "tile", graph_files.TILE_KEYS)
  files.write_json(tmp_path / "collection.json", {
      "name": "tile:a", "kind": "tile", "target": "a", "splits": {"train": 0}})
  with pytest.raises(errors.DataError, match="measurement.json; expected a collection that"):
    extending.read(str(tmp_path), "tile", graph_files.TILE_KEYS)
  files.write_json(tmp_path / "measurement.json", {"machine": {"cpu": 3}})
  with pytest.raises(errors.DataError, match="measurement.json"):
    extending.read(str(tmp_path), "tile", graph_files.TILE_KEYS)


def test_assembly_names_what_is_missing(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, STEMS)
  (tmp_path / "npz" / f"{STEMS[1]}.npz").unlink()
  with pytest.raises(errors.MissingDataError, match="tpugraphs-rank featurize"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "tile:mine", seed=0)
  with files.atomic_write(tmp_path / "npz" / f"{STEMS[1]}.npz") as file:
    np.savez(file, node_feat=np.zeros((1, 140)))
  with pytest.raises(errors.DataError, match="--repeat"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "tile:mine", seed=0)
  (tmp_path / "npz" / f"{STEMS[1]}.npz").write_bytes(b"PK broken")
  with pytest.raises(errors.DataError, match="cannot be read"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "tile:mine", seed=0)


def test_assembly_fails_if_no_kernel_passes_the_gates(tmp_path: pathlib.Path) -> None:
  _collected(tmp_path, STEMS[:1])
  _write_featurized(tmp_path / "npz", STEMS[0], flat=True)
  with pytest.raises(errors.DataError, match="passes the gates"):
    assemble.assemble(tmp_path, tmp_path / "npz", tmp_path / "bundle", "tile:mine", seed=0)
