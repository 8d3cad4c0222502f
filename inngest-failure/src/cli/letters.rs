//! `dead-letters`.

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::{
    Fatal, Outcome, Program, args,
    dispatch::{Captured, Engine},
    ledger::{Ledger, Record, Status},
    output::{self, tidy},
    stop::Stop,
};
use crate::{
    dead_letter::{DeadLetter, JsonLines, private, rfc3339},
    dispatcher::{DispatcherBuilder, HandlerRun},
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

/// Which letters are meant.
enum Wanted<'a> {
    Named(&'a [String]),
    OfHandler(&'a str),
    All,
}

/// What is said if there is none of them.
fn none(which: &args::Which) -> String {
    match &which.handler {
        Some(handler) => format!("no dead letters of handler `{handler}`\n"),
        None => "no dead letters\n".to_owned(),
    }
}

impl<'a> Wanted<'a> {
    fn of(which: &'a args::Which) -> Self {
        match &which.handler {
            Some(handler) => Self::OfHandler(handler),
            None if which.all => Self::All,
            None => Self::Named(&which.which),
        }
    }

    /// The place of the name that means the letter, if names are given.
    fn name_of(&self, letter: &DeadLetter) -> Option<usize> {
        let Self::Named(names) = self else { return None };
        let name = name(letter);
        let means =
            |wanted: &String| !wanted.is_empty() && name.starts_with(&wanted.to_ascii_lowercase());
        names.iter().position(means)
    }

    fn means(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::OfHandler(handler) => letter.handler_id == *handler,
            Self::Named(_) => self.name_of(letter).is_some(),
        }
    }

    /// How many letters are meant. Each that is named is there, once.
    fn check(&self, file: &JsonLines) -> Result<u64, Fatal> {
        let mut number = 0;
        let mut hits = match self {
            Self::Named(names) => vec![0; names.len()],
            _ => Vec::new(),
        };
        for letter in self.letters(file)? {
            number += 1;
            if let Some(name) = self.name_of(&letter?) {
                hits[name] += 1;
            }
        }
        let Self::Named(names) = self else { return Ok(number) };
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
        Ok(number)
    }

    /// The letters that are meant, in the order of the file, each read when it is its turn.
    fn letters(
        &self,
        file: &JsonLines,
    ) -> Result<impl Iterator<Item = io::Result<DeadLetter>>, Fatal> {
        let is_meant = |letter: &io::Result<DeadLetter>| {
            letter.as_ref().map_or(true, |letter| self.means(letter))
        };
        Ok(file.letters()?.filter(is_meant))
    }
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
    let _lock = lock(file)?;
    let wanted = Wanted::of(which);
    if wanted.check(file)? == 0 {
        output::print(&none(which))?;
        return Ok(Outcome::Well);
    }
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

/// What came of one letter.
enum Retried {
    Succeeded,
    /// Its handler had succeeded before.
    Done,
    Failed(String),
}

async fn retry(
    builder: DispatcherBuilder,
    program: &Program,
    file: &JsonLines,
    which: &args::Which,
    ledger: &Path,
) -> Result<Outcome, Fatal> {
    let _lock = lock(file)?;
    let wanted = Wanted::of(which);
    let number = wanted.check(file)?;
    if number == 0 {
        output::print(&none(which))?;
        return Ok(Outcome::Well);
    }
    // The letter of one that fails again goes to the same file. The program's own may have it as well.
    let own = builder.json_lines().filter(|own| own.path() != file.path()).cloned();
    let own =
        own.map(|own| own.keys().map(|keys| (own, keys.collect::<HashSet<_>>()))).transpose()?;
    let is_own = builder.json_lines().is_some_and(|own| own.path() == file.path());
    let builder = if is_own { builder } else { builder.dead_letters(file.clone()) };
    // A failure that was dispatched through a ledger is not to be dispatched again: neither what succeeds now, nor the
    // steps of what fails.
    let ledger = open_ledger(ledger)?;
    let captured = Captured::default();
    let builder = if ledger.is_some() { builder.dead_letters(captured.clone()) } else { builder };
    let engine = Engine::new(builder.build()?, ledger.clone(), None, captured, None);
    let stop = Stop::listen();
    let (mut succeeded, mut failed, mut done) = (0, 0, 0);
    // A handler may have run for an unhandled failure that has a letter of the handler's, too.
    let mut just_now: HashSet<(String, String)> = HashSet::new();
    let mut left: Vec<&String> = which.which.iter().collect();
    let mut is_told = true;
    for letter in wanted.letters(file)? {
        if stop.is_told() {
            let names = left.iter().map(|name| name.as_str()).collect::<Vec<_>>();
            output::say(&format!(
                "stopped with {} left; to go on: {}",
                output::count(number - succeeded - failed - done, "letter"),
                program.with_letters(&which.which, &names)
            ));
            return Ok(Outcome::Failed);
        }
        let letter = letter?;
        left.retain(|name| !Wanted::Named(std::slice::from_ref(*name)).means(&letter));
        let line = line(&letter);
        let (handler_id, event_id) = letter.key();
        let key = (handler_id.to_owned(), event_id.to_owned());
        let retried = match just_now.contains(&key) {
            true => Retried::Done,
            false => retry_one(&engine, ledger.as_ref(), &letter, &line, &mut just_now).await,
        };
        let is_removed = match retried {
            Retried::Failed(_) => true,
            _ => {
                let elsewhere = own.as_ref().filter(|(_, keys)| keys.contains(&key));
                remove(file, &letter, &line)
                    && elsewhere.is_none_or(|(own, _)| remove(own, &letter, &line))
            }
        };
        let text = match &retried {
            Retried::Succeeded => "succeeded".to_owned(),
            Retried::Done => "has succeeded since; not run".to_owned(),
            Retried::Failed(why) => why.clone(),
        };
        is_told &= tell(&format!("{line}: {text}"));
        match retried {
            Retried::Succeeded if is_removed => succeeded += 1,
            Retried::Done if is_removed => done += 1,
            _ => failed += 1,
        }
    }
    let [succeeded_text, failed_text, done_text] = [succeeded, failed, done].map(output::grouped);
    let done_text = if done > 0 { format!(", {done_text} done before") } else { String::new() };
    is_told &= tell(&format!("{succeeded_text} succeeded, {failed_text} failed{done_text}"));
    Ok(Outcome::of(failed == 0 && is_told))
}

async fn retry_one(
    engine: &Engine,
    ledger: Option<&Ledger>,
    letter: &DeadLetter,
    line: &str,
    just_now: &mut HashSet<(String, String)>,
) -> Retried {
    if let Some(ledger) = ledger {
        match is_done(ledger, letter).await {
            Ok(false) => {}
            Ok(true) => return Retried::Done,
            Err(error) => return Retried::Failed(format!("not run: {error}")),
        }
    }
    let retried = match engine.retry(letter).await {
        Ok(retried) => retried,
        Err(error) => return Retried::Failed(format!("not run: {}", tidy(&error, 300))),
    };
    let key = |run: &HandlerRun| (run.handler_id.clone(), letter.event_id().to_owned());
    just_now.extend(retried.runs.iter().filter(|run| run.result.is_ok()).map(key));
    let errors = retried.runs.iter().filter_map(|run| run.result.as_ref().err());
    let mut errors: Vec<String> = errors.map(|error| tidy(&error.to_string(), 300)).collect();
    match retried.ledger_error {
        Some(error) if retried.runs.is_empty() => errors.push(error),
        Some(error) => output::say(&format!("{line}: {error}")),
        None => {}
    }
    if letter.is_unhandled() && !retried.is_unhandled && !retried.runs.is_empty() {
        // A handler that has failed has a letter of its own by now.
        if !errors.is_empty() {
            output::say(&format!(
                "{line}: failed, and has a letter of its own now: {}",
                errors.join("; ")
            ));
        }
        return Retried::Succeeded;
    }
    if retried.is_unhandled {
        errors.push("still unhandled".to_owned());
    }
    match errors.is_empty() {
        true => Retried::Succeeded,
        false => Retried::Failed(format!("failed again: {}", errors.join("; "))),
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

/// Whether the handler has succeeded for the event since the letter was written.
async fn is_done(ledger: &Ledger, letter: &DeadLetter) -> Result<bool, String> {
    let known = ledger.look(letter.event_id()).await;
    let known = known.map_err(|error| format!("the ledger can't be read: {error}"))?;
    Ok(matches!(known.get(&letter.handler_id), Some(Status::Succeeded)))
}
