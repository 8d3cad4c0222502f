//! `backfill`: the handlers for runs that have failed before there were any.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
    time::SystemTime,
};

use futures_util::{StreamExt, stream};

use super::{
    Fatal, Outcome, Program, args,
    dispatch::{Again, Job, Mode},
    input::Source,
    output::{count, grouped, say, tidy},
    stop::Stop,
};
use crate::{
    api::{
        Api,
        runs::{Run, RunQuery},
    },
    dead_letter::{json_line, private, rfc3339},
    dispatcher::DispatcherBuilder,
    event::FailureEvent,
    trace::rebuild::failure_event,
};

/// How many traces are fetched at once.
const FETCHES: usize = 8;

pub(super) async fn run(
    builder: DispatcherBuilder,
    program: &Program,
    args: args::Backfill,
) -> Result<Outcome, Fatal> {
    let args::Backfill { since, until, function, cancelled, output, run } = args;
    let until = until.unwrap_or_else(SystemTime::now);
    if since >= until {
        return Err(Fatal::new(
            "`--since` is not before `--until`, so there is nothing between them",
        ));
    }
    let (dry_run, mut stop) = (run.dry_run, Stop::listen());
    let job = Job::new(builder, run, None)?;
    let api = job.api()?;
    let mut events = open(output.as_deref())?;

    let mut query = RunQuery::between(since, until);
    if cancelled {
        query = query.with_cancelled();
    }
    let mut found = Found::default();
    let find = find(&api, query, function.as_deref(), &mut events, &mut found);
    tokio::select! {
        result = find => result?,
        () = stop.told() => {
            say("stopped while the failed runs were listed: nothing has run");
            return Ok(Outcome::Failed);
        }
    }
    say(&found.to_string());
    if let Some(path) = &output {
        say(&format!("their failure events are in {}", path.display()));
    }

    // What would run is looked at whole, before anything does.
    let preview = job.run(vec![source(&mut events)?], Mode::Preview, &stop).await?;
    let is_complete = found.lost == 0;
    if dry_run || stop.is_told() {
        return Ok(Outcome::of(is_complete && preview == Outcome::Well));
    }
    let again = Again {
        command: program
            .with(&[
                ("--since", Some(rfc3339(since))),
                ("--until", Some(rfc3339(until))),
                ("--output", None),
            ])
            .to_string(),
        label: "backfilled",
    };
    let outcome = job.run(vec![source(&mut events)?], Mode::Run(&again), &stop).await?;
    Ok(Outcome::of(is_complete && outcome == Outcome::Well))
}

/// The file that the failure events go to before anything runs: there may be more than the memory holds.
fn open(output: Option<&Path>) -> Result<File, Fatal> {
    let Some(path) = output else {
        return tempfile::tempfile()
            .map_err(|error| Fatal::new(format!("can't make a temporary file: {error}")));
    };
    let file = private().read(true).write(true).create_new(true).open(path);
    file.map_err(|error| {
        Fatal::new(format!(
            "can't make `{}`: {error}; name a file that is not there yet",
            path.display()
        ))
    })
}

/// The failure events, from the beginning.
fn source(events: &mut File) -> Result<Source, Fatal> {
    events.seek(SeekFrom::Start(0))?;
    Ok(Source::of("failed run", events.try_clone()?))
}

/// What came of the list of failed runs.
#[derive(Default)]
struct Found {
    events: u64,
    /// Runs of other functions.
    others: u64,
    /// Runs for which Inngest sends no failure event, for one had started them.
    never_sent: u64,
    /// Runs whose failure event could not be rebuilt.
    lost: u64,
}

/// Lists the failed runs and writes their failure events.
async fn find(
    api: &Api,
    query: RunQuery,
    function: Option<&str>,
    file: &mut File,
    found: &mut Found,
) -> Result<(), Fatal> {
    let failed = |error: crate::api::ApiError| Fatal::new(error.chain());
    let mut file = BufWriter::new(file);
    let mut runs = api.failed_runs(query);
    while let Some(page) = runs.next_page().await.map_err(failed)? {
        let before = page.len();
        let wanted: Vec<Run> = page
            .into_iter()
            .filter(|run| function.is_none_or(|function| run.composite_id() == function))
            .collect();
        found.others += (before - wanted.len()) as u64;
        let events = wanted.iter().map(|run| rebuilt(api, run));
        // In the order in which the runs had failed.
        let mut events = stream::iter(events).buffered(FETCHES);
        while let Some(event) = events.next().await {
            match event {
                Rebuilt::Event(event) => {
                    found.events += 1;
                    file.write_all(&json_line(&event)?)?;
                }
                Rebuilt::NeverSent => found.never_sent += 1,
                Rebuilt::Lost(why) => {
                    found.lost += 1;
                    say(&why);
                }
            }
        }
        if found.events > 0 {
            say(&format!("{} so far", count(found.events, "failed run")));
        }
    }
    file.flush()?;
    Ok(())
}

enum Rebuilt {
    Event(FailureEvent),
    NeverSent,
    Lost(String),
}

async fn rebuilt(api: &Api, run: &Run) -> Rebuilt {
    let lost = |error: String| {
        let (run_id, function_id) = (tidy(&run.id, 40), tidy(&run.composite_id(), 100));
        Rebuilt::Lost(format!("run {run_id} of {function_id} is left out: {error}"))
    };
    match api.raw_trace(&run.id).await {
        Ok(trace) => match failure_event(run, &trace) {
            Ok(event) => Rebuilt::Event(event),
            Err(error) if error.is_never_sent() => Rebuilt::NeverSent,
            Err(error) => lost(error.to_string()),
        },
        Err(error) => lost(error.to_string()),
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&count(self.events, "failed run"))?;
        for (number, what) in [
            (self.others, "of other functions"),
            (self.never_sent, "of functions that a failure had itself started, left out"),
            (self.lost, "left out, see above"),
        ] {
            if number > 0 {
                write!(f, ", {} {what}", grouped(number))?;
            }
        }
        Ok(())
    }
}
