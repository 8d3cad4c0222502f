//! A command line for operators, in a program of yours: only that knows its handlers.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use inngest_failure::{Dispatcher, Failure, HandlerError, JsonLines, cli, on_failure};
//!
//! #[on_failure(function = "checkout")]
//! async fn undo_checkout(failure: Failure) -> Result<(), HandlerError> {
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     let letters = JsonLines::open("dead-letters.jsonl").expect("the file can be written");
//!     cli::run(Dispatcher::builder().app("shop").dead_letters(letters)).await
//! }
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `handlers` | lists the handlers |
//! | `check` | checks how they are wired, as [`build`](DispatcherBuilder::build) does; with `--functions`, whether the functions that they name exist |
//! | `dispatch FILE..` | runs failure events from files, or `-`, through the handlers |
//! | `dead-letters list`, `show`, `retry`, `drop` | what to do with the letters in a [`JsonLines`] file |
//! | `backfill --since 24h` | finds the runs that failed in that time, by Inngest's API, and runs the handlers for them |
//! | `serve` | serves the handlers as an Inngest app |
//!
//! `--help` tells of each.
//!
//! # Once
//!
//! `dispatch` and `backfill` keep a ledger, an SQLite database, of which handler has succeeded for which event. Stopped,
//! killed or repeated, they go on with what is not done: a handler that has failed for good runs once more, without the
//! steps that it had completed. What a handler did is in the ledger before its event counts as done; if the program is
//! killed in between, the handler runs again, which is what
//! [idempotency keys](crate::Failure::idempotency_key) are for.
//!
//! # Exit status
//!
//! | | |
//! |---|---|
//! | 0 | everything went well |
//! | 1 | something failed: a handler, a line of the input, a dead letter that is still one; or the run was stopped |
//! | 2 | the command line, a file, the environment or the wiring of the handlers is wrong; nothing has run |

mod args;
mod backfill;
mod check;
mod dispatch;
mod handlers;
mod input;
mod ledger;
mod letters;
mod output;
mod serve;
mod stop;

use std::{ffi::OsString, fmt, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use self::args::{Cli, Command};
#[cfg(doc)]
use crate::JsonLines;
use crate::dispatcher::DispatcherBuilder;

/// Runs the command that the program's arguments give, with the handlers of this dispatcher.
///
/// Tables and JSON go to standard output, all else to standard error. The handlers' log is the program's own: install a
/// subscriber of [`tracing`] that writes to standard error.
///
/// # Panics
///
/// If it is not awaited on a Tokio runtime with I/O and timer enabled.
///
/// # Cancel safety
///
/// Dropping the future drops what is in flight, as [`Dispatcher::dispatch`](crate::Dispatcher::dispatch) has it.
pub async fn run(builder: DispatcherBuilder) -> ExitCode {
    run_from(builder, std::env::args_os()).await
}

/// The same with other arguments, of which the first is the program's name.
///
/// # Panics
///
/// As [`run`].
///
/// # Cancel safety
///
/// As [`run`].
pub async fn run_from<I>(builder: DispatcherBuilder, args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let program = Program::of(&args);
    let cli = Cli::command().try_get_matches_from(&args);
    let cli = match cli.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is an error as well. A reader that is gone has seen enough.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Handlers(args) => handlers::run(builder, &args),
        Command::Check(args) => check::run(builder, &args).await,
        Command::Dispatch(args) => dispatch::run(builder, &program, args).await,
        Command::DeadLetters(args) => letters::run(builder, &program, args).await,
        Command::Backfill(args) => backfill::run(builder, &program, args).await,
        Command::Serve(args) => serve::run(builder, &args).await,
    };
    match result {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Err(Fatal(message)) => {
            output::say(&format!("error: {message}"));
            ExitCode::from(2)
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Well,
    Failed,
}

impl Outcome {
    fn of(is_well: bool) -> Self {
        if is_well { Self::Well } else { Self::Failed }
    }
}

/// Why a command can't be carried out: nothing has run.
#[derive(Debug)]
struct Fatal(String);

impl Fatal {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl<E: std::error::Error> From<E> for Fatal {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// How the program was called.
#[derive(Debug)]
struct Program {
    name: String,
    args: Vec<String>,
}

impl Program {
    fn of(args: &[OsString]) -> Self {
        let mut args = args.iter().map(|arg| arg.to_string_lossy().into_owned());
        let path = args.next().unwrap_or_default();
        let name = std::path::Path::new(&path).file_stem();
        let name = name.map(|name| name.to_string_lossy().into_owned());
        Self { name: name.unwrap_or_else(|| "inngest-failure".to_owned()), args: args.collect() }
    }
}

impl Program {
    /// The command with other values of these options; without those that have none.
    fn with(&self, options: &[(&str, Option<String>)]) -> Self {
        let mut args = Vec::new();
        let mut old = self.args.iter();
        while let Some(arg) = old.next() {
            let name = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
            match options.iter().any(|(option, _)| *option == name) {
                true if name == arg => drop(old.next()),
                true => {}
                false => args.push(arg.clone()),
            }
        }
        for (option, value) in options {
            args.extend(value.iter().flat_map(|value| [(*option).to_owned(), value.clone()]));
        }
        Self { name: self.name.clone(), args }
    }

    /// The command with only these of the letters that it names.
    fn with_letters(&self, all: &[String], left: &[&str]) -> Self {
        let is_done = |arg: &String| all.contains(arg) && !left.contains(&arg.as_str());
        let args = self.args.iter().filter(|arg| !is_done(arg)).cloned().collect();
        Self { name: self.name.clone(), args }
    }
}

/// The command, as a shell takes it.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for arg in &self.args {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
            match !arg.is_empty() && arg.chars().all(is_plain) {
                true => write!(f, " {arg}")?,
                false => write!(f, " '{}'", arg.replace('\'', r"'\''"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(args: &str) -> Program {
        Program::of(&args.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_that_goes_on_means_the_same_as_the_first_one() {
        let program = program("/bin/shop backfill --since 24h --output=f --only count");
        let since = Some("2026-11-25T12:00:00.000Z".to_owned());
        assert_eq!(
            program.with(&[("--since", since), ("--output", None)]).to_string(),
            "shop backfill --only count --since 2026-11-25T12:00:00.000Z"
        );
    }

    #[test]
    fn letters_that_are_done_are_not_named_again() {
        let program = program("shop dead-letters retry ab cd ef");
        let all = ["ab", "cd", "ef"].map(str::to_owned);
        assert_eq!(
            program.with_letters(&all, &["cd", "ef"]).to_string(),
            "shop dead-letters retry cd ef"
        );
    }

    #[test]
    fn a_shell_takes_the_command_as_it_was() {
        assert_eq!(
            program("shop dispatch it's.jsonl").to_string(),
            r"shop dispatch 'it'\''s.jsonl'"
        );
    }
}
