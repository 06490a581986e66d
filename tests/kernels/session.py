"""Conformance sessions: their files, how one is run against a back end, and what must come of it.

The format is in kernels/conformance/README.md. Owns reading, checking and comparing. Does not own
how a driver is started or a server is spoken to: a back end does that (`backends.py`).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "kernels" / "conformance"
STEP_SECONDS_MAX = 60.0
# How much of a text a failure shows.
SHOWN_CHARS_MAX = 2_000
DIRECTORY_MARK = "@DIR@"
ESCAPE = "\x1b"

SCENARIO_FIELDS = {"steps", "env", "needs_network", "seconds", "only", "not_applicable", "waits_for"}
ACTIONS = ("code", "query", "make_file", "await_file")
RUN_FIELDS = {"language", "cwd", "interrupt_after", "input", "fresh"}
EXPECTED_OF_RUN = {
    "status", "stdout", "stderr", "result", "displays", "error", "notices", "background", "death",
}  # fmt: skip
QUERY_FIELDS = {"code", "cursor", "detail", "limit"}
EXPECTED_OF_QUERY = {
    "status", "matches", "lacks", "kinds", "replaces", "found", "data", "variables", "exactly",
}  # fmt: skip
TEXT_FIELDS = {"contains", "lacks", "matches", "bytes", "sha256", "any"}
BUNDLE_FIELDS = {"text", "mime", "contains", "data", "any", "id", "update", "clear", "wait"}
ERROR_FIELDS = {"name", "message", "traceback", "line"}


@dataclass
class Outcome:
    """What a back end saw of one step. None: this back end cannot tell."""

    status: str | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    background: dict[str, bytes] | None = field(default_factory=dict)
    result: dict[str, Any] | None = None
    displays: list[dict[str, Any]] | None = field(default_factory=list)
    error: dict[str, Any] | None = None
    notices: list[str] | None = field(default_factory=list)
    prompts: list[tuple[str, bool]] = field(default_factory=list)
    death: dict[str, int] | None = None
    answer: dict[str, Any] | None = None
    # The server has its own words for runs that were interrupted or lost their interpreter.
    server_words: bool = False


class Malformed(Exception):
    """A file of sessions that does not keep to the format."""


# === reading


def languages() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "scenarios")


def required() -> dict[str, dict[str, Any]]:
    return tomllib.loads((FOLDER / "scenarios.toml").read_text())


def read(language: str) -> dict[str, dict[str, Any]]:
    """The scenarios of a language by name, each checked."""
    whole = tomllib.loads((FOLDER / f"{language}.toml").read_text())
    if whole.get("language") != language or set(whole) != {"language", "scenario"}:
        raise Malformed(f"{language}.toml: `language` and `scenario`, nothing else")
    scenarios = whole["scenario"]
    for name, scenario in scenarios.items():
        check(f"{language}.{name}", scenario, required().get(name, {}))
    return scenarios


def check(place: str, scenario: dict[str, Any], demanded: dict[str, Any]) -> None:
    """Raises for fields that do not exist, and for a session that misses its point."""

    def known(what: str, given: Any, fields: set[str]) -> None:
        if unknown := set(given) - fields:
            raise Malformed(f"{place}: {what} has no field {sorted(unknown)}")

    known("a scenario", scenario, SCENARIO_FIELDS)
    if "not_applicable" in scenario:
        if len(scenario) > 1 or not scenario["not_applicable"].strip():
            raise Malformed(f"{place}: not_applicable takes a reason and stands alone")
        return
    steps = scenario.get("steps", [])
    if len(steps) < demanded.get("steps_min", 1):
        raise Malformed(f"{place}: too few steps")
    for step in steps:
        is_query = "query" in step
        actions = [action for action in ACTIONS if action in step]
        if actions != ["code"] and actions != ["code", "query"] and len(actions) != 1:
            raise Malformed(f"{place}: one of {ACTIONS} per step, not {actions}")
        allowed = QUERY_FIELDS | EXPECTED_OF_QUERY if is_query else RUN_FIELDS | EXPECTED_OF_RUN
        known("a step", step, allowed | {actions[0], actions[-1]})
        known("error", step.get("error", {}), ERROR_FIELDS)
        for text in ("stdout", "stderr"):
            if isinstance(step.get(text), dict):
                known(text, step[text], TEXT_FIELDS)
        for bundle in [step.get("result"), step.get("data"), *step.get("displays", [])]:
            if isinstance(bundle, dict):
                known("a bundle", bundle, BUNDLE_FIELDS)
    for demand in demanded.get("demands", []):
        if not any(_uses(step, demand.split(".")) for step in steps):
            raise Malformed(f"{place}: no step looks at {demand}")


def _uses(value: Any, path: list[str]) -> bool:
    if not path:
        return True
    if isinstance(value, list):
        return any(_uses(item, path) for item in value)
    return isinstance(value, dict) and path[0] in value and _uses(value[path[0]], path[1:])


def placed(value: Any, directory: str) -> Any:
    """`value` with the context's directory put in."""
    if isinstance(value, str):
        return value.replace(DIRECTORY_MARK, directory)
    if isinstance(value, list):
        return [placed(item, directory) for item in value]
    if isinstance(value, dict):
        return {key: placed(item, directory) for key, item in value.items()}
    return value


# === running


def play(scenario: dict[str, Any], backend: Any) -> None:
    """Runs all steps; AssertionError at the first that brings something else."""
    seconds = float(scenario.get("seconds", STEP_SECONDS_MAX))
    names: dict[str, str] = {}
    for number, step in enumerate(placed(scenario["steps"], backend.directory)):
        place = "step %d: %s" % (number + 1, shown(step.get("code", str(step)), 200))
        if "make_file" in step:
            backend.make_file(step["make_file"])
        elif "await_file" in step:
            backend.await_file(step["await_file"], seconds)
        elif "query" in step:
            fields = {key: step[key] for key in QUERY_FIELDS if key in step}
            if step["query"] != "variables":
                fields.setdefault("cursor", len(fields.setdefault("code", "")))
            outcome = backend.ask(step["query"], fields, seconds)
            compare_answer(step, outcome, place)
        else:
            if step.get("fresh"):
                backend.renew()
            outcome = backend.run(step, seconds)
            compare_run(step, outcome, names, place)


# === comparing


def shown(value: Any, limit: int = SHOWN_CHARS_MAX) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "… (%d in all)" % len(text)


def compare_run(
    step: dict[str, Any], outcome: Outcome, names: dict[str, str], place: str
) -> None:
    seen = shown(outcome)

    def same(what: str, found: Any, expected: Any) -> None:
        assert found == expected, f"{place}\n{what} is {found!r}, not {expected!r}\n{seen}"

    if "death" in step:
        assert outcome.death is not None, f"{place}\nthe driver lives\n{seen}"
        for kind, number in step["death"].items() if not outcome.server_words else ():
            same(f"{kind} of death", outcome.death.get(kind), number)
    else:
        same("death", outcome.death, None)
        default = "error" if "error" in step else "ok"
        same("status", outcome.status, step.get("status", default))
    background = step.get("background", {})
    for stream in ("stdout", "stderr"):
        found, expected = getattr(outcome, stream), step.get(stream, "")
        if outcome.background is None:
            # This back end gives both in one: only exact texts can be told apart.
            expected = background.get(stream, "") + expected if background else expected
        else:
            came = outcome.background.get(stream, b"")
            compare_text(background.get(stream, ""), came, f"{place}\nbackground {stream}", seen)
        compare_text(expected, found, f"{place}\n{stream}", seen)
    compare_bundle(step.get("result"), outcome.result, f"{place}\nresult", seen)
    compare_displays(step.get("displays", []), outcome.displays, names, place, seen)
    compare_error(step, outcome, place, seen)
    if outcome.notices is not None:
        same("notices", outcome.notices, step.get("notices", []))
    asked = [(ask.get("prompt", ""), ask.get("password", False)) for ask in step.get("input", [])]
    same("prompts", outcome.prompts, asked)


def compare_text(expected: Any, found: bytes | str, what: str, seen: str) -> None:
    raw = found.encode() if isinstance(found, str) else found
    if isinstance(expected, dict) and ("bytes" in expected or "sha256" in expected):
        if "bytes" in expected:
            assert len(raw) == expected["bytes"], f"{what}: {len(raw)} bytes\n{seen}"
        if "sha256" in expected:
            assert hashlib.sha256(raw).hexdigest() == expected["sha256"], f"{what}: digest\n{seen}"
    text = raw.decode("utf-8", "surrogateescape")
    if isinstance(expected, str):
        assert text == expected, f"{what} is {shown(text)!r}, not {expected!r}\n{seen}"
        return
    for part in _list(expected.get("contains", [])):
        assert part in text, f"{what}: no {part!r} in {shown(text)!r}\n{seen}"
    for part in _list(expected.get("lacks", [])):
        assert part not in text, f"{what}: {part!r} in {shown(text)!r}\n{seen}"
    if pattern := expected.get("matches"):
        assert re.search(pattern, text), f"{what}: no /{pattern}/ in {shown(text)!r}\n{seen}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def compare_bundle(expected: Any, found: dict[str, Any] | None, what: str, seen: str) -> None:
    if expected is None:
        assert found is None, f"{what} is {shown(found)}, and none was expected\n{seen}"
        return
    assert found is not None, f"{what} is missing\n{seen}"
    if isinstance(expected, str):
        expected = {"text": expected}
    for mime in expected.get("mime", []):
        assert mime in found, f"{what}: no {mime} in {sorted(found)}\n{seen}"
    if "text" in expected:
        compare_text(expected["text"], found.get("text/plain", ""), f"{what} text/plain", seen)
    for mime, part in expected.get("contains", {}).items():
        for one in _list(part):
            assert one in found.get(mime, ""), f"{what}: no {one!r} in its {mime}\n{seen}"
    for mime, value in expected.get("data", {}).items():
        assert found.get(mime) == value, f"{what}: {mime} is {shown(found.get(mime))}\n{seen}"


def compare_displays(
    expected: list[Any],
    found: list[dict[str, Any]] | None,
    names: dict[str, str],
    place: str,
    seen: str,
) -> None:
    """`found`: `{data, display_id?, update?}` or `{clear: True, wait}`; None: not told apart."""
    if found is None:
        return
    count = f"{place}\n{len(found)} displays, not {len(expected)}\n{seen}"
    assert len(found) == len(expected), count
    for number, (want, have) in enumerate(zip(expected, found)):
        what = f"{place}\ndisplay {number}"
        if isinstance(want, str):
            want = {"text": want}
        if want.get("clear"):
            assert have.get("clear"), f"{what} is no clear\n{seen}"
            assert have.get("wait", False) == want.get("wait", False), f"{what}: wait\n{seen}"
            continue
        compare_bundle(want, have.get("data"), what, seen)
        update = want.get("update", False)
        assert have.get("update", False) == update, f"{what}: update is not {update}\n{seen}"
        if name := want.get("id"):
            real = have.get("display_id")
            assert real and names.setdefault(name, real) == real, f"{what} is not {name}\n{seen}"


def compare_error(step: dict[str, Any], outcome: Outcome, place: str, seen: str) -> None:
    found, expected = outcome.error, step.get("error")
    if expected is None and "death" in step:
        return
    if expected is None and step.get("status") != "interrupted":
        assert found is None, f"{place}\nan error\n{seen}"
        return
    assert found is not None, f"{place}\nno error\n{seen}"
    expected = expected if expected and not outcome.server_words else {}
    lines = found.get("traceback")
    assert isinstance(lines, list), f"{place}\ntraceback is no list\n{seen}"
    for line in lines:
        assert isinstance(line, str) and ESCAPE not in line, f"{place}\ntraceback: {line!r}"
        assert "\n" not in line, f"{place}\ntwo lines in one of a traceback: {line!r}"
    if "line" in expected:
        assert found.get("line") == expected["line"], f"{place}\nline {found.get('line')}\n{seen}"
    texts = {**found, "traceback": "\n".join(lines)}
    for part in ("name", "message", "traceback"):
        if part in expected:
            compare_text(expected[part], texts.get(part, ""), f"{place}\nerror {part}", seen)


def compare_answer(step: dict[str, Any], outcome: Outcome, place: str) -> None:
    seen = shown(outcome)
    assert outcome.status == step.get("status", "ok"), f"{place}\nstatus\n{seen}"
    assert outcome.stdout == outcome.stderr == b"", f"{place}\na query prints nothing\n{seen}"
    if outcome.status != "ok":
        assert outcome.answer is None, f"{place}\nan answer in spite of the error\n{seen}"
        return
    answer = outcome.answer
    assert isinstance(answer, dict), f"{place}\nno answer\n{seen}"
    if step["query"] == "complete":
        _compare_completion(step, answer, place, seen)
    elif step["query"] == "inspect":
        assert answer["found"] is step.get("found", True), f"{place}\nfound\n{seen}"
        if "data" in step:
            compare_bundle(step["data"], answer.get("data"), place, seen)
    else:
        _compare_variables(step, answer, place, seen)


def _compare_completion(
    step: dict[str, Any], answer: dict[str, Any], place: str, seen: str
) -> None:
    kinds = {match["text"]: match.get("kind") for match in answer["matches"]}
    assert len(answer["matches"]) <= 200, f"{place}\ntoo many matches"
    for text in step.get("matches", []):
        assert text in kinds, f"{place}\nno match {text!r}\n{seen}"
    for text in step.get("lacks", []):
        assert text not in kinds, f"{place}\na match {text!r}\n{seen}"
    for text, kind in step.get("kinds", {}).items():
        assert kinds.get(text) == kind, f"{place}\n{text!r} is a {kinds.get(text)!r}\n{seen}"
    if "replaces" in step:
        replaced = step["code"][answer["start"] : answer["end"]]
        assert replaced == step["replaces"], f"{place}\nreplaces {replaced!r}\n{seen}"


def _compare_variables(
    step: dict[str, Any], answer: dict[str, Any], place: str, seen: str
) -> None:
    listed = {variable["name"]: variable for variable in answer["variables"]}
    for want in step.get("variables", []):
        have = listed.get(want["name"])
        assert have is not None, f"{place}\nno variable {want['name']}\n{seen}"
        assert len(have["preview"]) <= 200, f"{place}\na preview that is too long\n{seen}"
        for key, value in want.items():
            if key == "preview":
                compare_text(value, have["preview"], f"{place}\npreview of {want['name']}", seen)
            else:
                what = f"{place}\n{key} of {want['name']} is {have.get(key)!r}\n{seen}"
                assert have.get(key) == value, what
    for name in step.get("lacks", []):
        assert name not in listed, f"{place}\n{name} is listed\n{seen}"
    if step.get("exactly"):
        names = [want["name"] for want in step.get("variables", [])]
        assert list(listed) == names, f"{place}\nlisted: {list(listed)}\n{seen}"
