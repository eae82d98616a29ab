//! What stands in for the identity endpoint of a machine in Azure, and for the tools on a developer's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// App Service's identity endpoint: plain HTTP, on the machine itself.
pub(super) struct IdentityEndpoint {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl IdentityEndpoint {
    /// One that answers everything so.
    pub(super) async fn start(status: u16, body: serde_json::Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let request = head(&mut connection).await;
                seen.lock().unwrap().push(request);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, requests }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The heads of all requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn head(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.expect("a whole request"));
    }
    String::from_utf8(head).expect("a request is text")
}

/// A command line tool.
pub(super) struct Tool {
    directory: PathBuf,
    calls: PathBuf,
    /// What it waits for, if it does.
    pipe: Option<PathBuf>,
}

impl Drop for Tool {
    /// Nobody ends a tool that hangs but itself, once its pipe has been opened and closed.
    fn drop(&mut self) {
        if let Some(pipe) = &self.pipe {
            let opened = fs::File::options().read(true).write(true).open(pipe);
            drop(opened.unwrap());
        }
    }
}

impl Tool {
    /// One that prints this.
    pub(super) fn prints(directory: &Path, name: &str, json: &serde_json::Value) -> Self {
        let output = directory.join(format!("{name}.json"));
        fs::write(&output, json.to_string()).unwrap();
        Self::does(directory, name, &format!("cat {}", output.display()))
    }

    /// One that fails with these words.
    pub(super) fn fails(directory: &Path, name: &str, words: &str) -> Self {
        let output = directory.join(format!("{name}.error"));
        fs::write(&output, words).unwrap();
        let says = format!("cat {} >&2; exit 1", output.display());
        Self::does(directory, name, &says)
    }

    /// One that waits for a pipe that nobody writes to.
    pub(super) fn hangs(directory: &Path, name: &str) -> Self {
        let pipe = directory.join(format!("{name}.pipe"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let mut tool = Self::does(directory, name, &format!("read line <{}", pipe.display()));
        tool.pipe = Some(pipe);
        tool
    }

    fn does(directory: &Path, name: &str, what: &str) -> Self {
        let calls = directory.join(format!("{name}.calls"));
        let tool = directory.join(name);
        let script = format!("#!/bin/sh\necho \"$@\" >>{}\n{what}\n", calls.display());
        fs::write(&tool, script).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            directory: directory.to_owned(),
            calls,
            pipe: None,
        }
    }

    /// A `PATH` on which it comes first.
    pub(super) fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.directory.display())
    }

    /// The arguments of each call so far.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(&self.calls).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}
