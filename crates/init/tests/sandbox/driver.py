"""A driver for tests: the protocol of kernels/PROTOCOL.md, and a few ways to break it."""
import io, json, os, signal, socket, struct, sys, time

sock = socket.socket(fileno=int(os.environ.pop("CROWNEST_KERNEL_FD")))
os.set_inheritable(sock.fileno(), False)
state = {"count": 0}


def raw(data):
    sock.sendall(data)


def say(event, **fields):
    data = json.dumps({"ev": event, **fields}).encode()
    raw(struct.pack(">I", len(data)) + data)


def read_exactly(count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def read_frame():
    return json.loads(read_exactly(struct.unpack(">I", read_exactly(4))[0]))


def ask(prompt):
    """A line from whoever may answer; None is the end of the file."""
    say("input", run=names["run"], prompt=prompt, password=False)
    # An interrupt is announced by a frame of its own.
    while (reply := read_frame())["op"] != "input_reply":
        pass
    return reply["value"]


def swallow(*_):
    pass


signal.signal(signal.SIGINT, swallow)
if "DRIVER_FAILS" in os.environ:
    os._exit(5)
if "DRIVER_SILENT" not in os.environ:
    say("ready", language="test", version="1")
names = {"say": say, "raw": raw, "state": state, "sock": sock, "run": 0, "ask": ask}
while True:
    op = read_frame()
    if op["op"] == "start":
        os.chdir(op["cwd"])
        os.environ.update(op["env"])
        continue
    names["run"] = run = op["run"]
    names["frame"] = state["op"] = op
    status = "ok"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if op["op"] == "query":
            # A cell has defined what is answered.
            names["answering"](op)
        else:
            state["count"] += 1
            exec(compile(op["code"], "<cell>", "exec"), names)
    except KeyboardInterrupt:
        status = "interrupted"
    except Exception as error:
        status = "error"
        say("error", run=run, name=type(error).__name__, message=str(error), traceback=[])
    signal.signal(signal.SIGINT, swallow)
    sys.stdout.flush()
    sys.stderr.flush()
    say("done", run=run, status=status, count=state["count"], cpu_us=1)
