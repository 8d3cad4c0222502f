//! A small web shop that makes good what its Inngest functions could not finish: it gives money back,
//! puts stock back on the shelf, writes to the customer, and tells the team of whatever is left.
//!
//! ```text
//! cargo run -p examples --bin shop
//! ```
//!
//! Each part of the shop keeps its handlers beside its own code: `payments`, `stock`, `messages` and
//! `counts`. Nothing lists them: `#[on_failure(..)]` registers each, and `Dispatcher::build` finds and
//! checks them all.

mod counts;
mod input;
mod messages;
mod payments;
mod report;
mod stock;
mod store;

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Parser};
use inngest_failure::{Backoff, Dispatcher};
use tracing_subscriber::filter::LevelFilter;

use crate::{input::Source, messages::Outbox, payments::Provider, report::Report, store::Store};

/// Runs recorded failure events through a shop's failure handlers
///
/// Shows what became of each, and what then stands in the shop's books: an SQLite
/// database that starts with the orders that the example's own events are about
#[derive(Parser)]
#[command(name = "shop", after_help = AFTER_HELP, verbatim_doc_comment)]
struct Cli {
    /// Failure events to read, `-` is standard input [default: the example's own]
    ///
    /// JSON lines, or one JSON document: an event, an array of events, or the body of a
    /// call that Inngest had made
    #[arg(verbatim_doc_comment)]
    files: Vec<PathBuf>,

    /// Keep the books in this file from one run to the next [default: in memory]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,

    /// Log failed attempts to standard error, not only failed handlers; `-vv` logs all
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
Exit status:
  0  every failure was handled
  1  a handler failed, a failure was unhandled, or a line was no failure event
  2  the command line, a file, the database or the handlers' wiring is wrong

Examples:
  shop --database shop.db       run it twice: the second time, nobody gets money back again
  shop failures.jsonl more.json
  tail -n 5 failures.jsonl | shop -";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether everything was handled.
async fn run(cli: Cli) -> Result<bool, Box<dyn Error>> {
    log_to_stderr(cli.verbose);
    // Everything is opened and checked before the first handler runs.
    let sources = open_all(&cli.files)?;
    let store = open_store(cli.database.as_deref())?;
    let dispatcher = wire(&store)?;

    let mut report = Report::new(sources.len() > 1);
    let mut all_handled = true;
    // Reading blocks this task, which has nothing else to do meanwhile.
    for entry in sources.into_iter().flatten() {
        match entry {
            Ok((place, event)) => {
                let dispatch = dispatcher.dispatch(event.clone()).await;
                all_handled &= dispatch.is_ok() && !dispatch.is_unhandled();
                report.add(&place, &event, &dispatch);
            }
            Err(fault) => {
                all_handled = false;
                eprintln!("{fault}");
            }
        }
    }
    let books = store.totals()?;
    print(&format!("{report}\n{books}\n"))?;
    Ok(all_handled)
}

/// The one place that knows what the shop is made of.
fn wire(store: &Store) -> Result<Dispatcher, inngest_failure::BuildError> {
    Dispatcher::builder()
        .app("shop")
        .state(store.clone())
        .state(Provider::default())
        .state(Outbox::new(store.clone()))
        // A handler for a function that does not exist would never run: `build` says so.
        .known_functions([
            "shop-checkout",
            "shop-fulfil-order",
            "shop-nightly-report",
            "shop-send-receipt",
            "shop-send-surveys",
            "depot-pick-parcel",
        ])
        .backoff(Backoff::new().first(Duration::from_millis(100)))
        .build()
}

fn open_all(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    if files.is_empty() {
        return Ok(vec![Source::shipped()]);
    }
    files.iter().map(|path| Source::open(path)).collect()
}

fn open_store(path: Option<&Path>) -> Result<Store, String> {
    let Some(path) = path else {
        return Store::in_memory().map_err(|error| format!("cannot make a database: {error}"));
    };
    Store::open(path).map_err(|error| {
        format!(
            "cannot keep the books in `{}`: {error}; name a file that this example made, or a new one in \
             a directory that is there",
            path.display(),
        )
    })
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
}

/// As `print!`, but a reader that has seen enough, such as `head`, is not an error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
