"""Every reader of the framework with sound inputs, mutators, and independent checks of results.

A check knows nothing of the code that it checks: it states what must hold for whatever a reader
accepts.
"""

from collections.abc import Mapping
import gzip
import hashlib
import json
import math
import pathlib
import random
from typing import Any
from unittest import mock

import numpy as np

from tests import synthetic
from tests.candidates import small_programs
from tests.chakra import samples
from tests.soak import mutators
from tests.soak import reading
from tests.soak import state_readers
from tests.submission import small_submissions
from tests.synthesis import small_dags
from tpugraphs_rank import config
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import submission
from tpugraphs_rank.candidates import programs as candidate_programs
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.chakra import costs
from tpugraphs_rank.chakra import graphs as trace_graphs
from tpugraphs_rank.chakra import summary
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.metrics import evidence
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.layerdag import settings as layerdag_settings
from tpugraphs_rank.training import run_directory

_must = reading.must
_Reader = reading.Reader


# ---- graphs --------------------------------------------------------------------------------------


def _check_graph(graph: Any) -> None:
  arrays = graph.arrays()
  nodes = len(arrays["node_opcode"])
  _must(arrays["node_feat"].shape == (nodes, 140), "shape of node_feat")
  _must(np.isfinite(arrays["node_feat"]).all(), "node_feat is not finite")
  edges = arrays["edge_index"]
  _must(not edges.size or (edges.min() >= 0 and edges.max() < nodes), "edges beyond the nodes")
  if graph.kind is None:
    return
  runtimes = arrays["config_runtime"]
  _must((runtimes > 0).all() or not runtimes.any(), "runtimes that are partly measured")
  if graph.kind == "tile":
    _must(arrays["config_feat"].shape == (len(runtimes), 24), "shape of config_feat")
    _must(np.isfinite(arrays["config_feat"]).all(), "config_feat is not finite")
  else:
    ids, feat = arrays["node_config_ids"], arrays["node_config_feat"]
    _must(feat.shape == (len(runtimes), len(ids), 18), "shape of node_config_feat")
    _must(not ids.size or (0 <= ids.min() and ids.max() < nodes), "configurable nodes")
    _must(not feat.size or (-1 <= feat.min() and feat.max() <= 5), "values of layouts")
  order = graph.runtime_order()
  _must(sorted(order.tolist()) == list(range(len(runtimes))), "order of runtimes")


def _sound_graphs(folder: pathlib.Path) -> list[bytes]:
  found = []
  for graph in (synthetic.tile_graph(0, num_nodes=4, num_configs=5),
                synthetic.layout_graph(1, num_nodes=5, num_configs=4, num_config_nodes=2)):
    npz.save_graph(folder / "sound.npz", graph)
    found.append((folder / "sound.npz").read_bytes())
  return found


def _read_graph(folder: pathlib.Path) -> Any:
  headers.read_headers(folder / "input.npz")
  graph = npz.load_graph(folder / "input.npz")
  _check_graph(graph)
  return graph


def _sound_packed(folder: pathlib.Path) -> list[bytes]:
  found = []
  for content in _sound_graphs(folder):
    (folder / "sound.npz").write_bytes(content)
    packed_graphs.pack_graph(folder / "sound.npz", folder / "sound.pack")
    found.append((folder / "sound.pack").read_bytes())
  return found


def _read_packed(folder: pathlib.Path) -> Any:
  graph = packed_graphs.open_graph(packed_format.Reader(folder / "input.pack"))
  arrays = graph.arrays()
  _must(not arrays["edge_index"].size or arrays["edge_index"].max() < graph.num_nodes, "edges")
  graph.runtime_order()
  graph.config_digests()
  graph.config_rows()
  return graph


def _sound_index(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps({
      "collection": "tile:x", "split": "train", "graphs": {"g": "0" * 32}}).encode()]


def _read_index(folder: pathlib.Path) -> Any:
  return packed.open_split(folder, ())


# ---- programs and candidates ---------------------------------------------------------------------


def _sound_programs(folder: pathlib.Path) -> list[bytes]:
  module = small_programs.perceptron()
  return [small_programs.matmul(8, 16, 4).SerializeToString(), module.SerializeToString()]


def _rank_all(path: pathlib.Path) -> Any:
  found = []
  for program in candidate_programs.read(path):
    for kind in ("tile", "layout"):
      candidates = candidate_programs.find(program, kind, "", "xla_cpu", 64, 0)
      for array in candidates.arrays.values():
        _must(np.isfinite(array).all(), "candidates that are not finite")
      _must(candidates.kind != "tile" or (candidates.arrays["config_feat"] >= 0).all(),
            "negative tiles")
      found.append(candidate_programs.to_graph(program, candidates, 0))
  return found


def _read_program(folder: pathlib.Path) -> Any:
  path = folder / "input.pb"
  for graph in convert.convert_file(path, strict=False).graphs:
    _must(np.isfinite(graph.arrays["node_feat"]).all(), "features that are not finite")
  return _rank_all(path)


def _sound_raw(folder: pathlib.Path) -> list[bytes]:
  from tpugraphs_rank.hlo import tuning_pb2
  module = small_programs.matmul(8, 16, 4)
  runs = []
  for number, bounds in enumerate(((8, 16), (4, 16), (8, 4))):
    run = tuning_pb2.ConfigProfile(is_default=number == 0)
    run.op_config.tile_size_config.output_bounds.extend(bounds)
    run.profile.compute_time_ns = 1000 + number
    runs.append(run)
  tile = tuning_pb2.TuningData(modules=[tuning_pb2.ModuleTuningData(module=module, runs=runs)])
  runs = []
  for number, dims in enumerate(((1, 0), (0, 1))):
    run = tuning_pb2.ConfigProfile(is_default=number == 0)
    run.module_config.layout_config.nodes.add().tensors.add().dims.extend(dims)
    run.profile.compute_time_ns = 1000 + number
    runs.append(run)
  layout = tuning_pb2.ModuleTuningData(module=module, runs=runs, config_index_to_node=[2])
  return [tile.SerializeToString(), layout.SerializeToString()]


_TEXT = """HloModule k, entry_computation_layout={(f32[64,32], f32[32,16])->f32[64,16]}

add.1 {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT add = f32[] add(x, y)
}

ENTRY main {
  a = f32[64,32]{1,0} parameter(0)
  b = f32[32,16]{1,0} parameter(1)
  c = f32[] constant(0)
  d = f32[64,16]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  e = f32[64]{0} reduce(d, c), dimensions={1}, to_apply=add.1
  f = f32[64,16]{1,0} broadcast(e), dimensions={0}
  ROOT g = f32[64,16]{1,0} multiply(d, f)
}
"""


def _read_text(folder: pathlib.Path) -> Any:
  convert.convert_file(folder / "input.txt", strict=False)
  return _rank_all(folder / "input.txt")


def _program() -> Any:
  return small_programs.data_of(small_programs.matmul(8, 16, 4))


def _sound_candidates(folder: pathlib.Path) -> list[bytes]:
  path = folder / "p.pb"
  path.write_bytes(small_programs.matmul(8, 16, 4).SerializeToString())
  read, = candidate_programs.read(path)
  found = []
  for kind in ("tile", "layout"):
    arrays = candidate_programs.find(read, kind, "auto", "xla_cpu", 8, 0).arrays
    np.savez(folder / "sound.npz", **arrays)
    found.append((folder / "sound.npz").read_bytes())
  return found


def _read_candidates(folder: pathlib.Path) -> Any:
  found = None
  with np.errstate(all="ignore"):
    for kind in ("tile", "layout"):
      try:
        found = supplied.from_npz(folder / "input.npz", _program(), kind)
      except ValueError as error:
        if found is None and kind == "layout":
          raise error
        continue
      _must(len(found.arrays) > 0, "no arrays")
      for place in range(min(len(found.arrays["config_feat"]) if kind == "tile" else 1, 3)):
        found.profile(place)
  return found


# ---- JSON files ----------------------------------------------------------------------------------


def _sound_config(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps(config.to_dict(run_config.RunConfig())).encode(),
          b'{"training": {"seed": 1}, "model": {"head_widths": [8], "model_options": {}}}']


def _read_config(folder: pathlib.Path) -> Any:
  found = config.from_dict(run_config.RunConfig, recipes.read(folder / "input.json"), source="x")
  for name, field, value in config.leaves(found):
    for element in value if isinstance(value, tuple) else (value,):
      if isinstance(element, (int, float)) and not isinstance(element, bool):
        _must(math.isfinite(element) and abs(element) <= 2**31, f"{name} is {element}")
  return found


def _read_layerdag_config(folder: pathlib.Path) -> Any:
  return config.from_dict(
      layerdag_settings.LayerDagConfig, recipes.read(folder / "input.json"), source="x")


def _sound_descriptor(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps({
      "name": "tile:x", "kind": "tile", "target": "t", "path": ".",
      "splits": {"train": 1, "valid": None}, "family_regex": r"^(?P<family>.+)_[0-9]+$",
      "groups": {"g": ["a", "b"]}, "has_runtimes": {"train": True}, "padding": 0,
      "files": {"train": ["train/a_0.npz"], "valid": []},
      "addresses": {"train": "http://localhost/x"}, "description": "x"}).encode()]


def _read_descriptor(folder: pathlib.Path) -> Any:
  found = registry.read_descriptor(folder / "input.json")
  _must(found.kind in ("tile", "layout") and found.splits, "kind or splits")
  found.facts  # pylint: disable=pointless-statement
  for split in found.splits:
    found.family("a" * 200)
    found.group("a" * 200)
    collections.find_files(found, split)
    found.fetch_hint(split)
  return found


def _sound_run_config(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps({
      "config": config.to_dict(run_config.RunConfig()), "hash": "0" * 16,
      "about": {"collection": "tile:x", "kind": "tile", "target": "t",
                "hlo_stage": "after_optimization", "element_types": ["f32"]}}).encode()]


def _read_run_config(folder: pathlib.Path) -> Any:
  directory = run_directory.RunDirectory(folder)
  directory.read_config()
  return directory.read_about()


def _sound_status(folder: pathlib.Path) -> list[bytes]:
  return [b'{"state": "training", "epoch": 3, "step": 12, "best_epoch": 2, "best_value": 0.5}']


def _read_status(folder: pathlib.Path) -> Any:
  found = run_directory.RunDirectory(folder).read_status()
  _must(isinstance(found.get("state", ""), str), "state")
  return found


def _sound_evidence(folder: pathlib.Path) -> list[bytes]:
  one = {"least_lead": None, "candidates": 5, "programs": 3, "faster": 0.5,
         "faster_interval": [0.1, 0.9], "speedup": 1.1, "speedup_interval": [1.0, 1.2],
         "speedup_half": [1.0, 1.3]}
  return [json.dumps({
      "split": "valid", "reason": "", "calibration": {
          "bins": [one, {**one, "least_lead": 0.5}], "programs": 3, "candidates": 10},
      "figures": [{"operation": "all", "programs": 3, "kendall_tau": 0.5, "top1_slowdown": 0.1,
                   "top5_slowdown": None}]}).encode()]


def _read_evidence(folder: pathlib.Path) -> Any:
  from tpugraphs_rank import files
  return evidence.Evidence.from_json(files.read_json(folder / "input.json"))


def _sound_synthetic(folder: pathlib.Path) -> list[bytes]:
  nodes = [{"operation": "parameter", "operands": [], "type": "f32", "shape": [8, 4],
            "equation": "", "starts": [], "axis": 0, "value": 0.0},
           {"operation": "exponential", "operands": [0], "type": "f32", "shape": [8, 4],
            "equation": "", "starts": [], "axis": 0, "value": 0.0},
           {"operation": "reduce-add", "operands": [1], "type": "f32", "shape": [8],
            "equation": "ab->a", "starts": [], "axis": 0, "value": 0.0}]
  return [json.dumps({"programs": [{"stem": "layerdag_reduce.1.f32", "nodes": nodes}]}).encode()]


def _read_synthetic(folder: pathlib.Path) -> Any:
  found = plans.read_synthetic(folder / "input.json")
  for program in found:
    _must(program.nodes, "no nodes")
    program.dataflow()
    _must(all(0 <= operand < place for place, node in enumerate(program.nodes)
              for operand in node.operands), "operands")
  return found


def _sound_indices(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps({"a": [0, 5, 5, 2], "b": [1]}).encode()]


def _sound_costs(folder: pathlib.Path) -> list[bytes]:
  return [json.dumps({"attribute": "operator", "costs": {
      "aten::mm": {"num_ops": 1000, "tensor_size": 64}}}).encode()]


# ---- the others ----------------------------------------------------------------------------------


def _sound_submission(folder: pathlib.Path) -> list[bytes]:
  return [b"ID,TopConfigs\n" + b"".join(
      f"{row.id},{';'.join(map(str, range(row.length)))}\n".encode()
      for row in small_submissions.EXPECTATION.rows)]


def _read_submission(folder: pathlib.Path) -> Any:
  data = (folder / "input.csv").read_bytes()
  faults = submission.validate(data, small_submissions.EXPECTATION)
  _must(bool(faults) != small_submissions.is_valid(data), "a submission was judged wrongly")
  return submission.read(folder / "input.csv")


def _sound_traces(folder: pathlib.Path) -> list[bytes]:
  found = []
  for trace in (samples.training_step(), samples.every_kind()):
    traces.write(folder / "sound.et", trace)
    found.append((folder / "sound.et").read_bytes())
  return found


def _sound_packed_traces(folder: pathlib.Path) -> list[bytes]:
  return [gzip.compress(content, mtime=0) for content in _sound_traces(folder)]


def _packed_trace(data: bytes, rng: random.Random) -> bytes:
  """A damaged trace that is compressed, or a damaged compressed one."""
  if rng.random() < 0.5:
    return mutators.raw(data, rng)
  return gzip.compress(mutators.protobuf(gzip.decompress(data), rng), 1, mtime=0)


def _sound_trace_texts(folder: pathlib.Path) -> list[bytes]:
  found = []
  for trace in (samples.training_step(), samples.every_kind()):
    traces.write(folder / "sound.json", trace)
    found.append((folder / "sound.json").read_bytes())
  return found


def _sound_trace_values(folder: pathlib.Path) -> list[bytes]:
  del folder
  tensor = [[3, 5, 0, 20, 4, "cuda:0"]]
  calls = [{"id": number, "name": name, "ctrl_deps": 1, "inputs": {"values": tensor},
            "outputs": {"values": tensor}, "attrs": [{"name": "tid", "type": "uint64", "value": 1}],
            "exclusive_dur": 2.5} for number, name in enumerate(
                ("aten::mm", "nccl:all_reduce", "record_param_comms"), start=2)]
  feeder = [{"Id": 1, "Name": "a", "NodeType": 4, "runtime": 3, "num_ops": 9, "tensor_size": "64"},
            {"Id": 2, "NodeType": 7, "data_deps": [1], "comm_type": "ALL_REDUCE", "comm_size": 9,
             "involved_dim": [True, False], "is_cpu_op": False, "note": {"a": [None]}}]
  return [json.dumps(value).encode() for value in (
      {"schema": "1.0.2-chakra.0.0.4", "pid": 7, "nodes": calls},
      {"workload_graph": feeder, "hostname": "x"})]


def _read_trace(folder: pathlib.Path) -> Any:
  path = folder / "input.et"
  trace = traces.read(path)
  summary.text(summary.summarize(trace, "job"))
  traces.write(folder / "again.et", trace)
  # As text, because a duration that is no number differs from itself.
  _must(str(traces.read(folder / "again.et").nodes) == str(trace.nodes), "a trace changed")
  return trace_graphs.to_dags([trace_graph.from_trace(trace, "job.0.et", reduced=True)])


def _sound_dags(folder: pathlib.Path) -> list[bytes]:
  dags.save(folder / "sound.npz", small_dags.graphs(3))
  return [(folder / "sound.npz").read_bytes()]


def _read_dags(folder: pathlib.Path) -> Any:
  found = dags.load(folder / "input.npz")
  _must((found.src < found.dst).all() and np.isfinite(found.y).all(), "edges or labels")
  dags.save(folder / "again.npz", found)
  return found


def _sound_normalizer(folder: pathlib.Path) -> list[bytes]:
  normalize.Normalizer.fit([synthetic.tile_graph(0)]).save(folder / "sound.npz")
  return [(folder / "sound.npz").read_bytes()]


def _read_normalizer(folder: pathlib.Path) -> Any:
  found = normalize.Normalizer.load(folder / "input.npz")
  rows = found.nodes(normalize.node_rows(synthetic.tile_graph(0)))
  _must(np.isfinite(rows).all() and (found.nodes.deviation > 0).all(), "scaling")
  return found


def _variables() -> Mapping[str, Any]:
  import tensorflow as tf
  return {"model": [tf.Variable(np.zeros([2, 3], np.float32)), tf.Variable(1.0)],
          "optimizer": [tf.Variable(7, dtype=tf.int64)]}


def _sound_checkpoint(folder: pathlib.Path) -> list[bytes]:
  from tpugraphs_rank.training import checkpoints
  checkpoints.save(folder / "sound.npz", _variables(), {
      "epoch": 3, "step": 12, "history": [{"epoch": 1, "loss": 0.5}]})
  return [(folder / "sound.npz").read_bytes()]


def _read_checkpoint(folder: pathlib.Path) -> Any:
  from tpugraphs_rank.training import checkpoints
  from tpugraphs_rank.training import epochs
  from tpugraphs_rank.training import stored_state
  variables = _variables()
  state = checkpoints.restore(folder / "input.npz", variables, lambda state: stored_state.check(
      epochs.Progress, state, "x", ("epoch", "step", "history")))
  for variable in variables["model"]:
    _must(np.isfinite(variable.numpy()).all(), "weights that are not finite")
  return state


def _sound_model(folder: pathlib.Path) -> list[bytes]:
  from tests.synthesis.layerdag import test_model
  model, _ = test_model.untrained()
  model.save(folder / "sound.npz")
  return [(folder / "sound.npz").read_bytes()]


def _read_model(folder: pathlib.Path) -> Any:
  from tpugraphs_rank.synthesis.layerdag import model
  build = model.generator_lib.Generator
  with mock.patch.object(model.generator_lib, "Generator",
                         lambda settings, facts: _built_once(build, settings, facts)):
    return model.load(folder / "input.npz")


_BUILT: dict[str, Any] = {}


def _built_once(build: Any, settings: Any, facts: Any) -> Any:
  """A generator, whose networks are built once for equal settings: building takes most time."""
  digest = hashlib.sha256(config.stable_hash(settings).encode())
  for name, array in sorted(facts.arrays().items()):
    digest.update(f"{name} {array.shape} {array.dtype.str}".encode() + array.tobytes())
  key = digest.hexdigest()
  if key not in _BUILT:
    _BUILT[key] = build(settings, facts)
  return _BUILT[key]


_ALL = (
    _Reader("graph", "input.npz", _sound_graphs, mutators.npz, _read_graph),
    _Reader("packed", "input.pack", _sound_packed, mutators.packed, _read_packed),
    _Reader("packed_index", "index.json", _sound_index, mutators.as_json, _read_index,
            checked=False),
    _Reader("hlo", "input.pb", _sound_programs, mutators.protobuf, _read_program),
    _Reader("raw", "input.pb", _sound_raw, mutators.protobuf, _read_program),
    _Reader("hlo_text", "input.txt", lambda folder: [_TEXT.encode()], mutators.text, _read_text),
    _Reader("candidates", "input.npz", _sound_candidates, mutators.npz, _read_candidates),
    _Reader("config", "input.json", _sound_config, mutators.as_json, _read_config),
    _Reader("layerdag_config", "input.json", lambda folder: [json.dumps(config.to_dict(
        layerdag_settings.LayerDagConfig())).encode()], mutators.as_json, _read_layerdag_config,
            checked=False),
    _Reader("descriptor", "input.json", _sound_descriptor, mutators.as_json, _read_descriptor),
    _Reader("run_config", "config.json", _sound_run_config, mutators.as_json, _read_run_config,
            checked=False),
    _Reader("status", "status.json", _sound_status, mutators.as_json, _read_status),
    _Reader("evidence", "input.json", _sound_evidence, mutators.as_json, _read_evidence,
            checked=False),
    _Reader("programs", "input.json", _sound_synthetic, mutators.as_json, _read_synthetic),
    _Reader("eval_indices", "input.json", _sound_indices, mutators.as_json,
           lambda folder: published.read_indices(folder / "input.json"), checked=False),
    _Reader("costs", "input.json", _sound_costs, mutators.as_json,
           lambda folder: costs.read(folder / "input.json"), checked=False),
    _Reader("submission", "input.csv", _sound_submission, mutators.text, _read_submission),
    _Reader("trace", "input.et", _sound_traces, mutators.protobuf, _read_trace),
    _Reader("trace_packed", "input.et", _sound_packed_traces, _packed_trace, _read_trace),
    _Reader("trace_text", "input.et", _sound_trace_texts, mutators.text, _read_trace),
    _Reader("trace_json", "input.et", _sound_trace_values, mutators.as_json, _read_trace),
    _Reader("dags", "input.npz", _sound_dags, mutators.npz, _read_dags),
    _Reader("normalizer", "input.npz", _sound_normalizer, mutators.npz, _read_normalizer),
    _Reader("checkpoint", "input.npz", _sound_checkpoint, mutators.npz, _read_checkpoint, True),
    _Reader("layerdag_model", "input.npz", _sound_model, mutators.npz, _read_model, True,
            checked=False),
)
READERS: Mapping[str, reading.Reader] = {
    **{reader.name: reader for reader in _ALL}, **state_readers.READERS}


def import_all() -> None:
  """Imports what readers import when they are called, so that forks of this process need not."""
  from tests.synthesis.layerdag import test_model  # noqa: F401
  from tpugraphs_rank.training import checkpoints  # noqa: F401
  from tpugraphs_rank.training import stored_state  # noqa: F401
