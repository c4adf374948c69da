"""A synthetic tree of the five public TpuGraphs collections, in their exact format.

Names, numbers of files, keys, shapes, dtypes and irregularities are those of the public release;
only the graphs are small and synthetic. Runtimes follow a hidden function of graph and
configuration that a ranker can learn, with noise of 0.4 %.

  root = tmp_path
  public_tree.write_tree(root, collections=["layout:xla:random"])    # all its files: 1 s
  tpugraphs_rank.load_collection("layout:xla:random", "valid", root)

`<root>/npz/{tile/xla,layout/<source>/<search>}/<split>/<stem>.npz`, and for each layout collection
with its validation split `<root>/eval_indices/<source>_<search>.json`. All five collections take
about 10 s. A file is the same whichever others are written; another seed gives other numbers in
files of the same names.

Irregularities of the release, and where this tree has them:

- `config_runtime` of the test splits is all zero; their stems are hashes without program names;
- tile: training kernels 0, 1, 2, validation kernels 0 and 1, test kernels 0, 1, 2 have 2, 3 or 4
  configurations; every 11th kernel repeats configurations;
- layout: training program 0 has 20 configurations of which 19 are equal; test programs have 1,000
  configurations, except test program 2 of xla:default and 5 of nlp:random, which have 1,001;
- xla:random: 54 of the 76 programs of train and valid repeat the default configuration 40 times;
  `unet_3d.4x4.bf16` (valid) has 481 configurations, and its evaluation indices repeat them;
- every fifth graph has isolated nodes; feature column 1 is zero everywhere.
"""

from collections.abc import Mapping, Sequence
import hashlib
import itertools
import json
import pathlib
import tarfile
import zipfile
import zlib

import numpy as np

from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import opcodes

COLLECTIONS = ("tile:xla", "layout:xla:default", "layout:xla:random", "layout:nlp:default",
               "layout:nlp:random")
SPLITS = registry.SPLITS
EVAL_INDICES = 1000
SMALL_KERNELS = {"train": (2, 3, 4), "valid": (2, 4), "test": (2, 3, 4)}
DEFAULT_REPEATS = 40
# Of the 69 training programs of xla:random; with these, and six of seven in valid, 54 of 76.
REPEATING_TRAIN = range(1, 49)
ONE_CONFIG_MORE = {"layout:xla:default": 2, "layout:nlp:random": 5}
NOISE = 0.004
# (nodes, configurable nodes, configurations) of the graphs that `full_size` enlarges.
FULL_TILE = (120, 0, 6000)
FULL_LAYOUT_CONFIGS = (400, 8, 100_040)
FULL_LAYOUT_NODES = (10_000, 2251, 1000)

_OPCODES = ("parameter", "constant", "broadcast", "add", "multiply", "maximum", "copy", "transpose",
            "reduce", "reshape", "dot", "convolution")
_CONFIGURABLE = ("reshape", "dot", "convolution")
_TYPES = (10, 13)  # f32 and bf16, counted from column 2 on: invalid, pred, s8, ...
# Last column of each list with aggregates: the product, 1 for a list that is empty.
_PRODUCTS = (28, 44, 52, 60, 68, 76, 84, 112, 116, 120, 124, 128, 132)

_XLA_VALID = (
    "bert_pretraining.4x4.fp16", "resnet_v1_50_official_batch_128_bf16",
    "tf2_bert_pretrain_dynamic_batch_size", "inception_v3_batch_128_train", "unet_3d.4x4.bf16",
    "resnet50.4x4.fp16", "mlperf_bert_batch_24_2x2")
_NLP_VALID = (
    "albert_en_xlarge_batch_size_16_test", "bert_en_cased_L-12_H-768_A-12_batch_size_16_test",
    "bert_multi_cased_L-12_H-768_A-12_batch_size_16_train",
    "talking-heads_large_batch_size_16_train",
    *(f"small_bert_bert_en_uncased_{shape}" for shape in (
        "L-10_H-128_A-2_batch_size_32_test", "L-10_H-128_A-2_batch_size_64_train",
        "L-10_H-256_A-4_batch_size_32_test", "L-10_H-256_A-4_batch_size_64_train",
        "L-10_H-512_A-8_batch_size_64_test", "L-10_H-768_A-12_batch_size_16_train",
        "L-10_H-768_A-12_batch_size_32_test", "L-12_H-768_A-12_batch_size_64_train",
        "L-2_H-256_A-4_batch_size_32_train", "L-4_H-256_A-4_batch_size_32_train",
        "L-4_H-512_A-8_batch_size_32_train", "L-6_H-256_A-4_batch_size_16_train",
        "L-6_H-256_A-4_batch_size_64_train", "L-6_H-512_A-8_batch_size_64_test",
        "L-6_H-768_A-12_batch_size_16_test", "L-6_H-768_A-12_batch_size_32_train")))


def write_tree(root: pathlib.Path, seed: int = 0, collections: Sequence[str] = COLLECTIONS,
               splits: Sequence[str] = SPLITS,
               counts: Mapping[str, int] | None = None,
               full_size: bool = False) -> list[pathlib.Path]:
  """Writes the tree, with evaluation indices for the validation splits.

  Args:
    root: folder for `npz/` and `eval_indices/`.
    seed: seed of all numbers in the files.
    collections: the collections to write.
    splits: the splits to write.
    counts: maximum number of files per collection for a split; default: all files.
      `load_collection` rejects a public split with fewer files than the release has.
    full_size: give the last training kernel of tile:xla the configurations of a large one
      (`FULL_TILE`), the last training program of nlp:random those of the largest
      (`FULL_LAYOUT_CONFIGS`), and the last test program of xla:default the configurable nodes of
      the largest and 10,000 nodes (`FULL_LAYOUT_NODES`): together 220 MB unpacked, some 5 s.

  Returns:
    The graphs' files.
  """
  written = []
  for collection in collections:
    indices = {}
    for split in splits:
      names = stems(collection, split)
      limit = len(names) if counts is None else counts.get(split, len(names))
      for number, name in enumerate(names[:limit]):
        large = full_size and number == min(limit, len(names)) - 1
        arrays = graph_arrays(collection, split, number, seed, large)
        path = root / registry.get_collection(collection).path / split / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, arrays)
        written.append(path)
        if split == "valid":
          indices[name] = _evaluation_indices(len(arrays["config_runtime"]),
                                              _rng(seed, collection, name))
    if collection.startswith("layout:") and indices:
      path = root / "eval_indices" / f"{'_'.join(collection.split(':')[1:])}.json"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps(indices), encoding="utf-8")
  return written


def archives(root: pathlib.Path, target: pathlib.Path) -> dict[str, pathlib.Path]:
  """Packs a tree's splits as the public archives, such as `npz_layout_xla_random_valid.tar`.

  Members have paths from `npz/` on. The same tree gives the same bytes.

  Returns:
    The archives in `target` by name, one per split in `root`.
  """
  target.mkdir(parents=True, exist_ok=True)
  packed = {}
  for collection, split in itertools.product(COLLECTIONS, SPLITS):
    folder = root / registry.get_collection(collection).path / split
    if folder.is_dir():
      name = registry.get_collection(collection).addresses[split].rpartition("/")[2]
      with tarfile.open(target / name, "w") as tar:
        for path in sorted(folder.iterdir()):
          tar.add(path, arcname=path.relative_to(root).as_posix(), filter=_anonymous)
      packed[name] = target / name
  return packed


def stems(collection: str, split: str) -> list[str]:
  """The names of a split's graphs, as many as in the release."""
  count = registry.get_collection(collection).splits[split]
  if split == "test":
    return [hashlib.md5(f"{collection}:{number}".encode()).hexdigest() for number in range(count)]
  if collection == "tile:xla":
    # 68 programs train, 8 others validate, each with up to 90 kernels.
    programs = _XLA_VALID + ("nmt.2x2.fp32",) if split == "valid" else _xla_programs()[:68]
    kernels = (f"{program}_{_kernel_hash(program, number)}"
               for number, program in itertools.product(range(90), programs))
    return list(itertools.islice(kernels, count))
  if split == "valid":
    return list(_XLA_VALID if ":xla:" in collection else _NLP_VALID)
  return (_xla_programs() if ":xla:" in collection else _nlp_programs())[:count]


def graph_arrays(collection: str, split: str, number: int, seed: int = 0, large: bool = False
                 ) -> dict[str, np.ndarray]:
  """The arrays of the graph at this position of a split, by npz key, in the released dtypes."""
  rng = _rng(seed, collection, split, number)
  if collection == "tile:xla":
    arrays = _tile_arrays(rng, split, number, large and split == "train")
  else:
    arrays = _layout_arrays(rng, collection, split, number, large)
  if split == "test":
    arrays["config_runtime"] = np.zeros_like(arrays["config_runtime"])
  return arrays


def _rng(seed: int, *place: object) -> np.random.Generator:
  return np.random.default_rng([seed, zlib.crc32(repr(place).encode())])


def _kernel_hash(program: str, number: int) -> str:
  """A signed 64-bit number in hexadecimal, as in `alexnet_train_batch_32_-1bae27a41d70f4dc`."""
  digest = hashlib.sha256(f"{program}:{number}".encode()).digest()
  return f"{int.from_bytes(digest[:8], 'little', signed=True):x}"


def _xla_programs() -> list[str]:
  models = ("alexnet", "brax_es", "mask_rcnn", "mlperf_ssd", "ncf", "resnet50", "resnet_v2_152",
            "retinanet", "shapemask", "transformer", "xception", "wide_deep")
  return [f"{model}.{shape}.{dtype}" for shape in ("2x2", "4x4", "8x8")
          for dtype in ("bf16", "fp32") for model in models]


def _nlp_programs() -> list[str]:
  models = [f"small_bert_bert_en_uncased_L-{layers}_H-{64 * heads}_A-{heads}"
            for layers in (2, 4, 6, 8, 10, 12) for heads in (2, 4, 8, 12)]
  models += ["albert_en_base", "albert_en_large", "albert_en_xlarge", "albert_en_xxlarge",
             "bert_en_cased_L-12_H-768_A-12", "bert_en_uncased_L-24_H-1024_A-16",
             "bert_multi_cased_L-12_H-768_A-12", "electra_small", "electra_base",
             "experts_bert_pubmed", "experts_bert_wiki_books", "lambert_en_uncased",
             "mobilebert_uncased", "talking-heads_base", "talking-heads_large"]
  names = (f"{model}_batch_size_{size}_{mode}" for size in (16, 32, 64)
           for mode in ("train", "test") for model in models)
  return [name for name in names if name not in _NLP_VALID]


def _save(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Like np.savez_compressed, but deterministic, and twice as fast for small files."""
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    for key, array in arrays.items():
      with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
  """Removes the metadata that differs between machines and runs."""
  member.mtime = member.uid = member.gid = 0
  member.uname = member.gname = ""
  member.mode = 0o644
  return member


def _node_arrays(rng: np.random.Generator, num_nodes: int, isolated: bool) -> dict[str, np.ndarray]:
  """Nodes with operands first and the root last; isolated nodes precede all others."""
  ids = np.array([opcodes.opcode_id(name) for name in _OPCODES])
  # Every graph has instructions that may be configured: one in four.
  opcode = rng.choice(ids, num_nodes)
  opcode[::4] = rng.choice([opcodes.opcode_id(name) for name in _CONFIGURABLE], len(opcode[::4]))
  rank = rng.integers(2, 5, num_nodes)
  dims = 2.0 ** rng.integers(3, 10, [num_nodes, 6]) * (np.arange(6) < rank[:, None])
  feat = np.zeros([num_nodes, 140], np.float32)
  feat[-1, 0] = 1
  feat[np.arange(num_nodes), 2 + rng.choice(_TYPES, num_nodes)] = 1
  feat[:, list(_PRODUCTS)] = 1
  feat[:, 21:27] = dims
  feat[:, 27] = dims.sum(axis=1)
  feat[:, 28] = np.where(dims > 0, dims, 1).prod(axis=1)
  order = np.argsort(rng.random([num_nodes, 6]) + 9 * (np.arange(6) >= rank[:, None]), axis=1)
  feat[:, 134:140] = order * (np.arange(6) < rank[:, None])
  first = 1 + min(2, num_nodes - 2) * isolated
  users = np.repeat(np.arange(first, num_nodes), 2)
  operands = users - 1 - np.floor(
      rng.random(len(users)) * np.minimum(users - first + 1, 8)).astype(np.int64)
  return {"node_feat": feat, "node_opcode": opcode.astype(np.uint8),
          "edge_index": np.unique(np.stack([users, operands], axis=1), axis=0).astype(np.int64)}


def _measured(rng: np.random.Generator, cost: np.ndarray) -> np.ndarray:
  """Adds the noise of a measurement, and rounds to nanoseconds."""
  return np.maximum(1, cost * (1 + NOISE * rng.standard_normal(cost.shape))).astype(np.int64)


def _tile_arrays(rng: np.random.Generator, split: str, number: int, large: bool
                 ) -> dict[str, np.ndarray]:
  """A kernel. Tiles near a volume that depends on its root's type, and wide ones, are fast."""
  small = SMALL_KERNELS[split]
  if large:
    num_nodes, _, num_configs = FULL_TILE
  else:
    num_nodes = int(rng.integers(4, 10))
    num_configs = small[number] if number < len(small) else int(rng.integers(5, 25))
  arrays = _node_arrays(rng, num_nodes, isolated=number % 5 == 3)
  sides = np.arange(8, 8 + 8 * 80, 8) if large else 2 ** np.arange(3, 10)
  grid = np.array(list(itertools.product(sides, sides)), np.float64)
  tiles = grid[rng.permutation(len(grid))[:num_configs]]
  if number % 11 == 5 and not large:
    tiles[-2:] = tiles[:2]
  feat = np.zeros([len(tiles), 24], np.float32)
  for start, bounds in ((0, np.minimum(tiles, 32)), (8, tiles), (16, tiles[:, ::-1])):
    feat[:, start:start + 2] = bounds
    feat[:, start + 6] = bounds.sum(axis=1)
    feat[:, start + 7] = bounds.prod(axis=1)
  best = 13 if arrays["node_feat"][-1, 2 + _TYPES[1]] else 11
  cost = 1e3 * np.sqrt(arrays["node_feat"][-1, 27] + 1) * (
      1 + 0.1 * np.abs(np.log2(tiles.prod(axis=1)) - best) + 0.3 * (tiles[:, 0] < 32))
  arrays["config_feat"] = feat
  arrays["config_runtime"] = _measured(rng, cost)
  # Two runs, each with a measurement of the default configuration of its own.
  normalizers = _measured(rng, np.repeat(1.2 * np.median(cost), 2))
  arrays["config_runtime_normalizers"] = normalizers[np.arange(len(tiles)) * 2 // len(tiles)]
  return arrays


def _layout_arrays(rng: np.random.Generator, collection: str, split: str, number: int, large: bool
                   ) -> dict[str, np.ndarray]:
  """A program. Each configurable node is faster if one output dimension is minor-most."""
  num_nodes, num_configurable = int(rng.integers(12, 25)), int(rng.integers(3, 6))
  repeats = 0
  if split == "test":
    num_configs = 1000 + (ONE_CONFIG_MORE.get(collection) == number)
  elif split == "valid":
    num_configs = int(rng.integers(1001, 1040))
    repeats = DEFAULT_REPEATS * (collection == "layout:xla:random" and number > 0)
    if collection == "layout:xla:random" and stems(collection, split)[number] == "unet_3d.4x4.bf16":
      num_configs = 481
  else:
    num_configs = int(rng.integers(48, 81))
    repeats = DEFAULT_REPEATS * (collection == "layout:xla:random" and number in REPEATING_TRAIN)
    if number == 0:
      num_configs, repeats = 20, 19
  if large and (collection, split) == ("layout:xla:default", "test"):
    num_nodes, num_configurable, num_configs = FULL_LAYOUT_NODES
  if large and (collection, split) == ("layout:nlp:random", "train"):
    num_nodes, num_configurable, num_configs = FULL_LAYOUT_CONFIGS
  arrays = _node_arrays(rng, num_nodes, isolated=number % 5 == 3)
  able = np.flatnonzero(np.isin(arrays["node_opcode"],
                                [opcodes.opcode_id(name) for name in _CONFIGURABLE]))
  chosen = np.sort(rng.permutation(able)[:num_configurable]).astype(np.int64)
  feat, minor = _layouts(rng, num_configs, len(chosen))
  # Convolutions like their first dimension minor-most, the others their second; all are slower
  # otherwise, the more so the larger they are, and in between where the compiler chooses.
  wanted = (arrays["node_opcode"][chosen] != opcodes.opcode_id("convolution")).astype(np.int8)
  weight = np.log2(arrays["node_feat"][chosen, 28]) / 10
  penalty = np.where(minor == -1, 0.3, np.where(minor == wanted, 0.0, 1.0)) @ weight
  default = rng.permutation(num_configs)[:max(repeats, 1)]
  feat[default] = -1
  penalty[default] = 0.3 * weight.sum()
  arrays["node_config_ids"] = chosen
  arrays["node_config_feat"] = feat
  arrays["config_runtime"] = _measured(rng, 1e6 * len(chosen) * (1 + penalty / weight.sum()))
  inner = np.sort(rng.choice(np.arange(1, num_nodes), 2, replace=False))
  arrays["node_splits"] = np.array([[0, *inner, num_nodes]], np.int64)
  return arrays


def _layouts(rng: np.random.Generator, num_configs: int, num_configurable: int
             ) -> tuple[np.ndarray, np.ndarray]:
  """(c, nc, 18) float32 layouts and (c, nc) the outputs' minor-most dimensions; -1: default."""
  lists = np.full([7, 6], -1, np.float32)
  for row, order in enumerate(itertools.permutations(range(3))):
    lists[row, :3] = order
  pick = rng.integers(7, size=[num_configs, num_configurable, 3], dtype=np.int8)
  feat = lists[pick].reshape(num_configs, num_configurable, 18)
  return feat, lists[pick[:, :, 0], 0]


def _evaluation_indices(num_configs: int, rng: np.random.Generator) -> list[int]:
  """1,000 indices in no order; where there are fewer configurations, all of them, repeated."""
  order = rng.permutation(num_configs)
  times = -(-EVAL_INDICES // num_configs)
  if times == 1:
    return order[:EVAL_INDICES].tolist()
  counts = np.full(num_configs, times - 1)
  counts[:EVAL_INDICES - counts.sum()] += 1
  return np.repeat(order, counts).tolist()
