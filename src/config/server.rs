//! `server`: how callers reach the broker, and how much they may ask of it at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `server`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where gRPC is served. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
    /// The largest message that is taken, in bytes. RPCs have smaller bounds of their own.
    pub max_message_bytes: usize,
    /// How many connections may be open at once; whoever comes then waits until another goes.
    pub max_connections: usize,
    /// How many connections one peer address may have; `None`: as many as there are. Behind an ingress all callers share
    /// its address.
    pub max_connections_per_address: Option<usize>,
    /// How long a connection takes new calls, and up to a tenth more; `None`: for ever. Clients connect anew then, and
    /// find replicas that have been added.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Option<Duration>,
    /// How long the calls of a connection may go on after `max_connection_age`.
    #[serde(with = "humantime_serde")]
    pub max_connection_age_grace: Duration,
    /// How many bytes of messages, decoded ones too, and of answers that their callers have not taken may be there at
    /// once.
    pub max_bytes_in_flight: usize,
    /// How many calls may be under way at once; more are answered `RESOURCE_EXHAUSTED` at once. Health and
    /// reflection are not counted.
    pub max_in_flight: usize,
    /// How many streams (`WatchJob`) may be open at once. They are not counted among the calls.
    pub max_streams: usize,
    /// How long a call may take where the caller sets no shorter deadline. A stream may be open for longer,
    /// and waits so long for a Redis that has gone away.
    #[serde(with = "humantime_serde")]
    pub max_deadline: Duration,
    /// How long what is under way, calls of callers and calls to Azure, may still take once the broker was
    /// told to end. Longer than `azure.call_timeout`, and nothing is cut off.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Whether server reflection is served, to whoever asks: the contract, and nothing of what it is about.
    pub reflection: bool,
    /// The certificate that gRPC is served with.
    pub tls: Option<Tls>,
    /// Without `tls`, gRPC is served in plain text, which whoever is on the way can read and change, callers' tokens
    /// too. Only where a service mesh, or nothing but this machine, is on the way; `serve` starts only where this says
    /// so.
    pub allow_plaintext: bool,
}

/// `server.tls`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The file with the certificate and those that lead to its authority, in PEM. It is read anew, as are the others,
    /// so that a renewed one is taken.
    pub certificate_file: PathBuf,
    /// The file with its private key, in PEM.
    pub key_file: PathBuf,
    /// The file with the authorities of client certificates, in PEM: a caller that has one of theirs needs no token.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            max_message_bytes: 1024 * 1024,
            max_connections: 10_000,
            max_connections_per_address: None,
            max_connection_age: None,
            max_connection_age_grace: Duration::from_secs(30),
            max_bytes_in_flight: 64 * 1024 * 1024,
            max_in_flight: 1024,
            max_streams: 1024,
            max_deadline: Duration::from_secs(30),
            drain: Duration::from_secs(25),
            reflection: true,
            tls: None,
            allow_plaintext: false,
        }
    }
}
