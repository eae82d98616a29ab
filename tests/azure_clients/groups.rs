//! The groups that somebody is in: at once, or page by page where there are too many.

use std::collections::BTreeSet;

use aks_access_broker::domain::access::PrincipalType;
use aks_access_broker::domain::ids::PrincipalId;
use aks_access_broker::domain::reason::Reason;
use azure_emulator::{Emulator, Event, FaultEffect, Group, Operation, Options, Settings, World};
use uuid::{Uuid, uuid};

use super::bench::{ALICE, azure, calls, emulator, fault, status};

const CAROL: Uuid = uuid!("10000000-0000-4000-8000-000000000003");
const DEPLOY_BOT: Uuid = uuid!("30000000-0000-4000-8000-000000000002");
const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const PLATFORM: Uuid = uuid!("20000000-0000-4000-8000-000000000002");
const ON_CALL: Uuid = uuid!("20000000-0000-4000-8000-000000000003");
const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");

fn ids(of: &[Uuid]) -> BTreeSet<PrincipalId> {
    of.iter().copied().map(PrincipalId::new).collect()
}

#[tokio::test]
async fn groups_are_told_through_other_groups_of_principals_of_every_kind() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let request = Uuid::new_v4();
    for (id, kind, groups) in [
        (
            CAROL,
            PrincipalType::User,
            ids(&[ENGINEERING, PLATFORM, ON_CALL]),
        ),
        (ON_CALL, PrincipalType::Group, ids(&[ENGINEERING, PLATFORM])),
        (
            DEPLOY_BOT,
            PrincipalType::ServicePrincipal,
            ids(&[ENGINEERING, PAYMENTS]),
        ),
    ] {
        let id = PrincipalId::new(id);
        let told = azure.transitive_groups(id, kind, request).await;
        assert_eq!(told, Ok(groups.clone()), "{id}");
        // The long way round leads to the same.
        let too_many = status(400, "Directory_ResultSizeLimitExceeded", None);
        fault(&emulator, Operation::GetMemberGroups, too_many);
        let told = azure.transitive_groups(id, kind, request).await;
        assert_eq!(told, Ok(groups), "{id}, by pages");
    }
    assert_eq!(calls(&emulator, Operation::GetMemberGroups), 6);
    assert_eq!(calls(&emulator, Operation::TransitiveMemberOf), 3);
    let history = emulator.history();
    let sent = |event: &Event| matches!(event, Event::Call(call) if call.client_request_id == Some(request.to_string()));
    assert_eq!(history.iter().filter(|event| sent(event)).count(), 9);
}

#[tokio::test]
async fn more_than_eleven_thousand_groups_are_read_page_by_page_without_mailing_lists() {
    let mut world = World::built_in();
    world.groups.extend((1..=11_001).map(|id| Group {
        id: Uuid::from_u128(id),
        display_name: format!("Group {id}"),
        security_enabled: id != 1,
        members: vec![ALICE.guid()],
    }));
    let emulator = Emulator::start(Options {
        world,
        settings: Settings::immediate(),
        ..Options::default()
    })
    .await
    .expect("an emulator");
    let azure = azure(&emulator);
    let ask = async || {
        azure
            .transitive_groups(ALICE, PrincipalType::User, Uuid::new_v4())
            .await
    };
    let groups = ask().await.expect("all of them");
    assert_eq!(groups.len(), 11_001, "11,000 and Engineering");
    assert!(groups.contains(&PrincipalId::new(ENGINEERING)));
    assert!(!groups.contains(&PrincipalId::new(Uuid::from_u128(1))));
    assert_eq!(calls(&emulator, Operation::TransitiveMemberOf), 12);

    // A page that fails is no end of the list.
    fault(
        &emulator,
        Operation::TransitiveMemberOf,
        status(503, "ServiceUnavailable", None),
    );
    let error = ask().await.expect_err("no list");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
}

#[tokio::test]
async fn whoever_is_not_there_has_no_groups_and_what_goes_wrong_is_told() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let ask = async |id| {
        azure
            .transitive_groups(id, PrincipalType::User, Uuid::new_v4())
            .await
            .expect_err("no answer")
    };
    let nobody = ask(PrincipalId::new(Uuid::from_u128(9))).await;
    assert_eq!(nobody.reason(), Reason::PrincipalNotFound);
    for (effect, reason) in [
        (
            status(403, "Authorization_RequestDenied", None),
            Reason::PrincipalNotReadable,
        ),
        (status(400, "Request_BadRequest", None), Reason::AzureError),
        (status(429, "TooManyRequests", None), Reason::AzureThrottled),
        (FaultEffect::CutAfterCommit, Reason::AzureUnavailable),
    ] {
        fault(&emulator, Operation::GetMemberGroups, effect);
        let error = ask(ALICE).await;
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.message.contains("groups of 10000000"), "{error}");
    }
    assert_eq!(calls(&emulator, Operation::TransitiveMemberOf), 0);
}
