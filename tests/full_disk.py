"""A disk that is full, made of the limit that the system has for the size of files."""

import contextlib
import os
import resource
import sys


@contextlib.contextmanager
def full_disk(room=1024):
    """No file may grow beyond `room` bytes.

    Bytecode of modules that are imported meanwhile, also by processes that are started, is not
    kept: Python 3.11 keeps half of it, and nobody can import the module from then on.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept, name = sys.dont_write_bytecode, "PYTHONDONTWRITEBYTECODE"
    sys.dont_write_bytecode, os.environ[name] = True, "1"
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = kept
        os.environ.pop(name)
