//! The object store: bytes that outlive sandboxes (artifacts, logs), in a directory or in S3.
//!
//! Owns: how bytes get there and back. Does not own: which objects there are; a row of the store
//! (of a log segment, a file beside the log) leads to each of them, and whoever writes an object
//! writes that first. An object appears
//! whole or not at all, and is never changed, only replaced as a whole or deleted.
//!
//! Nothing is synced to disk: an object survives a kill of the server, as rows do, and a power
//! cut may take the last moments. Keys are made by the server from ids, never from a client's
//! words.

use crate::disk;
use crate::file_stream::{self, OpenFile};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig, WriteMultipart,
};
use sha2::{Digest, Sha256};
use std::error::Error as _;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Longest object that is written with one request; of longer ones, one part. S3 takes 10,000
/// parts: objects of up to 80 GiB.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at the same time: what one writer holds is three times [`PART_BYTES`].
const PARTS_SENT_MAX: usize = 2;
/// How often and how long a request to an S3 server is tried again.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence of an S3 server within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Where objects are written in a directory before they get their name.
const STAGING: &str = "staging";
/// Object that a start asks for to see whether an S3 server knows us.
const PROBE_KEY: &str = "crownest-probe";

/// Where objects are kept.
#[derive(Debug, Clone)]
pub enum ObjectsConfig {
    /// A directory, made when it is missing.
    Directory(PathBuf),
    S3(S3Config),
}

/// A bucket of an S3-compatible server.
#[derive(Clone)]
pub struct S3Config {
    pub bucket: String,
    /// `https://…`; none: Amazon's own for the region. `http://…` is for a server beside us.
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// The bucket is in the path of a URL instead of in its host.
    pub path_style: bool,
}

impl fmt::Debug for S3Config {
    // Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_deref().unwrap_or("default endpoint");
        write!(f, "S3Config({} at {endpoint})", self.bucket)
    }
}

/// What went wrong with an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectsError {
    #[error("the object store cannot be used: {0}")]
    Configuration(String),
    #[error("there is no such object")]
    NotFound,
    /// More came than was allowed; nothing was stored.
    #[error("more than {limit} bytes")]
    TooLarge { limit: u64 },
    /// What was to be stored could not be read; nothing was stored.
    #[error("reading what is to be stored: {0}")]
    Source(io::Error),
    /// The object store refuses our credentials or the bucket.
    #[error("the object store refuses access: {0}")]
    Refused(String),
    #[error("the object store is full")]
    Full,
    /// It does not answer, or says that it cannot.
    #[error("the object store is unavailable: {0}")]
    Unavailable(String),
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub size_bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// An object that is being read.
pub struct Object {
    /// Of the whole object, whatever range was asked for.
    pub size_bytes: u64,
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes)", self.size_bytes)
    }
}

/// The object store. Share it by reference or in an `Arc`.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Of a directory only.
    local: Option<Local>,
}

/// What only a directory has.
struct Local {
    directory: PathBuf,
    /// Prefix of names under which objects are written first: what a killed server leaves is found
    /// there by the next.
    staging: Key,
    /// A file of a tenant may be said to have any length and cost its sandbox nothing.
    free_bytes_min: u64,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.local.is_some() {
            "Objects(directory)"
        } else {
            "Objects(S3)"
        })
    }
}

impl Objects {
    /// Opens it for this node, and removes what an earlier server of the node left half written.
    /// Talks to nobody: see [`Objects::check`].
    ///
    /// # Errors
    /// [`ObjectsError::Configuration`].
    pub fn open(config: &ObjectsConfig, node_id: &str) -> Result<Self, ObjectsError> {
        match config {
            ObjectsConfig::Directory(directory) => Self::open_directory(directory, node_id)
                .map_err(|error| {
                    ObjectsError::Configuration(format!("{}: {error}", directory.display()))
                }),
            ObjectsConfig::S3(s3) => Self::open_s3(s3),
        }
    }

    fn open_directory(directory: &Path, node_id: &str) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        let staging = Key::from_iter([STAGING, node_id]);
        match std::fs::remove_dir_all(directory.join(staging.as_ref())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let store = LocalFileSystem::new_with_prefix(directory).map_err(io::Error::other)?;
        Ok(Self {
            store: Arc::new(store),
            local: Some(Local {
                directory: directory.to_owned(),
                staging,
                free_bytes_min: disk::FREE_BYTES_MIN,
            }),
        })
    }

    fn open_s3(config: &S3Config) -> Result<Self, ObjectsError> {
        // Of the process; a second one finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = config
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let options = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            // Of a whole answer, and objects may be of any size.
            .with_timeout_disabled();
        let retry = RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(&config.secret_access_key)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let store = builder
            .build()
            .map_err(|error| ObjectsError::Configuration(error.to_string()))?;
        Ok(Self {
            store: Arc::new(store),
            local: None,
        })
    }

    /// Whether objects are on this machine.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.local.is_some()
    }

    /// Asks an S3 server whether it knows us and the bucket.
    ///
    /// # Errors
    /// [`ObjectsError::Refused`], [`ObjectsError::Unavailable`].
    pub async fn check(&self) -> Result<(), ObjectsError> {
        if self.local.is_some() {
            return Ok(());
        }
        match self.store.head(&key(PROBE_KEY)?).await.map_err(sorted) {
            Ok(_) | Err(ObjectsError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores these bytes.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<Stored, ObjectsError> {
        let limit = bytes.len() as u64;
        let source = futures_util::stream::iter([Ok(bytes)]);
        self.put_stream(key, source, limit).await
    }

    /// Stores a file of this machine, as long as it is when it is opened.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn put_file(&self, key: &str, path: &Path) -> Result<Stored, ObjectsError> {
        let file = std::fs::File::open(path).map_err(ObjectsError::Source)?;
        let size = file.metadata().map_err(ObjectsError::Source)?.len();
        let source = file_stream::pieces(OpenFile::new(file.into()), 0..size);
        self.put_stream(key, source, size).await
    }

    /// Stores what a stream brings, at most `bytes_max`. When it fails, or its future is dropped,
    /// nothing is stored; an S3 server may then keep parts until a lifecycle rule of the bucket
    /// removes them (`AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn put_stream<S>(
        &self,
        object: &str,
        source: S,
        bytes_max: u64,
    ) -> Result<Stored, ObjectsError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let target = key(object)?;
        let place = match &self.local {
            Some(local) => local.staging.clone().join(uuid::Uuid::now_v7().to_string()),
            None => target.clone(),
        };
        let stored = self.write(&place, source, bytes_max).await?;
        if self.local.is_some()
            && let Err(error) = self.store.rename(&place, &target).await
        {
            let _ = self.store.delete(&place).await;
            return Err(sorted(error));
        }
        Ok(stored)
    }

    /// Refuses to write where too little would stay free for everybody else.
    fn check_room(&self) -> Result<(), ObjectsError> {
        match &self.local {
            Some(local) if disk::is_scarce(&local.directory, local.free_bytes_min) => {
                Err(ObjectsError::Full)
            }
            _ => Ok(()),
        }
    }

    async fn write<S>(&self, place: &Key, source: S, max: u64) -> Result<Stored, ObjectsError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        self.check_room()?;
        let mut source = pin!(source);
        let mut room_checked_at = 0;
        let mut digest = Sha256::new();
        let mut size = 0u64;
        let mut held = Vec::new();
        let mut held_bytes = 0;
        let mut parts: Option<WriteMultipart> = None;
        let outcome = loop {
            let bytes = match source.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(ObjectsError::Source(error)),
                Some(Ok(bytes)) => bytes,
            };
            size += bytes.len() as u64;
            if size > max {
                break Err(ObjectsError::TooLarge { limit: max });
            }
            if size - room_checked_at >= PART_BYTES as u64 {
                room_checked_at = size;
                if let Err(error) = self.check_room() {
                    break Err(error);
                }
            }
            digest.update(&bytes);
            if let Some(parts) = &mut parts {
                if let Err(error) = parts.wait_for_capacity(PARTS_SENT_MAX).await {
                    break Err(sorted(error));
                }
                parts.put(bytes);
                continue;
            }
            held_bytes += bytes.len();
            held.push(bytes);
            if held_bytes > PART_BYTES {
                match self.store.put_multipart(place).await {
                    Ok(upload) => {
                        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
                        held.drain(..).for_each(|bytes| writer.put(bytes));
                        parts = Some(writer);
                    }
                    Err(error) => break Err(sorted(error)),
                }
            }
        };
        match (outcome, parts) {
            (Ok(()), Some(parts)) => parts.finish().await.map(drop).map_err(sorted)?,
            (Ok(()), None) => {
                let payload = PutPayload::from_iter(held);
                self.store.put(place, payload).await.map_err(sorted)?;
            }
            (Err(error), Some(parts)) => {
                if let Err(error) = parts.abort().await {
                    tracing::warn!(%error, "aborting an upload to the object store failed");
                }
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        }
        Ok(Stored {
            size_bytes: size,
            sha256: hexadecimal(&digest.finalize()),
        })
    }

    /// Reads an object: all of it, or the bytes of `range`, which must be within it and not empty.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn get(
        &self,
        object: &str,
        range: Option<Range<u64>>,
    ) -> Result<Object, ObjectsError> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let got = self
            .store
            .get_opts(&key(object)?, options)
            .await
            .map_err(sorted)?;
        let size_bytes = got.meta.size;
        let range = got.range.clone();
        let bytes = match got.payload {
            GetResultPayload::File(file, _) => {
                file_stream::pieces(OpenFile::new(file.into()), range).boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(io::Error::other).boxed(),
        };
        Ok(Object { size_bytes, bytes })
    }

    /// Deletes an object. One that is not there is fine.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn delete(&self, object: &str) -> Result<(), ObjectsError> {
        match self.store.delete(&key(object)?).await.map_err(sorted) {
            Ok(()) | Err(ObjectsError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The keys of at most `limit` objects below a prefix, in no particular order.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ObjectsError> {
        self.store
            .list(Some(&key(prefix)?))
            .take(limit)
            .map_ok(|object| object.location.to_string())
            .try_collect()
            .await
            .map_err(sorted)
    }
}

/// Keys are ours: plain words with slashes between them.
fn key(object: &str) -> Result<Key, ObjectsError> {
    Key::parse(object).map_err(|error| ObjectsError::Configuration(error.to_string()))
}

/// The library's errors, by what a caller can do about them.
fn sorted(error: object_store::Error) -> ObjectsError {
    match error {
        object_store::Error::NotFound { .. } => ObjectsError::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => ObjectsError::Refused(error.to_string()),
        error => {
            let mut cause = error.source();
            while let Some(source) = cause {
                let io = source.downcast_ref::<io::Error>();
                if io.is_some_and(|io| io.kind() == io::ErrorKind::StorageFull) {
                    return ObjectsError::Full;
                }
                cause = source.source();
            }
            ObjectsError::Unavailable(error.to_string())
        }
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests;
