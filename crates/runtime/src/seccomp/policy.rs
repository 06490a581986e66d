//! The policy file: which call gets which verdict, each group with its reason.

use super::numbers::NUMBERS;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Arguments that a system call has.
const ARGUMENTS_MAX: u32 = 6;

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Fails with this error number.
    Errno(u32),
    Check(Lines),
}

/// Conditions on arguments, in lines: one line holds when all of its conditions do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Looked at first: when one holds, the call fails with ENOSYS.
    pub nosys_if: Vec<Vec<Condition>>,
    /// When one holds, the call is allowed, else it fails with EPERM.
    pub any_of: Vec<Vec<Condition>>,
}

/// A condition on the low half of one argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub argument: u32,
    #[serde(default = "all_bits")]
    pub mask: u32,
    pub values: Vec<u32>,
    /// The argument must be none of the values.
    #[serde(default)]
    pub not: bool,
}

fn all_bits() -> u32 {
    u32::MAX
}

/// Verdicts by system call number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub verdicts: BTreeMap<u32, Verdict>,
    /// On numbers that are not named.
    pub otherwise: Verdict,
}

/// What is wrong with a policy file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("reading the policy: {0}")]
    Read(#[from] toml::de::Error),
    #[error("a group has no reason")]
    NoReason,
    #[error("there is no system call {0}")]
    UnknownCall(String),
    #[error("system call {0} is named twice")]
    NamedTwice(String),
    #[error("a condition of {0} is impossible")]
    BadCondition(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What is not named: fails with ENOSYS, or passes.
    otherwise: Otherwise,
    #[serde(default)]
    allow: Vec<Group>,
    deny: Vec<Group>,
    #[serde(default)]
    nosys: Vec<Group>,
    check: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Otherwise {
    Nosys,
    Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reason: String,
    calls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    reason: String,
    call: String,
    #[serde(default)]
    nosys_if: Vec<Vec<Condition>>,
    any_of: Vec<Vec<Condition>>,
}

impl Policy {
    /// Reads and checks a policy file.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = toml::from_str(text)?;
        let errno = |n: i32| Verdict::Errno(n.unsigned_abs());
        let groups = [
            (file.allow, Verdict::Allow),
            (file.deny, errno(libc::EPERM)),
            (file.nosys, errno(libc::ENOSYS)),
        ];
        let otherwise = match file.otherwise {
            Otherwise::Nosys => errno(libc::ENOSYS),
            Otherwise::Allow => Verdict::Allow,
        };
        let mut policy = Self {
            verdicts: BTreeMap::new(),
            otherwise,
        };
        for (group, verdict) in groups {
            for Group { reason, calls } in group {
                for call in calls {
                    policy.set(&call, &reason, verdict.clone())?;
                }
            }
        }
        for Check {
            reason,
            call,
            nosys_if,
            any_of,
        } in file.check
        {
            let possible = |c: &Condition| {
                c.argument < ARGUMENTS_MAX
                    && !c.values.is_empty()
                    && c.values.iter().all(|v| v & c.mask == *v)
            };
            let mut lines = nosys_if.iter().chain(&any_of);
            if any_of.is_empty() || !lines.all(|l| !l.is_empty() && l.iter().all(possible)) {
                return Err(PolicyError::BadCondition(call));
            }
            let lines = Lines { nosys_if, any_of };
            policy.set(&call, &reason, Verdict::Check(lines))?;
        }
        Ok(policy)
    }

    fn set(&mut self, call: &str, reason: &str, verdict: Verdict) -> Result<(), PolicyError> {
        if reason.trim().is_empty() {
            return Err(PolicyError::NoReason);
        }
        let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == call) else {
            return Err(PolicyError::UnknownCall(call.to_owned()));
        };
        match self.verdicts.insert(*number, verdict) {
            None => Ok(()),
            Some(_) => Err(PolicyError::NamedTwice(call.to_owned())),
        }
    }

    /// The verdict on a number.
    #[must_use]
    pub fn verdict(&self, number: u32) -> Verdict {
        self.verdicts
            .get(&number)
            .unwrap_or(&self.otherwise)
            .clone()
    }
}
