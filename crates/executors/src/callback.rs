//! Tokens by which whoever was called names the call that it completes.
//!
//! A token is the effect's key with a message authentication code under a key of
//! the engine's own. So nothing is stored, every worker makes and reads the same
//! tokens, and nobody else can make one. The journal sees to it that one token
//! completes one effect once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Longest token in bytes: a tenant, a run and a node fit three times over.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// Makes and reads tokens. Its `Debug` form shows no key.
#[derive(Clone)]
pub struct CallbackTokens {
    key: [u8; 32],
}

/// What a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackClaim {
    /// Whose run it is.
    pub tenant: String,
    /// The effect key, `run/node/activation`.
    pub effect: String,
}

impl std::fmt::Debug for CallbackTokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CallbackTokens").finish_non_exhaustive()
    }
}

impl CallbackTokens {
    /// Tokens under this key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The token of an effect: always the same one.
    #[must_use]
    pub fn mint(&self, tenant: &str, effect: &str) -> String {
        let claim = format!("{tenant}/{effect}");
        let code = self.mac(&claim).map(|mac| mac.finalize().into_bytes());
        let code = code.map(|code| URL_SAFE_NO_PAD.encode(code)).unwrap_or_default();
        format!("{}.{code}", URL_SAFE_NO_PAD.encode(&claim))
    }

    /// What a token names, if it is one of ours; the comparison takes the same time
    /// wherever it fails.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<CallbackClaim> {
        let (claim, code) = parts(token)?;
        self.mac(&claim)?.verify_slice(&code).ok()?;
        claimed(&claim)
    }

    fn mac(&self, claim: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(claim.as_bytes());
        Some(mac)
    }
}

/// What a token says that it names. Nobody has checked it.
#[must_use]
pub fn unverified_claim(token: &str) -> Option<CallbackClaim> {
    claimed(&parts(token)?.0)
}

fn parts(token: &str) -> Option<(String, Vec<u8>)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (claim, code) = token.split_once('.')?;
    let claim = String::from_utf8(URL_SAFE_NO_PAD.decode(claim).ok()?).ok()?;
    Some((claim, URL_SAFE_NO_PAD.decode(code).ok()?))
}

fn claimed(claim: &str) -> Option<CallbackClaim> {
    let (tenant, effect) = claim.split_once('/')?;
    Some(CallbackClaim { tenant: tenant.to_owned(), effect: effect.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_names_its_effect_to_those_who_hold_the_key() {
        let tokens = CallbackTokens::new([7; 32]);
        let token = tokens.mint("acme", "0003c0de/ask/1");
        let claim =
            CallbackClaim { tenant: "acme".to_owned(), effect: "0003c0de/ask/1".to_owned() };

        assert_eq!(tokens.verify(&token), Some(claim.clone()));
        assert_eq!(unverified_claim(&token), Some(claim));
        assert_eq!(CallbackTokens::new([8; 32]).verify(&token), None);
        assert_eq!(tokens.verify(""), None);
        assert_eq!(tokens.verify(&"a".repeat(TOKEN_BYTES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn no_changed_token_is_one(at in 0_usize..100, byte in b'A'..=b'z') {
            let tokens = CallbackTokens::new([7; 32]);
            let token = tokens.mint("acme", "0003c0de/ask/1");
            let mut changed = token.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();

            prop_assert_eq!(tokens.verify(&changed).is_some(), changed == token);
        }
    }
}
