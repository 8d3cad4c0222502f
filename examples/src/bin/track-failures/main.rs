//! Every failure of an environment, told to Datadog and to Slack.
//!
//! ```text
//! cargo run -p examples --bin track-failures
//! ```

mod datadog;
mod post;
mod receiver;
mod slack;

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use examples::{
    events::{self, Numbered},
    tidy,
};
use inngest_failure::{Backoff, Dashboard, Dispatch, Dispatcher, HandlerRun, RunError, handlers};
use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;

use crate::{
    datadog::{Datadog, to_datadog},
    post::{Client, Secret, Url},
    receiver::Receiver,
    slack::{Slack, to_slack},
};

/// Tells Datadog and Slack of failed runs, each no more often than it should be
///
/// Without a setting both are a server of this program's own, on this machine, and what
/// it gets is printed
#[derive(Parser)]
#[command(name = "track-failures", after_help = AFTER_HELP, verbatim_doc_comment)]
struct Cli {
    /// Failure events to read, one a line; `-` is standard input [default: the example's own]
    file: Option<PathBuf>,

    /// Where Datadog takes events, such as `https://api.datadoghq.com`; with it,
    /// DD_API_KEY must be set [default: this program]
    #[arg(long, env = "DD_URL", value_name = "ORIGIN", verbatim_doc_comment)]
    datadog_url: Option<String>,

    /// The environment of Inngest's cloud that links to runs lead to
    #[arg(long, env = "INNGEST_ENV", value_name = "NAME")]
    env: Option<String>,

    /// The self-hosted server that links to runs lead to; it goes before `--env`
    /// [default: the dev server, http://localhost:8288]
    #[arg(long, value_name = "ORIGIN", verbatim_doc_comment)]
    dashboard: Option<String>,

    /// Log failed attempts to standard error, not only failed handlers
    #[arg(short, long)]
    verbose: bool,
}

const AFTER_HELP: &str = "\
Environment:
  DD_API_KEY           the key for --datadog-url; it is not sent anywhere else
  SLACK_WEBHOOK_URL    the incoming webhook to post to [default: this program]
Neither is an option, for other users of a machine may see a command line.

Exit status:
  0  everyone was told, or was told enough by their rate limit
  1  somebody was not told, or a line was no failure event
  2  the command line, the environment or a file is wrong

Examples:
  track-failures failures.jsonl
  DD_API_KEY=.. track-failures --datadog-url https://api.datadoghq.eu --env production -";

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

/// Returns whether everyone was told who was to be.
async fn run(cli: Cli) -> Result<bool, Box<dyn Error>> {
    let level = if cli.verbose { LevelFilter::INFO } else { LevelFilter::ERROR };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    let (name, events) = open(cli.file.as_deref())?;

    let receiver = Receiver::start().await?;
    let client = Client::new();
    let dashboard = match (&cli.dashboard, &cli.env) {
        (Some(origin), _) => Dashboard::self_hosted(origin),
        (None, Some(env)) => Dashboard::cloud(env),
        (None, None) => Dashboard::dev(),
    };
    let datadog = match &cli.datadog_url {
        Some(origin) => Datadog::new(client.clone(), Url::new("--datadog-url", origin)?, key()?),
        None => Datadog::new(client.clone(), receiver.url("")?, Secret::new("example")),
    };
    let webhook = match secret("SLACK_WEBHOOK_URL")? {
        Some(url) => Url::new("SLACK_WEBHOOK_URL", &url)?,
        None => receiver.url("/services/example")?,
    };

    let dispatcher = Dispatcher::builder()
        // The library that this program shares with other examples has the shop's handlers, which are not meant here.
        .without_inventory()
        .register(handlers![to_datadog, to_slack])
        .state(dashboard)
        .state(datadog)
        .state(Slack::new(client, webhook))
        .backoff(Backoff::new().first(Duration::from_millis(100)))
        .build()?;

    let mut all_told = true;
    // Reading blocks this task, which has nothing else to do meanwhile.
    for (line, event) in events {
        let place = format!("{name}:{line}");
        match event {
            Ok(event) => {
                let dispatch = dispatcher.dispatch(event).await;
                all_told &= !dispatch.runs.iter().any(is_failed);
                print(&format!("{}{}\n", outcome(&place, &dispatch), receiver.received()))?;
            }
            Err(fault) => {
                all_told = false;
                eprintln!("{place}: {fault}");
            }
        }
    }
    Ok(all_told)
}

/// The name of what the events come from, and the events.
fn open(file: Option<&Path>) -> Result<(String, Box<dyn Iterator<Item = Numbered>>), String> {
    let Some(path) = file else {
        return Ok((events::SHIPPED.to_owned(), Box::new(events::shipped())));
    };
    if path.as_os_str() == "-" {
        return Ok(("stdin".to_owned(), Box::new(events::read(io::stdin().lock()))));
    }
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((name, Box::new(events::read(BufReader::new(file))))),
        Err(error) => {
            Err(format!("cannot read `{name}`: {error}; name a file of failure events, or `-`"))
        }
    }
}

/// A line for the failure, and one for each handler.
fn outcome(place: &str, dispatch: &Dispatch) -> String {
    let mut text = format!("{place} {}\n", tidy(&dispatch.function_id, 60));
    for run in &dispatch.runs {
        let outcome = match &run.result {
            Ok(Value::String(text)) => tidy(text, 100),
            Ok(value) => tidy(&value.to_string(), 100),
            Err(RunError::RateLimited) => "rate-limited, not sent".to_owned(),
            Err(error) => tidy(&format!("failed: {error}"), 200),
        };
        let times = if run.attempts == 1 { "attempt" } else { "attempts" };
        text += &format!("  {:10} {} {times}, {outcome}\n", run.handler_id, run.attempts);
    }
    text
}

/// Whether somebody was not told who was to be: what a rate limit drops, it is there to drop.
fn is_failed(run: &HandlerRun) -> bool {
    matches!(&run.result, Err(error) if !matches!(error, RunError::RateLimited))
}

fn key() -> Result<Secret, String> {
    let key = secret("DD_API_KEY")?;
    key.map(Secret::new).ok_or_else(|| {
        "there is no key for `--datadog-url`; set `DD_API_KEY` to one of Datadog's API keys"
            .to_owned()
    })
}

/// What the variable holds, if it is set. Its error is of our own making: the standard library's has the value in it.
fn secret(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(format!("`{name}` is not UTF-8; copy it once more from where it was shown"))
        }
    }
}

/// As `print!`, but a reader that has seen enough, such as `head`, is not an error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
