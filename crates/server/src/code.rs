//! Code contexts: which a sandbox has, and which one a run gets.
//!
//! A context is an id that clients keep and an interpreter that may be lost. When it was lost, the
//! next run gets a fresh one under the same id and says so (`contextReset`).

mod active;

use crate::app::App;
use crate::auth::micros;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::host::{
    self, ContextSpec, HostError, Isolation, KERNELS, KeptRun, Kernel, Run, RunSpec,
};
use crate::sandboxes::LiveSandbox;
pub(crate) use active::Active;
use active::Current;
use crownest_api::code::{CodeContext, ContextIsolation, CreateContext};
use crownest_api::{ErrorCode, IdKind, Timestamp, limits, new_id};
use crownest_store as store;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Longest name of a language that is repeated in an answer.
const LANGUAGE_CHARS_MAX: usize = 32;

/// A context of a live sandbox.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: String,
    pub(crate) language: String,
    pub(crate) cwd: String,
    is_default: bool,
    isolation: ContextIsolation,
    created_at: Timestamp,
    /// Of its interpreter; known as long as this server lives.
    env: BTreeMap<String, String>,
    /// A shell session of another API: no context among those that its clients list.
    pub(crate) session: Option<Session>,
    /// Held while a lost interpreter is replaced, so that two runs do not replace it twice.
    renewal: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
}

/// What is known of a shell session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Environment that it was given, beside what its commands have made of it.
    pub given: tokio::sync::Mutex<BTreeMap<String, String>>,
}

/// The contexts of a live sandbox by id.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    by_id: Mutex<HashMap<String, Arc<Context>>>,
    /// Held while a default context is made, so that two first runs get one.
    defaults: tokio::sync::Mutex<()>,
}

impl Contexts {
    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Arc<Context>>> {
        self.by_id.lock().expect("no panic while it is held")
    }

    fn default_of(&self, language: &str) -> Option<Arc<Context>> {
        self.by_id()
            .values()
            .find(|c| c.is_default && c.language == language)
            .cloned()
    }

    fn insert(&self, context: Context) -> Arc<Context> {
        let context = Arc::new(context);
        self.by_id()
            .insert(context.id.clone(), Arc::clone(&context));
        context
    }
}

impl Context {
    pub(crate) fn wire(&self, sandbox_id: &str) -> CodeContext {
        CodeContext {
            id: self.id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            language: self.language.clone(),
            cwd: self.cwd.clone(),
            created_at: self.created_at,
            is_default: self.is_default.then_some(true),
            expires_at: None,
            isolation: self.isolation,
        }
    }

    fn spec(&self) -> ContextSpec {
        ContextSpec {
            id: self.id.clone(),
            language: self.language.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            isolation: match self.isolation {
                ContextIsolation::Fork => Isolation::Fork,
                ContextIsolation::Fresh => Isolation::Fresh,
            },
        }
    }
}

/// A checked request for a context.
#[derive(Debug)]
pub(crate) struct ContextCreation {
    language: String,
    cwd: String,
    timeout: Duration,
    isolation: ContextIsolation,
    env: BTreeMap<String, String>,
    session: bool,
}

impl ContextCreation {
    pub(crate) fn check(request: &CreateContext) -> ApiResult<Self> {
        let language = language(&request.language)?;
        let timeout = checks::timeout(
            request.timeout_ms,
            limits::CONTEXT_TIMEOUT_DEFAULT_MS,
            limits::CONTEXT_TIMEOUT_MAX_MS,
        )?;
        let cwd = checks::cwd(request.cwd.as_deref())?;
        let cwd = cwd.unwrap_or_else(|| checks::WORKSPACE.to_owned());
        Ok(Self {
            language: language.to_owned(),
            cwd,
            timeout,
            isolation: request.isolation,
            env: BTreeMap::new(),
            session: false,
        })
    }

    /// A context in any directory of the sandbox.
    pub(crate) fn at(language: &'static str, cwd: String) -> Self {
        Self {
            language: language.to_owned(),
            cwd,
            timeout: Duration::from_millis(limits::CONTEXT_TIMEOUT_DEFAULT_MS),
            isolation: ContextIsolation::Fork,
            env: BTreeMap::new(),
            session: false,
        }
    }

    /// A shell session in any directory of the sandbox.
    pub(crate) fn session(cwd: String, env: BTreeMap<String, String>) -> Self {
        Self {
            env,
            session: true,
            ..Self::at("bash", cwd)
        }
    }
}

/// The language that a word means, as it is answered; refuses words that mean none.
pub(crate) fn language(word: &str) -> ApiResult<&'static str> {
    host::language(word).ok_or_else(|| {
        let shown: String = word.chars().take(LANGUAGE_CHARS_MAX).collect();
        let known: Vec<String> = KERNELS
            .iter()
            .flat_map(|kernel| kernel.languages)
            .map(|language| (*language).to_owned())
            .collect();
        let message = format!("{shown:?} is no language of this server");
        unsupported(&message, &known)
    })
}

/// Whether a context runs cells of that language: those of its own kernel.
pub(crate) fn runs(context_language: &str, language: &str) -> bool {
    Kernel::of(context_language).is_some_and(|kernel| kernel.languages.contains(&language))
}

fn unsupported(message: &str, languages: &[String]) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedCodeLanguage, message)
        .with_details(json!({ "field": "language", "languages": languages }))
}

impl LiveSandbox {
    /// Refuses a language that the sandbox's template does not have.
    fn has_language(&self, language: &str) -> ApiResult<()> {
        if self.languages.iter().any(|l| l == language) {
            return Ok(());
        }
        let template = self.row().template_slug.clone();
        let message = format!("template {template} has no interpreter for {language}");
        Err(unsupported(&message, &self.languages))
    }

    /// The context of that id.
    pub(crate) fn context(&self, id: &str) -> ApiResult<Arc<Context>> {
        self.contexts
            .by_id()
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::not_found("code context"))
    }

    /// Every context, oldest first.
    pub(crate) fn all_contexts(&self) -> Vec<Arc<Context>> {
        let mut all: Vec<_> = self.contexts.by_id().values().cloned().collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Interrupts what runs in a context, or is about to. False when there is nothing.
    pub(crate) async fn interrupt_context(&self, context: &Context) -> ApiResult<bool> {
        match context.to_interrupt() {
            Some(run) => self.host.interrupt_run(run).await?,
            None => return Ok(context.is_interrupt_waiting()),
        }
        Ok(true)
    }
}

impl App {
    /// Makes a context at a client's request.
    pub(crate) async fn create_context(
        &self,
        live: &Arc<LiveSandbox>,
        creation: ContextCreation,
    ) -> ApiResult<CodeContext> {
        live.has_language(&creation.language)?;
        let context = self.open_context(live, creation, false).await?;
        Ok(context.wire(&live.id))
    }

    /// Opens a context to its end, whether or not the client stays: one that has an interpreter
    /// and no row could never be closed.
    async fn open_context(
        &self,
        live: &Arc<LiveSandbox>,
        creation: ContextCreation,
        is_default: bool,
    ) -> ApiResult<Arc<Context>> {
        let (app, live) = (self.clone(), Arc::clone(live));
        self.finish_anyway(async move { app.open_context_now(&live, creation, is_default).await })
            .await
    }

    async fn open_context_now(
        &self,
        live: &LiveSandbox,
        creation: ContextCreation,
        is_default: bool,
    ) -> ApiResult<Arc<Context>> {
        let context = Context {
            id: new_id(IdKind::CodeContext),
            language: creation.language,
            cwd: creation.cwd,
            is_default,
            isolation: creation.isolation,
            created_at: Timestamp::now(),
            session: creation.session.then(|| Session {
                given: tokio::sync::Mutex::new(creation.env.clone()),
            }),
            env: creation.env,
            renewal: tokio::sync::Mutex::default(),
            current: Mutex::default(),
        };
        let row = store::Context {
            id: context.id.clone(),
            sandbox_id: live.id.clone(),
            org_id: live.org_id.clone(),
            language: context.language.clone(),
            cwd: context.cwd.clone(),
            is_default,
            isolation: context.isolation.as_str().to_owned(),
            created_at: micros(context.created_at),
        };
        let opening =
            tokio::time::timeout(creation.timeout, live.host.open_context(context.spec()));
        // Side by side: the row is written while the interpreter starts. It is harmless if the
        // server is killed between the two, since the next run of a context that has no
        // interpreter gives it one.
        let (opened, written) = tokio::join!(opening, self.store.insert_context(&row));
        let opened = match opened {
            Ok(opened) => opened.map_err(ApiError::from),
            Err(_) => Err(ApiError::new(
                ErrorCode::Unavailable,
                "the interpreter did not start in time",
            )
            .retry_after(1_000)),
        };
        match (opened, written) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(error)) => {
                if let Err(error) = live.host.close_context(&context.id).await {
                    tracing::warn!(%error, "closing a context without a row failed");
                }
                return Err(error.into());
            }
            (Err(error), written) => {
                if written.is_ok()
                    && let Err(error) = self.store.delete_context(&live.org_id, &context.id).await
                {
                    tracing::warn!(%error, "removing the row of a context that did not start failed");
                }
                return Err(error);
            }
        }
        Ok(live.contexts.insert(context))
    }

    /// The context that a run means: the one it names, else the default one of its language.
    pub(crate) async fn context_for_run(
        &self,
        live: &Arc<LiveSandbox>,
        id: Option<&str>,
        language: &'static str,
    ) -> ApiResult<Arc<Context>> {
        if let Some(id) = id {
            let context = live.context(id)?;
            if !runs(&context.language, language) {
                let message = format!("the context is a {} context", context.language);
                return Err(
                    ApiError::new(ErrorCode::InvalidRequest, message).with_details(
                        json!({ "field": "language", "contextLanguage": context.language }),
                    ),
                );
            }
            return Ok(context);
        }
        if let Some(context) = live.contexts.default_of(language) {
            return Ok(context);
        }
        live.has_language(language)?;
        let _making = live.contexts.defaults.lock().await;
        if let Some(context) = live.contexts.default_of(language) {
            return Ok(context);
        }
        let creation = ContextCreation::at(language, checks::WORKSPACE.to_owned());
        self.open_context(live, creation, true).await
    }

    /// Starts a run in a context, with a fresh interpreter when the old one was lost. The second
    /// value says whether that was so.
    pub(crate) async fn start_run(
        &self,
        live: &LiveSandbox,
        context: &Context,
        spec: RunSpec,
    ) -> ApiResult<(Run, bool)> {
        match live.host.run(spec.clone()).await {
            // Unknown to the host, known here: it died long ago, or before a restart.
            Err(HostError::ContextDead { .. } | HostError::ContextUnknown) => {}
            other => return Ok((other?, false)),
        }
        let renewed = self.renew_context(live, context).await?;
        Ok((live.host.run(spec).await?, renewed))
    }

    /// The same for a run that outlives this server, under a number that is on record.
    pub(crate) async fn start_kept_run(
        &self,
        live: &LiveSandbox,
        context: &Context,
        number: u64,
        spec: RunSpec,
    ) -> ApiResult<(KeptRun, bool)> {
        match live.host.run_kept(number, spec.clone()).await {
            Err(HostError::ContextDead { .. } | HostError::ContextUnknown) => {}
            other => return Ok((other?, false)),
        }
        let renewed = self.renew_context(live, context).await?;
        Ok((live.host.run_kept(number, spec).await?, renewed))
    }

    /// Gives a context a fresh interpreter, unless another run has done so meanwhile.
    async fn renew_context(&self, live: &LiveSandbox, context: &Context) -> ApiResult<bool> {
        let _renewing = context.renewal.lock().await;
        // Deleted meanwhile: it must not come back.
        live.context(&context.id)?;
        if live.host.has_context(&context.id) {
            return Ok(false);
        }
        close_interpreter(live, &context.id).await?;
        live.host.open_context(context.spec()).await?;
        Ok(true)
    }

    /// Gives a context a fresh interpreter in place of the one that it has, at a client's request.
    /// The second value says whether a run was active: it ends with the old one.
    pub(crate) async fn restart_context(
        &self,
        live: &Arc<LiveSandbox>,
        id: &str,
    ) -> ApiResult<(CodeContext, bool)> {
        let context = live.context(id)?;
        let sandbox_id = &live.id;
        let (live, restarted) = (Arc::clone(live), Arc::clone(&context));
        // To its end, whoever waits: half-way there is no interpreter.
        let interrupted = self
            .finish_anyway(async move {
                let _renewing = restarted.renewal.lock().await;
                live.context(&restarted.id)?;
                let interrupted = restarted.active_run().is_some();
                close_interpreter(&live, &restarted.id).await?;
                live.host.open_context(restarted.spec()).await?;
                Ok::<_, ApiError>(interrupted)
            })
            .await?;
        Ok((context.wire(sandbox_id), interrupted))
    }

    /// Removes a context and its interpreter.
    pub(crate) async fn delete_context(
        &self,
        live: &LiveSandbox,
        id: &str,
    ) -> ApiResult<CodeContext> {
        let context = live.context(id)?;
        // First out of sight, so that no run gives it a fresh interpreter.
        live.contexts.by_id().remove(id);
        let _renewing = context.renewal.lock().await;
        close_interpreter(live, id).await?;
        match self.store.delete_context(&live.org_id, id).await {
            Ok(_) | Err(store::StoreError::NotFound { .. }) => Ok(context.wire(&live.id)),
            Err(error) => Err(error.into()),
        }
    }

    /// The contexts of a sandbox that was found after a restart. Those whose interpreter was
    /// lost get a fresh one at their next run.
    pub(crate) async fn restore_contexts(&self, live: &LiveSandbox) -> ApiResult<()> {
        let mut page = store::PageRequest::default();
        loop {
            let rows = self.store.contexts(&live.org_id, &live.id, &page).await?;
            for row in rows.rows {
                live.contexts.insert(Context {
                    id: row.id,
                    language: row.language,
                    cwd: row.cwd,
                    is_default: row.is_default,
                    isolation: ContextIsolation::from_text(&row.isolation),
                    created_at: Timestamp::from_millis(row.created_at / 1_000),
                    env: BTreeMap::new(),
                    session: None,
                    renewal: tokio::sync::Mutex::default(),
                    current: Mutex::default(),
                });
            }
            let Some(next) = rows.next else { return Ok(()) };
            page.after = Some(next);
        }
    }
}

/// Ends the interpreter of a context, if there is one.
async fn close_interpreter(live: &LiveSandbox, id: &str) -> ApiResult<()> {
    match live.host.close_context(id).await {
        Ok(()) | Err(HostError::ContextUnknown | HostError::ContextDead { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_language_or_refused_with_those_that_are() {
        assert_eq!(language("ts").unwrap(), "typescript");
        for bad in ["", "Python", "py thon", "../python", &"a".repeat(33)] {
            let error = language(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedCodeLanguage, "{bad}");
            let known = error.details.unwrap()["languages"].clone();
            assert!(known.as_array().unwrap().contains(&json!("python")));
            assert!(error.message.len() < 100, "{bad}");
        }
    }

    #[test]
    fn a_context_runs_the_languages_of_its_kernel() {
        assert!(runs("javascript", "typescript") && runs("typescript", "javascript"));
        assert!(runs("python", "python"));
        assert!(!runs("python", "bash") && !runs("bash", "javascript"));
    }
}
