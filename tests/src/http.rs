//! Real HTTP on loopback: a server for an endpoint, one that plays Inngest's API, and a client for both.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use inngest_failure::serve::Endpoint;
use sha2::Sha256;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Where the endpoint is mounted, as far as anybody says.
pub const PATH: &str = "/api/failures";

/// The signing key of these tests.
pub const KEY: &str =
    "signkey-test-a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
/// Another one.
pub const OTHER_KEY: &str =
    "signkey-test-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A server that stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves an endpoint.
    pub async fn start(endpoint: Endpoint) -> Self {
        let service = TowerToHyperService::new(endpoint);
        Self::listen(move |stream| {
            let connection =
                server::conn::http1::Builder::new().serve_connection(stream, service.clone());
            // A client that goes away in the middle is its own affair.
            async { drop(connection.await) }
        })
        .await
    }

    async fn listen<F>(serve: impl Fn(TokioIo<TcpStream>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(TokioIo::new(stream)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, task }
    }

    /// Its scheme, host and port.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request over a connection of its own.
    pub async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        send(self.address, request).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends a request over a connection of its own, with the `Host` that it goes to unless it has one.
pub async fn send(address: SocketAddr, mut request: Request<Bytes>) -> Response<Bytes> {
    let host = address.to_string().parse().unwrap();
    request.headers_mut().entry("host").or_insert(host);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(parts, body)
}

/// A server that plays Inngest's API: it gives prepared answers, and notes what it is asked.
#[derive(Debug)]
pub struct Api {
    server: Server,
    received: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Api {
    /// The answers to the first requests, in their order; any further one is answered with 500.
    pub async fn start(answers: &[(u16, &str)]) -> Self {
        Self::start_late(answers, Duration::ZERO).await
    }

    /// The same, each answer only after this time.
    pub async fn start_late(answers: &[(u16, &str)], delay: Duration) -> Self {
        let answers: VecDeque<(u16, Bytes)> = answers
            .iter()
            .map(|(status, body)| (*status, Bytes::copy_from_slice(body.as_bytes())))
            .collect();
        let answers = Mutex::new(answers);
        let next = move |_: &Request<Bytes>| {
            answers.lock().unwrap().pop_front().unwrap_or((500, "no more answers".into()))
        };
        Self::play(next, delay).await
    }

    /// One that answers each request as this says.
    pub async fn start_with(
        answer: impl Fn(&Request<Bytes>) -> (u16, Bytes) + Send + Sync + 'static,
    ) -> Self {
        Self::play(answer, Duration::ZERO).await
    }

    async fn play(
        answer: impl Fn(&Request<Bytes>) -> (u16, Bytes) + Send + Sync + 'static,
        delay: Duration,
    ) -> Self {
        let answer = Arc::new(answer);
        let received = Arc::<Mutex<Vec<Request<Bytes>>>>::default();
        let log = Arc::clone(&received);
        let server = Server::listen(move |stream| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let request = Request::from_parts(parts, body);
                    let (status, body) = answer(&request);
                    log.lock().unwrap().push(request);
                    tokio::time::sleep(delay).await;
                    let response = Response::builder().status(status).body(Full::new(body));
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let connection = server::conn::http1::Builder::new().serve_connection(stream, service);
            async { drop(connection.await) }
        })
        .await;
        Self { server, received }
    }

    /// Its scheme, host and port.
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// What it was asked.
    pub fn received(&self) -> Vec<Request<Bytes>> {
        self.received.lock().unwrap().clone()
    }
}

/// An origin where nobody listens.
pub fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The value of `x-inngest-signature` for a body that is signed so many seconds from now.
pub fn signature(key: &str, body: &[u8], from_now: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = now.as_secs().saturating_add_signed(from_now).to_string();
    let secret = key.rsplit('-').next().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    mac.update(time.as_bytes());
    format!("t={time}&s={}", hex::encode(mac.finalize().into_bytes()))
}

/// A call of a function by its synced id, unsigned.
pub fn call(function: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("{PATH}?fnId={function}&stepId=step"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

/// The request, signed now with this key.
pub fn signed(mut request: Request<Bytes>, key: &str) -> Request<Bytes> {
    let signature = signature(key, request.body(), 0);
    request.headers_mut().insert("x-inngest-signature", signature.parse().unwrap());
    request
}

/// A header's value; empty if there is none.
pub fn header<'a, B>(response: &'a Response<B>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The body as JSON.
#[track_caller]
pub fn json(response: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(response.body())
        .unwrap_or_else(|error| panic!("{error}: {:?}", response.body()))
}

/// Waits until something is so, for ten seconds at most.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("not {what}"));
}
