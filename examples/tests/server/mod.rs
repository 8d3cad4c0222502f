//! A program that serves handlers, run as its users run it and called as Inngest calls it.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long to wait for what takes an instant, so that a test that would hang fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program, with nothing of Inngest's in its environment.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("INNGEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// A program that runs until the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of ours, on a port that was free.
pub(crate) struct Server {
    running: Running,
    /// `127.0.0.1:3000`.
    pub(crate) authority: String,
    path: String,
    /// The lines of its log.
    log: Receiver<String>,
}

impl Server {
    /// Starts the program in dev mode.
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        Self::spawn(command(program, args).env("INNGEST_DEV", "1"))
    }

    /// Runs the command, and waits until it listens.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut running = Running { child: command.spawn().unwrap() };
        let stderr = BufReader::new(running.child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        thread::spawn(move || stderr.lines().try_for_each(|line| sender.send(line.unwrap())));

        let mut line = String::new();
        BufReader::new(running.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim_end().strip_prefix("listening on http://") else {
            panic!("{command:?} does not listen: {line}{:?}", log.iter().collect::<Vec<_>>());
        };
        let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
        let (authority, path) = (authority.to_owned(), path.to_owned());
        Self { running, authority, path, log }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.authority).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The head of a request that is the last on its connection.
    pub(crate) fn head(&self, method: &str, query: &str, more: &str) -> String {
        let Self { authority, path, .. } = self;
        let path = if path.is_empty() { "/" } else { path };
        format!(
            "{method} {path}{query} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n{more}\r\n"
        )
    }

    /// Sends a request with these headers besides those that it must have.
    pub(crate) fn send(&self, method: &str, query: &str, more: &str, body: &str) -> Response {
        let length = format!("content-length: {}\r\n", body.len());
        let head = self.head(method, query, &format!("{more}{length}"));
        let mut stream = self.connect();
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        Response::read(stream)
    }

    pub(crate) fn get(&self) -> Response {
        self.send("GET", "", "", "")
    }

    /// Calls a function as Inngest does.
    pub(crate) fn call(&self, function: &str, body: &str) -> Response {
        self.send("POST", &format!("?fnId={function}&stepId=step"), "", body)
    }

    /// Reads the log up to a line that has this text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return,
                Ok(_) => {}
                Err(error) => panic!("{text:?} is not logged: {error}"),
            }
        }
    }

    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.running.child), Signal::TERM).unwrap();
    }

    #[cfg(unix)]
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        // The log ends with the program.
        let end = loop {
            if let Err(end) = self.log.recv_timeout(PATIENCE) {
                break end;
            }
        };
        assert_eq!(end, mpsc::RecvTimeoutError::Disconnected, "it does not end");
        self.running.child.wait().unwrap().code()
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Reads to the end of the connection.
    pub(crate) fn read(mut stream: impl Read) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("no answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// What was done with which step, in an answer about one.
    pub(crate) fn operation(&self) -> (String, String) {
        let operations = self.json();
        assert_eq!(operations.as_array().map(Vec::len), Some(1), "{operations}");
        let text = |field: &str| operations[0][field].as_str().unwrap().to_owned();
        (text("op"), text("displayName"))
    }
}

/// The head and the body of an HTTP request.
pub(crate) fn read_request(requests: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let lines = requests.by_ref().lines().map(Result::unwrap);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    head.first()?;
    let mut length = None;
    for line in &head[1..] {
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = Some(value.parse().unwrap());
        }
        assert!(!line.starts_with("transfer-encoding"), "{line}");
    }
    let mut body = vec![0; length.unwrap_or(0)];
    requests.read_exact(&mut body).unwrap();
    Some((head.join("\n"), body))
}
