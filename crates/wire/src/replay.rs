//! Signed requests to replay an event: Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>), version `v1`.
//!
//! A request is an event with the header [`fermata_core::event::REPLAY_HEADER`] and with `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`; the signature is HMAC-SHA256 over
//! `<id>.<timestamp>.<bytes of the message>`. It says that somebody who has the
//! secret wants exactly this event to be decided once more, whatever was decided
//! about its key; [`verify_replay`] asks no clock and no network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fermata_core::digest::hash_parts_128;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;
use uuid::Uuid;

/// Names the request; the same id is the same replay.
pub const ID_HEADER: &str = "webhook-id";
/// When it was signed, seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Signatures, separated by spaces; one has to fit.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// Digest of the whole body of the request by HTTP that a message came with: what
/// tells whether an id comes with the same body again.
pub const BODY_HEADER: &str = "fermata-replay-body";

/// How far the time of a signature may be from when its message was stored,
/// either way, in seconds: what Standard Webhooks advises.
pub const TOLERANCE_SECONDS: u64 = 300;
/// Longest `webhook-id`, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Most signatures that are looked at.
pub const SIGNATURES_MAX: usize = 8;
/// Most secrets at a time: the one that signs, and those that are being replaced.
pub const SECRETS_MAX: usize = 8;
/// Shortest secret in bytes, as Standard Webhooks asks.
pub const SECRET_BYTES_MIN: usize = 24;
/// Longest secret in bytes, likewise.
pub const SECRET_BYTES_MAX: usize = 64;

/// What secrets begin with, as text.
const SECRET_PREFIX: &str = "whsec_";
/// What the signatures that are read here begin with.
const VERSION: &str = "v1,";

/// Secrets that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "secret {place} of replays cannot be used; write `whsec_` and base64 of {SECRET_BYTES_MIN} to \
     {SECRET_BYTES_MAX} bytes, at most {SECRETS_MAX} secrets separated by spaces"
)]
pub struct ReplayKeysError {
    /// Which one, from 1.
    place: usize,
}

/// Secrets that requests are signed with; none refuses every request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReplayKeys(Vec<Vec<u8>>);

impl std::fmt::Debug for ReplayKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ReplayKeys({} secrets)", self.0.len())
    }
}

impl ReplayKeys {
    /// Reads secrets separated by white space. The first signs, all verify, so
    /// that a secret can be replaced without a moment in which none fits.
    ///
    /// # Errors
    ///
    /// [`ReplayKeysError`], which never shows a secret.
    pub fn parse(text: &str) -> Result<Self, ReplayKeysError> {
        let mut keys = Vec::new();
        for (secret, place) in text.split_ascii_whitespace().zip(1..) {
            let key = secret
                .strip_prefix(SECRET_PREFIX)
                .and_then(|digits| STANDARD.decode(digits).ok())
                .filter(|key| (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&key.len()))
                .filter(|_| place <= SECRETS_MAX)
                .ok_or(ReplayKeysError { place })?;
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A digest by `key`: it tells whether others have the same secrets, in whatever order, and without the
    /// key nothing else of them.
    #[must_use]
    pub fn digest(&self, key: &[u8; 32]) -> u128 {
        let mut secrets = self.0.iter().map(Vec::as_slice).collect::<Vec<_>>();
        secrets.sort_unstable();
        let parts = std::iter::once(key.as_slice()).chain(secrets);
        hash_parts_128(&parts.collect::<Vec<_>>())
    }

    /// The value of `webhook-signature` by the first secret; nothing without one.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let timestamp = timestamp.to_string();
        let mac = mac(self.0.first()?, id, &timestamp, body)?;
        Some(format!("{VERSION}{}", STANDARD.encode(mac.finalize().into_bytes())))
    }

    /// Whether one of `signatures`, of which the first [`SIGNATURES_MAX`] count, is by
    /// one of the secrets. Says nothing of when it was made.
    #[must_use]
    pub fn verifies(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        signatures
            .split_ascii_whitespace()
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix(VERSION)?).ok())
            .take(SIGNATURES_MAX)
            .any(|signature| {
                self.0.iter().any(|key| {
                    mac(key, id, timestamp, body)
                        .is_some_and(|mac| mac.verify_slice(&signature).is_ok())
                })
            })
    }
}

/// The headers of a request, each as it was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayHeaders<'a> {
    /// `webhook-id`.
    pub id: Option<&'a str>,
    /// `webhook-timestamp`.
    pub timestamp: Option<&'a str>,
    /// `webhook-signature`.
    pub signature: Option<&'a str>,
}

impl<'a> ReplayHeaders<'a> {
    /// Picks them from all headers; names in any case, of a name that is there
    /// more than once the last.
    #[must_use]
    pub fn new(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(ID_HEADER) {
                found.id = Some(value);
            } else if name.eq_ignore_ascii_case(TIMESTAMP_HEADER) {
                found.timestamp = Some(value);
            } else if name.eq_ignore_ascii_case(SIGNATURE_HEADER) {
                found.signature = Some(value);
            }
        }
        found
    }
}

/// Why a request is refused; the codes are stable and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayRefusal {
    /// No secret is configured here.
    #[error("replays are refused: no secret is configured where events are listened to")]
    NotConfigured,
    /// A header is missing or is not of its form.
    #[error(
        "the request is not signed: `webhook-id` (letters, digits, `-` and `_`), \
         `webhook-timestamp` (seconds since 1970) and `webhook-signature` belong to it"
    )]
    Unsigned,
    /// It was signed too long before or after it was stored.
    #[error("the request was signed more than {TOLERANCE_SECONDS} s before or after it was stored")]
    Expired,
    /// No signature fits any secret.
    #[error("no signature of the request fits a secret that is configured here")]
    Forged,
}

impl ReplayRefusal {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotConfigured => "replay_not_configured",
            Self::Unsigned => "replay_unsigned",
            Self::Expired => "replay_expired",
            Self::Forged => "replay_forged",
        }
    }
}

/// Verifies a request and gives the replay's id, which follows from `webhook-id`.
///
/// `stored_ms` is when the message was stored, in milliseconds since 1970, by
/// whoever stored it: the broker for a message, the own clock for a call that is
/// answered at once. A message that is delivered again is as old as it was.
///
/// The signature is compared in constant time, and before the time is looked at:
/// who cannot sign learns nothing from when a request is refused.
///
/// # Errors
///
/// [`ReplayRefusal`].
pub fn verify_replay(
    keys: &ReplayKeys,
    headers: ReplayHeaders<'_>,
    body: &[u8],
    stored_ms: u64,
) -> Result<Uuid, ReplayRefusal> {
    if keys.is_empty() {
        return Err(ReplayRefusal::NotConfigured);
    }
    let (Some(id), Some(timestamp), Some(signatures)) =
        (headers.id, headers.timestamp, headers.signature)
    else {
        return Err(ReplayRefusal::Unsigned);
    };
    // A full stop in the id would make `id.timestamp.body` ambiguous.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(allowed) || !digits {
        return Err(ReplayRefusal::Unsigned);
    }
    let signed_seconds = timestamp.parse::<u64>().map_err(|_| ReplayRefusal::Unsigned)?;
    if !keys.verifies(id, timestamp, body, signatures) {
        return Err(ReplayRefusal::Forged);
    }
    if (stored_ms / 1_000).abs_diff(signed_seconds) > TOLERANCE_SECONDS {
        return Err(ReplayRefusal::Expired);
    }
    Ok(replay_id(id))
}

/// The id of the replay that a request names.
#[must_use]
pub fn replay_id(webhook_id: &str) -> Uuid {
    let hash = hash_parts_128(&[b"replay", webhook_id.as_bytes()]);
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

fn mac(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SIGNED: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn verify(
        secrets: &str,
        id: &str,
        signature: &str,
        body: &[u8],
        stored_seconds: u64,
    ) -> Result<Uuid, ReplayRefusal> {
        let keys = ReplayKeys::parse(secrets).unwrap();
        let timestamp = SIGNED.to_string();
        let headers = [
            ("Webhook-Id", id),
            ("WEBHOOK-TIMESTAMP", timestamp.as_str()),
            ("webhook-signature", signature),
        ];
        verify_replay(&keys, ReplayHeaders::new(headers), body, stored_seconds * 1_000)
    }

    #[test]
    fn the_example_of_the_standard_is_signed_and_verified() {
        let keys = ReplayKeys::parse(SECRET).unwrap();

        assert_eq!(keys.sign(ID, SIGNED, BODY).as_deref(), Some(SIGNATURE));
        assert_eq!(verify(SECRET, ID, SIGNATURE, BODY, SIGNED), Ok(replay_id(ID)));
    }

    #[test]
    fn the_same_secrets_have_the_same_digest_in_whatever_order() {
        let other = format!("whsec_{}", STANDARD.encode([7; 24]));
        let digest = |secrets: &[&str], key| {
            ReplayKeys::parse(&secrets.join(" ")).unwrap().digest(&[key; 32])
        };
        let both = digest(&[SECRET, &other], 1);

        assert_eq!(digest(&[&other, SECRET], 1), both);
        assert_ne!(digest(&[SECRET], 1), both);
        assert_ne!(digest(&[SECRET, &other], 2), both);
    }

    #[test]
    fn one_signature_of_several_and_one_secret_of_several_are_enough() {
        let other = format!("whsec_{}", STANDARD.encode([7; 24]));
        let both = format!("{other}\n {SECRET}");
        let signatures = format!("v1a,AAAA v1,AAAA {SIGNATURE}");

        assert!(verify(&both, ID, &signatures, BODY, SIGNED).is_ok());
        assert_eq!(verify(&other, ID, &signatures, BODY, SIGNED), Err(ReplayRefusal::Forged));
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        use ReplayRefusal as Refusal;
        assert_eq!(verify("", ID, SIGNATURE, BODY, SIGNED), Err(Refusal::NotConfigured));
        assert_eq!(verify(SECRET, "msg", SIGNATURE, BODY, SIGNED), Err(Refusal::Forged));
        assert_eq!(verify(SECRET, ID, SIGNATURE, b"{}", SIGNED), Err(Refusal::Forged));
        assert_eq!(verify(SECRET, ID, "", BODY, SIGNED), Err(Refusal::Forged));
        assert_eq!(verify(SECRET, ID, "v2,AAAA", BODY, SIGNED), Err(Refusal::Forged));
        for id in ["", "a.b", "a b", "é", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(verify(SECRET, id, SIGNATURE, BODY, SIGNED), Err(Refusal::Unsigned), "{id}");
        }
        let keys = ReplayKeys::parse(SECRET).unwrap();
        for timestamp in [None, Some(""), Some("-1"), Some("+1614265330"), Some("now")] {
            let headers = ReplayHeaders { id: Some(ID), timestamp, signature: Some(SIGNATURE) };
            let refused = verify_replay(&keys, headers, BODY, SIGNED * 1_000);
            assert_eq!(refused, Err(Refusal::Unsigned), "{timestamp:?}");
        }
    }

    #[test]
    fn a_signature_holds_five_minutes_either_way() {
        for stored in [SIGNED - TOLERANCE_SECONDS, SIGNED, SIGNED + TOLERANCE_SECONDS] {
            assert!(verify(SECRET, ID, SIGNATURE, BODY, stored).is_ok(), "{stored}");
        }
        for stored in [SIGNED - TOLERANCE_SECONDS - 1, SIGNED + TOLERANCE_SECONDS + 1] {
            let refused = verify(SECRET, ID, SIGNATURE, BODY, stored);
            assert_eq!(refused, Err(ReplayRefusal::Expired), "{stored}");
        }
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        for secret in [
            "secret",
            "whsec_",
            "whsec_AAAA",
            "whsec_!",
            &format!("whsec_{}", STANDARD.encode([0; 65])),
        ] {
            assert!(ReplayKeys::parse(secret).is_err(), "{secret}");
        }
        assert!(ReplayKeys::parse(&[SECRET; SECRETS_MAX + 1].join(" ")).is_err());
        let shown = format!("{:?}", ReplayKeys::parse(SECRET).unwrap());
        assert_eq!(shown, "ReplayKeys(1 secrets)");
    }

    #[test]
    fn the_id_of_a_replay_never_changes_as_it_is_stored() {
        assert_eq!(replay_id(ID), replay_id(ID));
        assert_ne!(replay_id(ID), replay_id("msg"));
        assert_eq!(replay_id("a").get_version_num(), 8);
    }
}
