//! Principals of a test's world, and requests that name them in each way.

use aks_access_broker::grpc::proto::{
    AzureRole, CheckAccessRequest, CheckAccessResponse, Decision, GrantRequest, GrantSelector,
    ListGrantsRequest, Principal, PrincipalRef, PrincipalType, job,
};
use azure_emulator::{Fault, FaultEffect, Operation, User};
use tonic::{Response, Status};
use uuid::{Uuid, uuid};

use super::support::ask::{self, access, permanent};
use super::support::broker::{BrokerProcess, Client};
use super::support::refusal::Refusal;
use super::support::{Timing, World};

pub(super) const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
pub(super) const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
pub(super) const NINA: Uuid = uuid!("10000000-0000-4000-8000-00000000000c");
pub(super) const PLATFORM: Uuid = uuid!("20000000-0000-4000-8000-000000000002");
pub(super) const BROKER: Uuid = uuid!("30000000-0000-4000-8000-000000000001");
pub(super) const DEPLOY_BOT: Uuid = uuid!("30000000-0000-4000-8000-000000000002");
pub(super) const DEPLOY_BOT_APP: Uuid = uuid!("40000000-0000-4000-8000-000000000002");
pub(super) const DEVICE: Uuid = uuid!("50000000-0000-4000-8000-000000000001");
pub(super) const NOBODY: Uuid = uuid!("10000000-0000-4000-8000-0000000000ff");

/// What a broker asks Graph.
pub(super) const GRAPH: [Operation; 3] = [
    Operation::UserRead,
    Operation::ServicePrincipalRead,
    Operation::GetByIds,
];

pub(super) async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

pub(super) fn by_name(name: &str) -> PrincipalRef {
    PrincipalRef {
        user_principal_name: name.to_owned(),
        ..PrincipalRef::default()
    }
}

pub(super) fn by_application(id: Uuid) -> PrincipalRef {
    PrincipalRef {
        application_id: id.to_string(),
        ..PrincipalRef::default()
    }
}

pub(super) fn by_id(id: Uuid) -> PrincipalRef {
    PrincipalRef {
        object_id: id.to_string(),
        ..PrincipalRef::default()
    }
}

pub(super) fn typed(id: Uuid, kind: PrincipalType) -> PrincipalRef {
    PrincipalRef {
        r#type: kind.into(),
        ..by_id(id)
    }
}

/// Each way that needs Graph.
pub(super) fn looked_up() -> [PrincipalRef; 3] {
    [
        by_name("alice@contoso.example"),
        by_application(DEPLOY_BOT_APP),
        by_id(PLATFORM),
    ]
}

pub(super) fn reads(world: &World, principal: PrincipalRef) -> GrantRequest {
    GrantRequest {
        principal: Some(principal),
        ..permanent(
            ALICE,
            &world.cluster("aks-production"),
            access(AzureRole::RbacReader, &[]),
        )
    }
}

pub(super) async fn check(
    client: &mut Client,
    world: &World,
    principal: PrincipalRef,
) -> Result<Response<CheckAccessResponse>, Status> {
    let request = CheckAccessRequest {
        principal: Some(principal),
        cluster: world.cluster("aks-production"),
        access: Some(access(AzureRole::RbacReader, &[])),
        consistency: Some(ask::now()),
        explain: true,
        ..CheckAccessRequest::default()
    };
    client.check_access(request).await
}

/// Grants, and sees that Azure has it for this principal as this type, and that a check, asked in the same
/// way, finds it and says who was meant.
pub(super) async fn gets_in(
    client: &mut Client,
    world: &World,
    asked: PrincipalRef,
    expected: &Principal,
) {
    let (granted, job) = ask::grant(client, reads(world, asked.clone())).await;
    assert_eq!(job.state(), job::State::Succeeded, "{asked:?}: {job:?}");
    let told = granted.grant.and_then(|grant| grant.principal).unwrap();
    assert_eq!(told, *expected, "{asked:?}");

    let ours: Vec<_> = world
        .emulator
        .role_assignments()
        .into_iter()
        .filter(|it| it.principal.to_string() == expected.object_id && it.description.is_some())
        .collect();
    assert_eq!(ours.len(), 2, "{asked:?}");
    let kind = match expected.r#type() {
        PrincipalType::User => azure_emulator::PrincipalType::User,
        PrincipalType::Group => azure_emulator::PrincipalType::Group,
        PrincipalType::ServicePrincipal => azure_emulator::PrincipalType::ServicePrincipal,
        PrincipalType::Unspecified => panic!("a principal without a type"),
    };
    assert!(ours.iter().all(|it| it.principal_type == kind), "{ours:?}");

    let answer = check(client, world, asked.clone())
        .await
        .expect("an answer");
    let answer = answer.into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{asked:?}");
    assert_eq!(answer.principal.as_ref(), Some(expected), "{asked:?}");
}

pub(super) fn of(principal: PrincipalRef) -> GrantSelector {
    GrantSelector {
        principal: Some(principal),
        ..GrantSelector::default()
    }
}

pub(super) fn principal(
    id: Uuid,
    kind: PrincipalType,
    display_name: &str,
    name: &str,
) -> Principal {
    Principal {
        object_id: id.to_string(),
        r#type: kind.into(),
        display_name: display_name.to_owned(),
        user_principal_name: name.to_owned(),
    }
}

pub(super) fn add_user(world: &World, id: Uuid, name: &str) {
    let user = User {
        id,
        display_name: format!("Bearer of {name}"),
        user_principal_name: name.to_owned(),
        account_enabled: true,
    };
    world
        .emulator
        .add_principal(azure_emulator::Principal::User(user))
        .expect("a user");
}

/// The ids of the live grants that a selector matches.
pub(super) async fn listed(
    client: &mut Client,
    selector: GrantSelector,
) -> Result<Vec<String>, Status> {
    let request = ListGrantsRequest {
        selector: Some(selector),
        ..ListGrantsRequest::default()
    };
    let found = client.list_grants(request).await?.into_inner();
    Ok(found.grants.into_iter().map(|it| it.grant_id).collect())
}

/// Nothing is kept but the broker's own instance, and nobody has tried to assign anything.
pub(super) async fn nothing_was_queued(world: &World) {
    let kept: Vec<String> = world.redis.everything().await.into_keys().collect();
    assert_eq!(kept, ["{aab:main}:meta"]);
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);
}

/// Refused as a grant and as a check, in the same words.
pub(super) async fn refused(client: &mut Client, world: &World, asked: &PrincipalRef) -> Refusal {
    let grant = Refusal::from(client.grant(reads(world, asked.clone())).await);
    let check = Refusal::from(check(client, world, asked.clone()).await);
    // Graph's own words hold an id of each call.
    assert_eq!(grant.kind(), check.kind());
    assert_eq!(grant.metadata, check.metadata);
    assert_eq!(grant.retry_after, check.retry_after);
    grant
}

pub(super) fn graph_is_down(world: &World, effect: &FaultEffect) {
    for operation in GRAPH {
        world
            .emulator
            .add_fault(Fault::always(operation, effect.clone()));
    }
}

pub(super) fn status(status: u16, code: &str, retry_after: Option<&str>) -> FaultEffect {
    FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "Graph's own words.".to_owned(),
        retry_after: retry_after.map(ToOwned::to_owned),
    }
}
