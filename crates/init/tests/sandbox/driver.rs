//! A context with the test driver `driver.py`, for tests of contexts and of runs.

use super::{Client, Said, Sandbox};
use crownest_init::cell::RunOptions;
use crownest_init::link::{Death, Request, RunOutcome};

pub(crate) const DRIVER: &str = include_str!("driver.py");

pub(crate) fn spawn_request(context: &str, env: &[(&str, &str)]) -> Request {
    Request::ContextSpawn {
        context: context.into(),
        language: "test".into(),
        argv: ["/usr/bin/python3", "-S", "-c", DRIVER]
            .map(str::to_owned)
            .to_vec(),
        cwd: "/workspace".into(),
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

/// A sandbox with one context `c`.
pub(crate) fn start() -> Option<(Sandbox, Client)> {
    let sandbox = Sandbox::start("none")?;
    let mut client = sandbox.connect();
    client.hello();
    client
        .call(spawn_request("c", &[("FROM", "spawn")]))
        .unwrap();
    Some((sandbox, client))
}

pub(crate) fn run_request(context: &str, run: u64) -> Request {
    Request::Run {
        context: context.into(),
        run,
        timeout_ms: 1000,
        cwd: None,
        language: None,
        quiet: false,
        options: RunOptions::default(),
    }
}

pub(crate) fn died(said: &Said) -> Death {
    match said.outcome() {
        RunOutcome::Died(death) => death,
        other => panic!("{other:?}"),
    }
}
