//! Commands between the server (unprivileged) and the spawner (root).
//!
//! One `SOCK_SEQPACKET` datagram is one command or one answer, always [`COMMAND_BYTES`] long, so
//! the root side never parses anything of variable size. Both sides check every field; the spawner
//! trusts no sender, not even its own server.

use std::fmt;

/// Size of every command and every answer.
pub const COMMAND_BYTES: usize = 256;
/// First word of every datagram; changes when the layout below does.
const MAGIC: u32 = 0x4357_4e31;
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

    /// Whether every field is between [`Limits::MIN`] and [`Limits::MAX`].
    #[must_use]
    pub fn in_range(&self) -> bool {
        fn within<T: PartialOrd + Copy>(low: T, value: T, high: T) -> bool {
            low <= value && value <= high
        }
        let (low, high) = (Self::MIN, Self::MAX);
        within(low.memory_bytes, self.memory_bytes, high.memory_bytes)
            && within(low.pids, self.pids, high.pids)
            && within(low.cpu_millis, self.cpu_millis, high.cpu_millis)
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
    },
    /// Forks an interpreter from the zygote of the sandbox's template into it.
    /// The answer carries four fds: control socket, stdout, stderr, pidfd.
    Fork {
        key: SandboxKey,
        template: TemplateDigest,
    },
    /// Kills everything in a sandbox and removes what it was made of; answered when it is gone.
    /// Not an error when there is no such sandbox.
    Destroy { key: SandboxKey },
    /// Stops or continues everything in a sandbox.
    Freeze { key: SandboxKey, frozen: bool },
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
}

/// The spawner's answer, with the number of the command it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done; fds as the command says.
    Done,
    Stats(SandboxStats),
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
    InitSocket = 20, "creating the socket of init failed";
    Clone = 21, "creating the namespaces failed";
    IdMap = 22, "writing the uid and gid maps failed";
    TemplateMount = 23, "mounting the template failed";
    UpperMount = 24, "mounting the writable layer failed";
    OverlayMount = 25, "mounting the root overlay failed";
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
    Destroy = 60, "removing the sandbox failed";
}

const OP_CREATE: u32 = 1;
const OP_FORK: u32 = 2;
const OP_DESTROY: u32 = 3;
const OP_FREEZE: u32 = 4;
const OP_STATS: u32 = 5;
const OP_LIST: u32 = 6;
const OP_WARM: u32 = 7;

const ANSWER_DONE: u32 = 100;
const ANSWER_STATS: u32 = 101;
const ANSWER_KEYS: u32 = 102;
const ANSWER_REFUSED: u32 = 103;

/// Encodes a command under its number.
#[must_use]
pub fn encode_command(number: u64, command: &Command) -> [u8; COMMAND_BYTES] {
    match command {
        Command::Create {
            key,
            template,
            limits,
            network,
        } => {
            let mut w = Writer::new(OP_CREATE, number);
            w.key(Some(key));
            w.bytes(&template.0);
            w.u64(limits.memory_bytes);
            w.u64(limits.disk_bytes);
            w.u64(limits.tmp_bytes);
            w.u32(limits.pids);
            w.u32(limits.cpu_millis);
            w.u32(limits.disk_inodes);
            w.u32(limits.tmp_inodes);
            w.u32(match network {
                Network::None => 0,
                Network::Proxy => 1,
            });
            w.finish()
        }
        Command::Fork { key, template } => {
            let mut w = Writer::new(OP_FORK, number);
            w.key(Some(key));
            w.bytes(&template.0);
            w.finish()
        }
        Command::Destroy { key } => Writer::with_key(OP_DESTROY, number, Some(key)).finish(),
        Command::Freeze { key, frozen } => {
            let mut w = Writer::with_key(OP_FREEZE, number, Some(key));
            w.u32(u32::from(*frozen));
            w.finish()
        }
        Command::Stats { key } => Writer::with_key(OP_STATS, number, Some(key)).finish(),
        Command::List { after } => Writer::with_key(OP_LIST, number, after.as_ref()).finish(),
        Command::Warm { template } => {
            let mut w = Writer::new(OP_WARM, number);
            w.bytes(&template.0);
            w.finish()
        }
    }
}

/// Decodes a command; `None` when any byte of it is not as it must be.
#[must_use]
pub fn decode_command(datagram: &[u8]) -> Option<(u64, Command)> {
    let (op, number, mut r) = Reader::open(datagram)?;
    let command = match op {
        OP_CREATE => {
            let key = r.key()??;
            let template = TemplateDigest(r.bytes()?);
            let (memory_bytes, disk_bytes, tmp_bytes) = (r.u64()?, r.u64()?, r.u64()?);
            let (pids, cpu_millis) = (r.u32()?, r.u32()?);
            let (disk_inodes, tmp_inodes) = (r.u32()?, r.u32()?);
            let network = match r.u32()? {
                0 => Network::None,
                1 => Network::Proxy,
                _ => return None,
            };
            let limits = Limits {
                memory_bytes,
                pids,
                cpu_millis,
                disk_bytes,
                disk_inodes,
                tmp_bytes,
                tmp_inodes,
            };
            Command::Create {
                key,
                template,
                limits,
                network,
            }
        }
        OP_FORK => Command::Fork {
            key: r.key()??,
            template: TemplateDigest(r.bytes()?),
        },
        OP_DESTROY => Command::Destroy { key: r.key()?? },
        OP_FREEZE => {
            let key = r.key()??;
            let frozen = match r.u32()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            Command::Freeze { key, frozen }
        }
        OP_STATS => Command::Stats { key: r.key()?? },
        OP_LIST => Command::List { after: r.key()? },
        OP_WARM => Command::Warm {
            template: TemplateDigest(r.bytes()?),
        },
        _ => return None,
    };
    r.rest_is_zero().then_some((number, command))
}

/// Encodes an answer to the command of that number.
#[must_use]
pub fn encode_answer(number: u64, answer: &Answer) -> [u8; COMMAND_BYTES] {
    match answer {
        Answer::Done => Writer::new(ANSWER_DONE, number).finish(),
        Answer::Stats(stats) => {
            let mut w = Writer::new(ANSWER_STATS, number);
            w.u64(stats.memory_bytes);
            w.u64(stats.memory_peak_bytes);
            w.u64(stats.oom_kills);
            w.u64(stats.cpu_us);
            w.u32(stats.pids);
            w.finish()
        }
        Answer::Keys(keys) => {
            let mut w = Writer::new(ANSWER_KEYS, number);
            let count = keys.len().min(LIST_KEYS_MAX);
            w.u32(u32::try_from(count).expect("at most LIST_KEYS_MAX"));
            for key in &keys[..count] {
                w.key(Some(key));
            }
            w.finish()
        }
        Answer::Refused(refusal) => {
            let mut w = Writer::new(ANSWER_REFUSED, number);
            w.u32(refusal.step as u32);
            w.bytes(&refusal.errno.to_le_bytes());
            w.finish()
        }
    }
}

/// Decodes an answer.
#[must_use]
pub fn decode_answer(datagram: &[u8]) -> Option<(u64, Answer)> {
    let (op, number, mut r) = Reader::open(datagram)?;
    let answer = match op {
        ANSWER_DONE => Answer::Done,
        ANSWER_STATS => Answer::Stats(SandboxStats {
            memory_bytes: r.u64()?,
            memory_peak_bytes: r.u64()?,
            oom_kills: r.u64()?,
            cpu_us: r.u64()?,
            pids: r.u32()?,
        }),
        ANSWER_KEYS => {
            let count = r.u32()? as usize;
            if count > LIST_KEYS_MAX {
                return None;
            }
            Answer::Keys((0..count).map(|_| r.key()?).collect::<Option<_>>()?)
        }
        ANSWER_REFUSED => Answer::Refused(Refusal {
            step: Step::from_number(r.u32()?)?,
            errno: i32::from_le_bytes(r.bytes()?),
        }),
        _ => return None,
    };
    r.rest_is_zero().then_some((number, answer))
}

struct Writer {
    bytes: [u8; COMMAND_BYTES],
    at: usize,
}

impl Writer {
    fn new(op: u32, number: u64) -> Self {
        let mut w = Self {
            bytes: [0; COMMAND_BYTES],
            at: 0,
        };
        w.u32(MAGIC);
        w.u32(op);
        w.u64(number);
        w
    }

    fn with_key(op: u32, number: u64, key: Option<&SandboxKey>) -> Self {
        let mut w = Self::new(op, number);
        w.key(key);
        w
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Always 33 bytes: length, then the key padded with zeros. Length 0 is "no key".
    fn key(&mut self, key: Option<&SandboxKey>) {
        let text = key.map_or("", SandboxKey::as_str).as_bytes();
        let length = u8::try_from(text.len()).expect("a key has at most 32 bytes");
        self.bytes(&[length]);
        let mut padded = [0u8; KEY_BYTES_MAX];
        padded[..text.len()].copy_from_slice(text);
        self.bytes(&padded);
    }

    fn finish(self) -> [u8; COMMAND_BYTES] {
        self.bytes
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(datagram: &'a [u8]) -> Option<(u32, u64, Self)> {
        if datagram.len() != COMMAND_BYTES {
            return None;
        }
        let mut r = Self { bytes: datagram };
        if r.u32()? != MAGIC {
            return None;
        }
        Some((r.u32()?, r.u64()?, r))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes()?))
    }

    /// Outer `None`: malformed. Inner `None`: no key.
    #[expect(
        clippy::option_option,
        reason = "absent and malformed are different answers"
    )]
    fn key(&mut self) -> Option<Option<SandboxKey>> {
        let [length] = self.bytes::<1>()?;
        let padded: [u8; KEY_BYTES_MAX] = self.bytes()?;
        let (text, padding) = padded.split_at_checked(usize::from(length))?;
        if padding.iter().any(|b| *b != 0) {
            return None;
        }
        if text.is_empty() {
            return Some(None);
        }
        SandboxKey::new(std::str::from_utf8(text).ok()?).map(Some)
    }

    fn rest_is_zero(&self) -> bool {
        self.bytes.iter().all(|b| *b == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> SandboxKey {
        SandboxKey::new(text).unwrap()
    }

    #[test]
    fn every_command_survives_the_wire() {
        let template = TemplateDigest([7; 32]);
        let commands = [
            Command::Create {
                key: key("a1"),
                template,
                limits: Limits::default(),
                network: Network::Proxy,
            },
            Command::Fork {
                key: key("b"),
                template,
            },
            Command::Destroy { key: key("c") },
            Command::Freeze {
                key: key("d"),
                frozen: true,
            },
            Command::Stats { key: key("e") },
            Command::List { after: None },
            Command::List {
                after: Some(key("f")),
            },
            Command::Warm { template },
        ];
        for (number, command) in (1u64..).zip(commands) {
            let wire = encode_command(number, &command);
            assert_eq!(decode_command(&wire), Some((number, command)));
        }
    }

    #[test]
    fn every_answer_survives_the_wire() {
        let keys = (0..LIST_KEYS_MAX)
            .map(|i| key(&format!("{i}{}", "x".repeat(31))))
            .collect();
        let stats = SandboxStats {
            memory_bytes: 1,
            oom_kills: 2,
            pids: 3,
            ..Default::default()
        };
        let refusal = Refusal {
            step: Step::Clone,
            errno: libc::EPERM,
        };
        for answer in [
            Answer::Done,
            Answer::Stats(stats),
            Answer::Keys(keys),
            Answer::Refused(refusal),
        ] {
            let wire = encode_answer(9, &answer);
            assert_eq!(decode_answer(&wire), Some((9, answer)));
        }
    }

    #[test]
    fn keys_are_file_names() {
        for bad in ["", "..", "a/b", "A", "é", "a\0", &"a".repeat(33)] {
            assert_eq!(SandboxKey::new(bad), None, "{bad:?}");
        }
        let hex = "0f".repeat(32);
        assert_eq!(TemplateDigest::from_hex(&hex).unwrap().to_hex(), hex);
        assert_eq!(TemplateDigest::from_hex(&"0F".repeat(32)), None);
    }

    proptest! {
        /// No datagram makes the root side panic, and what it accepts is what was meant: decoding
        /// and encoding again gives the same bytes.
        #[test]
        fn decoding_is_total_and_canonical(mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
                                           head in any::<bool>(), op in 0u32..9) {
            if head && bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                bytes[4..8].copy_from_slice(&op.to_le_bytes());
                bytes.resize(COMMAND_BYTES, 0);
            }
            if let Some((number, command)) = decode_command(&bytes) {
                let again = encode_command(number, &command);
                prop_assert_eq!(again.as_slice(), bytes.as_slice());
            }
            let _ = decode_answer(&bytes);
        }
    }
}
