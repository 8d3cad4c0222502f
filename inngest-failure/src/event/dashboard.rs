//! Where a person looks at a run.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Inngest's dashboard, for links to the runs that failed.
///
/// [`Failure::run_url`](crate::Failure::run_url) and [`FailureEvent::run_url`](crate::FailureEvent::run_url) make them.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dashboard, FailureEvent};
///
/// let event: FailureEvent = r#"{"name": "inngest/function.failed",
///     "data": {"function_id": "shop-checkout", "run_id": "01M82E82J0N0GBAMR1N91EZJJ6"}}"#.parse()?;
///
/// assert_eq!(
///     event.run_url(&Dashboard::cloud("production")),
///     "https://app.inngest.com/env/production/runs/01M82E82J0N0GBAMR1N91EZJJ6",
/// );
/// assert_eq!(
///     event.run_url(&Dashboard::dev()),
///     "http://localhost:8288/run?runID=01M82E82J0N0GBAMR1N91EZJJ6",
/// );
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// The URL of a run, up to its id.
    runs: String,
}

impl Dashboard {
    /// The dashboard of Inngest's cloud, for runs of this environment: `production`, or the name that a branch
    /// environment has in the dashboard's URLs.
    pub fn cloud(env: &str) -> Self {
        Self { runs: format!("https://app.inngest.com/env/{}/runs/", escaped(env)) }
    }

    /// The dev server's, at its own port on this machine: `http://localhost:8288`.
    pub fn dev() -> Self {
        Self::self_hosted("http://localhost:8288")
    }

    /// That of a self-hosted server, or of a dev server at another place, such as `https://inngest.example.com`.
    /// Slashes at the end make no difference.
    pub fn self_hosted(origin: &str) -> Self {
        Self { runs: format!("{}/run?runID=", origin.trim().trim_end_matches('/')) }
    }

    pub(super) fn run_url(&self, run_id: &str) -> String {
        format!("{}{}", self.runs, escaped(run_id))
    }
}

/// The text as one segment of a path, or one value of a query: it may come from outside.
fn escaped(text: &str) -> String {
    match text {
        // Browsers take these for a way up, escaped or not: so what is escaped is the escape.
        "." => "%252E".to_owned(),
        ".." => "%252E%252E".to_owned(),
        _ => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FailureEvent;

    #[test]
    fn each_server_has_its_own_url() {
        let url = |dashboard: Dashboard| dashboard.run_url("01M8");
        let cloud = "https://app.inngest.com/env/production/runs/01M8";
        assert_eq!(url(Dashboard::cloud("production")), cloud);
        assert_eq!(url(Dashboard::dev()), "http://localhost:8288/run?runID=01M8");
        for origin in
            ["https://inngest.example", "https://inngest.example/", " https://inngest.example// "]
        {
            let url = url(Dashboard::self_hosted(origin));
            assert_eq!(url, "https://inngest.example/run?runID=01M8", "{origin:?}");
        }
        let below = Dashboard::self_hosted("https://example.com/inngest/");
        assert_eq!(url(below), "https://example.com/inngest/run?runID=01M8");
        assert_eq!(Dashboard::dev(), Dashboard::self_hosted("http://localhost:8288/"));
    }

    #[test]
    fn no_id_leaves_its_place_in_the_url() {
        let dev = |run_id| Dashboard::dev().run_url(run_id);
        assert_eq!(
            dev("1&runID=2#<b> |\u{1b}[0m\n"),
            "http://localhost:8288/run?runID=1%26runID%3D2%23%3Cb%3E%20%7C%1B%5B0m%0A"
        );
        let cloud = |env| Dashboard::cloud(env).run_url("../../login?next=ż");
        assert_eq!(
            cloud("feature/a b"),
            "https://app.inngest.com/env/feature%2Fa%20b/runs/..%2F..%2Flogin%3Fnext%3D%C5%BC"
        );
        let cloud = Dashboard::cloud("a-b.c_d~e");
        assert_eq!(cloud.run_url(".."), "https://app.inngest.com/env/a-b.c_d~e/runs/%252E%252E");
        assert_eq!(cloud.run_url("."), "https://app.inngest.com/env/a-b.c_d~e/runs/%252E");
    }

    #[test]
    fn a_failure_has_the_url_of_its_event() {
        let event: FailureEvent =
            r#"{"name":"inngest/function.failed","data":{"function_id":"f","run_id":"a b"}}"#
                .parse()
                .unwrap();
        let failure = event.parse::<()>().unwrap();
        let expected = "http://localhost:8288/run?runID=a%20b";
        assert_eq!(event.run_url(&Dashboard::dev()), expected);
        assert_eq!(failure.run_url(&Dashboard::dev()), expected);
    }
}
