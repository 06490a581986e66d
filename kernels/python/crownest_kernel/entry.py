"""What a fresh driver and a zygote do alike, once, before the first cell."""

import faulthandler
import os
import sys


def prepare(kernel_directory):
    """A kernel that is ready for attach(). Programs import from the working directory, never from
    the kernel's own."""
    from .execution import Kernel

    kernel = Kernel()
    sys.path[:] = ["", *(entry for entry in sys.path if entry not in ("", kernel_directory))]
    sys.argv[:] = [""]
    # A crash in a C extension says on stderr where it was.
    faulthandler.enable(file=2)
    for name in [name for name in os.environ if name.startswith("CROWNEST_")]:
        del os.environ[name]
    return kernel
