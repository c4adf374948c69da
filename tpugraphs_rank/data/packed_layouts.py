"""Layouts encoded with a dictionary; written block by block and read row by row.

A search tries few layouts per node, so one code of at most 2 bytes replaces the 18 values of a node
in a configuration (72 bytes in an `.npz` file). If a program has more than 65,536 distinct layouts,
each tensor's 6 values get a code, and if that is not enough, each value. The arrays:

  dictionary   (D, w) int8, the distinct words, of w = 18, 6 or 1 values each
  codes        (c, nc * 18 / w) uint8 or uint16
  code_checks  (c,) uint32, the CRC-32 of each row of codes, because rows are read individually
  digests      (c,) uint64, as `LayoutGraph.config_digests`
  keys         (c,) uint32, as `LayoutGraph.config_keys`
"""

from collections.abc import Callable, Iterable, Iterator
import hashlib
import zlib

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import packed_format

_FEATURES = graphs.NUM_LAYOUT_FEATURES
# Values per word and dtype of the codes, ordered by bytes per node and configuration.
_ENCODINGS: tuple[tuple[int, type], ...] = (
    (18, np.uint8), (18, np.uint16), (6, np.uint8), (6, np.uint16), (1, np.uint8))
_TENSOR = 6
_VALUES = 7  # -1..5
_POWERS = _VALUES ** np.arange(_TENSOR)
_TENSORS = _VALUES ** _TENSOR

# Blocks of layouts: (r, nc, 18) integers from -1 to 5 of any dtype.
Blocks = Callable[[], Iterable[np.ndarray]]


class _Overflow(Exception):
  """There are more distinct words than codes."""


class _Dictionary:
  """Assigns codes to words, by first occurrence."""

  def __init__(self, width: int, dtype: type):
    """Creates an empty dictionary for words of `width` values and codes of this dtype."""
    self.width = width
    self._dtype = dtype
    self._limit = np.iinfo(dtype).max + 1
    # A word of up to 6 values is looked up in a table, a word of 18 values by bisection.
    self._code_of = np.full(_TENSORS, -1, np.int32) if width < _FEATURES else None
    self._known = np.zeros([0], np.int64)  # Sorted words.
    self._codes = np.zeros([0], np.int64)  # The codes of `_known`.
    self._order: list[np.ndarray] = []
    self._count = 0

  def encode(self, layouts: np.ndarray) -> np.ndarray:
    """(r, nc * 18 / width) codes of (r, nc, 18) int8 layouts.

    Raises:
      _Overflow: the dtype has too few codes.
    """
    values = numbers(layouts, self.width)
    if self._code_of is not None:
      codes = self._code_of[values]
      if (codes < 0).any():
        new = _first_occurrences(values[codes < 0])
        self._code_of[new] = self._numbered(new)
        codes = self._code_of[values]
    else:
      codes, missing = self._bisect(values)
      if missing.any():
        new = _first_occurrences(values[missing])
        added = self._numbered(new)
        known = np.concatenate([self._known, new])
        order = np.argsort(known)
        self._known = known[order]
        self._codes = np.concatenate([self._codes, added])[order]
        codes, _ = self._bisect(values)
    row = layouts.shape[1] * _FEATURES // self.width
    return codes.astype(self._dtype).reshape(len(layouts), row)

  def _bisect(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes of values, and a mask of the values that have no code yet."""
    if not len(self._known):
      return np.zeros(values.shape, np.int64), np.ones(values.shape, bool)
    place = np.minimum(np.searchsorted(self._known, values), len(self._known) - 1)
    return self._codes[place], self._known[place] != values

  def _numbered(self, new: np.ndarray) -> np.ndarray:
    codes = self._count + np.arange(len(new))
    self._order.append(new)
    self._count += len(new)
    if self._count > self._limit:
      raise _Overflow()
    return codes

  def array(self) -> np.ndarray:
    """(D, width) int8."""
    values = np.concatenate([np.zeros([0], np.int64), *self._order])
    digits = values[:, None] // _VALUES ** np.arange(self.width) % _VALUES
    return (digits - 1).astype(np.int8)


def numbers(layouts: np.ndarray, width: int) -> np.ndarray:
  """int64: each word as one number, without loss (7^18 is below 2^63)."""
  if width == 1:
    return layouts.reshape(-1).astype(np.int64) + 1
  # The matrix product is fast in float32, and exact because 7^6 is below 2^24.
  digits = layouts.reshape(-1, _TENSOR).astype(np.float32)
  tensors = (digits @ _POWERS.astype(np.float32)).astype(np.int64) + _POWERS.sum()
  if width == _TENSOR:
    return tensors
  return tensors.reshape(-1, 3) @ _TENSORS ** np.arange(3)


def _first_occurrences(values: np.ndarray) -> np.ndarray:
  distinct, first = np.unique(values, return_index=True)
  return distinct[np.argsort(first)]


def write(writer: packed_format.Writer, nodes: int, blocks: Blocks) -> None:
  """Writes the arrays of this module.

  Args:
    writer: the writer of the file.
    nodes: number of configurable nodes.
    blocks: called once for each encoding that is tried, until one has enough codes.
  """
  for width, dtype in _ENCODINGS:
    dictionary = _Dictionary(width, dtype)
    rows = _Rows()
    try:
      writer.add_blocks("codes", dtype, (nodes * _FEATURES // width,),
                        rows.coded(dictionary, blocks()))
    except _Overflow:
      continue
    writer.add("dictionary", dictionary.array())
    for name, array in rows.arrays().items():
      writer.add(name, array)
    return


class _Rows:
  """Collects the checksum, the digest and the key of each row."""

  def __init__(self) -> None:
    self._checks: list[int] = []
    self._digests: list[np.ndarray] = []
    self._keys: list[int] = []
    self._number_of: dict[bytes, int] = {}

  def coded(self, dictionary: _Dictionary, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of codes, block by block."""
    for block in blocks:
      layouts = block.astype(np.int8)
      codes = dictionary.encode(layouts)
      for row in codes:
        self._checks.append(zlib.crc32(row.data))
        # 128 bits: collisions are negligible for any possible number of rows.
        digest = hashlib.blake2b(row.data, digest_size=16).digest()
        self._keys.append(self._number_of.setdefault(digest, len(self._number_of)))
      self._digests.append(graphs.row_digests(layouts))
      yield codes

  def arrays(self) -> dict[str, np.ndarray]:
    """The collected arrays by name."""
    return {"code_checks": np.array(self._checks, np.uint32),
            "digests": np.concatenate([np.zeros([0], np.uint64), *self._digests]),
            "keys": np.array(self._keys, np.uint32)}


def check_table(reader: packed_format.Reader, configurations: int, nodes: int) -> None:
  """Refuses a file whose codes and dictionary do not fit each other; no array is read.

  Raises:
    DataError: they do not.
  """
  codes, dictionary = (reader.arrays.get(name) for name in ("codes", "dictionary"))
  width = dictionary.shape[-1] if dictionary is not None else 0
  if (codes is None or dictionary is None or dictionary.dtype != np.int8
      or (width, codes.dtype) not in {(width, np.dtype(kind)) for width, kind in _ENCODINGS}
      or len(dictionary.shape) != 2
      or codes.shape != (configurations, nodes * _FEATURES // width)):
    reader.fail("is damaged: its codes and its dictionary of layouts do not fit each other")


class PackedLayouts:
  """Reads the layouts of individual configurations from a file."""

  def __init__(self, reader: packed_format.Reader):
    self._reader = reader
    codes, dictionary = reader.arrays["codes"], reader.arrays["dictionary"]
    self._nodes = codes.shape[1] * dictionary.shape[1] // _FEATURES
    self._checked = False

  def __call__(self, rows: np.ndarray) -> np.ndarray:
    """(r, nc, 18) int8 of the configurations `rows` (r,).

    Raises:
      IndexError: there is no such configuration.
      DataError: a row, or the dictionary, is damaged; and as `Reader.mapped`.
    """
    rows = np.asarray(rows, np.int64)
    reader = self._reader
    codes = reader.rows("codes", rows)
    expected = reader.rows("code_checks", rows)
    for row, content, check in zip(rows, codes, expected.tolist()):
      if zlib.crc32(content.data) != check:
        reader.fail(f"is damaged: the checksum of the codes of configuration {row} is wrong")
    if not self._checked:
      reader.read("dictionary")  # Raises an error if it is damaged.
      self._checked = True
    if codes.size and codes.max() >= len(reader.mapped("dictionary")):
      reader.fail("is damaged: a layout has a code without a word")
    # `take` copies each word of 18 bytes as a whole, which indexing does not.
    layouts = reader.mapped("dictionary").take(codes.reshape(-1), axis=0)
    return layouts.reshape(len(rows), self._nodes, _FEATURES)
