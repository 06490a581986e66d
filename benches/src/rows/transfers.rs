//! Large files into a sandbox and out of it, and what that costs the server in memory.

use super::{Bench, warm_sandbox};
use crate::client::Client;
use crate::processes::peak_mib;
use crate::report::Line;
use crate::samples::Samples;
use anyhow::{Context, Result, ensure};
use hyper::body::Bytes;

const FILE_BYTES: usize = 512 * 1024 * 1024;
const PATH: &str = "large.bin";

/// One file, uploaded anew and downloaded in turn.
pub(super) async fn transfers(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let content = Bytes::from(vec![b'x'; FILE_BYTES]);
    let files = format!("/v1/sandboxes/{sandbox}/files");
    let peak = || bench.cold.pid().map(peak_mib).transpose();
    let before = peak()?;
    let (mut up, mut down) = (Samples::default(), Samples::default());
    for round in 0..bench.scale.rounds + 1 {
        let uploaded = upload(&mut client, &files, &content).await?;
        let downloaded = download(&mut client, &files).await?;
        // The first round is the warm-up of both.
        if round > 0 {
            up.push(uploaded);
            down.push(downloaded);
        }
    }
    let after = peak()?;
    bench.cold.destroy(&mut client, &sandbox).await?;
    let mut up = Line::new("file upload", "MB/s", up).at_least(500.0);
    if let (Some(before), Some(after)) = (before, after) {
        up = up.note(format!(
            "the server's processes held {before:.0} MiB at most before, {after:.0} MiB with both"
        ));
    }
    let down = Line::new("file download", "MB/s", down).at_least(500.0);
    Ok(vec![up, down])
}

async fn upload(client: &mut Client, files: &str, content: &Bytes) -> Result<f64> {
    let path = format!("{files}/upload?path={PATH}");
    let answer = client.put(&path, content.clone()).await?;
    let size = answer.json()?["file"]["sizeBytes"].as_u64();
    ensure!(size == Some(FILE_BYTES as u64), "it did not arrive whole");
    Ok(FILE_BYTES as f64 / 1e6 / answer.took.as_secs_f64())
}

async fn download(client: &mut Client, files: &str) -> Result<f64> {
    let mut body = client
        .open(&format!("{files}/download?path={PATH}"))
        .await
        .context("the download")?;
    let mut bytes = 0;
    while let Some(data) = body.next().await? {
        bytes += data.len();
    }
    let took = body.began.elapsed();
    ensure!(bytes == FILE_BYTES, "{bytes} bytes came back");
    Ok(FILE_BYTES as f64 / 1e6 / took.as_secs_f64())
}
