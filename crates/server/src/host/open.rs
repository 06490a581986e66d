//! Opening contexts: a spare driver, a fork from the zygote, or a new process.

use super::counters::count;
use super::error::HostError;
use super::retry::retried;
use super::sandbox::Sandbox;
use super::spawner::ForkedDriver;
use super::types::{ContextSpec, Isolation};
use bytes::Bytes;
use crownest_init::link::{DRIVER_READY_MS_MAX, Request};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for a driver to be ready: init's own limit and some.
const DRIVER_TIMEOUT: Duration = Duration::from_millis(DRIVER_READY_MS_MAX + 5_000);
/// Longest name of a language.
const LANGUAGE_BYTES_MAX: usize = 32;

impl Sandbox {
    /// Gives the sandbox a new context with its own interpreter.
    ///
    /// # Errors
    /// [`HostError::ContextExists`], [`HostError::ContextDead`] (close it, or take another id),
    /// [`HostError::LanguageUnsupported`], [`HostError::TooMany`], [`HostError::SpawnFailed`].
    pub async fn open_context(&self, spec: ContextSpec) -> Result<(), HostError> {
        if self.is_closed() {
            return Err(HostError::SandboxGone);
        }
        let language = spec.language.as_str();
        let argv = self.driver(language)?;
        let opening = self.contexts.open(&spec.id)?;
        match spec.isolation {
            Isolation::Fork if self.can_fork(language) => {
                self.open_forked(&spec.id, language, spec.cwd, spec.env)
                    .await?;
            }
            Isolation::Fork | Isolation::Fresh => {
                let request = Request::ContextSpawn {
                    context: spec.id,
                    language: spec.language,
                    argv,
                    cwd: spec.cwd,
                    env: spec.env,
                };
                self.call_with(request, Bytes::new(), Vec::new(), DRIVER_TIMEOUT)
                    .await?;
            }
        }
        opening.done();
        Ok(())
    }

    /// Kills a context's interpreter and everything in its session.
    ///
    /// # Errors
    /// [`HostError::ContextUnknown`].
    pub async fn close_context(&self, id: &str) -> Result<(), HostError> {
        let context = self.contexts.get(id).ok_or(HostError::ContextUnknown)?;
        let was_alive = context.is_alive();
        let closed = self
            .call(Request::ContextClose {
                context: id.to_owned(),
            })
            .await;
        match closed {
            // Init may have forgotten a dead one: the id becomes free all the same.
            Err(HostError::ContextUnknown | HostError::ContextDead { .. }) if !was_alive => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.contexts.remove(id);
        Ok(())
    }

    /// Whether a context of that id is alive.
    #[must_use]
    pub fn has_context(&self, id: &str) -> bool {
        self.contexts
            .get(id)
            .is_some_and(|context| context.is_alive())
    }

    /// Has a driver forked and adopted, for a context to come.
    pub(super) async fn add_spare_driver(&self, language: &str) -> Result<(), HostError> {
        let _guard = self.opening.lock().await;
        self.fork_and_adopt(language).await
    }

    fn can_fork(&self, language: &str) -> bool {
        self.shared.forkable.iter().any(|l| l == language)
    }

    fn driver(&self, language: &str) -> Result<Vec<String>, HostError> {
        let known = (language.len() <= LANGUAGE_BYTES_MAX)
            .then(|| self.shared.drivers.get(language))
            .flatten();
        known.cloned().ok_or_else(|| {
            HostError::LanguageUnsupported(language.chars().take(LANGUAGE_BYTES_MAX).collect())
        })
    }

    async fn open_forked(
        &self,
        id: &str,
        language: &str,
        cwd: String,
        env: BTreeMap<String, String>,
    ) -> Result<(), HostError> {
        let _guard = self.opening.lock().await;
        if !self.claim_spare(language) {
            self.fork_and_adopt(language).await?;
            self.claim_spare(language);
        }
        let request = Request::ContextOpen {
            context: id.to_owned(),
            language: language.to_owned(),
            cwd,
            env,
        };
        let open = |request| self.call_with(request, Bytes::new(), Vec::new(), DRIVER_TIMEOUT);
        match open(request.clone()).await {
            // The spare that was counted on has died since.
            Err(HostError::Init(_)) if !self.is_closed() => {
                self.fork_and_adopt(language).await?;
                self.claim_spare(language);
                open(request).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn fork_and_adopt(&self, language: &str) -> Result<(), HostError> {
        let forked = retried(|| self.shared.spawner.fork(&self.key, &self.digest)).await?;
        count(&self.shared.counters.forks);
        let ForkedDriver {
            control,
            stdout,
            stderr,
            pidfd,
        } = forked;
        let request = Request::ContextAdopt {
            language: language.to_owned(),
        };
        let fds = vec![control, stdout, stderr, pidfd];
        self.call_with(request, Bytes::new(), fds, DRIVER_TIMEOUT)
            .await?;
        self.add_spare(language);
        Ok(())
    }
}
