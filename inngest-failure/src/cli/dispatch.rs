//! `dispatch`: failure events from files through the handlers, each once.

mod engine;
mod progress;
mod report;

use std::{collections::HashSet, time::SystemTime};

use tokio::{sync::mpsc, task::JoinSet};

pub(super) use self::engine::{Captured, Engine};
use self::{engine::Done, progress::Progress, report::Report};
use super::{
    Fatal, Outcome, Program, args,
    input::{self, Entry, Found, Place, Source},
    ledger::Ledger,
    output,
    stop::Stop,
};
use crate::{
    api::Api,
    dead_letter::rfc3339,
    dispatcher::{Dispatcher, DispatcherBuilder},
    event::FailureEvent,
    suggest::nearest,
};

pub(super) async fn run(
    builder: DispatcherBuilder,
    program: &Program,
    args: args::Dispatch,
) -> Result<Outcome, Fatal> {
    let sources = args.files.iter().map(Source::open).collect::<Result<Vec<_>, _>>()?;
    let dry_run = args.run.dry_run;
    let job = Job::new(builder, args.run, args.since)?;
    let since = args.since.map(|since| ("--since", Some(rfc3339(since))));
    let mut command = program.with(since.as_slice()).to_string();
    if args.files.iter().any(|file| file.as_os_str() == "-") {
        command += " (and the same input again)";
    }
    let again = Again { command, label: "dispatched" };
    let mode = if dry_run { Mode::DryRun } else { Mode::Run(&again) };
    job.run(sources, mode, &Stop::listen()).await
}

/// Handlers that are to run for many failures.
pub(super) struct Job {
    engine: Engine,
    concurrency: usize,
    since: Option<SystemTime>,
}

/// What to do with the failures.
#[derive(Clone, Copy)]
pub(super) enum Mode<'a> {
    Run(&'a Again),
    /// Only say which handlers would run for each.
    DryRun,
    /// Only say which handlers would run how often.
    Preview,
}

/// How to go on with a job.
pub(super) struct Again {
    pub(super) command: String,
    /// What has become of failures that are done.
    pub(super) label: &'static str,
}

impl Job {
    /// Checks everything before anything runs.
    pub(super) fn new(
        mut builder: DispatcherBuilder,
        run: args::Run,
        since: Option<SystemTime>,
    ) -> Result<Self, Fatal> {
        let captured = Captured::default();
        let letters = builder.json_lines().cloned();
        if !run.no_ledger {
            builder = builder.dead_letters(captured.clone());
        }
        let dispatcher = builder.build()?;
        check_only(&dispatcher, &run.only)?;
        let path = &run.ledger.ledger;
        // To look at what would run makes no file.
        let ledger = match run.no_ledger || (run.dry_run && !path.exists()) {
            true => None,
            false => Some(Ledger::open(path)?),
        };
        let only = (!run.only.is_empty()).then(|| run.only.into_iter().collect());
        let path = letters.as_ref().map(|letters| letters.path().display().to_string());
        let engine = Engine::new(dispatcher, ledger, only, captured, letters);
        let engine = engine.with_earlier_letters().map_err(|error| {
            let path = path.unwrap_or_default();
            Fatal::new(format!("can't read the dead letters in `{path}`: {error}"))
        })?;
        Ok(Self { engine, concurrency: run.concurrency.into(), since })
    }

    /// The API of the dispatcher, or of the environment.
    pub(super) fn api(&self) -> Result<Api, Fatal> {
        match self.engine.dispatcher().api() {
            Some(api) => Ok(api.clone()),
            None => Ok(Api::from_env()?),
        }
    }

    /// Does it with all that is in the files.
    pub(super) async fn run(
        &self,
        sources: Vec<Source>,
        mode: Mode<'_>,
        stop: &Stop,
    ) -> Result<Outcome, Fatal> {
        let bytes = sources.iter().map(|source| source.bytes).sum::<Option<u64>>();
        let label = if let Mode::Run(again) = mode { again.label } else { "looked at" };
        let mut work = Work {
            job: self,
            mode,
            progress: Progress::new(bytes, label),
            report: Report::default(),
            running: JoinSet::new(),
            in_flight: HashSet::new(),
            held: None,
            stop_reason: None,
        };
        let ended = work.do_all(input::read(sources)?, stop.clone()).await;
        let is_run = matches!(mode, Mode::Run(_));
        if !is_run {
            ended?;
        } else if let Err(Fatal(error)) = ended {
            work.stop_reason.get_or_insert(error);
        }
        let Work { progress, report, stop_reason, .. } = work;
        progress.end();
        let mut is_told = true;
        let printed = output::print(&report.to_string());
        if !is_run {
            printed?;
        } else if let Err(Fatal(error)) = &printed {
            output::say(error);
            is_told = false;
        }
        if let Some(reason) = &stop_reason {
            output::say(&format!(
                "{reason} after {}",
                output::count(report.events(), "failure event")
            ));
        }
        if let Mode::Run(Again { command, .. }) = mode {
            match (stop_reason.is_some(), self.engine.has_ledger()) {
                (true, true) => {
                    output::say(&format!("to go on with what is not done yet: {command}"));
                }
                (true, false) => {
                    output::say(&format!("there is no ledger, so this begins anew: {command}"));
                }
                (false, true) if report.failed_runs() > 0 => {
                    output::say(&format!(
                        "to run what has failed once more, and nothing else: {command}"
                    ));
                }
                (false, _) => {}
            }
        }
        Ok(Outcome::of(stop_reason.is_none() && report.is_well() && is_told))
    }
}

fn check_only(dispatcher: &Dispatcher, only: &[String]) -> Result<(), Fatal> {
    for id in only {
        let ids = || dispatcher.handlers().iter().map(|info| info.id.as_str());
        if !ids().any(|known| known == id) {
            let hint = match nearest(id, ids()) {
                Some(nearest) => format!("; did you mean `{nearest}`?"),
                None => "; `handlers` lists them".to_owned(),
            };
            return Err(Fatal::new(format!("there is no handler `{id}`{hint}")));
        }
    }
    Ok(())
}

/// A job that is being done.
struct Work<'a> {
    job: &'a Job,
    mode: Mode<'a>,
    progress: Progress,
    report: Report,
    running: JoinSet<(Place, String, Done)>,
    /// The ids of the events that are being handled: no handler runs twice for one at the same time.
    in_flight: HashSet<String>,
    /// An event that has to wait for another one of its id.
    held: Option<(Place, FailureEvent)>,
    /// Why no more is read, if that is so.
    stop_reason: Option<String>,
}

impl Work<'_> {
    async fn do_all(
        &mut self,
        mut entries: mpsc::Receiver<Entry>,
        mut stop: Stop,
    ) -> Result<(), Fatal> {
        let mut is_read = false;
        loop {
            let reads_on = !is_read && self.stop_reason.is_none();
            if self.running.is_empty() && !reads_on {
                return Ok(());
            }
            let has_room = self.running.len() < self.job.concurrency && self.held.is_none();
            tokio::select! {
                biased;
                () = stop.told(), if self.stop_reason.is_none() => self.stop(),
                Some(ended) = self.running.join_next() => {
                    let (place, event_id, done) =
                        ended.map_err(|error| Fatal::new(format!("a task ended early: {error}")))?;
                    self.in_flight.remove(&event_id);
                    self.end(&place, done);
                    // If the ledger is of no use any more, it would run twice.
                    if let Some((place, event)) = self.held.take()
                        && self.stop_reason.is_none()
                    {
                        self.begin(place, event);
                    }
                }
                entry = entries.recv(), if reads_on && has_room => match entry {
                    Some(entry) => self.take(entry).await?,
                    None => is_read = true,
                },
            }
        }
    }

    fn stop(&mut self) {
        self.stop_reason = Some("stopped".to_owned());
        self.held = None;
        if !self.running.is_empty() {
            let in_flight = output::count(self.running.len() as u64, "failure");
            self.progress.say(&format!(
                "stopping: {in_flight} in flight will be finished; Ctrl-C again stops at once"
            ));
        }
    }

    async fn take(&mut self, entry: Entry) -> Result<(), Fatal> {
        let Entry { place, found, read } = entry;
        self.progress.read(read);
        match found {
            Found::Event(event) => {
                let is_older = self.job.since.is_some_and(|since| event.failed_at() < since);
                match self.mode {
                    _ if is_older => self.report.older += 1,
                    Mode::Run(_) => self.begin(place, event),
                    Mode::DryRun | Mode::Preview => self.preview(&place, &event).await?,
                }
            }
            Found::Other => self.report.others += 1,
            Found::Fault(fault) => {
                self.report.faults += 1;
                self.progress.say(&format!("{place}: {fault}"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, event: FailureEvent) {
        if !self.in_flight.insert(event.id().to_owned()) {
            self.held = Some((place, event));
            return;
        }
        let engine = self.job.engine.clone();
        self.running.spawn(async move {
            let event_id = event.id().to_owned();
            (place, event_id, engine.handle(event).await)
        });
    }

    fn end(&mut self, place: &Place, done: Done) {
        let run_id = output::tidy(&done.run_id, 40);
        for line in self.report.add(done, &mut self.stop_reason) {
            self.progress.say(&format!("{place}, run {run_id}: {line}"));
        }
        self.progress.done(&self.report);
    }

    async fn preview(&mut self, place: &Place, event: &FailureEvent) -> Result<(), Fatal> {
        let preview = self.job.engine.preview(event).await.map_err(Fatal::new)?;
        if matches!(self.mode, Mode::DryRun) {
            self.progress.hidden(|| output::print(&format!("{place}: {preview}\n")))?;
        }
        self.report.preview(preview);
        Ok(())
    }
}
