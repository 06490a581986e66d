//! Scopes: what a key may do. Singular `resource:action` words.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! scopes {
    ($($variant:ident = $name:literal,)*) => {
        /// One permission of a key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Scope {
            /// Every scope, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl std::str::FromStr for Scope {
            type Err = UnknownScope;
            fn from_str(text: &str) -> Result<Self, UnknownScope> {
                match text { $($name => Ok(Self::$variant),)* _ => Err(UnknownScope) }
            }
        }
    };
}

scopes! {
    SandboxCreate = "sandbox:create",
    SandboxRead = "sandbox:read",
    SandboxKill = "sandbox:kill",
    SandboxExtend = "sandbox:extend",
    CommandRun = "command:run",
    CommandRead = "command:read",
    CommandCancel = "command:cancel",
    CodeRun = "code:run",
    FileRead = "file:read",
    FileWrite = "file:write",
    ArtifactCreate = "artifact:create",
    ArtifactRead = "artifact:read",
    ArtifactDelete = "artifact:delete",
    PreviewCreate = "preview:create",
    PreviewRead = "preview:read",
    PreviewRevoke = "preview:revoke",
    WorkspaceRunCreate = "workspace_run:create",
    WorkspaceRunRead = "workspace_run:read",
    WorkspaceRunCancel = "workspace_run:cancel",
    BackupCreate = "backup:create",
    BackupRead = "backup:read",
    BackupRestore = "backup:restore",
    BackupDelete = "backup:delete",
    UsageRead = "usage:read",
    ApiKeyRead = "api_key:read",
    ApiKeyRevoke = "api_key:revoke",
    ProjectCreate = "project:create",
    AgentBootstrap = "agent:bootstrap",
    AuditRead = "audit:read",
}

/// By hand: the derived one would list the names of the variants.
impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("One permission of a key."))
            .enum_values(Some(Self::ALL.iter().map(|scope| scope.as_str())))
            .into()
    }
}

impl utoipa::ToSchema for Scope {}

/// A word that is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes in one word: checked on every request.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is in the set.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    /// The scopes in the set, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |set, scope| set | 1 << scope as u32),
        )
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Scope::as_str))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_the_set_holds_each() {
        assert_eq!(Scope::ALL.len(), 29);
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>(), Ok(*scope));
            let json = serde_json::to_string(scope).unwrap();
            assert_eq!(json, format!("\"{scope}\""));
            let only: ScopeSet = [*scope].into_iter().collect();
            assert_eq!(only.iter().collect::<Vec<_>>(), [*scope]);
        }
        assert_eq!(ScopeSet::all().iter().count(), 29);
        assert_eq!("sandbox:*".parse::<Scope>(), Err(UnknownScope));
    }
}
