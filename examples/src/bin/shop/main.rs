//! Recorded failure events, run through the failure handlers of a shop; `examples/src/shop` has the handlers.
//!
//! ```text
//! cargo run -p examples --bin shop
//! ```
//!
//! With arguments it is the command line that the crate has for operators, with these handlers:
//!
//! ```text
//! cargo run -p examples --bin shop -- handlers
//! cargo run -p examples --bin shop -- dispatch examples/data/events.jsonl
//! cargo run -p examples --bin shop -- dead-letters list
//! ```
//!
//! Settings come from the environment, since the books have to be open before the command line is read:
//!
//! | variable | |
//! |---|---|
//! | `SHOP_DATABASE` | the file with the shop's books; without it they are in memory, or for commands in `shop.db` |
//! | `SHOP_DEAD_LETTERS` | the file for dead letters, which only commands keep; without it `shop-dead-letters.jsonl` |
//! | `SHOP_TRACES` | a folder with what failed runs had done, `<run id>.json` for each; without it the example's own |
//! | `SHOP_PROVIDER` | `down`: the payment provider does not answer |
//! | `SHOP_LOG` | the level of the log on standard error: `error`, if it is not set, or `warn`, `info`, `debug`, .. |

mod report;
mod traces;

use std::{
    env,
    error::Error,
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use examples::{
    events,
    shop::{self, Store},
};
use inngest_failure::{Api, JsonLines, cli};
use tracing_subscriber::filter::LevelFilter;

use crate::{report::Report, traces::Traces};

#[tokio::main]
async fn main() -> ExitCode {
    let result = match env::args_os().len() {
        0 | 1 => demo().await,
        _ => command().await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// Shows what becomes of each of the example's own events, and what then stands in the books.
async fn demo() -> Result<ExitCode, Box<dyn Error>> {
    log_to_stderr()?;
    // Everything is opened and checked before the first handler runs.
    let store = Store::open(var("SHOP_DATABASE").as_deref().map(Path::new))?;
    let dispatcher = shop::dispatcher(&store).trace_source(traces()).build()?;

    let mut report = Report::default();
    let mut all_handled = true;
    for (line, event) in events::shipped() {
        let event = event?;
        let dispatch = dispatcher.dispatch(event.clone()).await;
        all_handled &= dispatch.is_ok() && !dispatch.is_unhandled();
        report.add(line, &event, &dispatch, &store.undone(event.run_id())?);
    }
    let books = store.totals()?;
    print(&format!("{report}\n{books}\n"))?;
    Ok(if all_handled { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What the arguments say. The books are in a file, for a ledger that remembers what was done must not outlive them.
async fn command() -> Result<ExitCode, Box<dyn Error>> {
    log_to_stderr()?;
    let database = file("SHOP_DATABASE", "shop.db");
    let letters = file("SHOP_DEAD_LETTERS", "shop-dead-letters.jsonl");
    let letters = JsonLines::open(&letters).map_err(|error| {
        format!("cannot keep dead letters in `{}`: {error}; name another file", letters.display())
    })?;
    let store = Store::open(Some(&database))?;

    let mut traces = traces();
    if ["INNGEST_DEV", "INNGEST_SIGNING_KEY"].into_iter().any(|name| var(name).is_some()) {
        traces = traces.or_ask(Api::from_env()?);
    }
    let builder = shop::dispatcher(&store).trace_source(traces).dead_letters(letters);
    Ok(cli::run(builder).await)
}

fn traces() -> Traces {
    var("SHOP_TRACES").map_or_else(Traces::shipped, |folder| Traces::new(folder.into()))
}

fn file(variable: &str, default: &str) -> PathBuf {
    var(variable).unwrap_or_else(|| default.into()).into()
}

/// What the variable holds, if that is anything.
fn var(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn log_to_stderr() -> Result<(), String> {
    let level = match var("SHOP_LOG") {
        None => LevelFilter::ERROR,
        Some(level) => level.to_str().and_then(|level| level.parse().ok()).ok_or(
            "`SHOP_LOG` is no level; set it to `off`, `error`, `warn`, `info`, `debug` or `trace`",
        )?,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    Ok(())
}

/// As `print!`, but a reader that has seen enough, such as `head`, is not an error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
