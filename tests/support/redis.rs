//! A real `redis-server`, as durable as I1 asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// A Redis of this test's own; ended with it.
pub struct RedisServer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl RedisServer {
    /// Starts one that keeps its data in `dir`, and waits until it takes connections. `settings` come after
    /// the durable ones, and win.
    pub async fn start(dir: &Path, settings: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("Redis's directory");
        // Another process may take a port between the look for it and Redis's own: then another will do.
        for _ in 0..5 {
            let port = free_port().await;
            if let Some(child) = run(dir, port, settings).await {
                return Self {
                    child,
                    port,
                    dir: dir.to_owned(),
                };
            }
        }
        panic!("redis-server ended five times before it took connections");
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash would, and leaves its data.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("Redis was running");
    }

    /// Sends it a signal by name: with `STOP` it takes connections and answers nothing, until `CONT`.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("Redis runs");
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string())
            .status();
        assert!(
            sent.await.expect("kill").success(),
            "no Redis to send {name} to"
        );
    }

    /// Sends it a command, in words between blanks.
    pub async fn tell(&self, command: &str) {
        let mut words = command.split(' ');
        let mut sent = ::redis::cmd(words.next().expect("a command"));
        sent.arg(words.collect::<Vec<_>>());
        let mut connection = self.connection().await;
        sent.exec_async(&mut connection)
            .await
            .expect("Redis does it");
    }

    /// Starts it again on the same port with the same data.
    pub async fn start_again(&mut self) {
        let child = run(&self.dir, self.port, &[]).await;
        self.child = child.expect("Redis takes connections again");
    }

    /// Starts another one on the same port, which keeps its data in `dir`.
    pub async fn replace(&mut self, dir: &Path) {
        self.kill().await;
        dir.clone_into(&mut self.dir);
        std::fs::create_dir_all(dir).expect("Redis's directory");
        self.start_again().await;
    }

    /// Everything that is kept, to be put back.
    pub async fn backup(&self) -> Vec<Backup> {
        let mut connection = self.connection().await;
        let keys: Vec<String> = ::redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await
            .expect("the keys");
        let mut everything = Vec::new();
        for key in keys {
            let (value, life): (Option<Vec<u8>>, i64) = ::redis::pipe()
                .cmd("DUMP")
                .arg(&key)
                .pttl(&key)
                .query_async(&mut connection)
                .await
                .expect("a value");
            let life = u64::try_from(life).unwrap_or_default();
            everything.extend(value.map(|value| Backup { key, life, value }));
        }
        everything
    }

    /// Puts everything back, in one step, in the place of what is there.
    pub async fn restore(&self, everything: &[Backup]) {
        let mut restored = ::redis::pipe();
        restored.atomic().cmd("FLUSHALL");
        for Backup { key, life, value } in everything {
            restored.cmd("RESTORE").arg(key).arg(life).arg(value);
        }
        let mut connection = self.connection().await;
        restored
            .exec_async(&mut connection)
            .await
            .expect("Redis takes it");
    }

    /// A connection, to look at what is kept.
    pub async fn connection(&self) -> ::redis::aio::MultiplexedConnection {
        let client = ::redis::Client::open(self.url()).expect("Redis's address");
        // The client's own half a second is not enough on a machine that has other things to do.
        let patient = ::redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(Duration::from_secs(30)))
            .set_connection_timeout(Some(Duration::from_secs(30)));
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .expect("a connection to Redis")
    }

    /// Everything that is kept, by key: two of these are equal where nothing has changed in between. Not the audit trail:
    /// there refusals leave their trace. Nor the clock's last look.
    pub async fn everything(&self) -> BTreeMap<String, Vec<u8>> {
        let mut connection = self.connection().await;
        let keys: Vec<String> = ::redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await
            .expect("the keys");
        let mut everything = BTreeMap::new();
        for key in keys
            .into_iter()
            .filter(|key| !(key.contains(":audit") || key.ends_with(":clock")))
        {
            let value: Option<Vec<u8>> = ::redis::cmd("DUMP")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .expect("a value");
            everything.extend(value.map(|value| (key, value)));
        }
        everything
    }
}

/// One key with its value, and how long it lives (ms; 0: for ever).
pub struct Backup {
    key: String,
    life: u64,
    value: Vec<u8>,
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("its number").port()
}

/// `None`: it ended before it took connections.
async fn run(dir: &Path, port: u16, settings: &[&str]) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
        ])
        .args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
        ])
        .arg("--dir")
        .arg(dir)
        .args(settings)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is on PATH: `make tools` says how to get it");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    while let Some(line) = lines.next_line().await.expect("Redis's output") {
        if line.contains("Ready to accept connections") {
            // Whatever it still says must be read, or it would wait for us.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(child);
        }
    }
    None
}
