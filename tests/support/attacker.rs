//! Clients without manners: they begin calls and do not finish them, or do not read what they are answered.

use std::time::Duration;

use azure_emulator::Emulator;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Request, Response};
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use uuid::Uuid;

use super::broker::BrokerProcess;
use super::{ACCESS_BROKER, ONE_DAY, PLATFORM};

/// The path of an RPC of the broker's.
pub fn path(rpc: &str) -> String {
    format!("/aks.access.v1.AccessBrokerService/{rpc}")
}

/// One HTTP/2 connection.
pub struct Attacker {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A call that has begun.
pub struct Begun {
    /// What it is answered with.
    pub answer: ResponseFuture,
    /// Where its message goes.
    pub message: SendStream<Bytes>,
}

impl Attacker {
    /// Connects, and takes so many bytes of each answer.
    pub async fn connect(broker: &BrokerProcess, window: u32) -> Self {
        let address = broker.address().trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (requests, connection) = Builder::new()
            .initial_window_size(window)
            .initial_max_send_streams(0)
            .handshake(stream)
            .await
            .expect("HTTP/2");
        Self {
            requests,
            connection: tokio::spawn(connection),
        }
    }

    /// Begins a call, as far as its headers.
    pub async fn begin(&mut self, path: &str, token: Option<&str>) -> Result<Begun, h2::Error> {
        let mut request = Request::post(format!("http://broker{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).expect("a request");
        let ready = self.requests.clone().ready().await;
        let (answer, message) = ready?.send_request(request, false)?;
        Ok(Begun { answer, message })
    }

    /// Whether the connection is open.
    pub fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }

    /// Waits until the broker has closed the connection.
    pub async fn until_closed(self) {
        let _how = self.connection.await.expect("no panic");
    }
}

impl Begun {
    /// Sends all of this as fast as the broker takes it. The call does not end.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), h2::Error> {
        while !data.is_empty() {
            self.message.reserve_capacity(data.len());
            let room = std::future::poll_fn(|context| self.message.poll_capacity(context)).await;
            let room = room.unwrap_or(Err(Reason::CANCEL.into()))?;
            let piece = data.split_to(room.min(data.len()));
            self.message.send_data(piece, false)?;
        }
        Ok(())
    }

    /// The status that the call is refused with in its headers; `None` where it is answered otherwise, or not at all.
    pub async fn refusal(&mut self) -> Option<Status> {
        let answer: Response<_> = (&mut self.answer).await.ok()?;
        Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)
    }
}

/// The token of an application of the tenant's that nobody has heard of, with these app roles.
pub fn token_of(emulator: &Emulator, application: Uuid, roles: &[&str]) -> String {
    let claims = emulator.claims(PLATFORM, &ACCESS_BROKER.to_string());
    let mut claims = claims.expect("somebody in the directory");
    claims.exp = claims.iat + ONE_DAY;
    claims.oid = application;
    claims.sub = application.to_string();
    claims.appid = claims.appid.map(|_| application);
    claims.azp = claims.azp.map(|_| application);
    claims.roles = roles.iter().map(ToString::to_string).collect();
    emulator.sign(&claims).expect("a token")
}

/// The most memory that a broker has had, in bytes.
pub fn peak_memory(broker: &BrokerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.expect("its peak").trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * 1024
}

/// No test waits for longer for what is to come.
pub const SOON: Duration = Duration::from_mins(1);
