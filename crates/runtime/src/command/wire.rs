//! Commands and answers as bytes: fixed size, little endian, zero to the end.
//!
//! Who runs it: both sides. Decoding is total: any datagram gives a checked value or nothing, and
//! what is accepted encodes to the same bytes again.

use super::{
    Answer, COMMAND_BYTES, Command, KEY_BYTES_MAX, LIST_KEYS_MAX, Limits, Network, Refusal,
    SandboxKey, SandboxStats, Step, TemplateDigest,
};
use crate::snapshot::SnapshotSize;

/// First word of every datagram; changes when the layout below does.
const MAGIC: u32 = 0x4357_4e31;
const OP_CREATE: u32 = 1;
const OP_FORK: u32 = 2;
const OP_DESTROY: u32 = 3;
const OP_FREEZE: u32 = 4;
const OP_STATS: u32 = 5;
const OP_LIST: u32 = 6;
const OP_WARM: u32 = 7;
const OP_SNAPSHOT: u32 = 8;
const OP_SNAPSHOT_REMOVE: u32 = 9;
const OP_SNAPSHOT_LIST: u32 = 10;
const OP_SET_CPU: u32 = 11;

const ANSWER_DONE: u32 = 100;
const ANSWER_STATS: u32 = 101;
const ANSWER_KEYS: u32 = 102;
const ANSWER_REFUSED: u32 = 103;
const ANSWER_SNAPSHOT: u32 = 104;

/// Encodes a command under its number.
#[must_use]
pub fn encode_command(number: u64, command: &Command) -> [u8; COMMAND_BYTES] {
    match command {
        Command::Create {
            key,
            template,
            limits,
            network,
            snapshot,
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
            w.key(snapshot.as_ref());
            w.finish()
        }
        Command::Fork { key, template } => {
            let mut w = Writer::new(OP_FORK, number);
            w.key(Some(key));
            w.bytes(&template.0);
            w.finish()
        }
        Command::Snapshot { key, snapshot } => {
            let mut w = Writer::with_key(OP_SNAPSHOT, number, Some(key));
            w.key(Some(snapshot));
            w.finish()
        }
        Command::SnapshotRemove { snapshot } => {
            Writer::with_key(OP_SNAPSHOT_REMOVE, number, Some(snapshot)).finish()
        }
        Command::SnapshotList { after } => {
            Writer::with_key(OP_SNAPSHOT_LIST, number, after.as_ref()).finish()
        }
        Command::Destroy { key } => Writer::with_key(OP_DESTROY, number, Some(key)).finish(),
        Command::Freeze { key, frozen } => {
            let mut w = Writer::with_key(OP_FREEZE, number, Some(key));
            w.u32(u32::from(*frozen));
            w.finish()
        }
        Command::SetCpu { key, cpu_millis } => {
            let mut w = Writer::with_key(OP_SET_CPU, number, Some(key));
            w.u32(*cpu_millis);
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
                snapshot: r.key()?,
            }
        }
        OP_SNAPSHOT => Command::Snapshot {
            key: r.key()??,
            snapshot: r.key()??,
        },
        OP_SNAPSHOT_REMOVE => Command::SnapshotRemove {
            snapshot: r.key()??,
        },
        OP_SNAPSHOT_LIST => Command::SnapshotList { after: r.key()? },
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
        OP_SET_CPU => Command::SetCpu {
            key: r.key()??,
            cpu_millis: r.u32()?,
        },
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
            w.u64(stats.memory_max_bytes);
            w.u32(stats.cpu_max_millis);
            w.finish()
        }
        Answer::Snapshot(size) => {
            let mut w = Writer::new(ANSWER_SNAPSHOT, number);
            w.u64(size.bytes);
            w.u64(size.entries);
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
            memory_max_bytes: r.u64()?,
            cpu_max_millis: r.u32()?,
        }),
        ANSWER_SNAPSHOT => Answer::Snapshot(SnapshotSize {
            bytes: r.u64()?,
            entries: r.u64()?,
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
                snapshot: None,
            },
            Command::Create {
                key: key("a2"),
                template,
                limits: Limits::default(),
                network: Network::None,
                snapshot: Some(key("s")),
            },
            Command::Snapshot {
                key: key("a"),
                snapshot: key("s"),
            },
            Command::SnapshotRemove { snapshot: key("s") },
            Command::SnapshotList { after: None },
            Command::SnapshotList {
                after: Some(key("s")),
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
            Command::SetCpu {
                key: key("d"),
                cpu_millis: 1_500,
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
            memory_max_bytes: 4,
            cpu_max_millis: 5,
            ..Default::default()
        };
        let refusal = Refusal {
            step: Step::Clone,
            errno: libc::EPERM,
        };
        for answer in [
            Answer::Done,
            Answer::Stats(stats),
            Answer::Snapshot(SnapshotSize {
                bytes: u64::MAX,
                entries: 5,
            }),
            Answer::Keys(keys),
            Answer::Refused(refusal),
        ] {
            let wire = encode_answer(9, &answer);
            assert_eq!(decode_answer(&wire), Some((9, answer)));
        }
    }

    proptest! {
        /// No datagram makes the root side panic, and what it accepts is what was meant: decoding
        /// and encoding again gives the same bytes.
        #[test]
        fn decoding_is_total_and_canonical(mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
                                           head in any::<bool>(), op in 0u32..13) {
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
