//! Queries: what init asks about the context. Answered from the state that was kept, once that is
//! the state of now.

use crate::error::KernelError;
use crate::inspect::{self, Found};
use crate::kernel::{Active, Kernel};
use crate::protocol::{self, Query, Status};
use crate::questions::Purpose;
use crate::quoting::single;
use crate::{complete, words};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// How long the shell may take to say what is needed for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Variables of one answer.
const VARIABLES_MAX: usize = 1_000;

/// A query that waits.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) query: Query,
    pub(crate) until: Instant,
    waits_for_help: bool,
}

impl Kernel {
    /// `query`
    pub(crate) fn query(&mut self, query: Query) -> Result<(), KernelError> {
        self.ensure_shell()?;
        self.active = Some(Active::Query(Asked {
            query,
            until: Instant::now() + ANSWER_MAX,
            waits_for_help: false,
        }));
        if !self.questions.is_state_fresh && !self.questions.is_state_asked() {
            self.ask_for_state();
        }
        self.go_on_with_query()
    }

    /// Answers the active query if everything is known.
    pub(crate) fn go_on_with_query(&mut self) -> Result<(), KernelError> {
        let Some(Active::Query(asked)) = &self.active else {
            return Ok(());
        };
        if asked.waits_for_help {
            return Ok(());
        }
        // A state that is too large to be kept is asked for in vain.
        if !self.questions.is_state_fresh && self.questions.is_state_asked() {
            return Ok(());
        }
        let query = &asked.query;
        let Some(state) = self.state.last() else {
            return self.end_query(Status::Error, None);
        };
        let answer = match query.query.as_str() {
            "complete" => complete::answer(&query.code, query.cursor, state),
            "variables" => self.variables(query.limit),
            "inspect" => {
                let cursor = query.cursor.unwrap_or(usize::MAX);
                let name = words::around(&query.code, cursor);
                match name.map_or(Found::Nothing, |name| {
                    inspect::find(&name, query.detail, state)
                }) {
                    Found::Text(text) => inspect::answer(Some(&text)),
                    Found::Nothing => inspect::answer(None),
                    Found::Help(name) => return self.ask_for_help(name),
                }
            }
            _ => return self.end_query(Status::Error, None),
        };
        self.end_query(Status::Ok, Some(answer))
    }

    fn ask_for_help(&mut self, name: &str) -> Result<(), KernelError> {
        if let Some(Active::Query(asked)) = &mut self.active {
            asked.waits_for_help = true;
        }
        self.ask_with(
            Purpose::Help,
            &format!("\\builtin help -- {}", single(name)),
        );
        Ok(())
    }

    pub(crate) fn take_help(&mut self, help: &[u8]) -> Result<(), KernelError> {
        if !matches!(&self.active, Some(Active::Query(asked)) if asked.waits_for_help) {
            return Ok(());
        }
        let help = String::from_utf8_lossy(help);
        let text = Some(help.trim_end()).filter(|help| !help.is_empty());
        self.end_query(Status::Ok, Some(inspect::answer(text)))
    }

    fn variables(&self, limit: Option<usize>) -> Map<String, Value> {
        let mut listed = self.state.listing();
        let kept = limit.unwrap_or(VARIABLES_MAX).min(VARIABLES_MAX);
        let omitted = listed.len().saturating_sub(kept);
        listed.truncate(kept);
        let mut answer = Map::new();
        answer.insert("variables".to_owned(), listed.into());
        answer.insert("omitted".to_owned(), omitted.into());
        answer
    }

    pub(crate) fn end_query(
        &mut self,
        status: Status,
        answer: Option<Map<String, Value>>,
    ) -> Result<(), KernelError> {
        let Some(Active::Query(asked)) = self
            .active
            .take_if(|active| matches!(active, Active::Query(_)))
        else {
            return Ok(());
        };
        let run = asked.query.run;
        if let Some(answer) = answer {
            self.channel.send(&protocol::answer(run, &answer))?;
        }
        self.channel.send(&protocol::done(run, status, self.count))
    }
}
