//! Commands between the server (unprivileged) and the spawner (root).
//!
//! One `SOCK_SEQPACKET` datagram is one command or one answer, always [`COMMAND_BYTES`] long, so
//! the root side never parses anything of variable size. Both sides check every field; the spawner
//! trusts no sender, not even its own server.

mod wire;

use crate::snapshot::SnapshotSize;
use std::fmt;

pub use wire::{decode_answer, decode_command, encode_answer, encode_command};

/// Size of every command and every answer.
pub const COMMAND_BYTES: usize = 256;
/// Longest sandbox key.
pub const KEY_BYTES_MAX: usize = 32;
/// Sandboxes that one spawner keeps at most; also the number of uid ranges of one instance.
pub const SANDBOXES_MAX: u32 = 4096;
/// Keys in one answer to `List`.
pub const LIST_KEYS_MAX: usize = 6;

/// The name of a sandbox below the server: the part of its public id after `sbx_`.
/// 1 to 32 characters of `a-z0-9`, so that it can be a file name without escaping.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxKey(String);

impl SandboxKey {
    /// Checks length and alphabet.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let length_ok = (1..=KEY_BYTES_MAX).contains(&key.len());
        let letters_ok = key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (length_ok && letters_ok).then(|| Self(key.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SandboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SandboxKey({})", self.0)
    }
}

/// BLAKE3 digest that names a template's root.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateDigest(pub [u8; 32]);

impl TemplateDigest {
    /// From 64 lower-case hex digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0u8; 32];
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = (hex_digit(bytes[2 * i])? << 4) | hex_digit(bytes[2 * i + 1])?;
        }
        Some(Self(digest))
    }

    /// 64 lower-case hex digits: the directory name of the template.
    #[must_use]
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0
            .iter()
            .flat_map(|b| {
                [
                    DIGITS[usize::from(b >> 4)] as char,
                    DIGITS[usize::from(b & 15)] as char,
                ]
            })
            .collect()
    }
}

impl fmt::Debug for TemplateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateDigest({})", self.to_hex())
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Memory of all its processes and of its files (they are in memory too).
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Everything written outside /tmp and /dev/shm.
    pub disk_bytes: u64,
    pub disk_inodes: u32,
    /// /tmp; /dev/shm gets the same.
    pub tmp_bytes: u64,
    pub tmp_inodes: u32,
}

impl Limits {
    const MIB: u64 = 1024 * 1024;

    /// Smallest values with which init and one Python context still start.
    pub const MIN: Self = Self {
        memory_bytes: 64 * Self::MIB,
        pids: 16,
        cpu_millis: 50,
        disk_bytes: Self::MIB,
        disk_inodes: 256,
        tmp_bytes: Self::MIB,
        tmp_inodes: 64,
    };

    /// Largest values that the spawner accepts, whatever the server's configuration says.
    pub const MAX: Self = Self {
        memory_bytes: 1 << 40,
        pids: 32_768,
        cpu_millis: 1_024_000,
        disk_bytes: 1 << 40,
        disk_inodes: 100_000_000,
        tmp_bytes: 1 << 40,
        tmp_inodes: 100_000_000,
    };

    /// The same of processor time alone.
    #[must_use]
    pub fn cpu_in_range(cpu_millis: u32) -> bool {
        (Self::MIN.cpu_millis..=Self::MAX.cpu_millis).contains(&cpu_millis)
    }

    /// Whether every field is between [`Limits::MIN`] and [`Limits::MAX`].
    #[must_use]
    pub fn in_range(&self) -> bool {
        fn within<T: PartialOrd + Copy>(low: T, value: T, high: T) -> bool {
            low <= value && value <= high
        }
        let (low, high) = (Self::MIN, Self::MAX);
        within(low.memory_bytes, self.memory_bytes, high.memory_bytes)
            && within(low.pids, self.pids, high.pids)
            && Self::cpu_in_range(self.cpu_millis)
            && within(low.disk_bytes, self.disk_bytes, high.disk_bytes)
            && within(low.disk_inodes, self.disk_inodes, high.disk_inodes)
            && within(low.tmp_bytes, self.tmp_bytes, high.tmp_bytes)
            && within(low.tmp_inodes, self.tmp_inodes, high.tmp_inodes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 2048 * Self::MIB,
            pids: 256,
            cpu_millis: 2_000,
            disk_bytes: 1024 * Self::MIB,
            disk_inodes: 200_000,
            tmp_bytes: 512 * Self::MIB,
            tmp_inodes: 100_000,
        }
    }
}

/// How a sandbox reaches the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// Loopback only.
    None,
    /// Loopback, and an HTTP proxy on it that the server answers.
    Proxy,
}

/// What the server asks of the spawner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes a sandbox; answered when its init has been started.
    Create {
        key: SandboxKey,
        template: TemplateDigest,
        limits: Limits,
        network: Network,
        /// What its files are at first, instead of the template's alone.
        snapshot: Option<SandboxKey>,
    },
    /// Keeps the files of a sandbox under the name `snapshot`; the caller has stopped everything in
    /// it. Answered with their size when they are kept.
    Snapshot {
        key: SandboxKey,
        snapshot: SandboxKey,
    },
    /// Removes what is kept under that name. Not an error when nothing is.
    SnapshotRemove { snapshot: SandboxKey },
    /// Names under which something is kept, in order, after the given one.
    SnapshotList { after: Option<SandboxKey> },
    /// Forks an interpreter from the zygote of the sandbox's template into it.
    /// The answer carries four fds: control socket, stdout, stderr, pidfd.
    Fork {
        key: SandboxKey,
        template: TemplateDigest,
    },
    /// Kills everything in a sandbox and removes what it was made of; answered when it is gone.
    /// Not an error when there is no such sandbox.
    Destroy { key: SandboxKey },
    /// Stops or continues everything in a sandbox; answered when every process has stopped.
    Freeze { key: SandboxKey, frozen: bool },
    /// Gives a sandbox another ceiling of processor time.
    SetCpu { key: SandboxKey, cpu_millis: u32 },
    /// What a sandbox uses.
    Stats { key: SandboxKey },
    /// Keys of the sandboxes that exist, in order, after the given one.
    List { after: Option<SandboxKey> },
    /// Starts the zygote of a template if there is none; answered at once.
    Warm { template: TemplateDigest },
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxStats {
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    /// Processes killed by the kernel because the memory limit was reached.
    pub oom_kills: u64,
    pub cpu_us: u64,
    pub pids: u32,
    /// What it may use; 0 where that cannot be read.
    pub memory_max_bytes: u64,
    pub cpu_max_millis: u32,
}

/// The spawner's answer, with the number of the command it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done; fds as the command says.
    Done,
    Stats(SandboxStats),
    Snapshot(SnapshotSize),
    Keys(Vec<SandboxKey>),
    Refused(Refusal),
}

/// Why the spawner did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub step: Step,
    /// The kernel's error number, or 0.
    pub errno: i32,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step.text())?;
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

macro_rules! steps {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// The step that failed. The number travels on the wire; the text is for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Step { $(#[doc = $text] $name = $number,)* }

        impl Step {
            /// From the wire.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// What failed, as part of a sentence.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

steps! {
    Malformed = 1, "the command is malformed";
    LimitsOutOfRange = 2, "a limit is out of range";
    SandboxExists = 3, "a sandbox with this key exists";
    SandboxUnknown = 4, "there is no sandbox with this key";
    SandboxesFull = 5, "no uid range is free";
    TemplateMissing = 6, "the template is not built on this machine";
    CgroupCreate = 10, "creating the control group failed";
    CgroupAttach = 11, "entering the control group failed";
    CgroupFreeze = 12, "freezing the control group failed";
    CgroupStats = 13, "reading the control group failed";
    CgroupLimit = 14, "changing a limit of the control group failed";
    InitSocket = 20, "creating the socket of init failed";
    Clone = 21, "creating the namespaces failed";
    IdMap = 22, "writing the uid and gid maps failed";
    TemplateMount = 23, "mounting the template failed";
    UpperMount = 24, "mounting the writable layer failed";
    OverlayMount = 25, "mounting the root overlay failed";
    StageView = 27, "making the view of shared files failed";
    HandOver = 26, "handing the root to the child failed";
    RootMove = 30, "placing the root failed";
    ProcMount = 31, "mounting /proc failed";
    ProcMask = 32, "masking /proc failed";
    DevMount = 33, "mounting /dev failed";
    TmpMount = 34, "mounting /tmp failed";
    KernelsMount = 35, "mounting the kernels failed";
    CertificatesMount = 36, "mounting the CA certificates failed";
    PivotRoot = 37, "entering the new root failed";
    OldRootUnmount = 38, "leaving the old root failed";
    Loopback = 39, "bringing up loopback failed";
    Hostname = 40, "setting the hostname failed";
    Credentials = 41, "dropping privileges failed";
    Seccomp = 42, "installing the seccomp filter failed";
    Exec = 43, "starting init failed";
    ChildLost = 44, "the child ended without a word";
    ZygoteStart = 50, "starting the zygote failed";
    ZygoteGone = 51, "the zygote ended";
    ZygoteFork = 52, "the zygote could not fork";
    ZygoteBusy = 53, "too many forks are waiting for the zygote";
    SnapshotMissing = 70, "there is no such snapshot on this machine";
    SnapshotRead = 71, "reading the files of the sandbox failed";
    SnapshotWrite = 72, "writing the snapshot failed";
    SnapshotTooLarge = 73, "the files of the sandbox are more than a snapshot may hold";
    SnapshotBroken = 74, "the snapshot is not whole";
    SnapshotRestore = 75, "making the files of the snapshot failed";
    SnapshotBusy = 76, "too many snapshots are being made";
    SnapshotLost = 77, "the process that made the snapshot ended";
    SnapshotStore = 78, "the directory of snapshots cannot be used";
    Destroy = 60, "removing the sandbox failed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_file_names() {
        for bad in ["", "..", "a/b", "A", "é", "a\0", &"a".repeat(33)] {
            assert_eq!(SandboxKey::new(bad), None, "{bad:?}");
        }
        let hex = "0f".repeat(32);
        assert_eq!(TemplateDigest::from_hex(&hex).unwrap().to_hex(), hex);
        assert_eq!(TemplateDigest::from_hex(&"0F".repeat(32)), None);
    }
}
