//! Signatures of calls: Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>, symmetric `v1`).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Least length of a secret in bytes, as that specification asks.
pub(crate) const SECRET_BYTES_MIN: usize = 24;
/// Most secrets of one plugin: the old and the new one of a rotation, and some.
pub(crate) const SECRETS_MAX: usize = 4;
/// What a secret's text may begin with.
const PREFIX: &str = "whsec_";

/// How calls to a plugin are signed. No secret stands in a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigningConfig {
    /// Where the secrets are, 1 to 4. A call carries one signature per secret, so
    /// that a plugin can change from one to the next at its own time.
    pub secrets: Vec<SecretSource>,
}

/// Where a secret is: `whsec_` and base64, or base64 alone, of 24 bytes or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// In this variable of the environment.
    Env(String),
    /// In this file; white space around it is left out.
    File(std::path::PathBuf),
}

impl SecretSource {
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| format!("the environment has no variable `{name}`"))
            }
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("`{}` can't be read: {error}", path.display())),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(formatter, "variable `{name}`"),
            Self::File(path) => write!(formatter, "file `{}`", path.display()),
        }
    }
}

/// Signs calls. Its `Debug` form shows no secret.
pub(crate) struct CallSigner {
    secrets: Vec<Vec<u8>>,
}

impl fmt::Debug for CallSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets.len();
        formatter.debug_struct("CallSigner").field("secrets", &secrets).finish_non_exhaustive()
    }
}

impl CallSigner {
    /// Reads the secrets.
    ///
    /// # Errors
    /// Says what is wrong, and never what the secret is.
    pub(crate) fn new(config: &SigningConfig) -> Result<Self, String> {
        let count = config.secrets.len();
        if !(1..=SECRETS_MAX).contains(&count) {
            return Err(format!("has {count} secrets; give 1 to {SECRETS_MAX}"));
        }
        let secrets = config.secrets.iter().map(|source| {
            let text = source.read()?;
            let text = text.trim();
            let decoded = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text));
            match decoded {
                Ok(secret) if secret.len() >= SECRET_BYTES_MIN => Ok(secret),
                Ok(_) => {
                    Err(format!("{source} holds a secret of less than {SECRET_BYTES_MIN} bytes"))
                }
                Err(_) => Err(format!("{source} does not hold `{PREFIX}` and base64")),
            }
        });
        Ok(Self { secrets: secrets.collect::<Result<_, _>>()? })
    }

    /// The values of `webhook-timestamp` and `webhook-signature` now.
    pub(crate) fn sign_now(&self, id: &str, body: &[u8]) -> (String, String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = now.as_secs().to_string();
        let signature = self.sign(id, &timestamp, body);
        (timestamp, signature)
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signatures = self.secrets.iter().filter_map(|secret| {
            // HMAC takes keys of every length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secrets: &[&str]) -> Result<CallSigner, String> {
        let folder = tempfile::tempdir().unwrap();
        let sources = secrets.iter().enumerate().map(|(number, secret)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            SecretSource::File(path)
        });
        CallSigner::new(&SigningConfig { secrets: sources.collect() })
    }

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the specification's own libraries.
        let signer = signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();

        let signature =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);

        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_of_a_rotation_signs() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let both = signer(&[one, other]).unwrap().sign("id", "1", b"body");
        let alone = signer(&[other]).unwrap().sign("id", "1", b"body");

        assert_eq!(both.split(' ').count(), 2);
        assert_eq!(both.split(' ').next_back(), Some(alone.as_str()));
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_refused_and_never_shown() {
        let secret = "c2VjcmV0";
        let cases = [vec![], vec![secret], vec!["not base64, c2VjcmV0"], vec![secret; 5]];
        for secrets in cases {
            let problem = signer(&secrets).map(|_| ()).unwrap_err();
            assert!(!problem.contains(secret), "{problem}");
        }
        let missing = SecretSource::Env("FERMATA_TEST_NO_SUCH_VARIABLE".to_owned());
        assert!(CallSigner::new(&SigningConfig { secrets: vec![missing] }).is_err());
        let good = signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        assert!(!format!("{good:?}").contains("MfKQ"));
    }
}
