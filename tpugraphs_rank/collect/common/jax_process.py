"""JAX in a measuring process, under the protocol's settings."""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import protocol


def import_jax(environment: Mapping[str, str] = protocol.ENVIRONMENT,
               cache: pathlib.Path | None = None) -> Any:
  """Imports JAX under the protocol's settings.

  Args:
    environment: what must have been set when the process started.
    cache: folder that keeps everything that is compiled; None: nothing is kept.

  Raises:
    ConfigError: the environment was not set before the process started.
  """
  wrong = [name for name, value in environment.items() if os.environ.get(name) != value]
  if wrong:
    raise errors.ConfigError(
        f"{', '.join(wrong)} must be set as the protocol says before JAX is imported; start the "
        "measurement with python -m tpugraphs_rank.collect.tile.collect or python -m tpugraphs_rank.collect.layout.collect")
  import jax  # pylint: disable=import-outside-toplevel
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  jax.config.update("jax_enable_compilation_cache", cache is not None)
  if cache is not None:
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  return jax
