//! What sandboxes may reach. Pure: no sockets, no names resolved, no clock.

use super::address::{embedded_v4, forbidden_range};
use super::narrowing::{Narrowed, Narrowing, SANDBOX_RULES_MAX, SandboxRules};
use super::refusal::Refusal;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Longest host name.
const HOST_BYTES_MAX: usize = 253;
/// Rules in one list.
const RULES_MAX: usize = 4_096;
/// Mail to the world from a machine that runs strangers' code helps spammers alone.
const SMTP_PORT: u16 = 25;

/// Egress rules as they are configured.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// Always allowed: host names (`pypi.org`, `*.example.org`), addresses, CIDRs. An allowed
    /// host may resolve to anything.
    pub allow: Vec<String>,
    /// Never allowed, in the same forms; stronger than `allow`. `*` is every host.
    pub deny: Vec<String>,
    /// Refuse whatever `allow` does not name.
    pub only_allowed: bool,
    /// Ports never connected to.
    pub denied_ports: Vec<u16>,
    /// Where this server itself listens; never reachable, whatever `allow` says.
    pub own: Vec<SocketAddr>,
    /// A proxy that everything goes through.
    pub upstream: Option<Upstream>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            only_allowed: false,
            denied_ports: vec![SMTP_PORT],
            own: Vec::new(),
            upstream: None,
        }
    }
}

/// A proxy of the operator's. It resolves names itself, so it has to refuse internal targets that
/// this machine cannot resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub host: String,
    pub port: u16,
}

/// A rule that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("egress rule {0:?} is neither a host name, an address nor a CIDR")]
    Rule(String),
    #[error("more than {RULES_MAX} egress rules")]
    TooMany,
    #[error("more than {SANDBOX_RULES_MAX} egress rules of one sandbox")]
    TooManyOfSandbox,
    #[error(
        "egress target {0:?} is neither a host name, a wildcard such as *.example.org, an address \
         nor a CIDR"
    )]
    Target(String),
}

/// Checked egress rules.
#[derive(Debug, Clone)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    only_allowed: bool,
    denied_ports: Vec<u16>,
    own: Vec<SocketAddr>,
    upstream: Option<Upstream>,
    /// What the sandbox itself may ask for at most.
    narrowing: Option<Narrowing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Net(IpNet),
    Host(String),
    /// `*.example.org`, kept as `.example.org`.
    Below(String),
    Any,
}

/// What the rules say about a host before it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostVerdict {
    /// Named by `allow`: its addresses are not checked further, except against `deny` and `own`.
    Allowed,
    /// Its addresses decide.
    ByAddress,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(PolicyConfig::default()).expect("no rules that could be malformed")
    }
}

impl Policy {
    /// Checks the rules.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn new(config: PolicyConfig) -> Result<Self, PolicyError> {
        Ok(Self {
            allow: rules(&config.allow)?,
            deny: rules(&config.deny)?,
            only_allowed: config.only_allowed,
            denied_ports: config.denied_ports,
            own: config.own,
            upstream: config.upstream,
            narrowing: None,
        })
    }

    /// The same for a sandbox with rules of its own.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn narrowed(&self, rules: &SandboxRules) -> Result<Self, PolicyError> {
        Ok(Self {
            narrowing: Some(Narrowing::new(rules)?),
            ..self.clone()
        })
    }

    pub(super) fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// Judges a host and port before anything is resolved. `host` is lower case, without a final
    /// dot.
    pub(super) fn judge_host(&self, host: &str, port: u16) -> Result<HostVerdict, Refusal> {
        if port == 0 || self.denied_ports.contains(&port) {
            return Err(Refusal::Port { port });
        }
        if self.narrowed_host(host) == Narrowed::Refused {
            return Err(Refusal::NotAllowedHere {
                host: host.to_owned(),
            });
        }
        let literal = host.parse::<IpAddr>().ok();
        let named = |rules: &[Rule]| rules.iter().any(|rule| rule.names(host));
        if named(&self.deny) {
            return Err(Refusal::DeniedHost {
                host: host.to_owned(),
            });
        }
        if named(&self.allow) {
            return Ok(HostVerdict::Allowed);
        }
        // A host that only its addresses can allow has to be resolved first.
        let nets = self.allow.iter().any(|rule| matches!(rule, Rule::Net(_)));
        if self.only_allowed && literal.is_none() && !nets {
            return Err(Refusal::NotAllowed {
                host: host.to_owned(),
            });
        }
        Ok(HostVerdict::ByAddress)
    }

    fn narrowed_host(&self, host: &str) -> Narrowed {
        let own = self.narrowing.as_ref();
        own.map_or(Narrowed::Allowed, |own| own.judge_host(host))
    }

    /// Whether the sandbox's own rules cannot tell before a host is resolved.
    pub(super) fn needs_addresses(&self, host: &str) -> bool {
        self.narrowed_host(host) == Narrowed::ByAddress
    }

    /// Judges one address that a host resolved to. `is_local`: it is an address of this machine.
    pub(super) fn judge_address(
        &self,
        host: &str,
        verdict: HostVerdict,
        target: SocketAddr,
        is_local: bool,
    ) -> Result<(), Refusal> {
        let ip = target.ip().to_canonical();
        let refuse = |what: &str| {
            Err(Refusal::Address {
                host: host.to_owned(),
                ip,
                what: what.to_owned(),
            })
        };
        let own = self.narrowing.as_ref();
        if own.is_some_and(|own| !own.allows(host, ip)) {
            return Err(Refusal::NotAllowedHere {
                host: host.to_owned(),
            });
        }
        if self.is_own(target, is_local) {
            return refuse("where this server listens");
        }
        if self.deny.iter().any(|rule| rule.covers(ip)) {
            return refuse("denied by the configuration");
        }
        if verdict == HostVerdict::Allowed {
            return Ok(());
        }
        let allowed = self
            .allow
            .iter()
            .filter(|rule| rule.covers_exactly_this(ip));
        // A wide CIDR opens a network, not the machine that happens to have an address in it.
        let exact = allowed.clone().any(Rule::is_single);
        if exact || (!is_local && allowed.count() > 0) {
            return Ok(());
        }
        if self.only_allowed {
            return Err(Refusal::NotAllowed {
                host: host.to_owned(),
            });
        }
        match forbidden_range(ip) {
            Some(what) => refuse(what),
            None if is_local => refuse("an address of this machine"),
            None => Ok(()),
        }
    }

    fn is_own(&self, target: SocketAddr, is_local: bool) -> bool {
        self.own.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && is_local;
            own.port() == target.port()
                && (everywhere || own.ip().to_canonical() == target.ip().to_canonical())
        })
    }
}

impl Rule {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(net) = text.parse::<IpNet>() {
            return Some(Self::Net(net.trunc()));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(&text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Self::Net(ip.to_canonical().into()));
        }
        if let Some(suffix) = text.strip_prefix('*') {
            return (suffix.starts_with('.') && is_host(&suffix[1..]))
                .then(|| Self::Below(suffix.to_owned()));
        }
        is_host(&text).then_some(Self::Host(text))
    }

    /// Whether it names this host, by its name.
    pub(super) fn names(&self, host: &str) -> bool {
        match self {
            Self::Host(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Any => true,
            Self::Net(_) => false,
        }
    }

    /// Whether it covers this address, in whatever form the address is written.
    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        let inner = match ip {
            IpAddr::V6(ip) => embedded_v4(ip).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        self.covers_exactly_this(ip) || inner.is_some_and(|ip| self.covers_exactly_this(ip))
    }

    pub(super) fn covers_exactly_this(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Net(net) if net.contains(&ip))
    }

    fn is_single(&self) -> bool {
        matches!(self, Self::Net(net) if net.prefix_len() == net.max_prefix_len())
    }
}

fn rules(texts: &[String]) -> Result<Vec<Rule>, PolicyError> {
    if texts.len() > RULES_MAX {
        return Err(PolicyError::TooMany);
    }
    texts
        .iter()
        .map(|text| Rule::parse(text).ok_or_else(|| PolicyError::Rule(text.clone())))
        .collect()
}

/// A host name or IPv4 address as it may stand in a request: letters, digits, `-`, `_`, dots.
pub(super) fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && !host.starts_with('.')
        && !host.contains("..")
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> PolicyConfig {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        PolicyConfig {
            allow: list(allow),
            deny: list(deny),
            ..PolicyConfig::default()
        }
    }

    /// `ok`, or the kind of refusal.
    fn judge(config: &PolicyConfig, host: &str, target: &str, is_local: bool) -> &'static str {
        let policy = Policy::new(config.clone()).unwrap();
        let target: SocketAddr = target.parse().unwrap();
        let judged = policy
            .judge_host(host, target.port())
            .and_then(|verdict| policy.judge_address(host, verdict, target, is_local));
        match judged {
            Ok(()) => "ok",
            Err(Refusal::Port { .. }) => "port",
            Err(Refusal::DeniedHost { .. }) => "denied host",
            Err(Refusal::NotAllowed { .. }) => "not allowed",
            Err(Refusal::Address { .. }) => "address",
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn table() {
        let none = policy(&[], &[]);
        let lists = policy(
            &[
                "internal.corp",
                "*.lab.corp",
                "10.1.0.0/16",
                "192.168.7.7",
                "8.8.8.8",
            ],
            &[
                "evil.example",
                "*.evil.example",
                "203.0.113.0/24",
                "bad.lab.corp",
            ],
        );
        for (config, host, target, is_local, expected) in [
            (&none, "pypi.org", "151.101.0.223:443", false, "ok"),
            (&none, "pypi.org", "10.0.0.5:443", false, "address"),
            (&none, "pypi.org", "[::ffff:10.0.0.5]:443", false, "address"),
            (&none, "mail.example", "192.0.2.1:25", false, "port"),
            (&none, "mail.example", "192.0.2.1:0", false, "port"),
            (&none, "me.example", "192.0.2.1:80", true, "address"),
            (&lists, "internal.corp", "10.9.9.9:80", false, "ok"),
            (&lists, "internal.corp", "127.0.0.1:80", true, "ok"),
            (&lists, "x.lab.corp", "10.9.9.9:80", false, "ok"),
            (&lists, "lab.corp", "10.9.9.9:80", false, "address"),
            (&lists, "xlab.corp", "10.9.9.9:80", false, "address"),
            (&lists, "bad.lab.corp", "10.9.9.9:80", false, "denied host"),
            (&lists, "any.example", "10.1.2.3:80", false, "ok"),
            (&lists, "any.example", "10.1.2.3:80", true, "address"),
            (&lists, "any.example", "10.2.2.3:80", false, "address"),
            (&lists, "any.example", "192.168.7.7:80", true, "ok"),
            (&lists, "evil.example", "1.1.1.1:80", false, "denied host"),
            (
                &lists,
                "www.evil.example",
                "1.1.1.1:80",
                false,
                "denied host",
            ),
            (&lists, "fine.example", "203.0.113.4:80", false, "address"),
            (
                &lists,
                "fine.example",
                "[::ffff:203.0.113.4]:80",
                false,
                "address",
            ),
            (
                &lists,
                "fine.example",
                "[64:ff9b::203.0.113.4]:80",
                false,
                "address",
            ),
            (&lists, "internal.corp", "203.0.113.4:80", false, "address"),
        ] {
            assert_eq!(
                judge(config, host, target, is_local),
                expected,
                "{host} {target}"
            );
        }
    }

    #[test]
    fn an_allow_list_is_all_there_is() {
        let mut config = policy(&["pypi.org", "8.8.8.0/24"], &[]);
        config.only_allowed = true;
        assert_eq!(judge(&config, "pypi.org", "1.2.3.4:443", false), "ok");
        assert_eq!(judge(&config, "dns.google", "8.8.8.8:443", false), "ok");
        assert_eq!(
            judge(&config, "example.org", "1.2.3.4:443", false),
            "not allowed"
        );
        config.allow.pop();
        assert_eq!(
            judge(&config, "example.org", "1.2.3.4:443", false),
            "not allowed"
        );
        let all = policy(&["pypi.org"], &["*"]);
        assert_eq!(judge(&all, "pypi.org", "1.2.3.4:443", false), "denied host");
    }

    #[test]
    fn the_server_itself_is_never_reachable() {
        let mut config = policy(&["localhost", "127.0.0.1", "10.0.0.9"], &[]);
        config.own = vec!["127.0.0.1:8080".parse().unwrap()];
        assert_eq!(
            judge(&config, "localhost", "127.0.0.1:8080", true),
            "address"
        );
        assert_eq!(
            judge(&config, "x.example", "[::ffff:127.0.0.1]:8080", true),
            "address"
        );
        assert_eq!(judge(&config, "localhost", "127.0.0.1:8081", true), "ok");
        config.own = vec!["0.0.0.0:8080".parse().unwrap()];
        assert_eq!(
            judge(&config, "x.example", "10.0.0.9:8080", true),
            "address"
        );
        assert_eq!(judge(&config, "x.example", "10.0.0.9:8080", false), "ok");
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "a b",
            "*foo",
            "**",
            "http://x",
            "10.0.0.0/33",
            "*.",
            "a..b",
            "x:80",
        ] {
            let config = policy(&[bad], &[]);
            assert_eq!(
                Policy::new(config).err(),
                Some(PolicyError::Rule(bad.into())),
                "{bad}"
            );
        }
    }
}
