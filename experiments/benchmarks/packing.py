"""Packing, reading, opening, and training on packed collections that are larger than memory.

Everything with a peak of memory is measured in a separate process; see `one_case`.
"""

import itertools
import os
import pathlib
import time
from typing import Any, BinaryIO, cast, NamedTuple
import zipfile
import zlib

import numpy as np
import tqdm

from experiments.benchmarks import cases
from experiments.benchmarks import programs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import splits

_APP = "experiments.benchmark_packing"
# (configurations, configurable nodes, nodes) of the largest public files.
SHAPES: tuple[tuple[int, int, int], ...] = ((100_040, 121, 2_000), (10_760, 2_251, 15_000))
OPENED = 200
_STORED_BYTES = 72  # Per node and configuration in an .npz file.
_READ = 64
# Number of distinct configurations of a synthetic packed graph; most rows are the first one.
_POOL = 1024
# All layouts of a rank-4 tensor, and the compiler's default: 15,625 combinations of three tensors.
_LAYOUTS = np.array([(*order, -1, -1) for order in itertools.permutations(range(4))]
                    + [(-1,) * 6], np.float32)
# Rows are grouped in blocks; only one block in `_FILLED` is not sparse.
_BLOCK_ROWS, _FILLED = 512, 16


def packing(folder: pathlib.Path, part: int = 1) -> list[dict[str, Any]]:
  """Packs files of the largest public shapes, and reads random configurations.

  Only one in `part` of the shapes' configurations is used. `configs_bytes` is the size on disk per
  node and configuration; `file_bytes` is the same including a share of the graph. `read_*_ms` are
  for 64 random configurations.
  """
  rows = []
  for whole, configurable, nodes in tqdm.tqdm(SHAPES, desc="packing", disable=None):
    configs = whole // part
    source = folder / f"{configs}x{configurable}.npz"
    target = source.with_suffix(packed_graphs.SUFFIX)
    write_source(source, configs, configurable, nodes)
    measured = cases.run(_APP, "pack", source, target)
    reader = packed_format.Reader(target)
    graph = packed_graphs.open_graph(reader)
    assert isinstance(graph, packed_graphs.PackedLayoutGraph)
    samples = configs * configurable
    configs_bytes = sum(entry.nbytes for name, entry in reader.arrays.items() if name not in (
        "node_feat", "node_opcode", "edge_index", "node_config_ids"))
    rows.append({
        "configs": configs, "configurable": configurable, "nodes": nodes,
        "unpacked_gb": samples * _STORED_BYTES / 1e9, "npz_gb": source.stat().st_size / 1e9,
        **measured, "configs_bytes": configs_bytes / samples,
        "file_bytes": target.stat().st_size / samples, **_reading(graph)})
    source.unlink()
    target.unlink()
  return rows


def _reading(graph: packed_graphs.PackedLayoutGraph) -> dict[str, float]:
  """Milliseconds to read 64 random configurations, from disk ("cold") and from memory ("warm")."""
  rng = np.random.default_rng(0)
  measured = {}
  for name, cold, repeats in (("cold", True, 9), ("warm", False, 101)):
    times = []
    for _ in range(repeats):
      if cold:
        _drop_cache(graph.reader.path)
      rows = rng.integers(graph.num_configs, size=_READ)
      before = time.perf_counter()
      graph.layouts(rows)
      times.append(1000 * (time.perf_counter() - before))
    measured[f"read_{name}_ms"] = float(np.median(times))
    measured[f"read_{name}_worst_ms"] = max(times)
  return measured


def _drop_cache(path: pathlib.Path) -> None:
  """Asks the operating system to drop a file from its cache."""
  with open(path, "rb") as file:
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_source(path: pathlib.Path, configs: int, configurable: int, nodes: int) -> None:
  """Writes an `.npz` file of random rank-4 layouts in chunks."""
  rng = np.random.default_rng(0)
  base = programs.program(nodes, 0.13, 2)
  arrays = base.arrays()
  arrays["node_config_ids"] = np.sort(rng.permutation(nodes)[:configurable])
  arrays["config_runtime"] = rng.integers(10 ** 6, 10 ** 8, configs)
  del arrays["node_config_feat"]
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    for key, array in arrays.items():
      with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asarray(array))
    with archive.open("node_config_feat.npy", "w", force_zip64=True) as member:
      np.lib.format.write_array_header_1_0(member, {
          "descr": "<f4", "fortran_order": False, "shape": (configs, configurable, 18)})
      size = max(20_000_000 // (configurable * _STORED_BYTES), 1)
      for start in range(0, configs, size):
        picks = rng.integers(len(_LAYOUTS), size=(min(size, configs - start), configurable, 3))
        member.write(_LAYOUTS[picks].tobytes())


def opening(folder: pathlib.Path) -> dict[str, Any]:
  """Opens a collection of 200 packed graphs, and loads what training needs of all of them."""
  collection = folder / "collection.json"
  files.write_json(collection, {
      "name": "layout:opened", "kind": "layout", "target": "none", "splits": {"all": OPENED}})
  for number in tqdm.trange(OPENED, desc="opening", disable=None):
    graph = programs.program(2_000, 0.13, 200, seed=number)
    npz.save_graph(folder / f"g{number}.npz", graph)
  started = time.perf_counter()
  split = collections.load_collection(str(collection), "all", packed="always")
  pack_seconds = time.perf_counter() - started
  times = []
  for _ in range(5):
    started = time.perf_counter()
    split = collections.load_collection(str(collection), "all", packed="auto")
    opened = list(split)
    times.append(time.perf_counter() - started)
  if split.packs is None or len(opened) != OPENED:
    raise AssertionError("the collection was not read from packed files")
  started = time.perf_counter()
  splits.load(run_config.DataConfig(collection=str(collection), split_by="configuration"), "train")
  return {"graphs": OPENED, "pack_s": pack_seconds, "open_s": float(np.median(times)),
          "load_programs_s": time.perf_counter() - started}


def training(folder: pathlib.Path, times_memory: float = 10.0) -> dict[str, Any]:
  """Trains one epoch on a collection whose unpacked size is a multiple of this machine's memory.

  `batch_share` is the time for assembling batches as a share of the time of the epoch, including
  tracing and validation.
  """
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  unpacked = write_sparse(folder, int(times_memory * memory))
  measured = cases.run(_APP, "train", folder / "collection.json", folder / "run")
  on_disk = sum(path.stat().st_blocks * 512 for path in folder.rglob(f"*{packed_graphs.SUFFIX}"))
  return {"memory_gb": memory / 1e9, "unpacked_gb": unpacked / 1e9, "on_disk_gb": on_disk / 1e9,
          **measured}


class _Sparse:
  """A file that skips blocks of zeros when writing, so that they become holes."""

  def __init__(self, file: BinaryIO):
    self._file = file

  def write(self, content) -> int:
    content = memoryview(content).cast("B")
    if len(content) >= 4096 and not np.frombuffer(content, np.uint8).any():
      self._file.seek(len(content), os.SEEK_CUR)
      return len(content)
    return self._file.write(content)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


class _Pool(NamedTuple):
  """The configurations of a synthetic program in the format of packed files."""

  graph: graphs.LayoutGraph
  dictionary: np.ndarray
  codes: np.ndarray
  checks: np.ndarray
  digests: np.ndarray

  @classmethod
  def of(cls, graph: graphs.LayoutGraph) -> "_Pool":
    dictionary, codes = np.unique(
        graph.node_config_feat.astype(np.int8).reshape(-1, 18), axis=0, return_inverse=True)
    codes = codes.reshape(_POOL, -1).astype(np.uint16)
    codes[0] = 0  # Most rows use this one, as zeros.
    return cls(graph, dictionary, codes,
               np.array([zlib.crc32(row.data) for row in codes], np.uint32),
               graphs.row_digests(dictionary[codes]))


def write_sparse(folder: pathlib.Path, nbytes: int, configs: int = 100_040, nodes: int = 6_000
                 ) -> int:
  """Writes a packed collection without source files; most of its files are sparse.

  Args:
    folder: gets `collection.json`.
    nbytes: smallest unpacked size.
    configs: configurations of each training graph.
    nodes: nodes of each graph.

  Returns:
    Size in bytes of the unpacked training layouts.
  """
  kinds = [_Pool.of(programs.program(nodes, coverage, _POOL, seed))
           for seed, coverage in enumerate((0.12, 0.15, 0.18))]
  total, number = 0, 0
  folders = {split: folder / "packed" / "layout_sparse" / split for split in ("train", "valid")}
  keys: dict[str, dict[str, str]] = {"train": {}, "valid": {}}
  with tqdm.tqdm(total=nbytes, desc="writing", unit="B", unit_scale=True, disable=None) as bar:
    while total < nbytes or number < 4:
      kind, name = kinds[number % len(kinds)], f"g{number:04d}"
      # Validation scores all configurations, so its graphs have few.
      split, count = ("valid", 64) if number < 2 else ("train", configs)
      _write_packed(folders[split] / f"{name}{packed_graphs.SUFFIX}", kind, count, number)
      keys[split][name] = "synthetic"
      number += 1
      if split == "train":
        unpacked = count * kind.codes.shape[1] * _STORED_BYTES
        total += unpacked
        bar.update(unpacked)
  for split, listed in keys.items():
    files.write_json(folders[split] / "index.json", {"graphs": listed})
  files.write_json(folder / "collection.json", {
      "name": "layout:sparse", "kind": "layout", "target": "none",
      "splits": {split: len(listed) for split, listed in keys.items()}})
  return total


def _write_packed(path: pathlib.Path, pool: _Pool, configs: int, seed: int) -> None:
  """Writes a packed graph with configurations of a pool, most of them the first."""
  rng = np.random.default_rng(seed)
  picks = rng.integers(_POOL, size=configs)
  picks[np.arange(configs) // _BLOCK_ROWS % _FILLED > 0] = 0
  runtimes = 1_000_000 + 1_000 * picks + rng.integers(100, size=configs)
  _, first, keys = np.unique(picks, return_index=True, return_inverse=True)
  with files.atomic_write(path) as file:
    writer = packed_format.Writer(cast(BinaryIO, _Sparse(file)))
    for name in ("node_opcode", "edge_index", "node_config_ids"):
      writer.add(name, getattr(pool.graph, name))
    writer.add("node_feat", pool.graph.node_feat + np.float32(seed))
    writer.add("config_runtime", runtimes)
    writer.add("order", np.argsort(runtimes, kind="stable").astype(np.uint32))
    writer.add_blocks("codes", np.uint16, pool.codes.shape[1:], (
        pool.codes[picks[start:start + _BLOCK_ROWS]] for start in range(0, configs, _BLOCK_ROWS)))
    writer.add("dictionary", pool.dictionary)
    writer.add("code_checks", pool.checks[picks])
    writer.add("digests", pool.digests[picks])
    writer.add("keys", np.argsort(np.argsort(first))[keys].astype(np.uint32))
    writer.finish({"kind": "layout", "feature_padding": 0, "source": "synthetic",
                   "has_runtimes": True})


def one_case(case: str) -> dict[str, Any]:
  """Packs one file ("pack,SOURCE,TARGET"), or trains ("train,COLLECTION,RUN").

  Returns:
    Seconds, and the peak resident memory of this process, including mapped files.
  """
  what, source, target = case.split(",")
  started = time.perf_counter(), time.process_time()
  if what == "pack":
    packed_graphs.pack_graph(source, target)
    measured: dict[str, Any] = {"wall_s": time.perf_counter() - started[0],
                                "cpu_s": time.process_time() - started[1]}
  else:
    measured = _train(source, target)
  measured["peak_gb"] = cases.peak_gb()
  return measured


def _train(collection: str, run_dir: str) -> dict[str, Any]:
  from tpugraphs_rank.training import trainer  # Imports TensorFlow, which packing must not.
  config = config_lib.override(run_config.RunConfig(), {
      "data.collection": collection, "data.packed": "auto", "batch.batch_size": 4,
      "batch.max_configs": 16, "batch.lists_per_graph": 1, "batch.config_skew": 1.0,
      "model.hidden_width": 32, "training.epochs": 1, "training.tensorboard": False})
  started = time.perf_counter()
  training_ = trainer.Trainer(config)
  built = time.perf_counter()
  count = sum(1 for _ in map(training_.stepper.model.arrange, batches.training_batches(
      training_.train_graphs, config.batch, 0, 1)))
  batched = time.perf_counter()
  training_.train(run_dir)
  ended = time.perf_counter()
  return {"graphs": len(training_.train_graphs), "steps": count, "build_s": built - started,
          "batches_s": batched - built, "epoch_s": ended - batched,
          "batch_share": (batched - built) / (ended - batched)}
