//! Starting a zygote: namespaces, a read-only root, few capabilities, exec.
//!
//! Who runs it: [`start`] the spawner, as root; everything from [`become_zygote`] on the new
//! process, root with shrinking rights, before it has read anything but its template.

use super::super::create::find_template;
use super::super::stage::{FILTER_FILE, FIRST_FREE_FD, Stage};
use super::super::{SpawnerConfig, failed, refusal};
use crate::command::{Refusal, Step, TemplateDigest};
use crate::plan::{HOSTNAME, StageFile};
use crate::sys::{self, AttrFlags, CloneFlags, Cloned, clone3, set_mount_attr};
use crate::template;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{chdir, pivot_root, setsid, umask};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where a zygote finds its socket.
const ZYGOTE_SOCKET_FD: i32 = 3;
/// How readily the kernel kills it (and its children) when memory is short; init has 0.
const OOM_SCORE: &str = "500";
/// Joining a sandbox's namespaces takes SYS_ADMIN and SYS_CHROOT, and SYS_PTRACE because its init
/// cannot be looked at (it is not dumpable) and the namespace belongs to another user; its ids SETUID and SETGID;
/// emptying the bounding set SETPCAP.
const ZYGOTE_CAPABILITIES: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP);

/// Starts one; it says "warm" on the socket when it has imported everything.
pub(super) fn start(
    template: TemplateDigest,
    stage: &Stage,
    config: &SpawnerConfig,
) -> Result<(OwnedFd, OwnedFd), Refusal> {
    let rootfs = find_template(&config.templates_dir, template)?;
    let preload = preload(&rootfs, template, &config.templates_dir)?;
    let environment = environment(&preload).map_err(failed(Step::ZygoteStart))?;
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed(Step::ZygoteStart))?;
    match clone3(CloneFlags::ZYGOTE, None).map_err(failed(Step::ZygoteStart))? {
        Cloned::Child => {
            drop(ours);
            let error = become_zygote(&rootfs, stage, theirs.as_fd(), &environment);
            tracing::error!(%error, "starting a zygote failed");
            sys::exit_now(1)
        }
        Cloned::Parent { pidfd, .. } => Ok((ours, pidfd)),
    }
}

/// What the template wants to have imported.
fn preload(rootfs: &Path, digest: TemplateDigest, dir: &Path) -> Result<Vec<String>, Refusal> {
    let slug = rootfs
        .ancestors()
        .nth(2)
        .and_then(Path::file_name)
        .and_then(|s| s.to_str());
    let selector = format!("{}@{}", slug.unwrap_or_default(), digest.to_hex());
    match template::find(&selector, dir) {
        Ok(built) => Ok(built.preload),
        Err(error) => {
            tracing::error!(%error, "reading a template failed");
            Err(refusal(Step::TemplateMissing))
        }
    }
}

fn environment(preload: &[String]) -> io::Result<Vec<CString>> {
    let preload = format!("CROWNEST_ZYGOTE_PRELOAD={}", preload.join(","));
    [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "LANG=C.UTF-8",
        "HOME=/tmp",
        "CROWNEST_ZYGOTE_FD=3",
        "CROWNEST_SECCOMP_FILE=/opt/crownest/seccomp.bpf",
        "MPLCONFIGDIR=/opt/crownest-cache/matplotlib",
        "PYTHONDONTWRITEBYTECODE=1",
        // One thread: others would not survive the fork.
        "OMP_NUM_THREADS=1",
        "OPENBLAS_NUM_THREADS=1",
        "MKL_NUM_THREADS=1",
        "ARROW_DEFAULT_MEMORY_POOL=system",
        preload.as_str(),
    ]
    .into_iter()
    .map(|entry| CString::new(entry).map_err(|_| io::ErrorKind::InvalidData.into()))
    .collect()
}

/// Builds the zygote's view around this process and becomes it; returns only on failure.
fn become_zygote(
    rootfs: &Path,
    stage: &Stage,
    socket: BorrowedFd<'_>,
    environment: &[CString],
) -> io::Error {
    let outcome = (|| -> io::Result<OwnedFd> {
        umask(Mode::from_raw_mode(0o022));
        // Its children run tenant code: when memory is short they go before init does.
        fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
        // Interpreters remember the name of the machine: the sandbox's, not the host's.
        rustix::system::sethostname(HOSTNAME.as_bytes())?;
        enter_template(rootfs, stage)?;
        setsid()?;
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, FIRST_FREE_FD)?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        sys::duplicate_onto(socket.as_fd(), ZYGOTE_SOCKET_FD)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let python = open("/usr/bin/python3", flags, Mode::empty())?;
        limit_capabilities()?;
        Ok(python)
    })();
    let python = match outcome {
        Ok(python) => python,
        Err(error) => return error,
    };
    // The program is not closed at exec by number 4 and up only because it is opened so itself.
    let argv: [&CStr; 3] = [
        c"/usr/bin/python3",
        c"-B",
        c"/opt/crownest/python/zygote.py",
    ];
    let envp: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
    sys::execute_fd(python.as_fd(), &argv, &envp)
}

/// The template, read-only, with /dev, the kernels and private /proc and /tmp; nothing else.
fn enter_template(rootfs: &Path, stage: &Stage) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, rootfs, flags)?;
    let attributes = AttrFlags::RDONLY | AttrFlags::NOSUID | AttrFlags::NODEV;
    set_mount_attr(tree.as_fd(), attributes, None)?;
    move_mount(tree.as_fd(), "", CWD, stage.root(), empty)?;
    chdir(stage.root())?;
    for (source, target) in [
        (StageFile::Dev, "dev"),
        (StageFile::Kernels, "opt/crownest"),
    ] {
        let tree = open_tree(CWD, stage.file(&source), flags)?;
        move_mount(tree.as_fd(), "", CWD, target, empty)?;
    }
    let noexec = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", noexec | MountFlags::RDONLY, None)?;
    mount("tmpfs", "tmp", "tmpfs", noexec, c"size=16m,mode=1777")?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

/// Root keeps through exec what is in the bounding set, so that is what is limited.
fn limit_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().difference(ZYGOTE_CAPABILITIES) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know cannot be held either.
            Err(rustix::io::Errno::INVAL) => {}
            other => other?,
        }
    }
    let sets = CapabilitySets {
        effective: ZYGOTE_CAPABILITIES,
        permitted: ZYGOTE_CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The filter is where the environment says.
const _: () = assert!(matches!(FILTER_FILE.as_bytes(), b"kernels/seccomp.bpf"));
