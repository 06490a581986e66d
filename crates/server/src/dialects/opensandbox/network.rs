//! Network policies in this dialect's words, and the rules of a sandbox that they are. Pure.

use crate::egress::{SandboxRule, SandboxRules};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Allow,
    Deny,
}

impl Action {
    fn of(allow: bool) -> Self {
        if allow { Self::Allow } else { Self::Deny }
    }
}

/// A rule about one host name or wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkRule {
    pub action: Action,
    pub target: String,
}

/// What a sandbox may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NetworkPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_action: Option<Action>,
    #[serde(deserialize_with = "list_or_null")]
    pub egress: Vec<NetworkRule>,
}

/// A policy that is an object: a list would pass for one, field by field, and an empty one for a
/// policy that allows everything.
pub(super) fn policy<'de, D: Deserializer<'de>>(
    json: D,
) -> Result<Option<NetworkPolicy>, D::Error> {
    let Some(object) = Option::<Map<String, Value>>::deserialize(json)? else {
        return Ok(None);
    };
    let policy = NetworkPolicy::deserialize(Value::Object(object));
    policy.map(Some).map_err(D::Error::custom)
}

fn list_or_null<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<NetworkRule>, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or_default())
}

impl NetworkPolicy {
    /// An empty policy is none; with rules and without a default the rest is denied.
    pub(super) fn rules(self) -> SandboxRules {
        let allow_by_default = match self.default_action {
            Some(action) => action == Action::Allow,
            None => self.egress.is_empty(),
        };
        SandboxRules {
            allow_by_default,
            rules: self.egress.into_iter().map(stored).collect(),
        }
    }

    pub(super) fn of(rules: &SandboxRules) -> Self {
        let wire = |rule: &SandboxRule| NetworkRule {
            action: Action::of(rule.allow),
            target: rule.target.clone(),
        };
        Self {
            default_action: Some(Action::of(rules.allow_by_default)),
            egress: rules.rules.iter().map(wire).collect(),
        }
    }
}

fn stored(rule: NetworkRule) -> SandboxRule {
    SandboxRule {
        allow: rule.action == Action::Allow,
        target: rule.target,
    }
}

/// Puts rules before those that are there. Of several about one target the first one stays.
pub(super) fn merge(rules: &mut SandboxRules, patch: Vec<NetworkRule>) {
    let before = std::mem::take(&mut rules.rules);
    for rule in patch.into_iter().map(stored).chain(before) {
        let known = rules
            .rules
            .iter()
            .any(|other| same(&other.target, &rule.target));
        if !known {
            rules.rules.push(rule);
        }
    }
}

/// Takes away the rules about these targets; those that are not there do not matter.
pub(super) fn remove(rules: &mut SandboxRules, targets: &[String]) {
    rules
        .rules
        .retain(|rule| !targets.iter().any(|target| same(target, &rule.target)));
}

fn same(one: &str, other: &str) -> bool {
    let plain = |target: &str| target.trim().trim_end_matches('.').to_ascii_lowercase();
    plain(one) == plain(other)
}

/// What kind of policy it is, in a word.
pub(super) fn mode(rules: &SandboxRules) -> &'static str {
    match (rules.allow_by_default, rules.rules.is_empty()) {
        (false, _) => "deny_all",
        (true, true) => "allow_all",
        (true, false) => "enforcing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, target: &str) -> NetworkRule {
        NetworkRule {
            action,
            target: target.to_owned(),
        }
    }

    fn targets(rules: &SandboxRules) -> Vec<(&str, bool)> {
        rules
            .rules
            .iter()
            .map(|r| (r.target.as_str(), r.allow))
            .collect()
    }

    #[test]
    fn what_is_not_said_is_allowed_without_rules_and_denied_with_them() {
        let policy = |json: &str| serde_json::from_str::<NetworkPolicy>(json).unwrap().rules();
        assert!(policy("{}").allow_by_default);
        assert!(policy(r#"{"egress":null}"#).allow_by_default);
        assert!(!policy(r#"{"defaultAction":"deny"}"#).allow_by_default);
        let some = policy(r#"{"egress":[{"action":"allow","target":"a.example"}]}"#);
        assert!(!some.allow_by_default);
        assert_eq!(NetworkPolicy::of(&some).rules(), some);
        assert!(serde_json::from_str::<NetworkPolicy>(r#"{"defaultAction":"maybe"}"#).is_err());
    }

    #[test]
    fn a_patch_goes_before_and_its_first_word_counts() {
        let mut rules = NetworkPolicy {
            default_action: Some(Action::Deny),
            egress: vec![
                rule(Action::Allow, "a.example"),
                rule(Action::Allow, "b.example"),
            ],
        }
        .rules();
        let patch = vec![
            rule(Action::Deny, "B.example."),
            rule(Action::Allow, "c.example"),
            rule(Action::Deny, "c.example"),
        ];
        merge(&mut rules, patch);
        assert_eq!(
            targets(&rules),
            [
                ("B.example.", false),
                ("c.example", true),
                ("a.example", true)
            ]
        );
        remove(
            &mut rules,
            &["b.EXAMPLE".to_owned(), "never.example".to_owned()],
        );
        assert_eq!(targets(&rules), [("c.example", true), ("a.example", true)]);
        assert_eq!(mode(&rules), "deny_all");
    }
}
