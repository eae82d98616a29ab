//! Worlds to test in, and calls as a client makes them. No assertions here.

#![expect(
    clippy::expect_used,
    reason = "a helper of tests: its panic is a test's verdict"
)]
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::time::Duration;

use azure_emulator::{Emulator, Options, Settings};
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const TENANT: &str = "00000000-0000-4000-8000-00000000c0de";
pub(crate) const PRODUCTION: &str = "00000000-0000-4000-8000-000000000001";
pub(crate) const DEVELOPMENT: &str = "00000000-0000-4000-8000-000000000002";
pub(crate) const MANAGEMENT_GROUP: &str =
    "/providers/Microsoft.Management/managementGroups/contoso";
pub(crate) const CLUSTER: &str = "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/rg-production/providers/Microsoft.ContainerService/managedClusters/aks-production";
pub(crate) const BROKER: &str = "30000000-0000-4000-8000-000000000001";
pub(crate) const BROKER_APP: &str = "40000000-0000-4000-8000-000000000001";
pub(crate) const DEPLOY_BOT: &str = "30000000-0000-4000-8000-000000000002";
pub(crate) const DEPLOY_BOT_APP: &str = "40000000-0000-4000-8000-000000000002";
pub(crate) const ALICE: &str = "10000000-0000-4000-8000-000000000001";
pub(crate) const CAROL: &str = "10000000-0000-4000-8000-000000000003";
pub(crate) const HEIDI: &str = "10000000-0000-4000-8000-000000000008";
pub(crate) const ENGINEERING: &str = "20000000-0000-4000-8000-000000000001";
pub(crate) const PLATFORM: &str = "20000000-0000-4000-8000-000000000002";
pub(crate) const ON_CALL: &str = "20000000-0000-4000-8000-000000000003";
pub(crate) const RBAC_READER: &str = "7f6c6a51-bcf8-42ba-9220-52d62157d7db";
pub(crate) const RBAC_WRITER: &str = "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb";
pub(crate) const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
pub(crate) const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
pub(crate) const ARM: &str = "https://management.azure.com";
pub(crate) const GRAPH: &str = "https://graph.microsoft.com";

pub(crate) fn guid(text: &str) -> Uuid {
    text.parse().expect("a GUID")
}

/// A client's answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.expect("a body"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    /// Status and error code in one, as tests compare them.
    pub(crate) fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (self.status.as_u16(), code)
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// An emulator with a client that trusts it.
pub(crate) struct Azure {
    pub(crate) emulator: Emulator,
    pub(crate) client: Client,
}

pub(crate) fn client_of(ca_pem: &str) -> Client {
    Client::builder()
        .tls_certs_only([Certificate::from_pem(ca_pem.as_bytes()).expect("a certificate")])
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client")
}

impl Azure {
    /// The built-in world without lag or budgets.
    pub(crate) async fn immediate() -> Self {
        Self::with(Settings::immediate()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::start(Options {
            settings,
            ..Options::default()
        })
        .await
    }

    pub(crate) async fn start(options: Options) -> Self {
        let emulator = Emulator::start(options).await.expect("an emulator");
        let client = client_of(emulator.ca_pem());
        Self { emulator, client }
    }

    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.emulator.settings();
        change(&mut settings);
        self.emulator.set_settings(settings);
    }

    /// One call to ARM as `caller`.
    pub(crate) fn arm_as(
        &self,
        caller: &str,
        method: Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let token = self.emulator.token(guid(caller), ARM).expect("a token");
        let url = if path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.emulator.urls().arm)
        };
        self.client.request(method, url).bearer_auth(token)
    }

    pub(crate) async fn arm(&self, method: Method, path: &str) -> Answer {
        Answer::read(
            self.arm_as(BROKER, method, path)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.arm(Method::GET, path).await
    }

    pub(crate) async fn put(&self, scope: &str, name: Uuid, body: &Value) -> Answer {
        Answer::read(
            self.put_request(scope, name, body)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    pub(crate) fn put_request(
        &self,
        scope: &str,
        name: Uuid,
        body: &Value,
    ) -> reqwest::RequestBuilder {
        self.arm_as(BROKER, Method::PUT, &assignment(scope, name))
            .json(body)
    }

    pub(crate) async fn delete(&self, scope: &str, name: Uuid) -> Answer {
        self.arm(Method::DELETE, &assignment(scope, name)).await
    }

    /// A list of role assignments, all pages of it, as the assignments' names.
    pub(crate) async fn list(&self, scope: &str, filter: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut next = Some(format!(
            "{scope}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter={}",
            url::form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>()
        ));
        while let Some(path) = next {
            let page = self.get(&path).await.json();
            found.extend(page["value"].as_array().expect("a list").iter().cloned());
            next = page["nextLink"].as_str().map(str::to_owned);
        }
        found
    }

    pub(crate) async fn names(&self, scope: &str, filter: &str) -> Vec<String> {
        let listed = self.list(scope, filter).await;
        listed
            .iter()
            .map(|it| it["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    pub(crate) async fn graph(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let token = self.emulator.token(guid(BROKER), GRAPH).expect("a token");
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.emulator.urls().graph))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::read(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = self
            .client
            .post(format!(
                "{}/{TENANT}/oauth2/v2.0/token",
                self.emulator.urls().entra
            ))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        Answer::read(request.send().await.expect("an answer")).await
    }
}

/// The path of a role assignment, with the api-version.
pub(crate) fn assignment(scope: &str, name: Uuid) -> String {
    format!(
        "{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?api-version=2022-04-01"
    )
}

/// A PUT's body.
pub(crate) fn body(role: &str, principal: &str) -> Value {
    json!({"properties": {
        "roleDefinitionId": role_id(role),
        "principalId": principal,
        "principalType": if principal.starts_with('1') { "User" } else if principal.starts_with('2') { "Group" } else { "ServicePrincipal" },
    }})
}

pub(crate) fn role_id(role: &str) -> String {
    format!("/subscriptions/{PRODUCTION}/providers/Microsoft.Authorization/roleDefinitions/{role}")
}

pub(crate) fn with_description(mut body: Value, description: &str) -> Value {
    body["properties"]["description"] = description.into();
    body
}
