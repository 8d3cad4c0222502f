//! `check`, with a list of the functions that there are.

use bytes::Bytes;
use tests::http::{Api, nowhere};

use crate::Place;

/// All that the handlers name.
const ALL: &str = "shop-checkout\nshop-slow\nshop-report-daily\nshop-stock\n";

#[test]
fn handlers_that_are_wired_soundly_pass() {
    let place = Place::new();
    assert_eq!(place.run(&["check"]).well(), "5 handlers, soundly wired\n");
    place.write("functions", &format!("# all of them\n\n{ALL}"));
    let ended = place.run(&["check", "--functions", "functions"]);
    assert_eq!(ended.well(), "5 handlers, soundly wired, each for one of 4 functions at least\n");
}

#[test]
fn a_handler_whose_function_is_not_in_the_file_is_found() {
    let place = Place::new();
    place.write("functions", r#"["shop-chekout", "shop-slow", "shop-stock"]"#);
    let ended = place.run(&["check", "--functions", "functions"]);
    let lines: Vec<&str> = ended.refused().lines().collect();
    assert_eq!(lines[0], "error: 2 problems with the failure handlers:", "{lines:?}");
    let line = |function: &str| {
        let mut found = lines.iter().filter(|line| line.contains(function));
        let line = *found.next().unwrap_or_else(|| panic!("no {function}: {lines:?}"));
        assert!(found.next().is_none() && line.contains("tests/src/bin/operator.rs:"), "{lines:?}");
        line
    };
    assert!(line("operator::refund").contains("did you mean `shop-chekout`?"), "{lines:?}");
    assert!(line("operator::report").contains("`shop-report-*`"), "{lines:?}");
}

#[test]
fn a_file_that_lists_no_functions_is_told() {
    let place = Place::new();
    for (text, message) in [
        (
            "",
            "there is no function id in `functions`; give one a line, a JSON list of them, or what a dev server gives at `/dev`",
        ),
        (
            "{\"functions\": [",
            "there are no functions in `functions`, it is not JSON: EOF while parsing a list at line 1 column 15; give a function id per line",
        ),
        (
            "<html><body>Sign in</body></html>",
            "there are no functions in `functions`, it is not JSON: expected value at line 1 column 1",
        ),
    ] {
        place.write("functions", text);
        let ended = place.run(&["check", "--functions", "functions"]);
        assert!(ended.refused().contains(message), "{ended:?}");
    }
    let ended = place.run(&["check", "--functions", "nope"]);
    assert_eq!(
        ended.refused(),
        "error: can't read `nope`: No such file or directory (os error 2); give a file of function ids, or the URL of a dev \
         server\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dev_server_is_asked_for_its_functions() {
    let place = Place::new();
    let functions = |slugs: &[&str]| {
        let functions: Vec<_> = slugs
            .iter()
            .map(|slug| serde_json::json!({ "id": "7d0a4b6e", "name": "A function", "slug": slug }))
            .collect();
        serde_json::json!({ "version": "1", "functions": functions }).to_string()
    };
    let all: Vec<&str> = ALL.lines().collect();
    let (all, one) =
        (functions(&all), functions(&["shop-chekout", "shop-slow", "shop-report-a", "shop-stock"]));
    let server = Api::start_with(move |request| match request.uri().path() {
        "/dev" => (200, Bytes::from(all.clone())),
        "/one" => (200, Bytes::from(one.clone())),
        _ => (404, "404 page not found".into()),
    })
    .await;
    let check = |path: &str| place.run(&["check", "--functions", &(server.origin() + path)]);
    for path in ["", "/", "/dev"] {
        assert_eq!(
            check(path).well(),
            "5 handlers, soundly wired, each for one of 4 functions at least\n"
        );
    }
    let ended = check("/one");
    assert!(ended.refused().contains("did you mean `shop-chekout`?"), "{ended:?}");
    let ended = check("/two");
    let origin = server.origin();
    assert_eq!(
        ended.refused(),
        format!("error: can't get the functions: `{origin}/two` answers 404 Not Found\n")
    );
    let nowhere = nowhere();
    let ended = place.run(&["check", "--functions", &nowhere]);
    let message = format!("error: can't get the functions: can't get `{nowhere}/dev`: ");
    assert!(ended.refused().starts_with(&message), "{ended:?}");
}
