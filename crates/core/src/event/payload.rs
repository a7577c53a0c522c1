//! Data that is elsewhere: the claim check of CloudEvents (extension `dataref`).
//!
//! A reference to the engine's own store of payloads names the tenant and the
//! digest of the bytes, so that neither another tenant's nor other bytes can be
//! meant. References of other schemes are the publisher's own affair: they are
//! kept like any extension.

use crate::digest::Digest;
use crate::event::Event;

/// Extension with the reference.
pub const DATAREF_ATTRIBUTE: &str = "dataref";
/// Extension with the digest of the bytes, `sha256:` and hexadecimal.
pub const DATADIGEST_ATTRIBUTE: &str = "datadigest";
/// What references into object stores of the broker begin with.
const SCHEME: &str = "nats-object://";
/// The bucket that payloads are in.
pub const PAYLOADS_BUCKET: &str = "fermata-payloads";
/// What a digest begins with.
const DIGEST_PREFIX: &str = "sha256:";

/// Where the data of an event is; the tenant is the event's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadReference {
    /// SHA-256 of the bytes, which is their name too.
    pub digest: Digest,
}

impl PayloadReference {
    /// The value of `dataref`.
    #[must_use]
    pub fn uri(&self, tenant: &str) -> String {
        format!("{SCHEME}{PAYLOADS_BUCKET}/{tenant}/{}", self.digest)
    }

    /// The value of `datadigest`.
    #[must_use]
    pub fn datadigest(&self) -> String {
        format!("{DIGEST_PREFIX}{}", self.digest)
    }
}

impl Event<'_> {
    /// Where its data is, if that is the engine's own store.
    ///
    /// # Errors
    ///
    /// What is wrong with a reference of our scheme, for people.
    pub fn payload(&self) -> Result<Option<PayloadReference>, String> {
        let text = |wanted: &str| {
            let found = self.extensions.iter().find(|(name, _)| name == wanted)?;
            serde_json::from_str::<String>(found.1.get()).ok()
        };
        if self.extensions.is_empty() {
            return Ok(None);
        }
        let Some(reference) = text(DATAREF_ATTRIBUTE) else { return Ok(None) };
        let Some(place) = reference.strip_prefix(SCHEME) else { return Ok(None) };
        let named = place.strip_prefix(PAYLOADS_BUCKET).and_then(|rest| rest.strip_prefix('/'));
        let Some((tenant, name)) = named.and_then(|rest| rest.split_once('/')) else {
            return Err(format!(
                "`dataref` with `{SCHEME}` is of the form \
                 `{SCHEME}{PAYLOADS_BUCKET}/<tenant>/<sha256 in hexadecimal>`"
            ));
        };
        if tenant != self.tenant {
            return Err("`dataref` names another tenant's payload".to_owned());
        }
        let digest: Digest = name.parse().map_err(|_| {
            "the last part of `dataref` is the SHA-256 of the bytes in hexadecimal".to_owned()
        })?;
        let found = PayloadReference { digest };
        // Compared as text, so that there is one spelling of each.
        if reference != found.uri(tenant) || text(DATADIGEST_ATTRIBUTE) != Some(found.datadigest())
        {
            return Err(format!(
                "`datadigest` has to be there and to name what `dataref` does: `{}`",
                found.datadigest()
            ));
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{EventLimits, Subject, decode_message};

    fn payload(
        dataref: &str,
        datadigest: Option<&str>,
    ) -> Result<Option<PayloadReference>, String> {
        let mut event = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "a", "dataref": dataref,
        });
        if let Some(digest) = datadigest {
            event["datadigest"] = digest.into();
        }
        let text = event.to_string();
        let subject = Subject { tenant: "acme", kind: "a" };
        let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
        decoded.into_iter().next().unwrap().unwrap().payload()
    }

    #[test]
    fn a_reference_names_the_own_tenant_and_the_digest_twice() {
        let reference = PayloadReference { digest: Digest::of(b"bytes") };
        let (uri, digest) = (reference.uri("acme"), reference.datadigest());

        assert_eq!(payload(&uri, Some(&digest)), Ok(Some(reference)));
        let other = PayloadReference { digest: Digest::of(b"other") };
        let upper = uri.replace(&reference.digest.to_string(), &"A".repeat(64));
        for (uri, digest) in [
            (uri.as_str(), None),
            (&uri, Some(other.datadigest().as_str())),
            (&uri, Some(&digest.replace("sha256:", ""))),
            (&reference.uri("other"), Some(&digest)),
            (&uri.replace("fermata-payloads", "fermata-plans"), Some(&digest)),
            (&uri.replace("acme/", ""), Some(&digest)),
            (&format!("{uri}/x"), Some(&digest)),
            (&upper, Some(&format!("sha256:{}", "A".repeat(64)))),
        ] {
            assert!(payload(uri, digest).is_err(), "{uri} {digest:?}");
        }
    }

    #[test]
    fn a_reference_elsewhere_is_an_extension_like_others() {
        for uri in ["https://acme.example/a", "s3://bucket/a", ""] {
            assert_eq!(payload(uri, None), Ok(None), "{uri}");
        }
    }
}
