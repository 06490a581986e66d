//! Checks that only look.

use super::{Check, SANDBOXES_WANTED};
use crate::sys::landlock_abi;
use crate::template::{self, Definition};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Ids mapped on overlay layers; without it nothing works (Linux 5.19).
const KERNEL_MIN: (u32, u32) = (5, 19);
/// Memory that an idle Python sandbox takes, and one that has drawn a plot.
const IDLE_MB: u64 = 5;
const BUSY_MB: u64 = 25;
/// Left for the server, the page cache and everything else.
const RESERVED_MB: u64 = 1024;
/// Pids and descriptors of one sandbox: init and interpreters; sockets, pipes, pidfds.
const PIDS_EACH: u64 = 8;
const DESCRIPTORS_EACH: u64 = 16;
/// All templates, and room to build a newer version beside them.
const DISK_MB_WANTED: u64 = 12_000;

/// Capabilities that the spawner uses: number, name.
const NEEDED: [(u32, &str); 10] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
];
const SYS_RESOURCE: u32 = 24;

pub(super) fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let machine = uname.machine().to_string_lossy().into_owned();
    let found = format!("Linux {release} {machine}");
    if machine != "x86_64" {
        let remedy = "use an x86-64 machine";
        return Check::fail(
            "kernel",
            found,
            "the system call filter knows x86-64 only",
            remedy,
        );
    }
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL_MIN {
        let consequence = "overlays on id-mapped templates came with Linux 5.19";
        return Check::fail(
            "kernel",
            found,
            consequence,
            "boot Linux 5.19 or newer (6.13 is best)",
        );
    }
    Check::ok("kernel", found)
}

pub(super) fn privilege(root: bool) -> Check {
    if root {
        return Check::ok("root", "yes");
    }
    let uid = rustix::process::geteuid().as_raw();
    let consequence = "the spawner makes namespaces and mounts and has to be root; the server that \
                       it serves drops all privilege";
    Check::fail(
        "root",
        format!("uid {uid}"),
        consequence,
        "start crownest as root",
    )
}

pub(super) fn capabilities() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        let remedy = "mount /proc";
        return Check::fail("capabilities", "unreadable", "nothing can be tried", remedy);
    };
    judge_capabilities(effective)
}

fn judge_capabilities(effective: u64) -> Check {
    let has = |number: u32| effective & (1 << number) != 0;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(number, _)| !has(*number))
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        let found = format!("missing: {}", missing.join(", "));
        let consequence = "sandboxes cannot be made";
        let remedy = "start crownest with all capabilities (in a container: --privileged)";
        return Check::fail("capabilities", found, consequence, remedy);
    }
    if !has(SYS_RESOURCE) {
        let consequence = "hard limits cannot be raised and the server cannot be kept from the OOM \
                           killer; sandboxes run";
        let remedy = "grant CAP_SYS_RESOURCE, or set LimitNOFILE=1048576 and OOMScoreAdjust=-500 \
                      where the service is defined";
        return Check::warn("capabilities", "missing: SYS_RESOURCE", consequence, remedy);
    }
    Check::ok("capabilities", "all that are used")
}

pub(super) fn landlock() -> Check {
    match landlock_abi() {
        Ok(abi) => Check::ok("landlock", format!("ABI {abi}")),
        Err(error) => {
            let consequence = "the unprivileged server is not confined to its own files by the \
                               kernel; file permissions still hold";
            let remedy = "boot with landlock in the lsm= list (Linux 5.13)";
            Check::warn("landlock", error.to_string(), consequence, remedy)
        }
    }
}

pub(super) fn kvm() -> Check {
    match fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => Check::ok(
            "kvm",
            "/dev/kvm opens (whether a guest boots shows only by booting one)",
        ),
        Err(error) => {
            let consequence = "no second kernel boundary by virtual machines; the default isolation \
                               does not need it";
            let remedy = "enable nested virtualisation, if that boundary is wanted";
            Check::warn("kvm", format!("/dev/kvm: {error}"), consequence, remedy)
        }
    }
}

pub(super) fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let read = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
            / 1024
    };
    let (total, available) = (read("MemTotal:"), read("MemAvailable:"));
    let usable = available.saturating_sub(RESERVED_MB);
    let found = format!(
        "{available} of {total} MB available: about {} idle Python sandboxes, or {} that draw plots",
        usable / IDLE_MB,
        usable / BUSY_MB
    );
    if usable < BUSY_MB * 4 {
        let consequence = "there is hardly room for one sandbox beside the server";
        return Check::warn(
            "memory",
            found,
            consequence,
            "give the machine 2 GB or more",
        );
    }
    Check::ok("memory", found)
}

/// Limits of the kernel and of this process, judged by [`SANDBOXES_WANTED`].
pub(super) fn limits() -> Vec<Check> {
    // Name, file, what one sandbox takes, what happens at the limit.
    const FILES: [(&str, &str, u64, &str); 7] = [
        ("pid_max", "kernel/pid_max", PIDS_EACH, "no more processes"),
        (
            "threads-max",
            "kernel/threads-max",
            PIDS_EACH,
            "no more threads",
        ),
        (
            "file-max",
            "fs/file-max",
            DESCRIPTORS_EACH,
            "no more open files on the whole machine",
        ),
        (
            "user namespaces",
            "user/max_user_namespaces",
            1,
            "no more sandboxes",
        ),
        (
            "network namespaces",
            "user/max_net_namespaces",
            1,
            "no more sandboxes",
        ),
        (
            "mount namespaces",
            "user/max_mnt_namespaces",
            1,
            "no more sandboxes",
        ),
        (
            "inotify watches",
            "fs/inotify/max_user_watches",
            1,
            "no more watched files for a user",
        ),
    ];
    let mut checks: Vec<Check> = FILES
        .iter()
        .filter_map(|(name, file, each, at_limit)| {
            let text = fs::read_to_string(Path::new("/proc/sys").join(file)).ok()?;
            let value: u64 = text.trim().parse().ok()?;
            let knob = file.replace('/', ".");
            let wanted = each * SANDBOXES_WANTED;
            Some(judge_limit(
                name,
                value,
                wanted,
                *each,
                at_limit,
                &format!("sysctl {knob}={wanted}"),
            ))
        })
        .collect();
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = DESCRIPTORS_EACH * SANDBOXES_WANTED;
    let remedy = format!("LimitNOFILE={wanted} in the service, or ulimit -Hn {wanted}");
    let at_limit = "no more connections to sandboxes";
    checks.push(judge_limit(
        "open files",
        files,
        wanted,
        DESCRIPTORS_EACH,
        at_limit,
        &remedy,
    ));
    checks
}

fn judge_limit(
    name: &'static str,
    value: u64,
    wanted: u64,
    each: u64,
    at_limit: &str,
    remedy: &str,
) -> Check {
    if value >= wanted {
        return Check::ok(
            name,
            format!("{value} (for {SANDBOXES_WANTED} sandboxes: {wanted})"),
        );
    }
    let consequence = format!("{at_limit} after about {} sandboxes", value / each);
    Check::warn(name, value.to_string(), consequence, remedy)
}

pub(super) fn disk(templates_dir: &Path) -> Check {
    let place = existing_ancestor(templates_dir);
    let name = "disk";
    match rustix::fs::statvfs(&place) {
        Ok(space) => {
            let free_mb = space.f_bavail.saturating_mul(space.f_frsize) / 1_000_000;
            let found = format!("{free_mb} MB free for {}", templates_dir.display());
            if free_mb >= DISK_MB_WANTED {
                return Check::ok(name, found);
            }
            let consequence = format!("building the templates asks for {DISK_MB_WANTED} MB");
            Check::warn(
                name,
                found,
                consequence,
                "free some, or set CROWNEST_TEMPLATES_DIR",
            )
        }
        Err(error) => {
            let found = format!("{}: {error}", place.display());
            Check::warn(
                name,
                found,
                "free space is unknown",
                "set CROWNEST_TEMPLATES_DIR",
            )
        }
    }
}

/// The closest directory that is there already.
pub(super) fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|path| path.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

pub(super) fn templates(templates_dir: &Path) -> Vec<Check> {
    let name = "templates";
    let built = match template::list(templates_dir) {
        Ok(built) => built,
        Err(error) => {
            let consequence = "templates cannot be listed, so none is offered";
            let remedy = "remove the directory that is named, then build it again";
            return vec![Check::fail(name, error.to_string(), consequence, remedy)];
        }
    };
    let current: Vec<_> = built.iter().filter(|built| built.current).collect();
    if current.is_empty() {
        let found = format!("none in {}", templates_dir.display());
        let remedy = "run: crownest template build python-node";
        return vec![Check::fail(
            name,
            found,
            "a sandbox has nothing to start from",
            remedy,
        )];
    }
    let names: Vec<String> = current
        .iter()
        .map(|built| format!("{}@{}", built.slug, built.version))
        .collect();
    let mut checks = vec![Check::ok(name, names.join(", "))];
    let missing: Vec<String> = Definition::slugs(None)
        .into_iter()
        .filter(|slug| !current.iter().any(|built| built.slug == *slug))
        .collect();
    if !missing.is_empty() {
        let slugs = missing.join(" ");
        let found = format!("not built: {slugs}");
        let consequence = "requests for them are refused";
        let remedy = format!("run: crownest template build {slugs}");
        checks.push(Check::warn("more templates", found, consequence, remedy));
    }
    checks
}

pub(super) fn builder() -> Check {
    let name = "mmdebstrap";
    let places = ["/usr/bin", "/usr/local/bin"];
    if places
        .iter()
        .any(|place| Path::new(place).join("mmdebstrap").is_file())
    {
        return Check::ok(name, "there");
    }
    let consequence = "templates cannot be built here; those that are built work";
    Check::warn(
        name,
        "not installed",
        consequence,
        "run: apt-get install mmdebstrap",
    )
}

pub(super) fn port(listen: SocketAddr) -> Check {
    match TcpListener::bind(listen) {
        Ok(_) => Check::ok("port", format!("{listen} is free")),
        Err(error) => {
            let found = format!("{listen}: {error}");
            let consequence = "a server cannot listen there (perhaps one does already)";
            Check::warn(
                "port",
                found,
                consequence,
                "stop what listens there, or choose another port",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn missing_capabilities_are_named_and_weighed() {
        let all = u64::MAX;
        assert_eq!(judge_capabilities(all).status, Status::Ok);
        let resource = judge_capabilities(all & !(1 << SYS_RESOURCE));
        assert_eq!(resource.status, Status::Warn);
        let admin = judge_capabilities(all & !(1 << 21));
        assert_eq!(admin.status, Status::Fail);
        assert!(admin.found.contains("SYS_ADMIN"), "{admin:?}");
    }

    #[test]
    fn a_limit_that_is_too_low_says_how_far_it_goes() {
        let check = judge_limit("pid_max", 4000, 16_000, 8, "no more processes", "sysctl x");
        assert_eq!(check.status, Status::Warn);
        assert!(check.consequence.unwrap().contains("500 sandboxes"));
        assert_eq!(
            judge_limit("x", 16_000, 16_000, 8, "", "").status,
            Status::Ok
        );
    }

    #[test]
    fn a_port_that_is_taken_is_found_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(port(taken.local_addr().unwrap()).status, Status::Warn);
    }

    #[test]
    fn the_closest_existing_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing_ancestor(&dir.path().join("a/b/c")), dir.path());
    }
}
