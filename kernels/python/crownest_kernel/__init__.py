"""The Python kernel: one interpreter that keeps its state between cells.

`driver.py` starts it as a fresh process, `zygote.py` forks it from a process that has imported
everything already. The wire format is `kernels/PROTOCOL.md`.

    frames        control socket: framing, JSON, who may write
    interrupts    SIGINT: when it raises, when it waits, when it is swallowed
    streams       sys.stdout, sys.stderr, fds 1-2 and their repair after each cell
    inputs        sys.stdin, input(), getpass(): lines from whoever started the run
    cells         source -> code objects; linecache
    execution     one run from `execute` to `done`
    queries       completion, inspection, variables: `completion`, `inspection`, on `expressions`
                  (looked up, never run) and `patience` (the tenant's code for a bounded time)
    tracebacks    exceptions -> error events
    display       values -> MIME bundles -> result, display and clear events
    figures       matplotlib; `inline` is the backend that matplotlib loads
    shell         IPython, loaded only for magics, `!`, `?` and formatters
    imports       what happens when user code imports matplotlib or IPython, or installs a package
    names         names that imports shall find side by side
    warmup        cells that a zygote runs so that its children find everything in memory
    privileges    system calls of a zygote's child on its way into a sandbox

Tenant code runs in this process. Nothing here is a security boundary: the sandbox is. What this
package owes is that a cell, however odd, ends in exactly one `done` and leaves a usable context.
"""
