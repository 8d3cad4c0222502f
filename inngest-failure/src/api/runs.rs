//! Lists of runs from the API: REST v2.

use std::{collections::HashSet, time::SystemTime};

use form_urlencoded::Serializer;
use serde::Deserialize;

use super::{
    Api, ApiError,
    rest::{Asked, Refused, ask_again},
};
use crate::{
    dead_letter::rfc3339,
    error::ParseError,
    event::FailureKind,
    trace::{StepStatus, status, time},
};

/// How many runs the API gives at once, at most.
const PAGE: &str = "100";

/// How many empty pages may follow each other: the cloud gives one where it has looked at many runs and none of them fits.
const MAX_EMPTY_PAGES: u32 = 500;

/// How a request and an error name what is asked for.
const WHAT: &str = "the list of failed runs";

/// Which runs: those that ended in this time.
#[derive(Clone, Debug)]
pub(crate) struct RunQuery {
    from: SystemTime,
    until: SystemTime,
    with_cancelled: bool,
}

impl RunQuery {
    /// The runs that failed in this time, of every function.
    pub(crate) fn between(from: SystemTime, until: SystemTime) -> Self {
        Self { from, until, with_cancelled: false }
    }

    /// Those that were cancelled, too.
    pub(crate) fn with_cancelled(mut self) -> Self {
        self.with_cancelled = true;
        self
    }

    /// What the API is asked for.
    fn path(&self, cursor: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("status", "FAILED");
        if self.with_cancelled {
            query.append_pair("status", "CANCELLED");
        }
        query.append_pair("from", &rfc3339(self.from)).append_pair("until", &rfc3339(self.until));
        query.append_pair("timeField", "endedAt").append_pair("order", "ASC");
        query.append_pair("limit", PAGE);
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        format!("/runs?{}", query.finish())
    }
}

/// A run, as the list has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "WireRun")]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) status: StepStatus,
    pub(crate) app_id: String,
    /// Relative to the app.
    pub(crate) function_id: String,
    /// For people; empty if the list does not say.
    pub(crate) function_name: String,
    pub(crate) ended_at: Option<SystemTime>,
    /// Those of the events that had started it.
    pub(crate) event_ids: Vec<String>,
}

impl Run {
    /// What the failure event calls the function.
    pub(crate) fn composite_id(&self) -> String {
        format!("{}-{}", self.app_id, self.function_id)
    }

    /// Whether it failed or was cancelled, if either.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        match self.status {
            StepStatus::Failed => Some(FailureKind::Failed),
            StepStatus::Cancelled => Some(FailureKind::Cancelled),
            _ => None,
        }
    }
}

/// The runs that a query finds, page by page, the one that ended first first.
#[derive(Debug)]
pub(crate) struct Runs {
    api: Api,
    query: RunQuery,
    next: Next,
    /// Every cursor that there was: one that comes again would lead round in a circle.
    cursors: HashSet<String>,
}

#[derive(Debug)]
enum Next {
    First,
    At(String),
    /// The page before was the last that can be had, and the server says that there are more.
    Lost(&'static str),
    End,
}

impl Api {
    /// The runs that failed.
    pub(crate) fn failed_runs(&self, query: RunQuery) -> Runs {
        Runs { api: self.clone(), query, next: Next::First, cursors: HashSet::new() }
    }
}

impl Runs {
    /// The next runs, at least one, or `None` after the last. After an error the same page is asked for again.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if the server does not give the page, or none that leads on.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Run>>, ApiError> {
        if self.query.from >= self.query.until {
            return Err(ApiError::of_message(format!(
                "{WHAT} can't be asked for: there is no time between `{}` and `{}`; let the first be the earlier one",
                rfc3339(self.query.from),
                rfc3339(self.query.until),
            )));
        }
        for _ in 0..MAX_EMPTY_PAGES {
            let cursor = match &self.next {
                Next::First => None,
                Next::At(cursor) => Some(cursor.as_str()),
                Next::Lost(why) => return Err(self.lost(why)),
                Next::End => return Ok(None),
            };
            let Answer { data, page } = self.fetch(cursor).await?;
            self.next = match page.cursor.filter(|cursor| !cursor.is_empty()) {
                _ if !page.has_more => Next::End,
                Some(cursor) if self.cursors.insert(cursor.clone()) => Next::At(cursor),
                Some(_) => Next::Lost("points back to a page that it gave before"),
                None => Next::Lost("does not say where the next ones are"),
            };
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
        Err(self.lost("gives none of them, one empty page after the other"))
    }

    async fn fetch(&self, cursor: Option<&str>) -> Result<Answer, ApiError> {
        let path = self.query.path(cursor);
        let answer = ask_again(|| async {
            match self.api.ask(&path, WHAT, "list of runs").await {
                Ok(json) => Asked::Done(Ok(json)),
                Err(refused) => refused.map(Err),
            }
        });
        let json = answer.await.map_err(|refused| match refused {
            Refused::Other(error) => error,
            Refused::Unsupported(message) => ApiError::of_message(message),
            // No list is unknown: it is this part of the API that it does not know.
            Refused::Unknown => ApiError::of_message(self.api.unsupported("list of runs")),
        })?;
        read(&json).map_err(|error| {
            let origin = self.api.api_origin();
            ApiError::new(format!("what Inngest at `{origin}` gives for {WHAT} is none"), error)
        })
    }

    fn lost(&self, why: &str) -> ApiError {
        ApiError::of_message(format!(
            "Inngest at `{}` says that there are more failed runs, but {why}; ask for a shorter time, or for one function",
            self.api.api_origin()
        ))
    }
}

fn read(json: &[u8]) -> Result<Answer, ParseError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let answer = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| ParseError::runs(&error))?;
    deserializer.end().map_err(|error| ParseError::not_json(&error))?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Run>,
    /// Without it nobody knows whether there are more.
    page: Page,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRun {
    id: String,
    #[serde(default)]
    status: Option<String>,
    app: WireApp,
    function: WireFunction,
    #[serde(default)]
    ended_at: Option<String>,
    #[serde(default)]
    trigger: Option<WireTrigger>,
}

#[derive(Deserialize)]
struct WireApp {
    id: String,
}

#[derive(Deserialize)]
struct WireFunction {
    id: String,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTrigger {
    #[serde(default)]
    event_ids: Option<Vec<String>>,
}

impl From<WireRun> for Run {
    fn from(run: WireRun) -> Self {
        Self {
            id: run.id,
            status: status(run.status.as_deref()),
            app_id: run.app.id,
            function_id: run.function.id,
            function_name: run.function.name.unwrap_or_default(),
            ended_at: time(run.ended_at.as_deref()),
            event_ids: run.trigger.and_then(|trigger| trigger.event_ids).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::{Arc, Mutex};

    use axum::{Router, extract::Request};
    use http::{StatusCode, header::AUTHORIZATION};
    use serde_json::{Value, json};
    use tokio::{net::TcpListener, task::JoinHandle};

    use super::*;
    use crate::trace::rebuild::failure_event;

    const KEY: &str =
        "signkey-test-a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
    const OTHER_KEY: &str =
        "signkey-test-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// What the API was asked.
    #[derive(Clone, Debug)]
    struct Question {
        path: String,
        query: Vec<(String, String)>,
        authorization: Option<String>,
    }

    impl Question {
        fn of(&self, name: &str) -> Vec<&str> {
            let named = self.query.iter().filter(|(other, _)| other == name);
            named.map(|(_, value)| value.as_str()).collect()
        }

        fn cursor(&self) -> Option<&str> {
            self.of("cursor").first().copied()
        }
    }

    /// A server that plays the API, until it is dropped.
    struct Played {
        origin: String,
        asked: Arc<Mutex<Vec<Question>>>,
        task: JoinHandle<()>,
    }

    impl Played {
        /// `answer` is told how many questions there were before this one.
        async fn start(
            answer: impl Fn(usize, &Question) -> (u16, String) + Clone + Send + Sync + 'static,
        ) -> Self {
            let asked = Arc::<Mutex<Vec<Question>>>::default();
            let log = Arc::clone(&asked);
            let router = Router::new().fallback(move |request: Request| {
                let query = request.uri().query().unwrap_or_default().as_bytes();
                let question = Question {
                    path: request.uri().path().to_owned(),
                    query: form_urlencoded::parse(query).into_owned().collect(),
                    authorization: request
                        .headers()
                        .get(AUTHORIZATION)
                        .map(|key| key.to_str().unwrap().to_owned()),
                };
                let mut log = log.lock().unwrap();
                let (status, body) = answer(log.len(), &question);
                log.push(question);
                async move { (StatusCode::from_u16(status).unwrap(), body) }
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = format!("http://{}", listener.local_addr().unwrap());
            let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            Self { origin, asked, task }
        }

        fn api(&self) -> Api {
            Api::builder().dev_server(&self.origin).build().unwrap()
        }

        fn cloud(&self) -> Api {
            let keys = Api::builder().dev(false).signing_key(KEY).signing_key_fallback(OTHER_KEY);
            keys.api_origin(&self.origin).build().unwrap()
        }

        fn asked(&self) -> Vec<Question> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Drop for Played {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn query() -> RunQuery {
        RunQuery::between(at(1_795_000_000), at(1_795_086_400))
    }

    fn run(number: usize) -> Value {
        json!({
            "id": format!("RUN{number:04}"),
            "status": if number.is_multiple_of(7) { "CANCELLED" } else { "FAILED" },
            "app": { "id": "shop", "unknown": [] },
            "function": { "id": "checkout", "name": "Checkout" },
            "queuedAt": "2026-11-22T21:45:35.508Z",
            "endedAt": humantime::format_rfc3339_millis(at(1_795_000_000 + number as u64)).to_string(),
            "trigger": { "eventIds": [format!("EVENT{number}")], "isBatch": false },
        })
    }

    fn page(runs: &[Value], cursor: Option<&str>, has_more: bool) -> String {
        let page = json!({ "cursor": cursor, "hasMore": has_more, "limit": 100 });
        json!({ "data": runs, "page": page, "metadata": {} }).to_string()
    }

    async fn all(mut runs: Runs) -> Result<Vec<Run>, ApiError> {
        let mut all = Vec::new();
        while let Some(page) = runs.next_page().await? {
            assert!(!page.is_empty() && page.len() <= 100);
            all.extend(page);
        }
        assert!(runs.next_page().await?.is_none());
        Ok(all)
    }

    async fn error(
        answer: impl Fn(usize, &Question) -> String + Clone + Send + Sync + 'static,
    ) -> String {
        let server = Played::start(move |number, question| (200, answer(number, question))).await;
        let error = all(server.api().failed_runs(query())).await.unwrap_err();
        error.chain().replace(&server.origin, "ORIGIN")
    }

    #[tokio::test]
    async fn a_thousand_runs_come_once_each_and_in_order() {
        // A page of any size, also none: the cloud gives such where none of those that it looked at fits.
        const SIZES: [usize; 6] = [100, 0, 37, 100, 1, 0];
        let server = Played::start(|number, question| {
            // What a URL must not hold as it is.
            let first = question.cursor().map_or(0, |cursor| {
                cursor
                    .strip_prefix("a+b/c=&d#")
                    .unwrap()
                    .split('.')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            });
            let end = (first + SIZES[number % SIZES.len()]).min(1000);
            let runs: Vec<Value> = (first..end).map(run).collect();
            let cursor = format!("a+b/c=&d#{end}.{number}");
            (200, page(&runs, Some(&cursor), end < 1000))
        })
        .await;
        let query = query().with_cancelled();
        let runs = all(server.api().failed_runs(query)).await.unwrap();

        assert_eq!(runs.len(), 1000);
        for (number, run) in runs.iter().enumerate() {
            let kind =
                if number.is_multiple_of(7) { FailureKind::Cancelled } else { FailureKind::Failed };
            assert_eq!(run.id, format!("RUN{number:04}"));
            assert_eq!(run.kind(), Some(kind));
            assert_eq!(run.composite_id(), "shop-checkout");
            assert_eq!(run.function_name, "Checkout");
            assert_eq!(run.ended_at, Some(at(1_795_000_000 + number as u64)));
            assert_eq!(run.event_ids, [format!("EVENT{number}")]);
        }
        let asked = server.asked();
        assert_eq!(asked[0].cursor(), None);
        for question in &asked {
            assert_eq!(question.path, "/api/v2/runs");
            assert_eq!(question.of("status"), ["FAILED", "CANCELLED"]);
            assert_eq!(question.of("from"), ["2026-11-18T11:06:40.000Z"]);
            assert_eq!(question.of("until"), ["2026-11-19T11:06:40.000Z"]);
            assert_eq!(question.of("timeField"), ["endedAt"]);
            assert_eq!(question.of("order"), ["ASC"]);
            assert_eq!(question.of("limit"), ["100"]);
        }
    }

    #[tokio::test]
    async fn a_query_asks_only_for_what_it_says() {
        let server = Played::start(|_, _| (200, page(&[], None, false))).await;
        assert_eq!(all(server.api().failed_runs(query())).await.unwrap(), []);
        let far = RunQuery::between(SystemTime::UNIX_EPOCH - Duration::from_secs(1), at(1 << 60));
        all(server.api().failed_runs(far)).await.unwrap();
        let asked = server.asked();
        assert_eq!(asked[0].of("status"), ["FAILED"]);
        assert!(asked[0].of("cursor").is_empty());
        assert_eq!(asked[1].of("from"), ["1970-01-01T00:00:00.000Z"]);
        assert_eq!(asked[1].of("until"), ["9999-12-31T23:59:59.000Z"]);

        let none = RunQuery::between(at(1), at(1));
        let error = server.api().failed_runs(none).next_page().await.unwrap_err();
        assert_eq!(
            error.chain(),
            "the list of failed runs can't be asked for: there is no time between `1970-01-01T00:00:01.000Z` and \
             `1970-01-01T00:00:01.000Z`; let the first be the earlier one"
        );
        assert_eq!(server.asked().len(), 2);
    }

    #[tokio::test]
    async fn the_fallback_key_is_tried_when_the_first_is_refused() {
        let server = Played::start(|number, _| match number {
            0 => (401, "{}".to_owned()),
            _ => (200, page(&[run(1)], None, false)),
        })
        .await;
        assert_eq!(all(server.cloud().failed_runs(query())).await.unwrap().len(), 1);
        let asked = server.asked();
        assert!(asked.len() == 2 && asked[0].authorization != asked[1].authorization);
        assert!(asked.iter().all(|question| question.path == "/v2/runs"));

        let server = Played::start(|_, _| (403, "secret".to_owned())).await;
        let error = all(server.cloud().failed_runs(query())).await.unwrap_err();
        let expected = format!(
            "Inngest at `{}` does not give the list of failed runs: 403 Forbidden; see that `INNGEST_SIGNING_KEY` is that \
             of the environment",
            server.origin
        );
        assert_eq!(error.chain(), expected);
    }

    #[tokio::test]
    async fn both_places_are_looked_at() {
        for (missing, body) in [(404, "404 page not found\n"), (404, "{}"), (501, "{}")] {
            let server = Played::start(move |_, question| match question.path.as_str() {
                "/v2/runs" => (200, page(&[run(1)], None, false)),
                _ => (missing, body.to_owned()),
            })
            .await;
            assert_eq!(all(server.api().failed_runs(query())).await.unwrap().len(), 1);
            let paths: Vec<String> =
                server.asked().into_iter().map(|question| question.path).collect();
            assert_eq!(paths, ["/api/v2/runs", "/v2/runs"]);

            let server = Played::start(move |_, _| (missing, body.to_owned())).await;
            let error = all(server.cloud().failed_runs(query())).await.unwrap_err();
            let expected = format!(
                "Inngest at `{}` has no list of runs, neither at `/v2` nor at `/api/v2`; update a server of your own, and \
                 see that `INNGEST_API_BASE_URL` is the API's if it is set",
                server.origin
            );
            assert_eq!(error.chain(), expected);
            assert_eq!(server.asked().len(), 2);
        }
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_and_after_an_error_for_the_same_page() {
        let server = Played::start(|number, _| match number {
            0 => (200, page(&[run(1)], Some("next"), true)),
            1 => (500, "busy".to_owned()),
            2 => (400, "secret".to_owned()),
            _ => (200, page(&[run(2)], Some("last"), false)),
        })
        .await;
        let mut runs = server.api().failed_runs(query());
        assert_eq!(runs.next_page().await.unwrap().unwrap()[0].id, "RUN0001");
        let error = runs.next_page().await.unwrap_err().chain();
        let expected = format!(
            "Inngest at `{}` does not give the list of failed runs: 400 Bad Request",
            server.origin
        );
        assert_eq!(error, expected);
        assert_eq!(runs.next_page().await.unwrap().unwrap()[0].id, "RUN0002");
        assert!(runs.next_page().await.unwrap().is_none());
        let asked = server.asked();
        assert!(asked[1..].iter().all(|question| question.cursor() == Some("next")));
        assert_eq!(asked.len(), 4);
    }

    #[tokio::test]
    async fn what_is_no_list_is_an_error_that_shows_none_of_it() {
        let of = |answer: &'static str| error(move |_, _| answer.to_owned());
        let none = "what Inngest at `ORIGIN` gives for the list of failed runs is none: ";
        for (answer, expected) in [
            ("<html>secret</html>", "not JSON: expected value at line 1 column 1"),
            ("{}", "not a list of runs: missing field `data`"),
            (r#"{"data":[]}"#, "not a list of runs: missing field `page`"),
            (
                r#"{"data":["secret"],"page":{}}"#,
                "not a list of runs: at `data[0]`: invalid type: string, expected struct WireRun",
            ),
            (
                r#"{"data":[{"id":"1","app":{"id":"a"}}],"page":{}}"#,
                "not a list of runs: at `data[0]`: missing field `function`",
            ),
            (
                r#"{"data":[],"page":{"hasMore":"secret"}}"#,
                "not a list of runs: at `page.hasMore`: invalid type: string, expected a boolean",
            ),
            (
                r#"{"data":[],"page":{}} secret"#,
                "not JSON: trailing characters at line 1 column 23",
            ),
        ] {
            assert_eq!(of(answer).await, format!("{none}{expected}"));
        }
        // What may be missing.
        let least = r#"{"data":[{"id":"1","app":{"id":"a"},"function":{"id":"f"}}],"page":{}}"#;
        let server = Played::start(move |_, _| (200, least.to_owned())).await;
        let runs = all(server.api().failed_runs(query())).await.unwrap();
        assert_eq!((runs[0].kind(), runs[0].ended_at, runs[0].event_ids.len()), (None, None, 0));
    }

    #[tokio::test]
    async fn a_list_that_leads_nowhere_ends() {
        let says = "Inngest at `ORIGIN` says that there are more failed runs, but ";
        let remedy = "; ask for a shorter time, or for one function";
        let same = error(|_, _| page(&[run(1)], Some("a"), true)).await;
        let circle =
            error(|number, _| page(&[run(1)], Some(["a", "b", "c"][number % 3]), true)).await;
        let back = format!("{says}points back to a page that it gave before{remedy}");
        assert_eq!((same, circle), (back.clone(), back));
        for cursor in [None, Some("")] {
            let none = error(move |_, _| page(&[run(1)], cursor, true)).await;
            assert_eq!(none, format!("{says}does not say where the next ones are{remedy}"));
        }
        let empty = error(|number, _| page(&[], Some(&number.to_string()), true)).await;
        assert_eq!(
            empty,
            format!("{says}gives none of them, one empty page after the other{remedy}")
        );

        // What was on the page that leads nowhere is not lost.
        let server = Played::start(|_, _| (200, page(&[run(1)], Some("a"), true))).await;
        let mut runs = server.api().failed_runs(query());
        assert!(runs.next_page().await.unwrap().is_some());
        assert!(runs.next_page().await.unwrap().is_some());
        assert!(runs.next_page().await.is_err() && runs.next_page().await.is_err());
        assert_eq!(server.asked().len(), 2);
    }

    #[tokio::test]
    async fn a_run_of_the_list_and_its_trace_make_the_failure_event() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/traces/tr4.serial.json");
        let recorded: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let failure = recorded["failure"].clone();
        let trace = recorded["trace"].to_string();
        let run_id = failure["data"]["run_id"].as_str().unwrap().to_owned();
        let list = json!({
            "id": run_id, "status": "FAILED", "app": { "id": "tr4" }, "function": { "id": "serial", "name": "serial" },
        });
        let (given, path) = (trace.clone(), format!("/api/v2/runs/{run_id}/trace"));
        let server = Played::start(move |number, question| match number {
            0 => (200, page(std::slice::from_ref(&list), None, false)),
            _ if question.path != path => (404, "404 page not found".to_owned()),
            1 => (200, given.replace("\"status\":\"FAILED\"", "\"status\":\"RUNNING\"")),
            _ => (200, given.clone()),
        })
        .await;
        let runs = all(server.api().failed_runs(query())).await.unwrap();
        let raw = server.api().raw_trace(&runs[0].id).await.unwrap();
        assert_eq!(raw, trace);
        assert_eq!(server.asked().len(), 3);
        let event = failure_event(&runs[0], &raw).unwrap();
        assert_eq!(event.function_id(), failure["data"]["function_id"]);
        assert_eq!(event.error().message, "no carrier");
    }
}
