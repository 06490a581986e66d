"""Entry of a fresh interpreter: `python3 driver.py` with CROWNEST_KERNEL_FD in the environment.

Runs as the sandbox's user inside the sandbox, without any privilege.
"""

import os
import sys


def main():
    """Sets the process up and serves until init closes the control socket."""
    control_fd = int(os.environ.pop("CROWNEST_KERNEL_FD"))
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:
        sys.path.insert(0, here)
    from crownest_kernel import entry

    kernel = entry.prepare(here)
    kernel.attach(control_fd)
    kernel.serve()


main()
