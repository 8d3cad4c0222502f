//! Setting the API up: what is given, and the environment for the rest.

use std::{ffi::OsString, fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use tower_service::Service;

use super::{
    Api, Inner, Mode,
    client::Client,
    keys::{EventKey, SigningKey},
};
use crate::error::{BoxError, BuildError, Problem};

const DEV_SERVER: &str = "http://localhost:8288";
const CLOUD_API: &str = "https://api.inngest.com";
const CLOUD_EVENT_API: &str = "https://inn.gs";

/// Sets an [`Api`] up.
///
/// What it is not given comes from the environment: see [`Api`].
///
/// # Examples
///
/// ```
/// use inngest_failure::Api;
///
/// let api = Api::builder().dev_server("http://localhost:8288").build()?;
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ApiBuilder {
    /// Takes the place of the environment.
    base: Option<Api>,
    signing_key: Option<String>,
    signing_key_fallback: Option<String>,
    event_key: Option<String>,
    dev: Option<bool>,
    dev_server: Option<String>,
    env: Option<String>,
    api_origin: Option<String>,
    event_api_origin: Option<String>,
    client: Option<Client>,
}

impl ApiBuilder {
    /// The signing key, `signkey-<env>-<hex>`; by default `INNGEST_SIGNING_KEY`.
    pub fn signing_key(mut self, key: impl Into<String>) -> Self {
        self.signing_key = Some(key.into());
        self
    }

    /// The signing key that is tried next; by default `INNGEST_SIGNING_KEY_FALLBACK`.
    pub fn signing_key_fallback(mut self, key: impl Into<String>) -> Self {
        self.signing_key_fallback = Some(key.into());
        self
    }

    /// The key that events are sent with; by default `INNGEST_EVENT_KEY`.
    pub fn event_key(mut self, key: impl Into<String>) -> Self {
        self.event_key = Some(key.into());
        self
    }

    /// Dev mode, in which what comes is believed unsigned, or cloud mode; by default as `INNGEST_DEV` says,
    /// which is cloud mode if it is not set. Each mode has its own origins by default.
    pub fn dev(mut self, dev: bool) -> Self {
        self.dev = Some(dev);
        self
    }

    /// Dev mode with the dev server at this URL; by default the one in `INNGEST_DEV`.
    pub fn dev_server(mut self, url: impl Into<String>) -> Self {
        self.dev = Some(true);
        self.dev_server = Some(url.into());
        self
    }

    /// The name of the environment, such as a branch's; by default `INNGEST_ENV`.
    pub fn env(mut self, name: impl Into<String>) -> Self {
        self.env = Some(name.into());
        self
    }

    /// Where the API is; by default `INNGEST_API_BASE_URL`, then `INNGEST_BASE_URL`, then the dev server
    /// or Inngest's cloud.
    pub fn api_origin(mut self, url: impl Into<String>) -> Self {
        self.api_origin = Some(url.into());
        self
    }

    /// Where events are sent to; by default `INNGEST_EVENT_API_BASE_URL`, then `INNGEST_BASE_URL`, then
    /// the dev server or Inngest's cloud.
    pub fn event_api_origin(mut self, url: impl Into<String>) -> Self {
        self.event_api_origin = Some(url.into());
        self
    }

    /// The HTTP client that calls the API, with a proxy, certificates or middleware of one's own; by
    /// default one of this crate's, over HTTP/1.1 and TLS with Mozilla's root certificates.
    ///
    /// A call that takes longer than 30 seconds is given up.
    pub fn client<S, B>(mut self, client: S) -> Self
    where
        S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.client = Some(Client::new(client));
        self
    }

    /// Whatever is not given is that of `api`, not the environment's.
    pub(crate) fn based_on(mut self, api: Api) -> Self {
        self.base = Some(api);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// [`BuildError`] with every value that is wrong, each with the variable or the method that it came from.
    pub fn build(self) -> Result<Api, BuildError> {
        let mut problems = Vec::new();
        let api = self.resolve(&|name| std::env::var_os(name), &mut problems);
        match problems.is_empty() {
            true => Ok(api),
            false => Err(BuildError::new(problems)),
        }
    }

    /// The API as far as it can be made out; it counts only if no problem was added.
    pub(crate) fn resolve(self, env: &Environment<'_>, problems: &mut Vec<Problem>) -> Api {
        let base = self.base.as_ref().map(|base| &*base.inner);
        let mut values = Values { env: base.is_none().then_some(env), problems };

        let from_env = values.dev();
        let dev_server = values.url(self.dev_server, ".dev_server(..)", &[]);
        let mode = match (self.dev, base, &from_env) {
            (Some(true), ..) | (None, None, Some(Dev::Mode(true) | Dev::Server(_))) => Mode::Dev,
            (None, Some(base), _) => base.mode,
            _ => Mode::Cloud,
        };
        let dev_server = match (dev_server, from_env) {
            (Some(url), _) if mode == Mode::Dev => Some(url),
            (Some(_), _) => None,
            (None, Some(Dev::Server(url))) if mode == Mode::Dev => Some(url),
            (None, _) => None,
        };
        // Another mode than the base's has other origins.
        let origins = base.filter(|base| base.mode == mode);
        let default_origin = |cloud: &str, base: Option<&String>| match (&dev_server, base, mode) {
            (Some(url), ..) => url.clone(),
            (None, Some(base), _) => base.clone(),
            (None, None, Mode::Dev) => DEV_SERVER.to_owned(),
            (None, None, Mode::Cloud) => cloud.to_owned(),
        };

        let signing_key = values.take(self.signing_key, ".signing_key(..)", "INNGEST_SIGNING_KEY");
        let fallback = values.take(
            self.signing_key_fallback,
            ".signing_key_fallback(..)",
            "INNGEST_SIGNING_KEY_FALLBACK",
        );
        let event_key = values.take(self.event_key, ".event_key(..)", "INNGEST_EVENT_KEY");
        let name = values.take(self.env, ".env(..)", "INNGEST_ENV");
        let api_origin = values.url(
            self.api_origin,
            ".api_origin(..)",
            &["INNGEST_API_BASE_URL", "INNGEST_BASE_URL"],
        );
        let event_api_origin = values.url(
            self.event_api_origin,
            ".event_api_origin(..)",
            &["INNGEST_EVENT_API_BASE_URL", "INNGEST_BASE_URL"],
        );
        const KEY: &str =
            "it is `signkey-<env>-` and hexadecimal digits, or those alone: copy it whole";
        let inner = Inner {
            mode,
            signing_key: values
                .parse(signing_key, SigningKey::parse, KEY)
                .or_else(|| base.and_then(|base| base.signing_key.clone())),
            signing_key_fallback: values
                .parse(fallback, SigningKey::parse, KEY)
                .or_else(|| base.and_then(|base| base.signing_key_fallback.clone())),
            event_key: values
                .parse(event_key, EventKey::parse, "it is letters and digits: copy it whole")
                .or_else(|| base.and_then(|base| base.event_key.clone())),
            env: values
                .parse(name, env_name, "give it the name that the dashboard shows")
                .or_else(|| base.and_then(|base| base.env.clone())),
            api_origin: api_origin
                .unwrap_or_else(|| default_origin(CLOUD_API, origins.map(|base| &base.api_origin))),
            event_api_origin: event_api_origin.unwrap_or_else(|| {
                default_origin(CLOUD_EVENT_API, origins.map(|base| &base.event_api_origin))
            }),
            client: self
                .client
                .or_else(|| base.map(|base| base.client.clone()))
                .unwrap_or_default(),
        };
        Api { inner: Arc::new(inner) }
    }
}

/// What goes into a header.
fn env_name(name: &str) -> Result<String, String> {
    match HeaderValue::from_str(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err("is no name of an environment".to_owned()),
    }
}

/// What `INNGEST_DEV` says.
enum Dev {
    Mode(bool),
    Server(String),
}

/// A value and where it came from.
pub(crate) struct Given {
    pub(crate) value: String,
    pub(crate) from: &'static str,
}

/// Gives a variable's value.
pub(crate) type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Values by where they come from, and what is wrong with them.
pub(crate) struct Values<'a> {
    /// None if something else takes its place.
    pub(crate) env: Option<&'a Environment<'a>>,
    pub(crate) problems: &'a mut Vec<Problem>,
}

impl Values<'_> {
    /// What is given, or else the variable's value, unless that is empty.
    pub(crate) fn take(
        &mut self,
        given: Option<String>,
        method: &'static str,
        variable: &'static str,
    ) -> Option<Given> {
        match given {
            Some(value) => Some(Given { value: value.trim().to_owned(), from: method }),
            None => self.variable(variable),
        }
    }

    fn variable(&mut self, name: &'static str) -> Option<Given> {
        let value = self.env?(name)?;
        let Some(value) = value.to_str() else {
            self.problem(format!("`{name}` is not UTF-8"), "write it anew".to_owned());
            return None;
        };
        let value = value.trim();
        (!value.is_empty()).then(|| Given { value: value.to_owned(), from: name })
    }

    pub(crate) fn parse<T>(
        &mut self,
        given: Option<Given>,
        parse: impl FnOnce(&str) -> Result<T, String>,
        remedy: &str,
    ) -> Option<T> {
        let Given { value, from } = given?;
        match parse(&value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.problem(format!("`{from}` {fault}"), remedy.to_owned());
                None
            }
        }
    }

    /// A URL, without the slash at its end, from the first of these places that has one.
    pub(crate) fn url(
        &mut self,
        given: Option<String>,
        method: &'static str,
        variables: &[&'static str],
    ) -> Option<String> {
        let given = match given {
            Some(value) => Some(Given { value: value.trim().to_owned(), from: method }),
            None => variables.iter().find_map(|name| self.variable(name)),
        };
        self.parse(given, url, "write it as `https://example.com`")
    }

    /// `1`, `true`, `0`, `false`.
    pub(crate) fn flag(&mut self, variable: &'static str) -> Option<bool> {
        let given = self.variable(variable);
        let parse = |text: &str| flag(text).ok_or_else(|| "is neither on nor off".to_owned());
        self.parse(given, parse, "write `1` or `0`")
    }

    fn dev(&mut self) -> Option<Dev> {
        let given = self.variable("INNGEST_DEV");
        let parse = |text: &str| match flag(text) {
            Some(dev) => Ok(Dev::Mode(dev)),
            None => url(text).map(Dev::Server),
        };
        self.parse(
            given,
            parse,
            "write `1` for dev mode, `0` for cloud mode, or the dev server's URL, such as \
             `http://localhost:8288`",
        )
    }

    pub(crate) fn problem(&mut self, fault: String, remedy: String) {
        self.problems.push(Problem { location: None, handler: None, fault, remedy });
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// What is wrong with it is said without repeating it: a URL may hold a password.
fn url(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|_| "is no URL".to_owned())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("is no URL with a scheme and a host".to_owned());
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("is a `{scheme}` URL, not one of HTTP"));
    }
    if authority.as_str().contains('@') {
        return Err("is a URL with a user's name in it".to_owned());
    }
    // The parser drops what follows a `#`.
    if uri.query().is_some() || text.contains('#') {
        return Err("is a URL with a query or a fragment".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Shows what was given, but no value, for any of them may be a key in the wrong place.
impl fmt::Debug for ApiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = [
            ("signing_key", self.signing_key.is_some()),
            ("signing_key_fallback", self.signing_key_fallback.is_some()),
            ("event_key", self.event_key.is_some()),
            ("dev", self.dev.is_some()),
            ("dev_server", self.dev_server.is_some()),
            ("env", self.env.is_some()),
            ("api_origin", self.api_origin.is_some()),
            ("event_api_origin", self.event_api_origin.is_some()),
            ("client", self.client.is_some()),
        ];
        let given = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name));
        f.debug_struct("ApiBuilder")
            .field("base", &self.base)
            .field("given", &given.collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        builder: ApiBuilder,
        variables: &'static [(&'static str, &'static str)],
    ) -> Result<Api, String> {
        let mut problems = Vec::new();
        let env = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let api = builder.resolve(&env, &mut problems);
        match problems.is_empty() {
            true => Ok(api),
            false => Err(BuildError::new(problems).to_string()),
        }
    }

    #[track_caller]
    fn origins(
        variables: &'static [(&'static str, &'static str)],
        mode: Mode,
        api: &str,
        event_api: &str,
    ) {
        let found = resolve(Api::builder(), variables).unwrap();
        assert_eq!(found.inner.mode, mode);
        assert_eq!(found.inner.api_origin, api);
        assert_eq!(found.inner.event_api_origin, event_api);
    }

    #[test]
    fn origins_follow_the_mode_and_the_most_specific_variable() {
        origins(&[], Mode::Cloud, CLOUD_API, CLOUD_EVENT_API);
        origins(&[("INNGEST_DEV", "")], Mode::Cloud, CLOUD_API, CLOUD_EVENT_API);
        origins(&[("INNGEST_DEV", "0")], Mode::Cloud, CLOUD_API, CLOUD_EVENT_API);
        origins(&[("INNGEST_DEV", " True ")], Mode::Dev, DEV_SERVER, DEV_SERVER);
        origins(&[("INNGEST_DEV", "http://dev:1/")], Mode::Dev, "http://dev:1", "http://dev:1");
        origins(
            &[("INNGEST_BASE_URL", "http://b"), ("INNGEST_EVENT_API_BASE_URL", "http://e/x")],
            Mode::Cloud,
            "http://b",
            "http://e/x",
        );
    }

    #[test]
    fn what_is_given_comes_before_the_environment() {
        const ENV: &[(&str, &str)] = &[
            ("INNGEST_DEV", "http://dev"),
            ("INNGEST_ENV", "staging"),
            ("INNGEST_SIGNING_KEY", "not a key"),
        ];
        let api =
            resolve(Api::builder().dev(false).env("branch").signing_key("signkey-prod-00"), ENV)
                .unwrap();
        assert_eq!(api.inner.mode, Mode::Cloud);
        assert_eq!(api.inner.api_origin, CLOUD_API);
        assert_eq!(api.inner.env.as_deref(), Some("branch"));
        let api = resolve(Api::builder().dev_server("http://mine").signing_key("00"), ENV).unwrap();
        assert_eq!(api.inner.api_origin, "http://mine");
    }

    #[test]
    fn another_mode_than_the_base_s_has_other_origins() {
        let cloud =
            || resolve(Api::builder().signing_key("00").api_origin("http://a"), &[]).unwrap();
        let dev = || resolve(Api::builder().dev_server("http://dev"), &[]).unwrap();
        let on = |builder: ApiBuilder, base: Api| resolve(builder.based_on(base), &[]).unwrap();
        assert_eq!(on(Api::builder(), cloud()).inner.api_origin, "http://a");
        assert_eq!(on(Api::builder().dev(true), cloud()).inner.api_origin, DEV_SERVER);
        assert_eq!(on(Api::builder().dev(false), dev()).inner.api_origin, CLOUD_API);
        assert_eq!(on(Api::builder().dev(true), dev()).inner.api_origin, "http://dev");
        let changed = resolve(Api::builder().dev_server("http://dev").dev(false), &[]).unwrap();
        assert_eq!(
            (changed.inner.mode, changed.inner.api_origin.as_str()),
            (Mode::Cloud, CLOUD_API)
        );
    }

    #[test]
    fn a_value_with_a_password_in_it_is_not_repeated() {
        for variable in ["INNGEST_DEV", "INNGEST_BASE_URL"] {
            for value in [
                "http://user:hunter6@localhost:8288",
                "hunter6",
                "http://host/?hunter6",
                "http://h/#hunter6",
            ] {
                let env = |name: &str| (name == variable).then(|| OsString::from(value));
                let mut problems = Vec::new();
                Api::builder().resolve(&env, &mut problems);
                let error = BuildError::new(problems);
                assert_eq!(error.problems().len(), 1, "{variable}={value}");
                assert!(!error.to_string().contains("hunter6"), "{error}");
            }
        }
    }

    #[test]
    fn each_bad_variable_is_named_with_its_remedy_and_no_secret_is_repeated() {
        let error = resolve(
            Api::builder().event_api_origin("ftp://x"),
            &[
                ("INNGEST_SIGNING_KEY", "hunter2"),
                ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-prod-hunter3"),
                ("INNGEST_EVENT_KEY", "hun/ter4"),
                ("INNGEST_DEV", "yes"),
                ("INNGEST_ENV", "a\nb"),
                ("INNGEST_BASE_URL", "http://user:hunter5@host"),
            ],
        )
        .unwrap_err();
        assert_eq!(
            error,
            "7 problems with the failure handlers:\n  \
             - `.event_api_origin(..)` is a `ftp` URL, not one of HTTP; write it as `https://example.com`\n  \
             - `INNGEST_BASE_URL` is a URL with a user's name in it; write it as `https://example.com`\n  \
             - `INNGEST_DEV` is no URL with a scheme and a host; write `1` for dev mode, `0` for cloud mode, or the dev server's URL, \
             such as `http://localhost:8288`\n  \
             - `INNGEST_ENV` is no name of an environment; give it the name that the dashboard shows\n  \
             - `INNGEST_EVENT_KEY` is no event key; it is letters and digits: copy it whole\n  \
             - `INNGEST_SIGNING_KEY_FALLBACK` is no signing key; it is `signkey-<env>-` and hexadecimal \
             digits, or those alone: copy it whole\n  \
             - `INNGEST_SIGNING_KEY` is no signing key; it is `signkey-<env>-` and hexadecimal digits, or \
             those alone: copy it whole"
        );
    }
}
