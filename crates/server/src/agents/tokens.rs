//! Signed tokens: JSON Web Tokens with Ed25519 and nothing else.
//!
//! Owns: what a token looks like, making one, and whether one can be believed. The signature is
//! ring's. Does not own: keys over time ([`super::keys`]) or what a believed token is worth: that
//! is asked of the store, so that revoking one works at once.
//!
//! The algorithm is fixed and never taken from the token; its header is compared with the one
//! header that is ever written. So there is no `none`, no HMAC with a public key, no key from
//! elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crownest_api::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The one algorithm, as RFC 8037 names it.
pub(crate) const ALGORITHM: &str = "EdDSA";
/// Longest token that is looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 4096;
/// Clocks of two servers of one installation may differ by this much.
const CLOCK_SKEW_SECONDS: i64 = 5;

/// What a token is for. One kind is never taken for the other: the kind is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Access,
    Identity,
}

impl Kind {
    fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Identity => "agent-identity+jwt",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub iss: String,
    pub aud: String,
    /// The registration.
    pub sub: String,
    /// The credential; of an identity assertion a number of its own.
    pub jti: String,
    /// Seconds since 1970.
    pub iat: i64,
    pub exp: i64,
    /// `pre_claim` or `post_claim`.
    pub phase: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    /// By a key that is not (or no longer) one of ours.
    #[error("the token is not signed by this server")]
    UnknownKey,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
}

/// A key that signs.
pub(crate) struct Signer {
    pub(crate) id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// A new key, and its private half as it is kept.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub(crate) fn generate(id: String) -> Result<(Self, Vec<u8>), ring::error::Unspecified> {
        let random = ring::rand::SystemRandom::new();
        let document = Ed25519KeyPair::generate_pkcs8(&random)?;
        let pair =
            Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| ring::error::Unspecified)?;
        Ok((Self { id, pair }, document.as_ref().to_vec()))
    }

    /// A key that was kept.
    ///
    /// # Errors
    /// When the bytes are no such key.
    pub(crate) fn from_kept(
        id: String,
        private_key: &[u8],
    ) -> Result<Self, ring::error::KeyRejected> {
        let pair = Ed25519KeyPair::from_pkcs8(private_key)?;
        Ok(Self { id, pair })
    }

    pub(crate) fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// A token.
    pub(crate) fn sign(&self, kind: Kind, claims: &Claims) -> String {
        let header = Header {
            alg: ALGORITHM.to_owned(),
            typ: kind.typ().to_owned(),
            kid: self.id.clone(),
        };
        let mut token = part(&header);
        token.push('.');
        token.push_str(&part(claims));
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        token
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({}, ..)", self.id)
    }
}

fn part<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("strings and numbers are always JSON");
    URL_SAFE_NO_PAD.encode(json)
}

/// The claims of a token that can be believed. `key` finds the public key of that id.
pub(crate) fn verify<'k>(
    token: &str,
    kind: Kind,
    now: Timestamp,
    key: impl FnOnce(&str) -> Option<&'k [u8]>,
) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (head, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = parsed(head)?;
    if header.alg != ALGORITHM || header.typ != kind.typ() {
        return Err(TokenError::Malformed);
    }
    let key = key(&header.kid).ok_or(TokenError::UnknownKey)?;
    let signature = decoded(signature)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| TokenError::Signature)?;
    // Only now is a word of it believed.
    let claims: Claims = parsed(body)?;
    let seconds = now.as_millis() / 1_000;
    if claims.exp <= seconds {
        return Err(TokenError::Expired);
    }
    if claims.iat > seconds + CLOCK_SKEW_SECONDS {
        return Err(TokenError::Malformed);
    }
    Ok(claims)
}

/// For the fuzz targets: bytes of a client as a token, under a key that has signed nothing.
#[cfg(feature = "fuzzing")]
pub(crate) fn forged(token: &str) {
    let now = Timestamp::from_millis(0);
    for kind in [Kind::Access, Kind::Identity] {
        assert!(verify(token, kind, now, |_| Some(&[7; 32])).is_err());
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| TokenError::Malformed)
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, TokenError> {
    serde_json::from_slice(&decoded(text)?).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claims(exp: i64) -> Claims {
        Claims {
            iss: "http://localhost".into(),
            aud: "http://localhost".into(),
            sub: "areg_1".into(),
            jti: "acred_1".into(),
            iat: 100,
            exp,
            phase: "post_claim".into(),
            scope: "code:run".into(),
            org: Some("org_1".into()),
        }
    }

    fn signer(id: &str) -> Signer {
        Signer::generate(id.to_owned()).unwrap().0
    }

    fn check(token: &str, kind: Kind, signer: &Signer, second: i64) -> Result<Claims, TokenError> {
        let now = Timestamp::from_millis(second * 1_000);
        verify(token, kind, now, |id| {
            (id == signer.id).then(|| signer.public_key())
        })
    }

    #[test]
    fn what_was_signed_is_believed_until_it_expires() {
        let (signer, kept) = Signer::generate("k1".into()).unwrap();
        let token = signer.sign(Kind::Access, &claims(200));
        let again = Signer::from_kept("k1".into(), &kept).unwrap();
        assert_eq!(check(&token, Kind::Access, &again, 199), Ok(claims(200)));
        let expired = check(&token, Kind::Access, &again, 200);
        assert_eq!(expired, Err(TokenError::Expired));
        let early = check(&token, Kind::Access, &again, 1);
        assert_eq!(early, Err(TokenError::Malformed));
    }

    #[test]
    fn one_kind_is_never_the_other() {
        let signer = signer("k1");
        let token = signer.sign(Kind::Identity, &claims(200));
        let taken = check(&token, Kind::Access, &signer, 150);
        assert_eq!(taken, Err(TokenError::Malformed));
    }

    #[test]
    fn keys_of_others_count_for_nothing() {
        let (ours, theirs) = (signer("k1"), signer("k1"));
        let token = theirs.sign(Kind::Access, &claims(200));
        let taken = check(&token, Kind::Access, &ours, 150);
        assert_eq!(taken, Err(TokenError::Signature));
        let token = signer("k2").sign(Kind::Access, &claims(200));
        let taken = check(&token, Kind::Access, &ours, 150);
        assert_eq!(taken, Err(TokenError::UnknownKey));
    }

    #[test]
    fn no_other_algorithm_and_no_other_header() {
        let signer = signer("k1");
        let encode = |value: &Value| part(value);
        let body = part(&claims(200));
        let good = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k1" });
        for (name, value) in [
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("alg", json!("eddsa")),
            ("typ", json!("JWT")),
            ("jwk", json!({ "kty": "OKP" })),
            ("jku", json!("http://evil.example")),
            ("crit", json!(["exp"])),
        ] {
            let mut header = good.clone();
            header[name] = value;
            let signed = format!("{}.{body}", encode(&header));
            let signature = URL_SAFE_NO_PAD.encode(signer.pair.sign(signed.as_bytes()));
            for signature in [signature.as_str(), ""] {
                let token = format!("{signed}.{signature}");
                let taken = check(&token, Kind::Access, &signer, 150);
                assert_eq!(taken, Err(TokenError::Malformed), "{header}");
            }
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        let signer = signer("k1");
        let token = signer.sign(Kind::Access, &claims(200));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let taken = check(&changed, Kind::Access, &signer, 150);
            assert!(taken.is_err(), "{at}");
        }
        assert!(check("", Kind::Access, &signer, 150).is_err());
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert!(check(&long, Kind::Access, &signer, 150).is_err());
    }
}
