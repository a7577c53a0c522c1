//! `POST` to a plugin of the allow-list.
//!
//! A request goes to one address and nowhere else: no redirect is followed, no
//! proxy of the environment is used, and nothing is sent again by itself. What a
//! name resolves to is checked when a connection is made. It carries no
//! credentials; where the configuration names secrets it is signed. The `idempotency-key` header holds the effect key as it
//! is, not as the quoted string of draft-ietf-httpapi-idempotency-key-header.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use crate::address::AddressRefused;
use crate::config::{ConfigError, HttpConfig, PluginTarget, Problems};
use crate::effect::{EffectOutcome, EffectRequest, FailureClass, HttpCall};
use crate::fair_turns::FairTurns;
use crate::resolver::{CheckedResolver, Lookup, brokers_of};
use crate::signing::CallSigner;
use crate::target::Target;
use crate::traceparent;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const FERMATA_ATTEMPT: HeaderName = HeaderName::from_static("fermata-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Token by which the effect is completed later.
const CALLBACK_TOKEN: HeaderName = HeaderName::from_static("fermata-callback-token");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const USER_AGENT: &str = concat!("fermata/", env!("CARGO_PKG_VERSION"));

/// Longest effect key in bytes; a longer one is refused (`not_allowed`). Keys are
/// some 100 bytes; common servers refuse a header of more than 8 KiB.
const KEY_BYTES_MAX: usize = 1024;

/// Longest `detail` of a failure in bytes, the rest is cut: it is journaled.
const DETAIL_BYTES_MAX: usize = 512;

/// Why an attempt failed, before it is told as an outcome.
#[derive(Debug)]
struct Failure {
    class: FailureClass,
    detail: String,
}

/// Calls plugins.
#[derive(Debug)]
pub(crate) struct HttpExecutor {
    plugins: BTreeMap<String, Plugin>,
    request_bytes_max: usize,
    response_bytes_max: usize,
}

#[derive(Debug)]
struct Plugin {
    target: Target,
    /// Each plugin has its own, as each has its own rules about addresses.
    client: Client,
    signer: Option<CallSigner>,
    /// Why no call can be made at all, if the address is our own broker's.
    refused: Option<AddressRefused>,
    /// One turn per connection that may be in use.
    connections: FairTurns,
}

impl HttpExecutor {
    /// Checks the configuration and sets up a client per plugin; `brokers` are the
    /// addresses of our own broker, which no call may reach.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] with all that is wrong.
    pub(crate) fn new(
        config: &HttpConfig,
        brokers: &[String],
        lookup: &Lookup,
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        problems.take(config.check_limits());
        let brokers = brokers.iter().flat_map(|urls| brokers_of(urls)).collect::<Vec<_>>();
        let mut plugins = BTreeMap::new();
        for (name, settings) in &config.plugins {
            let plugin = Plugin::new(name, settings, config, &brokers, lookup);
            plugins.extend(problems.take(plugin).map(|plugin| (name.clone(), plugin)));
        }
        problems.refuse()?;
        Ok(Self {
            plugins,
            request_bytes_max: config.request_bytes_max,
            response_bytes_max: config.response_bytes_max,
        })
    }

    /// Makes one attempt, within the request's time limit.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection. What the plugin received by
    /// then, it may act on.
    pub(crate) async fn execute(&self, request: &EffectRequest, call: &HttpCall) -> EffectOutcome {
        let attempt = self.attempt(request, call);
        let result = tokio::time::timeout(request.timeout, attempt).await.unwrap_or_else(|_| {
            Err(Failure {
                class: FailureClass::Timeout,
                detail: format!(
                    "plugin `{}` did not answer within {:?}",
                    call.plugin, request.timeout
                ),
            })
        });
        match result {
            Ok(output) => EffectOutcome::Succeeded { output },
            Err(failure) => EffectOutcome::Failed {
                class: failure.class,
                detail: cut(failure.detail, DETAIL_BYTES_MAX),
            },
        }
    }

    async fn attempt(&self, request: &EffectRequest, call: &HttpCall) -> Result<Value, Failure> {
        let (plugin, address) = self.destination(call)?;
        let mut headers = headers(request)?;
        let body = self.body(call)?;
        if let Some(refused) = &plugin.refused {
            return Err(not_allowed(format!("plugin `{}`: {refused}", call.plugin)));
        }
        let _connection = plugin.connections.turn(&request.tenant).await;
        // Signed when it is sent: receivers refuse what was signed minutes ago.
        plugin.sign(&request.key, &body, &mut headers)?;
        let response = plugin
            .client
            .post(address)
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(|error| broken(&call.plugin, error))?;
        check_status(&call.plugin, response.status())?;
        if request.callback.is_some() {
            return Ok(Value::Null);
        }
        self.output(&call.plugin, response).await
    }

    fn destination(&self, call: &HttpCall) -> Result<(&Plugin, Url), Failure> {
        let plugin = self.plugins.get(&call.plugin).ok_or_else(|| {
            not_allowed(format!(
                "plugin `{0}` is not on the allow-list; start the engine with `--plugin {0}=URL`",
                call.plugin
            ))
        })?;
        let address = plugin.target.address(&call.path).map_err(|refused| {
            not_allowed(format!("path `{}` {refused}", call.path.escape_default()))
        })?;
        Ok((plugin, address))
    }

    fn body(&self, call: &HttpCall) -> Result<Bytes, Failure> {
        let body = serde_json::to_vec(&call.body)
            .map_err(|error| not_allowed(format!("request body is not JSON: {error}")))?;
        if body.len() > self.request_bytes_max {
            return Err(not_allowed(format!(
                "request body of {} bytes is larger than `http.request_bytes_max` ({})",
                body.len(),
                self.request_bytes_max
            )));
        }
        Ok(Bytes::from(body))
    }

    async fn output(&self, plugin: &str, mut response: Response) -> Result<Value, Failure> {
        let announced = response.content_length();
        if announced == Some(0) {
            // Said to be empty, as opposed to cut off: the plugin has no answer.
            return Ok(Value::Null);
        }
        let bytes_max = self.response_bytes_max;
        let too_large = || Failure {
            class: FailureClass::ResponseTooLarge,
            detail: format!(
                "response of plugin `{plugin}` is larger than `http.response_bytes_max` ({bytes_max})"
            ),
        };
        if announced.is_some_and(|bytes| usize::try_from(bytes).is_ok_and(|b| b > bytes_max)) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(plugin, error))? {
            if chunk.len() > bytes_max.saturating_sub(body.len()) {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| Failure {
            class: FailureClass::ResponseNotJson,
            detail: format!(
                "response of plugin `{plugin}` is not JSON, at line {}, column {}",
                error.line(),
                error.column()
            ),
        })
    }
}

impl Plugin {
    fn new(
        name: &str,
        settings: &PluginTarget,
        config: &HttpConfig,
        brokers: &[(String, u16)],
        lookup: &Lookup,
    ) -> Result<Self, ConfigError> {
        let target = Target::new(name, settings)?;
        let signer = settings.signing.as_ref().map(CallSigner::new).transpose();
        let signer = signer.map_err(|problem| ConfigError::Plugin {
            plugin: name.to_owned(),
            field: "signing",
            problem,
        })?;
        let rules = target.rules().clone();
        // An address needs no resolver, so it is held against the broker's here.
        let literal_brokers = brokers
            .iter()
            .filter_map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port)))
            .collect::<Vec<_>>();
        let refused =
            target.literal().and_then(|address| rules.check(address, &literal_brokers).err());
        let resolver = CheckedResolver { rules, brokers: brokers.to_vec(), lookup: lookup.clone() };
        let client = client(config, target.is_https(), resolver)?;
        let connections = FairTurns::new(config.connections_per_plugin_max);
        Ok(Self { target, client, signer, refused, connections })
    }

    fn sign(&self, key: &str, body: &[u8], headers: &mut HeaderMap) -> Result<(), Failure> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let (timestamp, signature) = signer.sign_now(key, body);
        let values = [
            (WEBHOOK_ID, key_header(key)?),
            (WEBHOOK_TIMESTAMP, secret_header(&timestamp)?),
            (WEBHOOK_SIGNATURE, secret_header(&signature)?),
        ];
        headers.extend(values);
        Ok(())
    }
}

fn secret_header(value: &str) -> Result<HeaderValue, Failure> {
    let mut header = HeaderValue::from_str(value)
        .map_err(|_| not_allowed("a signature or token is no header"))?;
    // Kept out of what the HTTP library may write down.
    header.set_sensitive(true);
    Ok(header)
}

/// Sets up a client that goes where it is told and nowhere else.
fn client(
    config: &HttpConfig,
    is_encrypted: bool,
    resolver: CheckedResolver,
) -> Result<Client, ConfigError> {
    // The first provider stays for the life of the process; whoever came first
    // chose, and an error here says only that.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(resolver))
        .http1_only()
        .tcp_nodelay(true)
        .user_agent(USER_AGENT)
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .pool_max_idle_per_host(config.idle_connections_per_host_max)
        .pool_idle_timeout(Duration::from_millis(config.idle_timeout_ms));
    if !is_encrypted {
        // Without an encrypted target no authority is trusted, so that a machine
        // without CA certificates can run.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| ConfigError::Client(Box::new(error)))
}

fn headers(request: &EffectRequest) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::with_capacity(9);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, JSON);
    headers.insert(IDEMPOTENCY_KEY, key_header(&request.key)?);
    headers.insert(FERMATA_ATTEMPT, HeaderValue::from(request.attempt));
    if let Some(token) = &request.callback {
        headers.insert(CALLBACK_TOKEN, secret_header(token)?);
    }
    if let Some(text) = &request.traceparent
        && traceparent::is_well_formed(text)
        && let Ok(value) = HeaderValue::from_str(text)
    {
        headers.insert(TRACEPARENT, value);
    }
    Ok(headers)
}

fn key_header(key: &str) -> Result<HeaderValue, Failure> {
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    match HeaderValue::from_str(key) {
        Ok(value) if is_plain && key.len() <= KEY_BYTES_MAX => Ok(value),
        Ok(_) | Err(_) => Err(not_allowed(format!(
            "effect key `{}` is not 1 to {KEY_BYTES_MAX} bytes of visible ASCII",
            key.escape_default()
        ))),
    }
}

fn check_status(plugin: &str, status: StatusCode) -> Result<(), Failure> {
    let class = match status.as_u16() {
        200..=299 => return Ok(()),
        300..=399 => FailureClass::Http3xx,
        400..=499 => FailureClass::Http4xx,
        _ => FailureClass::Http5xx,
    };
    let note = if class == FailureClass::Http3xx { "; redirects are not followed" } else { "" };
    Err(Failure { class, detail: format!("plugin `{plugin}` answered {status}{note}") })
}

/// Tells a failed request or a response that broke off.
fn broken(plugin: &str, error: reqwest::Error) -> Failure {
    if let Some(refused) = refused_address(&error) {
        return not_allowed(format!("plugin `{plugin}`: {refused}"));
    }
    let (class, what) = if error.is_connect() {
        (FailureClass::Connect, "can't be reached")
    } else if error.is_timeout() {
        (FailureClass::Timeout, "did not answer in time")
    } else if error.is_builder() {
        (FailureClass::NotAllowed, "can't be asked this")
    } else {
        (FailureClass::Connect, "broke the connection before its response was complete")
    };
    Failure { class, detail: format!("plugin `{plugin}` {what}: {}", causes(&error)) }
}

/// The address that was refused, if that is why nothing was sent.
fn refused_address<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e AddressRefused> {
    let mut layer = Some(error);
    while let Some(error) = layer {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        layer = error.source();
    }
    None
}

/// The innermost cause says what happened; the layers above it only where.
fn causes(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn not_allowed(detail: impl Into<String>) -> Failure {
    Failure { class: FailureClass::NotAllowed, detail: detail.into() }
}

/// Shortens `text` to `bytes_max` bytes at most, between characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DETAIL_BYTES_MAX, cut, key_header};

    #[test]
    fn a_key_that_is_no_header_is_refused() {
        let long = "k".repeat(1025);

        for key in ["", "run\r\nx: y", "run/ä", "run node", "run\0", &long] {
            assert!(key_header(key).is_err(), "`{key}`");
        }
        assert!(key_header("0198/fetch/1[3]/undo").is_ok());
    }

    proptest! {
        #[test]
        fn a_cut_text_is_the_longest_beginning_that_fits(text in "[aäœ🦀]{0,300}") {
            let shortened = cut(text.clone(), DETAIL_BYTES_MAX);

            prop_assert!(text.starts_with(&shortened) && shortened.len() <= DETAIL_BYTES_MAX);
            let next = text[shortened.len()..].chars().next().map_or(usize::MAX, char::len_utf8);
            prop_assert!(shortened.len().saturating_add(next) > DETAIL_BYTES_MAX);
        }
    }
}
