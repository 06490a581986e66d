//! Checks that try: the system calls a spawner makes, on throwaway objects.
//!
//! Order as in a sandbox: namespaces and ids, the template's mount, the writable layer, the overlay
//! of both, the filter, the control group. A trial that needs what an earlier one could not make
//! is left out: the earlier line says why.
//!
//! Who runs it: root, one thread.

use super::Check;
use super::child::Child;
use super::machine::existing_ancestor;
use crate::cgroup::{self, CGROUP_ROOT, Cgroups};
use crate::command::{Limits, SANDBOXES_MAX};
use crate::layout::{INSTANCES_MAX, Layout, UIDS_PER_SANDBOX};
use crate::seccomp;
use crate::sys::{AttrFlags, CloneFlags, install_filter, set_mount_attr, unshare_mounts};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files that the small tmpfs holds.
const INODES: u32 = 8;
/// Exit code of a child whose trial went wrong without an error number.
const WRONG: i32 = 255;

pub(super) fn all(templates_dir: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut mapped = None;
    match Child::start(CloneFlags::SANDBOX, None) {
        Ok(child) => {
            checks.push(Check::ok(
                "namespaces",
                "user, mount, pid, network, ipc, uts by clone3",
            ));
            let (ids, mount) = ids_and_template(&child, templates_dir);
            checks.extend(ids);
            mapped = mount;
            checks.push(pidfd(child));
        }
        Err(error) => checks.push(Check::fail(
            "namespaces",
            format!("clone3: {error}"),
            "a sandbox is made of namespaces",
            "allow them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1; in a \
             container: --privileged",
        )),
    }
    let upper = writable_layer();
    checks.push(judge_layer(&upper));
    if let (Some(mapped), Ok(upper)) = (mapped, upper) {
        checks.push(overlay_by_descriptors(&mapped, &upper));
    }
    checks.push(overlay_by_paths());
    checks.push(filter());
    checks.push(control_group());
    checks
}

/// A refusal says nothing about the kernel, only about us.
fn remedy(error: &io::Error, otherwise: &str) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "grant what is refused (see capabilities above; in a container: --privileged)".to_owned()
    } else {
        otherwise.to_owned()
    }
}

/// Gives the child a uid range, and maps the templates' file system into it.
fn ids_and_template(child: &Child, templates_dir: &Path) -> (Vec<Check>, Option<OwnedFd>) {
    // The very last range that a sandbox could get.
    let base = Layout::new(INSTANCES_MAX - 1).uid_base(SANDBOXES_MAX - 1);
    for map in ["uid_map", "gid_map"] {
        let line = format!("0 {base} {UIDS_PER_SANDBOX}\n");
        if let Err(error) = fs::write(format!("/proc/{}/{map}", child.pid), line) {
            let found = format!("{map}: {error}");
            let consequence = "sandboxes cannot have uid ranges of their own";
            let remedy =
                "start crownest in the initial user namespace (not in a rootless container)";
            return (
                vec![Check::fail("uid ranges", found, consequence, remedy)],
                None,
            );
        }
    }
    let ids = Check::ok("uid ranges", format!("{UIDS_PER_SANDBOX} from {base}"));
    let place = existing_ancestor(templates_dir);
    match mapped_mount(child, &place) {
        Ok(mount) => {
            let found = format!("{} can be mapped", place.display());
            (vec![ids, Check::ok("id-mapped mounts", found)], Some(mount))
        }
        Err(error) => {
            let found = format!("{}: {error}", place.display());
            let consequence = "templates on this file system cannot be shared by sandboxes";
            let remedy = remedy(
                &error,
                "put CROWNEST_TEMPLATES_DIR on ext4, xfs, btrfs or tmpfs",
            );
            (
                vec![
                    ids,
                    Check::fail("id-mapped mounts", found, consequence, remedy),
                ],
                None,
            )
        }
    }
}

fn mapped_mount(child: &Child, place: &Path) -> io::Result<OwnedFd> {
    let userns = fs::File::open(format!("/proc/{}/ns/user", child.pid))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, place, flags)?;
    let attributes = AttrFlags::RDONLY | AttrFlags::NOSUID | AttrFlags::NODEV;
    set_mount_attr(tree.as_fd(), attributes, Some(userns.as_fd()))?;
    Ok(tree)
}

fn pidfd(child: Child) -> Check {
    let killed = child.kill().and_then(|()| child.wait());
    drop(child);
    match killed {
        Ok(None) => Check::ok(
            "pidfd",
            "a namespace is killed and its end seen by descriptor",
        ),
        Ok(Some(code)) => judge_pidfd(&format!("exit code {code} instead of a signal")),
        Err(error) => judge_pidfd(&error.to_string()),
    }
}

fn judge_pidfd(found: &str) -> Check {
    let consequence = "processes cannot be killed without the risk of killing another";
    Check::fail("pidfd", found, consequence, "boot Linux 5.4 or newer")
}

/// A tmpfs with a limit on files, mounted nowhere, with the two directories an overlay needs.
struct Layer {
    mount: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

fn writable_layer() -> io::Result<Layer> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", "1048576")?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", INODES.to_string())?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let directory = |name: &str| -> io::Result<OwnedFd> {
        mkdirat(&mount, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat(&mount, name, flags, Mode::empty())?)
    };
    let (upper, work) = (directory("u")?, directory("w")?);
    Ok(Layer { mount, upper, work })
}

fn judge_layer(layer: &io::Result<Layer>) -> Check {
    let name = "tmpfs limits";
    let layer = match layer {
        Ok(layer) => layer,
        Err(error) => {
            let consequence = "sandboxes have no writable layer";
            let remedy = remedy(error, "boot Linux 5.2 or newer with tmpfs (CONFIG_TMPFS)");
            return Check::fail(name, error.to_string(), consequence, remedy);
        }
    };
    for number in 0..=INODES {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(
            &layer.mount,
            format!("f{number}"),
            flags,
            Mode::from_raw_mode(0o600),
        ) {
            Ok(_) => {}
            Err(Errno::NOSPC) => {
                for made in 0..number {
                    let none = rustix::fs::AtFlags::empty();
                    // Room for the overlay that comes next; the mount is never seen again.
                    let _ = rustix::fs::unlinkat(&layer.mount, format!("f{made}"), none);
                }
                return Check::ok(name, "size and number of files are enforced");
            }
            Err(errno) => {
                let remedy = "see the error";
                return Check::fail(name, errno.to_string(), "the layer is not writable", remedy);
            }
        }
    }
    let found = format!("{INODES} inodes were asked for and more were given");
    Check::fail(
        name,
        found,
        "a sandbox could fill the memory with files",
        "boot another kernel",
    )
}

fn overlay_by_descriptors(lower: &OwnedFd, layer: &Layer) -> Check {
    let attempt = || -> io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_fd(context.as_fd(), "lowerdir+", lower.as_fd())?;
        fsconfig_set_fd(context.as_fd(), "upperdir", layer.upper.as_fd())?;
        fsconfig_set_fd(context.as_fd(), "workdir", layer.work.as_fd())?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?)
    };
    match attempt() {
        Ok(_) => Check::ok(
            "overlay by descriptor",
            "writable layer on an id-mapped template",
        ),
        Err(error) => Check::warn(
            "overlay by descriptor",
            error.to_string(),
            "roots are made by path instead, which takes three more mounts for each",
            "boot Linux 6.13 or newer",
        ),
    }
}

/// In a child with mounts of its own.
fn overlay_by_paths() -> Check {
    let name = "overlay";
    let consequence = "a sandbox's root is an overlay";
    let scratch = PathBuf::from(format!("/run/crownest-doctor-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&scratch) {
        let found = format!("{}: {error}", scratch.display());
        return Check::fail(name, found, "nothing can be mounted", "make /run writable");
    }
    let outcome = Child::run(CloneFlags::NONE, None, |_| match mount_overlay(&scratch) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(WRONG),
    })
    .and_then(|child| child.wait());
    let removed = fs::remove_dir(&scratch);
    let failure = match (outcome, removed) {
        (Ok(Some(0)), Ok(())) => return Check::ok(name, "mounted, written through, gone"),
        (Ok(Some(0)), Err(error)) | (Err(error), _) => error,
        (Ok(Some(code)), _) => io::Error::from_raw_os_error(code),
        (Ok(None), _) => io::ErrorKind::TimedOut.into(),
    };
    let remedy = remedy(&failure, "boot a kernel with overlayfs (modprobe overlay)");
    Check::fail(name, failure.to_string(), consequence, remedy)
}

/// Who runs it: a child, as root; its mount namespace ends with it.
fn mount_overlay(scratch: &Path) -> io::Result<()> {
    unshare_mounts()?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    attach(&context, scratch)?;
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(scratch.join(name))?;
    }
    fs::write(scratch.join("lower/file"), "below")?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, name) in [
        ("lowerdir", "lower"),
        ("upperdir", "upper"),
        ("workdir", "work"),
    ] {
        fsconfig_set_string(context.as_fd(), option, scratch.join(name))?;
    }
    fsconfig_create(context.as_fd())?;
    attach(&context, &scratch.join("root"))?;
    fs::write(scratch.join("root/file"), "above")?;
    let kept = fs::read(scratch.join("lower/file"))? == b"below";
    let written = fs::read(scratch.join("upper/file"))? == b"above";
    if kept && written {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

fn attach(context: &OwnedFd, place: &Path) -> io::Result<()> {
    let mount = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    Ok(move_mount(
        &mount,
        "",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Installs the filter of sandboxes in a child and has it refuse something.
fn filter() -> Check {
    let name = "system call filter";
    let program = seccomp::sandbox_filter();
    let outcome = Child::run(CloneFlags::NONE, None, |_| {
        let installed = rustix::thread::set_no_new_privs(true)
            .map_err(io::Error::from)
            .and_then(|()| install_filter(&program));
        match (installed, unshare_mounts()) {
            (Ok(()), Err(error)) if error.raw_os_error() == Some(libc::EPERM) => 0,
            (Ok(()), _) => WRONG,
            (Err(error), _) => error.raw_os_error().unwrap_or(WRONG),
        }
    })
    .and_then(|child| child.wait());
    let found = match outcome {
        Ok(Some(0)) => {
            return Check::ok(name, format!("{} instructions, enforced", program.len()));
        }
        Ok(Some(WRONG)) => "it is installed and does not refuse".to_owned(),
        Ok(Some(code)) => io::Error::from_raw_os_error(code).to_string(),
        Ok(None) => "the child was killed".to_owned(),
        Err(error) => error.to_string(),
    };
    let consequence = "tenant code would reach the whole kernel; no sandbox is started";
    Check::fail(
        name,
        found,
        consequence,
        "boot a kernel with CONFIG_SECCOMP_FILTER",
    )
}

/// Makes a control group, puts a child into it, stops and kills it there, removes everything.
fn control_group() -> Check {
    let group = format!("crownest-doctor-{}", std::process::id());
    let root = Path::new(CGROUP_ROOT);
    let outcome = cgroup::open(root, &group)
        .and_then(|groups| try_group(groups.as_ref()).map(|()| groups.describe()));
    for hierarchy in ["", "memory", "pids", "cpu", "cpuacct", "freezer", "unified"] {
        // Only those that were made exist.
        let _ = fs::remove_dir(root.join(hierarchy).join(&group));
    }
    match outcome {
        Ok(description) => Check::ok("control groups", description),
        Err(error) => Check::fail(
            "control groups",
            error.to_string(),
            "memory, processes and processor time of a sandbox could not be limited",
            "mount cgroup2 with the memory, pids and cpu controllers delegated (systemd: \
             Delegate=yes), or version 1 with all three",
        ),
    }
}

fn try_group(groups: &dyn Cgroups) -> io::Result<()> {
    const NAME: &str = "probe.0";
    groups.create(NAME, &Limits::default())?;
    let outcome = live_in_group(groups, NAME);
    let removed = groups.remove(NAME)?;
    outcome?;
    if removed {
        Ok(())
    } else {
        Err(io::Error::other("the group does not become empty"))
    }
}

fn live_in_group(groups: &dyn Cgroups, name: &str) -> io::Result<()> {
    let entrances = groups.entrances(name, false)?;
    let (ready, told) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = Child::run(CloneFlags::NONE, None, |theirs| {
        for entrance in &entrances {
            if let Err(errno) = rustix::io::write(entrance, b"0") {
                return errno.raw_os_error();
            }
        }
        let _ = rustix::io::write(&told, b"x");
        let _ = rustix::io::read(theirs, &mut [0_u8; 1]);
        0
    })?;
    drop(told);
    // End of file: the child ended before it was in.
    if rustix::io::read(&ready, &mut [0_u8; 1])? == 0 {
        let code = child.wait()?.unwrap_or(WRONG);
        return Err(io::Error::from_raw_os_error(code));
    }
    if groups.members(name)? != [child.pid] {
        return Err(io::Error::other("a process that entered is not listed"));
    }
    groups.stats(name)?;
    groups.freeze(name, true)?;
    groups.kill(name)?;
    groups.freeze(name, false)?;
    match child.wait()? {
        None => Ok(()),
        Some(_) => Err(io::Error::other(
            "a process could not be killed by its group",
        )),
    }
}
