//! The spawner's side of a create: groups, socket, namespaces, root file system. It ends when the
//! child has its root; that the child becomes init is awaited in [`super::starting`].
//!
//! Who runs it: the spawner, as root.

use super::child::{Inherited, become_init};
use super::clients::ClientId;
use super::sandboxes::Sandbox;
use super::stage::FIRST_FREE_FD;
use super::starting::Starting;
use super::{Spawner, failed, refusal};
use crate::command::{Limits, Network, Refusal, SandboxKey, Step, TemplateDigest};
use crate::plan::{self, MountOp, Plan};
use crate::sys::{AttrFlags, CloneFlags, Cloned, clone3_owned_by, set_mount_attr};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, open, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    unmount,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen,
    recvmsg, sendmsg, socket_with, socketpair, sockopt,
};
use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that a child waits for its root. It takes half a millisecond.
const ROOT_MS_MAX: u64 = 5_000;
/// Connections waiting at an init's socket.
const INIT_BACKLOG: i32 = 8;

/// What a create asks for.
#[derive(Debug)]
pub(super) struct Order {
    pub key: SandboxKey,
    pub template: TemplateDigest,
    pub limits: Limits,
    pub network: Network,
    pub snapshot: Option<SandboxKey>,
}

/// A sandbox that has groups and a writable layer, and no process yet.
#[derive(Debug)]
pub(super) struct Making {
    pub asker: (ClientId, u64),
    pub key: SandboxKey,
    pub template: TemplateDigest,
    pub slot: u32,
    pub plan: Plan,
    pub rootfs: PathBuf,
}

impl Spawner {
    /// Starts to make a sandbox; the answer comes from [`super::starting`], unless it fails here.
    /// On failure nothing of it is left.
    pub(super) fn create(&mut self, asker: (ClientId, u64), order: Order) -> Result<(), Refusal> {
        if !order.limits.in_range() {
            return Err(refusal(Step::LimitsOutOfRange));
        }
        if self.sandboxes.get(&order.key).is_some() {
            return Err(refusal(Step::SandboxExists));
        }
        let rootfs = find_template(&self.config.templates_dir, order.template)?;
        let kept = order.snapshot.as_ref().map(|name| self.kept.open(name));
        let kept = kept.transpose()?;
        let slot = self
            .sandboxes
            .free_slot()
            .ok_or_else(|| refusal(Step::SandboxesFull))?;
        let plan = plan::plan(
            &order.key,
            slot,
            self.config.layout.uid_base(slot),
            order.template,
            &order.limits,
            order.network,
            self.around,
        );
        let made = self.cgroups.create(&plan.name, &order.limits);
        let upper = made
            .map_err(failed(Step::CgroupCreate))
            .and_then(|()| upper(&plan).map_err(failed(Step::UpperMount)));
        let making = Making {
            asker,
            key: order.key,
            template: order.template,
            slot,
            plan,
            rootfs,
        };
        match (upper, kept) {
            (Err(refused), _) => {
                self.abandon(&making);
                Err(refused)
            }
            (Ok(upper), None) => self.give_init(making, &upper),
            (Ok(upper), Some(kept)) => self.restore_first(making, upper, &kept),
        }
    }

    /// Goes on when the writable layer holds what it shall hold.
    pub(super) fn give_init(&mut self, making: Making, upper: &Upper) -> Result<(), Refusal> {
        match self.start_init(&making.key, &making.plan, &making.rootfs, upper) {
            Ok((pidfd, channel)) => {
                let Making {
                    asker, key, slot, ..
                } = making;
                self.starting
                    .push(Starting::new(asker, key.clone(), slot, channel));
                let sandbox = Sandbox::starting(slot, making.plan.name, making.template, pidfd);
                self.sandboxes.insert(key, sandbox);
                Ok(())
            }
            Err(refused) => {
                self.abandon(&making);
                Err(refused)
            }
        }
    }

    /// Cleans up after a create that failed half way.
    pub(super) fn abandon(&mut self, making: &Making) {
        let _ = fs::remove_file(self.config.layout.init_socket(&making.key));
        let cgroups = self.cgroups.as_ref();
        if self.sandboxes.get(&making.key).is_some() {
            self.sandboxes.give_up(&making.key, making.slot, cgroups);
        } else {
            self.sandboxes
                .abandon(making.plan.name.clone(), making.slot, cgroups);
        }
    }

    /// Forks init-to-be and gives it its root; a pidfd of it, and the channel on which it reports.
    fn start_init(
        &mut self,
        key: &SandboxKey,
        plan: &Plan,
        rootfs: &Path,
        upper: &Upper,
    ) -> Result<(OwnedFd, OwnedFd), Refusal> {
        for op in &plan.mounts {
            if let MountOp::Stage { source, .. } = op {
                self.stage.ensure(source).map_err(failed(Step::ProcMask))?;
            }
        }
        let path = self.config.layout.init_socket(key);
        let (uid, gid) = (self.config.server_uid, self.config.server_gid);
        let listener = init_socket(&path, uid, gid).map_err(failed(Step::InitSocket))?;
        let view = self.stage.new_view().map_err(failed(Step::StageView))?;
        let (ours, theirs) = channel().map_err(failed(Step::Clone))?;
        let into = self.cgroups.clone_into(&plan.name);
        let entrances = self
            .cgroups
            .entrances(&plan.name, into.is_some())
            .map_err(failed(Step::CgroupAttach))?;
        let into = into.as_ref().map(AsFd::as_fd);
        let cloned = clone3_owned_by(plan.uid_base, CloneFlags::SANDBOX, into);
        match cloned.map_err(failed(Step::Clone))? {
            Cloned::Child => {
                drop(ours);
                become_init(&Inherited {
                    plan,
                    stage: &self.stage,
                    view: view.as_fd(),
                    filter: &self.filter,
                    entrances: &entrances,
                    channel: theirs.as_fd(),
                    listener: listener.as_fd(),
                    layer: upper.name.as_fd(),
                })
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let stage = self.config.layout.stage();
                let outcome = hand_over(pid, plan, rootfs, upper, &stage, &ours);
                if outcome.is_err() {
                    let _ =
                        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
                }
                outcome.map(|()| (pidfd, ours))
            }
        }
    }
}

/// Gives the child its ids and its root.
fn hand_over(
    pid: i32,
    plan: &Plan,
    rootfs: &Path,
    upper: &Upper,
    stage: &Path,
    channel: &OwnedFd,
) -> Result<(), Refusal> {
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), &plan.id_map).map_err(failed(Step::IdMap))?;
    }
    let userns = open(
        format!("/proc/{pid}/ns/user"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed(Step::IdMap))?;
    let lower = template_mount(rootfs, userns.as_fd()).map_err(failed(Step::TemplateMount))?;
    let root = overlay(&lower, upper, stage).map_err(failed(Step::OverlayMount))?;
    send_root(channel.as_fd(), root.as_fd()).map_err(failed(Step::HandOver))
}

/// Directory of a template's root, which must be built.
pub(super) fn find_template(
    templates_dir: &Path,
    digest: TemplateDigest,
) -> Result<PathBuf, Refusal> {
    let hex = digest.to_hex();
    let slugs = fs::read_dir(templates_dir).map_err(failed(Step::TemplateMissing))?;
    slugs
        .flatten()
        .map(|slug| slug.path().join(&hex).join("rootfs"))
        .find(|rootfs| rootfs.is_dir())
        .ok_or_else(|| refusal(Step::TemplateMissing))
}

/// The socket of init: its path is on the host, so nothing in a sandbox can name it.
fn init_socket(path: &Path, uid: u32, gid: u32) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&socket, INIT_BACKLOG)?;
    Ok(socket)
}

fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, FIRST_FREE_FD)?;
    let limit = Some(Duration::from_millis(ROOT_MS_MAX));
    sockopt::set_socket_timeout(&theirs, sockopt::Timeout::Recv, limit)?;
    Ok((ours, theirs))
}

/// The writable layer: a tmpfs of its own, so that its size is the sandbox's disk limit and its
/// pages count towards the sandbox's memory.
#[derive(Debug)]
pub(super) struct Upper {
    _mount: OwnedFd,
    pub(super) upper: OwnedFd,
    /// The same, as init keeps it for whoever makes a snapshot: a name, not a right.
    name: OwnedFd,
    work: OwnedFd,
    mount_fd: OwnedFd,
}

fn upper(plan: &Plan) -> io::Result<Upper> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "size", plan.limits.disk_bytes.to_string())?;
    fsconfig_set_string(fs.as_fd(), "nr_inodes", plan.limits.disk_inodes.to_string())?;
    fsconfig_set_string(fs.as_fd(), "mode", "0700")?;
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let directory = |name: &str| -> io::Result<OwnedFd> {
        mkdirat(&mount, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat(&mount, name, flags, Mode::empty())?)
    };
    let (upper, work) = (directory("u")?, directory("w")?);
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let name = openat(&mount, "u", flags, Mode::empty())?;
    // The root directory of the sandbox belongs to its root user.
    let owner = (Uid::from_raw(plan.uid_base), Gid::from_raw(plan.uid_base));
    chownat(
        &mount,
        "u",
        Some(owner.0),
        Some(owner.1),
        rustix::fs::AtFlags::empty(),
    )?;
    let mount_fd = rustix::io::fcntl_dupfd_cloexec(&mount, 3)?;
    Ok(Upper {
        _mount: mount,
        upper,
        name,
        work,
        mount_fd,
    })
}

/// The template, read-only, its ids mapped into the sandbox's user namespace.
fn template_mount(rootfs: &Path, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, rootfs, flags)?;
    let attributes = AttrFlags::RDONLY | AttrFlags::NOSUID | AttrFlags::NODEV;
    set_mount_attr(tree.as_fd(), attributes, Some(userns))?;
    Ok(tree)
}

/// The root: writable layer over template. By descriptors where the kernel can (Linux 6.13), else
/// by paths of mounts that exist for that moment in this mount namespace.
fn overlay(lower: &OwnedFd, upper: &Upper, stage: &Path) -> io::Result<OwnedFd> {
    match overlay_by_descriptors(lower, upper) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => overlay_by_paths(lower, upper, stage),
        other => other,
    }
}

fn overlay_by_descriptors(lower: &OwnedFd, upper: &Upper) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_fd(fs.as_fd(), "lowerdir+", lower.as_fd())?;
    fsconfig_set_fd(fs.as_fd(), "upperdir", upper.upper.as_fd())?;
    fsconfig_set_fd(fs.as_fd(), "workdir", upper.work.as_fd())?;
    finish_overlay(&fs)
}

fn overlay_by_paths(lower: &OwnedFd, upper: &Upper, stage: &Path) -> io::Result<OwnedFd> {
    let scratch = stage.with_file_name("scratch");
    let (lower_path, upper_path) = (scratch.join("lower"), scratch.join("upper"));
    fs::create_dir_all(&lower_path)?;
    fs::create_dir_all(&upper_path)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(lower, "", CWD, &lower_path, empty)?;
    let outcome = move_mount(&upper.mount_fd, "", CWD, &upper_path, empty)
        .map_err(Into::into)
        .and_then(|()| {
            let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(fs.as_fd(), "lowerdir", &lower_path)?;
            fsconfig_set_string(fs.as_fd(), "upperdir", upper_path.join("u"))?;
            fsconfig_set_string(fs.as_fd(), "workdir", upper_path.join("w"))?;
            let overlay = finish_overlay(&fs);
            let _ = unmount(&upper_path, UnmountFlags::DETACH);
            overlay
        });
    unmount(&lower_path, UnmountFlags::DETACH)?;
    outcome
}

fn finish_overlay(fs: &OwnedFd) -> io::Result<OwnedFd> {
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

fn send_root(channel: BorrowedFd<'_>, root: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [root];
    assert!(
        ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
        "space for one descriptor"
    );
    sendmsg(
        channel,
        &[IoSlice::new(b"r")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Who runs it: the child, before it has any id.
pub(super) fn receive_root(channel: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(
        channel,
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        flags,
    )?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next()
        .and_then(|mut fds| fds.next())
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
