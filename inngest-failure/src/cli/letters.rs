//! `dead-letters`.

use std::{fs, path::Path, time::SystemTime};

use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::{
    Fatal, Outcome, Program, args,
    dispatch::{Captured, Engine},
    ledger::{Ledger, Status},
    output::{self, tidy},
    stop::Stop,
};
use crate::{
    dead_letter::{DeadLetter, JsonLines, rfc3339},
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
            let (_, found) = find(&file, &Wanted::Named(&which))?;
            for letter in found {
                output::print(&show(&letter)?)?;
            }
            Ok(Outcome::Well)
        }
        args::DeadLetters::Retry { letters, which, ledger } => {
            let file = open(&builder, &letters)?;
            retry(builder, program, &file, &which, &ledger.ledger).await
        }
        args::DeadLetters::Drop { letters, which } => {
            let file = open(&builder, &letters)?;
            let (_, found) = find(&file, &Wanted::of(&which))?;
            for letter in &found {
                file.remove(letter)?;
                output::print(&format!("dropped {}\n", line(letter)))?;
            }
            if found.is_empty() {
                output::print(&none(&which))?;
            }
            Ok(Outcome::Well)
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
        letter.handler_id,
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
            output::print(&(serde_json::to_string(&letter)? + "\n"))?;
            continue;
        }
        table.add_row([
            name(&letter)[..SHOWN].to_owned(),
            humantime::format_rfc3339_seconds(letter.failed_at.max(SystemTime::UNIX_EPOCH))
                .to_string(),
            letter.handler_id.clone(),
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

/// Which letters are meant.
enum Wanted<'a> {
    Named(&'a [String]),
    OfHandler(&'a str),
    All,
}

impl<'a> Wanted<'a> {
    fn of(which: &'a args::Which) -> Self {
        match &which.handler {
            Some(handler) => Self::OfHandler(handler),
            None if which.all => Self::All,
            None => Self::Named(&which.which),
        }
    }
}

/// What is said if there is none of them.
fn none(which: &args::Which) -> String {
    match &which.handler {
        Some(handler) => format!("no dead letters of handler `{handler}`\n"),
        None => "no dead letters\n".to_owned(),
    }
}

/// The letters that are meant, in the order of the file, and how many there are in all. Each that is named is there, once.
fn find(file: &JsonLines, wanted: &Wanted<'_>) -> Result<(u64, Vec<DeadLetter>), Fatal> {
    let (mut number, mut found) = (0, Vec::new());
    let mut hits: Vec<u32> = match wanted {
        Wanted::Named(names) => vec![0; names.len()],
        _ => Vec::new(),
    };
    for letter in file.letters()? {
        let letter = letter?;
        number += 1;
        let is_wanted = match wanted {
            Wanted::All => true,
            Wanted::OfHandler(handler) => letter.handler_id == *handler,
            Wanted::Named(names) => {
                let name = name(&letter);
                let mut is_named = false;
                for (i, wanted) in names.iter().enumerate() {
                    if !wanted.is_empty() && name.starts_with(&wanted.to_ascii_lowercase()) {
                        hits[i] += 1;
                        is_named = true;
                    }
                }
                is_named
            }
        };
        if is_wanted {
            found.push(letter);
        }
    }
    if let Wanted::Named(names) = wanted {
        for (name, hits) in names.iter().zip(hits) {
            match hits {
                1 => {}
                0 => {
                    return Err(Fatal::new(format!(
                        "there is no dead letter `{name}` in `{}`; `dead-letters list` shows those that there are",
                        file.path().display()
                    )));
                }
                _ => {
                    return Err(Fatal::new(format!(
                        "`{name}` is the beginning of {hits} dead letters' names; give more of it"
                    )));
                }
            }
        }
    }
    Ok((number, found))
}

async fn retry(
    builder: DispatcherBuilder,
    program: &Program,
    file: &JsonLines,
    which: &args::Which,
    ledger: &Path,
) -> Result<Outcome, Fatal> {
    let (_, found) = find(file, &Wanted::of(which))?;
    if found.is_empty() {
        output::print(&none(which))?;
        return Ok(Outcome::Well);
    }
    // The letter of one that fails again goes to the same file.
    let is_own = builder.json_lines().is_some_and(|own| own.path() == file.path());
    let builder = if is_own { builder } else { builder.dead_letters(file.clone()) };
    // A failure that was dispatched through a ledger is not to be dispatched again: neither what succeeds now, nor the
    // steps of what fails.
    let ledger = ledger.exists().then(|| Ledger::open(ledger)).transpose()?;
    let captured = Captured::default();
    let builder = if ledger.is_some() { builder.dead_letters(captured.clone()) } else { builder };
    let dispatcher = builder.build()?;
    let engine = Engine::new(dispatcher, ledger.clone(), None, captured, None);
    let stop = Stop::listen();
    let (mut succeeded, mut failed, mut done) = (0, 0, 0);
    for letter in &found {
        if stop.is_told() {
            let left = found.len() as u64 - succeeded - failed - done;
            eprintln!("stopped with {} left; to go on: {program}", output::count(left, "letter"));
            return Ok(Outcome::Failed);
        }
        let line = line(letter);
        if let Some(ledger) = &ledger {
            match is_done(ledger, letter).await {
                Ok(false) => {}
                Ok(true) => {
                    let text = "has succeeded since, as the ledger says; not run";
                    output::print(&format!("{line}: {text}\n"))?;
                    match remove(file, letter, &line) {
                        true => done += 1,
                        false => failed += 1,
                    }
                    continue;
                }
                Err(error) => {
                    failed += 1;
                    output::print(&format!("{line}: not run: {error}\n"))?;
                    continue;
                }
            }
        }
        let retried = match engine.retry(letter).await {
            Ok(retried) => retried,
            Err(error) => {
                failed += 1;
                output::print(&format!("{line}: not run: {error}\n"))?;
                continue;
            }
        };
        let errors = retried.runs.iter().filter_map(|run| run.result.as_ref().err());
        let mut errors: Vec<String> = errors.map(|error| tidy(&error.to_string(), 300)).collect();
        if retried.is_unhandled {
            errors.push("still unhandled".to_owned());
        }
        match &retried.ledger_error {
            Some(error) if retried.runs.is_empty() => errors.push(error.clone()),
            Some(error) => eprintln!("{line}: {error}"),
            None => {}
        }
        if !errors.is_empty() {
            failed += 1;
            output::print(&format!("{line}: failed again: {}\n", errors.join("; ")))?;
            continue;
        }
        output::print(&format!("{line}: succeeded\n"))?;
        match remove(file, letter, &line) {
            true => succeeded += 1,
            false => failed += 1,
        }
    }
    let [succeeded_text, failed_text, done_text] = [succeeded, failed, done].map(output::grouped);
    let done_text = if done > 0 { format!(", {done_text} done before") } else { String::new() };
    output::print(&format!("{succeeded_text} succeeded, {failed_text} failed{done_text}\n"))?;
    Ok(Outcome::of(failed == 0))
}

/// Takes a letter out of the file. If that can't be done, what has run has run all the same.
fn remove(file: &JsonLines, letter: &DeadLetter, line: &str) -> bool {
    match file.remove(letter) {
        Ok(()) => true,
        Err(error) => {
            let path = file.path().display();
            eprintln!(
                "{line}: it can't be taken out of `{path}`: {error}; drop it once that can be written"
            );
            false
        }
    }
}

/// Whether the handler has succeeded for the event since the letter was written.
async fn is_done(ledger: &Ledger, letter: &DeadLetter) -> Result<bool, String> {
    let known = ledger.look(letter.event_id()).await;
    let known = known.map_err(|error| format!("the ledger can't be read: {error}"))?;
    Ok(matches!(known.get(&letter.handler_id), Some(Status::Succeeded)))
}
