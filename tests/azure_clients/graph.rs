//! Microsoft Graph: who a name leads to, and what is made of it when there is no answer.

use std::time::Duration;

use aks_access_broker::azure::{Azure, AzureSettings, DirectoryObject};
use aks_access_broker::domain::access::{Principal, PrincipalType};
use aks_access_broker::domain::ids::{ApplicationId, PrincipalId};
use aks_access_broker::domain::reason::Reason;
use aks_access_broker::domain::user_principal_name::UserPrincipalName;
use azure_emulator::{Emulator, Event, FaultEffect, Operation, Settings, User};
use proptest::test_runner::{Config, TestRunner};
use url::Url;
use uuid::{Uuid, uuid};

use super::bench::{ALICE, azure, calls, emulator, fault, settings, status};

const DEPLOY_BOT: Uuid = uuid!("30000000-0000-4000-8000-000000000002");
const DEPLOY_BOT_APP: Uuid = uuid!("40000000-0000-4000-8000-000000000002");
const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const DEVICE: Uuid = uuid!("50000000-0000-4000-8000-000000000001");

fn name(text: &str) -> UserPrincipalName {
    UserPrincipalName::parse(text).expect("a name")
}

fn alice() -> Principal {
    Principal {
        id: ALICE,
        kind: PrincipalType::User,
        display_name: "Alice Adams".to_owned(),
        user_principal_name: "alice@contoso.example".to_owned(),
    }
}

fn add(emulator: &Emulator, id: Uuid, user_principal_name: &str) {
    let user = User {
        id,
        display_name: "Somebody".to_owned(),
        user_principal_name: user_principal_name.to_owned(),
        account_enabled: true,
    };
    emulator
        .add_principal(azure_emulator::Principal::User(user))
        .expect("a user");
}

#[tokio::test]
async fn principals_are_found_by_name_by_application_and_by_id() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let request = Uuid::new_v4();
    for text in ["alice@contoso.example", "ALICE@Contoso.Example"] {
        let found = azure.user(&name(text), request).await.expect("alice");
        assert_eq!(found, alice(), "{text}");
    }
    let bot = azure
        .service_principal(ApplicationId::new(DEPLOY_BOT_APP), request)
        .await
        .expect("the bot");
    assert_eq!(bot.id, PrincipalId::new(DEPLOY_BOT));
    assert_eq!(bot.kind, PrincipalType::ServicePrincipal);
    assert_eq!(bot.display_name, "deploy-bot");
    for (id, expected) in [
        (ALICE.guid(), Some(DirectoryObject::Principal(alice()))),
        (DEPLOY_BOT, Some(DirectoryObject::Principal(bot))),
        (DEVICE, Some(DirectoryObject::Other("device".to_owned()))),
        (Uuid::from_u128(1), None),
    ] {
        let found = azure.directory_object(PrincipalId::new(id), request).await;
        assert_eq!(found.expect("an answer"), expected, "{id}");
    }
    let group = azure
        .directory_object(PrincipalId::new(ENGINEERING), request)
        .await;
    let Some(DirectoryObject::Principal(group)) = group.expect("an answer") else {
        panic!("no group");
    };
    assert_eq!(group.kind, PrincipalType::Group);
    assert_eq!(calls(&emulator, Operation::Token), 1, "one token for all");
    let history = emulator.history();
    let sent = |event: &Event| matches!(event, Event::Call(call) if call.client_request_id == Some(request.to_string()));
    assert_eq!(history.iter().filter(|event| sent(event)).count(), 8);
}

/// Whatever may stand in a name arrives at Graph as it is, and leads to whoever bears it.
#[tokio::test(flavor = "multi_thread")]
async fn any_well_formed_name_leads_to_who_bears_it() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let names = r"[^@/?\\\s\p{Cc}]{1,30}@[a-z][^@/?\\\s\p{Cc}]{0,30}";
    let mut runner = TestRunner::new(Config::with_cases(100));
    let handle = tokio::runtime::Handle::current();
    let ran = runner.run(
        &proptest::string::string_regex(names).expect("a pattern"),
        |text| {
            let id = Uuid::new_v4();
            add(&emulator, id, &text);
            let asked = name(&text);
            let look_up = azure.user(&asked, Uuid::new_v4());
            let found = tokio::task::block_in_place(|| handle.block_on(look_up));
            proptest::prop_assert_eq!(found.map(|user| user.id), Ok(PrincipalId::new(id)));
            emulator.delete_principal(id).expect("it was there");
            Ok(())
        },
    );
    ran.expect("every name arrives");
}

#[tokio::test]
async fn whoever_is_not_there_is_told_from_whatever_else_goes_wrong() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let ask = async || {
        let asked = name("alice@contoso.example");
        azure
            .user(&asked, Uuid::new_v4())
            .await
            .expect_err("no answer")
    };
    let nobody = azure
        .user(&name("nobody@contoso.example"), Uuid::new_v4())
        .await;
    assert_eq!(
        nobody.expect_err("nobody").reason(),
        Reason::PrincipalNotFound
    );
    let no_bot = azure
        .service_principal(ApplicationId::new(Uuid::from_u128(1)), Uuid::new_v4())
        .await;
    assert_eq!(
        no_bot.expect_err("no bot").reason(),
        Reason::PrincipalNotFound
    );
    for (effect, reason) in [
        (status(404, "NotFound", None), Reason::AzureError),
        (status(400, "Request_BadRequest", None), Reason::AzureError),
        (
            status(403, "Authorization_RequestDenied", None),
            Reason::PrincipalNotReadable,
        ),
        (
            status(429, "TooManyRequests", Some("2.128")),
            Reason::AzureThrottled,
        ),
        (
            status(503, "ServiceUnavailable", Some("9")),
            Reason::AzureUnavailable,
        ),
        (FaultEffect::CutBeforeCommit, Reason::AzureUnavailable),
        (FaultEffect::CutAfterCommit, Reason::AzureUnavailable),
    ] {
        let told = format!("{effect:?}");
        let before = calls(&emulator, Operation::UserRead);
        fault(&emulator, Operation::UserRead, effect);
        let error = ask().await;
        assert_eq!(error.reason(), reason, "{told}: {error}");
        assert!(
            error.message.contains("user alice@contoso.example"),
            "{error}"
        );
        assert_eq!(
            calls(&emulator, Operation::UserRead),
            before + 1,
            "{told}: once"
        );
        match error.status {
            Some(429) => assert_eq!(error.retry_after, Some(Duration::from_millis(2_128))),
            Some(503) => assert_eq!(error.retry_after, Some(Duration::from_secs(9))),
            _ => assert_eq!(error.retry_after, None),
        }
        assert_eq!(
            error.status.is_some(),
            !error.request_id.is_empty(),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_graph_that_is_silent_is_given_up_on_and_arm_does_not_mind() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        call_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(200),
        ..settings(&emulator)
    })
    .expect("clients");
    let hold = FaultEffect::Hold {
        name: "graph".to_owned(),
    };
    fault(&emulator, Operation::GetByIds, hold);
    let error = azure
        .directory_object(ALICE, Uuid::new_v4())
        .await
        .expect_err("silence");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
    assert!(error.message.contains("no answer within 0.3 s"), "{error}");
    assert_eq!(emulator.release("graph"), 1);

    let elsewhere = Azure::new(AzureSettings {
        graph_endpoint: Url::parse("https://127.0.0.1:1").expect("a URL"),
        ..settings(&emulator)
    })
    .expect("clients");
    let error = elsewhere
        .directory_object(ALICE, Uuid::new_v4())
        .await
        .expect_err("nobody there");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
    elsewhere.fetch_access_token().await.expect("ARM's token");
}

/// A token is for one of the two, and each has its own.
#[tokio::test]
async fn a_token_that_graph_refuses_is_replaced_and_none_is_no_answer() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    azure.fetch_access_token().await.expect("ARM's token");
    let ask = async || azure.directory_object(ALICE, Uuid::new_v4()).await;
    ask().await.expect("an answer");
    assert_eq!(calls(&emulator, Operation::Token), 2);
    fault(
        &emulator,
        Operation::GetByIds,
        status(401, "InvalidAuthenticationToken", None),
    );
    let error = ask().await.expect_err("a refused token");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
    fault(&emulator, Operation::Token, FaultEffect::CutBeforeCommit);
    let error = ask().await.expect_err("no token");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
    assert!(error.message.contains("no access token"), "{error}");
    ask().await.expect("an answer");
    assert_eq!(calls(&emulator, Operation::Token), 4);
}
