//! What each request of the server does: one line each, the work is elsewhere.

use crate::calls::{Answer, ReplyTo, done, refuse};
use crate::clock;
use crate::connection::Incoming;
use crate::environment;
use crate::execs::ExecRequest;
use crate::files;
use crate::host::Host;
use crate::runs::Cell;
use crownest_init::expand;
use crownest_init::link::{CallErrorCode, Reply, Request};
use std::collections::BTreeMap;

impl Host {
    /// Handles one request; the answer goes out now or later, exactly once.
    pub(crate) fn handle(&mut self, to: ReplyTo, incoming: Incoming) {
        let Incoming { call, body, fds } = incoming;
        let handled = match call.request {
            Request::Ack { target, seq } => {
                self.targets.acknowledge(target, seq);
                return;
            }
            Request::Attach { target, seq } => {
                self.targets.attach(target, seq).and_then(|()| done())
            }
            Request::Deadline { after_ms } => match self.set_deadline(after_ms) {
                Ok(()) => done(),
                Err(error) => refuse(CallErrorCode::Internal, format!("set the timer: {error}")),
            },
            Request::Environment { env } => environment::check(&env).and_then(|()| {
                self.environment = environment::of_network(self.egress_port());
                self.environment.extend(env);
                done()
            }),
            Request::ClockStop => {
                clock::stop();
                done()
            }
            Request::ClockStart => {
                self.start_clock();
                done()
            }
            Request::ContextAdopt { language } => self.context_adopt(to, language, fds),
            Request::ContextOpen {
                context,
                language,
                cwd,
                env,
            } => self.context_open(&context, &language, cwd, &env),
            Request::ContextSpawn {
                context,
                language,
                argv,
                cwd,
                env,
            } => self.context_spawn(to, &context, language, &argv, cwd, &env),
            Request::SpareSpawn { language, argv } => self.spare_spawn(to, language, &argv),
            Request::SpareDeadline { after_ms } => self.set_spare_deadline(after_ms),
            Request::ContextClose { context } => self.context_close(&context),
            Request::Run {
                context,
                run,
                timeout_ms,
                cwd,
                language,
                quiet,
                options,
            } => {
                let cell = Cell {
                    cwd,
                    language,
                    options,
                };
                match self.run(&context, run, timeout_ms, cell, body) {
                    Ok(_) if quiet => return,
                    handled => handled,
                }
            }
            Request::Input { run, eof } => self.input(run, eof, body),
            Request::Interrupt { run } => self.interrupt(run),
            Request::Exec {
                exec,
                argv,
                cwd,
                env,
                timeout_ms,
                identity,
                stdin,
            } => self.exec(
                to,
                &ExecRequest {
                    exec,
                    argv,
                    cwd,
                    env,
                    timeout_ms,
                    identity,
                    stdin,
                },
            ),
            Request::ExecInput { exec, eof } => self.exec_input(to, exec, eof, body),
            Request::ExecResize { exec, size } => self.exec_resize(exec, size),
            Request::Signal {
                exec,
                signal,
                escalate,
                foreground,
            } => self.exec_signal(exec, signal, escalate, foreground),
            Request::Dial { port } => self.dial(to, port),
            Request::PathExpand { paths } => {
                let env = environment::for_running(&self.environment, &BTreeMap::new());
                expand::all(&paths, &env).map(|paths| {
                    Some(Answer::from(Reply {
                        paths: Some(paths),
                        ..Reply::default()
                    }))
                })
            }
            request @ (Request::FileStat { .. }
            | Request::FileList { .. }
            | Request::FileRead { .. }
            | Request::FileWrite { .. }
            | Request::FileMkdir { .. }
            | Request::FileMove { .. }
            | Request::FileRemove { .. }
            | Request::FileRemoveTree { .. }
            | Request::FileChange { .. }
            | Request::FileUnpack { .. }
            | Request::FileOpen { .. }
            | Request::UploadBegin { .. }
            | Request::UploadPiece { .. }
            | Request::UploadCommit { .. }
            | Request::UploadAbort { .. }) => {
                files::handle(&mut self.uploads, &request, &body).map(Some)
            }
        };
        self.answer_handled(to, handled);
    }
}
