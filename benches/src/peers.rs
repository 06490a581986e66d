//! What others need for the same work, measured in the same minutes: ipykernel and the Jupyter
//! kernels of other languages behind their own client, bubblewrap, runc, a shell.
//!
//! A peer that cannot run here is left out, and the report says so and why.

use crate::samples::Samples;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const JUPYTER_SCRIPT: &str = include_str!("../peers/jupyter_peer.py");
const REQUIREMENTS: &str = include_str!("../peers/requirements.txt");
/// Longest wait for one answer of a peer, and for its packages to be installed.
const ANSWER_SECONDS_MAX: u64 = 300;
const INSTALL_SECONDS_MAX: u64 = 900;
/// Cells of a new kernel that are not counted.
const WARMUP_CELLS: usize = 20;
/// The name that ipykernel gives itself.
const IPYKERNEL: &str = "python3";
/// Not of the package index: built by the Go of this machine, with the program that it asks for.
const GONB: &str = "gonb";
const GONB_PROGRAMS: [&str; 2] = [
    "github.com/janpfeifer/gonb",
    "golang.org/x/tools/cmd/goimports",
];
const GONB_MODULE: &str = include_str!("../peers/gonb.mod");

/// The peers that run here.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) ipykernel: Option<Jupyter>,
    /// What the Jupyter kernels of other languages are started with.
    python: Option<PathBuf>,
    dir: PathBuf,
    pub(crate) bwrap: Option<Program>,
    pub(crate) runc: Option<Program>,
    pub(crate) shell: Option<Program>,
    pub(crate) skipped: Vec<String>,
}

/// Where peers come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// An interpreter that has the packages; else a virtual environment is made.
    pub(crate) python: Option<PathBuf>,
    /// Where that environment is kept between runs.
    pub(crate) venv: PathBuf,
    /// For files that live as long as the run.
    pub(crate) dir: PathBuf,
    /// Root file system for the container peers.
    pub(crate) rootfs: Option<PathBuf>,
}

impl Peers {
    /// Finds out which peers run here by running each once.
    pub(crate) async fn find(sources: &Sources) -> Self {
        let mut peers = Self {
            dir: sources.dir.clone(),
            ..Self::default()
        };
        let python = match &sources.python {
            Some(python) => Ok(python.clone()),
            None => environment(&sources.venv, REQUIREMENTS).await,
        };
        match python {
            Ok(python) => {
                peers.python = Some(python);
                peers.ipykernel = peers.jupyter(IPYKERNEL, "1+1", "2").await;
            }
            Err(error) => peers.skip("Jupyter kernels", &error),
        }
        match bwrap(sources.rootfs.as_deref()).await {
            Ok(program) => peers.bwrap = Some(program),
            Err(error) => peers.skip("bwrap", &error),
        }
        match runc(sources).await {
            Ok(program) => peers.runc = Some(program),
            Err(error) => peers.skip("runc", &error),
        }
        let shell = Program::new("bash -c true (no sandbox)", "/bin/bash", &["-c", "true"]);
        match shell.checked().await {
            Ok(program) => peers.shell = Some(program),
            Err(error) => peers.skip("bash", &error),
        }
        peers
    }

    /// A kernel that has run this cell; none, with a word about why, where it cannot.
    pub(crate) async fn jupyter(
        &mut self,
        kernel: &'static str,
        code: &str,
        says: &str,
    ) -> Option<Jupyter> {
        // That there are no packages has been said.
        let python = self.python.clone()?;
        match Jupyter::start(&python, &self.dir, kernel, code, says).await {
            Ok(peer) => Some(peer),
            Err(error) => {
                self.skip(kernel, &error);
                None
            }
        }
    }

    fn skip(&mut self, name: &str, error: &anyhow::Error) {
        let text = format!("peer {name}: {error:#}");
        eprintln!("SKIP: {text}");
        self.skipped.push(text);
    }

    /// The container programs, for rows that make a sandbox.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Program> {
        [&self.bwrap, &self.runc].into_iter().flatten()
    }
}

/// A program whose whole life is measured.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    /// Followed by an argument that is another one every time.
    numbered: bool,
}

impl Program {
    fn new(name: &'static str, program: &str, args: &[&str]) -> Self {
        Self {
            name,
            program: program.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            numbered: false,
        }
    }

    async fn checked(self) -> Result<Self> {
        self.run().await?;
        Ok(self)
    }

    /// From the start of the program to its exit with 0.
    pub(crate) async fn run(&self) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        let began = Instant::now();
        if self.numbered {
            command.arg(format!(
                "crownest-bench-{}-{}",
                std::process::id(),
                rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec
            ));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| self.program.display().to_string())?;
        let output = child.wait_with_output().await?;
        let took = began.elapsed();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}", output.status, said.trim());
        }
        Ok(took)
    }

    pub(crate) async fn measure(&self, count: usize, samples: &mut Samples) -> Result<()> {
        for _ in 0..count {
            let took = self.run().await.with_context(|| self.name)?;
            samples.push_ms(took);
        }
        Ok(())
    }
}

async fn bwrap(rootfs: Option<&Path>) -> Result<Program> {
    let root = rootfs.map_or_else(|| "/".to_owned(), |path| path.display().to_string());
    let args = [
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        &root,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "/bin/true",
    ];
    Program::new("bwrap --unshare-all true", "bwrap", &args)
        .checked()
        .await
}

/// A bundle as small as `runc spec` makes it, over the root of the template.
async fn runc(sources: &Sources) -> Result<Program> {
    let rootfs = sources
        .rootfs
        .as_deref()
        .context("no template on this machine to run on")?;
    let bundle = sources.dir.join("runc-bundle");
    std::fs::create_dir_all(&bundle)?;
    let made = Command::new("runc")
        .args(["spec", "--bundle"])
        .arg(&bundle)
        .output()
        .await
        .context("runc spec")?;
    if !made.status.success() {
        bail!(
            "runc spec: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
    }
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["root"] = json!({ "path": rootfs, "readonly": true });
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    // Raising a limit takes a capability that root lacks on some machines.
    if let Some(process) = config["process"].as_object_mut() {
        process.remove("rlimits");
    }
    std::fs::write(&path, config.to_string())?;
    let (bundle, state) = (bundle.display().to_string(), sources.dir.join("runc-state"));
    let state = state.display().to_string();
    let args = ["--root", &state, "run", "--bundle", &bundle];
    let mut program = Program::new("runc run true", "runc", &args);
    program.numbered = true;
    program.checked().await
}

/// The Python program that owns kernels of one kind; see `peers/jupyter_peer.py`.
#[derive(Debug)]
pub(crate) struct Jupyter {
    pub(crate) name: &'static str,
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Cells that ended without their result, since the one that counts began.
    pub(crate) missed: u64,
}

impl Jupyter {
    async fn start(
        python: &Path,
        dir: &Path,
        name: &'static str,
        code: &str,
        says: &str,
    ) -> Result<Self> {
        if name == GONB {
            build_gonb(python, dir).await?;
        }
        let script = dir.join("jupyter_peer.py");
        std::fs::write(&script, JUPYTER_SCRIPT)?;
        let mut child = Command::new(python)
            .arg(&script)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It ends its kernels when its stdin ends; Ctrl-C would come in between.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| python.display().to_string())?;
        let stdin = child.stdin.take().context("its stdin is a pipe")?;
        let stdout = child.stdout.take().context("its stdout is a pipe")?;
        let mut peer = Self {
            name,
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
            missed: 0,
        };
        let first = json!({ "op": "run", "code": code, "says": says, "n": WARMUP_CELLS });
        peer.measure(&first, &mut Samples::default()).await?;
        peer.missed = 0;
        Ok(peer)
    }

    async fn ask(&mut self, request: &Value) -> Result<Value> {
        self.stdin
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let line = tokio::time::timeout(limit, self.answers.next_line())
            .await
            .context("no answer in time")??
            .context("it ended")?;
        serde_json::from_str(&line).context("an answer that is not JSON")
    }

    /// Asks for measurements; adds them to the samples.
    pub(crate) async fn measure(&mut self, request: &Value, samples: &mut Samples) -> Result<()> {
        let answer = self.ask(request).await.context(self.name)?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{}: {error}", self.name);
        }
        self.missed += answer["missed"].as_u64().unwrap_or(0);
        let values = answer["ms"].as_array().or_else(|| answer["mib"].as_array());
        for value in values.context("an answer without values")? {
            samples.push(value.as_f64().context("a number")?);
        }
        Ok(())
    }

    /// Ends it and its kernels.
    pub(crate) async fn stop(self) {
        let Self {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        // Killed when dropped, if it does not end; its kernels notice that their parent is gone.
        let _ = tokio::time::timeout(limit, child.wait()).await;
    }
}

/// The interpreter of a virtual environment with the packages; made at the first run.
pub(crate) async fn environment(venv: &Path, requirements: &str) -> Result<PathBuf> {
    let python = venv.join("bin/python3");
    let done = venv.join("requirements.txt");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    eprintln!("installing Python packages into {}", venv.display());
    let asked = venv.with_extension("txt");
    if let Some(parent) = venv.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&asked, requirements)?;
    finished(Command::new("python3").args(["-m", "venv"]).arg(venv)).await?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    finished(Command::new(&python).args(pip).arg(&asked)).await?;
    std::fs::rename(asked, done)?;
    Ok(python)
}

/// Puts gonb beside the interpreter, unless an earlier run has.
///
/// By a module that requires exact versions: `go install` asks the proxy for all versions that there
/// are, which some refuse to list.
async fn build_gonb(python: &Path, dir: &Path) -> Result<()> {
    let programs = python.parent().context("a program in a directory")?;
    if programs.join(GONB).exists() && programs.join("goimports").exists() {
        return Ok(());
    }
    let module = dir.join("gonb-module");
    std::fs::create_dir_all(&module)?;
    std::fs::write(module.join("go.mod"), GONB_MODULE)?;
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(programs).args(GONB_PROGRAMS);
    go.env("GOFLAGS", "-mod=mod").current_dir(&module);
    finished(&mut go).await
}

async fn finished(command: &mut Command) -> Result<()> {
    let what = format!("{:?}", command.as_std());
    let limit = Duration::from_secs(INSTALL_SECONDS_MAX);
    let output = tokio::time::timeout(limit, command.kill_on_drop(true).output())
        .await
        .with_context(|| format!("{what}: not within {INSTALL_SECONDS_MAX} s"))??;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
