//! The child's side of a create: from clone3 to the exec of init.
//!
//! Who runs it: the new process. Until [`drop_privileges`] it is root *of its own user namespace*
//! (and nobody outside it), in new mount, pid, network, ipc and uts namespaces; before the spawner
//! has written the uid map it is nobody at all. Nothing here sees a byte of a tenant: the plan is
//! data of the spawner.

use super::stage::{FIRST_FREE_FD, Stage};
use crate::command::{Network, Step};
use crate::plan::{HOSTNAME, INIT_UID, MountOp, Plan};
use crate::sys::{self, Instruction};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root, setsid, umask};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where init finds its listening socket.
const INIT_SOCKET_FD: i32 = 3;
/// Where init keeps the writable layer; it closes it for everything that it starts.
pub(super) const INIT_LAYER_FD: i32 = 4;
/// Signals and POSIX timers that the processes of a sandbox may have queued.
const SIGNALS_PENDING_MAX: u64 = 4096;
/// Pseudo-terminals of one sandbox: the machine has one count for all of them.
const TERMINALS_MAX: u32 = 64;
/// What init may do in its user namespace: become the user to start programs, and signal them.
const INIT_CAPABILITIES: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);

/// What the child takes with it from before the fork.
pub(super) struct Inherited<'a> {
    pub plan: &'a Plan,
    pub stage: &'a Stage,
    /// This sandbox's own view of the stage.
    pub view: BorrowedFd<'a>,
    pub filter: &'a [Instruction],
    pub entrances: &'a [OwnedFd],
    /// Brings the root from the spawner, takes the failing step back.
    pub channel: BorrowedFd<'a>,
    pub listener: BorrowedFd<'a>,
    /// The writable layer. Nothing shows it once the root is made of it; the spawner asks init's
    /// table of descriptors for it when it makes a snapshot, as the next spawner can too.
    pub layer: BorrowedFd<'a>,
}

type Outcome<T> = Result<T, (Step, io::Error)>;

fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> (Step, io::Error) {
    move |error| (step, error.into())
}

/// Builds the sandbox around this process and becomes its init. Never returns.
pub(super) fn become_init(inherited: &Inherited<'_>) -> ! {
    let Err((step, error)) = build(inherited);
    let mut report = [0u8; 8];
    report[..4].copy_from_slice(&(step as u32).to_le_bytes());
    report[4..].copy_from_slice(&error.raw_os_error().unwrap_or(0).to_le_bytes());
    let _ = rustix::net::send(inherited.channel, &report, rustix::net::SendFlags::NOSIGNAL);
    sys::exit_now(1)
}

fn build(inherited: &Inherited<'_>) -> Outcome<std::convert::Infallible> {
    enter_groups(inherited.entrances)?;
    // From here the namespace's root is this sandbox's group: no path of the host shows.
    sys::unshare_cgroup().map_err(at(Step::CgroupAttach))?;
    let root = super::create::receive_root(inherited.channel).map_err(at(Step::HandOver))?;
    // The maps are written: become the root of this user namespace.
    become_ids(0).map_err(at(Step::Credentials))?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    mount_view(inherited.stage, inherited.view).map_err(at(Step::StageView))?;
    mount_all(inherited.plan, inherited.stage, root.as_fd())?;
    sys::loopback_up().map_err(at(Step::Loopback))?;
    rustix::system::sethostname(HOSTNAME.as_bytes()).map_err(at(Step::Hostname))?;
    setsid().map_err(at(Step::Credentials))?;
    limit_resources().map_err(at(Step::Credentials))?;
    place_descriptors(inherited).map_err(at(Step::Exec))?;
    drop_privileges().map_err(at(Step::Credentials))?;
    sys::install_filter(inherited.filter).map_err(at(Step::Seccomp))?;
    sys::default_children();
    let network = match inherited.plan.network {
        Network::None => c"CROWNEST_INIT_NETWORK=none",
        Network::Proxy => c"CROWNEST_INIT_NETWORK=proxy",
    };
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let error = sys::execute_fd(
        inherited.stage.init(),
        &[c"crownest-init"],
        &[network, path],
    );
    Err((Step::Exec, error))
}

/// Enters the control groups before anything is allocated that should count towards them.
fn enter_groups(entrances: &[OwnedFd]) -> Outcome<()> {
    for entrance in entrances {
        rustix::io::write(entrance, b"0").map_err(at(Step::CgroupAttach))?;
    }
    Ok(())
}

fn become_ids(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Applies the plan's mounts in their order, then enters the result.
fn mount_all(plan: &Plan, stage: &Stage, root: BorrowedFd<'_>) -> Outcome<()> {
    for op in &plan.mounts {
        match op {
            MountOp::Root => mount_root(stage, root).map_err(at(Step::RootMove))?,
            MountOp::Proc => {
                mount_new("proc", "proc", noexec(), "").map_err(at(Step::ProcMount))?;
            }
            MountOp::DevPts => {
                let options = format!("newinstance,ptmxmode=0666,mode=0620,max={TERMINALS_MAX}");
                let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
                mount_new("devpts", "dev/pts", flags, &options).map_err(at(Step::DevMount))?;
            }
            MountOp::Tmpfs {
                target,
                bytes,
                inodes,
                mode,
                exec,
            } => {
                let options = format!("size={bytes},nr_inodes={inodes},mode={mode:o}");
                let flags = if *exec {
                    MountFlags::NOSUID | MountFlags::NODEV
                } else {
                    noexec()
                };
                mount_new("tmpfs", target, flags, &options).map_err(at(Step::TmpMount))?;
            }
            MountOp::Stage { source, target, .. } => {
                bind(stage, source, target).map_err(at(step_of(source)))?;
            }
        }
    }
    pivot_root(".", ".").map_err(at(Step::PivotRoot))?;
    unmount(".", UnmountFlags::DETACH).map_err(at(Step::OldRootUnmount))?;
    chdir("/").map_err(at(Step::PivotRoot))
}

fn noexec() -> MountFlags {
    MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC
}

fn step_of(source: &crate::plan::StageFile) -> Step {
    use crate::plan::StageFile;
    match source {
        StageFile::Dev => Step::DevMount,
        StageFile::Empty | StageFile::MemInfo { .. } | StageFile::CpuInfo { .. } => Step::ProcMask,
        StageFile::Kernels => Step::KernelsMount,
        StageFile::Certificates => Step::CertificatesMount,
    }
}

/// Puts the view of the stage where [`bind`] finds it; it goes with the old root.
fn mount_view(stage: &Stage, view: BorrowedFd<'_>) -> io::Result<()> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(view, "", CWD, stage.view(), empty)?)
}

/// Puts the overlay in place and stands on it, so that every later target is relative to it.
fn mount_root(stage: &Stage, root: BorrowedFd<'_>) -> io::Result<()> {
    move_mount(
        root,
        "",
        CWD,
        stage.root(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(chdir(stage.root())?)
}

fn mount_new(fstype: &str, target: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(mount(fstype, target, fstype, flags, options.as_c_str())?)
}

/// Binds a staged file. A /proc file that this kernel does not have needs no mask.
fn bind(stage: &Stage, source: &crate::plan::StageFile, target: &str) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, stage.view().join(source.path()), flags)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    match move_mount(tree.as_fd(), "", CWD, target, empty) {
        Err(rustix::io::Errno::NOENT) if target.starts_with("proc/") => Ok(()),
        other => Ok(other?),
    }
}

/// Limits per user and process that the control groups do not know.
fn limit_resources() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    for (resource, most) in [
        (Resource::Sigpending, SIGNALS_PENDING_MAX),
        (Resource::Core, 0),
    ] {
        let now = getrlimit(resource);
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )?;
    }
    Ok(())
}

/// fd 0, 1 and 2 are /dev/null, [`INIT_SOCKET_FD`] is the socket, [`INIT_LAYER_FD`] the writable
/// layer, by name alone; everything above is closed at exec because it was opened close-on-exec, and here once more.
fn place_descriptors(inherited: &Inherited<'_>) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    // Away from the numbers that are about to be taken.
    let listener = rustix::io::fcntl_dupfd_cloexec(inherited.listener, FIRST_FREE_FD)?;
    let layer = rustix::io::fcntl_dupfd_cloexec(inherited.layer, FIRST_FREE_FD)?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    sys::duplicate_onto(listener.as_fd(), INIT_SOCKET_FD)?;
    sys::duplicate_onto(layer.as_fd(), INIT_LAYER_FD)
}

/// Root of the user namespace becomes [`INIT_UID`] with three capabilities, for good.
fn drop_privileges() -> io::Result<()> {
    use rustix::thread as task;
    for capability in CapabilitySet::all().difference(INIT_CAPABILITIES) {
        match task::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know cannot be held either.
            Err(rustix::io::Errno::INVAL) => {}
            other => other?,
        }
    }
    task::set_keep_capabilities(true)?;
    become_ids(INIT_UID)?;
    // SETPCAP is needed for the ambient set and the secure bits, and is given up right after.
    let with_pcap = INIT_CAPABILITIES.union(CapabilitySet::SETPCAP);
    let sets = |effective, inheritable| CapabilitySets {
        effective,
        permitted: effective,
        inheritable,
    };
    task::set_capabilities(None, sets(with_pcap, INIT_CAPABILITIES))?;
    for capability in INIT_CAPABILITIES {
        task::configure_capability_in_ambient_set(capability, true)?;
    }
    // Locked: uid 0 means nothing here any more.
    task::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED,
    )?;
    task::set_capabilities(None, sets(INIT_CAPABILITIES, INIT_CAPABILITIES))?;
    Ok(task::set_no_new_privs(true)?)
}
