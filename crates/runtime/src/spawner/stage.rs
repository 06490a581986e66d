//! The stage: files that all sandboxes share, prepared once on a tmpfs that only this process's
//! mount namespace shows.
//!
//! Who runs it: the spawner, as root, at start and (for /proc files of a new size) at a create.
//! Sandboxes see it read-only and nosuid, and can name nothing else of it than what was bound.

use super::truststore;
use super::{SpawnerConfig, SpawnerError};
use crate::kernels;
use crate::plan::{StageFile, render_cpuinfo, render_meminfo};
use crate::seccomp;
use crate::sys::{AttrFlags, Instruction, set_mount_attr};
use rustix::fs::{
    AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, makedev, memfd_create, mkdirat, mknodat,
    openat, symlinkat, unlinkat,
};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const INIT_BINARY: &[u8] = include_bytes!(env!("CROWNEST_INIT_BINARY"));
/// Drivers that are programs of their own.
const KERNEL_PROGRAMS: &[(&str, &[u8])] =
    &[("bash/driver", include_bytes!(env!("CROWNEST_BASH_BINARY")))];
/// Device nodes of a sandbox: name, major, minor (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Different sizes of /proc files kept; sizes come from requests.
const PROC_FILES_MAX: usize = 256;
/// Descriptors that a child still needs while it arranges the ones of init are above this.
pub(super) const FIRST_FREE_FD: i32 = 10;
/// Name of the seccomp program below the kernels, for zygotes.
pub(super) const FILTER_FILE: &str = "kernels/seccomp.bpf";

/// Where the JDKs of templates look for certificates, and what they find there when the operator
/// has named none: Debian's own.
const TRUST_STORE_FILE: &str = "kernels/certificates.jks";
const TEMPLATE_TRUST_STORE: &str = "/etc/ssl/certs/java/cacerts";

#[derive(Debug)]
pub(super) struct Stage {
    /// Where it is mounted read-only.
    path: PathBuf,
    /// The same file system, writable, mounted nowhere.
    writable: OwnedFd,
    /// An empty directory to mount new roots on.
    root: PathBuf,
    /// Another one, to mount a sandbox's own view of the stage on.
    view: PathBuf,
    /// The stage and an empty directory outside of it (layers must not overlap): an overlay that
    /// nobody writes to needs two.
    layers: [OwnedFd; 2],
    nothing: PathBuf,
    init: OwnedFd,
    /// /proc files there are, the one used last at the end.
    proc_files: VecDeque<StageFile>,
    host_cpuinfo: String,
    certificates: bool,
}

impl Stage {
    pub(super) fn prepare(
        config: &SpawnerConfig,
        filter: &[Instruction],
    ) -> Result<Self, SpawnerError> {
        let stage = |what| move |source| SpawnerError::Stage { what, source };
        // Modes are meant as they are written.
        rustix::process::umask(Mode::empty());
        let path = config.layout.stage();
        let nothing = config.layout.root().join("nothing");
        for dir in [&config.layout.init_sockets(), &nothing] {
            make_run_dir(dir).map_err(stage("the run directory"))?;
        }
        let writable = tmpfs().map_err(stage("the stage"))?;
        let at = writable.as_fd();
        make_devices(at).map_err(stage("device nodes"))?;
        for dir in ["proc", "root", "view", "kernels"] {
            make_dir(at, dir).map_err(stage("the stage"))?;
        }
        write_file(at, "empty", b"").map_err(stage("the stage"))?;
        for (name, bytes) in kernels::FILES {
            write_kernel(at, name, bytes, kernels::mode_of(name)).map_err(stage("the kernels"))?;
        }
        for (name, bytes) in KERNEL_PROGRAMS {
            write_kernel(at, name, bytes, 0o555).map_err(stage("the kernels"))?;
        }
        write_file(at, FILTER_FILE, &seccomp::to_bytes(filter)).map_err(stage("the filter"))?;
        if let Some(source) = &config.certificates {
            let bytes = fs::read(source).map_err(stage("the CA certificates"))?;
            write_file(at, &StageFile::Certificates.path(), &bytes)
                .map_err(stage("the CA certificates"))?;
            write_file(at, TRUST_STORE_FILE, &truststore::from_pem(&bytes))
                .map_err(stage("the CA certificates"))?;
        } else {
            symlinkat(TEMPLATE_TRUST_STORE, at, TRUST_STORE_FILE)
                .map_err(|e| stage("the CA certificates")(e.into()))?;
        }
        mount_read_only(at, &path).map_err(stage("the stage"))?;
        let layer = |path: &Path| clone_tree(path).map_err(stage("the layers of views"));
        let layers = [layer(&path)?, layer(&nothing)?];
        Ok(Self {
            root: path.join("root"),
            view: path.join("view"),
            layers,
            nothing,
            path,
            writable,
            init: init_program().map_err(stage("init"))?,
            proc_files: VecDeque::new(),
            host_cpuinfo: fs::read_to_string("/proc/cpuinfo").map_err(stage("/proc/cpuinfo"))?,
            certificates: config.certificates.is_some(),
        })
    }

    pub(super) fn has_certificates(&self) -> bool {
        self.certificates
    }

    /// The program of pid 1, sealed.
    pub(super) fn init(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Where a child mounts its new root (in its own mount namespace).
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a child mounts its view of the stage (in its own mount namespace).
    pub(super) fn view(&self) -> &Path {
        &self.view
    }

    /// A read-only overlay over the stage, mounted nowhere: the same files as inodes of their own.
    /// File locks and inotify work on inodes; were they the stage's, a sandbox would see in them
    /// what every other one opens.
    pub(super) fn new_view(&self) -> io::Result<OwnedFd> {
        let by_descriptors = || -> io::Result<OwnedFd> {
            let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            for layer in &self.layers {
                fsconfig_set_fd(fs.as_fd(), "lowerdir+", layer.as_fd())?;
            }
            finish_view(&fs)
        };
        match by_descriptors() {
            // Before Linux 6.13: by paths.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
                let layers = format!("{}:{}", self.path.display(), self.nothing.display());
                fsconfig_set_string(fs.as_fd(), "lowerdir", layers)?;
                finish_view(&fs)
            }
            other => other,
        }
    }

    /// Absolute path of a staged file, in this mount namespace.
    pub(super) fn file(&self, file: &StageFile) -> PathBuf {
        self.path.join(file.path())
    }

    /// Makes sure that a file is there; only /proc files of a new size are made late.
    pub(super) fn ensure(&mut self, file: &StageFile) -> io::Result<()> {
        let text = match file {
            StageFile::MemInfo { memory_bytes } => render_meminfo(*memory_bytes),
            StageFile::CpuInfo { processors } => render_cpuinfo(&self.host_cpuinfo, *processors),
            _ => return Ok(()),
        };
        if let Some(index) = self.proc_files.iter().position(|have| have == file) {
            // Used last: kept longest.
            let file = self.proc_files.remove(index);
            self.proc_files.extend(file);
            return Ok(());
        }
        if self.proc_files.len() >= PROC_FILES_MAX
            && let Some(oldest) = self.proc_files.pop_front()
        {
            // Sandboxes that have it mounted keep it.
            unlinkat(&self.writable, oldest.path(), AtFlags::empty())?;
        }
        write_file(self.writable.as_fd(), &file.path(), text.as_bytes())?;
        self.proc_files.push_back(file.clone());
        Ok(())
    }
}

/// Others may pass through to a socket that is theirs, not look around.
fn make_run_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o711))
}

fn tmpfs() -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "size", "64m")?;
    fsconfig_set_string(fs.as_fd(), "mode", "0711")?;
    fsconfig_create(fs.as_fd())?;
    Ok(fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

fn finish_view(fs: &OwnedFd) -> io::Result<OwnedFd> {
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(fsmount(fs.as_fd(), flags, attributes)?)
}

/// A copy of the mount there, mounted nowhere: it has no path of the host.
fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    Ok(fcntl_dupfd_cloexec(&tree, FIRST_FREE_FD)?)
}

/// Mounts a second, read-only view where children find it.
fn mount_read_only(tree: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    // Cloning a mount that is attached nowhere is possible from Linux 6.15; before that it has to
    // be attached first, so attach it, clone it, and put the clone over it.
    let attach = |from: BorrowedFd<'_>| {
        move_mount(from, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    let clone = match open_tree(tree, "", flags) {
        Ok(clone) => clone,
        Err(_) => {
            attach(tree)?;
            open_tree(CWD, path, flags)?
        }
    };
    set_mount_attr(clone.as_fd(), AttrFlags::RDONLY | AttrFlags::NOSUID, None)?;
    attach(clone.as_fd())?;
    Ok(())
}

fn make_dir(at: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(mkdirat(at, name, Mode::from_raw_mode(0o755))?)
}

fn write_file(at: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(at, name, bytes, 0o444)
}

fn write_with_mode(at: BorrowedFd<'_>, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    File::from(openat(at, name, flags, Mode::from_raw_mode(mode))?).write_all(bytes)
}

/// `name` comes from our own source tree; its directories are made as they appear.
fn write_kernel(at: BorrowedFd<'_>, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = format!("kernels/{name}");
    for (index, _) in name.match_indices('/').skip(1) {
        match make_dir(at, &name[..index]) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    write_with_mode(at, &name, bytes, mode)
}

fn make_devices(at: BorrowedFd<'_>) -> io::Result<()> {
    make_dir(at, "dev")?;
    make_dir(at, "dev/pts")?;
    make_dir(at, "dev/shm")?;
    for (name, major, minor) in DEVICES {
        let node = format!("dev/{name}");
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            at,
            &node,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )?;
    }
    for (name, target) in DEVICE_LINKS {
        symlinkat(target, at, format!("dev/{name}"))?;
    }
    Ok(())
}

/// Copies init into memory that nobody can change any more.
fn init_program() -> io::Result<OwnedFd> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("crownest-init", flags)?;
    let mut file = File::from(memory);
    file.write_all(INIT_BINARY)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    // Away from the numbers that a child gives to init.
    Ok(fcntl_dupfd_cloexec(&file, FIRST_FREE_FD)?)
}
