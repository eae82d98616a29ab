//! Tokens, and what others need to check them.

mod support;

use azure_emulator::{DEFAULT_FEDERATED_AUDIENCE, FederatedCredential, Principal};
use base64::Engine;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ALICE, ARM, Azure, BROKER, BROKER_APP, CLUSTER, TENANT, guid};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn with_secret<'a>(app: &'a str, secret: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("grant_type", "client_credentials"),
        ("client_id", app),
        ("client_secret", secret),
        ("scope", "https://management.azure.com/.default"),
    ]
}

fn with_assertion(assertion: &str) -> [(&str, &str); 5] {
    [
        ("grant_type", "client_credentials"),
        ("client_id", BROKER_APP),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
        ("scope", "https://management.azure.com/.default"),
    ]
}

fn assertion_claims() -> Value {
    json!({
        "iss": "https://kubernetes.contoso.example/",
        "sub": "system:serviceaccount:access-broker:access-broker",
        "aud": [DEFAULT_FEDERATED_AUDIENCE],
        "exp": jiff::Timestamp::now().as_second() + 600,
    })
}

#[tokio::test]
async fn a_secret_gets_a_token_that_arm_takes_and_anybody_can_check() {
    let azure = Azure::immediate().await;
    let answer = azure
        .token(&with_secret(BROKER_APP, "access-broker-secret"))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let answer = answer.json();
    assert_eq!(
        (&answer["token_type"], &answer["expires_in"]),
        (&json!("Bearer"), &json!(3_599))
    );
    let token = answer["access_token"].as_str().expect("a token");

    let entra = &azure.emulator.urls().entra;
    let discovery = format!("{entra}/{TENANT}/v2.0/.well-known/openid-configuration");
    let document: Value = azure
        .client
        .get(discovery)
        .send()
        .await
        .expect("sent")
        .json()
        .await
        .expect("JSON");
    assert_eq!(document["issuer"], format!("{entra}/{TENANT}/v2.0"));
    let keys = document["jwks_uri"].as_str().expect("an address");
    let keys: JwkSet = azure
        .client
        .get(keys)
        .send()
        .await
        .expect("sent")
        .json()
        .await
        .expect("keys");
    let kid = jsonwebtoken::decode_header(token)
        .expect("a header")
        .kid
        .expect("a key id");
    let key = DecodingKey::from_jwk(keys.find(&kid).expect("the key")).expect("a key");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[ARM]);
    let claims: Value = decode(token, &key, &validation)
        .expect("a good token")
        .claims;
    assert_eq!(claims["oid"], BROKER);
    assert_eq!(claims["appid"], BROKER_APP);
    assert_eq!(claims["idtyp"], "app");
    assert_eq!(claims["tid"], TENANT);
    assert_eq!(claims["ver"], "1.0");

    let call = azure.client.get(format!(
        "{}{CLUSTER}?api-version=2024-05-01",
        azure.emulator.urls().arm
    ));
    assert_eq!(
        call.bearer_auth(token).send().await.expect("sent").status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_token_endpoint_refuses_in_entras_words() {
    let azure = Azure::immediate().await;
    let unknown = "40000000-0000-4000-8000-0000000000ff";
    let mut wrong_scope = with_secret(BROKER_APP, "access-broker-secret");
    wrong_scope[3].1 = "https://management.azure.com/user_impersonation";
    let mut wrong_resource = with_secret(BROKER_APP, "access-broker-secret");
    wrong_resource[3].1 = "https://nowhere.example/.default";
    let mut wrong_grant = with_secret(BROKER_APP, "access-broker-secret");
    wrong_grant[0].1 = "password";
    for (form, status, error, number) in [
        (
            with_secret(BROKER_APP, "wrong").as_slice(),
            401,
            "invalid_client",
            "AADSTS7000215: Invalid client secret",
        ),
        (
            with_secret(unknown, "x").as_slice(),
            400,
            "unauthorized_client",
            "AADSTS700016: Application",
        ),
        (&wrong_scope, 400, "invalid_scope", "AADSTS1002012: "),
        (&wrong_resource, 400, "invalid_resource", "AADSTS500011: "),
        (&wrong_grant, 400, "unsupported_grant_type", "AADSTS70003: "),
        (&wrong_grant[..0], 400, "invalid_request", "AADSTS900144: "),
    ] {
        let answer = azure.token(form).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.json()["error"], error);
        let description = answer.json()["error_description"]
            .as_str()
            .expect("text")
            .to_owned();
        assert!(description.starts_with(number), "{description}");
    }
    let elsewhere = format!(
        "{}/{}/oauth2/v2.0/token",
        azure.emulator.urls().entra,
        BROKER
    );
    let answer = azure
        .client
        .post(elsewhere)
        .send()
        .await
        .expect("sent")
        .text()
        .await
        .expect("text");
    assert!(answer.contains("AADSTS90002"), "{answer}");
}

#[tokio::test]
async fn a_federated_assertion_gets_a_token_and_a_wrong_one_is_told_what_does_not_fit() {
    let azure = Azure::immediate().await;
    let good = azure.emulator.sign(&assertion_claims()).expect("signed");
    assert_eq!(
        azure.token(&with_assertion(&good)).await.status,
        StatusCode::OK
    );
    for (claim, value, number) in [
        ("iss", json!("https://elsewhere.example/"), "AADSTS700211"),
        (
            "sub",
            json!("system:serviceaccount:default:default"),
            "AADSTS700213",
        ),
        ("aud", json!(["somebody-else"]), "AADSTS700212"),
        ("exp", json!(1_000_000_000), "AADSTS700024"),
    ] {
        let mut claims = assertion_claims();
        claims[claim] = value;
        let answer = azure
            .token(&with_assertion(
                &azure.emulator.sign(&claims).expect("signed"),
            ))
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{claim}");
        assert!(answer.text.contains(number), "{claim}: {}", answer.text);
    }
    let torn = azure.token(&with_assertion("no.jwt.at-all")).await;
    assert_eq!(torn.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_credential_with_a_key_of_its_own_takes_that_key_and_no_other() {
    let azure = Azure::immediate().await;
    let cluster_key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
    let world = azure.emulator.world();
    let broker = world
        .service_principals
        .into_iter()
        .find(|principal| principal.id == guid(BROKER));
    let mut broker = broker.expect("the broker");
    broker.federated_credentials = vec![FederatedCredential {
        issuer: "https://kubernetes.contoso.example/".to_owned(),
        subject: "system:serviceaccount:access-broker:access-broker".to_owned(),
        audience: DEFAULT_FEDERATED_AUDIENCE.to_owned(),
        public_key_pem: Some(public_pem(&cluster_key)),
        jwks: None,
    }];
    azure
        .emulator
        .add_principal(Principal::ServicePrincipal(broker))
        .expect("changed");

    let key = EncodingKey::from_rsa_pem(cluster_key.serialize_pem().as_bytes()).expect("a key");
    let good = encode(&Header::new(Algorithm::RS256), &assertion_claims(), &key).expect("signed");
    assert_eq!(
        azure.token(&with_assertion(&good)).await.status,
        StatusCode::OK
    );
    let emulators = azure.emulator.sign(&assertion_claims()).expect("signed");
    let answer = azure.token(&with_assertion(&emulators)).await;
    assert!(answer.text.contains("AADSTS50013"), "{}", answer.text);
    // Signed with the public key as a secret: the oldest trick against JWT libraries.
    let secret = EncodingKey::from_secret(public_pem(&cluster_key).as_bytes());
    let forged =
        encode(&Header::new(Algorithm::HS256), &assertion_claims(), &secret).expect("signed");
    assert_eq!(
        azure.token(&with_assertion(&forged)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

fn public_pem(key: &KeyPair) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(key.subject_public_key_info());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[tokio::test]
async fn arm_refuses_bad_tokens_with_401_and_a_challenge() {
    let azure = Azure::immediate().await;
    let mut expired = azure.emulator.claims(guid(BROKER), ARM).expect("claims");
    expired.exp = 1_000_000_000;
    expired.nbf = 0;
    let mut other_tenant = azure.emulator.claims(guid(BROKER), ARM).expect("claims");
    other_tenant.tid = guid(ALICE);
    let sign = |claims| format!("Bearer {}", azure.emulator.sign(&claims).expect("signed"));
    let for_graph = azure
        .emulator
        .claims(guid(BROKER), support::GRAPH)
        .expect("claims");
    for (authorization, code) in [
        (None, "AuthenticationFailed"),
        (
            Some("Bearer nonsense".to_owned()),
            "InvalidAuthenticationToken",
        ),
        (Some(sign(expired)), "ExpiredAuthenticationToken"),
        (Some(sign(for_graph)), "InvalidAuthenticationTokenAudience"),
        (Some(sign(other_tenant)), "InvalidAuthenticationTokenTenant"),
    ] {
        let url = format!(
            "{}{CLUSTER}?api-version=2024-05-01",
            azure.emulator.urls().arm
        );
        let mut request = azure.client.request(Method::GET, url);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = support::Answer::read(request.send().await.expect("sent")).await;
        assert_eq!(answer.error(), (401, code.to_owned()));
        let challenge = answer.header("www-authenticate").expect("a challenge");
        let start = format!(
            "Bearer authorization_uri=\"{}/{TENANT}\"",
            azure.emulator.urls().entra
        );
        assert!(challenge.starts_with(&start), "{challenge}");
    }
}

#[tokio::test]
async fn a_persons_token_carries_their_groups_and_one_for_an_application_is_version_2() {
    let azure = Azure::immediate().await;
    let claims = azure
        .emulator
        .claims(guid(support::CAROL), BROKER_APP)
        .expect("claims");
    assert_eq!(
        (claims.aud.as_str(), claims.ver.as_str()),
        (BROKER_APP, "2.0")
    );
    assert_eq!(
        claims.iss,
        format!("{}/{TENANT}/v2.0", azure.emulator.urls().entra)
    );
    assert_eq!(claims.upn.as_deref(), Some("carol@contoso.example"));
    let groups = [support::ENGINEERING, support::PLATFORM, support::ON_CALL]
        .map(guid)
        .to_vec();
    assert_eq!(
        claims.groups,
        Some(groups),
        "nested ones too, the mailing list not"
    );
}
