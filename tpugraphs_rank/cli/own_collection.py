"""A collection of the user's own that grows by a program with each `tune`."""

import hashlib
import pathlib
import shutil
import tempfile
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import featurize
from tpugraphs_rank.cli import make_collection
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

_DESCRIPTOR = "collection.json"


def described(folder: files.PathLike) -> dict[str, Any]:
  """What the descriptor of a growing collection says of it; that of a new one if there is none.

  Raises:
    ConfigError: the folder has a collection that cannot grow.
    DataError: its descriptor is damaged.
  """
  path = pathlib.Path(folder) / _DESCRIPTOR
  if not path.exists():
    return {"name": "layout:own:tuned", "kind": "layout",
            "target": f"xla_cpu:{protocol.cpu_model()}", "hlo_stage": "before_optimization",
            "description": "Programs that `tune` has measured on this machine."}
  collection = registry.get_collection(path)
  if collection.kind != "layout" or set(collection.splits) != {registry.WHOLE} or (
      collection.padding):
    raise errors.ConfigError(
        f"{path} describes a collection of {collection.kind}s with the splits "
        f"{', '.join(collection.splits)} and the padding {collection.padding}; expected one of "
        "layouts that is not divided, with the padding 0: choose another folder")
  return {"name": collection.name, "kind": "layout", "target": collection.target,
          "hlo_stage": collection.hlo_stage, "family_regex": collection.family_regex,
          "description": collection.description}


def add(measured: pathlib.Path, folder: files.PathLike) -> make_collection.Written:
  """Adds measurements to a collection, which is created if it does not exist.

  Those of an earlier `tune` of the same program are replaced.

  Args:
    measured: the raw file of one program, `measured.pb` of `tune`.
    folder: the collection's folder.

  Raises:
    ConfigError: the folder has a collection that cannot grow.
    OutputError: the folder cannot be written.
  """
  values = described(folder)
  data = reading.read_raw(measured).modules[0]
  program = prepare.without_positions(tuning_pb2.ModuleTuningData(module=data.module))
  digest = hashlib.sha256(program.SerializeToString(deterministic=True)).hexdigest()
  stem = convert.unique_names([f"{data.module.name}-{digest[:8]}"])[0]
  with tempfile.TemporaryDirectory(prefix="tpugraphs_rank-") as temporary:
    named = pathlib.Path(temporary) / f"{stem}.pb"
    shutil.copyfile(measured, named)
    featurize.featurize([str(named)], str(folder), overwrite=True, strict=True)
  return make_collection.make_collection(folder, overwrite=True, **values)
