"""Every public method of both Python packages has a test, by introspection of what is installed: a
release with a new one fails here until somebody writes its test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import code_interpreter
import opensandbox
import pytest
from code_interpreter.services.code import Codes
from code_interpreter.sync.services.code import CodesSync
from opensandbox import pool_manager
from opensandbox.services import command, diagnostics, egress, filesystem, health, isolated
from opensandbox.services import metrics, sandbox as lifecycle
from opensandbox.sync import services as sync_services
from opensandbox.sync.services import isolated as sync_isolated

HERE = Path(__file__).parent

VAULT = {
    name: "egress::test_the_credential_vault_is_not_built"
    for name in (
        "create",
        "delete",
        "get",
        "get_binding",
        "get_credential",
        "list_bindings",
        "list_credentials",
        "patch",
    )
}

# Class (without `Sync` or `Async` in its name) -> method -> test, as `file::test`.
TABLE: dict[str, dict[str, str]] = {
    "Sandbox": {
        "check_ready": "sandbox::test_check_ready",
        "close": "sandbox::test_connect",
        "commands": "sandbox::test_create_with_environment_and_entrypoint",
        "connect": "sandbox::test_connect",
        "connection_config": "sandbox::test_create_and_get_info",
        "create": "sandbox::test_create_needs_one_source",
        "create_from_template": "sandbox::test_create_from_template_is_not_built",
        "create_snapshot": "manager::test_snapshots",
        "credential_vault": "egress::test_the_credential_vault_is_not_built",
        "delete_egress_rules": "egress::test_policies",
        "destroy": "sandbox::test_destroy_and_context_manager",
        "diagnostics": "sandbox::test_diagnostics",
        "files": "sandbox::test_connect",
        "files_with_identity": "files::test_files_with_identity",
        "get_diagnostic_events": "sandbox::test_diagnostics",
        "get_diagnostic_logs": "sandbox::test_diagnostics",
        "get_egress_policy": "egress::test_policies",
        "get_endpoint": "sandbox::test_get_endpoint",
        "get_info": "sandbox::test_create_and_get_info",
        "get_metrics": "sandbox::test_get_metrics",
        "get_signed_endpoint": "sandbox::test_get_signed_endpoint",
        "is_healthy": "sandbox::test_kill",
        "isolation": "isolation::test_capabilities",
        "kill": "sandbox::test_kill",
        "metrics": "sandbox::test_get_metrics",
        "origin": "sandbox::test_create_and_get_info",
        "patch_egress_rules": "egress::test_policies",
        "patch_metadata": "sandbox::test_patch_metadata",
        "pause": "sandbox::test_pause_and_resume",
        "renew": "sandbox::test_renew",
        "resume": "sandbox::test_pause_and_resume",
    },
    "SandboxManager": {
        "close": "pool::test_a_manager_destroys_a_pool",
        "connection_config": "manager::test_by_id",
        "create": "manager::manager",
        "create_snapshot": "manager::test_snapshots",
        "create_template": "manager::test_templates_are_not_built",
        "delete_snapshot": "manager::test_snapshots",
        "delete_template": "manager::test_templates_are_not_built",
        "get_diagnostic_events": "manager::test_by_id",
        "get_diagnostic_logs": "manager::test_by_id",
        "get_sandbox_info": "manager::test_by_id",
        "get_snapshot": "manager::test_snapshots",
        "get_template": "manager::test_templates_are_not_built",
        "kill_sandbox": "manager::test_by_id",
        "list_sandbox_infos": "manager::test_list_sandbox_infos",
        "list_snapshots": "manager::test_snapshots",
        "list_templates": "manager::test_templates_are_not_built",
        "patch_sandbox_metadata": "manager::test_by_id",
        "pause_sandbox": "manager::test_states",
        "renew_sandbox": "manager::test_by_id",
        "resume_sandbox": "manager::test_states",
    },
    "Commands": {
        "create_session": "commands::test_sessions",
        "delete_session": "commands::test_the_end_of_a_session",
        "get_background_command_logs": "commands::test_background",
        "get_command_status": "commands::test_background",
        "interrupt": "commands::test_interrupt_of_a_foreground_command",
        "run": "commands::test_run",
        "run_in_session": "commands::test_sessions",
        "set_env": "commands::test_set_env",
    },
    "Filesystem": {
        "create_directories": "files::test_create_and_delete_directories",
        "delete_directories": "files::test_create_and_delete_directories",
        "delete_files": "files::test_delete_files",
        "get_file_info": "files::test_get_file_info",
        "list_directory": "files::test_list_directory",
        "move_files": "files::test_move_files",
        "read_bytes": "files::test_what_can_be_written",
        "read_bytes_stream": "files::test_a_large_file",
        "read_file": "files::test_write_and_read",
        "replace_contents": "files::test_replace_contents",
        "replace_contents_detailed": "files::test_replace_contents",
        "search": "files::test_search",
        "set_permissions": "files::test_set_permissions",
        "write_file": "files::test_write_and_read",
        "write_files": "files::test_write_files",
    },
    # The services below are what the methods of Sandbox and SandboxManager call.
    "Diagnostics": {
        "get_events": "sandbox::test_diagnostics",
        "get_logs": "sandbox::test_diagnostics",
    },
    "Metrics": {"get_metrics": "sandbox::test_get_metrics"},
    "Health": {"ping": "code::test_an_interpreter_wraps_its_sandbox"},
    "Egress": {
        **VAULT,
        "delete_rules": "egress::test_policies",
        "get_policy": "egress::test_policies",
        "patch_rules": "egress::test_policies",
    },
    "Sandboxes": {
        "create_sandbox": "sandbox::test_create_and_get_info",
        "create_sandbox_from_template": "sandbox::test_create_from_template_is_not_built",
        "create_snapshot": "manager::test_snapshots",
        "create_template": "manager::test_templates_are_not_built",
        "delete_snapshot": "manager::test_snapshots",
        "delete_template": "manager::test_templates_are_not_built",
        "get_sandbox_endpoint": "sandbox::test_get_endpoint",
        "get_sandbox_info": "manager::test_by_id",
        "get_signed_sandbox_endpoint": "sandbox::test_get_signed_endpoint",
        "get_snapshot": "manager::test_snapshots",
        "get_template": "manager::test_templates_are_not_built",
        "invalidate_endpoint_cache": "sandbox::test_pause_and_resume",
        "kill_sandbox": "manager::test_by_id",
        "list_sandboxes": "manager::test_list_sandbox_infos",
        "list_snapshots": "manager::test_snapshots",
        "list_templates": "manager::test_templates_are_not_built",
        "patch_sandbox_metadata": "manager::test_by_id",
        "pause_sandbox": "sandbox::test_pause_and_resume",
        "renew_sandbox_expiration": "sandbox::test_renew",
        "resume_sandbox": "manager::test_states",
    },
    "CredentialVault": VAULT,
    "IsolationService": {
        "attach": "isolation::test_sessions_are_not_built",
        "capabilities": "isolation::test_capabilities",
        "create": "isolation::test_sessions_are_not_built",
        "list": "isolation::test_sessions_are_not_built",
        "run_once": "isolation::test_sessions_are_not_built",
        "session": "isolation::test_sessions_are_not_built",
    },
    "IsolationSession": {
        name: "isolation::test_what_a_session_could_do_is_not_built"
        for name in (
            "delete",
            "files",
            "get",
            "info",
            "run",
            "run_background",
            "run_logs",
            "run_status",
            "session_id",
        )
    },
    "SandboxPool": {
        name: "pool::test_a_pool"
        for name in (
            "acquire",
            "release_all_idle",
            "release_all_idle_parallel",
            "resize",
            "shutdown",
            "snapshot",
            "snapshot_idle_entries",
            "start",
        )
    },
    "SandboxPoolManager": {"destroy": "pool::test_a_manager_destroys_a_pool"},
    "CodeInterpreter": {
        "aclose": "code::test_closing_leaves_the_sandbox",
        "check_ready": "code::test_an_interpreter_wraps_its_sandbox",
        "close": "code::test_closing_leaves_the_sandbox",
        "codes": "code::test_an_interpreter_wraps_its_sandbox",
        "commands": "code::test_an_interpreter_wraps_its_sandbox",
        "create": "code::test_closing_leaves_the_sandbox",
        "files": "code::test_an_interpreter_wraps_its_sandbox",
        "id": "code::test_an_interpreter_wraps_its_sandbox",
        "is_healthy": "code::test_an_interpreter_wraps_its_sandbox",
        "metrics": "code::test_an_interpreter_wraps_its_sandbox",
        "ping": "code::test_an_interpreter_wraps_its_sandbox",
        "sandbox": "code::test_an_interpreter_wraps_its_sandbox",
    },
    "Codes": {
        "create_context": "code::test_create_get_list_and_delete_contexts",
        "delete_context": "code::test_create_get_list_and_delete_contexts",
        "delete_contexts": "code::test_create_get_list_and_delete_contexts",
        "get_context": "code::test_create_get_list_and_delete_contexts",
        "interrupt": "code::test_interrupt",
        "list_contexts": "code::test_create_get_list_and_delete_contexts",
        "ping": "code::test_an_interpreter_wraps_its_sandbox",
        "run": "code::test_a_run_and_everything_it_says",
    },
}

# Services that users reach through another object, whose test names that object's method.
BEHIND = {"Sandboxes", "Egress"}

MODULES = [command, diagnostics, egress, filesystem, health, isolated, metrics, lifecycle]
MODULES += [sync_isolated, sync_services, pool_manager]


def plain(name: str) -> str:
    """A class's name without the word for its kind."""
    return re.sub(r"Sync|Async", "", name)


def classes() -> dict[type, str]:
    """Every class whose methods a user calls."""
    found = {Codes: "Codes", CodesSync: "Codes"}
    for package in (opensandbox, code_interpreter):
        for name in package.__all__:
            found[getattr(package, name)] = plain(name)
    for module in MODULES:
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__.startswith("opensandbox"):
                found[value] = plain(name)
    return {kind: name for kind, name in found.items() if methods(kind) and acts(kind)}


def acts(kind: type) -> bool:
    """Whether it asks a server: not a model, options, a store in memory, a mixin."""
    module = kind.__module__
    inner = (
        ".models.",
        ".config.",
        ".exceptions",
        ".pool_types",
        "._pool_store",
        "._async_pool_store",
    )
    return not any(part in f"{module}." for part in inner) and not kind.__name__.endswith("Mixin")


def methods(kind: type) -> set[str]:
    described = (property, classmethod, staticmethod)
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith(("opensandbox", "code_interpreter"))
        for name, value in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, described))
    }


def source(place: str) -> str:
    """The source of a test that the table names."""
    file, _, test = place.partition("::")
    text = (HERE / f"test_os_{file}.py").read_text()
    found = re.search(rf"^def {test}\(.*?(?=^def |^class |^@pytest|\Z)", text, re.M | re.S)
    assert found, f"there is no test {place}"
    return found[0]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_method_has_a_test(kind):
    name = classes()[kind]
    assert name in TABLE, f"{kind.__module__}.{kind.__name__} has no tests: {sorted(methods(kind))}"
    missing = methods(kind) - set(TABLE[name])
    assert not missing, f"{kind.__name__} can do what no test does"


def test_the_table_names_what_there_is():
    there: dict[str, set[str]] = {}
    for kind, name in classes().items():
        there.setdefault(name, set()).update(methods(kind))
    assert {name: set(tests) for name, tests in TABLE.items()} == there


@pytest.mark.parametrize("name", TABLE)
def test_a_test_calls_what_it_is_named_for(name):
    for method, place in TABLE[name].items():
        text = source(place)
        if name not in BEHIND:
            assert re.search(rf"\b{method}\b", text), (method, place)
