"""A Jupyter kernel and its client, as a peer: one JSON line in, one JSON line out.

    {"op": "start"}                     a new kernel, until its first result  -> {"ms": [640.0]}
    {"op": "run", "code": c, "n": 50}   that cell again and again             -> {"ms": [..]}
    {"op": "interrupt", "n": 5}         busy loops, until idle again          -> {"ms": [..]}
    {"op": "memory", "n": 3}            kernels that have imported pandas     -> {"mib": [..]}

The argument is one of KERNELS. `run` may have "says", what the cell has to answer or print; `start`
takes "code" and "says" too. A cell that ends without it is not timed but counted: "missed" in the
answer (Deno now and then sends no result). A request that fails is answered with {"error": why}.

The clock runs from the request to the idle status of that request, which is when a client has
everything. Ends, with its kernels, when stdin does.
"""

import json
import os
import queue
import sys
import tempfile
import time

from jupyter_client import KernelManager

ANSWER_SECONDS_MAX = 120
# A kernel that is not there after this long has a launcher that does not work here.
READY_SECONDS_MAX = 60
# A result that is not there this long after its cell has ended does not come.
LATE_SECONDS_MAX = 2

BIN = os.path.dirname(sys.executable)
# How each is started; None: the package itself has installed a specification.
KERNELS = {
    "python3": None,
    "deno": [BIN + "/deno", "jupyter", "--kernel", "--conn", "{connection_file}"],
    "bash_kernel": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
    "java": None,
    "gonb": [BIN + "/gonb", "--kernel", "{connection_file}"],
}


def specify(name):
    """Writes the specification where jupyter_client looks first."""
    if KERNELS[name] is None:
        return
    root = tempfile.mkdtemp(prefix="crownest-bench-kernels-")
    directory = os.path.join(root, "kernels", name)
    os.makedirs(directory)
    with open(os.path.join(directory, "kernel.json"), "w") as file:
        json.dump({"argv": KERNELS[name], "display_name": name, "language": name}, file)
    os.environ["JUPYTER_PATH"] = root


class Kernel:
    def __init__(self, name):
        self.manager = KernelManager(kernel_name=name)
        silent = open(os.devnull, "w")
        self.manager.start_kernel(stdout=silent, stderr=silent)
        self.client = self.manager.client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=READY_SECONDS_MAX)
        except BaseException:
            self.close()
            raise

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

    def run(self, code, says=None):
        began = time.perf_counter()
        request = self.begin(code)
        said = ""
        for message in self.messages(request):
            if message["msg_type"] == "error":
                raise RuntimeError("%r failed: %r" % (code, message["content"]))
            said += text_of(message["content"])
        while says is not None and says not in said:
            # Deno at times says that it is idle before it sends what came of a cell.
            try:
                message = self.client.get_iopub_msg(timeout=LATE_SECONDS_MAX)
            except queue.Empty:
                return None
            if message["parent_header"].get("msg_id") == request:
                said += text_of(message["content"])
        return (time.perf_counter() - began) * 1e3

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


def text_of(content):
    """What a message prints, or the text of its value; the echo of the code is neither."""
    return content.get("text") or content.get("data", {}).get("text/plain", "")


def start(name, code, says):
    began = time.perf_counter()
    kernel = Kernel(name)
    try:
        took = kernel.run(code, says)
        return took and (time.perf_counter() - began) * 1e3
    finally:
        kernel.close()


def memory(name, count):
    kernels = []
    try:
        for _ in range(count):
            kernels.append(Kernel(name))
            kernels[-1].run("import pandas, matplotlib.pyplot")
        return [kernel.pss_mib() for kernel in kernels]
    finally:
        for kernel in kernels:
            kernel.close()


def timed(times):
    came = [time for time in times if time is not None]
    return {"ms": came, "missed": len(times) - len(came)}


class Peer:
    def __init__(self, name):
        self.name = name
        self.kernel = None

    def close(self):
        if self.kernel:
            self.kernel.close()

    def answer(self, request):
        code, says = request.get("code", "1+1"), request.get("says")
        if request["op"] == "start":
            return timed([start(self.name, code, says)])
        if request["op"] == "memory":
            return {"mib": memory(self.name, request["n"])}
        self.kernel = self.kernel or Kernel(self.name)
        if request["op"] == "run":
            return timed([self.kernel.run(code, says) for _ in range(request["n"])])
        return {"ms": [self.kernel.interrupt() for _ in range(request["n"])]}


def main():
    # gonb looks for goimports there.
    os.environ["PATH"] = os.pathsep.join([BIN, os.environ["PATH"]])
    specify(sys.argv[1])
    peer = Peer(sys.argv[1])
    try:
        for line in sys.stdin:
            try:
                answer = peer.answer(json.loads(line))
            except Exception as error:
                answer = {"error": "%s: %s" % (type(error).__name__, error)}
            print(json.dumps(answer), flush=True)
    finally:
        peer.close()


main()
