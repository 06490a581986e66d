"""Attacks with what an interpreter may say to init: forged, broken, endless."""

from __future__ import annotations

from arena import Arena, text
from python_descriptors import CONTROL, control
from table import Attack, Json

FRAME_BYTES_MAX = 12 * 1024 * 1024
OUTPUTS_MAX = 256

DONE = "say({'ev': 'done', 'run': kernel.run, 'status': 'ok', 'count': 77})"


def bad_frame(name: str, does: str, what: str) -> Attack:
    """A frame that is none costs the context."""
    return Attack(
        name=name,
        does=does,
        code=f"{CONTROL}\n{what}\ntime.sleep(30)",
        outcome="context_died",
        error="ContextDied",
        message="bad_frame",
        kept=False,
    )


def forged_count(arena: Arena, run: Json) -> None:
    assert run["executionCount"] == 77, run


def forged_result(arena: Arena, run: Json) -> None:
    assert [o["value"] for o in run["outputs"]] == ["forged"], run["outputs"]
    assert arena.run("1 + 1", arena.other)["executionCount"] == 2, "and of no other context"


def counted_outputs(total: int):
    def check(arena: Arena, run: Json) -> None:
        kept, omitted = len(run["outputs"]), run.get("outputsOmitted", 0)
        assert kept <= OUTPUTS_MAX and kept + omitted == total, (kept, omitted)

    return check


def busy_until_its_timeout(arena: Arena) -> None:
    """It claimed to be done and is not: the next run waits for it, no longer than it may."""
    after = arena.run("kept", timeoutMs=700)
    assert (after["outcome"], after["error"]["name"]) == ("timed_out", "TimeoutError"), after


def next_run_is_interrupted(arena: Arena) -> None:
    busy_until_its_timeout(arena)
    after = arena.run("1 + 1")
    assert after["outcome"] == "completed", after


def said_late(arena: Arena) -> None:
    """What it printed after its own `done` is a later run's, or counted as nobody's."""
    for _ in range(100):
        after = arena.run("1 + 1")
        if "late" in text(after) or after.get("backgroundDroppedBytes"):
            return
    raise AssertionError("what was printed late is nowhere")


def the_largest_arrives(arena: Arena, run: Json) -> None:
    """Above what is shown inline: rejected with the reason, and not the context's death."""
    assert [(o["kind"], o.get("truncated")) for o in run["outputs"]] == [("inline", True)], str(
        run["outputs"]
    )[:500]


FRAMES = [
    bad_frame("frame of zero bytes", "sends a frame of length 0", "os.write(control, bytes(4))"),
    bad_frame("frame of 4 GiB", "announces 4,294,967,295 bytes", "os.write(control, b'\\xff' * 4)"),
    bad_frame(
        "frame above the limit",
        "announces one byte more than the 12 MiB of a frame",
        f"os.write(control, struct.pack('>I', {FRAME_BYTES_MAX} + 1))",
    ),
    bad_frame("frame that is not JSON", "sends text that is no JSON", "say(b'nonsense')"),
    bad_frame("frame that is no object", "sends a JSON array", "say([1, 2])"),
    bad_frame(
        "number that is none",
        "ends its run with the number 1e999",
        'say(b\'{"ev":"done","run":1e999,"status":"ok","count":1}\')',
    ),
    bad_frame(
        "run below zero",
        "ends the run -1",
        "say({'ev': 'done', 'run': -1, 'status': 'ok', 'count': 1})",
    ),
    bad_frame(
        "keys twice",
        "sends a frame with each key twice",
        'say(b\'{"ev":"done","ev":"ready","run":1,"run":2}\')',
    ),
    bad_frame(
        "frame of 100,000 levels",
        "nests an unknown event 100,000 deep",
        "say(b'{\"x\":' * 100_000 + b'1' + b'}' * 100_000)",
    ),
    bad_frame(
        "lone surrogate", "names an event by half a character", 'say(b\'{"ev":"\\\\ud800"}\')'
    ),
    bad_frame("frame that is not UTF-8", "sends JSON with a byte 0xFF", 'say(b\'{"ev":"\\xff"}\')'),
    Attack(
        name="frame at the limit",
        does="displays a text in a frame of exactly 12 MiB",
        code=control("""
            head = '{"ev":"display","run":%d,"metadata":{},"data":{"text/plain":"' % kernel.run
            say((head + 'x' * (12582912 - len(head) - 3) + '"}}').encode())
        """),
        sees="the text, cut to what is shown inline and marked `truncated`",
        proof=the_largest_arrives,
    ),
    Attack(
        name="half a frame",
        does="announces 1,000 bytes, sends one and waits",
        code=control("""
            os.write(control, struct.pack('>I', 1000) + b'{')
            time.sleep(30)
        """),
        outcome="timed_out",
        error="TimeoutError",
        message="state is lost",
        timeout_ms=500,
        kept=False,
    ),
    Attack(
        name="half a frame and exit",
        does="announces 12 MiB, sends half and exits",
        code=control("""
            os.write(control, struct.pack('>I', 12582912))
            data = bytes(6 << 20)
            while data: data = data[os.write(control, data):]
            os._exit(3)
        """),
        outcome="context_died",
        error="ContextDied",
        message="exited with code 3",
        kept=False,
        on_host=None,
    ),
    Attack(
        name="forged end of its own run",
        does="sends `done` for its own run with a count of 77, then ends as well",
        code=control("""
            say({'ev': 'done', 'run': kernel.run, 'status': 'ok', 'count': 77})
        """),
        sees="the forged count: what a run says about itself is the run's word",
        proof=forged_count,
    ),
    Attack(
        name="forged end, then prints on",
        does="sends `done`, then prints for another while",
        code=control("""
            say({'ev': 'done', 'run': kernel.run, 'status': 'ok', 'count': 77})
            for _ in range(50): print('late', flush=True); time.sleep(0.01)
        """),
        sees="its output up to the forged end; what comes later is the next run's",
        proof=forged_count,
        aftermath=said_late,
    ),
    Attack(
        name="forged end, then never ends",
        does="sends `done`, then spins; the next run of that context has a timeout",
        code=control("""
            say({'ev': 'done', 'run': kernel.run, 'status': 'ok', 'count': 77})
            while True: pass
        """),
        sees="the forged end; the next run is `timed_out`, and the one after works",
        proof=forged_count,
        aftermath=next_run_is_interrupted,
        kept=True,
    ),
    Attack(
        name="forged results for every run",
        does="sends results and ends for the run numbers 0 to 5,000",
        code=control("""
            mine = kernel.run
            for run in [*range(5000), mine]:
                data = {'text/plain': 'forged'}
                say({'ev': 'result', 'run': run, 'data': data, 'metadata': {}, 'count': 9})
                say({'ev': 'done', 'run': run, 'status': 'ok', 'count': 77})
        """),
        sees="the forgery of its own run and of no other",
        proof=forged_result,
    ),
    Attack(
        name="says ready again",
        does="sends a second `ready`, as another language",
        code=control("""
            say({'ev': 'ready', 'language': 'cobol', 'version': '9'})
        """),
        sees="nothing: it is dropped",
    ),
    Attack(
        name="flood of clears",
        does="sends 10,000 `clear` events",
        code=control("""
            for _ in range(10_000): say({'ev': 'clear', 'run': kernel.run, 'wait': True})
            'told'
        """),
        sees="the value that comes after",
        proof=lambda arena, run: told(run),
    ),
    Attack(
        name="flood of unknown events",
        does="sends 100,000 events that nobody knows",
        code=control("""
            for _ in range(100_000): say(b'{"ev":"shutdown","run":1}')
        """),
        sees="nothing: they are dropped and counted",
    ),
    Attack(
        name="flood of displays",
        does="sends 50,000 display events as fast as it can",
        code=control("""
            one = {'ev': 'display', 'run': kernel.run, 'data': {'text/plain': 'x' * 100}}
            one = json.dumps(one).encode()
            for _ in range(50_000): say(one)
        """),
        sees="256 outputs, and `outputsOmitted` with the number of the others",
        proof=counted_outputs(50_000),
    ),
    Attack(
        name="flood of updates",
        does="replaces the same display 20,000 times",
        code="""
            handle = display('first', display_id=True)
            for i in range(20_000): handle.update(i)
        """,
        sees="the last state",
        proof=lambda arena, run: last_update(run),
    ),
    Attack(
        name="JSON of 100,000 levels",
        does="sends a display whose data is nested 100,000 deep",
        code=control("""
            head = b'{"ev":"display","run":%d,"data":{"application/json":' % kernel.run
            say(head + b'[' * 100_000 + b']' * 100_000 + b'}}')
        """),
        sees="nothing of it: it is dropped",
        outcome="completed",
        proof=lambda arena, run: no_deep_output(run),
    ),
    Attack(
        name="steals the next frame",
        does="leaves a thread that reads the control socket in the interpreter's place",
        code=control("""
            import threading
            r = threading.Event()
            def steal():
                r.set()
                while True: os.read(control, 65536)
            threading.Thread(target=steal, daemon=True).start(); r.wait(); None
        """),
        sees="the stolen run is `timed_out`; the one after has a fresh interpreter",
        aftermath=lambda arena: stolen(arena),
        kept=False,
    ),
]


def told(run: Json) -> None:
    assert [o["value"] for o in run["outputs"]] == ["told"], run["outputs"]


def last_update(run: Json) -> None:
    assert [o["value"] for o in run["outputs"]] == ["19999"], str(run["outputs"])[:500]


def no_deep_output(run: Json) -> None:
    assert run["outputs"] == [] or run["outputs"][0]["kind"] == "rejected", str(run["outputs"])[
        :500
    ]


def stolen(arena: Arena) -> None:
    """The interpreter reads as well: it takes a few runs until the thief has one."""
    for _ in range(50):
        after = arena.run("1 + 1", timeoutMs=500)
        if after["outcome"] != "completed":
            break
    assert (after["outcome"], after["error"]["name"]) == ("timed_out", "TimeoutError"), after
