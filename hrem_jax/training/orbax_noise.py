"""What the threads of Orbax print of a failure that it also raises where we wait for it: a page each, left out."""

import functools
import logging
import sys
import traceback


@functools.cache  # once per process, and for good: some threads find out when all is over
def hush() -> None:
  """Other messages, those of Orbax too, stay. Programs of ours call it: it is for the whole process."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)
  others = sys.unraisablehook

  def unraisablehook(found: 'sys.UnraisableHookArgs') -> None:
    # A callback of tensorstore finds that who waited for it is gone: a write beside it had failed.
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == 'Event loop is closed'):
      others(found)

  sys.unraisablehook = unraisablehook


def _is_news(record: logging.LogRecord) -> bool:
  """False for exceptions that go through Orbax, or are tensorstore's of a file."""
  if not record.exc_info:
    return True
  _, error, trace = record.exc_info
  is_orbax = any('orbax' in frame.filename for frame in traceback.extract_tb(trace))
  return not (is_orbax or 'os_error_code' in str(error))
