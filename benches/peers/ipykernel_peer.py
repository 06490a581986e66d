"""An ipykernel and its client, as a peer: one JSON line in, one JSON line out.

    {"op": "start"}                     a new kernel, until its first result  -> {"ms": 640.0}
    {"op": "run", "code": c, "n": 50}   that cell again and again             -> {"ms": [..]}
    {"op": "interrupt", "n": 5}         busy loops, until idle again          -> {"ms": [..]}
    {"op": "memory", "n": 3}            kernels that have imported pandas     -> {"mib": [..]}

The clock runs from the request to the idle status of that request, which is when a client has
everything. Ends, with its kernels, when stdin does.
"""

import json
import os
import sys
import time

from jupyter_client import KernelManager

ANSWER_SECONDS_MAX = 120


class Kernel:
    def __init__(self):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(stderr=open(os.devnull, "w"))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=ANSWER_SECONDS_MAX)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def begin(self, code):
        return self.client.execute(code, store_history=True)

    def messages(self, request):
        """What belongs to a request, until it is over."""
        while True:
            message = self.client.get_iopub_msg(timeout=ANSWER_SECONDS_MAX)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message

    def run(self, code):
        began = time.perf_counter()
        kinds = [message["msg_type"] for message in self.messages(self.begin(code))]
        took = (time.perf_counter() - began) * 1e3
        if "error" in kinds:
            raise RuntimeError("the cell failed: %r" % code)
        return took

    def interrupt(self):
        request = self.begin("print('go', flush=True)\nwhile True: pass")
        began = None
        interrupted = False
        for message in self.messages(request):
            if message["msg_type"] == "stream" and began is None:
                began = time.perf_counter()
                self.manager.interrupt_kernel()
            interrupted |= message["content"].get("ename") == "KeyboardInterrupt"
        took = (time.perf_counter() - began) * 1e3
        if not interrupted:
            raise RuntimeError("the loop was not interrupted")
        return took

    def pss_mib(self):
        with open("/proc/%d/smaps_rollup" % self.manager.provisioner.process.pid) as file:
            fields = dict(line.split(":", 1) for line in file if line.endswith("kB\n"))
        return int(fields["Pss"].split()[0]) / 1024


def start():
    began = time.perf_counter()
    kernel = Kernel()
    kernel.run("1+1")
    took = (time.perf_counter() - began) * 1e3
    kernel.close()
    return took


def memory(count):
    kernels = []
    try:
        for _ in range(count):
            kernels.append(Kernel())
            kernels[-1].run("import pandas, matplotlib.pyplot")
        return [kernel.pss_mib() for kernel in kernels]
    finally:
        for kernel in kernels:
            kernel.close()


def main():
    kernel = None
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "start":
                answer = {"ms": [start()]}
            elif request["op"] == "memory":
                answer = {"mib": memory(request["n"])}
            else:
                kernel = kernel or Kernel()
                if request["op"] == "run":
                    times = [kernel.run(request["code"]) for _ in range(request["n"])]
                else:
                    times = [kernel.interrupt() for _ in range(request["n"])]
                answer = {"ms": times}
            print(json.dumps(answer), flush=True)
    finally:
        if kernel:
            kernel.close()


main()
