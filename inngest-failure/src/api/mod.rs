//! The Inngest API: its keys, where it is, and the client that calls it.

mod client;
mod config;
pub(crate) mod keys;
mod rest;
#[cfg(feature = "cli")]
pub(crate) mod runs;
pub(crate) mod signature;
mod trace;

use std::{fmt, sync::Arc};

#[cfg(feature = "cli")]
pub(crate) use self::client::fetch;
pub(crate) use self::client::{Answer, ApiError, ReadError, read_bounded};
pub use self::config::ApiBuilder;
pub(crate) use self::config::{Environment, Values};
use self::{
    client::Client,
    keys::{EventKey, SigningKey},
};
use crate::error::BuildError;

/// The Inngest API: keys, mode, and where it is. Cheap to clone.
///
/// Each part is taken from its environment variable unless the [builder](Self::builder) is given it:
///
/// | variable | what it is |
/// |---|---|
/// | `INNGEST_SIGNING_KEY` | verifies what Inngest sends, and authorises what is sent to Inngest |
/// | `INNGEST_SIGNING_KEY_FALLBACK` | a second one, tried when the first does not fit: for the time of a rotation |
/// | `INNGEST_EVENT_KEY` | sends events: `step.send_event`. In dev mode any value serves, and none does too |
/// | `INNGEST_DEV` | `1` or `true`: dev mode, at `http://localhost:8288`; a URL: dev mode there; `0` or `false`: cloud mode, the default |
/// | `INNGEST_ENV` | the environment, such as a branch's |
/// | `INNGEST_BASE_URL` | where the API and the event API are: for a self-hosted server |
/// | `INNGEST_API_BASE_URL`, `INNGEST_EVENT_API_BASE_URL` | the same for one of the two |
///
/// An empty variable counts as none, and space around a value is left out. Neither `Debug` nor an
/// error shows a key.
///
/// # Examples
///
/// ```
/// use inngest_failure::Api;
///
/// let api = Api::builder()
///     .dev(false)
///     .signing_key("signkey-prod-12345678")
///     .api_origin("https://inngest.example.com")
///     .build()?;
/// assert!(!format!("{api:?}").contains("12345678"));
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    mode: Mode,
    signing_key: Option<SigningKey>,
    signing_key_fallback: Option<SigningKey>,
    event_key: Option<EventKey>,
    env: Option<String>,
    /// Without a slash at the end, like the other one.
    api_origin: String,
    event_api_origin: String,
    client: Client,
}

/// How this crate names itself to Inngest.
pub(crate) const SDK: &str = concat!("inngest-failure:v", env!("CARGO_PKG_VERSION"));

/// Whether what comes is believed unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Cloud,
    Dev,
}

impl Api {
    /// The API as the environment describes it.
    ///
    /// # Errors
    ///
    /// [`BuildError`] with every variable whose value is wrong.
    pub fn from_env() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Sets the API up, with the environment for whatever is not given.
    pub fn builder() -> ApiBuilder {
        ApiBuilder::default()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// The key and the fallback, whichever there are.
    pub(crate) fn signing_keys(&self) -> impl Iterator<Item = &SigningKey> {
        [&self.inner.signing_key, &self.inner.signing_key_fallback].into_iter().flatten()
    }

    /// The text with every secret in it made unreadable.
    pub(crate) fn redact(&self, text: &str) -> String {
        let keys = self.signing_keys().flat_map(SigningKey::secrets);
        let secrets = keys.chain(self.inner.event_key.as_ref().map(EventKey::secret));
        secrets.fold(text.to_owned(), |text, secret| match secret {
            "" => text,
            secret => text.replace(secret, "[redacted]"),
        })
    }

    pub(crate) fn signing_key(&self) -> Option<&SigningKey> {
        self.inner.signing_key.as_ref()
    }

    pub(crate) fn signing_key_fallback(&self) -> Option<&SigningKey> {
        self.inner.signing_key_fallback.as_ref()
    }

    pub(crate) fn event_key(&self) -> Option<&EventKey> {
        self.inner.event_key.as_ref()
    }

    pub(crate) fn env(&self) -> Option<&str> {
        self.inner.env.as_deref()
    }

    pub(crate) fn api_origin(&self) -> &str {
        &self.inner.api_origin
    }

    pub(crate) fn event_api_origin(&self) -> &str {
        &self.inner.event_api_origin
    }
}

/// Shows where the API is and which keys there are, but none of them.
impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("mode", &self.inner.mode)
            .field("signing_key", &self.inner.signing_key)
            .field("signing_key_fallback", &self.inner.signing_key_fallback)
            .field("event_key", &self.inner.event_key)
            .field("env", &self.inner.env)
            .field("api_origin", &self.inner.api_origin)
            .field("event_api_origin", &self.inner.event_api_origin)
            .finish_non_exhaustive()
    }
}
