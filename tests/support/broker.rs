//! The broker as its users have it: the binary, `serve`, over gRPC.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aks_access_broker::grpc::proto::access_broker_service_client::AccessBrokerServiceClient;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::bearer::Bearer;

/// A client of the broker's.
pub type Client = AccessBrokerServiceClient<InterceptedService<Channel, Bearer>>;

/// The file, beside a broker's configuration, with the token that its clients bring.
pub const TOKEN: &str = "token";

/// A broker's process.
pub struct BrokerProcess {
    child: Child,
    channel: Channel,
    token: Option<String>,
    address: String,
}

impl BrokerProcess {
    /// Starts one, and waits until its health says that it serves.
    pub async fn start(config: &Path) -> Self {
        Self::start_as(Self::command(config)).await
    }

    /// Starts one by a command of one's own, and waits until its health says that it serves.
    pub async fn start_as(command: Command) -> Self {
        let broker = Self::start_unready_as(command).await;
        broker.until_serving().await;
        broker
    }

    /// Waits until its health says that it serves.
    pub async fn until_serving(&self) {
        self.until_health_is(ServingStatus::Serving).await;
    }

    /// Waits until its health says that it does not serve.
    pub async fn until_not_serving(&self) {
        self.until_health_is(ServingStatus::NotServing).await;
    }

    async fn until_health_is(&self, wanted: ServingStatus) {
        let request = HealthCheckRequest::default();
        let mut health = HealthClient::new(self.channel.clone());
        let mut states = health.watch(request).await.expect("health").into_inner();
        while let Some(state) = states.message().await.expect("health goes on") {
            if state.status() == wanted {
                return;
            }
        }
        panic!("health ended before it said {wanted:?}");
    }

    /// What its health says of why it does not serve, where it does.
    pub async fn why_not_serving(&self) -> Option<String> {
        let mut health = HealthClient::new(self.channel.clone());
        let told = health.check(HealthCheckRequest::default()).await;
        let told = told.expect("health");
        let why = told.metadata().get("not-serving-because")?;
        Some(why.to_str().expect("ASCII").to_owned())
    }

    /// What its health says now.
    pub async fn is_serving(&self) -> bool {
        let mut health = HealthClient::new(self.channel.clone());
        let told = health.check(HealthCheckRequest::default()).await;
        told.expect("health").into_inner().status() == ServingStatus::Serving
    }

    /// Whether its health says that the process lives.
    pub async fn is_live(&self) -> bool {
        let mut health = HealthClient::new(self.channel.clone());
        let request = HealthCheckRequest {
            service: "live".to_owned(),
        };
        let told = health.check(request).await;
        told.expect("health").into_inner().status() == ServingStatus::Serving
    }

    /// Starts one whose log is written to a file, and waits until it serves.
    pub async fn start_with_log(config: &Path, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the log's file");
        let mut command = Self::command(config);
        command.stderr(log);
        Self::start_as(command).await
    }

    /// Starts one, and waits until it listens.
    pub async fn start_unready(config: &Path) -> Self {
        Self::start_unready_as(Self::command(config)).await
    }

    /// `serve`, with nothing but errors in its log unless `BROKER_LOG` says otherwise.
    pub fn command(config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
        command.arg("serve").arg("--config").arg(config).env(
            "AKS_ACCESS_BROKER__LOG__FILTER",
            std::env::var("BROKER_LOG").unwrap_or_else(|_| "error".to_owned()),
        );
        command
    }

    /// Starts one by a command of one's own, and waits until it listens.
    pub async fn start_unready_as(mut command: Command) -> Self {
        let token = token_beside_the_configuration(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the broker's binary");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        while let Some(line) = lines.next_line().await.expect("the broker's output") {
            if let Some(address) = line.strip_prefix("listening on ") {
                let address = format!("http://{address}");
                let channel = Endpoint::from_shared(address.clone())
                    .expect("an address")
                    .connect()
                    .await
                    .expect("the broker takes connections");
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Self {
                    child,
                    channel,
                    token,
                    address,
                };
            }
        }
        let status = child.wait().await;
        panic!("the broker ended before it listened: {status:?}");
    }

    /// Runs one that is to end by itself, with a failure, and gives its last words.
    pub async fn start_in_vain(config: &Path) -> String {
        let run = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(Duration::from_secs(30), run).await;
        let ended = ended
            .expect("it goes on, where it was to end")
            .expect("the broker's binary");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            !ended.status.success(),
            "it ended as if all were well: {told}"
        );
        told
    }

    /// A client.
    pub fn client(&self) -> Client {
        self.client_with(self.token.as_deref())
    }

    /// A client that brings this token, or none.
    pub fn client_with(&self, token: Option<&str>) -> Client {
        AccessBrokerServiceClient::with_interceptor(self.channel.clone(), Bearer::new(token))
    }

    /// The token that its clients bring.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Where it listens, `http://HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }

    /// Sends it a signal by name, such as `STOP` or `TERM`.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .await;
        assert!(
            status.expect("kill").success(),
            "no process to send {name} to"
        );
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> std::process::ExitStatus {
        self.child.wait().await.expect("its end")
    }
}

/// The token beside the file that `--config` names.
fn token_beside_the_configuration(command: &Command) -> Option<String> {
    let arguments = command.as_std().get_args();
    let config = arguments.skip_while(|it| *it != "--config").nth(1)?;
    let path = Path::new(config).with_file_name(TOKEN);
    std::fs::read_to_string(path).ok()
}
