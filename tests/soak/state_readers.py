"""Readers of the files that commands keep in their folders: plans, records, journals, tables."""

import base64
import json
import os
import pathlib
import types
from typing import Any

import numpy as np

from tests.collect.layout import small_layouts
from tests.costs import kernels
from tests.soak import mutators
from tests.soak import reading
from tests.synthesis import small_dags
from tpugraphs_rank import folder_settings
from tpugraphs_rank import json_shapes
from tpugraphs_rank import run_config
from tpugraphs_rank import tuning
from tpugraphs_rank.cli import augment_cases
from tpugraphs_rank.collect.common import claims
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import folder as hlo_folder
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.collect.hlo import worker
from tpugraphs_rank.collect.layout import configurations as layout_configurations
from tpugraphs_rank.collect.layout import raw as layout_raw
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import planned
from tpugraphs_rank.collect.tile import raw as tile_raw
from tpugraphs_rank.costs import novelty
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download_records
from tpugraphs_rank.data import transfer
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.traces import outputs
from tpugraphs_rank.training import kinds_file
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior

_PROTOCOL = {"sample_ns": 1, "budget_ns": 2, "min_rounds": 1, "max_rounds": 2}


def _json(*values: Any) -> Any:
  return lambda folder: [json.dumps(value).encode() for value in values]


def _lines(data: bytes, rng: Any) -> bytes:
  """A journal with one line that is changed, or with damage anywhere."""
  if rng.random() < 0.2:
    return mutators.raw(data, rng)
  lines = data.splitlines()
  place = rng.randrange(len(lines))
  lines[place] = mutators.as_json(lines[place], rng)
  return b"\n".join(lines) + rng.choice((b"\n", b""))


# ---- the collector -------------------------------------------------------------------------------

_STEM = geometry.Kernel("matmul", (256, 256, 256), "f32").stem
_PLAN = {"seed": 0, "configurations": 3, "protocol": _PROTOCOL, "kernels": [
    {"stem": _STEM, "tiles": [{"output": [8, 8], "reduction": [4]}]}]}
_HLO_PLAN = {"kind": "hlo", "source": "x.pb", "seed": 0, "program": "0" * 64,
             "protocol": _PROTOCOL, "program_limit": 300.0, "xla_flags": "--xla_x=1",
             "programs": [{"stem": "program"}]}


def _read_plan(folder: pathlib.Path) -> Any:
  content = (folder / "plan.json").read_bytes()
  found = plans.read(folder, "kernels", {
      "kernels": [{"stem": json_shapes.NAME, "tiles": [tile_raw.TILE]}]})
  plans.protocol_of(found, folder / "plan.json")
  for entry in found["kernels"]:
    reading.must(plans.record_path(folder, entry["stem"], 1).parent == folder / "measured",
                 "a record in another folder")
    planned.kernel_of(entry)
  plans.store(folder, {**_PLAN, "seed": found["seed"] if "seed" in found else 0}, (), "kernels")
  (folder / "plan.json").write_bytes(content)
  return found


def _tile_record(number: int) -> dict[str, Any]:
  module = hlo_pb2.HloModuleProto(name="x")
  module.computations.add(name="main").instructions.add(name="x", opcode="parameter", id=1)
  return {"stem": _STEM, "pass": number, "seed": 0, "total_s": 1.0, "compile_s": 0.5,
          "date": "2026-01-01T00:00:00+00:00",
          "module": base64.b64encode(module.SerializeToString()).decode(),
          "configurations": [
              {"output": [8, 8 * side], "reduction": [4], "status": "ok", "runtime_ns": 1000 * side,
               "optimised_hlo": f"p{side}"} for side in (1, 2, 4)]}


def _measured(folder: pathlib.Path, stem: str, second: dict[str, Any]) -> pathlib.Path:
  """The folder of a collector whose first pass is the input."""
  output = folder / "out"
  for number, content in ((1, (folder / "input.json").read_bytes()),
                          (2, json.dumps(second).encode())):
    path = plans.record_path(output, stem, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return output


def _read_tile_record(folder: pathlib.Path) -> Any:
  output = _measured(folder, _STEM, _tile_record(2))
  return tile_raw.write(output, [geometry.parse_stem(_STEM)], 2)


def _read_layout_record(folder: pathlib.Path) -> Any:
  return layout_raw.write(_measured(folder, "p", small_layouts.record("p", 2, count=4)), ["p"], 2)


_REPORT = {
    "machine": protocol.machine(), "versions": {"jax": "1"}, "dates": ["a", "b"], "seed": 0,
    "protocol": _PROTOCOL, "failed": {"b": "x"}, "unfinished": ["c"],
    "kernels": {_STEM: {"candidates": 3, "dropped": {"same_program": 1}, "seconds": [1.0, 2.0]}}}
_MACHINES = {"machines": {"a": {"description": {"cpu": "x"}, "versions": {"jax": "1"}}},
             "agreement": [{"machines": ["a", "b"], "tau": 0.9}]}


def _read_machines(folder: pathlib.Path) -> Any:
  (folder / machines.FOLDER).mkdir(exist_ok=True)
  return machines.of_report(folder)


def _read_claim(folder: pathlib.Path) -> Any:
  found = claims.Claims(folder, "a").free(["p"])
  reading.must(found in ([], ["p"]), "programs")
  return found


# ---- tuning --------------------------------------------------------------------------------------

_SPACE = tuning.PoolSpace(np.random.default_rng(0).standard_normal((6, 2)))
_JOURNAL = b"".join(json.dumps(line).encode() + b"\n" for line in (
    {"configuration": 0, "seconds": 1.0, "default_seconds": 1.0,
     "notes": {"optimised_hlo": "p0"}},
    {"configuration": 3, "seconds": 0.5, "default_seconds": 1.0, "expected_gain": 0.1},
    {"configuration": 2, "seconds": None, "notes": {"status": "mismatch"}}))
_CONFIRMED = b"".join(json.dumps(line).encode() + b"\n" for line in (
    {"configuration": "10", "speedup": 1.5, "seconds": 1.0, "default_seconds": 1.5},
    {"configuration": "01", "speedup": 1.1, "seconds": 1.0, "default_seconds": 1.1}))


def _read_journal(folder: pathlib.Path) -> Any:
  tuner = tuning.Tuner(_SPACE, journal=folder / "input.jsonl")
  tune.known_times(tuner)
  for one in tuner.history:
    reading.must(0 <= one.configuration < 6 and one.seconds > 0, "a measurement")
  best = tuner.best
  return best, tuner.expected_gain, tuner.finished


def _read_confirmed(folder: pathlib.Path) -> Any:
  found = tune.confirmed_speedups(folder / "input.jsonl", "10")
  reading.must(all(0 < one < float("inf") for one in found), "speedups")
  return tune.of_speedups([*found, 1.0, 1.1])


def _read_tuned(folder: pathlib.Path) -> Any:
  found = json_shapes.read(folder / "tuned.json", hlo_folder.TUNED, "run the same `tune` again")
  return layout_configurations.from_text(found["best"]["layouts"])


def _read_answer(folder: pathlib.Path) -> Any:
  receiver, sender = os.pipe()
  os.write(sender, (folder / "input.json").read_bytes()[:60_000] + b"\n")
  os.close(sender)
  one = worker.Worker.__new__(worker.Worker)
  one._read, one._last = b"", ""
  one._messages = types.SimpleNamespace(join=lambda limit: None)  # type: ignore[assignment]
  with open(receiver, "rb") as stream:
    one._process = types.SimpleNamespace(stdout=stream, wait=lambda: 1)  # type: ignore[assignment]
    return one.answer(5.0)["status"]


# ---- runs, downloads and studies -----------------------------------------------------------------


def _sound_history(folder: pathlib.Path) -> list[bytes]:
  return [b"epoch,loss,train_opa,valid_loss,valid_opa\n1,0.5,0.6,0.7,0.5\n2,0.4,0.7,,0.5\n"]


def _sound_per_graph(folder: pathlib.Path) -> list[bytes]:
  return [b"ranker,seed,graph,family,opa,kendall_tau,top1_slowdown\n"
          b"run,0,a.1,a,0.9,0.8,0.1\nrun,0,b.1,b,0.5,,0.0\nrandom,0,a.1,a,0.5,0.0,0.3\n"]


def _sound_prior(folder: pathlib.Path) -> list[bytes]:
  seen = kernels.graph(kernels.SOFTMAX, [kernels.tile((1,))])
  prior = tile_prior.Prior(tile_cost.PRESET, tile_prior.Gate(0.2, 0.6, 0.8),
                           novelty.Novelty([novelty.profile(seen)]), 2.0, 0.5, targets.CPU)
  directory = run_directory.RunDirectory(folder)
  tile_prior.write(directory, prior)
  return [(directory / tile_prior.FILE).read_bytes()]


def _read_prior(folder: pathlib.Path) -> Any:
  prior = tile_prior.read(run_directory.RunDirectory(folder))
  assert prior is not None
  for program in (kernels.SOFTMAX, kernels.MATMUL):  # A known one, and a new one.
    graph = kernels.graph(program, [kernels.tile((1,)), kernels.tile((2,))])
    reading.must(0 <= prior.weight(graph) <= 1, "weight")
    reading.must(np.isfinite(prior.scores(graph, np.zeros([1, 2], np.float32))).all(), "scores")
  return prior


def _sound_trees(folder: pathlib.Path) -> list[bytes]:
  arrays = tree_arrays.TreeArrays(
      columns=np.array([0, 2], np.int32), width=3, roots=np.array([0], np.int32),
      column=np.array([0, 0, 0], np.int32), threshold=np.array([0.5, 0, 0]),
      children=np.array([[1, 2], [1, 1], [2, 2]], np.int32), value=np.array([0.0, 1.0, -1.0]),
      baseline=0.25)
  tree_arrays.write(folder / "sound.npz", arrays)
  return [(folder / "sound.npz").read_bytes()]


def _read_trees(folder: pathlib.Path) -> Any:
  found = tree_arrays.read(folder / "input.npz")
  rows = np.random.default_rng(0).random((4, found.width if found.width < 100 else 3))
  scores = found.scores(rows.astype(np.float32))
  reading.must(np.isfinite(scores).all(), "scores")
  return scores


_KINDS = {"deviations": [1.0, 0.5, 2], "metrics": {"kendall_tau": 0.5, "mrr": None}}


def _read_kinds(folder: pathlib.Path) -> Any:
  averaging = kinds_file.read(folder / kinds_file.FILE, 3)
  factors = kinds_file.factors(averaging.deviations)
  reading.must(factors.shape == (2,) and np.isfinite(factors).all() and (factors >= 0).all(),
               "factors")
  return averaging


def _remote() -> archives.Remote:
  return archives.collection_archives(["layout:xla:random"], ["valid"], base_url="http://x/")[0]


_RECORD = {"address": "http://x/a.tar", "size": 9, "sha256": "0" * 64, "recorded": "2026-01-01",
           "members": {"npz/a.npz": [3, "1" * 64]}}


def _read_download(folder: pathlib.Path) -> Any:
  path = download_records.path_of(folder, _remote(), ".json")
  path.parent.mkdir(exist_ok=True)
  path.write_bytes((folder / "input.json").read_bytes())
  return download_records.look(_remote(), folder)


def _read_version(folder: pathlib.Path) -> Any:
  path = folder / "x.partial"
  transfer._version_path(path).write_bytes((folder / "input.json").read_bytes())
  return transfer._read_version(path)


def _read_space(folder: pathlib.Path) -> Any:
  from tpugraphs_rank.sweeps import space
  found = space.Space(space.read(str(folder / "input.json")), run_config.RunConfig(), "x")
  return found.parameters_of(run_config.RunConfig())


_CASE = {
    "case": {"config": {"training": {"seed": 0}}, "split": "test", "source": "x"},
    "rows": [{"graph": "a", "family": "a", "seen": True,
              **dict.fromkeys(augment_cases.gains.METRICS.values(), 0.5)}],
    "training": {"seconds": 1.0, "cpu_seconds": 1.0, "steps": 4, "steps_before": 0,
                 "best_epoch": 1, "real_programs": 3, "synthetic_programs": 0, "held_back": 0}}


def _read_case(folder: pathlib.Path) -> Any:
  stored = augment_cases._stored(folder / "input.json")
  return augment_cases.costs([{"task": "t", "budget": 1, "arm": "a", **stored["training"]}])


def _read_names(folder: pathlib.Path) -> Any:
  content = (folder / outputs.PRIVATE).read_bytes()
  found = outputs.private_names(folder, small_dags.graphs(2))
  (folder / outputs.PRIVATE).write_bytes(content)
  return found


def _read_settings(folder: pathlib.Path) -> Any:
  return folder_settings.check(folder, {"seed": 0, "config": {"a": 1}})


_ALL = (
    reading.Reader("settings", "settings.json", _json({"seed": 0, "config": {"a": 1}}),
                   mutators.as_json, _read_settings, checked=False),
    reading.Reader("plan", "plan.json", _json(_PLAN), mutators.as_json, _read_plan),
    reading.Reader("hlo_plan", "plan.json", _json(_HLO_PLAN), mutators.as_json,
                   hlo_folder.environment, checked=False),
    reading.Reader("tile_record", "input.json", lambda folder: _json(_tile_record(1))(folder),
                   mutators.as_json, _read_tile_record, checked=False),
    reading.Reader("layout_record", "input.json",
                   lambda folder: _json(small_layouts.record("p", 1, count=4))(folder),
                   mutators.as_json, _read_layout_record, checked=False),
    reading.Reader("report", "report.json", _json(_REPORT), mutators.as_json,
                   lambda folder: plans.read_report(folder, "kernels"), checked=False),
    reading.Reader("machines", "machines.json", _json(_MACHINES), mutators.as_json,
                   _read_machines, checked=False),
    reading.Reader("claim", "p.1.json", _json({"machine": "b", "state": "done"}),
                   mutators.as_json, _read_claim),
    reading.Reader("tuning_journal", "input.jsonl", lambda folder: [_JOURNAL], _lines,
                   _read_journal),
    reading.Reader("tuning_confirmed", "input.jsonl", lambda folder: [_CONFIRMED], _lines,
                   _read_confirmed),
    reading.Reader("tuned", "tuned.json", _json({
        "finished": True, "is_faster": True, "nodes": [3], "confirmed": None,
        "best": {"layouts": "10//01", "seconds": 1.0, "default_seconds": 2.0, "requests": []}}),
                   mutators.as_json, _read_tuned, checked=False),
    reading.Reader("worker_answer", "input.json", _json(
        {"status": "ok", "seconds": 1.0, "default_seconds": 2.0, "optimised_hlo": "x"},
        {"status": "failed", "reason": "x"}), mutators.as_json, _read_answer, checked=False),
    reading.Reader("history", "history.csv", _sound_history, mutators.text,
                   run_files.read_history, checked=False),
    reading.Reader("per_graph", "per_graph.csv", _sound_per_graph, mutators.text,
                   lambda folder: run_files.read_per_graph(folder / "per_graph.csv"),
                   checked=False),
    reading.Reader("kinds", kinds_file.FILE, _json(_KINDS), mutators.as_json, _read_kinds),
    reading.Reader("prior", tile_prior.FILE, _sound_prior, mutators.as_json, _read_prior),
    reading.Reader("trees", "input.npz", _sound_trees, mutators.npz, _read_trees),
    reading.Reader("download_record", "input.json", _json(_RECORD, {**_RECORD, "members": None}),
                   mutators.as_json, _read_download, checked=False),
    reading.Reader("download_version", "input.json", _json(
        {"address": "http://x", "validator": "a", "size": 3, "md5": None}), mutators.as_json,
                   _read_version, checked=False),
    reading.Reader("search_space", "input.json", _json(
        {"learning_rate": {"low": 0.001, "high": 0.01, "log": True}, "dropout": {
            "low": 0, "high": 0.3, "step": 0.1}, "head_widths": {"choices": [[64], [32, 8]]}}),
                   mutators.as_json, _read_space, checked=False),
    reading.Reader("augment_case", "input.json", _json(_CASE), mutators.as_json, _read_case,
                   checked=False),
    reading.Reader("private_names", outputs.PRIVATE, _json(
        {"operators": {"add": "op_1", "mul": "op_2"}, "key": "0" * 32}), mutators.as_json,
                   _read_names, checked=False),
)
READERS = {reader.name: reader for reader in _ALL}
