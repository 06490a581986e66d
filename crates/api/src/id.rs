//! Identifiers: `<prefix>_<suffix>`, opaque to clients.
//!
//! New suffixes are a UUIDv7 in base 32: 26 characters of `[a-z0-9]`, in the order of creation,
//! with 74 random bits. An identifier grants nothing: every use is checked against the caller's
//! organization.

use uuid::Uuid;

/// Longest identifier that is looked at.
pub const ID_BYTES_MAX: usize = 64;
/// Length of the suffix of an identifier made by [`new_id`].
pub const SUFFIX_LEN: usize = 26;

/// Lower-case base 32 without `i l o u`, so that a suffix read aloud survives.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What an identifier names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdKind {
    Organization,
    User,
    Project,
    ApiKey,
    Sandbox,
    Command,
    CodeContext,
    /// A detached run of code; others have no id.
    CodeRun,
    Artifact,
    Preview,
    Template,
    TemplateVersion,
    WorkspaceRun,
    Upload,
    Backup,
    Snapshot,
    AgentRegistration,
    AgentCredential,
    AgentClaim,
    /// A row of the audit log.
    AuditEvent,
    /// One HTTP request, as named in `x-request-id`.
    Request,
    /// A machine that owns sandboxes.
    Node,
}

impl IdKind {
    /// The part before the underscore.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Organization => "org",
            Self::User => "usr",
            Self::Project => "prj",
            Self::ApiKey => "key",
            Self::Sandbox => "sbx",
            Self::Command => "cmd",
            Self::CodeContext => "cctx",
            Self::CodeRun => "crun",
            Self::Artifact => "art",
            Self::Preview => "prv",
            Self::Template => "tpl",
            Self::TemplateVersion => "tplv",
            Self::WorkspaceRun => "wsr",
            Self::Upload => "upl",
            Self::Backup => "bkp",
            Self::Snapshot => "snap",
            Self::AgentRegistration => "areg",
            Self::AgentCredential => "acred",
            Self::AgentClaim => "aclaim",
            Self::AuditEvent => "evt",
            Self::Request => "req",
            Self::Node => "node",
        }
    }

    /// The suffix of `id` when it is a well-formed identifier of this kind.
    #[must_use]
    pub fn suffix(self, id: &str) -> Option<&str> {
        if id.len() > ID_BYTES_MAX {
            return None;
        }
        let suffix = id.strip_prefix(self.prefix())?.strip_prefix('_')?;
        let (first, rest) = suffix.as_bytes().split_first()?;
        let rest_ok = rest
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        (first.is_ascii_alphanumeric() && rest_ok).then_some(suffix)
    }

    /// Whether `id` is a well-formed identifier of this kind.
    #[must_use]
    pub fn matches(self, id: &str) -> bool {
        self.suffix(id).is_some()
    }
}

/// A new identifier.
#[must_use]
pub fn new_id(kind: IdKind) -> String {
    let prefix = kind.prefix();
    let mut id = String::with_capacity(prefix.len() + 1 + SUFFIX_LEN);
    id.push_str(prefix);
    id.push('_');
    push_base32(Uuid::now_v7().as_u128(), &mut id);
    id
}

/// The identifier that is made of these bits, for something that must not exist twice. They are
/// those of a digest: as good as random.
#[must_use]
pub fn derived_id(kind: IdKind, bits: u128) -> String {
    let mut id = format!("{}_", kind.prefix());
    push_base32(bits, &mut id);
    id
}

/// Appends 128 bits as 26 characters, highest first; the first one carries only three bits.
fn push_base32(bits: u128, out: &mut String) {
    for position in (0..SUFFIX_LEN).rev() {
        let digit = (bits >> (position * 5)) & 31;
        let digit = usize::try_from(digit).expect("five bits");
        out.push(char::from(ALPHABET[digit]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_identifiers_are_well_formed_distinct_and_in_order() {
        let ids: Vec<String> = (0..1000).map(|_| new_id(IdKind::Sandbox)).collect();
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1], "{} then {}", pair[0], pair[1]);
        }
        let suffix = IdKind::Sandbox.suffix(&ids[0]).unwrap();
        assert_eq!(suffix.len(), SUFFIX_LEN);
        assert!(
            suffix
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
    }

    #[test]
    fn derived_identifiers_are_well_formed_and_the_same_again() {
        let id = derived_id(IdKind::Artifact, u128::MAX);
        assert_eq!(id, derived_id(IdKind::Artifact, u128::MAX));
        assert!(IdKind::Artifact.matches(&id), "{id}");
        assert_ne!(id, derived_id(IdKind::Artifact, 1));
    }

    #[test]
    fn the_largest_number_fits() {
        let mut text = String::new();
        push_base32(u128::MAX, &mut text);
        assert_eq!(text, "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    }

    #[test]
    fn foreign_and_hostile_identifiers_are_refused() {
        for bad in [
            "", "sbx", "sbx_", "sbx_-a", "sbx__a", "cmd_a", "sbx_a/b", "sbx_a.b", "sbx_é",
        ] {
            assert!(!IdKind::Sandbox.matches(bad), "{bad}");
        }
        assert!(!IdKind::Sandbox.matches(&format!("sbx_{}", "a".repeat(ID_BYTES_MAX))));
        assert!(IdKind::Sandbox.matches("sbx_A-b_9"));
    }
}
