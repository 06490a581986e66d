//! The first start: an organization, a user, a project and a key that may do everything.

use crate::auth::{micros, new_secret};
use crate::error::{ApiError, ApiResult};
use crownest_api::api_key::SHOWN_PREFIX_CHARS;
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_store::{
    ApiKey, Founding, Organization, PageRequest, Project, SecretHash, Store, User,
};

/// What the first start made. The secret is not kept anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct FreshCredentials {
    pub org_id: String,
    pub user_id: String,
    pub project_id: String,
    pub key_id: String,
    pub secret: String,
}

impl std::fmt::Debug for FreshCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshCredentials")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Makes what a server needs to be usable, unless it is there. `Some` when a key was made: the
/// caller shows its secret once.
///
/// # Errors
/// When the store fails.
pub async fn bootstrap(store: &Store) -> ApiResult<Option<FreshCredentials>> {
    let now = micros(Timestamp::now());
    let org_id = new_id(IdKind::Organization);
    let founding = Founding {
        organization: Organization {
            id: org_id.clone(),
            name: "Default organization".to_owned(),
            created_at: now,
            plan: None,
        },
        user: User {
            id: new_id(IdKind::User),
            org_id: org_id.clone(),
            name: "Owner".to_owned(),
            email: None,
            role: "owner".to_owned(),
            created_at: now,
        },
        project: Project {
            id: new_id(IdKind::Project),
            org_id,
            name: "Default project".to_owned(),
            is_default: true,
            created_at: now,
        },
    };
    let found = store.bootstrap(&founding).await?;
    let Founding {
        organization,
        user,
        project,
    } = found.founding;
    // A first start that died after the organization and before the key is finished here.
    let keys = store
        .api_keys(&organization.id, &PageRequest::default())
        .await?;
    if !found.created && !keys.rows.is_empty() {
        return Ok(None);
    }
    let new = NewKey {
        org_id: &organization.id,
        user_id: &user.id,
        name: "First key",
        scopes: Scope::ALL,
        project_ids: None,
    };
    let (key, secret) = create_key(store, new).await?;
    Ok(Some(FreshCredentials {
        org_id: organization.id,
        user_id: user.id,
        project_id: project.id,
        key_id: key.id,
        secret,
    }))
}

/// A key to make.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    pub org_id: &'a str,
    pub user_id: &'a str,
    pub name: &'a str,
    pub scopes: &'a [Scope],
    /// None: every project of the organization.
    pub project_ids: Option<&'a [String]>,
}

/// Makes a key and returns it with its secret, which is not kept.
///
/// # Errors
/// When the store fails, or the kernel has no randomness to give.
pub async fn create_key(store: &Store, new: NewKey<'_>) -> ApiResult<(ApiKey, String)> {
    let secret = new_secret().map_err(ApiError::internal)?;
    let key = ApiKey {
        id: new_id(IdKind::ApiKey),
        org_id: new.org_id.to_owned(),
        name: new.name.to_owned(),
        prefix: secret[..SHOWN_PREFIX_CHARS].to_owned(),
        last4: secret[secret.len() - 4..].to_owned(),
        hash: SecretHash::of(&secret),
        scopes: new
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect(),
        project_ids: new.project_ids.map(<[String]>::to_vec),
        created_by_user_id: new.user_id.to_owned(),
        created_at: micros(Timestamp::now()),
        revoked_at: None,
        last_used_at: None,
    };
    store.insert_api_key(&key).await?;
    Ok((key, secret))
}
