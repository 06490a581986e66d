//! `crownest-init`: pid 1 of a sandbox.
//!
//! Owns: starting and stopping tenant processes, their output until the server has it, file
//! operations with the tenant's rights, ports, the deadline. Does not own: isolation (the
//! spawner has made the namespaces, the root file system and the seccomp filter before this
//! program starts), limits, policy.
//!
//! Start contract: `argv[0]` is `crownest-init`; fd 3 is a listening `AF_UNIX` stream socket;
//! fds 0, 1, 2 are open or absent; `CROWNEST_INIT_NETWORK` is `proxy` or `none`; uid and gid are
//! its own (not 0, not the tenant's), with CAP_SETUID, CAP_SETGID and CAP_KILL, `no_new_privs`.
//! A process that is not root keeps capabilities over exec only as ambient ones: the spawner
//! raises those three, and init clears the ambient and inheritable sets first of all.
//!
//! When this process ends, the kernel kills everything in the sandbox. Exit code 0: the deadline
//! passed or SIGTERM came from outside; 2: the start contract was broken; 3: the kernel refused
//! something that init cannot do without.
//!
//! A static binary, without an interpreter or a library in the sandbox's root:
//! `RUSTFLAGS='-C target-feature=+crt-static' cargo build -p crownest-init --profile init
//! --target x86_64-unknown-linux-musl`

mod arrivals;
mod calls;
mod clock;
mod connection;
mod contexts;
mod devpts;
mod dial;
mod driver;
mod environment;
mod execs;
mod files;
mod host;
mod input;
mod log;
mod meter;
mod output;
mod pace;
mod poller;
mod processes;
mod requests;
mod runs;
mod sinks;
mod sys;
mod targets;

use crate::host::{EGRESS_PORT, End, Host, Parts};
use crate::log::log;
use crate::poller::Poller;
use crate::sys::{fds, signals};
use crownest_init::startup;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::time::{TimerfdClockId, TimerfdFlags};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Open files of init itself; its children get back what it was started with.
const FILES_MAX: u64 = 8_192;
/// Connections to the egress listener that wait while the server is away.
const EGRESS_BACKLOG: i32 = 512;
/// Where the listening socket is.
const LISTENER_FD: i32 = 3;
/// Nothing above the listening socket was promised.
const FIRST_OWN_FD: u32 = 5;
/// Where the spawner keeps a name of the sandbox's writable layer, for itself: it is not used here,
/// and closed for everything that is started.
const LAYER_FD: i32 = 4;

/// Why init could not start.
#[derive(Debug)]
enum StartError {
    /// Something the spawner promised is not so.
    Contract(&'static str),
    /// A step that the kernel refused.
    Step(&'static str, Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contract(what) => write!(f, "start contract: {what}"),
            Self::Step(step, error) => write!(f, "{step}: {error}"),
        }
    }
}

fn main() -> ExitCode {
    let mut host = match start() {
        Ok(host) => host,
        Err(error) => {
            log!("{error}");
            return ExitCode::from(if matches!(error, StartError::Contract(_)) {
                2
            } else {
                3
            });
        }
    };
    match host.serve() {
        Ok(End::Deadline | End::Terminated) => ExitCode::SUCCESS,
        Err(error) => {
            log!("event loop: {error}");
            ExitCode::from(3)
        }
    }
}

/// From the spawner's promises to a host that can serve.
fn start() -> Result<Host, StartError> {
    let step = |name| move |error| StartError::Step(name, error);
    if !rustix::process::getpid().is_init() {
        return Err(StartError::Contract("not pid 1"));
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("not dumpable"))?;
    drop_inheritable_rights().map_err(step("capabilities"))?;
    let listener = take_listener()?;
    if let Ok(layer) = startup::take_inherited(LAYER_FD) {
        // Open as long as this process lives.
        std::mem::forget(layer);
    }
    fds::close_from(FIRST_OWN_FD).map_err(step("close fds"))?;
    let null = open_null().map_err(step("open /dev/null"))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let files_limit = raise_files_limit();
    let signals = signals::open().map_err(step("signals"))?;
    let network = std::env::var_os("CROWNEST_INIT_NETWORK");
    let egress = match network.as_ref().and_then(|value| value.to_str()) {
        Some("proxy") => Some(listen_for_egress().map_err(step("egress listener"))?),
        Some("none") => None,
        _ => {
            return Err(StartError::Contract(
                "CROWNEST_INIT_NETWORK is neither proxy nor none",
            ));
        }
    };
    let timer_flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let deadline = rustix::time::timerfd_create(TimerfdClockId::Boottime, timer_flags)
        .map_err(step("deadline timer"))?;
    let poller = Poller::new().map_err(step("epoll"))?;
    Host::new(Parts {
        poller,
        listener,
        signals,
        deadline,
        egress,
        null,
        files_limit,
    })
    .map_err(step("watch"))
}

/// Keeps the three capabilities for init alone: nothing of them passes an exec.
fn drop_inheritable_rights() -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    let now = rustix::thread::capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable, ..now })?;
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
    if now.effective.contains(needed) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Opens /dev/null, after filling those of 0, 1, 2 that are not open: a pipe of ours that landed
/// on one of them would be overwritten in a child.
fn open_null() -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    for number in 0..LISTENER_FD {
        if !fds::is_open(number) {
            // The lowest free number is taken, which is this one, and stays for ever.
            std::mem::forget(open()?);
        }
    }
    open()
}

fn take_listener() -> Result<OwnedFd, StartError> {
    let listener = startup::take_inherited(LISTENER_FD)
        .map_err(|_| StartError::Contract("fd 3 is not open"))?;
    if sockopt::socket_acceptconn(&listener) != Ok(true)
        || sockopt::socket_domain(&listener) != Ok(AddressFamily::UNIX)
        || sockopt::socket_type(&listener) != Ok(SocketType::STREAM)
    {
        return Err(StartError::Contract(
            "fd 3 is not a listening AF_UNIX stream socket",
        ));
    }
    output::set_nonblocking(&listener).map_err(|error| StartError::Step("listener", error))?;
    Ok(listener)
}

/// Returns the limit that children get back, soft and hard.
fn raise_files_limit() -> (u64, u64) {
    let old = rustix::process::getrlimit(Resource::Nofile);
    let hard = old.maximum.unwrap_or(u64::MAX);
    let soft = old.current.unwrap_or(hard);
    let raised = Rlimit {
        current: Some(hard.min(FILES_MAX).max(soft)),
        maximum: old.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        log!("limit of open files stays at {soft}: {error}");
    }
    (soft, hard)
}

/// The socket is made here, in the sandbox's network, and accepted from outside.
fn listen_for_egress() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::LOCALHOST, EGRESS_PORT),
    )?;
    rustix::net::listen(&socket, EGRESS_BACKLOG)?;
    Ok(socket)
}
