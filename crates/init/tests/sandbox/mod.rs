//! A real `crownest-init` in real namespaces, and a client that speaks link frames with it.
//!
//! Needs root and util-linux. Where namespaces cannot be made, [`Sandbox::start`] prints `SKIP:`
//! and returns None. The seccomp filter and the overlay are the spawner's and not here.

#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

pub(crate) mod driver;
pub(crate) mod file;
mod said;

pub(crate) use said::Said;

use crownest_init::cell::RunOptions;
use crownest_init::frame::{Decoder, FRAME_FDS_MAX, encode};
use crownest_init::identity::Identity;
use crownest_init::link::{
    Call, CallError, CallErrorCode, Event, EventKind, Reply, ReplyResult, Request, Within,
};
use crownest_init::terminal::Stdin;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// First host uid of the sandbox; any range that nobody uses.
const UID_BASE: u32 = 1_700_000;

/// A sandbox that ends with this value.
pub(crate) struct Sandbox {
    unshare: Child,
    directory: PathBuf,
    /// Pid of init outside.
    pub(crate) init: i32,
}

impl Sandbox {
    /// Network mode as in the start contract.
    pub(crate) fn start(network: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("crownest-init-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(directory.join("root")).unwrap();
        let listener = UnixListener::bind(directory.join("socket")).unwrap();
        let mut unshare = Command::new("unshare")
            .args([
                "--user",
                "--pid",
                "--fork",
                "--kill-child",
                "--keep-caps",
                "--mount",
                "--net",
                "--uts",
                "--ipc",
            ])
            .args([
                "bash",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sandbox/setup.sh"),
            ])
            .arg(directory.join("root"))
            .arg(program())
            .env("CROWNEST_INIT_NETWORK", network)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(unshare.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let mapped = line == "ready\n" && map_ids(unshare.id()).is_ok();
        if !mapped {
            println!("SKIP: namespaces cannot be made here: {line:?}");
            let _ = unshare.kill();
            let _ = unshare.wait();
            let _ = fs::remove_dir_all(&directory);
            return None;
        }
        unshare.stdin.take().unwrap().write_all(b"go\n").unwrap();
        // What init and its set-up say is part of a failed test's report.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                println!("sandbox: {line}");
            }
        });
        let init = only_child(unshare.id());
        Some(Self {
            unshare,
            directory,
            init,
        })
    }

    /// A new connection; the `Hello` is its first event.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.directory.join("socket"))
    }

    /// Waits for the end of the sandbox; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.unshare.wait().unwrap().code()
    }

    /// Starts a program in the sandbox's namespaces as a child of this process, as a zygote
    /// does: init is not its parent. Returns its pid outside.
    pub(crate) fn enter(&self, argv: &[&str], fds: [OwnedFd; 3]) -> (Child, i32) {
        let [stdin, stdout, stderr] = fds;
        let child = Command::new("nsenter")
            .args([
                "--target",
                &self.init.to_string(),
                "--user",
                "--pid",
                "--mount",
                "--net",
            ])
            .args(["--setuid", "1000", "--setgid", "1000", "setsid", "-w"])
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let pid = only_child(child.id());
        (child, pid)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Everything in the sandbox goes with init. --kill-child alone would not do: the wish to
        // die with the parent is forgotten when init's credentials change.
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let alive = children
            .split_whitespace()
            .any(|pid| pid == self.init.to_string());
        if let Some(init) = rustix::process::Pid::from_raw(self.init).filter(|_| alive) {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The program under test; `CROWNEST_INIT_PROGRAM` names another build of it.
fn program() -> PathBuf {
    std::env::var_os("CROWNEST_INIT_PROGRAM").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_crownest-init")),
        PathBuf::from,
    )
}

fn map_ids(pid: u32) -> std::io::Result<()> {
    let map = format!("0 {UID_BASE} 65536\n");
    fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    fs::write(format!("/proc/{pid}/gid_map"), &map)
}

/// Waits until a process has a child, and returns it.
fn only_child(pid: u32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    loop {
        let children = fs::read_to_string(&path).expect("the process is there");
        if let Some(child) = children.split_ascii_whitespace().next() {
            return child.parse().unwrap();
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(!stat.contains(") Z "), "the process has ended");
        std::thread::yield_now();
    }
}

/// One connection to init.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    last_id: u64,
    /// Events that came while an answer was awaited.
    stash: VecDeque<(EventKind, Vec<u8>, Vec<OwnedFd>)>,
    /// Acknowledge what [`Client::event`] returns.
    pub(crate) acknowledge: bool,
    /// A target whose events [`Client::until_end`] of others drops.
    pub(crate) ignored: Option<u64>,
}

/// A successful answer.
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            decoder: Decoder::default(),
            fds: VecDeque::new(),
            last_id: 0,
            stash: VecDeque::new(),
            acknowledge: true,
            ignored: None,
        }
    }

    /// The first event of a connection, with the egress listener if there is one.
    pub(crate) fn hello(&mut self) -> (EventKind, Option<OwnedFd>) {
        let (event, _, mut fds) = self.frame().expect("a hello");
        assert!(matches!(event.kind, EventKind::Hello { .. }), "{event:?}");
        (event.kind, fds.pop())
    }

    /// Sends a request without waiting for its answer; its id.
    pub(crate) fn send(&mut self, request: Request, body: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        self.last_id += 1;
        let count = u32::try_from(fds.len()).unwrap();
        let call = Call {
            id: self.last_id,
            fds: count,
            request,
        };
        let mut bytes = Vec::new();
        encode(&serde_json::to_vec(&call).unwrap(), body, &mut bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let iov = [IoSlice::new(&bytes)];
        let sent = sendmsg(&self.stream, &iov, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
        self.last_id
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, id: u64) -> Result<Answered, CallError> {
        let is_it = |kind: &EventKind| matches!(kind, EventKind::Reply { id: of, .. } if *of == id);
        let stashed = self.stash.iter().position(|(kind, ..)| is_it(kind));
        let (kind, body, fds) = stashed
            .and_then(|index| self.stash.remove(index))
            .unwrap_or_else(|| {
                loop {
                    let (event, body, fds) = self.frame().expect("an answer");
                    if is_it(&event.kind) {
                        return (event.kind, body, fds);
                    }
                    self.stash.push_back((event.kind, body, fds));
                }
            });
        match kind {
            EventKind::Reply {
                result: ReplyResult::Ok(reply),
                ..
            } => Ok(Answered { reply, body, fds }),
            EventKind::Reply {
                result: ReplyResult::Error(error),
                ..
            } => Err(error),
            other => panic!("not an answer: {other:?}"),
        }
    }

    pub(crate) fn call_with(
        &mut self,
        request: Request,
        body: &[u8],
    ) -> Result<Answered, CallError> {
        let id = self.send(request, body, &[]);
        self.answer(id)
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Answered, CallError> {
        self.call_with(request, b"")
    }

    /// The code of a refusal.
    #[allow(clippy::needless_pass_by_value, reason = "reads like the other calls")]
    pub(crate) fn refused(&mut self, request: Request, body: &[u8]) -> CallErrorCode {
        match self.call_with(request.clone(), body) {
            Ok(answered) => panic!("{request:?} was not refused: {:?}", answered.reply),
            Err(error) => error.code,
        }
    }

    /// The next event that is not an answer.
    pub(crate) fn event(&mut self) -> (EventKind, Vec<u8>) {
        let (kind, body, _) = self.stash.pop_front().unwrap_or_else(|| {
            let (event, body, fds) = self.frame().expect("an event");
            (event.kind, body, fds)
        });
        if let (true, Some((target, seq))) = (self.acknowledge, position(&kind)) {
            self.send(Request::Ack { target, seq }, b"", &[]);
        }
        (kind, body)
    }

    /// Everything up to the end of a run or process; events of others are an error.
    pub(crate) fn until_end(&mut self, target: u64) -> Said {
        let mut said = Said::default();
        let mut last = None;
        while said.end.is_none() {
            let (kind, body) = self.event();
            if matches!(kind, EventKind::Reply { .. }) {
                continue;
            }
            let (of, seq) = position(&kind).unwrap_or_else(|| panic!("unexpected {kind:?}"));
            if self.ignored == Some(of) {
                continue;
            }
            assert_eq!(of, target, "{kind:?}");
            assert!(
                last.is_none_or(|last| seq == last + 1),
                "{seq} after {last:?}"
            );
            last = Some(seq);
            said.add(kind, &body);
        }
        said
    }

    /// Starts a shell command.
    pub(crate) fn shell(&mut self, exec: u64, command: &str, timeout_ms: Option<u64>) -> i32 {
        self.call(shell(exec, command, timeout_ms))
            .unwrap()
            .reply
            .pid
            .unwrap()
    }

    /// Runs a shell command to its end.
    pub(crate) fn shell_to_end(&mut self, exec: u64, command: &str) -> Said {
        self.shell(exec, command, None);
        self.until_end(exec)
    }

    pub(crate) fn run(&mut self, context: &str, run: u64, code: &str, timeout_ms: u64) {
        self.run_with(context, run, code, timeout_ms, RunOptions::default());
    }

    pub(crate) fn run_with(
        &mut self,
        context: &str,
        run: u64,
        code: &str,
        timeout_ms: u64,
        options: RunOptions,
    ) {
        let request = Request::Run {
            context: context.into(),
            run,
            timeout_ms,
            cwd: None,
            language: None,
            quiet: false,
            options,
        };
        self.call_with(request, code.as_bytes()).unwrap();
    }

    pub(crate) fn run_to_end(&mut self, context: &str, run: u64, code: &str) -> Said {
        self.run(context, run, code, 60_000);
        self.until_end(run)
    }

    /// A whole file, written.
    pub(crate) fn write(&mut self, path: &str, body: &[u8]) -> Result<Answered, CallError> {
        self.call_with(write(path), body)
    }

    /// None when the connection was closed.
    pub(crate) fn frame(&mut self) -> Option<(Event, Vec<u8>, Vec<OwnedFd>)> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                let event: Event = serde_json::from_slice(&frame.head).unwrap();
                let fds = self.fds.drain(..event.fds as usize).collect();
                return Some((event, frame.body, fds));
            }
            let mut buffer = vec![0; 64 * 1024];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let iov = &mut [IoSliceMut::new(&mut buffer)];
            let message = recvmsg(
                self.stream.as_fd(),
                iov,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let count = match message {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(error) => panic!("nothing came: {error}"),
            };
            for part in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = part {
                    self.fds.extend(fds);
                }
            }
            if count == 0 {
                return None;
            }
            self.decoder.push(&buffer[..count]);
        }
    }
}

/// Target and number of an event that has them.
pub(crate) fn position(kind: &EventKind) -> Option<(u64, u64)> {
    match kind {
        EventKind::Output { target, seq, .. }
        | EventKind::Kernel { target, seq }
        | EventKind::RunDone { target, seq, .. }
        | EventKind::ExecDone { target, seq, .. } => Some((*target, *seq)),
        _ => None,
    }
}

pub(crate) fn shell(exec: u64, command: &str, timeout_ms: Option<u64>) -> Request {
    Request::Exec {
        exec,
        argv: ["/bin/bash", "-c", command].map(str::to_owned).to_vec(),
        cwd: "/workspace".into(),
        env: BTreeMap::new(),
        timeout_ms,
        identity: Identity::default(),
        stdin: Stdin::Null,
    }
}

pub(crate) fn write(path: &str) -> Request {
    Request::FileWrite {
        path: path.into(),
        within: Within::Workspace,
        overwrite: true,
        parents: false,
        mode: 0o644,
    }
}
