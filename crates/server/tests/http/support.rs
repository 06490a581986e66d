//! A server in a temporary directory, and requests to it.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use crownest_api::Scope;
use crownest_server::egress::Policy;
use crownest_server::host::{
    CreateSpec, Created, ForkedDriver, Host, HostConfig, SandboxKey, SandboxStats, Spawner,
    SpawnerError, TemplateDigest,
};
use crownest_server::objects::{Objects, ObjectsConfig};
use crownest_server::{
    App, Config, FreshCredentials, Inventory, NewKey, Template, TemplateSource, bootstrap,
    create_key, router,
};
use crownest_store::{Store, StoreOptions};
use futures_util::future::{BoxFuture, ready};
use http_body_util::BodyExt;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tower::ServiceExt;

/// A spawner that is not running.
#[derive(Debug)]
struct Absent;

fn absent<T: Send + 'static>() -> BoxFuture<'static, Result<T, SpawnerError>> {
    Box::pin(ready(Err(SpawnerError::Disconnected("not running".into()))))
}

impl Spawner for Absent {
    fn create<'a>(&'a self, _: &'a CreateSpec) -> BoxFuture<'a, Result<Created, SpawnerError>> {
        absent()
    }
    fn fork<'a>(
        &'a self,
        _: &'a SandboxKey,
        _: &'a TemplateDigest,
    ) -> BoxFuture<'a, Result<ForkedDriver, SpawnerError>> {
        absent()
    }
    fn destroy<'a>(&'a self, _: &'a SandboxKey) -> BoxFuture<'a, Result<(), SpawnerError>> {
        absent()
    }
    fn freeze<'a>(&'a self, _: &'a SandboxKey, _: bool) -> BoxFuture<'a, Result<(), SpawnerError>> {
        absent()
    }
    fn stats<'a>(&'a self, _: &'a SandboxKey) -> BoxFuture<'a, Result<SandboxStats, SpawnerError>> {
        absent()
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        absent()
    }
    fn init_socket(&self, key: &SandboxKey) -> PathBuf {
        PathBuf::from("/nonexistent").join(key.as_str())
    }
}

/// One template is built, one could be.
fn inventory() -> Inventory {
    let python = Template {
        slug: "python".into(),
        digest: "0".repeat(64),
        version: "1.0.0".into(),
        version_id: "tplv_test".into(),
        languages: vec!["python".into()],
        runtimes: Vec::new(),
        current: true,
    };
    Inventory {
        built: vec![python],
        known: vec!["base".into(), "python".into()],
    }
}

pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) store: Arc<Store>,
    pub(crate) owner: FreshCredentials,
    _directory: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Status and error code, after checking the rest of the envelope.
    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        let error = &json["error"];
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(
            error["requestId"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        assert!(error["retryable"].is_boolean(), "{json}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{json}");
        (
            self.status.as_u16(),
            error["code"].as_str().unwrap().to_owned(),
        )
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = directory.path().join("store.db");
        let store = Store::open(url.to_str().unwrap(), &StoreOptions::default())
            .await
            .unwrap();
        let store = Arc::new(store);
        let owner = bootstrap(&store)
            .await
            .unwrap()
            .expect("a new store gets a key");
        let host = HostConfig::new(Arc::new(Absent), Arc::new(Policy::default()));
        let host = Host::start(host).await.unwrap();
        let mut config = Config::new("node_test".into(), TemplateSource::new(inventory));
        change(&mut config);
        let objects = ObjectsConfig::Directory(directory.path().join("objects"));
        let objects = Objects::open(&objects, "node_test").unwrap();
        let app = App::new(config, Arc::clone(&store), host, objects);
        Self {
            app,
            store,
            owner,
            _directory: directory,
        }
    }

    /// A key of the first organization with these scopes.
    pub(crate) async fn key(&self, scopes: &[Scope], project_ids: Option<&[String]>) -> String {
        let new = NewKey {
            org_id: &self.owner.org_id,
            user_id: &self.owner.user_id,
            name: "test",
            scopes,
            project_ids,
        };
        create_key(&self.store, new).await.unwrap().1
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = router(self.app.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn call(&self, key: &str, method: &str, path: &str, body: &str) -> Reply {
        self.send(
            request(key, method, path)
                .body(Body::from(body.to_owned()))
                .unwrap(),
        )
        .await
    }

    /// As the owner, who may do everything.
    pub(crate) async fn owner(&self, method: &str, path: &str, body: &str) -> Reply {
        self.call(&self.owner.secret, method, path, body).await
    }
}

pub(crate) fn request(key: &str, method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
}
