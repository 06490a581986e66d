//! Rules of one sandbox, under those of the operator: they take away and never add.
//!
//! What they allow is still judged by [`super::Policy`], addresses and all. They are about names:
//! a rule for addresses could not hold for a name that resolves to one.

use super::policy::{PolicyError, Rule};
use serde::{Deserialize, Serialize};

/// Rules of one sandbox.
pub const SANDBOX_RULES_MAX: usize = 256;

/// What one sandbox may reach, as it was asked for. The first rule that names a host decides, and
/// without one the default.
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
    /// `example.org`, `*.example.org` or `*`.
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

impl Narrowing {
    pub(super) fn new(asked: &SandboxRules) -> Result<Self, PolicyError> {
        if asked.rules.len() > SANDBOX_RULES_MAX {
            return Err(PolicyError::TooManyOfSandbox);
        }
        let checked = |rule: &SandboxRule| match Rule::parse(&rule.target) {
            Some(Rule::Net(_)) | None => Err(PolicyError::Target(rule.target.clone())),
            Some(parsed) => Ok((parsed, rule.allow)),
        };
        Ok(Self {
            allow_by_default: asked.allow_by_default,
            rules: asked.rules.iter().map(checked).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the sandbox may ask for that host.
    pub(super) fn allows(&self, host: &str) -> bool {
        let deciding = self.rules.iter().find(|(rule, _)| rule.names(host));
        deciding.map_or(self.allow_by_default, |(_, allow)| *allow)
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
            assert_eq!(narrowing.allows(host), allowed, "{host}");
        }
        let open = Narrowing::new(&rules(true, &[(false, "evil.example")])).unwrap();
        assert!(open.allows("1.1.1.1"));
        assert!(!open.allows("evil.example"));
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
    fn targets_are_names() {
        for bad in [
            "",
            "10.0.0.0/8",
            "1.2.3.4",
            "::1",
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
