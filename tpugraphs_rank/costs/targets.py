"""Facts about the hardware that a collection was measured on.

The descriptor of a collection may state them under the key `target_facts`; other collections get
the facts of the kind of hardware that their target names.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import escaping


@dataclasses.dataclass(frozen=True)
class TargetFacts:
  """What the analytic costs need to know about the hardware.

  Attributes:
    cache_bytes: sizes of the caches or scratch memories in bytes, the fastest first.
    vector_bytes: bytes of a vector register.
    register_tile: (rows, columns) to which the hardware pads the two minor-most dimensions of every
      array, in elements; (1, 1) if it does not pad.
  """

  cache_bytes: tuple[int, ...]
  vector_bytes: int
  register_tile: tuple[int, int]


# Typical of server processors of x86-64 with AVX-512: 32 to 48 KiB and 1 to 2 MiB per core.
CPU = TargetFacts(cache_bytes=(32 * 1024, 1024 * 1024), vector_bytes=64, register_tile=(1, 1))
# TPU v3: 16 MiB of vector memory; vector registers of 8 x 128 elements of 4 bytes.
# Source: "A domain-specific supercomputer for training deep neural networks" (CACM 63(7), 2020).
TPU = TargetFacts(cache_bytes=(16 * 1024 * 1024,), vector_bytes=4096, register_tile=(8, 128))


def default(target: str) -> TargetFacts:
  """The facts of the kind of hardware that a collection's target names, such as "tpu_v3"."""
  return TPU if target.startswith("tpu") else CPU


def from_dict(values: Any, target: str) -> TargetFacts:
  """The facts in a descriptor; facts that it leaves out are those of `default`.

  Args:
    values: the value of the key `target_facts`.
    target: the collection's target.

  Raises:
    DataError: a key is unknown or a value is wrong; the message names the key.
  """
  if not isinstance(values, Mapping):
    raise errors.DataError(
        f"target_facts is {escaping.value(values)}; expected an object of facts")
  known = [field.name for field in dataclasses.fields(TargetFacts)]
  for key in values:
    if key not in known:
      raise errors.DataError(
          f"target_facts: unknown key {escaping.value(key)}{config.nearest(str(key), known)}; "
          f"known: {', '.join(known)}")
  size = lambda value: type(value) is int and 0 < value < 2 ** 53
  sizes = lambda value: isinstance(value, (list, tuple)) and all(map(size, value))
  checks = (
      ("cache_bytes", lambda value: sizes(value) and 1 <= len(value) <= 4
       and list(value) == sorted(value), "1 to 4 rising sizes in bytes"),
      ("vector_bytes", size, "a positive number of bytes"),
      ("register_tile", lambda value: sizes(value) and len(value) == 2,
       "two positive numbers of elements"),
  )
  for key, good, expected in checks:
    if key in values and not good(values[key]):
      raise errors.DataError(
          f"target_facts: {key} is {escaping.value(values[key])}; expected {expected}")
  changes: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
  return dataclasses.replace(default(target), **changes)
