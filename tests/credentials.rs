//! Each kind of credential, as the broker's process has it: it gets a token, and access is given with it. What is
//! secret of it is in no log, however much is logged.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "credentials/stand_ins.rs"]
mod stand_ins;
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use aks_access_broker::grpc::proto::{AzureRole, GetClusterRequest, job};
use serde_json::json;
use stand_ins::{IdentityEndpoint, Tool};
use support::ask::{access, grant, permanent};
use support::broker::BrokerProcess;
use support::refusal::Refusal;
use support::{Timing, World};
use tokio::process::Command;
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLIENT: &str = "40000000-0000-4000-8000-000000000001";
const ARM: &str = "https://management.azure.com";

/// A configuration whose credential is this.
fn config(world: &World, credential: &str) -> PathBuf {
    let emulator = world.emulator.urls();
    let path = world.config(&Timing::default(), &world.redis.url(), &emulator.arm);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("  credential:\n").unwrap();
    let (_, after) = rest.split_once("  endpoints:\n").unwrap();
    let text = format!("{before}  credential: {credential}\n  endpoints:\n{after}");
    fs::write(&path, text).unwrap();
    path
}

/// A broker's command that logs everything there is to a file.
fn logging(world: &World, credential: &str) -> Command {
    let mut command = BrokerProcess::command(&config(world, credential));
    let log = fs::File::create(world.dir.path().join("log")).unwrap();
    command
        .env("AKS_ACCESS_BROKER__LOG__FILTER", "trace")
        .stderr(Stdio::from(log));
    command
}

/// An access token of the broker's own service principal for ARM, as Entra would give it.
fn token(world: &World) -> String {
    let principals = world.emulator.world().service_principals;
    let mut broker = principals.iter();
    let broker = broker.find(|app| app.app_id.to_string() == CLIENT).unwrap();
    world.emulator.token(broker.id, ARM).unwrap()
}

/// Starts the broker and has it give access; then none of the secrets may stand in its log.
async fn gives_access(world: &World, command: Command, secrets: &[&str]) {
    let broker = BrokerProcess::start_as(command).await;
    let cluster = world.cluster("aks-production");
    let access = access(AzureRole::RbacReader, &[]);
    let request = permanent(ALICE, &cluster, access);
    let (_, job) = grant(&mut broker.client(), request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 2, "Cluster User and the role");
    broker.kill().await;
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("Azure answered"), "nothing is logged");
    for secret in secrets {
        assert!(
            !secret.is_empty() && !log.contains(secret),
            "a secret is in the log"
        );
    }
}

/// What a caller is told, by a broker that cannot get a token.
async fn refusal(world: &World, command: Command) -> Refusal {
    let broker = BrokerProcess::start_unready_as(command).await;
    let cluster = world.cluster("aks-production");
    let request = GetClusterRequest { cluster };
    Refusal::from(broker.client().get_cluster(request).await)
}

#[tokio::test]
async fn a_client_secret() {
    let world = World::start().await;
    let secret = world.dir.path().join("secret");
    let credential = format!(
        "{{client_secret: {{client_id: {CLIENT}, client_secret_file: {}}}}}",
        secret.display()
    );
    let command = logging(&world, &credential);
    gives_access(&world, command, &["access-broker-secret", "Bearer ey"]).await;
}

#[tokio::test]
async fn a_workload_identity_as_a_pod_on_aks_has_it() {
    let world = World::start().await;
    let now = jiff::Timestamp::now().as_second();
    let assertion = world.emulator.sign(&json!({
        "iss": "https://kubernetes.contoso.example/",
        "sub": "system:serviceaccount:access-broker:access-broker",
        "aud": ["api://AzureADTokenExchange"],
        "iat": now, "nbf": now, "exp": now + 600,
    }));
    let assertion = assertion.unwrap();
    let file = world.dir.path().join("azure-identity-token");
    fs::write(&file, &assertion).unwrap();
    let mut command = logging(&world, "{workload_identity: {}}");
    command
        .env("AZURE_CLIENT_ID", CLIENT)
        .env("AZURE_TENANT_ID", Uuid::nil().to_string())
        .env("AZURE_FEDERATED_TOKEN_FILE", &file)
        .env("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/");
    gives_access(&world, command, &[&assertion, "Bearer ey"]).await;
}

#[tokio::test]
async fn a_service_account_token_that_cannot_be_read_says_why() {
    let world = World::start().await;
    let directory = world.dir.path().display();
    let told = BrokerProcess::start_in_vain(&config(
        &world,
        &format!("{{workload_identity: {{client_id: {CLIENT}, token_file: {directory}}}}}"),
    ))
    .await;
    for part in [&directory.to_string(), "Is a directory"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[tokio::test]
async fn a_managed_identity_of_the_system_s_or_a_user_s() {
    for (credential, asked_for) in [
        ("{managed_identity: {}}".to_owned(), ""),
        (
            format!("{{managed_identity: {{client_id: {CLIENT}}}}}"),
            "&client_id=40000000-0000-4000-8000-000000000001",
        ),
    ] {
        let world = World::start().await;
        let token = token(&world);
        let in_an_hour = jiff::Timestamp::now().as_second() + 3_599;
        let endpoint = IdentityEndpoint::start(
            200,
            json!({
                "access_token": token,
                "expires_on": in_an_hour.to_string(),
                "resource": ARM,
                "token_type": "Bearer",
                "client_id": CLIENT,
            }),
        )
        .await;
        let mut command = logging(&world, &credential);
        command
            .env("IDENTITY_ENDPOINT", endpoint.url())
            .env("IDENTITY_HEADER", "the-machine-s-own-secret")
            // It is next door: no proxy is asked to ask for it.
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("http_proxy", "http://127.0.0.1:1");
        gives_access(&world, command, &[&token, "the-machine-s-own-secret"]).await;
        let requests = endpoint.requests();
        assert_eq!(
            requests.len(),
            1,
            "one token serves all calls: {requests:?}"
        );
        let path = format!(
            "GET /token?api-version=2019-08-01&resource=https%3A%2F%2Fmanagement.azure.com{asked_for} HTTP/1.1"
        );
        assert!(requests[0].starts_with(&path), "{requests:?}");
        let header = "x-identity-header: the-machine-s-own-secret";
        assert!(requests[0].to_lowercase().contains(header), "{requests:?}");
    }
}

#[tokio::test]
async fn a_managed_identity_that_the_machine_has_not_got_is_the_operator_s_to_mend() {
    let world = World::start().await;
    let endpoint = IdentityEndpoint::start(400, json!({})).await;
    let mut command = logging(&world, "{managed_identity: {}}");
    command
        .env("IDENTITY_ENDPOINT", endpoint.url())
        .env("IDENTITY_HEADER", "the-machine-s-own-secret");
    let refusal = refusal(&world, command).await;
    assert_eq!(
        refusal.kind(),
        (Code::Unavailable, "AZURE_CREDENTIALS_REFUSED"),
        "{refusal:?}"
    );
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    let why = "The requested identity has not been assigned to this resource";
    assert!(log.contains(why), "{log}");
}

#[tokio::test]
async fn whoever_is_logged_in_with_the_azure_cli() {
    let world = World::start().await;
    let token = token(&world);
    let az = Tool::prints(
        world.dir.path(),
        "az",
        &json!({
            "accessToken": token,
            "expires_on": jiff::Timestamp::now().as_second() + 3_599,
            "tokenType": "Bearer",
        }),
    );
    let mut command = logging(&world, "{developer_tools: {}}");
    command.env("PATH", az.path());
    gives_access(&world, command, &[&token]).await;
    let tenant = world.emulator.world().tenant;
    assert_eq!(
        az.calls(),
        [format!(
            "account get-access-token -o json --scope {ARM}/.default --tenant {tenant}"
        )]
    );
}

#[tokio::test]
async fn whoever_is_logged_in_with_the_azure_developer_cli_where_nobody_is_with_the_other() {
    let world = World::start().await;
    let token = token(&world);
    let az = Tool::fails(world.dir.path(), "az", "Please run 'az login'");
    let in_an_hour = jiff::Timestamp::now() + jiff::Span::new().hours(1);
    let azd = Tool::prints(
        world.dir.path(),
        "azd",
        &json!({"token": token, "expiresOn": in_an_hour.to_string()}),
    );
    let mut command = logging(&world, "{developer_tools: {}}");
    command.env("PATH", azd.path());
    gives_access(&world, command, &[&token]).await;
    assert_eq!(az.calls().len(), 1);
    let tenant = world.emulator.world().tenant;
    assert_eq!(
        azd.calls(),
        [format!(
            "auth token -o json --no-prompt --scope {ARM}/.default --tenant-id {tenant}"
        )]
    );
}

#[tokio::test]
async fn where_nobody_is_logged_in_both_tools_say_so() {
    let world = World::start().await;
    let az = Tool::fails(world.dir.path(), "az", "Please run 'az login'");
    Tool::fails(
        world.dir.path(),
        "azd",
        "not logged in, run `azd auth login`",
    );
    let mut command = logging(&world, "{developer_tools: {}}");
    command.env("PATH", az.path());
    let refusal = refusal(&world, command).await;
    assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    for part in ["Please run 'az login'", "run `azd auth login`"] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
}

#[tokio::test]
async fn a_tool_that_hangs_is_given_up_in_time() {
    let world = World::start().await;
    let az = Tool::hangs(world.dir.path(), "az");
    let mut command = logging(&world, "{developer_tools: {}}");
    command.env("PATH", az.path());
    let refusal = refusal(&world, command).await;
    assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("az and azd gave none within 2 s"), "{log}");
}
