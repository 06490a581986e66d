//! Rules of one sandbox, under those of the operator: they take away and never add.
//!
//! What they allow is still judged by [`super::Policy`], addresses and all. A rule about addresses
//! holds for a name by what it resolves to, so it is asked again when that is known.

use super::policy::{PolicyError, Rule};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Rules of one sandbox.
pub const SANDBOX_RULES_MAX: usize = 256;

/// What one sandbox may reach, as it was asked for. The first rule that names a host, or covers the
/// address that is about to be connected to, decides, and without one the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRules {
    #[serde(rename = "allow")]
    pub allow_by_default: bool,
    pub rules: Vec<SandboxRule>,
}

/// One of [`SandboxRules`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRule {
    pub allow: bool,
    /// `example.org`, `*.example.org`, `*`, an address or a CIDR.
    pub target: String,
}

impl Default for SandboxRules {
    /// Everything that the operator allows.
    fn default() -> Self {
        Self {
            allow_by_default: true,
            rules: Vec::new(),
        }
    }
}

impl SandboxRules {
    /// Refuses rules that make no sense.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn check(&self) -> Result<(), PolicyError> {
        Narrowing::new(self).map(drop)
    }

    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            allow_by_default: false,
            rules: Vec::new(),
        }
    }
}

/// Checked rules of a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Narrowing {
    allow_by_default: bool,
    rules: Vec<(Rule, bool)>,
}

/// What rules of a sandbox say of a host before it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Narrowed {
    Allowed,
    Refused,
    ByAddress,
}

impl Narrowing {
    pub(super) fn new(asked: &SandboxRules) -> Result<Self, PolicyError> {
        if asked.rules.len() > SANDBOX_RULES_MAX {
            return Err(PolicyError::TooManyOfSandbox);
        }
        let checked = |rule: &SandboxRule| match Rule::parse(&rule.target) {
            None => Err(PolicyError::Target(rule.target.clone())),
            Some(parsed) => Ok((parsed, rule.allow)),
        };
        Ok(Self {
            allow_by_default: asked.allow_by_default,
            rules: asked.rules.iter().map(checked).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the sandbox may ask for that host.
    pub(super) fn judge_host(&self, host: &str) -> Narrowed {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Self::certain(self.allows(host, ip.to_canonical()));
        }
        let naming = self.rules.iter().position(|(rule, _)| rule.names(host));
        let last = naming.map_or(self.allow_by_default, |at| self.rules[at].1);
        let before = &self.rules[..naming.unwrap_or(self.rules.len())];
        // A rule about addresses that comes first may decide otherwise, for some of them.
        let other = |(rule, allow): &(Rule, bool)| matches!(rule, Rule::Net(_)) && *allow != last;
        if before.iter().any(other) {
            return Narrowed::ByAddress;
        }
        Self::certain(last)
    }

    /// Whether the sandbox may connect to that address, asking for that host.
    pub(super) fn allows(&self, host: &str, ip: IpAddr) -> bool {
        let decides = |(rule, allow): &&(Rule, bool)| {
            // What is denied is denied in every form of the address.
            rule.names(host)
                || if *allow {
                    rule.covers_exactly_this(ip)
                } else {
                    rule.covers(ip)
                }
        };
        let deciding = self.rules.iter().find(decides);
        deciding.map_or(self.allow_by_default, |(_, allow)| *allow)
    }

    fn certain(allowed: bool) -> Narrowed {
        if allowed {
            Narrowed::Allowed
        } else {
            Narrowed::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{Policy, PolicyConfig};

    fn rules(allow_by_default: bool, rules: &[(bool, &str)]) -> SandboxRules {
        let rule = |(allow, target): &(bool, &str)| SandboxRule {
            allow: *allow,
            target: (*target).to_owned(),
        };
        SandboxRules {
            allow_by_default,
            rules: rules.iter().map(rule).collect(),
        }
    }

    #[test]
    fn the_first_rule_that_names_a_host_decides() {
        let asked = rules(
            false,
            &[
                (false, "bad.pypi.org"),
                (true, "*.pypi.org"),
                (true, "Example.ORG."),
                (false, "example.org"),
            ],
        );
        let narrowing = Narrowing::new(&asked).unwrap();
        for (host, allowed) in [
            ("bad.pypi.org", false),
            ("files.pypi.org", true),
            ("pypi.org", false),
            ("example.org", true),
            ("1.1.1.1", false),
        ] {
            let expected = Narrowing::certain(allowed);
            assert_eq!(narrowing.judge_host(host), expected, "{host}");
        }
        let open = Narrowing::new(&rules(true, &[(false, "evil.example")])).unwrap();
        assert_eq!(open.judge_host("1.1.1.1"), Narrowed::Allowed);
        assert_eq!(open.judge_host("evil.example"), Narrowed::Refused);
    }

    #[test]
    fn rules_about_addresses_wait_for_one() {
        let asked = rules(
            false,
            &[
                (true, "pypi.org"),
                (false, "203.0.113.9"),
                (true, "203.0.113.0/24"),
                (true, "*.example.org"),
                (true, "2001:db8::/32"),
            ],
        );
        let narrowing = Narrowing::new(&asked).unwrap();
        for (host, before, at, allowed) in [
            ("pypi.org", Narrowed::Allowed, "203.0.113.9", true),
            ("a.example.org", Narrowed::ByAddress, "203.0.113.9", false),
            ("a.example.org", Narrowed::ByAddress, "192.0.2.1", true),
            ("b.example", Narrowed::ByAddress, "203.0.113.8", true),
            ("b.example", Narrowed::ByAddress, "192.0.2.1", false),
            ("b.example", Narrowed::ByAddress, "2001:db8::1", true),
            ("203.0.113.8", Narrowed::Allowed, "203.0.113.8", true),
            ("203.0.113.9", Narrowed::Refused, "203.0.113.9", false),
            // The same address in IPv6, however it is written.
            (
                "::ffff:203.0.113.9",
                Narrowed::Refused,
                "203.0.113.9",
                false,
            ),
            (
                "64:ff9b::203.0.113.9",
                Narrowed::Refused,
                "64:ff9b::203.0.113.9",
                false,
            ),
            (
                "64:ff9b::203.0.113.8",
                Narrowed::Refused,
                "64:ff9b::203.0.113.8",
                false,
            ),
        ] {
            assert_eq!(narrowing.judge_host(host), before, "{host}");
            let ip = at.parse().unwrap();
            assert_eq!(narrowing.allows(host, ip), allowed, "{host} at {at}");
        }
    }

    #[test]
    fn an_address_that_a_sandbox_allows_is_not_opened_by_that() {
        let asked = rules(true, &[(true, "10.0.0.0/8"), (true, "127.0.0.1")]);
        let policy = Policy::default().narrowed(&asked).unwrap();
        for target in ["10.0.0.1:80", "127.0.0.1:80"] {
            let target: std::net::SocketAddr = target.parse().unwrap();
            let host = target.ip().to_string();
            let verdict = policy.judge_host(&host, 80).unwrap();
            assert!(policy.judge_address(&host, verdict, target, false).is_err());
        }
    }

    #[test]
    fn a_name_is_refused_by_the_address_that_it_resolves_to() {
        let asked = rules(true, &[(false, "192.0.2.0/24")]);
        let config = PolicyConfig {
            allow: vec!["named.example".to_owned()],
            ..PolicyConfig::default()
        };
        let policy = Policy::new(config).unwrap().narrowed(&asked).unwrap();
        for host in ["named.example", "other.example"] {
            let verdict = policy.judge_host(host, 443).unwrap();
            let judge = |target: &str| {
                let target = target.parse().unwrap();
                policy.judge_address(host, verdict, target, false)
            };
            assert!(judge("192.0.2.7:443").is_err(), "{host}");
            assert!(judge("1.1.1.1:443").is_ok(), "{host}");
            assert!(policy.needs_addresses(host));
        }
    }

    #[test]
    fn what_a_sandbox_allows_the_operator_may_still_refuse() {
        let config = PolicyConfig {
            deny: vec!["evil.example".to_owned()],
            ..PolicyConfig::default()
        };
        let operators = Policy::new(config).unwrap();
        let asked = rules(true, &[(true, "evil.example"), (true, "inner.example")]);
        let policy = operators.narrowed(&asked).unwrap();
        assert!(policy.judge_host("evil.example", 443).is_err());
        let verdict = policy.judge_host("inner.example", 443).unwrap();
        let inner = "10.0.0.1:443".parse().unwrap();
        let judged = policy.judge_address("inner.example", verdict, inner, false);
        assert!(judged.is_err());
        let nothing = operators.narrowed(&SandboxRules::nothing()).unwrap();
        assert!(nothing.judge_host("inner.example", 443).is_err());
    }

    #[test]
    fn targets_are_names_and_addresses() {
        for bad in [
            "",
            "10.0.0.0/33",
            "1.2.3.4:80",
            "a b",
            "http://x",
            "x:80",
            "**",
        ] {
            assert!(
                Narrowing::new(&rules(true, &[(true, bad)])).is_err(),
                "{bad}"
            );
        }
        let many = vec![(true, "a.example"); SANDBOX_RULES_MAX + 1];
        assert!(Narrowing::new(&rules(true, &many)).is_err());
    }
}
