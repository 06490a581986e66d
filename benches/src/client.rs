//! One HTTP/1.1 connection that is kept open, and a clock around each request.
//!
//! As little as a client can do: no pool, no redirects, no retries, and JSON is parsed after the
//! clock has stopped.

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Longest wait for one answer.
const ANSWER_SECONDS_MAX: u64 = 120;

/// An answer, and the time from the first byte sent to the last one received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("an answer that is not JSON")
    }
}

/// Where a server is and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// host:port
    pub(crate) authority: String,
    pub(crate) api_key: String,
}

impl Endpoint {
    /// From `http://host:port` without a path.
    pub(crate) fn new(url: &str, api_key: &str) -> Result<Self> {
        let authority = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .with_context(|| format!("a URL like http://127.0.0.1:8787 is needed, not {url}"))?;
        Ok(Self {
            authority: authority.to_owned(),
            api_key: api_key.to_owned(),
        })
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("connecting to {}", self.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped; errors surface in the request that meets them.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Client {
            sender,
            bearer: format!("Bearer {}", self.api_key),
            host: self.authority.clone(),
            peer: self.authority.clone(),
        })
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    bearer: String,
    host: String,
    peer: String,
}

impl Client {
    /// Another connection to the same server, on which requests are for another host.
    pub(crate) async fn again(&self, host: &str) -> Result<Self> {
        let api_key = self.bearer.trim_start_matches("Bearer ").to_owned();
        let endpoint = Endpoint {
            authority: self.peer.clone(),
            api_key,
        };
        Ok(Self {
            host: host.to_owned(),
            ..endpoint.connect().await?
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        key: Option<&str>,
    ) -> Result<Request<Full<Bytes>>> {
        let body = body.into();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.bearer);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type(&body));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        Ok(request.body(Full::new(body))?)
    }

    /// Sends a request and takes the whole answer; anything but 2xx is an error.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        key: Option<&str>,
    ) -> Result<Answer> {
        let request = self.request(method, path, body, key)?;
        let sending = async {
            self.sender.ready().await?;
            let began = Instant::now();
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            let took = began.elapsed();
            anyhow::Ok((status, body, took))
        };
        let (status, body, took) = in_time(sending, path).await?;
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(Answer { body, took })
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, body.to_string(), None).await
    }

    /// Uploads bytes as they are.
    pub(crate) async fn put(&mut self, path: &str, body: Bytes) -> Result<Answer> {
        self.send(Method::PUT, path, body, None).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, String::new(), None).await
    }

    /// Sends a request whose answer is a stream of events.
    pub(crate) async fn stream(&mut self, path: &str, body: &Value) -> Result<Events> {
        let request = self.request(Method::POST, path, body.to_string(), None)?;
        self.opened(request, path).await
    }

    /// Asks for something whose body is taken as it comes.
    pub(crate) async fn open(&mut self, path: &str) -> Result<Events> {
        let request = self.request(Method::GET, path, "", None)?;
        self.opened(request, path).await
    }

    async fn opened(&mut self, request: Request<Full<Bytes>>, path: &str) -> Result<Events> {
        let began = Instant::now();
        let sending = async {
            self.sender.ready().await?;
            anyhow::Ok(self.sender.send_request(request).await?)
        };
        let response = in_time(sending, path).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(Events { response, began })
    }
}

/// Files are bytes; everything else that is sent is JSON.
fn content_type(body: &Bytes) -> &'static str {
    match body.first() {
        Some(b'{' | b'[') => "application/json",
        _ => "application/octet-stream",
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T>>, what: &str) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), work)
        .await
        .with_context(|| format!("{what}: no answer within {ANSWER_SECONDS_MAX} s"))?
}

/// The body of a streamed answer as it comes, unparsed.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response<Incoming>,
    pub(crate) began: Instant,
}

impl Events {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let body = self.response.body_mut();
        let next = async {
            loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(frame) => {
                        if let Ok(data) = frame?.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            }
        };
        in_time(next, "a stream of events").await
    }

    /// Reads on until the bytes so far contain `what`.
    pub(crate) async fn until(&mut self, what: &str) -> Result<String> {
        let mut text = String::new();
        while !text.contains(what) {
            let Some(data) = self.next().await? else {
                bail!("the stream ended before {what:?}: {text}");
            };
            text.push_str(&String::from_utf8_lossy(&data));
        }
        Ok(text)
    }
}

/// The data of each event, parsed; in order.
pub(crate) fn parse_events(body: &str) -> Result<Vec<Value>> {
    body.split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(|data| serde_json::from_str(data).context("an event that is not JSON"))
        .collect()
}
