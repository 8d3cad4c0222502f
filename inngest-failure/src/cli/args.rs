//! The command line's arguments.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::{Args, Parser, Subcommand};

const EXIT_STATUS: &str = "\
Exit status:
  0  everything went well
  1  something failed: a handler, a line of the input, a dead letter that is still one
  2  the command line, a file, the environment or the wiring of the handlers is wrong;
     nothing has run";

/// Failure handlers of Inngest functions: what there is, and what to do after an incident
#[derive(Debug, Parser)]
#[command(after_help = EXIT_STATUS, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the handlers of this program
    Handlers(Handlers),
    /// Check how the handlers are wired, and whether the functions that they name exist
    Check(Check),
    /// Run failure events from files through the handlers, each once
    Dispatch(Dispatch),
    /// Look at the failures whose handler has failed for good, and try them again
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Run the handlers for runs that have failed before there was a handler
    ///
    /// Lists the failed runs from Inngest's API, shows which handlers would run how often, and runs them, each once. What
    /// has run elsewhere, such as at an endpoint, is not in the ledger and runs again: name the new handlers with `--only`.
    Backfill(Backfill),
    /// Serve the handlers as an Inngest app, over HTTP
    Serve(Serve),
}

#[derive(Args, Debug)]
pub(super) struct Handlers {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct Check {
    /// The functions that there are: a file, or the URL of an Inngest dev server
    ///
    /// A handler that names none of them is an error. A file has a function id per line, or is JSON: a list of ids, or
    /// what a dev server gives at `/dev`.
    #[arg(long, value_name = "FILE|URL")]
    pub(super) functions: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  dispatch failures.jsonl            run it twice: the second time, nothing is done twice
  dispatch --dry-run failures.jsonl  see which handlers would run
  zcat failures.jsonl.gz | dispatch --since 2h -")]
pub(super) struct Dispatch {
    /// Failure events to read, `-` is standard input
    ///
    /// JSON lines, or any JSON: events, arrays of events, bodies of calls that Inngest had made. Events of other names are
    /// skipped.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,

    /// Leave out failures from before: a time ago, such as `24h`, or a time, such as `2026-11-25T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<SystemTime>,

    #[command(flatten)]
    pub(super) run: Run,
}

/// What there is to say of handlers that run for many failures.
#[derive(Args, Debug)]
pub(super) struct Run {
    /// Show which handlers would run, and run none
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Run only this handler; may be given more than once
    #[arg(long, value_name = "HANDLER")]
    pub(super) only: Vec<String>,

    /// How many failures are handled at once
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: u16,

    #[command(flatten)]
    pub(super) ledger: Ledger,

    /// Keep no ledger: what was handled before is handled again
    #[arg(long, conflicts_with = "ledger")]
    pub(super) no_ledger: bool,
}

#[derive(Args, Debug)]
pub(super) struct Ledger {
    /// Where to keep what was handled, so that no handler runs twice for one event: an SQLite database
    #[arg(
        long,
        value_name = "FILE",
        env = "INNGEST_FAILURE_LEDGER",
        default_value = "inngest-failure-ledger.db"
    )]
    pub(super) ledger: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// List them, the oldest first
    List {
        #[command(flatten)]
        letters: Letters,
        /// Print them whole, as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Show some of them whole
    Show {
        #[command(flatten)]
        letters: Letters,
        /// Which, as `list` shows it; as much of it as is unique
        #[arg(required = true, value_name = "LETTER")]
        which: Vec<String>,
    },
    /// Run the handlers of some of them again, and drop those that succeed
    Retry {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        ledger: Ledger,
    },
    /// Drop some of them, as done by hand
    Drop {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        ledger: Ledger,
    },
}

#[derive(Args, Debug)]
pub(super) struct Letters {
    /// Where they are [default: the file that the program keeps them in]
    #[arg(long, value_name = "FILE", env = "INNGEST_FAILURE_DEAD_LETTERS")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Which, as `list` shows it; as much of it as is unique
    #[arg(value_name = "LETTER")]
    pub(super) which: Vec<String>,
    /// All of one handler
    #[arg(long, value_name = "HANDLER")]
    pub(super) handler: Option<String>,
    /// All
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Args, Debug)]
pub(super) struct Backfill {
    /// From when on runs have failed: a time ago, such as `24h`, or a time, such as `2026-11-25T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: SystemTime,

    /// Until when [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<SystemTime>,

    /// Only runs of this function, by its composite id
    #[arg(long, value_name = "FUNCTION")]
    pub(super) function: Option<String>,

    /// Take cancelled runs as well
    #[arg(long)]
    pub(super) cancelled: bool,

    /// Write the failure events to this file as well, as JSON lines that `dispatch` reads
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    #[command(flatten)]
    pub(super) run: Run,
}

#[derive(Args, Debug)]
pub(super) struct Serve {
    /// The endpoint's app id, which no other app has [default: the dispatcher's app and `-failures`]
    #[arg(long, value_name = "ID")]
    pub(super) app: Option<String>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub(super) listen: SocketAddr,

    /// How long calls may take to end after Ctrl-C or SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) grace: Duration,
}

/// A time, or how long ago it was.
fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        "give a time ago, such as `24h` or `30m`, or a time, such as `2026-11-25T12:00:00Z`"
            .to_owned()
    })?;
    SystemTime::now()
        .checked_sub(ago)
        .ok_or_else(|| "that is longer ago than can be told".to_owned())
}
