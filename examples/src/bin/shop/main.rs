//! Recorded failure events, run through the failure handlers of a shop; `examples/src/shop` has the handlers.
//!
//! ```text
//! cargo run -p examples --bin shop
//! ```

mod report;
mod traces;

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgAction, Parser};
use examples::{
    input::Source,
    shop::{self, Store},
};
use tracing_subscriber::filter::LevelFilter;

use crate::{report::Report, traces::Traces};

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

    /// Where to find out what failed runs had done: a folder with a file `<run id>.json`
    /// for each, as Inngest's API gives it [default: the example's own]
    #[arg(long, value_name = "FOLDER", verbatim_doc_comment)]
    traces: Option<PathBuf>,

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
    let store = Store::open(cli.database.as_deref())?;
    let traces = cli.traces.map_or_else(Traces::shipped, Traces::new);
    let dispatcher = shop::dispatcher(&store).trace_source(traces).build()?;

    let mut report = Report::new(sources.len() > 1);
    let mut all_handled = true;
    // Reading blocks this task, which has nothing else to do meanwhile.
    for entry in sources.into_iter().flatten() {
        match entry {
            Ok((place, event)) => {
                let dispatch = dispatcher.dispatch(event.clone()).await;
                all_handled &= dispatch.is_ok() && !dispatch.is_unhandled();
                report.add(&place, &event, &dispatch, &store.undone(event.run_id())?);
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

fn open_all(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    if files.is_empty() {
        return Ok(vec![Source::shipped()]);
    }
    files.iter().map(|path| Source::open(path)).collect()
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
