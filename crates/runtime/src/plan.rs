//! What a sandbox consists of, as data: pure functions, no system call.
//!
//! Owns: names, uid range, the list of mounts in their order, the text of masked /proc files, the
//! credentials of init. Does not own: making any of it ([`crate::spawner`]).
//!
//! Order is the security argument: the tree starts from an empty root and things are added; the
//! old root is left before credentials are dropped; the filter comes last before exec.

use crate::command::{Limits, Network, SandboxKey, TemplateDigest};
use crate::layout::UIDS_PER_SANDBOX;

/// Ids inside the sandbox.
pub const INIT_UID: u32 = 998;
/// Ids inside the sandbox under which tenant code runs.
pub const USER_UID: u32 = 1000;
/// Host name inside every sandbox; the same for all, since it is visible to tenant code.
pub const HOSTNAME: &str = "sandbox";

/// One step of building the file tree, executed in order by the child with the sandbox's own
/// root capabilities. Targets are relative to the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOp {
    /// The overlay that the spawner made (template below, writable layer above).
    Root,
    /// A new procfs of the sandbox's pid namespace.
    Proc,
    /// Something of the spawner's stage over a path.
    Stage {
        source: StageFile,
        target: &'static str,
        read_only: bool,
    },
    /// A new devpts of its own.
    DevPts,
    /// A tmpfs with its own limits.
    Tmpfs {
        target: &'static str,
        bytes: u64,
        inodes: u32,
        mode: u32,
        exec: bool,
    },
}

/// Things that the spawner has prepared once for all sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StageFile {
    /// A directory with the harmless device nodes.
    Dev,
    /// An empty file; over a /proc file it hides what the host would show.
    Empty,
    /// /proc/meminfo and /proc/cpuinfo for a sandbox of that size.
    MemInfo {
        memory_bytes: u64,
    },
    CpuInfo {
        processors: u32,
    },
    /// Kernel drivers.
    Kernels,
    /// The CA certificates that the operator trusts.
    Certificates,
}

impl StageFile {
    /// Path below the stage.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Dev => "dev".to_owned(),
            Self::Empty => "empty".to_owned(),
            Self::MemInfo { memory_bytes } => format!("proc/meminfo-{memory_bytes}"),
            Self::CpuInfo { processors } => format!("proc/cpuinfo-{processors}"),
            Self::Kernels => "kernels".to_owned(),
            Self::Certificates => "ca-certificates.crt".to_owned(),
        }
    }
}

/// Everything about one sandbox that is decided before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of its control group: key, slot and template.
    pub name: String,
    /// Content of uid_map and gid_map.
    pub id_map: String,
    pub uid_base: u32,
    pub limits: Limits,
    pub mounts: Vec<MountOp>,
    pub network: Network,
}

/// What the spawner found on this machine that changes plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether certificates are staged.
    pub certificates: bool,
    /// Processors of the machine.
    pub processors: u32,
}

/// Plans a sandbox.
#[must_use]
pub fn plan(
    key: &SandboxKey,
    slot: u32,
    uid_base: u32,
    template: TemplateDigest,
    limits: &Limits,
    network: Network,
    around: Surroundings,
) -> Plan {
    Plan {
        name: group_name(key, slot, template),
        id_map: format!("0 {uid_base} {UIDS_PER_SANDBOX}\n"),
        uid_base,
        limits: *limits,
        mounts: mounts(limits, around),
        network,
    }
}

/// Name of the control group of a sandbox. It says what a restarted spawner must know: which uid
/// ranges are in use, and which zygote may fork into which sandbox.
#[must_use]
pub fn group_name(key: &SandboxKey, slot: u32, template: TemplateDigest) -> String {
    format!("{key}.{slot}.{}", template.to_hex())
}

/// The reverse of [`group_name`].
#[must_use]
pub fn parse_group_name(name: &str) -> Option<(SandboxKey, u32, TemplateDigest)> {
    let (key, rest) = name.split_once('.')?;
    let (slot, template) = rest.split_once('.')?;
    Some((
        SandboxKey::new(key)?,
        slot.parse().ok()?,
        TemplateDigest::from_hex(template)?,
    ))
}

fn mounts(limits: &Limits, around: Surroundings) -> Vec<MountOp> {
    let stage = |source, target| MountOp::Stage {
        source,
        target,
        read_only: true,
    };
    let processors = limits
        .cpu_millis
        .div_ceil(1000)
        .clamp(1, around.processors.max(1));
    let mut ops = vec![
        MountOp::Root,
        MountOp::Proc,
        // What the host would say about itself: its kernel configuration, its boot parameters,
        // its interrupts, every user's key counts.
        stage(StageFile::Empty, "proc/config.gz"),
        stage(StageFile::Empty, "proc/cmdline"),
        stage(StageFile::Empty, "proc/interrupts"),
        stage(StageFile::Empty, "proc/key-users"),
        // Programs size their caches and thread pools by these.
        stage(
            StageFile::MemInfo {
                memory_bytes: limits.memory_bytes,
            },
            "proc/meminfo",
        ),
        stage(StageFile::CpuInfo { processors }, "proc/cpuinfo"),
        MountOp::Stage {
            source: StageFile::Dev,
            target: "dev",
            read_only: false,
        },
        MountOp::DevPts,
        MountOp::Tmpfs {
            target: "dev/shm",
            bytes: limits.tmp_bytes,
            inodes: limits.tmp_inodes,
            mode: 0o1777,
            exec: false,
        },
        MountOp::Tmpfs {
            target: "tmp",
            bytes: limits.tmp_bytes,
            inodes: limits.tmp_inodes,
            mode: 0o1777,
            exec: true,
        },
        stage(StageFile::Kernels, "opt/crownest"),
    ];
    if around.certificates {
        ops.push(stage(
            StageFile::Certificates,
            "etc/ssl/certs/ca-certificates.crt",
        ));
    }
    ops
}

/// /proc/meminfo of a machine with that much memory, all of it free: the host's own numbers would
/// tell about its other tenants. Lines that programs (glibc, psutil, Node, the JVM) look for.
#[must_use]
pub fn render_meminfo(memory_bytes: u64) -> String {
    let total = memory_bytes / 1024;
    let line = |name: &str, kib: u64| format!("{:<16}{kib:>8} kB\n", format!("{name}:"));
    let filled = [
        ("MemTotal", total),
        ("MemFree", total),
        ("MemAvailable", total),
    ];
    let empty = [
        "Buffers",
        "Cached",
        "SwapCached",
        "Active",
        "Inactive",
        "Active(anon)",
        "Inactive(anon)",
        "Active(file)",
        "Inactive(file)",
        "Unevictable",
        "Mlocked",
        "SwapTotal",
        "SwapFree",
        "Dirty",
        "Writeback",
        "AnonPages",
        "Mapped",
        "Shmem",
        "Slab",
        "SReclaimable",
        "SUnreclaim",
        "PageTables",
        "CommitLimit",
        "Committed_AS",
    ];
    let mut text: String = filled.iter().map(|(name, kib)| line(name, *kib)).collect();
    for name in empty {
        text.push_str(&line(name, 0));
    }
    text
}

/// The first `processors` entries of the host's /proc/cpuinfo.
#[must_use]
pub fn render_cpuinfo(host: &str, processors: u32) -> String {
    let mut text = String::new();
    for entry in host
        .split("\n\n")
        .filter(|e| !e.trim().is_empty())
        .take(processors as usize)
    {
        text.push_str(entry.trim_end());
        text.push_str("\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Plan {
        let key = SandboxKey::new("abc").unwrap();
        let around = Surroundings {
            certificates: true,
            processors: 2,
        };
        plan(
            &key,
            5,
            0x2005_0000,
            TemplateDigest([7; 32]),
            &Limits::default(),
            Network::Proxy,
            around,
        )
    }

    #[test]
    fn the_default_plan() {
        insta::assert_debug_snapshot!(example());
    }

    #[test]
    fn names_carry_key_slot_and_template() {
        let plan = example();
        let key = SandboxKey::new("abc").unwrap();
        let template = TemplateDigest([7; 32]);
        assert_eq!(parse_group_name(&plan.name), Some((key, 5, template)));
        let hex = template.to_hex();
        for bad in ["abc", "abc.5", "abc.5.", "abc.5.07"] {
            assert_eq!(parse_group_name(bad), None, "{bad}");
        }
        for bad in ["abc.x", ".5", "a/b.5", "abc.-1"] {
            assert_eq!(parse_group_name(&format!("{bad}.{hex}")), None, "{bad}");
        }
    }

    #[test]
    fn nothing_is_mounted_before_the_root_and_nothing_on_the_host() {
        let plan = example();
        assert_eq!(plan.mounts[0], MountOp::Root);
        for op in &plan.mounts[1..] {
            let target = match op {
                MountOp::Root => panic!("the root is mounted twice"),
                MountOp::Stage { target, .. } | MountOp::Tmpfs { target, .. } => *target,
                MountOp::Proc => "proc",
                MountOp::DevPts => "dev/pts",
            };
            assert!(
                !target.starts_with('/') && !target.contains(".."),
                "{target}"
            );
        }
    }

    #[test]
    fn proc_files_show_the_sandbox() {
        let text = render_meminfo(512 * 1024 * 1024);
        assert!(text.starts_with("MemTotal:         524288 kB\n"), "{text}");
        let host = "processor : 0\nmodel : x\n\nprocessor : 1\nmodel : x\n\n";
        assert_eq!(render_cpuinfo(host, 1), "processor : 0\nmodel : x\n\n");
        let one = Limits {
            cpu_millis: 500,
            ..Limits::default()
        };
        let around = Surroundings {
            certificates: false,
            processors: 2,
        };
        let ops = mounts(&one, around);
        assert!(ops.iter().any(|op| matches!(
            op,
            MountOp::Stage {
                source: StageFile::CpuInfo { processors: 1 },
                ..
            }
        )));
    }
}
