//! Opening contexts: a spare driver, a fork from the zygote, or a new process.

use super::counters::count;
use super::error::HostError;
use super::kernels::{Driver, Kernel};
use super::retry::retried;
use super::sandbox::{Sandbox, millis};
use super::spawner::ForkedDriver;
use super::types::{ContextSpec, Isolation};
use bytes::Bytes;
use crownest_init::link::{DRIVER_READY_MS_MAX, Request};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Longest wait for a driver to be ready: init's own limit and some.
const DRIVER_TIMEOUT: Duration = Duration::from_millis(DRIVER_READY_MS_MAX + 5_000);
/// Longest name of a language that is repeated.
const LANGUAGE_CHARS_MAX: usize = 32;

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
        let (kernel, driver) = self.driver(&spec.language)?;
        let opening = self.contexts.open(&spec.id)?;
        let may_be_spare = spec.isolation == Isolation::Fork && kernel.can_start_before(&spec.env);
        if may_be_spare && kernel.forkable {
            self.open_forked(&spec, kernel, &driver.label).await?;
        } else if !(may_be_spare && self.open_spare(&spec, kernel, &driver.label).await?) {
            let request = Request::ContextSpawn {
                context: spec.id,
                language: driver.label,
                argv: driver.argv,
                cwd: spec.cwd,
                env: spec.env,
            };
            self.ask_for_driver(request, Vec::new()).await?;
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

    /// Has a driver made ready for a context to come.
    pub(super) async fn add_spare_driver(&self, kernel: &'static Kernel) -> Result<(), HostError> {
        let driver = kernel.start_spare(&self.runtimes());
        let Driver { label, argv } = driver.ok_or_else(|| unsupported(kernel.name))?;
        if kernel.forkable {
            let _guard = self.opening.lock().await;
            return self.fork_and_adopt(&label).await;
        }
        let request = Request::SpareSpawn {
            language: label.clone(),
            argv,
        };
        self.ask_for_driver(request, Vec::new()).await?;
        count(&self.shared.counters.spares_started);
        self.spares.add(&label);
        Ok(())
    }

    /// Has init end what nobody has claimed by then.
    pub(super) async fn end_spares_after(&self, after: Duration) -> Result<(), HostError> {
        let after_ms = millis(after, "the time of spare drivers")?;
        self.call(Request::SpareDeadline { after_ms })
            .await
            .map(drop)
    }

    fn driver(&self, language: &str) -> Result<(&'static Kernel, Driver), HostError> {
        let kernel = Kernel::of(language).ok_or_else(|| unsupported(language))?;
        let driver = kernel.start(&self.runtimes());
        Ok((kernel, driver.ok_or_else(|| unsupported(language))?))
    }

    async fn open_forked(
        &self,
        spec: &ContextSpec,
        kernel: &Kernel,
        label: &str,
    ) -> Result<(), HostError> {
        let _guard = self.opening.lock().await;
        if !self.spares.claim(kernel, label) {
            self.fork_and_adopt(label).await?;
            self.spares.claim(kernel, label);
        }
        if self.claim_for(spec, label).await? {
            return Ok(());
        }
        // The spare that was counted on has died since.
        self.fork_and_adopt(label).await?;
        self.spares.claim(kernel, label);
        if self.claim_for(spec, label).await? {
            return Ok(());
        }
        Err(HostError::Init("a forked driver was gone at once".into()))
    }

    /// Gives the context a spare that was started; false when there is none.
    async fn open_spare(
        &self,
        spec: &ContextSpec,
        kernel: &Kernel,
        label: &str,
    ) -> Result<bool, HostError> {
        let _guard = self.opening.lock().await;
        let claimed = self.spares.claim(kernel, label) && self.claim_for(spec, label).await?;
        if claimed {
            count(&self.shared.counters.spares_claimed);
        }
        Ok(claimed)
    }

    /// Has init give a spare to the context; false when it has none, whatever was counted here.
    async fn claim_for(&self, spec: &ContextSpec, label: &str) -> Result<bool, HostError> {
        let request = Request::ContextOpen {
            context: spec.id.clone(),
            language: label.to_owned(),
            cwd: spec.cwd.clone(),
            env: spec.env.clone(),
        };
        match self.ask_for_driver(request, Vec::new()).await {
            Ok(()) => Ok(true),
            Err(HostError::Init(_)) if !self.is_closed() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn fork_and_adopt(&self, label: &str) -> Result<(), HostError> {
        self.going_on().await;
        let forked = retried(|| self.shared.spawner.fork(&self.key, &self.digest)).await?;
        count(&self.shared.counters.forks);
        let ForkedDriver {
            control,
            stdout,
            stderr,
            pidfd,
        } = forked;
        let request = Request::ContextAdopt {
            language: label.to_owned(),
        };
        self.ask_for_driver(request, vec![control, stdout, stderr, pidfd])
            .await?;
        self.spares.add(label);
        Ok(())
    }

    async fn ask_for_driver(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(), HostError> {
        self.call_with(request, Bytes::new(), fds, DRIVER_TIMEOUT)
            .await
            .map(drop)
    }
}

fn unsupported(language: &str) -> HostError {
    HostError::LanguageUnsupported(language.chars().take(LANGUAGE_CHARS_MAX).collect())
}
