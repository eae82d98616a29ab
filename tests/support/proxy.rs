//! A TCP proxy that can hold what one side waits for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which bytes set off the hold: those that the client sends, once they contain this.
pub type Trigger = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which direction is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// What the client sends, from the bytes on that set it off.
    Requests,
    /// What the server answers.
    Answers,
    /// Cuts the connection that sets it off instead of passing on its next answer, which is lost.
    Cut,
}

/// A proxy, until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Armed,
    Holding,
    Released,
}

impl Proxy {
    /// Begins to forward to `to`; nothing is held before it is armed.
    pub async fn start(to: SocketAddr, held: Held, trigger: Trigger) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let (state, _) = watch::channel(State::Open);
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(to).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let is_cut = Arc::new(AtomicBool::new(false));
                tokio::spawn(requests(
                    from_client,
                    to_server,
                    shared.clone(),
                    held,
                    Arc::clone(&trigger),
                    Arc::clone(&is_cut),
                ));
                tokio::spawn(answers(
                    from_server,
                    to_client,
                    shared.clone(),
                    held,
                    is_cut,
                ));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next bytes that set it off are held.
    pub fn arm(&self) {
        self.state.send_replace(State::Armed);
    }

    /// Waits until something is held.
    pub async fn until_held(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|state| *state == State::Holding)
            .await
            .expect("the proxy lives");
    }

    /// Waits until the connection has been cut.
    pub async fn until_cut(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|state| *state == State::Released)
            .await
            .expect("the proxy lives");
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.state.send_replace(State::Released);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: watch::Sender<State>,
    held: Held,
    trigger: Trigger,
    is_cut: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut bytes).await {
        if length == 0 {
            return;
        }
        let chunk = &bytes[..length];
        state.send_if_modified(|state| {
            let sets_off = *state == State::Armed && trigger(chunk);
            if sets_off {
                *state = State::Holding;
                is_cut.store(held == Held::Cut, Ordering::Release);
            }
            sets_off
        });
        if held == Held::Requests && !passes(&state).await || to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: watch::Sender<State>,
    held: Held,
    is_cut: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut bytes).await {
        if length == 0 || held == Held::Answers && !passes(&state).await {
            return;
        }
        if is_cut.load(Ordering::Acquire) {
            state.send_replace(State::Released);
            return;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Waits while something is held; `false` where the proxy is gone.
async fn passes(state: &watch::Sender<State>) -> bool {
    let mut state = state.subscribe();
    state
        .wait_for(|state| *state != State::Holding)
        .await
        .is_ok()
}
