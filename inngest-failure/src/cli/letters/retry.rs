//! `dead-letters retry`.

use std::{collections::HashSet, path::Path};

use super::{Begun, Wanted, begin, line, open_ledger, remove, tell};
use crate::{
    cli::{
        Fatal, Outcome, Program, args,
        dispatch::{Captured, Engine},
        ledger::{Ledger, Status},
        output::{self, tidy},
        stop::Stop,
    },
    dead_letter::{DeadLetter, JsonLines},
    dispatcher::{DispatcherBuilder, HandlerRun},
};

/// What came of one letter.
enum Retried {
    Succeeded,
    /// Its handler had succeeded before.
    Done,
    Failed(String),
}

pub(super) async fn retry(
    builder: DispatcherBuilder,
    program: &Program,
    file: &JsonLines,
    which: &args::Which,
    ledger: &Path,
) -> Result<Outcome, Fatal> {
    let Some(Begun { wanted, number, _lock }) = begin(file, which)? else {
        return Ok(Outcome::Well);
    };
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

/// Whether the handler has succeeded for the event since the letter was written.
async fn is_done(ledger: &Ledger, letter: &DeadLetter) -> Result<bool, String> {
    let known = ledger.look(letter.event_id()).await;
    let known = known.map_err(|error| format!("the ledger can't be read: {error}"))?;
    Ok(matches!(known.get(&letter.handler_id), Some(Status::Succeeded)))
}
