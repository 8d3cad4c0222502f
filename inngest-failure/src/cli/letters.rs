//! `dead-letters`.

mod retry;
mod wanted;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use self::{retry::retry, wanted::Wanted};
use super::{
    Fatal, Outcome, Program, args,
    ledger::{Ledger, Record},
    output::{self, tidy},
};
use crate::{
    dead_letter::{DeadLetter, JsonLines, private, rfc3339},
    dispatcher::DispatcherBuilder,
    event::ErrorBody,
};

/// As many characters of a letter's name as are shown.
const SHOWN: usize = 10;

pub(super) async fn run(
    builder: DispatcherBuilder,
    program: &Program,
    args: args::DeadLetters,
) -> Result<Outcome, Fatal> {
    match args {
        args::DeadLetters::List { letters, json } => list(&open(&builder, &letters)?, json),
        args::DeadLetters::Show { letters, which } => {
            let file = open(&builder, &letters)?;
            let wanted = Wanted::Named(&which);
            wanted.check(&file)?;
            for letter in wanted.letters(&file)? {
                output::print(&output::escaped(&show(&letter?)?))?;
            }
            Ok(Outcome::Well)
        }
        args::DeadLetters::Retry { letters, which, ledger } => {
            let file = open(&builder, &letters)?;
            retry(builder, program, &file, &which, &ledger.ledger).await
        }
        args::DeadLetters::Drop { letters, which, ledger } => {
            drop_letters(&open(&builder, &letters)?, &which, &ledger.ledger).await
        }
    }
}

/// The file of the program, or the one that was given.
fn open(builder: &DispatcherBuilder, args: &args::Letters) -> Result<JsonLines, Fatal> {
    let own = builder.json_lines();
    let Some(path) = args.file.as_deref().or(own.map(JsonLines::path)) else {
        return Err(Fatal::new(
            "this program keeps its dead letters in no file; give one with `--file`, or let the program's builder have \
             `.dead_letters(JsonLines::open(..)?)`",
        ));
    };
    if let Err(error) = fs::metadata(path) {
        return Err(Fatal::new(format!(
            "can't read `{}`: {error}; give the file with the dead letters with `--file`",
            path.display()
        )));
    }
    Ok(own.filter(|own| own.path() == path).cloned().unwrap_or_else(|| JsonLines::at(path)))
}

/// A letter's short name, which its key decides.
fn name(letter: &DeadLetter) -> String {
    let (handler_id, event_id) = letter.key();
    hex::encode(Sha1::digest(format!("{handler_id}\n{event_id}")))
}

fn line(letter: &DeadLetter) -> String {
    format!(
        "{}: {} for run {} of {}",
        &name(letter)[..SHOWN],
        tidy(&letter.handler_id, 100),
        tidy(letter.event.run_id(), 40),
        tidy(letter.event.function_id(), 100)
    )
}

fn list(file: &JsonLines, json: bool) -> Result<Outcome, Fatal> {
    let mut table =
        output::table(["letter", "failed at", "handler", "function", "run", "attempts", "error"]);
    let mut number = 0;
    for letter in file.letters()? {
        let letter = letter?;
        number += 1;
        if json {
            output::print(&output::escaped(&(serde_json::to_string(&letter)? + "\n")))?;
            continue;
        }
        table.add_row([
            name(&letter)[..SHOWN].to_owned(),
            humantime::format_rfc3339_seconds(letter.failed_at.max(SystemTime::UNIX_EPOCH))
                .to_string(),
            tidy(&letter.handler_id, 100),
            tidy(letter.event.function_id(), 100),
            tidy(letter.event.run_id(), 40),
            letter.attempts.map_or("unknown".to_owned(), |attempts| attempts.to_string()),
            tidy(&letter.error.message, 120),
        ]);
    }
    if !json {
        // The function, its run, and how many attempts there were: `show` tells of them.
        output::hide_if_narrow(&mut table, &[3, 4, 5]);
        let file = file.path().display();
        let count = output::count(number, "dead letter");
        let table = if number > 0 { format!("{table}\n") } else { String::new() };
        output::print(&format!("{table}{count} in {file}\n"))?;
    }
    Ok(Outcome::Well)
}

/// A letter as a person reads it: what one looks for first comes first.
#[derive(Serialize)]
struct Shown<'a> {
    letter: String,
    handler_id: &'a str,
    function_id: &'a str,
    run_id: &'a str,
    event_id: &'a str,
    failed_at: String,
    attempts: Option<u32>,
    error: ErrorBody,
    steps: Vec<ShownStep<'a>>,
    event: Value,
}

#[derive(Serialize)]
struct ShownStep<'a> {
    step_id: &'a str,
    name: Option<&'a str>,
    output: Value,
}

fn show(letter: &DeadLetter) -> Result<String, Fatal> {
    let mut steps = Vec::with_capacity(letter.steps.len());
    for completed in &letter.steps {
        steps.push(ShownStep {
            step_id: &completed.step_id,
            name: completed.name.as_deref(),
            output: serde_json::from_str(completed.output.get())?,
        });
    }
    let shown = Shown {
        letter: name(letter),
        handler_id: &letter.handler_id,
        function_id: letter.event.function_id(),
        run_id: letter.event.run_id(),
        event_id: letter.event_id(),
        failed_at: rfc3339(letter.failed_at),
        attempts: letter.attempts,
        error: ErrorBody::of(&letter.error),
        steps,
        event: serde_json::from_str(letter.event.raw().get())?,
    };
    Ok(serde_json::to_string_pretty(&shown)? + "\n")
}

/// Letters that something is about to be done to.
struct Begun<'a> {
    wanted: Wanted<'a>,
    number: u64,
    /// Nobody else retries or drops meanwhile.
    _lock: File,
}

/// Looks which letters are meant. Says so if there is none.
fn begin<'a>(file: &JsonLines, which: &'a args::Which) -> Result<Option<Begun<'a>>, Fatal> {
    let _lock = lock(file)?;
    let wanted = Wanted::of(which);
    let number = wanted.check(file)?;
    if number > 0 {
        return Ok(Some(Begun { wanted, number, _lock }));
    }
    output::print(&match &which.handler {
        Some(handler) => format!("no dead letters of handler `{handler}`\n"),
        None => "no dead letters\n".to_owned(),
    })?;
    Ok(None)
}

/// Nobody else retries or drops letters of this file as long as this is kept.
fn lock(file: &JsonLines) -> Result<File, Fatal> {
    let mut path = file.path().as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |error: io::Error| {
        Fatal::new(format!(
            "can't lock `{}`: {error}; let its folder be one that can be written",
            path.display()
        ))
    };
    let lock = private().create(true).append(true).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Fatal::new(format!(
            "another `retry` or `drop` of the letters in `{}` is under way; wait until it is done",
            file.path().display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn open_ledger(path: &Path) -> Result<Option<Ledger>, Fatal> {
    path.exists().then(|| Ledger::open(path)).transpose()
}

async fn drop_letters(
    file: &JsonLines,
    which: &args::Which,
    ledger: &Path,
) -> Result<Outcome, Fatal> {
    let Some(Begun { wanted, _lock, .. }) = begin(file, which)? else { return Ok(Outcome::Well) };
    let ledger = open_ledger(ledger)?;
    let mut is_well = true;
    for letter in wanted.letters(file)? {
        let letter = letter?;
        let line = line(&letter);
        // What was done by hand is not to be dispatched.
        if let Some(ledger) = &ledger
            && !letter.is_unhandled()
        {
            let (handler_id, event_id) = letter.key();
            let record = Record {
                handler_id: handler_id.to_owned(),
                event_id: event_id.to_owned(),
                attempts: 0,
                failed: None,
            };
            if let Err(error) = ledger.record(vec![record]).await {
                output::say(&format!("{line}: not dropped: the ledger can't be written: {error}"));
                is_well = false;
                continue;
            }
        }
        is_well &= remove(file, &letter, &line) && tell(&format!("dropped {line}"));
    }
    Ok(Outcome::of(is_well))
}

/// A line about what has been done. That it can't be written undoes nothing.
fn tell(line: &str) -> bool {
    match output::print(&format!("{line}\n")) {
        Ok(()) => true,
        Err(Fatal(error)) => {
            output::say(&format!("{line} ({error})"));
            false
        }
    }
}

/// Takes a letter out of the file. If that can't be done, what has run has run all the same.
fn remove(file: &JsonLines, letter: &DeadLetter, line: &str) -> bool {
    match file.remove(letter) {
        Ok(()) => true,
        Err(error) => {
            let path = file.path().display();
            output::say(&format!(
                "{line}: it can't be taken out of `{path}`: {error}; drop it once that can be written"
            ));
            false
        }
    }
}
