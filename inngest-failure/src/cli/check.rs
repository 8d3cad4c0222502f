//! `check`.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{Fatal, Outcome, args, output};
use crate::{api::fetch, dispatcher::DispatcherBuilder};

pub(super) async fn run(
    mut builder: DispatcherBuilder,
    args: &args::Check,
) -> Result<Outcome, Fatal> {
    let mut known = None;
    if let Some(place) = &args.functions {
        let functions = functions(place).await?;
        known = Some(functions.len() as u64);
        // What the program was told of them is what may be out of date.
        builder = builder.only_known_functions(functions);
    }
    let dispatcher = builder.build()?;
    let handlers = output::count(dispatcher.handlers().len() as u64, "handler");
    let functions = known.map_or(String::new(), |known| {
        format!(", each for one of {} at least", output::count(known, "function"))
    });
    output::print(&format!("{handlers}, soundly wired{functions}\n"))?;
    Ok(Outcome::Well)
}

/// The composite ids of all functions, from a file or from a dev server.
async fn functions(place: &str) -> Result<BTreeSet<String>, Fatal> {
    let is_url = place.starts_with("http://") || place.starts_with("https://");
    let text = if is_url {
        // A dev server tells what it knows at `/dev`.
        let is_origin = place.splitn(4, '/').nth(3).is_none_or(str::is_empty);
        let url = if is_origin {
            format!("{}/dev", place.trim_end_matches('/'))
        } else {
            place.to_owned()
        };
        let answer = fetch(&url)
            .await
            .map_err(|error| Fatal::new(format!("can't get the functions: {}", error.chain())))?;
        String::from_utf8_lossy(answer.body()).into_owned()
    } else {
        fs::read_to_string(place).map_err(|error| {
            Fatal::new(format!(
                "can't read `{place}`: {error}; give a file of function ids, or the URL of a dev server"
            ))
        })?
    };
    let functions = ids(&text).map_err(|error| {
        Fatal::new(format!(
            "there are no functions in `{place}`, it is not JSON: {error}; give a function id per line, a JSON list of \
             them, or what a dev server gives at `/dev`"
        ))
    })?;
    if functions.is_empty() {
        return Err(Fatal::new(format!(
            "there is no function id in `{place}`; give one a line, a JSON list of them, or what a dev server gives at \
             `/dev`"
        )));
    }
    Ok(functions)
}

/// The ids in JSON of any of these forms, or one in each line. What begins as JSON does, or as a page of HTML, has none in
/// its lines.
fn ids(text: &str) -> serde_json::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    match serde_json::from_str(text) {
        Ok(value) => collect(&value, &mut ids),
        Err(error) if text.trim_start().starts_with(['{', '[', '"', '<']) => return Err(error),
        Err(_) => {
            let lines = text.lines().map(str::trim);
            ids.extend(
                lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned),
            );
        }
    }
    Ok(ids)
}

/// A list of ids, or of objects that have one; an object that has such a list as its `functions` or its `data`, or one
/// function's object.
fn collect(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::String(id) => {
            ids.insert(id.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, ids)),
        Value::Object(object) => {
            if let Some(functions) = object.get("functions").or_else(|| object.get("data")) {
                return collect(functions, ids);
            }
            // The server's own id of a function is another one.
            if let Some(Value::String(id)) = object.get("slug").or_else(|| object.get("id")) {
                ids.insert(id.clone());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_every_form() {
        let of = |text| ids(text).unwrap().into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of("# mine\nshop-a\n\n shop-b \n"), "shop-a shop-b");
        assert_eq!(of(r#"["shop-a","shop-b"]"#), "shop-a shop-b");
        assert_eq!(of(r#"{"functions":[{"id":"7d0a","slug":"shop-a","name":"A"}]}"#), "shop-a");
        assert_eq!(of(r#"{"appName":"shop","functions":[{"id":"shop-a"}]}"#), "shop-a");
        assert_eq!(of(r#"[{"id":"shop-a"}]"#), "shop-a");
        assert_eq!(of("{}"), "");
        assert_eq!(of("7"), "");
        for broken in ["[\"shop-a\",", "{\"functions\":", " <html>\n<body>"] {
            assert!(ids(broken).is_err(), "{broken}");
        }
    }
}
